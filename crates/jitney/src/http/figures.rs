//! Every limit in force, and how much of it is in use: for `/v1/info` and `/metrics`.

use super::App;
use crate::driver::port::Info;
use crate::metrics::Limit;

/// All limits but the log's size, which has a limit only where there is a log.
///
/// Without `info` the driver could not be asked; what only it knows is left out.
pub(super) fn limits(app: &App, info: Option<&Info>) -> Vec<Limit> {
    let limits = app.limits();
    let of_driver = |read: fn(&Info) -> u64| info.map(read);
    let connections = Some(app.metrics().connections_open());
    let rows = [
        (
            "jobs_max",
            limits.jobs_max,
            of_driver(|info| info.usage.unsettled),
        ),
        ("max_job_bytes", limits.job_bytes_max, None),
        ("max_body_bytes", limits.body_bytes_max, None),
        (
            "bodies_bytes_max",
            limits.bodies_bytes_max,
            Some(app.bodies().held()),
        ),
        (
            "queued_bytes_max",
            limits.queued_bytes_max,
            of_driver(|info| info.usage.queued_bytes),
        ),
        ("waiters_max", limits.waiters_max, of_driver(|info| info.waiters)),
        ("connections_max", limits.connections_max, connections),
        (
            "processors_max",
            limits.processors_max,
            of_driver(|info| info.processors),
        ),
        ("children_max", limits.children_max, None),
        ("keys_max", limits.keys_max, of_driver(|info| info.usage.keys)),
        (
            "results_max",
            limits.results_max,
            of_driver(|info| info.usage.results),
        ),
        (
            "result_bytes_max",
            limits.result_bytes_max,
            of_driver(|info| info.usage.result_bytes),
        ),
    ];
    let log_bytes = of_driver(|info| info.usage.segments_bytes());
    let log = limits
        .log_bytes_max
        .map(|limit| ("log_bytes_max", limit, log_bytes));
    rows.into_iter()
        .chain(log)
        .map(|(name, limit, used)| Limit { name, limit, used })
        .collect()
}

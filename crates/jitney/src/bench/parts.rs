//! Parts of jitney alone, on a thread of their own, without a server.

use std::sync::Arc;

use super::context::Context;
use super::error::Error;
use super::report::{Report, Target, Unit};
use super::{dispatcher, log};

/// Pending jobs, if nothing else is said: the first is the one that the others are compared with.
const PENDING: [u64; 3] = [1_000, 1_000_000, 10_000_000];

pub(super) async fn log(context: &Context<'_>) -> Result<Report, Error> {
    let (duration, payload_bytes) = (context.options.duration, context.options.payload_bytes);
    let progress = Arc::clone(&context.progress);
    let scratch = Arc::clone(&context.scratch);
    progress.begin("the log and a bare loop in turn");
    let rates = blocking(move || log::measure(&scratch, duration, payload_bytes, &progress)).await??;
    let mut report = context.report("log");
    report.set("jobs per commit", 128);
    let [submits, outcomes] = rates.frame_bytes;
    report.set("frames", format!("{submits} and {outcomes} bytes"));
    report.add("bare_loop", rates.bare, Unit::JobsPerSecond);
    report.add("log", rates.pipelined, Unit::JobsPerSecond);
    report.add("log_on_one_thread", rates.inline, Unit::JobsPerSecond);
    report.aim(
        "ratio",
        rates.pipelined / rates.bare,
        Unit::Ratio,
        Target::AtLeast(0.85),
    );
    report.add("ratio_on_one_thread", rates.inline / rates.bare, Unit::Ratio);
    Ok(report)
}

pub(super) async fn dispatcher(context: &Context<'_>) -> Result<Report, Error> {
    let mut report = context.report("dispatcher");
    report.set("jobs per batch", 64);
    let mut pending = context.options.pending.clone();
    if pending.is_empty() {
        pending = PENDING.to_vec();
    }
    let mut first = None;
    for jobs in pending {
        context.progress.check()?;
        context
            .progress
            .begin(format!("the dispatcher with {jobs} pending"));
        let duration = context.options.duration;
        let cost = blocking(move || dispatcher::measure(jobs, duration)).await?;
        let nanos = cost.nanos_per_job();
        match jobs {
            1_000_000 => report.aim("step_at_1m", nanos, Unit::NanosPerJob, Target::AtMost(1_000.0)),
            10_000_000 => report.aim("step_at_10m", nanos, Unit::NanosPerJob, Target::AtMost(1_500.0)),
            1_000 => report.add("step_at_1k", nanos, Unit::NanosPerJob),
            _ => report.add("step", nanos, Unit::NanosPerJob),
        }
        let first = *first.get_or_insert(nanos);
        if jobs == 1_000_000 {
            report.aim(
                "throughput_at_1m",
                first / nanos,
                Unit::Ratio,
                Target::AtLeast(0.75),
            );
        }
    }
    Ok(report)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Server(format!("a part of the bench failed: {error}")))
}

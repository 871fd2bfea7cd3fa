//! What operators and their tools look at.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};

use super::error::{Code, Problem, Result};
use super::json::Json;
use super::parse::query::Query;
use super::{App, figures, headers, submit, view};
use crate::dispatcher::event::LaneStats;
use crate::driver::port::{Answer, Command, Info, Readiness};
use crate::driver::refusal::Refusal;
use crate::job::Status;
use crate::limits::Limits;
use crate::metrics::{Limit, Moment, ServerMoment};
use crate::units::{format_duration, format_size};

/// What this server can do; a newer client sends an older server only what is listed.
pub(super) const FEATURES: [&str; 16] = [
    "submit",
    "envelope",
    "many",
    "ndjson",
    "wait",
    "client_id",
    "idempotency_key",
    "labels",
    "lease",
    "settle",
    "extend",
    "children",
    "routes",
    "traceparent",
    "pause",
    "policies",
];

/// `GET /v1/lanes`
pub(super) async fn lanes(State(app): State<App>, request: Request) -> Result<Response<Body>> {
    headers::check_accept(request.headers())?;
    Query::parse(request.uri(), &[], &[])?;
    Ok(view::json_response(StatusCode::OK, lanes_json(&app).await?))
}

/// The answer of `/v1/lanes`.
pub(crate) async fn lanes_json(app: &App) -> Result<Json> {
    let lanes = ask_lanes(app).await?;
    let mut json = Json::with_capacity(64 + 320 * lanes.len());
    json.open();
    json.key("lanes");
    json.open_list();
    for lane in &lanes {
        write_lane(&mut json, lane);
    }
    json.close_list();
    json.close();
    Ok(json)
}

fn write_lane(json: &mut Json, lane: &LaneStats) {
    json.open();
    json.key("processor");
    json.string(lane.processor.as_str());
    json.key("priority");
    json.string(lane.priority.name());
    json.key("paused");
    json.boolean(lane.paused);
    json.key("queued");
    json.number(lane.queued);
    // Delays come with a later version.
    json.key("scheduled");
    json.number(0);
    json.key("running");
    json.number(lane.running);
    json.key("retrying");
    json.number(lane.retrying);
    json.key("dead");
    json.number(lane.dead);
    json.key("oldest_age_ms");
    match lane.oldest_age {
        Some(age) => json.millis(age),
        None => json.null(),
    }
    json.key("workers");
    json.number(u64::from(lane.workers));
    json.key("workers_not_ready");
    json.number(u64::from(lane.workers_not_ready));
    json.key("not_ready");
    match &lane.not_ready {
        Some((worker, why)) => {
            json.open();
            json.key("worker");
            json.string(worker);
            json.key("why");
            json.string(why);
            json.close();
        }
        None => json.null(),
    }
    json.key("arrived");
    json.number(lane.arrived);
    json.key("dispatched");
    json.number(lane.dispatched);
    json.key("ended");
    json.number(lane.ended.all());
    for (status, count) in [
        (Status::ProcessedOk, lane.ended.ok),
        (Status::ProcessedError, lane.ended.error),
        (Status::BatchFailed, lane.ended.failed),
    ] {
        json.key(status.name());
        json.number(count);
    }
    json.key("rate_in");
    json.tenths(lane.rate_in);
    json.key("rate_out");
    json.tenths(lane.rate_out);
    json.key("predicted_wait_ms");
    match lane.predicted_wait {
        Some(wait) => json.millis(wait),
        None => json.null(),
    }
    json.close();
}

/// `GET /v1/info`
pub(super) async fn info(State(app): State<App>, request: Request) -> Result<Response<Body>> {
    headers::check_accept(request.headers())?;
    Query::parse(request.uri(), &[], &[])?;
    Ok(view::json_response(StatusCode::OK, info_json(&app).await?))
}

/// The answer of `/v1/info`.
pub(crate) async fn info_json(app: &App) -> Result<Json> {
    let info = ask_info(app).await?;
    let mut json = Json::with_capacity(1024);
    json.open();
    json.key("version");
    json.string(env!("CARGO_PKG_VERSION"));
    json.key("bus");
    json.string(info.capabilities.name);
    json.key("durable");
    json.boolean(info.capabilities.durable);
    json.key("state");
    json.string(state_name(info.readiness));
    json.key("features");
    json.open_list();
    for feature in FEATURES {
        json.string(feature);
    }
    json.close_list();
    write_limits(&mut json, app.limits(), &figures::limits(app, Some(&info)));
    write_usage(&mut json, app, &info);
    json.close();
    Ok(json)
}

fn write_limits(json: &mut Json, limits: &Limits, rows: &[Limit]) {
    json.key("limits");
    json.open();
    for row in rows {
        json.key(row.name);
        json.number(row.limit);
    }
    if limits.log_bytes_max.is_none() {
        json.key("log_bytes_max");
        json.null();
    }
    for (name, value) in [
        ("wait_max", limits.wait_max),
        ("result_ttl", limits.result_ttl),
        ("key_ttl", limits.key_ttl),
    ] {
        json.key(name);
        json.string(&format_duration(value));
    }
    json.close();
}

fn write_usage(json: &mut Json, app: &App, info: &Info) {
    let usage = &info.usage;
    json.key("usage");
    json.open();
    for (name, value) in [
        ("jobs", usage.unsettled),
        ("results", usage.results),
        ("result_bytes", usage.result_bytes),
        ("results_evicted", usage.results_evicted),
        ("keys", usage.keys),
        ("disk_bytes", usage.disk_bytes),
        ("spare_bytes", usage.spare_bytes),
        ("live_bytes", usage.live_bytes),
        ("queued_bytes", usage.queued_bytes),
        ("commit_groups", usage.groups),
        ("syncs", usage.syncs),
        ("waiters", info.waiters),
        ("processors", info.processors),
        ("connections", app.metrics().connections_open()),
        ("bodies_bytes", app.bodies().held()),
    ] {
        json.key(name);
        json.number(value);
    }
    json.close();
}

/// `GET /healthz`: the process serves; whether it can take work is `/readyz`'s to say.
pub(super) async fn healthz() -> Response<Body> {
    plain_text("ok\n")
}

/// `GET /readyz`
pub(super) async fn readyz(State(app): State<App>) -> Result<Response<Body>> {
    check_ready(&app).await?;
    Ok(plain_text("ready\n"))
}

/// Fails with the reason while the server cannot take work.
pub(crate) async fn check_ready(app: &App) -> Result<()> {
    let info = ask_info(app).await?;
    match info.readiness {
        Readiness::Ready => Ok(()),
        Readiness::Recovering => Err(Refusal::Recovering.into()),
        Readiness::Draining => Err(Refusal::Draining.into()),
        Readiness::DiskFull => Err(Refusal::DiskFull.into()),
        Readiness::LogTooSmall => Err(Problem::new(
            Code::DiskFull,
            format!(
                "no new jobs are taken: the log has reached `log_bytes_max`, {}, and needs {}, three segments of \
                 `segment_bytes`; raise the one or lower the other, and start again",
                format_size(app.limits().log_bytes_max.unwrap_or(0)),
                format_size(info.usage.needed_bytes),
            ),
        )),
        Readiness::Poisoned => Err(Problem::new(
            Code::OutcomeUnknown,
            "a write to the log failed; the process is ending",
        )
        .repeatable()),
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<App>) -> Response<Body> {
    // What cannot be asked is left out: a server that drains or recovers still shows its counters.
    let info = ask_info(&app).await.ok();
    let moment = Moment {
        lanes: ask_lanes(&app).await.unwrap_or_default(),
        limits: figures::limits(&app, info.as_ref()),
        wait_max: app.limits().wait_max,
        server: info.map(|info| ServerMoment {
            usage: info.usage,
            waiters: info.waiters,
            ready: info.readiness == Readiness::Ready,
        }),
        requests: app.shared.requests.read(),
        latencies: app.shared.requests.latencies(),
    };
    let mut response = Response::new(Body::from(app.metrics().render(moment)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    response
}

fn plain_text(text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

async fn ask_info(app: &App) -> Result<Info> {
    match app.handle().call(Command::Info).await.answer {
        Answer::Info(info) => Ok(*info),
        Answer::Refused(refusal) => Err(Box::<Problem>::from(refusal).repeatable()),
        other => Err(submit::foreign(&other).into()),
    }
}

async fn ask_lanes(app: &App) -> Result<Vec<LaneStats>> {
    match app.handle().call(Command::Lanes).await.answer {
        Answer::Lanes(lanes) => Ok(lanes),
        Answer::Refused(refusal) => Err(Box::<Problem>::from(refusal).repeatable()),
        other => Err(submit::foreign(&other).into()),
    }
}

/// Every name that [`state_name`] gives.
pub(super) const STATES: [&str; 5] = [
    state_name(Readiness::Ready),
    state_name(Readiness::Recovering),
    state_name(Readiness::Draining),
    state_name(Readiness::DiskFull),
    state_name(Readiness::Poisoned),
];

const fn state_name(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Ready => "ready",
        Readiness::Recovering => "recovering",
        Readiness::Draining => "draining",
        Readiness::DiskFull | Readiness::LogTooSmall => "disk_full",
        Readiness::Poisoned => "poisoned",
    }
}

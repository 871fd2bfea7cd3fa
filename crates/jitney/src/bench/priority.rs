//! How long an urgent job takes while the workers are busy with others, against workers that are not.
//!
//! Four workers take one job at a time, and each job takes a millisecond. What they can do at most is measured
//! first; then urgent jobs come alone; then again, while slow ones come at 80 % of what can be done.

use std::time::Duration;

use super::context::Context;
use super::crew::Crew;
use super::error::Error;
use super::figure;
use super::pace::open_loop;
use super::process::Process;
use super::report::{Report, Target, Unit};
use super::submits::{Callers, Submitted, closed_loop, single_of};
use super::worker::Asks;
use crate::clock::between;

const WORKERS: u32 = 4;
const HANDLER: Duration = Duration::from_millis(1);
/// Urgent jobs per second: so few that they do not wait for each other.
const URGENT_RATE: u32 = 100;
/// What part of the capacity slow jobs take.
const LOAD: f64 = 0.8;

pub(super) async fn run(context: &Context<'_>) -> Result<Report, Error> {
    let server = context.server("").await?;
    let asks = Asks {
        worker: "bench".to_owned(),
        slots: 1,
        max_jobs: 1,
        wait: Duration::from_millis(200),
    };
    let crew = Crew::start(&server, WORKERS, &asks, Some(HANDLER)).await?;
    let time = context.options.duration / 3;
    context.progress.begin("what the workers can do at most");
    let capacity = capacity(context, &server, time).await?;
    context.progress.begin("urgent jobs alone");
    let urgent = callers(context, &server, "REALTIME", true);
    let idle = open_loop(&urgent, URGENT_RATE, time, &context.progress).await?;
    idle.check()?;
    context.progress.begin("urgent jobs among slow ones");
    let slow = callers(context, &server, "SLOW", false);
    let slow_rate = whole(capacity * LOAD).max(1);
    let before = server.sample(&context.clock).await?;
    let (busy, flood) = tokio::try_join!(
        open_loop(&urgent, URGENT_RATE, time, &context.progress),
        open_loop(&slow, slow_rate, time, &context.progress),
    )?;
    let after = server.sample(&context.clock).await?;
    busy.check()?;
    flood.check()?;
    crew.stop().await?;
    let mut report = context.report("priority");
    report.set("workers", WORKERS);
    report.set("handler", "1 ms");
    report.set("urgent jobs per second", URGENT_RATE);
    report.add("capacity", capacity, Unit::JobsPerSecond);
    report.add("slow", f64::from(slow_rate), Unit::JobsPerSecond);
    let names = ["idle_p50", "idle_p99", "idle_p999", "idle_max"];
    report.latency(names, &idle.latency);
    let names = ["realtime_p50", "realtime_p99", "realtime_p999", "realtime_max"];
    report.latency(names, &busy.latency);
    report.target("realtime_p99", Target::AtMost(10.0));
    let p99 = |submitted: &Submitted| figure(submitted.latency.value_at_quantile(0.99));
    let ratio = p99(&busy) / p99(&idle).max(1.0);
    report.aim("realtime_to_idle", ratio, Unit::Ratio, Target::AtMost(5.0));
    context.account(&mut report, &before, &after, figure(busy.answers + flood.answers));
    server.kill().await?;
    Ok(report)
}

async fn capacity(context: &Context<'_>, server: &Process, time: Duration) -> Result<f64, Error> {
    let callers = Callers {
        connections: WORKERS * 8,
        ..callers(context, server, "SLOW", true)
    };
    let start = server.sample(&context.clock).await?.at;
    let submitted = closed_loop(&callers, time, &context.progress).await?;
    let end = server.sample(&context.clock).await?.at;
    submitted.check()?;
    Ok(figure(submitted.answers) / between(start, end).as_secs_f64().max(f64::EPSILON))
}

fn callers(context: &Context<'_>, server: &Process, priority: &str, wait: bool) -> Callers {
    let (path, expected) = match wait {
        true => ("/v1/jobs?wait=30s", 200),
        false => ("/v1/jobs", 202),
    };
    Callers {
        address: server.address,
        connections: 16,
        request: single_of(path, priority, context.options.payload_bytes),
        expected,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate in jobs per second is positive, and far below 2^32"
)]
fn whole(rate: f64) -> u32 {
    rate as u32
}

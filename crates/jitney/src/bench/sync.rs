//! Callers that wait for their own result: how many jobs come back in a second, and how soon.

use std::time::Duration;

use super::context::Context;
use super::crew::Crew;
use super::error::Error;
use super::figure;
use super::pace::open_loop;
use super::report::{Report, Target, Unit};
use super::submits::{Callers, closed_loop, single};
use super::worker::Asks;
use crate::clock::between;

/// Callers at once, if nothing else is said: of the closed loop, and of the open one, whose callers must not be
/// what is waited for.
const CALLERS: u32 = 64;
const CALLERS_OPEN: u32 = 256;

/// Polls of the one worker: while it runs a batch, the next can be formed.
const POLLS: u32 = 2;

pub(super) async fn run(context: &Context<'_>) -> Result<Report, Error> {
    let options = context.options;
    let server = context.server("").await?;
    let asks = Asks {
        worker: "bench".to_owned(),
        slots: 1,
        max_jobs: 1_000,
        wait: Duration::from_millis(200),
    };
    let crew = Crew::start(&server, POLLS, &asks, None).await?;
    let callers = Callers {
        address: server.address,
        connections: options
            .connections
            .unwrap_or(options.rate.map_or(CALLERS, |_| CALLERS_OPEN)),
        request: single("/v1/jobs?wait=30s", options.payload_bytes),
        expected: 200,
    };
    context.progress.begin("warming up");
    closed_loop(&callers, options.warm_up(), &context.progress).await?;
    context.progress.begin("sync");
    let before = server.sample(&context.clock).await?;
    let submitted = match options.rate {
        None => closed_loop(&callers, options.duration, &context.progress).await?,
        Some(rate) => open_loop(&callers, rate, options.duration, &context.progress).await?,
    };
    let after = server.sample(&context.clock).await?;
    crew.stop().await?;
    submitted.check()?;
    let mut report = context.report("sync");
    report.set("callers", callers.connections);
    let jobs = figure(submitted.answers);
    let rate = jobs / between(before.at, after.at).as_secs_f64().max(f64::EPSILON);
    let names = ["latency_p50", "latency_p99", "latency_p999", "latency_max"];
    match options.rate {
        None => {
            report.set("loop", "closed");
            report.aim("done", rate, Unit::JobsPerSecond, Target::AtLeast(30_000.0));
            report.latency(names, &submitted.latency);
        }
        Some(intended) => {
            report.set("loop", format!("open at {intended}/s"));
            report.add("done", rate, Unit::JobsPerSecond);
            report.latency(names, &submitted.latency);
            report.target("latency_p50", Target::AtMost(2.0));
            report.target("latency_p99", Target::AtMost(5.0));
        }
    }
    context.account(&mut report, &before, &after, jobs);
    server.kill().await?;
    Ok(report)
}

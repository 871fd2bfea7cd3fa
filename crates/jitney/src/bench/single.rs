//! Single submits that nobody waits for, against a bare HTTP server that reads, parses and answers the same.

use std::time::Duration;

use super::context::Context;
use super::error::Error;
use super::figure;
use super::process::{Process, Sample};
use super::report::{Report, Target, Unit};
use super::submits::{Callers, Submitted, closed_loop, single};
use crate::clock::between;

/// Callers at once, if nothing else is said.
const CONNECTIONS: u32 = 256;

pub(super) async fn run(context: &Context<'_>) -> Result<Report, Error> {
    let options = context.options;
    let connections = options.connections.unwrap_or(CONNECTIONS);
    // The yardstick before and after, so that a machine that changes its speed changes both.
    let half = options.duration / 2;
    let first = bare(context, connections, half).await?;
    let server = context.server("").await?;
    context.progress.begin("async");
    let ours = measure(context, &server, connections, options.duration).await?;
    server.kill().await?;
    let second = bare(context, connections, half).await?;
    let mut report = context.report("async");
    report.set("connections", connections);
    let rate = ours.rate();
    report.add("submitted", rate, Unit::JobsPerSecond);
    let yardstick = (first.rate() + second.rate()) / 2.0;
    report.add("bare_http", yardstick, Unit::JobsPerSecond);
    report.aim("ratio", rate / yardstick, Unit::Ratio, Target::AtLeast(0.5));
    if let (Some(bare), Some(own)) = (first.cpu_per_answer(), ours.cpu_per_answer()) {
        report.add("bare_http_cpu_per_job", bare, Unit::CpuMicros);
        report.add("cpu_ratio", bare / own, Unit::Ratio);
    }
    let names = ["latency_p50", "latency_p99", "latency_p999", "latency_max"];
    report.latency(names, &ours.submitted.latency);
    context.account(
        &mut report,
        &ours.before,
        &ours.after,
        figure(ours.submitted.answers),
    );
    if first.load_is_full() {
        report.notes.push(
            "the load used all of its core against the bare server, which may be faster than this: the ratio \
             of processor time per job (cpu_ratio) is the one to trust"
                .to_owned(),
        );
    }
    Ok(report)
}

async fn bare(context: &Context<'_>, connections: u32, duration: Duration) -> Result<Measured, Error> {
    let yardstick = context.yardstick().await?;
    context.progress.begin("the bare HTTP server");
    let measured = measure(context, &yardstick, connections, duration).await?;
    yardstick.kill().await?;
    Ok(measured)
}

struct Measured {
    before: Sample,
    after: Sample,
    submitted: Submitted,
}

async fn measure(
    context: &Context<'_>,
    process: &Process,
    connections: u32,
    duration: Duration,
) -> Result<Measured, Error> {
    let callers = Callers {
        address: process.address,
        connections,
        request: single("/v1/jobs", context.options.payload_bytes),
        expected: 202,
    };
    closed_loop(&callers, context.options.warm_up(), &context.progress).await?;
    let before = process.sample(&context.clock).await?;
    let submitted = closed_loop(&callers, duration, &context.progress).await?;
    let after = process.sample(&context.clock).await?;
    submitted.check()?;
    Ok(Measured {
        before,
        after,
        submitted,
    })
}

impl Measured {
    fn rate(&self) -> f64 {
        let time = between(self.before.at, self.after.at);
        figure(self.submitted.answers) / time.as_secs_f64().max(f64::EPSILON)
    }

    /// Microseconds.
    fn cpu_per_answer(&self) -> Option<f64> {
        let cpu = self.after.used?.cpu.saturating_sub(self.before.used?.cpu);
        Some(cpu.as_secs_f64() * 1e6 / figure(self.submitted.answers.max(1)))
    }

    fn load_is_full(&self) -> bool {
        let (Some(from), Some(to)) = (&self.before.load, &self.after.load) else {
            return false;
        };
        let time = between(self.before.at, self.after.at);
        to.cpu.saturating_sub(from.cpu) > time.mul_f64(0.97)
    }
}

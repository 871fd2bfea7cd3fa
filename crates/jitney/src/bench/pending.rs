//! Many jobs that nobody has taken yet: what they cost in memory, and how long a start over them takes.

use super::bulk::{self, Flow, Flows};
use super::context::Context;
use super::error::Error;
use super::figure;
use super::process::Process;
use super::report::{Report, Target, Unit};
use crate::clock::{Clock as _, between};

/// Pending jobs, if nothing else is said.
const BACKLOG: [u64; 2] = [1_000_000, 3_000_000];
const RECOVERY: u64 = 1_000_000;
/// Settled jobs beside the pending ones, if those are so few that both fit on a small disk.
const SETTLED_PER_PENDING: u64 = 4;

/// The most that `bench` fills a server with.
const LIMITS: &str = "\
[server]
jobs_max = 40000000
";

/// As many as requests of 100 bring.
const fn whole_requests(jobs: u64) -> u64 {
    jobs.next_multiple_of(100)
}

/// Batches as in `bulk`, and room for many jobs.
fn config() -> String {
    format!("{LIMITS}{}", bulk::CONFIG)
}

pub(super) async fn backlog(context: &Context<'_>) -> Result<Report, Error> {
    let options = context.options;
    let mut pending = options.pending.clone();
    if pending.is_empty() {
        pending = BACKLOG.to_vec();
    }
    let server = context.own_server(&config(), "data").await?;
    let mut report = context.report("backlog");
    let mut filled = 0;
    let mut peaks = Vec::new();
    for jobs in pending.into_iter().map(whole_requests) {
        let rate = fill(context, &server, jobs.saturating_sub(filled)).await?;
        filled = filled.max(jobs);
        let used = server.used();
        let unknown = || Error::Usage("this system does not say what a process uses".to_owned());
        let peak = used.ok_or_else(unknown)?.rss_peak;
        peaks.push((filled, peak));
        let first = peaks.len() == 1;
        let names = if first {
            ["fill", "rss_peak"]
        } else {
            ["fill_more", "rss_peak_more"]
        };
        report.set(if first { "pending" } else { "pending then" }, filled);
        report.add(names[0], rate, Unit::JobsPerSecond);
        report.add(names[1], figure(peak) / figure(1 << 20), Unit::Mebibytes);
    }
    if let [(few, low), .., (many, high)] = peaks[..]
        && many > few
    {
        let bytes = figure(high.saturating_sub(low)) / figure(many - few);
        report.aim("memory_per_job", bytes, Unit::BytesPerJob, Target::AtMost(200.0));
        if few * u64::try_from(options.payload_bytes).unwrap_or(u64::MAX) < 64 << 20 {
            let text = "the payload cache was not full at first: it is part of the memory per job";
            report.notes.push(text.to_owned());
        }
    }
    turn_over(context, &server, &mut report).await?;
    server.kill().await?;
    Ok(report)
}

/// Jobs come and go while so many wait: each that comes is the last in its lane, each that goes the first.
async fn turn_over(context: &Context<'_>, server: &Process, report: &mut Report) -> Result<(), Error> {
    let flows = Flows::new(Flow::new(context.options.payload_bytes), &context.progress);
    let mut tasks = flows.start(server).await?;
    tokio::time::sleep(context.options.warm_up()).await;
    context.progress.begin("turning jobs over");
    flows.reset();
    let before = server.sample(&context.clock).await?;
    tokio::time::sleep(context.options.duration).await;
    let flowed = flows.reset();
    let after = server.sample(&context.clock).await?;
    tasks.abort();
    let seconds = between(before.at, after.at).as_secs_f64().max(f64::EPSILON);
    report.add("settled", figure(flowed.settled) / seconds, Unit::JobsPerSecond);
    context.account(report, &before, &after, figure(flowed.settled));
    Ok(())
}

/// Submits so many jobs; returns how many a second.
async fn fill(context: &Context<'_>, server: &Process, jobs: u64) -> Result<f64, Error> {
    context.progress.begin(format!("submitting {jobs} jobs"));
    let flow = Flow {
        workers: 0,
        backlog: u32::try_from(jobs)
            .map_err(|_| Error::Usage(format!("{jobs} pending jobs are too many")))?,
        ..Flow::new(context.options.payload_bytes)
    };
    let flows = Flows::new(flow, &context.progress);
    let start = context.clock.now().mono;
    let mut tasks = flows.start(server).await?;
    tasks.filled(&flows).await?;
    let took = between(start, context.clock.now().mono);
    Ok(figure(jobs) / took.as_secs_f64().max(f64::EPSILON))
}

/// Submits and settles at least so many jobs.
async fn settle(context: &Context<'_>, server: &Process, jobs: u64) -> Result<(), Error> {
    context
        .progress
        .begin(format!("submitting and settling {jobs} jobs"));
    let flows = Flows::new(Flow::new(context.options.payload_bytes), &context.progress);
    let mut tasks = flows.start(server).await?;
    tasks.settled(&flows, jobs).await
}

pub(super) async fn recovery(context: &Context<'_>) -> Result<Report, Error> {
    let pending = whole_requests(context.options.pending.first().copied().unwrap_or(RECOVERY));
    let settled = context.options.settled.unwrap_or(match pending > RECOVERY {
        true => 0,
        false => pending * SETTLED_PER_PENDING,
    });
    let server = context.own_server(&config(), "data").await?;
    if settled > 0 {
        settle(context, &server, settled).await?;
    }
    fill(context, &server, pending).await?;
    let before = server.sample(&context.clock).await?;
    server.kill().await?;
    let start = context.clock.now().mono;
    let server = context.own_server(&config(), "data").await?;
    let took = between(start, context.clock.now().mono);
    let after = server.sample(&context.clock).await?;
    let found = after.counts.sum("jitney_unsettled_jobs");
    if (found - figure(pending)).abs() > 0.5 {
        return Err(Error::Server(format!(
            "{pending} jobs were pending when the server was killed, and {found} when it was up again"
        )));
    }
    let mut report = context.report("recovery");
    report.set("pending", pending);
    report.set("settled", before.counts.sum("jitney_results"));
    let target = match pending {
        1_000_000 => Some(Target::AtMost(3.0)),
        10_000_000 => Some(Target::AtMost(12.0)),
        _ => None,
    };
    report.add("ready_after", took.as_secs_f64(), Unit::Seconds);
    if let Some(target) = target {
        report.target("ready_after", target);
    }
    let disk = after.counts.sum("jitney_log_disk_bytes");
    report.add("log", disk / figure(1 << 20), Unit::Mebibytes);
    if let Some(used) = &after.used {
        report.add(
            "server_rss_peak",
            figure(used.rss_peak) / figure(1 << 20),
            Unit::Mebibytes,
        );
    }
    server.kill().await?;
    Ok(report)
}

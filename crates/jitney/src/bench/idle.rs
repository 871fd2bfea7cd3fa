//! A server with nothing to do.

use std::time::Duration;

use super::context::{Context, share};
use super::error::Error;
use super::figure;
use super::report::{Report, Target, Unit};
use crate::clock::{Clock as _, between};

/// What a start leaves to be done is over by then: spares are filled, and the last records have their witness.
const SETTLES: Duration = Duration::from_secs(3);

pub(super) async fn run(context: &Context<'_>) -> Result<Report, Error> {
    let server = context.own_server("", "data").await?;
    context.progress.begin("letting the server come to rest");
    tokio::time::sleep(SETTLES.min(context.options.duration)).await;
    context.progress.begin("idle");
    let unknown = || Error::Usage("this system does not say what a process uses".to_owned());
    let (start, before) = (context.clock.now().mono, server.used().ok_or_else(unknown)?);
    tokio::time::sleep(context.options.duration).await;
    let (end, after) = (context.clock.now().mono, server.used().ok_or_else(unknown)?);
    server.kill().await?;
    let time = between(start, end);
    let mut report = context.report("idle");
    let cpu = share(after.cpu.saturating_sub(before.cpu), time);
    report.aim("server_cpu", cpu, Unit::Percent, Target::AtMost(0.1));
    let rss = figure(after.rss) / figure(1 << 20);
    report.aim("server_rss", rss, Unit::Mebibytes, Target::AtMost(20.0));
    let wake_ups = figure(after.sleeps.saturating_sub(before.sleeps)) / time.as_secs_f64().max(f64::EPSILON);
    report.add("wake_ups", wake_ups, Unit::PerSecond);
    Ok(report)
}

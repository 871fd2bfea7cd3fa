//! `jitney bench`: how fast it is here.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};

use super::exit::Exit;
use super::failure::Failure;
use super::init_log;
use super::output::Output;
use super::signals::Signals;
use crate::bench::{self, Error, Options, Progress, yardstick};
use crate::config::LogLevel;
use crate::units::{parse_duration, parse_size};

/// How often the line that shows the progress is drawn again.
const FRAME: Duration = Duration::from_millis(250);

/// Measure how fast jitney is on this machine.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// What to measure.
    #[arg(value_enum)]
    scenario: Scenario,
    /// How long is measured.
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    duration: String,
    /// Jobs per second of an open loop, each sent when it is time; latency counts from then.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Callers at once. Default: as the scenario says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: Option<u32>,
    /// Bytes of a job's data.
    #[arg(long, default_value = "256", value_name = "SIZE")]
    payload_bytes: String,
    /// Pending jobs, separated by commas, where the scenario has some. Default: as the scenario says.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pending: Vec<u64>,
    /// Settled jobs beside the pending ones of `recovery`. Default: four times as many, or none beside over a million.
    #[arg(long, value_name = "N")]
    settled: Option<u64>,
    /// Measure a server that runs already, instead of one that is started and stopped.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Configuration of the server that is started, instead of the scenario's own.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the logs of the bench go, in a directory that is removed at the end. Default: here.
    #[arg(long, default_value = ".", value_name = "DIRECTORY")]
    data: PathBuf,
    /// Let server and load run on any core, instead of one each.
    #[arg(long)]
    no_pin: bool,
}

/// The yardstick of `bench async`: started by it, for nobody else.
#[derive(Args, Debug)]
pub(super) struct YardstickArgs {}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// Callers that wait for their own result, and one worker: a closed loop, or with --rate an open one.
    Sync,
    /// Single submits that nobody waits for, against a bare HTTP server.
    Async,
    /// Many jobs per request and per lease, settled as fast as they come.
    Bulk,
    /// Many pending jobs: their memory, and how fast others come and go meanwhile.
    Backlog,
    /// Urgent jobs while workers are busy with slow ones, and while they are not.
    Priority,
    /// A start after kill -9, over pending and settled jobs.
    Recovery,
    /// A server without work: what it uses.
    Idle,
    /// The log alone, against a bare loop that writes and syncs as many bytes.
    Log,
    /// The dispatcher alone, with many jobs pending.
    Dispatcher,
}

impl From<Scenario> for bench::Scenario {
    fn from(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Sync => Self::Sync,
            Scenario::Backlog => Self::Backlog,
            Scenario::Priority => Self::Priority,
            Scenario::Recovery => Self::Recovery,
            Scenario::Async => Self::Async,
            Scenario::Bulk => Self::Bulk,
            Scenario::Idle => Self::Idle,
            Scenario::Log => Self::Log,
            Scenario::Dispatcher => Self::Dispatcher,
        }
    }
}

pub(super) fn run(args: BenchArgs, output: Output) -> Result<Exit, Failure> {
    init_log(LogLevel::Warn, None)?;
    let scenario = args.scenario.into();
    let options = options(args)?;
    let runtime = runtime()?;
    let done = runtime.block_on(watched(scenario, &options, output));
    // What runs on a thread of its own ends at the next look at the progress.
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

async fn watched(scenario: bench::Scenario, options: &Options, output: Output) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let progress = Arc::new(Progress::default());
    let report = tokio::select! {
        report = bench::run(scenario, options, &progress) => report,
        () = show(&progress, output) => Err(Error::Stopped),
        () = signals.next() => {
            progress.stop();
            Err(Error::Stopped)
        }
    };
    output.no_progress();
    let report = report?;
    if output.json {
        output.line(&report.json().to_string());
    } else {
        output.line(report.text().trim_end());
    }
    Ok(Exit::Done)
}

/// Draws how far it is, for ever, where somebody looks.
async fn show(progress: &Progress, output: Output) {
    if !output.is_watched() {
        return std::future::pending().await;
    }
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = (String::new(), 0);
    loop {
        frames.tick().await;
        let (phase, done) = progress.now();
        let rate = if phase == last.0 {
            (done - done.min(last.1)) * 4
        } else {
            0
        };
        output.progress(&format!("{phase}: {done} jobs, {rate}/s"));
        last = (phase, done);
    }
}

fn options(args: BenchArgs) -> Result<Options, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Io, format!("cannot find this program: {error}")))?;
    let payload_bytes = parse_size(&args.payload_bytes)?;
    // The server runs in another directory.
    let config = args.config.map(std::path::absolute).transpose();
    let config = config.map_err(|error| Failure::usage(format!("--config: {error}")))?;
    Ok(Options {
        program,
        directory: args.data,
        address: args.url.as_deref().map(address).transpose()?,
        config,
        duration: parse_duration(&args.duration)?,
        rate: args.rate,
        connections: args.connections,
        payload_bytes: usize::try_from(payload_bytes).unwrap_or(usize::MAX),
        pin: !args.no_pin,
        pending: args.pending,
        settled: args.settled,
    })
}

/// Where a plain URL leads to.
fn address(url: &str) -> Result<SocketAddr, Failure> {
    let wrong = || {
        Failure::usage(format!("--url is `{url}`, which the bench cannot speak to"))
            .hint("it looks like http://127.0.0.1:8080")
    };
    let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let mut addresses = host.ok_or_else(wrong)?.to_socket_addrs().map_err(|_| wrong())?;
    addresses.next().ok_or_else(wrong)
}

pub(super) fn yardstick(_args: YardstickArgs, output: Output) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(Exit::Io, format!("the yardstick failed: {error}"));
    super::block_on(async move {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        output.line(&format!("listening on http://{address}"));
        yardstick::serve(listener).await.map_err(failed)?;
        Ok(Exit::Done)
    })
}

/// The load is one thread: it shares the machine with the server.
fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Io, format!("cannot start a runtime: {error}")))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Usage(_) => Self::usage(message),
            Error::Stopped => Self::new(Exit::Interrupted, message),
            Error::Io { .. } | Error::Server(_) => Self::new(Exit::Io, message),
        }
    }
}

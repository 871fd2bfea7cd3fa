//! `jitney work`: batches through a program of the user's.

use std::time::Duration;

use clap::Args;
use tracing::info;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::ServerUrl;
use super::signals::{Signals, exit_at_once};
use super::submit::priority_parser;
use super::{block_on, init_log, is_json};
use crate::config::LogLevel;
use crate::exec::{self, ExecOptions};
use crate::job::Priority;
use crate::units::parse_duration;
use crate::worker::{GRACE, default_name};

/// Most children of one `jitney work`: each is a process.
const CONCURRENCY_MAX: u64 = 1024;

/// Take jobs in batches and run them through a program.
#[derive(Args, Debug)]
pub(super) struct WorkArgs {
    /// Whose jobs.
    processor: String,
    /// The program and its arguments, split as a shell would; it reads jobs and writes outcomes, a JSON
    /// object a line (docs/exec_protocol.md).
    #[arg(long, value_name = "COMMAND")]
    exec: String,
    /// How many children of it run, each with a batch of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX))]
    concurrency: u64,
    /// The worker's name in logs and records. Default: of the process id and a random number.
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// Most jobs in a batch, if fewer than the server's policy allows.
    #[arg(long, value_name = "JOBS", value_parser = clap::value_parser!(u32).range(1..))]
    max_jobs: Option<u32>,
    /// Only jobs of this priority; can be given several times.
    #[arg(long, value_name = "PRIORITY", value_parser = priority_parser())]
    priority: Vec<Priority>,
    /// How long a stop lets a child go on with the job it is at. Default 10s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    /// A fresh child per batch, for plain scripts: standard input ends after the batch, and exit code 0 means
    /// that all of it is done.
    #[arg(long)]
    once: bool,
    /// Form of the log on standard error, with json of all that is written there. Default text, or JITNEY_LOG_FORMAT.
    #[arg(long, value_name = "FORM", value_parser = ["text", "json"])]
    log_format: Option<String>,
    #[command(flatten)]
    server: ServerUrl,
}

impl WorkArgs {
    /// Whether standard error is for programs.
    pub(super) fn logs_json(&self) -> bool {
        is_json(self.log_format.as_deref())
    }
}

pub(super) fn run(args: WorkArgs, output: Output) -> Result<Exit, Failure> {
    init_log(LogLevel::Info, args.log_format.as_deref())?;
    block_on(work(args, output))
}

async fn work(args: WorkArgs, output: Output) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let command = command(&args.exec)?;
    let options = ExecOptions {
        client: args.server.patient_client()?,
        processor: args.processor,
        command,
        concurrency: usize::try_from(args.concurrency).unwrap_or(usize::MAX),
        worker: args.worker.unwrap_or_else(default_name),
        max_jobs: args.max_jobs,
        priorities: args.priority,
        grace: args.grace.unwrap_or(GRACE),
        once: args.once,
    };
    info!(worker = options.worker, processor = options.processor, "working");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // A sender that is dropped asks to stop as well.
    let run = exec::run(options, async { drop(stopped.await) });
    tokio::pin!(run);
    let orphans = exec::orphans::reap();
    tokio::pin!(orphans);
    tokio::select! {
        ended = &mut run => return ended.map(|()| Exit::Done).map_err(Failure::from),
        () = signals.next() => output.say("stopping: the jobs at hand are finished, the others given back"),
        never = &mut orphans => match never {},
    }
    drop(stop);
    tokio::select! {
        ended = run => ended.map(|()| Exit::Done).map_err(Failure::from),
        () = signals.next() => exit_at_once(),
        never = orphans => match never {},
    }
}

/// The words of the command, if they are meant for a program and not for a shell.
fn command(written: &str) -> Result<Vec<String>, Failure> {
    let words =
        exec::words(written).ok_or_else(|| Failure::usage(format!("`{written}` has an open quote")))?;
    if let Some(operator) = exec::shell_operator(written) {
        let quoted = shlex::try_quote(written).unwrap_or(written.into());
        let message = format!("`{operator}` in `--exec` is for a shell, and no shell runs");
        return Err(Failure::usage(message).hint(format!(
            "start one: --exec \"sh -c {quoted}\"; or put the `{operator}` in quotes if it is an argument"
        )));
    }
    Ok(words)
}

impl From<exec::Error> for Failure {
    fn from(error: exec::Error) -> Self {
        match error {
            exec::Error::Server(error) => error.into(),
            exec::Error::NoCommand => Self::usage("`--exec` is empty"),
            exec::Error::Start { ref source, .. } => {
                let failure = Self::usage(format!("{error}: {source}"));
                match error.advice() {
                    Some(advice) => failure.hint(advice),
                    None => failure,
                }
            }
        }
    }
}

//! The command line: one file per command, one that prints, one enum of exit codes.
//!
//! In: arguments and the environment. Out: data on standard output, everything else on standard error, and
//! an exit code that says how it went (docs/cli.md).

mod bench;
mod completions;
mod config;
mod exit;
mod failure;
mod health;
mod job;
mod lane;
mod log;
mod man;
mod output;
mod policy;
mod quickstart;
mod ready_file;
mod reload;
mod serve;
mod server_flags;
mod server_url;
mod signals;
mod submit;
mod submit_lines;
mod submit_results;
mod usage;
mod work;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tracing::Level;

use crate::config::LogLevel;
use crate::telemetry;
use exit::Exit;
use failure::Failure;
use output::Output;

/// A durable micro-batching job dispatcher: jobs come in one at a time, travel in batches, and each caller
/// gets its own result.
#[derive(Parser, Debug)]
#[command(
    name = "jitney",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 the job failed, 2 wrong usage or config, 3 cannot reach the server,\n\
                  4 timed out waiting (the job goes on), 5 refused (limit, draining), 70 a bug, 74 disk, log or port."
)]
struct Cli {
    /// Print data as JSON, errors too.
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(serve::ServeArgs),
    Work(work::WorkArgs),
    Submit(submit::SubmitArgs),
    /// Look at jobs.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Look at lanes, pause and resume them.
    #[command(subcommand)]
    Lane(lane::LaneCommand),
    /// Look at the policies in force, and set them.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Look at the log on disk.
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Check the configuration, or show it.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Health(health::HealthArgs),
    Quickstart(quickstart::QuickstartArgs),
    Bench(bench::BenchArgs),
    #[command(hide = true)]
    BenchYardstick(bench::YardstickArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Parses the arguments, runs the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let output = Output {
        json: cli.json,
        json_log: cli.command.logs_json(),
    };
    // A command leaves nothing behind that another one could find broken.
    let exit = match catch_unwind(AssertUnwindSafe(|| run(cli.command, output))) {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => {
            output.failure(&failure);
            failure.exit
        }
        Err(_) => {
            output.bug();
            Exit::Bug
        }
    };
    exit.into()
}

/// Help is an answer; whatever else does not parse is a failure.
fn not_understood(error: &clap::Error) -> ExitCode {
    let json = usage::asks_for_json(std::env::args_os());
    let later = usage::of_a_later_version(error, std::env::args_os());
    if !error.use_stderr() || (!json && later.is_none()) {
        error.exit();
    }
    let failure = later.unwrap_or_else(|| usage::failure(error));
    let output = Output { json, json_log: json };
    output.failure(&failure);
    failure.exit.into()
}

fn run(command: Command, output: Output) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => serve::run(args, output),
        Command::Work(args) => work::run(args, output),
        Command::Submit(args) => client(submit::run(args, output)),
        Command::Health(args) => client(health::run(args, output)),
        Command::Job(command) => client(job::run(command, output)),
        Command::Lane(command) => client(lane::run(command, output)),
        Command::Policy(command) => client(policy::run(command, output)),
        Command::Log(command) => log::run(command, output),
        Command::Quickstart(args) => quickstart::run(args, output),
        Command::Bench(args) => bench::run(args, output),
        Command::BenchYardstick(args) => bench::yardstick(args, output),
        Command::Config(command) => config::run(command, output),
        Command::Completions(args) => completions::run(&args, &mut Cli::command(), output),
        Command::Man(args) => man::run(args, Cli::command(), output),
    }
}

/// Runs a command that speaks to a server: it logs only what somebody must look at, unless `JITNEY_LOG`
/// asks for more.
fn client(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    init_log(LogLevel::Warn, None)?;
    block_on(command)
}

impl Command {
    /// Whether a program reads the log of this command.
    fn logs_json(&self) -> bool {
        match self {
            Self::Serve(args) => args.logs_json(),
            Self::Work(args) => args.logs_json(),
            _ => false,
        }
    }
}

/// Whether the log is JSON, where `said` is what the arguments say.
fn is_json(said: Option<&str>) -> bool {
    match said {
        Some(said) => said == "json",
        None => std::env::var("JITNEY_LOG_FORMAT").as_deref() == Ok("json"),
    }
}

/// Starts the log at the level that the environment says, and in the form that it or the arguments say.
fn init_log(default: LogLevel, form: Option<&str>) -> Result<(), Failure> {
    let level = match std::env::var("JITNEY_LOG") {
        Err(_) => default,
        Ok(name) => LogLevel::parse(&name).ok_or_else(|| {
            Failure::usage(format!("JITNEY_LOG is `{name}`, which is not a level"))
                .hint("one of error, warn, info, debug, trace")
        })?,
    };
    if form.is_none()
        && let Ok(name) = std::env::var("JITNEY_LOG_FORMAT")
        && !matches!(&*name, "text" | "json")
    {
        let message = format!("JITNEY_LOG_FORMAT is `{name}`, which is neither `text` nor `json`");
        return Err(Failure::usage(message));
    }
    telemetry::init(tracing_level(level), is_json(form));
    Ok(())
}

const fn tracing_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

/// Runs a command to its end. What it left running in the background does not hold the process.
fn block_on(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Io, format!("cannot start a thread: {error}")))?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

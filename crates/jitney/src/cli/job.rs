//! `jitney job`: what became of a job.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::ServerUrl;
use super::submit::parse_job_id;
use crate::client::Job;
use crate::job::{JobId, Status, reason_name};
use crate::units::parse_duration;

/// What a job is called in the answer of the server; the rest of it, such as labels, is in `--json`.
#[derive(Subcommand, Debug)]
pub(super) enum JobCommand {
    /// Show a job: where it is, and its result or error.
    Get(GetArgs),
}

/// Show a job.
#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The job's id.
    #[arg(value_parser = parse_job_id)]
    id: JobId,
    /// Wait so long for the job to end: 30s, 5m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    server: ServerUrl,
}

pub(super) async fn run(command: JobCommand, output: Output) -> Result<Exit, Failure> {
    let JobCommand::Get(args) = command;
    let client = args.server.client()?;
    let job = match args.wait {
        Some(wait) => client.get_and_wait(args.id, wait).await?,
        None => client.get(args.id).await?,
    };
    if output.json {
        output.line(job.json());
    } else {
        describe(&job, output);
    }
    Ok(exit_of(&job))
}

/// Prints the result of a job that has ended, and nothing else: it may go into a pipe.
pub(super) fn show_result(job: &Job, output: Output) -> Exit {
    if output.json {
        output.line(job.json());
    } else if job.status == Status::ProcessedOk {
        if let Some(result) = &job.result {
            output.bytes(&result.bytes);
        } else if job.result_expired {
            output.note("note: the job was done before, and its result had to give way");
        }
    } else {
        output.note(&format!("job {} failed: {}", job.id, failure_of(job)));
    }
    exit_of(job)
}

/// A job that has not ended has not failed.
fn exit_of(job: &Job) -> Exit {
    match job.status {
        Status::Submitted | Status::ProcessedOk => Exit::Done,
        Status::ProcessedError | Status::BatchFailed => Exit::JobFailed,
    }
}

fn failure_of(job: &Job) -> String {
    let error = job.error.as_ref();
    let text = error.map(|error| format!("{} ({})", error.message, error.code));
    let reason = job.reason.map(reason_name);
    match (text, reason) {
        (Some(text), Some(reason)) => format!("{text}, {reason}"),
        (Some(text), None) => text,
        (None, Some(reason)) => reason.to_owned(),
        (None, None) => job.status.name().to_owned(),
    }
}

fn describe(job: &Job, output: Output) {
    let line = |name: &str, value: &str| output.line(&format!("{name:<10} {value}"));
    line("id", &job.id.to_string());
    line("processor", job.processor.as_str());
    line("group", job.group.as_str());
    line("priority", job.priority.name());
    line("status", &format!("{} ({})", job.status.name(), job.state.name()));
    if job.attempts > 0 {
        line("tries", &job.attempts.to_string());
    }
    if job.crashes > 0 {
        line("crashes", &job.crashes.to_string());
    }
    if let Some(key) = &job.key {
        line("key", key);
    }
    for (name, value) in &job.labels {
        line("label", &format!("{name}={value}"));
    }
    if matches!(job.status, Status::ProcessedError | Status::BatchFailed) {
        line("error", &failure_of(job));
    }
    match &job.result {
        Some(result) => match (&result.content_type, std::str::from_utf8(&result.bytes)) {
            (None, Ok(json)) => line("result", json),
            (kind, _) => {
                let kind = kind.as_deref().unwrap_or("application/json");
                line("result", &format!("{} bytes of {kind}", result.bytes.len()));
            }
        },
        None if job.result_expired => line("result", "had to give way"),
        None => {}
    }
}

//! `jitney log`: whether what is on disk is what was written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use joblog::dir::{DirError, DirStorage};
use joblog::verify::{Verdict, verify};
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::units::{format_count, format_size};

/// The log.
#[derive(Subcommand, Debug)]
pub(super) enum LogCommand {
    /// Read the whole log, change nothing, and name every damage.
    Verify(VerifyArgs),
}

/// Read the whole log.
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// Directory of the log. No server may use it meanwhile.
    #[arg(
        long,
        env = "JITNEY_DATA",
        hide_env_values = true,
        default_value = "./jitney-data",
        value_name = "DIRECTORY"
    )]
    data: PathBuf,
}

pub(super) fn run(command: LogCommand, output: Output) -> Result<Exit, Failure> {
    let LogCommand::Verify(args) = command;
    let storage = DirStorage::inspect(&args.data)?;
    let verdict = verify(&storage).map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    if verdict.segments == 0 && verdict.damages.is_empty() {
        // Every server has begun a segment before it is ready: a directory without one is the wrong one, or lost.
        let message = format!("there is no log in `{}`", args.data.display());
        return Err(Failure::new(Exit::Io, message).hint("--data or JITNEY_DATA says where it is"));
    }
    if output.json {
        output.line(&in_json(&verdict));
    } else {
        describe(&args, &verdict, output);
    }
    if verdict.damages.is_empty() {
        return Ok(Exit::Done);
    }
    let places = verdict.damages.len();
    Err(
        Failure::new(Exit::Io, format!("the log is damaged in {places} places"))
            .hint("keep a copy of the directory before you try anything; nothing was changed by looking"),
    )
}

fn describe(args: &VerifyArgs, verdict: &Verdict, output: Output) {
    for damage in &verdict.damages {
        output.line(&damage.to_string());
    }
    let state = match (verdict.damages.is_empty(), verdict.clean) {
        (true, true) => "good, cleanly stopped",
        (true, false) => "good, not cleanly stopped",
        (false, _) => "damaged",
    };
    output.line(&format!("{}: {state}", args.data.display()));
    output.line(&format!(
        "{} jobs and {} outcomes, {} records in {} frames in {} segments",
        format_count(verdict.jobs),
        format_count(verdict.outcomes),
        format_count(verdict.records),
        format_count(verdict.frames),
        format_count(verdict.segments),
    ));
    if let Some(torn) = &verdict.torn {
        output.line(&format!(
            "`{}` has a torn tail of {} from byte {}: nothing in it was acknowledged, and the next start cuts it",
            torn.file,
            format_size(torn.bytes),
            torn.offset
        ));
    }
}

fn in_json(verdict: &Verdict) -> String {
    let damage = |damage: &joblog::recovery::Damage| json!({ "file": damage.file, "offset": damage.offset, "what": damage.what });
    let torn = verdict
        .torn
        .as_ref()
        .map(|torn| json!({ "file": torn.file, "offset": torn.offset, "bytes": torn.bytes }));
    let verdict = json!({
        "ok": verdict.damages.is_empty(),
        "damages": verdict.damages.iter().map(damage).collect::<Vec<_>>(),
        "torn": torn,
        "clean": verdict.clean,
        "segments": verdict.segments,
        "frames": verdict.frames,
        "records": verdict.records,
        "jobs": verdict.jobs,
        "outcomes": verdict.outcomes,
    });
    verdict.to_string()
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        let message = error.to_string();
        match error {
            DirError::Locked { .. } => {
                Self::new(Exit::Io, message).hint("stop the server that uses it first")
            }
            DirError::Io { .. } => Self::new(Exit::Io, message),
        }
    }
}

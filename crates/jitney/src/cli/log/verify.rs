//! `jitney log verify`: whether what is on disk is what was written.

use std::path::Path;

use clap::Args;
use joblog::dir::DirStorage;
use joblog::verify::{Verdict, verify};
use serde_json::json;

use super::Directory;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::units::{format_count, rounded_size};

/// Read the whole log, change nothing, and name every damage
#[derive(Args, Debug)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    directory: Directory,
}

pub(super) fn run(args: &VerifyArgs, output: Output) -> Result<Exit, Failure> {
    let directory = args.directory.find(output)?;
    let storage = DirStorage::inspect(&directory.data)?;
    let verdict = verify(&storage).map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    if verdict.segments == 0 && verdict.damages.is_empty() {
        return Err(directory.without_log());
    }
    if output.json {
        output.line(&in_json(&verdict));
    } else {
        describe(&directory.data, &verdict, output);
    }
    if verdict.damages.is_empty() {
        return Ok(Exit::Done);
    }
    let places = verdict.damages.len();
    Err(
        Failure::new(Exit::Io, format!("the log is damaged in {places} places")).hint(
            "nothing was changed by looking; `jitney log repair` shows what can be done, and asks first",
        ),
    )
}

fn describe(data: &Path, verdict: &Verdict, output: Output) {
    for damage in &verdict.damages {
        output.line(&damage.to_string());
    }
    let state = match (verdict.damages.is_empty(), verdict.clean) {
        (true, true) => "good, cleanly stopped",
        (true, false) => "good, not cleanly stopped",
        (false, _) => "damaged",
    };
    output.line(&format!("{}: {state}", data.display()));
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
            "`{}` has a torn tail of {} from byte {}, as a power cut leaves it: nothing shows that any of it was acknowledged, and the next start cuts it",
            torn.file,
            rounded_size(torn.bytes),
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

//! `jitney log repair`: shows what is damaged and what is lost with it, asks, and makes the log one that opens.

use std::collections::BTreeSet;

use clap::Args;
use joblog::dir::DirStorage;
use joblog::ids::JobId;
use joblog::repair::{Finding, Jobs, LostKind, Plan, RepairError, plan};
use joblog::verify::verify;
use serde_json::{Value, json};

use super::Directory;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::entropy::random_u64;
use crate::units::format_count;

/// So many jobs are named on a terminal; --json names all.
const NAMED_MAX: usize = 100;

/// Show what is damaged and which jobs are lost with it, ask, and mend the log so that a server starts
///
/// All records stay that are whole and whose place is sure: a damaged length hides those behind it in its frame, for a
/// job's data could pass for a record. Jobs that are gone are named as far as anything names them, and it says how many
/// more there may be. Every damaged byte is kept in a file `damaged-SEGMENT-OFFSET` beside the log.
#[derive(Args, Debug)]
pub(in crate::cli) struct RepairArgs {
    #[command(flatten)]
    directory: Directory,
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &RepairArgs, output: Output) -> Result<Exit, Failure> {
    // The plan is for the bytes as they are: nobody may change them between the look and the deed.
    let directory = args.directory.find(output)?;
    if !directory.data.is_dir() {
        return Err(directory.without_log());
    }
    let storage = DirStorage::open(&directory.data)?;
    let verdict = verify(&storage).map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    if verdict.segments == 0 && verdict.damages.is_empty() {
        return Err(directory.without_log());
    }
    let plan = plan(&storage, &mut random_u64)?;
    if plan.is_empty() {
        if let Some(damage) = verdict.damages.first() {
            let message = format!("{damage}, and there is no repair for it");
            return Err(Failure::new(Exit::Io, message).hint("nothing was changed"));
        }
        return Ok(report(
            &plan,
            "nothing_to_do",
            "the log is good: there is nothing to repair",
            output,
        ));
    }
    if output.json {
        if !args.yes {
            output.line(&in_json(&plan, "planned").to_string());
        }
    } else {
        describe(&plan, output);
    }
    if !args.yes {
        ask(output)?;
    }
    plan.carry_out(&storage)?;
    let verdict = verify(&storage).map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    if let Some(damage) = verdict.damages.first() {
        return Err(Failure::new(Exit::Bug, format!("after the repair: {damage}"))
            .hint("please report it; the damaged bytes are in the `damaged-...` files"));
    }
    Ok(report(&plan, "repaired", "repaired: the log opens", output))
}

fn ask(output: Output) -> Result<(), Failure> {
    if output.json {
        return Err(Failure::usage("nothing was changed: with --json nobody is asked").hint("--yes does it"));
    }
    match output.confirm("repair it?") {
        None => {
            Err(Failure::usage("nothing was changed: there is no terminal to ask on").hint("--yes does it"))
        }
        Some(false) => Err(Failure::new(Exit::Io, "nothing was changed: the log is damaged")),
        Some(true) => Ok(()),
    }
}

fn report(plan: &Plan, state: &str, text: &str, output: Output) -> Exit {
    if output.json {
        output.line(&in_json(plan, state).to_string());
    } else {
        output.line(text);
    }
    Exit::Done
}

fn describe(plan: &Plan, output: Output) {
    for finding in &plan.findings {
        output.line(&format!(
            "{}, byte {}: {}",
            finding.file, finding.offset, finding.what
        ));
        for line in consequences(finding) {
            output.line(&format!("  {line}"));
        }
    }
    let jobs = &plan.jobs;
    output.line("");
    let at_least = if jobs.more_gone_max == Some(0) {
        ""
    } else {
        "at least "
    };
    name(
        "accepted jobs that are gone",
        at_least,
        &jobs.gone,
        &jobs.unsure,
        output,
    );
    if let Some(line) = more_gone(jobs) {
        output.line(&line);
    }
    let at_least = if jobs.more_again_max == 0 { "" } else { "at least " };
    name(
        "jobs that ended and will be processed again",
        at_least,
        &jobs.again,
        &jobs.again_unsure,
        output,
    );
    if jobs.more_again_max > 0 {
        output.line(&format!(
            "  there may be more: at most {}",
            format_count(jobs.more_again_max)
        ));
    }
    if jobs.frames_unknown > 0 {
        output.line(&format!(
            "frames that held what nobody can say, be it jobs, outcomes, or nothing that is missed: {}",
            format_count(jobs.frames_unknown)
        ));
    }
    output.line(&format!(
        "unsettled jobs that stay: {}",
        format_count(jobs.unsettled)
    ));
}

/// How many jobs, and which; `unsure` are those whose ids may be wrong.
fn name(what: &str, at_least: &str, ids: &BTreeSet<JobId>, unsure: &BTreeSet<JobId>, output: Output) {
    output.line(&format!("{what}: {at_least}{}", format_count(count(ids.len()))));
    for id in ids.iter().take(NAMED_MAX) {
        let doubt = if unsure.contains(id) {
            " (as damaged bytes say: the id may be another)"
        } else {
            ""
        };
        output.line(&format!("  {id}{doubt}"));
    }
    if let Some(more) = ids.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        output.line(&format!("  and {more} more; --json names all"));
    }
}

/// Jobs that are gone and that nothing names.
fn more_gone(jobs: &Jobs) -> Option<String> {
    let bytes = format_count(jobs.unknown_bytes);
    match (jobs.more_gone_max, jobs.unknown_bytes) {
        (Some(0), _) => None,
        (Some(more), 0) => Some(format!("  there may be more: at most {}", format_count(more))),
        (Some(more), _) => Some(format!(
            "  in {bytes} bytes that cannot be read there may be more: at most {}",
            format_count(more)
        )),
        (None, 0) => Some("  in what is missing there may be more: nobody can say how many".to_owned()),
        (None, _) => Some(format!(
            "  in {bytes} bytes that cannot be read, and in what is missing, there may be more: nobody can say how many"
        )),
    }
}

fn consequences(finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(kept) = &finding.kept {
        let bytes = match finding.bytes {
            0 => "the whole file is".to_owned(),
            1 => "1 byte is".to_owned(),
            bytes => format!("{bytes} bytes are"),
        };
        lines.push(format!("{bytes} kept as `{kept}`"));
    }
    if finding.saved > 0 {
        lines.push(format!(
            "{} records in it are whole, and stay",
            format_count(finding.saved)
        ));
    }
    for kind in [
        LostKind::Submit,
        LostKind::Outcome,
        LostKind::End,
        LostKind::Dispatch,
        LostKind::Return,
        LostKind::Setting,
        LostKind::Other,
    ] {
        let lost = finding.lost.iter().filter(|record| record.kind == kind).count();
        if lost > 0 {
            lines.push(format!("records of kind {kind} that are lost: {lost}"));
        }
    }
    if finding.frames_unknown > 0 {
        let frames = format_count(finding.frames_unknown);
        let bytes = match finding.unknown_bytes {
            0 => String::new(),
            bytes => format!(": {} bytes", format_count(bytes)),
        };
        lines.push(format!(
            "lost: {frames} frames, or parts of them, of which nothing can be said{bytes}"
        ));
    }
    lines
}

fn in_json(plan: &Plan, state: &str) -> Value {
    let finding = |finding: &Finding| {
        let lost = finding.lost.iter().map(
            |record| json!({ "record": record.kind.to_string(), "job": record.job.map(|job| job.to_string()) }),
        );
        json!({
            "file": finding.file,
            "offset": finding.offset,
            "bytes": finding.bytes,
            "what": finding.what,
            "kept": finding.kept,
            "saved": finding.saved,
            "lost": lost.collect::<Vec<_>>(),
            "frames_unknown": finding.frames_unknown,
            "unknown_bytes": finding.unknown_bytes,
        })
    };
    let ids = |ids: &BTreeSet<JobId>| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
    json!({
        "state": state,
        "findings": plan.findings.iter().map(finding).collect::<Vec<_>>(),
        "jobs": {
            "gone": ids(&plan.jobs.gone),
            "unsure": ids(&plan.jobs.unsure),
            "more_gone_max": plan.jobs.more_gone_max,
            "again": ids(&plan.jobs.again),
            "again_unsure": ids(&plan.jobs.again_unsure),
            "more_again_max": plan.jobs.more_again_max,
            "unsettled": plan.jobs.unsettled,
        },
        "frames_unknown": plan.jobs.frames_unknown,
        "unknown_bytes": plan.jobs.unknown_bytes,
    })
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        let message = error.to_string();
        let hint = match error {
            RepairError::Read(_) => "nothing was changed",
            RepairError::Stuck { .. } => {
                "nothing was changed; if what it says does not help, keep a copy of the directory, and report this with `jitney log inspect`"
            }
            RepairError::Write { .. } => {
                "every segment is as it was or mended whole; try again once there is room"
            }
        };
        Self::new(Exit::Io, message).hint(hint)
    }
}

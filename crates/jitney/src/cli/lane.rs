//! `jitney lane`: how many jobs are where.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::ServerUrl;
use crate::units::format_duration;

/// The lanes of the server.
#[derive(Subcommand, Debug)]
pub(super) enum LaneCommand {
    /// List the lanes: each processor's jobs at each priority.
    Ls(LsArgs),
}

/// List the lanes.
#[derive(Args, Debug)]
pub(super) struct LsArgs {
    #[command(flatten)]
    server: ServerUrl,
}

/// The part of the answer that is shown.
#[derive(Deserialize)]
struct Lanes {
    lanes: Vec<Lane>,
}

#[derive(Deserialize)]
struct Lane {
    processor: String,
    priority: String,
    queued: u64,
    running: u64,
    retrying: u64,
    #[serde(default)]
    dead: u64,
    #[serde(default)]
    oldest_age_ms: Option<u64>,
    workers: u64,
    ended: u64,
}

pub(super) async fn run(command: LaneCommand, output: Output) -> Result<Exit, Failure> {
    let LaneCommand::Ls(args) = command;
    let lanes = args.server.client()?.lanes().await?;
    if output.json {
        output.line(lanes.json());
        return Ok(Exit::Done);
    }
    let lanes: Lanes = serde_json::from_str(lanes.json()).map_err(|error| {
        Failure::new(
            Exit::Unreachable,
            format!("the answer is not one of jitney's: {error}"),
        )
    })?;
    if lanes.lanes.is_empty() {
        output.note("no lanes yet: nothing was submitted, and no worker has asked");
        return Ok(Exit::Done);
    }
    let header = [
        "PROCESSOR",
        "PRIORITY",
        "QUEUED",
        "RUNNING",
        "RETRYING",
        "DEAD",
        "OLDEST",
        "WORKERS",
        "ENDED",
    ];
    let row = |lane: Lane| {
        let oldest = lane
            .oldest_age_ms
            .map(|ms| format_duration(Duration::from_millis(ms)));
        vec![
            lane.processor,
            lane.priority,
            lane.queued.to_string(),
            lane.running.to_string(),
            lane.retrying.to_string(),
            lane.dead.to_string(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            lane.workers.to_string(),
            lane.ended.to_string(),
        ]
    };
    output.table(&header, &lanes.lanes.into_iter().map(row).collect::<Vec<_>>());
    Ok(Exit::Done)
}

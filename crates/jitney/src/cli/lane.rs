//! `jitney lane`: how many jobs are where, and lanes that are paused.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::ServerUrl;
use super::submit::priority_parser;
use crate::client::Client;
use crate::job::Priority;
use crate::near::nearest;
use crate::units::rounded_duration;

/// The lanes of the server.
#[derive(Subcommand, Debug)]
pub(super) enum LaneCommand {
    /// List the lanes: each processor's jobs at each priority.
    Ls(LsArgs),
    /// Pause a lane, or all lanes of a processor: nothing is handed out until it is resumed.
    Pause(PauseArgs),
    /// Resume a lane, or all lanes of a processor.
    Resume(PauseArgs),
}

/// List the lanes.
#[derive(Args, Debug)]
pub(super) struct LsArgs {
    #[command(flatten)]
    server: ServerUrl,
}

/// Which lanes.
#[derive(Args, Debug)]
pub(super) struct PauseArgs {
    /// Whose lanes. It need not have a job yet.
    #[arg(value_name = "PROCESSOR")]
    processor: String,
    /// Which of its lanes; all three if it is not given.
    #[arg(value_name = "PRIORITY", value_parser = priority_parser())]
    priority: Option<Priority>,
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
    #[serde(default)]
    paused: bool,
    queued: u64,
    running: u64,
    retrying: u64,
    #[serde(default)]
    dead: u64,
    #[serde(default)]
    oldest_age_ms: Option<u64>,
    workers: u64,
    dispatched: u64,
    #[serde(default)]
    workers_not_ready: u64,
    #[serde(default)]
    not_ready: Option<NotReady>,
    processed_ok: u64,
    processed_error: u64,
    batch_failed: u64,
}

/// One of the workers that cannot start.
#[derive(Deserialize)]
struct NotReady {
    worker: String,
    why: String,
}

/// Who works on the jobs of a processor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attention {
    /// Somebody does.
    Worked,
    /// Somebody would, and cannot start its program.
    CannotStart {
        /// The worker.
        worker: String,
        /// What is wrong.
        why: String,
    },
    /// Somebody did, and nobody does now.
    NotNow,
    /// Nobody ever did since the server started; perhaps another name was meant, of one that is worked on.
    Never {
        /// That name.
        did_you_mean: Option<String>,
    },
}

impl Lane {
    fn ever_worked(&self) -> bool {
        self.workers > 0 || self.dispatched > 0
    }

    /// What somebody should look at.
    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if self.paused {
            remarks.push("paused".to_owned());
        }
        if let Some(NotReady { worker, why }) = &self.not_ready {
            let beside = match self.workers_not_ready {
                0 | 1 => String::new(),
                more => format!(", and {} more", more - 1),
            };
            remarks.push(format!("cannot start: {worker}{beside}: {why}"));
        }
        remarks.join("; ")
    }
}

pub(super) async fn run(command: LaneCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        LaneCommand::Ls(args) => list(args, output).await,
        LaneCommand::Pause(args) => set_paused(args, true, output).await,
        LaneCommand::Resume(args) => set_paused(args, false, output).await,
    }
}

/// Asks who works on the jobs of a processor; `None` where the server does not say: it is a help, not an answer.
pub(super) async fn attention(client: &Client, processor: &str) -> Option<Attention> {
    Some(attention_in(&lanes(client).await?, processor))
}

async fn lanes(client: &Client) -> Option<Vec<Lane>> {
    let lanes = client.lanes().await.ok()?;
    let lanes: Lanes = serde_json::from_str(lanes.json()).ok()?;
    Some(lanes.lanes)
}

fn attention_in(lanes: &[Lane], processor: &str) -> Attention {
    let mut own = lanes.iter().filter(|lane| lane.processor == processor);
    if own.clone().any(|lane| lane.workers > 0) {
        return Attention::Worked;
    }
    if let Some(NotReady { worker, why }) = own.clone().find_map(|lane| lane.not_ready.as_ref()) {
        let (worker, why) = (worker.clone(), why.clone());
        return Attention::CannotStart { worker, why };
    }
    if own.any(Lane::ever_worked) {
        return Attention::NotNow;
    }
    let worked = lanes.iter().filter(|lane| lane.ever_worked());
    let near = nearest(processor, worked.map(|lane| lane.processor.as_str()));
    Attention::Never {
        did_you_mean: near.map(str::to_owned),
    }
}

/// What to know beside a change that was made: a lane may be paused before its processor is there, and so may one
/// whose name is misspelt; resuming a lane that is not there does nothing.
fn beside_change(lanes: &[Lane], processor: &str, paused: bool) -> Option<String> {
    let Attention::Never { did_you_mean } = attention_in(lanes, processor) else {
        return None;
    };
    let mut text = match paused {
        true => {
            format!("note: no worker has asked for `{processor}` yet; it stays paused for those who come")
        }
        false if lanes.iter().any(|lane| lane.processor == processor) => return None,
        false => format!("note: `{processor}` has no lanes, so none was paused"),
    };
    if let Some(name) = did_you_mean {
        text.push_str(&format!("; did you mean `{name}`?"));
        if paused {
            text.push_str(&format!(" `jitney lane resume {processor}` takes it back"));
        }
    }
    Some(text)
}

async fn set_paused(args: PauseArgs, paused: bool, output: Output) -> Result<Exit, Failure> {
    let client = args.server.client()?;
    let priorities = args
        .priority
        .map_or_else(|| Priority::ALL.to_vec(), |priority| vec![priority]);
    for priority in priorities {
        match paused {
            true => client.pause_lane(&args.processor, priority).await?,
            false => client.resume_lane(&args.processor, priority).await?,
        }
        let name = priority.name();
        if output.json {
            let lane = json!({"processor": args.processor, "priority": name, "paused": paused});
            output.line(&lane.to_string());
        } else {
            let what = if paused { "is paused" } else { "goes on" };
            output.line(&format!("{} {name} {what}", args.processor));
        }
    }
    if let Some(lanes) = lanes(&client).await
        && let Some(note) = beside_change(&lanes, &args.processor, paused)
    {
        output.note(&note);
    }
    Ok(Exit::Done)
}

async fn list(args: LsArgs, output: Output) -> Result<Exit, Failure> {
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
        "OK",
        "FAILED",
        "",
    ];
    let row = |lane: Lane| {
        let oldest = lane
            .oldest_age_ms
            .map(|ms| rounded_duration(Duration::from_millis(ms)));
        let remarks = lane.remarks();
        vec![
            lane.processor,
            lane.priority,
            lane.queued.to_string(),
            lane.running.to_string(),
            lane.retrying.to_string(),
            lane.dead.to_string(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            lane.workers.to_string(),
            lane.processed_ok.to_string(),
            (lane.processed_error + lane.batch_failed).to_string(),
            remarks,
        ]
    };
    output.table(&header, &lanes.lanes.into_iter().map(row).collect::<Vec<_>>());
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_near_one_that_is_worked_on_was_probably_meant() {
        let lanes: Vec<Lane> = [("payments", 0, 9), ("mail", 2, 0), ("paymnts", 0, 0), ("orders", 0, 3)]
            .into_iter()
            .map(|(processor, workers, dispatched)| {
                let lane = json!({"processor": processor, "priority": "NORMAL", "queued": 0, "running": 0, "retrying": 0,
                    "workers": workers, "dispatched": dispatched, "processed_ok": 0, "processed_error": 0,
                    "batch_failed": 0});
                serde_json::from_value(lane).unwrap()
            })
            .collect();
        let never = |name: Option<&str>| Attention::Never {
            did_you_mean: name.map(str::to_owned),
        };
        let broken = json!({"processor": "sick", "priority": "NORMAL", "queued": 1, "running": 0, "retrying": 0,
            "workers": 0, "workers_not_ready": 1, "not_ready": {"worker": "w-1", "why": "gone"}, "dispatched": 9,
            "processed_ok": 0, "processed_error": 0, "batch_failed": 0});
        let cannot_start = Attention::CannotStart {
            worker: "w-1".to_owned(),
            why: "gone".to_owned(),
        };
        let broken: Lane = serde_json::from_value(broken).unwrap();
        assert_eq!(attention_in(&[broken], "sick"), cannot_start);
        for (processor, expected) in [
            ("mail", Attention::Worked),
            ("orders", Attention::NotNow),
            ("paymens", never(Some("payments"))),
            ("paymnts", never(Some("payments"))),
            ("invoices", never(None)),
        ] {
            assert_eq!(attention_in(&lanes, processor), expected, "{processor}");
        }
    }

    #[test]
    fn a_lane_says_what_to_look_at() {
        let lane = |workers_not_ready, not_ready, paused| {
            let lane = json!({"processor": "orders", "priority": "NORMAL", "paused": paused, "queued": 1, "running": 0,
                "retrying": 0, "workers": 2, "workers_not_ready": workers_not_ready, "not_ready": not_ready, "dispatched": 0, "processed_ok": 0,
                "processed_error": 0, "batch_failed": 0});
            serde_json::from_value::<Lane>(lane).unwrap().remarks()
        };
        let broken = json!({"worker": "w-1", "why": "`./x` exited with code 1"});
        assert_eq!(lane(0, json!(null), false), "");
        assert_eq!(lane(0, json!(null), true), "paused");
        assert_eq!(
            lane(1, broken.clone(), false),
            "cannot start: w-1: `./x` exited with code 1"
        );
        assert_eq!(
            lane(3, broken, true),
            "paused; cannot start: w-1, and 2 more: `./x` exited with code 1"
        );
    }
}

//! A program with jitney inside, as a process of its own: callers and handlers in one, killed at any moment.
//!
//! It opens the directory that those before it left behind, says so, and goes on until it is killed, or until its
//! standard input ends because its keeper is gone. The last of them submits nothing: it ends every job, reads each,
//! closes, opens again, and reads each again.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jitney::Jitney;
use jitney::client::Submit;
use jitney::job::Payload;
use jitney::limits::Limits;
use jitney::policy::PolicyPatch;
use jitney::worker::{HandlerError, Job};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::callers::{self, Caller, Shared};
use crate::checker;
use crate::history::{self, Event, Recorder};
use crate::order::{self, BRITTLE, Executed, LABEL, Order, Plan, STEADY};
use crate::rng::Rng;

/// The argument that makes a process of this binary such a program.
pub(crate) const EMBEDDED: &str = "embedded";
/// What it says once it is open.
pub(crate) const OPEN: &str = "open";

/// Callers at once.
const CALLERS: usize = 16;
/// Submits that one process may make: it is killed long before.
const SUBMITS: usize = 2_000;
/// How many numbers a process has for its jobs.
const NUMBERS: u64 = 1 << 20;
/// Until the last process has ended every job.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// What such a process is started with.
#[derive(Debug)]
pub(crate) struct Options {
    /// Which of them it is, from 1.
    pub(crate) number: u64,
    /// It submits nothing, and ends everything.
    pub(crate) last: bool,
    pub(crate) seed: u64,
}

/// Runs in the current directory.
pub(crate) async fn run(options: Options) -> Result<()> {
    let directory = std::env::current_dir()?;
    let by = format!("e{}", options.number);
    let recorder = Arc::new(Recorder::open(&directory, &by)?);
    let mut rng = Rng::new(options.seed);
    let jitney = open(&directory).await?;
    recorder.record(Event::Note {
        text: "open".to_owned(),
    })?;
    say_open()?;
    for processor in [STEADY, BRITTLE] {
        hire(&jitney, processor, options.last, &mut rng);
    }
    if options.last {
        drain(&jitney).await?;
        read_all(&directory, &recorder, &jitney).await?;
        jitney.close().await?;
        // What was true before a close is true after it.
        let jitney = open(&directory).await?;
        read_all(&directory, &recorder, &jitney).await?;
        return Ok(jitney.close().await?);
    }
    let (_current, server) = watch::channel(Some(jitney.client()));
    let shared = Shared::new(Arc::clone(&recorder), server, options.number * NUMBERS);
    let shared = Arc::new(shared.inherit(&directory, &by)?);
    shared.budget.add_permits(SUBMITS);
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        calls.spawn(Caller::new(Arc::clone(&shared), rng.fork()).run());
    }
    tokio::select! {
        _ = keeper_gone()? => Ok(()),
        ended = calls.join_next() => ended.context("there are callers")??.context("a caller ended"),
        ended = jitney.ended() => anyhow::bail!("jitney ended by itself: {ended:?}"),
    }
}

/// Small segments, so that the log moves through many; what the other crash test gives its server.
async fn open(directory: &Path) -> Result<Jitney> {
    let steady = PolicyPatch {
        max_jobs: Some(16),
        max_attempts: Some(1_000),
        max_crashes: Some(1_000),
        backoff: Some(Duration::from_millis(20)),
        backoff_max: Some(Duration::from_millis(200)),
        ..PolicyPatch::default()
    };
    let brittle = PolicyPatch {
        max_attempts: Some(2),
        max_crashes: Some(2),
        ..steady.clone()
    };
    let limits = Limits {
        job_bytes_max: 16 << 10,
        body_bytes_max: 128 << 10,
        ..Limits::default()
    };
    // One that keeps nothing, to see that the checker finds it: docs/durability.md.
    let memory = std::env::var("JITNEY_BUS").is_ok_and(|bus| bus == "memory");
    let builder = match memory {
        true => Jitney::in_memory(),
        false => Jitney::builder(directory.join("data"))
            .segment_bytes(5 << 20)
            .cache_bytes(64 << 10),
    };
    let builder = builder
        .policy(STEADY, steady)
        .policy(BRITTLE, brittle)
        .limits(limits)
        .grace(Duration::from_secs(2));
    Ok(builder.open().await?)
}

#[expect(clippy::print_stdout, reason = "the keeper waits for this line")]
fn say_open() -> Result<()> {
    println!("{OPEN}");
    Ok(std::io::stdout().flush()?)
}

/// Resolves when standard input ends.
fn keeper_gone() -> Result<oneshot::Receiver<()>> {
    let (keeper_gone, gone) = oneshot::channel();
    // It ends with its input, or with the process: nothing else ends a read.
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            drop(std::io::stdin().read(&mut [0; 1]));
            let _ = keeper_gone.send(());
        })?;
    Ok(gone)
}

/// Starts handlers of a processor; `good` ones fail nothing that is not planned.
fn hire(jitney: &Jitney, processor: &str, good: bool, rng: &mut Rng) {
    let rng = Arc::new(Mutex::new(rng.fork()));
    let handler = move |job: Job<Payload>| {
        let rng = Arc::clone(&rng);
        async move { process(&job, good, &rng).await }
    };
    let worker = jitney.worker(processor).slots(4);
    jitney.spawn(worker.on_group_raw("default", handler));
}

/// What becomes of a job: as its plan says, but for what happens now and then.
async fn process(job: &Job<Payload>, good: bool, rng: &Mutex<Rng>) -> Result<Payload, HandlerError> {
    let wrong = |error: serde_json::Error| HandlerError::last("malformed", error);
    let order: Order = serde_json::from_slice(&job.data.bytes).map_err(wrong)?;
    if !good {
        let (fails, pause) = {
            let mut rng = rng.lock().await;
            (rng.percent(5), rng.percent(30).then(|| rng.millis(1, 40)))
        };
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        if fails {
            return Err(HandlerError::retryable("again", "another try may help"));
        }
    }
    if order.plan == Plan::Fail {
        return Err(HandlerError::last("planned", "as the order says"));
    }
    for child in order.children() {
        let submit = Submit::json(STEADY, &child).map_err(|error| HandlerError::last("malformed", error))?;
        job.submit_child(submit.label(LABEL, child.n.to_string()));
    }
    let executed = Executed {
        n: order.n,
        hash: order::hash(&job.data.bytes),
        lease: String::new(),
    };
    Ok(Payload {
        content_type: None,
        bytes: serde_json::to_vec(&executed).map_err(wrong)?.into(),
    })
}

/// Waits until every job has ended.
async fn drain(jitney: &Jitney) -> Result<()> {
    let client = jitney.client();
    let until = Instant::now() + DRAIN_WITHIN;
    while !callers::lanes_are_empty(&client).await? {
        ensure!(
            Instant::now() < until,
            "the lanes are not empty after {DRAIN_WITHIN:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Reads every job there must be.
async fn read_all(directory: &Path, recorder: &Recorder, jitney: &Jitney) -> Result<()> {
    let client = jitney.client();
    for id in checker::ids(&history::read_all(directory)?) {
        callers::read(recorder, &client, &id, true).await?;
    }
    Ok(())
}

//! The workers of the soak: those of `steady` do their work; those of `wild` stall, forget, fail, give back, and are
//! cut off in the middle of it; and somebody pauses and resumes a lane.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jitney::client::{Batch, Client, LeaseRequest, LeasedJob, Outcome, OutcomeError, Settle, SettleBody};
use jitney::job::Priority;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::load::{self, Shared};
use crate::rng::Rng;

/// Workers of each kind.
const WORKERS: u64 = 3;
/// Longer than the lease of the configuration.
const STALL: Duration = Duration::from_secs(3);
/// A wild worker is cut off after this long at most, milliseconds.
const LIFE_MS: u64 = 5_000;
/// Batches at once, where a backlog is worked off.
const DRAIN_JOBS: u32 = 1_000;

/// Starts them; they run until they are aborted.
pub(super) fn start(shared: &Arc<Shared>, rng: &mut Rng, tasks: &mut JoinSet<Result<()>>) {
    for n in 0..WORKERS {
        let steady = Arc::clone(shared);
        tasks.spawn(async move { steady_work(&steady, "steady", &format!("s{n}"), 16).await });
        let (wild, mut rng) = (Arc::clone(shared), rng.fork());
        tasks.spawn(async move {
            loop {
                // With a connection of its own, which ends with it, whatever it is doing.
                let life = rng.millis(200, LIFE_MS);
                let client = load::client(wild.client().url())?;
                let own = rng.fork();
                if let Ok(ended) = timeout(life, wild_work(&wild, &client, &format!("w{n}"), own)).await {
                    return ended;
                }
            }
        });
    }
    let operated = Arc::clone(shared);
    tasks.spawn(async move { operate(&operated).await });
}

/// Starts workers that take everything that is left.
pub(super) fn start_drainers(shared: &Arc<Shared>, tasks: &mut JoinSet<Result<()>>) {
    for processor in ["parked", "wild", "backlog"] {
        let shared = Arc::clone(shared);
        tasks.spawn(async move { steady_work(&shared, processor, "drain", DRAIN_JOBS).await });
    }
}

async fn steady_work(shared: &Shared, processor: &str, name: &str, max_jobs: u32) -> Result<()> {
    loop {
        let client = shared.client();
        for batch in poll(shared, &client, processor, name, max_jobs).await {
            let outcomes = batch.jobs.iter().map(done).collect::<Result<_>>()?;
            settle(shared, &client, &batch, outcomes).await;
        }
    }
}

async fn wild_work(shared: &Shared, client: &Client, name: &str, mut rng: Rng) -> Result<()> {
    loop {
        for batch in poll(shared, client, "wild", name, 16).await {
            // So seldom that these workers keep up even if every job travels alone, as those must that were lost twice:
            // else a moment in which the machine stands still is followed by a queue that never empties.
            match rng.below(400) {
                0 => continue,
                1 => sleep(STALL).await,
                _ => {}
            }
            let mut outcomes = Vec::with_capacity(batch.jobs.len());
            for job in &batch.jobs {
                outcomes.push(match rng.below(50) {
                    0 => Outcome::release(job.id),
                    1 | 2 => Outcome::error(job.id, again()),
                    _ => done(job)?,
                });
            }
            settle(shared, client, &batch, outcomes).await;
        }
    }
}

async fn poll(shared: &Shared, client: &Client, processor: &str, name: &str, max_jobs: u32) -> Vec<Batch> {
    let request = LeaseRequest {
        max_jobs: Some(max_jobs),
        wait: Duration::from_secs(1),
        ..LeaseRequest::new(name)
    };
    match client.lease(processor, &request).await {
        Ok(answer) => answer.batches,
        Err(error) => {
            shared.failed("a poll", error).await;
            Vec::new()
        }
    }
}

async fn settle(shared: &Shared, client: &Client, batch: &Batch, outcomes: Vec<Outcome>) {
    let settle = Settle {
        lease: batch.lease.clone(),
        body: SettleBody::Outcomes { outcomes, last: true },
    };
    if let Err(error) = client.settle(&settle).await {
        shared.failed("a settle", error).await;
    }
}

/// The job's number is its result.
fn done(job: &LeasedJob) -> Result<Outcome> {
    let data: serde_json::Value = serde_json::from_slice(&job.payload.bytes)?;
    let number = if data.is_array() { &data[0] } else { &data };
    let number = number.as_u64().context("each job has its number")?;
    Ok(Outcome::json(job.id, &number, Vec::new())?)
}

fn again() -> OutcomeError {
    OutcomeError {
        code: "again".to_owned(),
        message: "another try will do".to_owned(),
        retryable: true,
        retry_after: None,
        data: None,
    }
}

/// Pauses a lane and resumes it, again and again.
async fn operate(shared: &Shared) -> Result<()> {
    loop {
        sleep(Duration::from_secs(10)).await;
        if let Err(error) = shared.client().pause_lane("wild", Priority::Slow).await {
            shared.failed("a pause", error).await;
        }
        sleep(Duration::from_secs(2)).await;
        if let Err(error) = shared.client().resume_lane("wild", Priority::Slow).await {
            shared.failed("a resume", error).await;
        }
    }
}

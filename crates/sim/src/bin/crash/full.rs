//! A disk that is really full, and loses its power then: part of the power-loss test, as it needs a device of its own.
//!
//! New work is refused, outcomes are taken, a start needs no room, nothing that was accepted is lost, and when there is
//! room again it goes on by itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jitney::client::{Client, Error, LeaseRequest, Outcome, Settle, SettleBody, Submit};
use jitney::job::{JobId, State};
use tokio::time::{sleep, timeout};

use crate::callers;
use crate::device::Device;
use crate::order::STEADY;
use crate::say;
use crate::server::Place;

/// Room for the segments that there always are, and a few more.
const BYTES: u64 = 128 << 20;
/// Far more submits than the segments that are held back can take.
const SUBMITS_MAX: usize = 20_000;
/// Bytes of data in each.
const DATA_BYTES: usize = 14_000;
/// Further starts on it, each after a kill: whatever one of them takes or gives back must not be missed by the next.
const STARTS: u32 = 20;
/// So many refusals in a row: it is full.
const REFUSED: u32 = 50;
/// Spare segments that a log wants.
const SPARES: usize = 3;
/// For what happens in the background.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it in an empty directory.
pub(crate) async fn run(place: &Place) -> Result<()> {
    place.prepare()?;
    let mut device = Device::create(&place.directory, BYTES).await?;
    let server = place.start().await?;
    let client = callers::client(server.url())?;
    for n in 0..4 {
        client.submit(Submit::json(STEADY, &n)?).await?;
    }
    let leased = client.lease(STEADY, &LeaseRequest::new("full")).await?;
    let batch = leased.batches.first().context("there are jobs")?;
    within("spare segments are made", async || Ok(spares(place)? >= SPARES)).await?;

    device.fill()?;
    let accepted = submit_until_full(&client).await?;
    ensure!(is_full(client.ready().await), "a full server does not say so");
    let outcomes = batch
        .jobs
        .iter()
        .map(|job| Outcome::json(job.id, &(), Vec::new()));
    let settle = Settle {
        lease: batch.lease.clone(),
        body: SettleBody::Outcomes {
            outcomes: outcomes.collect::<Result<_, _>>()?,
            last: true,
        },
    };
    let settled = client
        .settle(&settle)
        .await
        .context("a full disk takes outcomes")?;
    ensure!(settled.error.is_none(), "a full disk takes outcomes");

    server.cut(&mut device).await?;
    let mut server = place.start().await.context("a full disk prevents no start")?;
    for n in 1..=STARTS {
        server.kill().await?;
        // Not even the block that the process gave back is left.
        device.fill()?;
        let started = place.start().await;
        server =
            started.with_context(|| format!("a full disk prevents no start, nor the {n} that follow"))?;
    }
    let client = callers::client(server.url())?;
    for id in &accepted {
        let job = client.get(*id).await.context("an accepted job is there")?;
        ensure!(job.state == State::Queued, "an accepted job is {:?}", job.state);
    }
    device.make_room()?;
    let takes = async || Ok(client.submit(Submit::json(STEADY, &0)?).await.is_ok());
    within("new work is taken once there is room", takes).await?;
    server.stop().await?;
    say(&format!(
        "full disk: {} jobs accepted until it was full, all there after a power cut\n",
        accepted.len()
    ));
    Ok(())
}

/// Submits one after the other until all are refused, and not only those that met the end of a segment.
async fn submit_until_full(client: &Client) -> Result<Vec<JobId>> {
    let data = "x".repeat(DATA_BYTES);
    let (mut accepted, mut refused) = (Vec::new(), 0);
    while accepted.len() < SUBMITS_MAX {
        match client.submit(Submit::json(STEADY, &data)?).await {
            Ok(submitted) => {
                accepted.push(submitted.job.id);
                refused = 0;
            }
            error => {
                ensure!(is_full(error.map(drop)), "refused, but not as `disk_full`");
                refused += 1;
                if refused == REFUSED {
                    return Ok(accepted);
                }
            }
        }
    }
    bail!("a full disk took {SUBMITS_MAX} jobs")
}

fn is_full(answer: Result<(), Error>) -> bool {
    matches!(answer, Err(Error::Refused(problem)) if problem.code == "disk_full")
}

fn spares(place: &Place) -> Result<usize> {
    let names = fs::read_dir(place.directory.join(&place.data))?;
    let is_spare = |name: &Path| {
        let name = name.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("spare-"))
    };
    Ok(names.flatten().filter(|entry| is_spare(&entry.path())).count())
}

async fn within(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let until = async {
        while !is_so().await? {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    timeout(PATIENCE, until)
        .await
        .with_context(|| format!("not after {PATIENCE:?}: {what}"))?
}

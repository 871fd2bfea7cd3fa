//! The operator: pauses lanes and lets them go on while everything around is killed, and looks whether it is so.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jitney::client::{Client, Error};
use jitney::job::Priority;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::callers::{Shared, TRIES, failure};
use crate::history::{Event, Lane};
use crate::order::{BRITTLE, STEADY};
use crate::rng::Rng;

/// The one who pauses.
#[derive(Debug)]
pub(crate) struct Operator {
    shared: Arc<Shared>,
    server: watch::Receiver<Option<Client>>,
    rng: Rng,
    /// Lanes that may be paused.
    paused: BTreeSet<(&'static str, Priority)>,
}

impl Operator {
    pub(crate) fn new(shared: Arc<Shared>, rng: Rng) -> Self {
        Self {
            server: shared.server.clone(),
            shared,
            rng,
            paused: BTreeSet::new(),
        }
    }

    /// Pauses and resumes until nothing is submitted any more; at last every lane goes on.
    pub(crate) async fn run(mut self) -> Result<()> {
        while !self.shared.budget.is_closed() {
            let some = self.rng.index(self.paused.len());
            match self.paused.iter().nth(some).copied() {
                Some(lane) if self.paused.len() > 1 || self.rng.percent(50) => self.set(lane, false).await?,
                _ => {
                    let processor = if self.rng.percent(50) { BRITTLE } else { STEADY };
                    let priority = Priority::ALL[self.rng.index(Priority::ALL.len())];
                    self.set((processor, priority), true).await?;
                }
            }
            let pause = self.rng.millis(20, 300);
            sleep(pause).await;
            self.look().await?;
        }
        while let Some(lane) = self.paused.first().copied() {
            self.set(lane, false).await?;
        }
        Ok(())
    }

    /// Says it until it is acknowledged.
    async fn set(&mut self, lane: (&'static str, Priority), paused: bool) -> Result<()> {
        let (processor, priority) = lane;
        self.paused.insert(lane);
        for _ in 0..TRIES {
            let client = self.client().await?;
            let call = self.shared.recorder.call();
            self.shared.recorder.record(Event::Pause {
                call,
                lane: Lane {
                    processor: processor.to_owned(),
                    priority: priority.name().to_owned(),
                },
                paused,
            })?;
            let answer = match paused {
                true => client.pause_lane(processor, priority).await,
                false => client.resume_lane(processor, priority).await,
            };
            match answer {
                Ok(()) => {
                    self.shared.recorder.record(Event::Paused { call })?;
                    if !paused {
                        self.paused.remove(&lane);
                    }
                    return Ok(());
                }
                Err(error) => self.shared.recorder.record(failure(call, &error))?,
            }
            let pause = self.rng.millis(5, 40);
            sleep(pause).await;
        }
        bail!("a pause was not acknowledged in {TRIES} tries")
    }

    async fn look(&mut self) -> Result<()> {
        let client = self.client().await?;
        let call = self.shared.recorder.call();
        self.shared.recorder.record(Event::Look { call })?;
        let event = match looked(&client).await? {
            Ok(paused) => Event::Looked { call, paused },
            Err(error) => failure(call, &error),
        };
        self.shared.recorder.record(event)
    }

    async fn client(&mut self) -> Result<Client> {
        let client = self.server.wait_for(Option::is_some).await?.clone();
        client.context("there is a server")
    }
}

/// The lanes that are paused.
async fn looked(client: &Client) -> Result<Result<Vec<Lane>, Error>> {
    let lanes = match client.lanes().await {
        Ok(lanes) => lanes,
        Err(error) => return Ok(Err(error)),
    };
    let lanes: serde_json::Value = serde_json::from_str(lanes.json())?;
    let lanes = lanes["lanes"].as_array().context("the answer has lanes")?;
    let mut paused = Vec::new();
    for lane in lanes {
        let text = |name: &str| {
            lane[name]
                .as_str()
                .context("a lane has a processor and a priority")
        };
        if lane["paused"] == true {
            paused.push(Lane {
                processor: text("processor")?.to_owned(),
                priority: text("priority")?.to_owned(),
            });
        }
    }
    Ok(Ok(paused))
}

//! Callers with many jobs at once: NDJSON, some jobs twice in it or submitted before, all of it again where it is not
//! known what became of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use jitney::client::{Client, Error, Retry, Submit, Taken};
use tokio::time::sleep;

use crate::callers::{Caller, Job, TRIES, failure, read};
use crate::history::{Event, Name, View};

/// Jobs of one request at most: about as much data as one frame of the log takes.
const TOGETHER_MAX: u64 = 40;

/// What a caller hears of one of its jobs.
enum Heard {
    Taken(Taken),
    /// As it was when the wait was over.
    Shown(View),
}

impl Caller {
    /// Submits some jobs together until there is an answer to each, or trying again would not be safe.
    pub(crate) async fn submit_together(&mut self) -> Result<()> {
        let mut jobs: Vec<Job> = Vec::new();
        for _ in 0..2 + self.rng.below(TOGETHER_MAX - 1) {
            let again = jobs.get(self.rng.index(jobs.len())).cloned();
            let again = again.filter(|job| job.name != Name::None && !job.clash);
            match again {
                Some(job) if self.rng.percent(10) => jobs.push(job),
                _ => jobs.push(self.next().await),
            }
        }
        let wait = self.rng.percent(40).then(|| self.rng.millis(100, 2_000));
        for _ in 0..TRIES {
            let Some(client) = self.server().await else {
                return Ok(());
            };
            let mut calls = Vec::with_capacity(jobs.len());
            let mut submits = Vec::with_capacity(jobs.len());
            for job in &jobs {
                calls.push(self.begin(job, wait.is_some())?);
                submits.push(job.submit()?);
            }
            let answer = call(&client, submits, wait).await;
            jobs = self.heard(jobs, &calls, answer).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            let pause = self.rng.millis(10, 60);
            sleep(pause).await;
        }
        Ok(())
    }

    /// Records what became of each job. Those that are to be submitted again are left.
    async fn heard(
        &mut self,
        jobs: Vec<Job>,
        calls: &[u64],
        answer: Result<Vec<Result<Heard, Error>>, Error>,
    ) -> Result<Vec<Job>> {
        let entries = match answer {
            Ok(entries) => entries,
            Err(error) => {
                for call in calls {
                    self.shared.recorder.record(failure(*call, &error))?;
                }
                let mut jobs = jobs;
                jobs.retain(|job| is_tried_again(job, &error));
                return Ok(jobs);
            }
        };
        ensure!(
            entries.len() == jobs.len(),
            "{} jobs were submitted together, {} answered",
            jobs.len(),
            entries.len()
        );
        let mut left = Vec::new();
        let mut ids = Vec::new();
        for ((job, call), entry) in jobs.into_iter().zip(calls).zip(entries) {
            match entry {
                Ok(Heard::Shown(view)) => ids.push(self.accepted(&job, *call, view).await?),
                Ok(Heard::Taken(taken)) => {
                    let id = taken.id.to_string();
                    self.shared.recorder.record(Event::Taken {
                        call: *call,
                        id: id.clone(),
                        replayed: taken.replayed,
                    })?;
                    self.remember(&job).await?;
                    ids.push(id);
                }
                Err(error) => {
                    self.shared.recorder.record(failure(*call, &error))?;
                    if is_tried_again(&job, &error) {
                        left.push(job);
                    }
                }
            }
        }
        if let Some(id) = ids.get(self.rng.index(ids.len()))
            && let Some(client) = self.server().await
        {
            read(&self.shared.recorder, &client, id, false).await?;
        }
        Ok(left)
    }
}

/// Submits them once.
async fn call(
    client: &Client,
    submits: Vec<Submit>,
    wait: Option<Duration>,
) -> Result<Vec<Result<Heard, Error>>, Error> {
    let Some(wait) = wait else {
        let entries = client.submit_many(submits).await?.into_iter();
        return Ok(entries
            .map(|entry| entry.map(Heard::Taken).map_err(Error::Refused))
            .collect());
    };
    let ends = client.submit_many_and_wait(submits, wait).await?.into_iter();
    let heard = ends.map(|end| match end {
        Ok(job) => Ok(Heard::Shown(View::of(&job))),
        Err(Error::TimedOut { id, .. } | Error::Accepted { id, .. }) => {
            Ok(Heard::Shown(View::open(id.to_string())))
        }
        Err(error) => Err(error),
    });
    Ok(heard.collect())
}

fn is_tried_again(job: &Job, error: &Error) -> bool {
    let may_help = match error {
        Error::Refused(problem) => problem.retry != Retry::No,
        _ => true,
    };
    may_help && (job.name != Name::None || error.took_no_effect())
}

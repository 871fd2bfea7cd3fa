//! A worker process: polls, computes, and settles over HTTP, in every way that a worker may.
//!
//! It runs until it is killed, or until its standard input ends because its keeper is gone.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jitney::client::{
    Batch, BatchError, Client, Error, LeaseAnswer, LeaseRequest, LeasedJob, Outcome, OutcomeError, Retries,
    Settle, SettleAnswer, SettleBody, Submit,
};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::history::{Event, Held, Lane, Outcome as Word, Recorder, Said, Verdict};
use crate::order::{self, BRITTLE, Executed, LABEL, Order, Plan, STEADY};
use crate::rng::Rng;
use crate::server::read_url;
use crate::workers::GOOD;

/// Loops per process; they share nothing but the history.
const SLOTS: u64 = 2;
/// Between two tries while the server is gone.
const PAUSE: Duration = Duration::from_millis(20);
/// Tries of one call before a worker gives up on it: many restarts.
const TRIES: u32 = 200;

/// What a worker process is started with.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) manners: String,
    pub(crate) seed: u64,
}

/// Works in the current directory until standard input ends.
pub(crate) async fn run(options: Options) -> Result<()> {
    let recorder = Arc::new(Recorder::open(&std::env::current_dir()?, &options.name)?);
    let mut rng = Rng::new(options.seed);
    let mut slots = tokio::task::JoinSet::new();
    for slot in 0..SLOTS {
        let worker = Worker {
            name: format!("{}-{slot}", options.name),
            good: options.manners == GOOD,
            ready_file: PathBuf::from("ready"),
            client: None,
            recorder: Arc::clone(&recorder),
            rng: rng.fork(),
            polls: 0,
            carried: VecDeque::new(),
        };
        slots.spawn(worker.run(if slot == 0 { STEADY } else { BRITTLE }));
    }
    let (keeper_gone, gone) = oneshot::channel();
    // It ends with its input, or with the process: nothing else ends a read.
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            drop(std::io::stdin().read(&mut [0; 1]));
            let _ = keeper_gone.send(());
        })?;
    tokio::select! {
        _ = gone => Ok(()),
        ended = slots.join_next() => ended.context("there are slots")??.context("a slot ended"),
    }
}

struct Worker {
    name: String,
    good: bool,
    ready_file: PathBuf,
    client: Option<Client>,
    recorder: Arc<Recorder>,
    rng: Rng,
    polls: u64,
    /// Settles that ride with the next poll.
    carried: VecDeque<Report>,
}

/// A settle, and what it says, for the history.
#[derive(Clone)]
struct Report {
    settle: Settle,
    said: Vec<Said>,
}

impl Worker {
    /// Mostly this processor, now and then the other.
    async fn run(mut self, processor: &'static str) -> Result<()> {
        loop {
            let other = if processor == STEADY { BRITTLE } else { STEADY };
            let of = if self.rng.percent(30) { other } else { processor };
            for batch in self.poll(of).await? {
                self.work(&batch).await?;
            }
        }
    }

    /// Asks for batches, repeating the same poll while its answer is lost; now and then it forgets it instead,
    /// and what it was given is left to the lease.
    async fn poll(&mut self, processor: &str) -> Result<Vec<Batch>> {
        self.polls += 1;
        let reports: Vec<Report> = self.carried.drain(..).collect();
        let request = LeaseRequest {
            slots: 1 + u32::try_from(self.rng.below(2))?,
            max_jobs: self.rng.percent(20).then_some(3),
            wait: Duration::from_millis(200),
            request_id: Some(format!("{}-{}", self.name, self.polls)),
            not_ready: self
                .rng
                .percent(5)
                .then(|| "its program does not start".to_owned()),
            settle: reports.iter().map(|report| report.settle.clone()).collect(),
            ..LeaseRequest::new(&self.name)
        };
        for _ in 0..TRIES {
            let Some(client) = self.client() else {
                sleep(PAUSE).await;
                continue;
            };
            let calls = self.begin(&request, &reports)?;
            match client.lease(processor, &request).await {
                Ok(answer) => {
                    ensure!(
                        request.not_ready.is_none() || answer.batches.is_empty(),
                        "a worker that cannot start was given batches"
                    );
                    return self.leased(processor, calls, answer).await;
                }
                Err(error) => self.failed(calls[0], &error)?,
            }
            self.client = None;
            sleep(PAUSE).await;
            if self.rng.percent(10) {
                break;
            }
        }
        // Their answers are not known: they are sent again by themselves.
        for report in reports {
            self.settle(&report).await?;
        }
        Ok(Vec::new())
    }

    /// Records a poll and the settles that it carries; the poll's call is the first.
    fn begin(&self, request: &LeaseRequest, reports: &[Report]) -> Result<Vec<u64>> {
        let call = self.recorder.call();
        self.recorder.record(Event::Poll {
            call,
            request: request.request_id.clone().unwrap_or_default(),
        })?;
        let mut calls = vec![call];
        for report in reports {
            calls.push(self.begin_settle(report)?);
        }
        Ok(calls)
    }

    fn begin_settle(&self, report: &Report) -> Result<u64> {
        let call = self.recorder.call();
        self.recorder.record(Event::Settle {
            call,
            lease: report.settle.lease.clone(),
            said: report.said.clone(),
        })?;
        Ok(call)
    }

    async fn leased(&self, processor: &str, calls: Vec<u64>, answer: LeaseAnswer) -> Result<Vec<Batch>> {
        let held = |batch| held(processor, batch);
        let batches = answer.batches.iter().map(held).collect::<Result<_>>()?;
        let call = calls[0];
        self.recorder.record(Event::Leased { call, batches })?;
        for (call, settled) in calls[1..].iter().zip(&answer.settled) {
            self.settled(*call, settled)?;
        }
        if let Some(after) = answer.retry_after {
            // The server drains; it will be another one soon.
            sleep(after.min(PAUSE)).await;
        }
        Ok(answer.batches)
    }

    fn settled(&self, call: u64, answer: &SettleAnswer) -> Result<()> {
        if let Some(error) = &answer.error {
            let code = error.code.clone();
            return self.recorder.record(Event::Failed {
                call,
                code,
                effect: true,
            });
        }
        let verdicts = answer.results.iter().map(|result| Verdict {
            id: result.id.to_string(),
            is: format!("{:?}", result.is).to_lowercase(),
        });
        self.recorder.record(Event::Settled {
            call,
            verdicts: verdicts.collect(),
        })
    }

    fn failed(&self, call: u64, error: &Error) -> Result<()> {
        let event = crate::callers::failure(call, error);
        self.recorder.record(event)
    }

    /// Processes a batch, and reports it in one of the ways there are.
    async fn work(&mut self, batch: &Batch) -> Result<()> {
        let mut outcomes = Vec::with_capacity(batch.jobs.len());
        for job in &batch.jobs {
            outcomes.push(self.outcome(&batch.lease, job)?);
        }
        if self.good {
            return self.settle(&report(&batch.lease, &outcomes, true)).await;
        }
        if self.rng.percent(25) {
            let pause = self.rng.millis(1, 40);
            sleep(pause).await;
        }
        match self.rng.below(100) {
            // It forgets the batch, as one that hangs.
            0..4 => Ok(()),
            4..9 => {
                let error = BatchError {
                    code: "whole".to_owned(),
                    message: batch.lease.clone(),
                };
                let body = SettleBody::Failed {
                    error,
                    crashed: false,
                };
                let settle = Settle {
                    lease: batch.lease.clone(),
                    body,
                };
                self.settle(&Report {
                    settle,
                    said: Vec::new(),
                })
                .await
            }
            9..24 if outcomes.len() > 1 => {
                let half = outcomes.len() / 2;
                self.settle(&report(&batch.lease, &outcomes[..half], false))
                    .await?;
                self.extend(&batch.lease).await?;
                self.settle(&report(&batch.lease, &outcomes[half..], true)).await
            }
            24..34 => {
                let report = report(&batch.lease, &outcomes, true);
                self.settle(&report).await?;
                self.settle(&report).await
            }
            34..60 => {
                self.carried.push_back(report(&batch.lease, &outcomes, true));
                Ok(())
            }
            _ => self.settle(&report(&batch.lease, &outcomes, true)).await,
        }
    }

    /// Sends a settle until it is answered.
    async fn settle(&mut self, report: &Report) -> Result<()> {
        for _ in 0..TRIES {
            let Some(client) = self.client() else {
                sleep(PAUSE).await;
                continue;
            };
            let call = self.begin_settle(report)?;
            match client.settle(&report.settle).await {
                Ok(answer) => return self.settled(call, &answer),
                Err(Error::Refused(problem)) if problem.retry_after.is_none() => {
                    return self.failed(call, &Error::Refused(problem));
                }
                Err(error) => self.failed(call, &error)?,
            }
            self.client = None;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// One heartbeat; what comes of it the next settle shows.
    async fn extend(&mut self, lease: &str) -> Result<()> {
        if let Some(client) = self.client() {
            let call = self.recorder.call();
            self.recorder.record(Event::Settle {
                call,
                lease: lease.to_owned(),
                said: Vec::new(),
            })?;
            match client.extend(lease).await {
                Ok(_) => self.recorder.record(Event::Settled {
                    call,
                    verdicts: Vec::new(),
                })?,
                Err(error) => self.failed(call, &error)?,
            }
        }
        Ok(())
    }

    /// What becomes of a job: as its plan says, but for what a wild worker does now and then.
    fn outcome(&mut self, lease: &str, job: &LeasedJob) -> Result<(Outcome, Word)> {
        let data = &job.payload.bytes;
        let order: Order = serde_json::from_slice(data)?;
        let error = |code: &str, retryable| OutcomeError {
            code: code.to_owned(),
            message: lease.to_owned(),
            retryable,
            retry_after: None,
            data: None,
        };
        match self.rng.below(100) {
            0..5 if !self.good => {
                return Ok((Outcome::error(job.id, error("again", true)), Word::RetryableError));
            }
            5..8 if !self.good => return Ok((Outcome::release(job.id), Word::Release)),
            _ => {}
        }
        if order.plan == Plan::Fail {
            return Ok((Outcome::error(job.id, error("planned", false)), Word::FinalError));
        }
        let executed = Executed {
            n: order.n,
            hash: order::hash(data),
            lease: lease.to_owned(),
        };
        let child = |child: &Order| {
            let submit = Submit::json(STEADY, child)?;
            Ok(submit.label(LABEL, child.n.to_string()))
        };
        let children = order
            .children()
            .iter()
            .map(child)
            .collect::<Result<Vec<_>, Error>>()?;
        Ok((Outcome::json(job.id, &executed, children)?, Word::Ok))
    }

    /// The server of the moment, if there is one.
    fn client(&mut self) -> Option<Client> {
        if self.client.is_none() {
            let url = read_url(&self.ready_file)?;
            let client = Client::builder(&url).retries(Retries::none());
            self.client = client.request_timeout(Duration::from_secs(10)).build().ok();
        }
        self.client.clone()
    }
}

fn report(lease: &str, outcomes: &[(Outcome, Word)], last: bool) -> Report {
    let said = outcomes.iter().map(|(outcome, of)| Said {
        id: outcome.id.to_string(),
        of: *of,
    });
    let said = said.collect();
    let outcomes = outcomes.iter().map(|(outcome, _)| outcome.clone()).collect();
    let settle = Settle {
        lease: lease.to_owned(),
        body: SettleBody::Outcomes { outcomes, last },
    };
    Report { settle, said }
}

fn held(processor: &str, batch: &Batch) -> Result<Held> {
    let mut jobs = Vec::with_capacity(batch.jobs.len());
    for job in &batch.jobs {
        let bytes = &job.payload.bytes;
        let order: Order = serde_json::from_slice(bytes)?;
        jobs.push((job.id.to_string(), order.n, order::hash(bytes), job.delivery));
    }
    Ok(Held {
        lease: batch.lease.clone(),
        lane: Lane {
            processor: processor.to_owned(),
            priority: batch.priority.name().to_owned(),
        },
        jobs,
    })
}

//! Callers: submit jobs in every way there is, and try again as careful ones do.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use jitney::client::{Client, Error, Retries, Retry, Submit, parse_id};
use jitney::job::{Payload, Priority};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::sleep;

use crate::history::{self, Event, Name, Recorder, View};
use crate::order::{self, BRITTLE, LABEL, Order, Plan, STEADY};
use crate::rng::Rng;

/// Tries of one submit: enough for any restart.
pub(crate) const TRIES: u32 = 500;
/// How many accepted jobs are remembered to be submitted again in later rounds.
const REMEMBERED_MAX: usize = 500;
/// The ending of the files that say which jobs were accepted.
const HEIRS: &str = "accepted";

/// What all callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) recorder: Arc<Recorder>,
    /// The server of the moment; `None` while there is none.
    pub(crate) server: watch::Receiver<Option<Client>>,
    /// How many jobs may still be submitted. Closed: no more.
    pub(crate) budget: Semaphore,
    /// The number of the next job.
    numbers: AtomicU64,
    /// Accepted jobs that have a name.
    accepted: Mutex<Vec<Job>>,
    /// Where they are written for whoever calls after this process.
    heirs: Option<File>,
}

/// One caller.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    server: watch::Receiver<Option<Client>>,
    pub(crate) rng: Rng,
}

/// A job as its caller knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    n: u64,
    data: Box<RawValue>,
    plan: Plan,
    processor: String,
    /// Which of [`Priority::ALL`].
    priority: usize,
    pub(crate) name: Name,
    pub(crate) clash: bool,
}

impl Shared {
    /// Jobs are numbered from `first` on.
    pub(crate) fn new(recorder: Arc<Recorder>, server: watch::Receiver<Option<Client>>, first: u64) -> Self {
        Self {
            recorder,
            server,
            budget: Semaphore::new(0),
            numbers: AtomicU64::new(first),
            accepted: Mutex::new(Vec::new()),
            heirs: None,
        }
    }

    /// Takes over the accepted jobs of earlier processes in this directory, and leaves its own to later ones.
    pub(crate) fn inherit(mut self, directory: &Path, by: &str) -> Result<Self> {
        let accepted = self.accepted.get_mut();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == HEIRS) {
                let text = fs::read_to_string(&path)?;
                // A kill may have cut the last line off.
                accepted.extend(
                    text.lines()
                        .filter_map(|line| serde_json::from_str::<Job>(line).ok()),
                );
            }
        }
        accepted.truncate(REMEMBERED_MAX);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join(format!("{by}.{HEIRS}")))?;
        self.heirs = Some(file);
        Ok(self)
    }
}

/// A client that tries once, so that each try is in the history.
pub(crate) fn client(url: &str) -> Result<Client> {
    let builder = Client::builder(url).retries(Retries::none()).own_keys(false);
    Ok(builder.request_timeout(Duration::from_secs(15)).build()?)
}

/// A failed call, for the history.
pub(crate) fn failure(call: u64, error: &Error) -> Event {
    let code = match error {
        Error::Refused(problem) => problem.code.clone(),
        Error::Unreachable { .. } => "unreachable".to_owned(),
        Error::TimedOut { .. } => "timed_out".to_owned(),
        Error::Accepted { source, .. } => return failure(call, source),
        Error::Protocol { detail, .. } => format!("protocol: {detail}"),
        Error::Invalid { detail } => format!("invalid: {detail}"),
    };
    let effect = !error.took_no_effect();
    Event::Failed { call, code, effect }
}

/// Reads a job, and records it. `last`: it must have ended by now.
pub(crate) async fn read(recorder: &Recorder, client: &Client, id: &str, last: bool) -> Result<()> {
    let call = recorder.call();
    recorder.record(Event::Read {
        call,
        id: id.to_owned(),
        last,
    })?;
    let job_id = parse_id(id).context("answers have ids")?;
    let answer = if last {
        client.get(job_id).await
    } else {
        client.get_and_wait(job_id, Duration::from_secs(1)).await
    };
    recorder.record(match answer {
        Ok(job) => Event::Answer {
            call,
            job: View::of(&job),
        },
        Err(error) => failure(call, &error),
    })
}

/// Whether every job has ended.
pub(crate) async fn lanes_are_empty(client: &Client) -> Result<bool> {
    let lanes: serde_json::Value = serde_json::from_str(client.lanes().await?.json())?;
    let lanes = lanes["lanes"].as_array().context("the answer has lanes")?;
    let counts = ["queued", "scheduled", "running", "retrying"];
    Ok(lanes
        .iter()
        .all(|lane| counts.iter().all(|count| lane[count] == 0)))
}

impl Caller {
    pub(crate) fn new(shared: Arc<Shared>, rng: Rng) -> Self {
        let server = shared.server.clone();
        Self { shared, server, rng }
    }

    /// Submits one job after the other, or many together, until the budget is closed.
    pub(crate) async fn run(mut self) -> Result<()> {
        while let Ok(permit) = Arc::clone(&self.shared).budget.acquire().await {
            permit.forget();
            if self.rng.percent(4) {
                self.submit_together().await?;
                continue;
            }
            let job = self.next().await;
            if let Some(id) = self.submit(&job).await?
                && self.rng.percent(20)
                && let Some(client) = self.server().await
            {
                read(&self.shared.recorder, &client, &id, false).await?;
            }
            let pause = self.rng.millis(0, 15);
            sleep(pause).await;
        }
        Ok(())
    }

    /// A new job; now and then one of before again, or its name with other data.
    pub(crate) async fn next(&mut self) -> Job {
        let accepted = self.shared.accepted.lock().await;
        let known = accepted.get(self.rng.index(accepted.len())).cloned();
        drop(accepted);
        match (known, self.rng.below(100)) {
            (Some(known), 0..8) => known,
            (Some(known), 8..12) => Job {
                name: known.name,
                // A key's scope is its processor.
                processor: known.processor,
                clash: true,
                ..self.fresh()
            },
            _ => self.fresh(),
        }
    }

    fn fresh(&mut self) -> Job {
        let n = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let plan = match self.rng.below(100) {
            0..8 => Plan::Fail,
            8..16 => Plan::Parent,
            _ => Plan::Well,
        };
        let pad = match self.rng.below(20) {
            0..4 => 14_000,
            4..8 => 1_000,
            _ => 20,
        };
        let pad = "x".repeat(self.rng.index(pad));
        let name = match self.rng.below(3) {
            0 => Name::Key(format!("key-{n}")),
            1 => Name::Id(order::id(self.rng.u128()).to_string()),
            _ => Name::None,
        };
        Job {
            n,
            data: Order { n, plan, pad }.json(),
            plan,
            processor: if self.rng.percent(25) { BRITTLE } else { STEADY }.to_owned(),
            priority: self.rng.index(Priority::ALL.len()),
            name,
            clash: false,
        }
    }

    /// Submits until there is an answer, or trying again would not be safe. The id, if it was accepted.
    async fn submit(&mut self, job: &Job) -> Result<Option<String>> {
        let wait = self.rng.percent(40).then(|| self.rng.millis(100, 2_000));
        for _ in 0..TRIES {
            let Some(client) = self.server().await else {
                return Ok(None);
            };
            let call = self.begin(job, wait.is_some())?;
            let submit = job.submit()?;
            let answer = match wait {
                Some(wait) => client.submit_and_wait(submit, wait).await,
                None => client.submit(submit).await.map(|submitted| submitted.job),
            };
            let error = match answer {
                Ok(answer) => return self.accepted(job, call, View::of(&answer)).await.map(Some),
                Err(Error::TimedOut { id, .. } | Error::Accepted { id, .. }) => {
                    let view = View::open(id.to_string());
                    return self.accepted(job, call, view).await.map(Some);
                }
                Err(error) => error,
            };
            self.shared.recorder.record(failure(call, &error))?;
            let again = match &error {
                Error::Refused(problem) => problem.retry != Retry::No,
                _ => true,
            };
            if !again || (job.name == Name::None && !error.took_no_effect()) {
                return Ok(None);
            }
            let pause = self.rng.millis(10, 60);
            sleep(pause).await;
        }
        Ok(None)
    }

    /// Records that a job is submitted.
    pub(crate) fn begin(&self, job: &Job, wait: bool) -> Result<u64> {
        let call = self.shared.recorder.call();
        self.shared.recorder.record(Event::Submit(history::Submit {
            call,
            n: job.n,
            hash: order::hash(job.data.get().as_bytes()),
            plan: job.plan,
            processor: job.processor.clone(),
            name: job.name.clone(),
            wait,
            clash: job.clash,
        }))?;
        Ok(call)
    }

    pub(crate) async fn accepted(&mut self, job: &Job, call: u64, view: View) -> Result<String> {
        let id = view.id.clone();
        self.shared.recorder.record(Event::Answer { call, job: view })?;
        self.remember(job).await?;
        Ok(id)
    }

    /// An accepted job with a name may be submitted again later.
    pub(crate) async fn remember(&mut self, job: &Job) -> Result<()> {
        if job.name == Name::None || job.clash {
            return Ok(());
        }
        if let Some(mut heirs) = self.shared.heirs.as_ref() {
            let mut line = serde_json::to_vec(job)?;
            line.push(b'\n');
            heirs.write_all(&line)?;
        }
        let mut accepted = self.shared.accepted.lock().await;
        if accepted.len() < REMEMBERED_MAX {
            accepted.push(job.clone());
        } else {
            let index = self.rng.index(REMEMBERED_MAX);
            accepted[index] = job.clone();
        }
        Ok(())
    }

    /// The server of the moment, as soon as there is one; `None` when there will be none any more.
    pub(crate) async fn server(&mut self) -> Option<Client> {
        let server = self.server.wait_for(Option::is_some).await.ok()?;
        server.clone()
    }
}

impl Job {
    pub(crate) fn submit(&self) -> Result<Submit> {
        let payload = Payload {
            content_type: None,
            bytes: self.data.get().as_bytes().to_vec().into(),
        };
        let submit = Submit::payload(&self.processor, payload)
            .priority(Priority::ALL[self.priority])
            .label(LABEL, self.n.to_string());
        Ok(match &self.name {
            Name::Key(key) => submit.idempotency_key(key),
            Name::Id(id) => submit.id(parse_id(id).context("it is an id that this program made")?),
            Name::None => submit,
        })
    }
}

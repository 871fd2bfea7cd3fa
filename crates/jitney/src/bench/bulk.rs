//! Many jobs in with each request, many out with each lease, settled as fast as they come.
//!
//! The backlog is bounded by construction: a caller that would exceed it waits until jobs were settled, so
//! that in the long run as many are settled as are submitted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use memchr::{memchr_iter, memmem};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::context::Context;
use super::error::Error;
use super::figure;
use super::process::Process;
use super::progress::Progress;
use super::report::{Report, Target, Unit, latencies, micros};
use super::submits::{STAMP_DIGITS, envelope, join, write_stamp};
use super::wire::{Connection, Request};
use super::worker::{Asks, Worker};
use crate::clock::{Clock as _, SystemClock, between};

/// Jobs per request.
const LINES: u32 = 100;
/// Callers, if nothing else is said: as many requests can share a sync.
const SUBMITTERS: u32 = 16;
/// Jobs per lease.
const LEASE: u32 = 1_000;
/// Jobs that are submitted and not settled, at most. The promise is 100k.
const BACKLOG: u32 = 80_000;
/// How long a poll waits for work; also how long the end may take.
const WAIT: Duration = Duration::from_millis(200);

/// How often it is looked whether enough was done.
const LOOK: Duration = Duration::from_millis(20);

/// Batches of 1,000, and none that is smaller while jobs keep coming.
pub(super) const CONFIG: &str = "\
[processor.bench]
max_jobs = 1000
min_jobs = 1000
max_bytes = \"8MiB\"
max_delay = \"20ms\"
idle_flush = false
";

/// How jobs flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) submitters: u32,
    pub(super) workers: u32,
    pub(super) payload_bytes: usize,
    /// Jobs submitted and not settled, at most.
    pub(super) backlog: u32,
}

impl Flow {
    pub(super) fn new(payload_bytes: usize) -> Self {
        Self {
            submitters: SUBMITTERS,
            workers: 3,
            payload_bytes,
            backlog: BACKLOG,
        }
    }
}

pub(super) async fn run(context: &Context<'_>) -> Result<Report, Error> {
    let options = context.options;
    let server = context.server(CONFIG).await?;
    let flow = Flow {
        submitters: options.connections.unwrap_or(SUBMITTERS),
        ..Flow::new(options.payload_bytes)
    };
    let flows = Flows::new(flow, &context.progress);
    let mut tasks = flows.start(&server).await?;
    context.progress.begin("warming up");
    tokio::time::sleep(options.warm_up()).await;
    context.progress.begin("bulk");
    let before = server.sample(&context.clock).await?;
    let counts = flows.reset();
    tokio::time::sleep(options.duration).await;
    let after = server.sample(&context.clock).await?;
    let ended = flows.reset();
    flows.stop();
    tasks.drain().await?;
    let seconds = between(before.at, after.at).as_secs_f64();
    let mut report = context.report("bulk");
    report.set("jobs per request", LINES);
    report.set("jobs per lease", LEASE);
    report.set("callers", flow.submitters);
    report.set("workers", flow.workers);
    let rate = |jobs: u64| figure(jobs) / seconds;
    let target = Target::AtLeast(200_000.0);
    report.aim("settled", rate(ended.settled), Unit::JobsPerSecond, target);
    report.add("submitted", rate(ended.submitted), Unit::JobsPerSecond);
    let most = figure(ended.backlog_max.max(counts.backlog_max));
    report.aim("backlog_max", most, Unit::Jobs, Target::AtMost(100_000.0));
    let names = ["latency_p50", "latency_p99", "latency_p999", "latency_max"];
    report.latency(names, &ended.latency);
    context.account(&mut report, &before, &after, figure(ended.settled));
    server.kill().await?;
    Ok(report)
}

/// What flowed since it was last asked.
#[derive(Debug)]
pub(super) struct Flowed {
    pub(super) submitted: u64,
    pub(super) settled: u64,
    pub(super) backlog_max: u64,
    /// From the intended time of the submit to the durable outcome, microseconds.
    pub(super) latency: Histogram<u64>,
}

fn ended_early(ended: Result<Result<(), Error>, JoinError>) -> Result<(), Error> {
    ended.map_err(|error| Error::Server(format!("a part of the load failed: {error}")))??;
    Err(Error::Server("a part of the load ended early".to_owned()))
}

/// Callers and workers under way.
#[derive(Clone, Debug)]
pub(super) struct Flows(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    flow: Flow,
    clock: SystemClock,
    progress: Arc<Progress>,
    /// Jobs that may still be submitted before others are settled.
    room: Semaphore,
    submitted: AtomicU64,
    settled: AtomicU64,
    backlog_max: AtomicU64,
    /// Both since the start.
    submitted_ever: AtomicU64,
    settled_ever: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

/// The tasks of both.
#[derive(Debug)]
pub(super) struct Tasks {
    submitters: JoinSet<Result<(), Error>>,
    workers: JoinSet<Result<(), Error>>,
}

impl Tasks {
    /// Waits until as many jobs were submitted as there was room for; without workers no more ever is.
    pub(super) async fn filled(&mut self, flows: &Flows) -> Result<(), Error> {
        let room = u64::from(flows.0.flow.backlog / LINES * LINES);
        self.until(|| flows.0.submitted_ever.load(Ordering::Relaxed) >= room)
            .await?;
        flows.stop();
        self.drain().await
    }

    /// Waits until so many jobs were settled, and ends when all are.
    pub(super) async fn settled(&mut self, flows: &Flows, jobs: u64) -> Result<(), Error> {
        self.until(|| flows.0.settled_ever.load(Ordering::Relaxed) >= jobs)
            .await?;
        flows.stop();
        self.drain().await
    }

    /// Looks again and again; a task that ends before has failed.
    async fn until(&mut self, is_so: impl Fn() -> bool) -> Result<(), Error> {
        while !is_so() {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = self.submitters.join_next() => return ended_early(ended),
                Some(ended) = self.workers.join_next() => return ended_early(ended),
            }
        }
        Ok(())
    }

    /// Ends all in the middle of what they do.
    pub(super) fn abort(&mut self) {
        self.submitters.abort_all();
        self.workers.abort_all();
    }

    /// Waits until the callers have stopped and the workers find nothing more.
    pub(super) async fn drain(&mut self) -> Result<(), Error> {
        join(std::mem::take(&mut self.submitters)).await?;
        join(std::mem::take(&mut self.workers)).await
    }
}

impl Flows {
    pub(super) fn new(flow: Flow, progress: &Arc<Progress>) -> Self {
        Self(Arc::new(Shared {
            flow,
            clock: SystemClock::new(),
            progress: Arc::clone(progress),
            room: Semaphore::new(usize::try_from(flow.backlog).unwrap_or(Semaphore::MAX_PERMITS)),
            submitted: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            backlog_max: AtomicU64::new(0),
            submitted_ever: AtomicU64::new(0),
            settled_ever: AtomicU64::new(0),
            latency: Mutex::new(latencies()),
        }))
    }

    pub(super) async fn start(&self, server: &Process) -> Result<Tasks, Error> {
        let mut tasks = Tasks {
            submitters: JoinSet::new(),
            workers: JoinSet::new(),
        };
        for number in 0..self.0.flow.workers {
            let asks = Asks {
                worker: format!("bench-{number}"),
                slots: 1,
                max_jobs: LEASE,
                wait: WAIT,
            };
            let worker = Worker::connect(server.address, &asks).await?;
            tasks.workers.spawn(self.clone().work(worker));
        }
        for _ in 0..self.0.flow.submitters {
            let connection = Connection::open(server.address).await?;
            tasks.submitters.spawn(self.clone().submit(connection));
        }
        Ok(tasks)
    }

    /// No more is submitted.
    pub(super) fn stop(&self) {
        self.0.room.close();
    }

    /// What flowed since the last time.
    pub(super) fn reset(&self) -> Flowed {
        let shared = &self.0;
        let mut latency = shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
        Flowed {
            submitted: shared.submitted.swap(0, Ordering::Relaxed),
            settled: shared.settled.swap(0, Ordering::Relaxed),
            backlog_max: shared.backlog_max.swap(0, Ordering::Relaxed),
            latency: std::mem::replace(&mut latency, latencies()),
        }
    }

    async fn submit(self, mut connection: Connection) -> Result<(), Error> {
        let shared = &self.0;
        let mut request = Request::post("/v1/jobs", "application/x-ndjson");
        let (line, at) = envelope("NORMAL", shared.flow.payload_bytes);
        let body = request.begin();
        for _ in 0..LINES {
            body.extend_from_slice(&line);
            body.push(b'\n');
        }
        // A closed semaphore is the sign to stop.
        while let Ok(room) = shared.room.acquire_many(LINES).await {
            room.forget();
            let now = shared.clock.now().mono;
            for job in request.body().chunks_exact_mut(line.len() + 1) {
                write_stamp(&mut job[at..at + STAMP_DIGITS], now);
            }
            let answer = connection.exchange(request.finish()).await?;
            let entries = u32::try_from(memchr_iter(b'\n', answer.body).count());
            let all = entries == Ok(LINES) && memmem::find(answer.body, br#""error""#).is_none();
            if answer.status != 200 || !all {
                let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]);
                return Err(Error::Server(format!(
                    "a bulk submit was refused: {} {text}",
                    answer.status
                )));
            }
            let jobs = u64::from(LINES);
            shared.submitted.fetch_add(jobs, Ordering::Relaxed);
            let submitted = shared.submitted_ever.fetch_add(jobs, Ordering::Relaxed) + jobs;
            let backlog = submitted.saturating_sub(shared.settled_ever.load(Ordering::Relaxed));
            shared.backlog_max.fetch_max(backlog, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn work(self, mut worker: Worker) -> Result<(), Error> {
        let shared = &self.0;
        loop {
            let turn = worker.poll(true).await?;
            let now = shared.clock.now().mono;
            {
                let mut latency = shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
                for intended in &turn.settled {
                    latency.saturating_record(micros(between(*intended, now)));
                }
            }
            let jobs = u64::try_from(turn.settled.len()).unwrap_or(u64::MAX);
            shared.settled.fetch_add(jobs, Ordering::Relaxed);
            shared.settled_ever.fetch_add(jobs, Ordering::Relaxed);
            shared.progress.add(jobs);
            if !shared.room.is_closed() {
                shared.room.add_permits(turn.settled.len());
            } else if turn.taken == 0 {
                return Ok(());
            }
        }
    }
}

//! The callers of the soak: jobs at a steady rate, each submitted at its intended time or as soon after as it can be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use jitney::client::{Client, Error, Retries, Submit};
use jitney::job::Priority;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::rng::Rng;

/// Callers at once: so many that none is still waiting when its next job is due, or what they measure is themselves.
const CALLERS: u64 = 256;
/// Findings that are kept; all are counted.
const FINDINGS_MAX: usize = 5;
/// After a call that did not reach the server: it is being started again.
const PAUSE: Duration = Duration::from_millis(50);

/// What everybody shares.
pub(super) struct Shared {
    client: watch::Receiver<Client>,
    stopped: AtomicBool,
    numbers: AtomicU64,
    /// Jobs that the server took.
    pub(super) accepted: AtomicU64,
    /// Results that came to the caller who waited for them, and were that caller's own.
    pub(super) results: AtomicU64,
    /// How long submits took until they were durable, since the last look, microseconds.
    durable: Mutex<Vec<u64>>,
    /// How long callers of the steady processor waited for their result.
    waited: Mutex<Vec<u64>>,
    wrong: AtomicU64,
    findings: Mutex<Vec<String>>,
}

/// Latencies since the last look, in order.
pub(super) struct Window {
    pub(super) durable: Vec<u64>,
    pub(super) waited: Vec<u64>,
}

/// A client that tries once, on connections of its own.
pub(super) fn client(url: &str) -> Result<Client> {
    let builder = Client::builder(url).retries(Retries::none()).own_keys(false);
    Ok(builder.request_timeout(Duration::from_secs(30)).build()?)
}

impl Shared {
    pub(super) fn new(client: watch::Receiver<Client>) -> Self {
        Self {
            client,
            stopped: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            results: AtomicU64::new(0),
            durable: Mutex::default(),
            waited: Mutex::default(),
            wrong: AtomicU64::new(0),
            findings: Mutex::default(),
        }
    }

    /// The client of the server that runs now.
    pub(super) fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    pub(super) fn stop_load(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Takes the latencies since the last look.
    pub(super) fn window(&self) -> Window {
        let take = |times: &Mutex<Vec<u64>>| {
            let mut times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
            times.sort_unstable();
            times
        };
        Window {
            durable: take(&self.durable),
            waited: take(&self.waited),
        }
    }

    /// Something that must not be.
    pub(super) fn find(&self, text: String) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < FINDINGS_MAX {
            findings.push(text);
        }
    }

    /// How many things were wrong, and some of them.
    pub(super) fn findings(&self) -> (u64, Vec<String>) {
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        (self.wrong.load(Ordering::Relaxed), findings.clone())
    }

    /// A call failed. The server may be away, and a wait may end; nothing else is expected.
    pub(super) async fn failed(&self, what: &str, error: Error) {
        match error {
            Error::Unreachable { .. } => sleep(PAUSE).await,
            Error::TimedOut { .. } | Error::Accepted { .. } => {}
            Error::Refused(problem) if matches!(problem.code.as_str(), "lease_lost" | "recovering") => {}
            error => self.find(format!("{what}: {error}")),
        }
    }
}

/// Starts the callers; they run until the load is stopped, and then idle.
pub(super) fn start(shared: &Arc<Shared>, rate: u64, rng: &mut Rng, tasks: &mut JoinSet<Result<()>>) {
    let every = Duration::from_micros(CALLERS * 1_000_000 / rate);
    for _ in 0..CALLERS {
        let (shared, mut rng) = (Arc::clone(shared), rng.fork());
        tasks.spawn(async move {
            let late = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
            let mut intended = Instant::now() + rng.millis(0, late);
            while !shared.is_stopped() {
                sleep_until(intended).await;
                call(&shared, &mut rng, intended).await?;
                intended += every;
            }
            std::future::pending().await
        });
    }
}

async fn call(shared: &Shared, rng: &mut Rng, intended: Instant) -> Result<()> {
    let n = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let pad = match rng.below(20) {
        0 => 12_000,
        1..4 => 2_000,
        _ => 200,
    };
    let steady = rng.percent(85);
    let processor = if steady { "steady" } else { "wild" };
    let mut submit = Submit::json(processor, &(n, "x".repeat(rng.index(pad))))?
        .priority(Priority::ALL[rng.index(Priority::ALL.len())]);
    if rng.percent(30) {
        submit = submit.idempotency_key(format!("key-{n}"));
    }
    let client = shared.client();
    if rng.percent(60) {
        match client.submit(submit).await {
            Ok(_) => {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                note(&shared.durable, intended)?;
            }
            Err(error) => shared.failed("a submit", error).await,
        }
        return Ok(());
    }
    let wait = Duration::from_millis(if steady { 20_000 } else { 500 });
    match client.submit_and_wait(submit, wait).await {
        Ok(job) => {
            shared.accepted.fetch_add(1, Ordering::Relaxed);
            match job.result_as::<u64>() {
                Ok(result) if result == n => {
                    shared.results.fetch_add(1, Ordering::Relaxed);
                }
                other => shared.find(format!("number {n} got {other:?}")),
            }
            if steady {
                note(&shared.waited, intended)?;
            }
        }
        Err(Error::TimedOut { .. } | Error::Accepted { .. }) if !steady => {
            shared.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Err(error @ Error::TimedOut { .. }) => shared.find(format!("number {n} got no result: {error}")),
        Err(error) => shared.failed("a submit with wait", error).await,
    }
    Ok(())
}

fn note(times: &Mutex<Vec<u64>>, intended: Instant) -> Result<()> {
    let took = u64::try_from(intended.elapsed().as_micros()).context("a latency is short")?;
    times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    Ok(())
}

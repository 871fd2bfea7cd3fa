//! Callers: connections that submit one job after another, and what became of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::error::Error;
use super::progress::Progress;
use super::random::Random;
use super::report::{latencies, micros};
use super::wire::{Connection, Request};
use crate::clock::{Clock as _, Mono, SystemClock, between};

/// What callers do.
#[derive(Clone, Debug)]
pub(super) struct Callers {
    pub(super) address: SocketAddr,
    pub(super) connections: u32,
    /// A whole request.
    pub(super) request: Vec<u8>,
    /// The status that each answer must have.
    pub(super) expected: u16,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    /// Answers as expected.
    pub(super) answers: u64,
    /// Others.
    pub(super) refused: u64,
    /// The first other one.
    pub(super) refusal: Option<String>,
    /// From the intended time to the answer, microseconds.
    pub(super) latency: Histogram<u64>,
}

/// Shared by the connections.
#[derive(Debug)]
pub(super) struct Tally {
    clock: SystemClock,
    stop: AtomicBool,
    submitted: Mutex<Submitted>,
    progress: Arc<Progress>,
}

impl Submitted {
    pub(super) fn new() -> Self {
        Self {
            answers: 0,
            refused: 0,
            refusal: None,
            latency: latencies(),
        }
    }

    /// Fails if anything was not answered as expected: the figures would be those of refusals.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.refusal {
            None => Ok(()),
            Some(refusal) => Err(Error::Server(format!(
                "{} submits were refused: {refusal}",
                self.refused
            ))),
        }
    }
}

impl Tally {
    pub(super) fn new(clock: SystemClock, progress: &Arc<Progress>) -> Self {
        Self {
            clock,
            stop: AtomicBool::new(false),
            submitted: Mutex::new(Submitted::new()),
            progress: Arc::clone(progress),
        }
    }

    pub(super) fn now(&self) -> Mono {
        self.clock.now().mono
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Notes an answer to what was to be sent at `intended`.
    pub(super) fn note(&self, intended: Mono, refusal: Option<(u16, &[u8])>) {
        let latency = between(intended, self.now());
        let mut submitted = self.submitted.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal {
            None => {
                submitted.answers += 1;
                submitted.latency.saturating_record(micros(latency));
                self.progress.add(1);
            }
            Some((status, body)) => {
                submitted.refused += 1;
                let text = || format!("{status} {}", String::from_utf8_lossy(body));
                submitted.refusal.get_or_insert_with(text);
            }
        }
    }

    /// What came of it so far.
    pub(super) fn take(&self) -> Submitted {
        let mut submitted = self.submitted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut submitted, Submitted::new())
    }
}

/// Submits on every connection, the next job when the last is answered, for `duration`.
pub(super) async fn closed_loop(
    callers: &Callers,
    duration: Duration,
    progress: &Arc<Progress>,
) -> Result<Submitted, Error> {
    let tally = Arc::new(Tally::new(SystemClock::new(), progress));
    let mut tasks = JoinSet::new();
    for _ in 0..callers.connections {
        let connection = Connection::open(callers.address).await?;
        tasks.spawn(call(connection, callers.clone(), Arc::clone(&tally)));
    }
    tokio::time::sleep(duration).await;
    tally.stop();
    join(tasks).await?;
    Ok(tally.take())
}

/// Waits for all tasks; the first failure is the whole's.
pub(super) async fn join(mut tasks: JoinSet<Result<(), Error>>) -> Result<(), Error> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Error::Server(format!("a part of the load failed: {error}")))??;
    }
    Ok(())
}

async fn call(mut connection: Connection, callers: Callers, tally: Arc<Tally>) -> Result<(), Error> {
    while !tally.is_stopped() {
        let start = tally.now();
        let answer = connection.exchange(&callers.request).await?;
        let other = answer.status != callers.expected;
        tally.note(start, other.then_some((answer.status, answer.body)));
    }
    Ok(())
}

/// The envelope of a job with so many bytes of data, and where in it the time stands.
pub(super) fn envelope(priority: &str, payload_bytes: usize) -> (Vec<u8>, usize) {
    let mut random = Random::new(4);
    let priority = match priority {
        "NORMAL" => String::new(),
        other => format!(r#""priority":"{other}","#),
    };
    let mut envelope = format!(r#"{{"processor":"bench",{priority}"data":{{"t":""#).into_bytes();
    let at = envelope.len();
    envelope.extend_from_slice(&[b'0'; STAMP_DIGITS]);
    envelope.extend_from_slice(br#"","x":""#);
    // `{"t":"...","x":"..."}` is what counts as data.
    let frame = br#"{"t":"","x":""}"#.len() + STAMP_DIGITS;
    envelope.extend((0..payload_bytes.saturating_sub(frame)).map(|_| random.byte()));
    envelope.extend_from_slice(br#""}}"#);
    (envelope, at)
}

/// A single submit as a whole request.
pub(super) fn single(path: &str, payload_bytes: usize) -> Vec<u8> {
    single_of(path, "NORMAL", payload_bytes)
}

/// The same, of another lane.
pub(super) fn single_of(path: &str, priority: &str, payload_bytes: usize) -> Vec<u8> {
    let mut request = Request::post(path, "application/json");
    request
        .begin()
        .extend_from_slice(&envelope(priority, payload_bytes).0);
    request.finish().to_vec()
}

/// Digits of the time that a job was to be sent at, microseconds.
pub(super) const STAMP_DIGITS: usize = 16;

/// Writes a time over its place in a job.
pub(super) fn write_stamp(place: &mut [u8], at: Mono) {
    let mut rest = at.0;
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// Reads it back.
pub(super) fn read_stamp(place: &[u8]) -> Option<Mono> {
    let text = std::str::from_utf8(place).ok()?;
    text.parse().ok().map(Mono)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_json_of_the_length_that_was_asked_for_and_carries_its_time() {
        for bytes in [64, 256, 1000] {
            let (mut envelope, at) = envelope("SLOW", bytes);
            write_stamp(&mut envelope[at..at + STAMP_DIGITS], Mono(1_234_567));
            assert_eq!(
                read_stamp(&envelope[at..at + STAMP_DIGITS]),
                Some(Mono(1_234_567))
            );
            let json: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
            assert_eq!(json["data"].to_string().len(), bytes);
            assert_eq!(json["data"]["t"], "0000000001234567");
            assert_eq!(json["priority"], "SLOW");
        }
    }
}

//! Many jobs on their way to the server, and what it says to each.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use tokio::time::{Instant, sleep};

use super::error::{Error, Problem};
use super::job::Job;
use super::submit::Submit;
use super::{Client, WAIT_PIECE, after_submit, wire};
use crate::job::JobId;

/// Jobs of one request at most.
const PART_JOBS_MAX: usize = 1_000;

/// Bytes of one request, but for a single job that is larger.
const PART_BYTES_MAX: usize = 1 << 20;

/// One of many jobs that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The job, durable.
    pub id: JobId,
    /// It was submitted before under the same id or key.
    pub replayed: bool,
}

/// What became of each of many jobs, in their order: the server has it, or why not.
pub type Entries = Vec<Result<Taken, Box<Problem>>>;

/// How each of many jobs ended, in their order, or why that is not known.
pub type Ends = Vec<Result<Job, Error>>;

/// One of many jobs that the server has; with its state, where that was waited for.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) taken: Taken,
    /// As it was when the answer was written. `None`: nobody waited, or it could not be shown.
    pub(crate) job: Option<Job>,
}

/// What became of each of many jobs.
pub(crate) type AllHeld = Vec<Result<Held, Box<Problem>>>;

impl Client {
    /// Submits many jobs, each on its own, in requests of up to 1,000 jobs or 1 MiB. Labels of one trace
    /// ([`Submit::traceparent`]) do not travel with many.
    ///
    /// A refusal that a retry may change (a full queue) is retried for that job alone, within
    /// [`Builder::retries`](super::Builder::retries); what is left of them is in the entries, in the order of the jobs.
    ///
    /// # Errors
    /// As [`Client::submit`], where the server takes none. Jobs before may be submitted: with ids or idempotency keys
    /// it is safe to submit all again. [`Error::Invalid`] if a job cannot be written; nothing was sent.
    ///
    /// ```no_run
    /// # async fn run(client: jitney::client::Client) -> Result<(), jitney::client::Error> {
    /// use jitney::client::Submit;
    ///
    /// let orders = (0..10_000).map(|n| {
    ///     Ok(Submit::json("orders", &n)?.idempotency_key(&format!("order-{n}")))
    /// });
    /// let orders = orders.collect::<Result<Vec<_>, jitney::client::Error>>()?;
    /// for entry in client.submit_many(orders).await? {
    ///     match entry {
    ///         Ok(taken) => println!("{}", taken.id),
    ///         Err(problem) => println!("{problem}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn submit_many(&self, submits: Vec<Submit>) -> Result<Entries, Error> {
        let held = self.submit_all(submits, None, self.patience()).await?;
        Ok(held.into_iter().map(|entry| Ok(entry?.taken)).collect())
    }

    /// Submits many jobs as [`Client::submit_many`] does, and comes back when all have ended, whatever their outcomes, or
    /// when `timeout` is over. Each of up to 1,000 jobs (or 1 MiB) takes a waiter's place at the server, and no request
    /// but the one that all of them share; of more jobs each one before the last 1,000 is asked for on its own.
    ///
    /// Per job, in their order: the job as it ended; [`Error::Refused`] if it was not accepted; [`Error::TimedOut`] if it
    /// has not ended, and [`Error::Accepted`] if the server could not be asked any more: it goes on.
    ///
    /// # Errors
    /// As [`Client::submit_many`].
    ///
    /// ```no_run
    /// # async fn run(client: jitney::client::Client) -> Result<(), jitney::client::Error> {
    /// use std::time::Duration;
    /// use jitney::client::Submit;
    ///
    /// let orders = (0..100).map(|n| {
    ///     Ok(Submit::json("orders", &n)?.idempotency_key(&format!("order-{n}")))
    /// });
    /// let orders = orders.collect::<Result<Vec<_>, jitney::client::Error>>()?;
    /// for end in client.submit_many_and_wait(orders, Duration::from_secs(10)).await? {
    ///     match end {
    ///         Ok(job) => println!("{}", job.json()),
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn submit_many_and_wait(&self, submits: Vec<Submit>, timeout: Duration) -> Result<Ends, Error> {
        let start = Instant::now();
        let until = start + timeout.max(self.shared.retries.total);
        let wait = Some(timeout.min(WAIT_PIECE));
        let held = self.submit_all(submits, wait, until).await?;
        let mut ends = Vec::with_capacity(held.len());
        for entry in held {
            ends.push(match entry {
                Ok(held) => {
                    let id = held.taken.id;
                    let ended = self.end_of(held, start, timeout).await;
                    ended.map_err(|error| after_submit(id, error))
                }
                Err(problem) => Err(Error::Refused(problem)),
            });
        }
        Ok(ends)
    }

    /// The job once it has ended. It is looked at even when the time is over: it may have ended while others were
    /// waited for.
    async fn end_of(&self, held: Held, start: Instant, timeout: Duration) -> Result<Job, Error> {
        let job = match held.job {
            Some(job) if job.has_ended() => return Ok(job),
            _ => self.read(held.taken.id, None).await?,
        };
        self.wait_on(job, start, timeout).await
    }

    /// Submits until each has an answer that a retry would not change.
    async fn submit_all(
        &self,
        submits: Vec<Submit>,
        wait: Option<Duration>,
        until: Instant,
    ) -> Result<AllHeld, Error> {
        let submits: Vec<Submit> = submits.into_iter().map(|submit| self.keyed(submit)).collect();
        let named = |submit: &Submit| submit.id.is_some() || submit.idempotency_key.is_some();
        let mut entries: Vec<Option<Result<Held, Box<Problem>>>> = vec![None; submits.len()];
        let mut open: Vec<usize> = (0..submits.len()).collect();
        let mut attempt = 1;
        while !open.is_empty() {
            let now: Vec<&Submit> = open.iter().map(|at| &submits[*at]).collect();
            let repeatable = now.iter().all(|submit| named(submit));
            let answer = self
                .retrying(repeatable, until, || {
                    self.shared.transport.submit_many(&now, wait)
                })
                .await?;
            let mut again = Vec::new();
            let mut pause = None;
            for (at, entry) in open.into_iter().zip(answer) {
                if let Err(problem) = &entry {
                    let error = Error::Refused(problem.clone());
                    let left = until.saturating_duration_since(Instant::now());
                    let named = named(&submits[at]);
                    if let Some(longer) = self.shared.retries.pause(&error, named, attempt, left) {
                        again.push(at);
                        pause = pause.max(Some(longer));
                    }
                }
                entries[at] = Some(entry);
            }
            open = again;
            attempt += 1;
            if let Some(pause) = pause {
                sleep(pause).await;
            }
        }
        Ok(entries.into_iter().flatten().collect())
    }
}

/// How many of the first of these go into one request.
pub(super) fn part(lines: &[Bytes]) -> usize {
    let mut bytes = 0_usize;
    let fits = |line: &&Bytes| {
        bytes = bytes.saturating_add(line.len());
        bytes <= PART_BYTES_MAX
    };
    let count = lines.iter().take(PART_JOBS_MAX).take_while(fits).count();
    count.max(1).min(lines.len())
}

/// The body of a request, of jobs as [`Submit::encode_line`] has them.
pub(super) fn body<'a>(lines: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut body = BytesMut::new();
    for line in lines {
        body.extend_from_slice(line);
        body.put_u8(b'\n');
    }
    body.freeze()
}

/// Reads the answer to so many jobs. Where it breaks off, the last problem is what is known of the rest.
pub(super) fn decode(body: &Bytes, count: usize) -> Result<AllHeld, Error> {
    let mut entries = Vec::with_capacity(count);
    let mut ending = None;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let entry: Entry<'_> = wire::read(line)?;
        // The error of a job that is there is its own, and no refusal.
        let refusal = entry.error.filter(|_| entry.id.is_none());
        let problem = refusal.map(problem).transpose()?;
        match (entry.index, entry.id, problem) {
            (Some(index), Some(id), _) if index == entries.len() => {
                let replayed = entry.replayed;
                let taken = Taken { id, replayed };
                // Only a job that is shown whole has one.
                let job = entry.processor.map(|_| Job::decode(body.slice_ref(line)));
                let job = job.transpose()?;
                entries.push(Ok(Held { taken, job }));
            }
            (Some(index), None, Some(problem)) if index == entries.len() => entries.push(Err(problem)),
            (None, None, Some(problem)) => ending = Some(problem),
            _ => return Err(strange("an entry that belongs to no job")),
        }
    }
    if entries.len() > count || (entries.len() < count && ending.is_none()) {
        return Err(strange("another number of entries than of jobs"));
    }
    if let Some(problem) = ending {
        entries.resize(count, Err(problem));
    }
    Ok(entries)
}

impl Submit {
    /// A line of a request with many.
    pub(super) fn encode_line(&self) -> Result<Bytes, Error> {
        let json = self.raw_json()?;
        let mut line = self.encode_named(json)?;
        // White space within JSON may be the end of a line; within a string there is none.
        if line.contains(&b'\n') {
            line.iter_mut()
                .filter(|byte| **byte == b'\n')
                .for_each(|byte| *byte = b' ');
        }
        Ok(Bytes::from(line))
    }
}

fn problem(raw: &RawValue) -> Result<Box<Problem>, Error> {
    let beside: Beside = wire::read(raw.get().as_bytes())?;
    let after = beside.retry_after_ms.map(Duration::from_millis);
    Problem::decode(raw.get().as_bytes(), beside.status, after)
        .map(Box::new)
        .ok_or_else(|| strange("a refusal without a reason"))
}

fn strange(detail: &str) -> Error {
    Error::Protocol {
        detail: detail.to_owned(),
        server_fault: false,
    }
}

#[derive(Deserialize)]
struct Entry<'a> {
    index: Option<usize>,
    #[serde(default, deserialize_with = "wire::maybe_id")]
    id: Option<JobId>,
    #[serde(default)]
    replayed: bool,
    #[serde(borrow, default)]
    processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    status: u16,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Retry;
    use crate::job::Payload;

    const ID: &str = "0199a3c4-0000-7000-8000-00000000002a";

    fn refused(index: &str) -> String {
        format!(
            r#"{{{index}"error":{{"status":429,"code":"queue_full","detail":"d","retry":"after","retry_after_ms":1500}}}}"#
        )
    }

    #[test]
    fn entries_are_read_in_their_order() {
        let body = format!(
            "{{\"index\":0,\"id\":\"{ID}\",\"status\":\"submitted\",\"state\":\"queued\",\"replayed\":true}}\n{}\n",
            refused("\"index\":1,")
        );
        let entries = decode(&Bytes::from(body.clone()), 2).unwrap();
        assert!(entries[0].as_ref().unwrap().taken.replayed);
        let problem = entries[1].as_ref().unwrap_err();
        assert_eq!(
            (problem.status, problem.retry, problem.retry_after),
            (429, Retry::After, Some(Duration::from_millis(1_500)))
        );
        for (body, count) in [(body.as_str(), 3), (body.as_str(), 1), ("{}", 1), ("x", 1)] {
            assert!(
                matches!(
                    decode(&Bytes::copy_from_slice(body.as_bytes()), count),
                    Err(Error::Protocol { .. })
                ),
                "{body} {count}"
            );
        }
        // What broke off says why for all that it does not name.
        let body = format!("{{\"index\":0,\"id\":\"{ID}\"}}\n{}\n", refused(""));
        let entries = decode(&Bytes::from(body), 3).unwrap();
        assert!(entries[0].is_ok() && entries[1].is_err() && entries[2].is_err());
    }

    #[test]
    fn a_job_is_one_line_with_its_own_key() {
        let payload = Payload {
            content_type: None,
            bytes: Bytes::from_static(b"{\n\"a\":\r\n\"\\n\"}"),
        };
        let line = Submit::payload("p", payload)
            .idempotency_key("k")
            .encode_line()
            .unwrap();
        assert_eq!(
            &line[..],
            b"{\"processor\":\"p\",\"data\":{ \"a\":\r \"\\n\"},\"idempotency_key\":\"k\"}"
        );
    }

    #[test]
    fn a_request_has_so_many_jobs_and_bytes() {
        let small = vec![Bytes::from_static(b"{}"); 2_500];
        assert_eq!(part(&small), 1_000);
        assert_eq!(part(&small[2_400..]), 100);
        let large = vec![Bytes::from(vec![b' '; 400 << 10]); 5];
        assert_eq!(part(&large), 2);
        assert_eq!(part(&[Bytes::from(vec![b' '; 2 << 20])]), 1);
    }
}

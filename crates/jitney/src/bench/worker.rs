//! A worker as lean as can be: one poll after another, each settling what the one before took.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use memchr::memmem;

use super::error::Error;
use super::submits::{STAMP_DIGITS, read_stamp};
use super::wire::{Connection, Request};
use crate::clock::Mono;
use crate::units::format_duration;

/// Characters of a job's id and of a lease's token.
const ID: usize = 36;
const TOKEN: usize = 40;

/// What a worker asks for.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub(super) worker: String,
    pub(super) slots: u32,
    pub(super) max_jobs: u32,
    pub(super) wait: Duration,
}

/// A worker and the jobs that it holds.
#[derive(Debug)]
pub(super) struct Worker {
    connection: Connection,
    request: Request,
    /// The beginning of each poll's body, up to its wait.
    asks: String,
    wait: String,
    leases: Vec<Lease>,
    ids: Vec<[u8; ID]>,
    /// When each of the jobs was to be sent.
    stamps: Vec<Mono>,
}

#[derive(Debug)]
struct Lease {
    token: [u8; TOKEN],
    jobs: Range<usize>,
}

/// What a poll brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// When the jobs that it settled were to be sent.
    pub(super) settled: Vec<Mono>,
    /// Jobs that it took.
    pub(super) taken: usize,
}

impl Worker {
    pub(super) async fn connect(address: SocketAddr, asks: &Asks) -> Result<Self, Error> {
        let Asks {
            worker,
            slots,
            max_jobs,
            wait,
        } = asks;
        Ok(Self {
            connection: Connection::open(address).await?,
            request: Request::post("/v1/processors/bench/lease", "application/json"),
            asks: format!(r#"{{"worker":"{worker}","slots":{slots},"max_jobs":{max_jobs},"wait":""#),
            wait: format_duration(*wait),
            leases: Vec::new(),
            ids: Vec::new(),
            stamps: Vec::new(),
        })
    }

    /// Settles what it holds, and takes what there is; waits for it if `patient`.
    pub(super) async fn poll(&mut self, patient: bool) -> Result<Turn, Error> {
        self.write(patient);
        let answer = self.connection.exchange(self.request.finish()).await?;
        let held = self.ids.len();
        if answer.status == 204 && held == 0 {
            return Ok(Turn::default());
        }
        let applied = memmem::find_iter(answer.body, br#""is":"applied""#).count();
        if answer.status != 200 || applied != held {
            let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]);
            return Err(Error::Server(format!(
                "of {held} outcomes {applied} were applied: {} {text}",
                answer.status
            )));
        }
        self.leases.clear();
        self.ids.clear();
        let settled = std::mem::take(&mut self.stamps);
        let batches = memmem::find(answer.body, br#""batches":["#).map_or(&[][..], |at| &answer.body[at..]);
        read_batches(batches, &mut self.leases, &mut self.ids, &mut self.stamps);
        Ok(Turn {
            settled,
            taken: self.ids.len(),
        })
    }

    fn write(&mut self, patient: bool) {
        let body = self.request.begin();
        body.extend_from_slice(self.asks.as_bytes());
        body.extend_from_slice(if patient { self.wait.as_bytes() } else { b"0s" });
        body.extend_from_slice(br#"","settle":["#);
        for (at, lease) in self.leases.iter().enumerate() {
            body.extend_from_slice(if at == 0 {
                br#"{"lease":""#
            } else {
                br#",{"lease":""#
            });
            body.extend_from_slice(&lease.token);
            body.extend_from_slice(br#"","outcomes":["#);
            for (at, id) in self.ids[lease.jobs.clone()].iter().enumerate() {
                body.extend_from_slice(if at == 0 { br#"{"id":""# } else { br#",{"id":""# });
                body.extend_from_slice(id);
                body.extend_from_slice(br#"","ok":{"done":true}}"#);
            }
            body.extend_from_slice(b"]}");
        }
        body.extend_from_slice(b"]}");
    }
}

/// Reads tokens, ids and times out of the batches. The data are the bench's own: no name in them is like ours.
fn read_batches(text: &[u8], leases: &mut Vec<Lease>, ids: &mut Vec<[u8; ID]>, stamps: &mut Vec<Mono>) {
    let (lease, id, stamp) = (br#""lease":""#, br#""id":""#, br#""t":""#);
    let starts: Vec<usize> = memmem::find_iter(text, lease)
        .map(|at| at + lease.len())
        .collect();
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(text.len());
        let batch = &text[*start..end];
        let Some(token) = batch.first_chunk::<TOKEN>() else {
            return;
        };
        let first = ids.len();
        for at in memmem::find_iter(batch, id) {
            let job = &batch[at + id.len()..];
            let Some(found) = job.first_chunk::<ID>() else {
                return;
            };
            ids.push(*found);
            let at = memmem::find(job, stamp).map(|at| at + stamp.len());
            let digits = at.and_then(|at| job.get(at..at + STAMP_DIGITS));
            stamps.push(digits.and_then(read_stamp).unwrap_or_default());
        }
        leases.push(Lease {
            token: *token,
            jobs: first..ids.len(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_with_their_jobs_and_times() {
        let token = |digit: char| digit.to_string().repeat(TOKEN);
        let id = |digit: char| digit.to_string().repeat(ID);
        let job = |digit, time| {
            format!(
                r#"{{"id":"{}","group":"g","data":{{"t":"{time:016}"}}}}"#,
                id(digit)
            )
        };
        let text = format!(
            r#""batches":[{{"lease":"{}","jobs":[{},{}]}},{{"lease":"{}","jobs":[{}]}}]}}"#,
            token('a'),
            job('1', 5),
            job('2', 6),
            token('b'),
            job('3', 7)
        );
        let (mut leases, mut ids, mut stamps) = (Vec::new(), Vec::new(), Vec::new());
        read_batches(text.as_bytes(), &mut leases, &mut ids, &mut stamps);
        assert_eq!(stamps, [Mono(5), Mono(6), Mono(7)]);
        assert_eq!(ids[2], *id('3').as_bytes());
        let ranges: Vec<_> = leases
            .iter()
            .map(|lease| (lease.token[0], lease.jobs.clone()))
            .collect();
        assert_eq!(ranges, [(b'a', 0..2), (b'b', 2..3)]);
    }
}

//! The bounds of the server: each has its error, and a reason.

use std::time::Duration;

/// A segment holds at least this many of the largest requests, so that a group of them is never refused.
pub(crate) const BODIES_PER_SEGMENT: u64 = 4;

/// What the server refuses to exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unsettled jobs, over all processors. 10M: about 2 GB of index.
    pub jobs_max: u64,
    /// A job's data, and each result, bytes. 1 MiB: larger things belong in a store, with a link in the job.
    pub job_bytes_max: u64,
    /// A request's body, bytes; also an outcome with its children. 16 MiB.
    pub body_bytes_max: u64,
    /// Bytes of request bodies in memory at once. 256 MiB; a body that is read as a whole is no larger. Workers, who bring what lets
    /// the queue empty, may use a quarter more. Also bytes of batches on their way to workers.
    pub bodies_bytes_max: u64,
    /// Bytes of records that wait for the disk, at which new work is refused: what a slow disk may hold in memory. 64 MiB:
    /// a third of a second of a disk that takes 200 MB/s. What comes in one call may go beyond it; outcomes are not held to
    /// it: they are no more than what is leased.
    pub queued_bytes_max: u64,
    /// Callers waiting for an outcome. 20k: each holds a connection.
    pub waiters_max: u64,
    /// Open connections. 25k, and at most the open-file limit less 512.
    pub connections_max: u64,
    /// Processors, each with three lanes and its metrics. 1,000.
    pub processors_max: u64,
    /// Child jobs of one outcome. 1,000.
    pub children_max: u64,
    /// The longest wait of a submit, a read or a lease poll. 5 min.
    pub wait_max: Duration,
    /// Bytes of the log on disk, spare segments apart, at which new work is refused; at least three segments. `None`:
    /// 80 % of the disk, found at start.
    pub log_bytes_max: Option<u64>,
    /// Idempotency keys and client ids in memory. 4M: about 600 MB.
    pub keys_max: u64,
    /// Finished jobs that stay readable. 10M.
    pub results_max: u64,
    /// Bytes of their results on disk. 8 GiB.
    pub result_bytes_max: u64,
    /// How long a finished job stays readable. 1 h.
    pub result_ttl: Duration,
    /// How long an idempotency key or a client's id is remembered after its job ended. 24 h.
    pub key_ttl: Duration,
}

impl Limits {
    /// The limit of the log's size, if a log of `bytes` has reached it.
    #[must_use]
    pub fn log_bytes_reached(&self, bytes: u64) -> Option<u64> {
        self.log_bytes_max.filter(|limit| bytes >= *limit)
    }

    /// The limit of the log's size, if it is less than the bytes that a log needs: it may be reached although nothing
    /// that the log holds matters any more.
    #[must_use]
    pub fn log_bytes_short_of(&self, needed: u64) -> Option<u64> {
        self.log_bytes_max.filter(|limit| *limit < needed)
    }

    /// What a body may be that is in memory as a whole, bytes; NDJSON is not.
    #[must_use]
    pub const fn whole_body_bytes_max(&self) -> u64 {
        if self.body_bytes_max < self.bodies_bytes_max {
            self.body_bytes_max
        } else {
            self.bodies_bytes_max
        }
    }

    /// The waiters' places that callers may take who would rather wait than be refused: all but a quarter, which is
    /// kept for those who come one by one.
    #[must_use]
    pub const fn patient_waiters_max(&self) -> u64 {
        self.waiters_max - self.waiters_max / 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs_max: 10_000_000,
            job_bytes_max: 1 << 20,
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 256 << 20,
            queued_bytes_max: 64 << 20,
            waiters_max: 20_000,
            connections_max: 25_000,
            processors_max: 1_000,
            children_max: 1_000,
            wait_max: Duration::from_mins(5),
            log_bytes_max: None,
            keys_max: 4_000_000,
            results_max: 10_000_000,
            result_bytes_max: 8 << 30,
            result_ttl: Duration::from_hours(1),
            key_ttl: Duration::from_hours(24),
        }
    }
}

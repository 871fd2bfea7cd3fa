//! What callers and workers say, in few words: jobs, polls, outcomes, policies.

use std::time::Duration;

use jitney::driver::port::{Batch, Child, JobOutcome, Lease, Said, Settle, SettleBody, Submit, json};
use jitney::job::{Group, IdempotencyKey, JobError, JobId, Priority, Processor, Token};
use jitney::policy::{PolicyBook, PolicyPatch, ProcessorPolicy};

/// The processor that every test uses.
pub(crate) const ORDERS: &str = "orders";

/// A submit in the making.
#[derive(Clone)]
pub(crate) struct Job(pub(crate) Submit);

/// A NORMAL job with this data.
pub(crate) fn job(data: impl AsRef<[u8]>) -> Job {
    Job(Submit {
        processor: orders(),
        group: Group::default(),
        priority: Priority::Normal,
        payload: json(data.as_ref().to_vec()),
        id: None,
        key: None,
        labels: Vec::new(),
        idempotency: None,
        fingerprint: 0,
        traceparent: None,
        wait: None,
    })
}

impl Job {
    pub(crate) fn priority(mut self, priority: Priority) -> Self {
        self.0.priority = priority;
        self
    }

    pub(crate) fn wait(mut self, wait: Duration) -> Self {
        self.0.wait = Some(wait);
        self
    }

    /// Under the client's own id. What makes a repeat the same is here the data alone.
    pub(crate) fn with_id(mut self, id: JobId) -> Self {
        self.0.id = Some(id);
        self.fingerprinted()
    }

    /// Under an idempotency key.
    pub(crate) fn with_idempotency_key(mut self, hash: u128) -> Self {
        self.0.idempotency = Some(IdempotencyKey { scope: 1, hash });
        self.fingerprinted()
    }

    fn fingerprinted(mut self) -> Self {
        let fold = |sum: u128, byte: &u8| sum.wrapping_mul(257).wrapping_add(u128::from(*byte) + 1);
        self.0.fingerprint = self.0.payload.bytes.iter().fold(1, fold);
        self
    }
}

/// A worker's poll in the making.
#[derive(Clone)]
pub(crate) struct Poll(pub(crate) Lease);

/// A worker that asks for one batch of any lane, and does not wait for it.
pub(crate) fn worker(name: &str) -> Poll {
    Poll(Lease {
        processor: orders(),
        worker: name.into(),
        in_process: false,
        slots: 1,
        max_jobs: None,
        max_bytes: None,
        wait: Duration::ZERO,
        priorities: [true; 3],
        request_id: None,
        not_ready: None,
        settle: Vec::new(),
    })
}

impl Poll {
    pub(crate) fn slots(mut self, slots: u32) -> Self {
        self.0.slots = slots;
        self
    }

    pub(crate) fn max_jobs(mut self, jobs: u32) -> Self {
        self.0.max_jobs = Some(jobs);
        self
    }

    pub(crate) fn max_bytes(mut self, bytes: u64) -> Self {
        self.0.max_bytes = Some(bytes);
        self
    }

    pub(crate) fn wait(mut self, wait: Duration) -> Self {
        self.0.wait = wait;
        self
    }

    /// A repeat under the same id gets the same batches.
    pub(crate) fn request(mut self, id: &str) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    pub(crate) fn in_process(mut self) -> Self {
        self.0.in_process = true;
        self
    }

    pub(crate) fn settling(mut self, settle: Vec<Settle>) -> Self {
        self.0.settle = settle;
        self
    }
}

/// The job went well, and gave this back.
pub(crate) fn ok(id: JobId, result: impl AsRef<[u8]>) -> JobOutcome {
    ok_with_children(id, result, &[])
}

/// As [`ok`], and these are to be done next.
pub(crate) fn ok_with_children(id: JobId, result: impl AsRef<[u8]>, children: &[&str]) -> JobOutcome {
    let child = |data: &&str| Child {
        processor: orders(),
        group: Group::default(),
        priority: Priority::Normal,
        payload: json(data.as_bytes().to_vec()),
        key: None,
        labels: Vec::new(),
        traceparent: None,
    };
    let children = children.iter().map(child).collect();
    let said = Said::Ok {
        result: json(result.as_ref().to_vec()),
        children,
    };
    JobOutcome { id, said: Ok(said) }
}

/// The try failed; another may help.
pub(crate) fn retryable(id: JobId, code: &str) -> JobOutcome {
    let error = JobError {
        code: code.to_owned(),
        message: "it did not work".to_owned(),
        data: None,
    };
    JobOutcome {
        id,
        said: Ok(Said::Error {
            error,
            retryable: true,
            retry_after: None,
        }),
    }
}

/// The worker gives the job back.
pub(crate) fn release(id: JobId) -> JobOutcome {
    JobOutcome {
        id,
        said: Ok(Said::Release),
    }
}

/// The last word on a lease.
pub(crate) fn settle(token: Token, outcomes: Vec<JobOutcome>) -> Settle {
    Settle {
        token,
        body: SettleBody::Outcomes { outcomes, last: true },
    }
}

/// A first word on a lease that goes on.
pub(crate) fn settle_some(token: Token, outcomes: Vec<JobOutcome>) -> Settle {
    Settle {
        token,
        body: SettleBody::Outcomes {
            outcomes,
            last: false,
        },
    }
}

/// Every job of the batch went well and gave its own data back.
pub(crate) fn echo(batch: &Batch) -> Settle {
    let outcomes = batch
        .jobs
        .iter()
        .map(|job| ok(job.id, &job.payload.bytes))
        .collect();
    settle(batch.token, outcomes)
}

/// The ids of a batch, in its order.
pub(crate) fn ids(batch: &Batch) -> Vec<JobId> {
    batch.jobs.iter().map(|job| job.id).collect()
}

/// Policies in which only the orders processor differs from the defaults.
pub(crate) fn policy(base: PolicyPatch) -> PolicyBook {
    let written = ProcessorPolicy {
        base,
        ..ProcessorPolicy::default()
    };
    PolicyBook {
        processors: [(orders(), written)].into(),
        ..PolicyBook::default()
    }
}

/// An id that the client chose.
pub(crate) fn client_id(n: u8) -> JobId {
    JobId([n; 16])
}

pub(crate) fn orders() -> Processor {
    Processor::parse(ORDERS).unwrap()
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

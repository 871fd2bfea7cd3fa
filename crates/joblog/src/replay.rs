//! The lives of the jobs that were unsettled when the process ended.
//!
//! In: every record, in order. Out: for each unsettled job its attempts, crashes and leases, and each lease that
//! still holds one. Jobs leave as they are handed over, so that ten million need no second copy.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::hash::{IdMap, Seed};
use crate::ids::{JobId, Priority, Token, WallMs};
use crate::record::{Cause, Dispatch, Return, Submit, Tries};

/// What a start finds of before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// A job without an outcome; in the order of acceptance.
    Job(RecoveredJob),
    /// A lease that holds at least one of these jobs; after all jobs.
    Lease(RecoveredLease),
}

/// An unsettled job: all that deciding needs, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredJob {
    /// The job's id.
    pub id: JobId,
    /// The application that processes it. Jobs of one processor share the text.
    pub processor: Arc<str>,
    /// The kind of job. Jobs of one group share the text.
    pub group: Arc<str>,
    /// Its lane.
    pub priority: Priority,
    /// What it weighs in a batch: [`Submit::wire_bytes`].
    pub wire_bytes: u32,
    /// Its place in the order of acceptance.
    pub sequence: u64,
    /// When it was accepted.
    pub accepted: WallMs,
    /// Not before this instant: the last return's, or the caller's own.
    pub due: Option<WallMs>,
    /// When it expires.
    pub deadline: Option<WallMs>,
    /// Its tries so far.
    pub past: Past,
}

/// What happened to a job before the restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Counted tries.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
    /// How often it was handed out, batches that never reached their worker not counted.
    pub deliveries: u32,
    /// Whether it must travel alone.
    pub alone: bool,
    /// When it was first handed to a worker.
    pub started: Option<WallMs>,
    /// The last lease that held it; an outcome under this token still counts.
    pub last_token: Option<Token>,
    /// Whether a settle under `last_token` sent the job back: the same settle again is a duplicate.
    pub spent: bool,
}

/// A lease that holds at least one unsettled job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredLease {
    /// Its token.
    pub token: Token,
    /// Its processor.
    pub processor: Arc<str>,
    /// Who holds it.
    pub worker: String,
    /// Whether the worker lived in the process that ended.
    pub in_process: bool,
    /// The poll's own id.
    pub request_id: Option<String>,
    /// Its term, milliseconds.
    pub term_ms: u64,
    /// When it was granted.
    pub granted: WallMs,
    /// Whether the batch is known to have reached the worker.
    pub delivered: bool,
    /// Its jobs that are unsettled, not returned, and in no later lease; in the order of the batch.
    pub jobs: Vec<JobId>,
}

/// Whether a worker's own word sent the job back, and not the end of its lease.
pub(crate) const fn by_settle(cause: Cause) -> bool {
    match cause {
        Cause::Released | Cause::Error | Cause::MissingOutcome | Cause::BatchFailed => true,
        Cause::Undelivered | Cause::Expired | Cause::Crashed => false,
    }
}

struct Job {
    sequence: u64,
    accepted: WallMs,
    processor: Arc<str>,
    group: Arc<str>,
    /// Most jobs have none of it.
    rare: Option<Box<Rare>>,
    wire_bytes: u32,
    priority: Priority,
}

#[derive(Default)]
struct Rare {
    due: Option<WallMs>,
    deadline: Option<WallMs>,
    past: Past,
    /// Whether the lease of `past.last_token` still holds it.
    held: bool,
}

struct Lease {
    worker: String,
    in_process: bool,
    request_id: Option<String>,
    term_ms: u64,
    granted: WallMs,
    delivered: bool,
    jobs: Vec<JobId>,
    /// How many of `jobs` it still holds.
    held: usize,
}

pub(crate) struct Replay {
    jobs: IdMap<JobId, Job>,
    leases: IdMap<Token, Lease>,
    names: HashSet<Arc<str>>,
    last_sequence: u64,
}

impl Replay {
    pub(crate) fn new(seed: u64) -> Self {
        let seed = Seed(seed);
        Self {
            jobs: IdMap::with_hasher(seed),
            leases: IdMap::with_hasher(seed),
            names: HashSet::new(),
            last_sequence: 0,
        }
    }

    pub(crate) fn submit(&mut self, submit: &Submit<'_>) {
        self.last_sequence = self.last_sequence.max(submit.sequence);
        let rare = (submit.run_at.is_some() || submit.deadline.is_some()).then(|| {
            Box::new(Rare {
                due: submit.run_at,
                deadline: submit.deadline,
                ..Rare::default()
            })
        });
        let job = Job {
            sequence: submit.sequence,
            accepted: submit.accepted,
            processor: self.name(submit.processor),
            group: self.name(submit.group),
            rare,
            wire_bytes: submit.wire_bytes(),
            priority: submit.priority,
        };
        self.jobs.insert(submit.id, job);
    }

    /// A batch was handed out: its jobs leave any earlier lease.
    pub(crate) fn dispatch(&mut self, dispatch: &Dispatch<'_>) {
        let mut held = 0;
        for id in &dispatch.jobs {
            let Some(job) = self.jobs.get_mut(id) else {
                continue;
            };
            let rare = job.rare.get_or_insert_default();
            let earlier = std::mem::replace(&mut rare.held, true)
                .then_some(rare.past.last_token)
                .flatten();
            // What delayed it is over: it is held, or back at once if the batch was not delivered.
            rare.due = None;
            rare.past.last_token = Some(dispatch.token);
            rare.past.spent = false;
            rare.past.deliveries += 1;
            rare.past.started = rare.past.started.or(Some(dispatch.granted));
            held += 1;
            if let Some(earlier) = earlier {
                self.release(earlier);
            }
        }
        if held == 0 {
            return;
        }
        let lease = Lease {
            worker: dispatch.worker.to_owned(),
            in_process: dispatch.in_process,
            request_id: dispatch.request_id.map(str::to_owned),
            term_ms: dispatch.term_ms,
            granted: dispatch.granted,
            delivered: false,
            jobs: dispatch.jobs.clone(),
            held,
        };
        if let Some(before) = self.leases.insert(dispatch.token, lease) {
            self.let_go(dispatch, &before.jobs);
        }
    }

    /// A lease that is written anew holds what it lists: of its other jobs a copy says no more.
    fn let_go(&mut self, dispatch: &Dispatch<'_>, before: &[JobId]) {
        let listed: BTreeSet<JobId> = dispatch.jobs.iter().copied().collect();
        for id in before.iter().filter(|id| !listed.contains(*id)) {
            let rare = self.jobs.get_mut(id).and_then(|job| job.rare.as_mut());
            if let Some(rare) = rare.filter(|rare| rare.past.last_token == Some(dispatch.token)) {
                rare.held = false;
            }
        }
    }

    pub(crate) fn delivered(&mut self, token: Token) {
        if let Some(lease) = self.leases.get_mut(&token) {
            lease.delivered = true;
        }
    }

    pub(crate) fn returned(&mut self, returned: &Return<'_>) {
        let Some(job) = self.jobs.get_mut(&returned.id) else {
            return;
        };
        let rare = job.rare.get_or_insert_default();
        rare.due = returned.due;
        rare.past.attempts = returned.attempts;
        rare.past.crashes = returned.crashes;
        rare.past.alone |= returned.alone;
        if rare.past.last_token == Some(returned.token) {
            rare.past.spent = by_settle(returned.cause);
        }
        if rare.held && rare.past.last_token == Some(returned.token) {
            rare.held = false;
            if returned.cause == Cause::Undelivered {
                rare.past.deliveries -= 1;
                if rare.past.deliveries == 0 {
                    rare.past.started = None;
                }
            }
            self.release(returned.token);
        }
    }

    /// What happened to a job in a segment that is gone, in sum.
    pub(crate) fn tries(&mut self, tries: &Tries) {
        let Some(job) = self.jobs.get_mut(&tries.id) else {
            return;
        };
        let rare = job.rare.get_or_insert_default();
        let earlier = std::mem::replace(&mut rare.held, tries.held)
            .then_some(rare.past.last_token)
            .flatten();
        rare.due = tries.due;
        if let Some((attempts, crashes)) = tries.counts {
            rare.past.attempts = attempts;
            rare.past.crashes = crashes;
        }
        rare.past.alone |= tries.alone;
        rare.past.deliveries = rare.past.deliveries.saturating_add(tries.deliveries);
        rare.past.started = rare.past.started.or(tries.started);
        rare.past.last_token = Some(tries.token);
        rare.past.spent = tries.spent;
        if let Some(earlier) = earlier {
            self.release(earlier);
        }
    }

    /// The job ended.
    pub(crate) fn settled(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(rare) = job.rare
            && rare.held
            && let Some(token) = rare.past.last_token
        {
            self.release(token);
        }
    }

    /// The highest sequence of any job that was read.
    pub(crate) const fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// All has been read.
    pub(crate) fn finish(mut self) -> Drain {
        let mut order: Vec<(u64, JobId)> = self.jobs.iter().map(|(id, job)| (job.sequence, *id)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        let mut tokens: Vec<Token> = self.leases.keys().copied().collect();
        tokens.sort_unstable();
        let leases = tokens
            .into_iter()
            .filter_map(|token| self.take_lease(token))
            .rev()
            .collect();
        Drain {
            order,
            jobs: self.jobs,
            leases,
        }
    }

    fn take_lease(&mut self, token: Token) -> Option<RecoveredLease> {
        let Lease {
            worker,
            in_process,
            request_id,
            term_ms,
            granted,
            delivered,
            mut jobs,
            held: _,
        } = self.leases.remove(&token)?;
        jobs.retain(|id| {
            let rare = self.jobs.get(id).and_then(|job| job.rare.as_ref());
            rare.is_some_and(|rare| rare.held && rare.past.last_token == Some(token))
        });
        let processor = Arc::clone(&self.jobs.get(jobs.first()?)?.processor);
        Some(RecoveredLease {
            token,
            processor,
            worker,
            in_process,
            request_id,
            term_ms,
            granted,
            delivered,
            jobs,
        })
    }

    /// One job less in this lease.
    fn release(&mut self, token: Token) {
        if let Some(lease) = self.leases.get_mut(&token) {
            lease.held = lease.held.saturating_sub(1);
            if lease.held == 0 {
                self.leases.remove(&token);
            }
        }
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(name) = self.names.get(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = Arc::from(name);
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// What was recovered and not handed over yet.
pub(crate) struct Drain {
    /// Sequence and id, the last first.
    order: Vec<(u64, JobId)>,
    jobs: IdMap<JobId, Job>,
    /// The last first.
    leases: Vec<RecoveredLease>,
}

impl Drain {
    pub(crate) fn next(&mut self) -> Option<Recovered> {
        while let Some((_, id)) = self.order.pop() {
            let Some(job) = self.jobs.remove(&id) else {
                continue;
            };
            let rare = job.rare.unwrap_or_default();
            return Some(Recovered::Job(RecoveredJob {
                id,
                processor: job.processor,
                group: job.group,
                priority: job.priority,
                wire_bytes: job.wire_bytes,
                sequence: job.sequence,
                accepted: job.accepted,
                due: rare.due,
                deadline: rare.deadline,
                past: rare.past,
            }));
        }
        self.order = Vec::new();
        self.jobs = IdMap::with_hasher(Seed(0));
        self.leases.pop().map(Recovered::Lease)
    }
}

//! The lives of the jobs that were unsettled when the process ended.
//!
//! In: every record, in order. Out: for each unsettled job its attempts, crashes and leases, and each lease that
//! still holds one. A job's seat stands in the index, so that each record is looked up once.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::hash::{IdMap, Seed};
use crate::ids::{JobId, Priority, Token, WallMs};
use crate::index::Index;
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

/// Which of the replay's jobs this is. The index keeps it; after the start it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat(u32);

struct Job {
    id: JobId,
    sequence: u64,
    accepted: WallMs,
    processor: Name,
    group: Name,
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

/// Which of the texts this is.
#[derive(Clone, Copy)]
struct Name(u32);

/// The names of processors and groups, each once.
#[derive(Default)]
struct Names {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, Name>,
}

impl Names {
    /// `last` is the name that stood in the same place of the record before: most have the same.
    fn enter(&mut self, text: &str, last: Option<Name>) -> Name {
        if let Some(last) = last.filter(|last| **self.text(*last) == *text) {
            return last;
        }
        if let Some(name) = self.numbers.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).expect("fewer than 4 billion names fit in memory"));
        let shared: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&shared));
        self.numbers.insert(shared, name);
        name
    }

    fn text(&self, Name(number): Name) -> &Arc<str> {
        &self.texts[usize::try_from(number).expect("a pointer has at least 32 bits")]
    }
}

/// The jobs by their seats.
#[derive(Default)]
struct Jobs {
    seats: Vec<Option<Job>>,
    free: Vec<Seat>,
}

impl Jobs {
    /// The seat that the next job gets.
    fn next_seat(&self) -> Seat {
        self.free.last().copied().unwrap_or_else(|| {
            Seat(u32::try_from(self.seats.len()).expect("fewer than 4 billion jobs fit in memory"))
        })
    }

    fn enter(&mut self, job: Job) {
        match self.free.pop() {
            Some(seat) => self.seats[seat.index()] = Some(job),
            None => self.seats.push(Some(job)),
        }
    }

    fn remove(&mut self, seat: Seat) -> Option<Job> {
        let job = self.seats.get_mut(seat.index())?.take()?;
        self.free.push(seat);
        Some(job)
    }

    fn get(&self, seat: Seat) -> Option<&Job> {
        self.seats.get(seat.index())?.as_ref()
    }

    fn get_mut(&mut self, seat: Seat) -> Option<&mut Job> {
        self.seats.get_mut(seat.index())?.as_mut()
    }
}

impl Seat {
    fn index(self) -> usize {
        usize::try_from(self.0).expect("a pointer has at least 32 bits")
    }
}

pub(crate) struct Replay {
    jobs: Jobs,
    leases: IdMap<Token, Lease>,
    names: Names,
    /// The processor and the group of the submit before.
    last_names: Option<(Name, Name)>,
    last_sequence: u64,
}

impl Replay {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            jobs: Jobs::default(),
            leases: IdMap::with_hasher(Seed(seed)),
            names: Names::default(),
            last_names: None,
            last_sequence: 0,
        }
    }

    /// The seat of the job that [`Replay::submit`] enters next.
    pub(crate) fn next_seat(&self) -> Seat {
        self.jobs.next_seat()
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
        let (last_processor, last_group) = self.last_names.unzip();
        let processor = self.names.enter(submit.processor, last_processor);
        let group = self.names.enter(submit.group, last_group);
        self.last_names = Some((processor, group));
        let job = Job {
            id: submit.id,
            sequence: submit.sequence,
            accepted: submit.accepted,
            processor,
            group,
            rare,
            wire_bytes: submit.wire_bytes(),
            priority: submit.priority,
        };
        self.jobs.enter(job);
    }

    /// A batch was handed out: its jobs leave any earlier lease.
    pub(crate) fn dispatch(&mut self, dispatch: &Dispatch<'_>, index: &Index) {
        let mut held = 0;
        for id in &dispatch.jobs {
            let Some(job) = self.job_mut(*id, index) else {
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
            self.let_go(dispatch, &before.jobs, index);
        }
    }

    /// A lease that is written anew holds what it lists: of its other jobs a copy says no more.
    fn let_go(&mut self, dispatch: &Dispatch<'_>, before: &[JobId], index: &Index) {
        let listed: BTreeSet<JobId> = dispatch.jobs.iter().copied().collect();
        for id in before.iter().filter(|id| !listed.contains(*id)) {
            let rare = self.job_mut(*id, index).and_then(|job| job.rare.as_mut());
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

    pub(crate) fn returned(&mut self, returned: &Return<'_>, index: &Index, now: WallMs) {
        let Some(job) = self.job_mut(returned.id, index) else {
            return;
        };
        let rare = job.rare.get_or_insert_default();
        rare.due = due(returned.due, returned.written, now);
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
    pub(crate) fn tries(&mut self, tries: &Tries, index: &Index, now: WallMs) {
        let Some(job) = self.job_mut(tries.id, index) else {
            return;
        };
        let rare = job.rare.get_or_insert_default();
        let earlier = std::mem::replace(&mut rare.held, tries.held)
            .then_some(rare.past.last_token)
            .flatten();
        rare.due = due(tries.due, tries.written, now);
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

    /// Whose lane a job is in.
    pub(crate) fn lane(&self, seat: Seat) -> Option<(&str, Priority)> {
        let job = self.jobs.seats.get(seat.index())?.as_ref()?;
        Some((&**self.names.text(job.processor), job.priority))
    }

    /// The job ended.
    pub(crate) fn settled(&mut self, seat: Seat) {
        let Some(job) = self.jobs.remove(seat) else { return };
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
    pub(crate) fn finish(mut self, index: &Index) -> Drain {
        let jobs = (0..).map(Seat).zip(&self.jobs.seats);
        let mut order: Vec<(u64, Seat)> = jobs
            .filter_map(|(seat, job)| Some((job.as_ref()?.sequence, seat)))
            .collect();
        order.sort_unstable_by_key(|(sequence, _)| Reverse(*sequence));
        let mut tokens: Vec<Token> = self.leases.keys().copied().collect();
        tokens.sort_unstable();
        let leases = tokens
            .into_iter()
            .filter_map(|token| self.take_lease(token, index))
            .rev()
            .collect();
        Drain {
            order,
            jobs: self.jobs,
            names: self.names,
            leases,
        }
    }

    fn job(&self, id: JobId, index: &Index) -> Option<&Job> {
        self.jobs.get(index.seat(id)?)
    }

    fn job_mut(&mut self, id: JobId, index: &Index) -> Option<&mut Job> {
        self.jobs.get_mut(index.seat(id)?)
    }

    fn take_lease(&mut self, token: Token, index: &Index) -> Option<RecoveredLease> {
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
            let rare = self.job(*id, index).and_then(|job| job.rare.as_ref());
            rare.is_some_and(|rare| rare.held && rare.past.last_token == Some(token))
        });
        let processor = self.job(*jobs.first()?, index)?.processor;
        Some(RecoveredLease {
            token,
            processor: Arc::clone(self.names.text(processor)),
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
}

/// When a job is due that was to pause from `written` until `due`: no longer from now on than it was to pause in all.
/// A clock that was ahead and was set right would make it wait for as long again as it was ahead.
fn due(due: Option<WallMs>, written: Option<WallMs>, now: WallMs) -> Option<WallMs> {
    let pause = written.zip(due).map(|(from, to)| to.0.saturating_sub(from.0));
    let latest = pause.map_or(u64::MAX, |pause| now.0.saturating_add(pause));
    due.map(|due| WallMs(due.0.min(latest)))
}

/// What was recovered and not handed over yet.
pub(crate) struct Drain {
    /// Sequence and seat, the last first.
    order: Vec<(u64, Seat)>,
    jobs: Jobs,
    names: Names,
    /// The last first.
    leases: Vec<RecoveredLease>,
}

impl Drain {
    pub(crate) fn next(&mut self) -> Option<Recovered> {
        while let Some((_, seat)) = self.order.pop() {
            let taken = self.jobs.seats.get_mut(seat.index());
            let Some(job) = taken.and_then(Option::take) else {
                continue;
            };
            let rare = job.rare.unwrap_or_default();
            return Some(Recovered::Job(RecoveredJob {
                id: job.id,
                processor: Arc::clone(self.names.text(job.processor)),
                group: Arc::clone(self.names.text(job.group)),
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
        self.jobs = Jobs::default();
        self.leases.pop().map(Recovered::Lease)
    }
}

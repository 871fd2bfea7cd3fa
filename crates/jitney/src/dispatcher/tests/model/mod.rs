//! A naive dispatcher: flat lists, everything found by looking at all of it, nothing kept that can be counted.
//! It shares the words of the contract and the backoff with the real one, and no other code. The differential
//! test holds the two against each other. Sequences are distinct here, so a job's sequence is its order.

mod batches;
mod leases;
mod settles;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::bus::{Past, RecoveredLease};
use crate::clock::between;
use crate::dispatcher::event::{Decision, Finish, GrantedJob, Requeue};
use crate::dispatcher::retry::{backoff, millis};
use crate::job::{Cause, End, Reason};
use crate::policy::{GroupBy, Policy};

pub(super) struct Model {
    identity: Identity,
    book: PolicyBook,
    pub(super) now: Now,
    pub(super) jobs: Vec<MJob>,
    pub(super) leases: Vec<MLease>,
    polls: Vec<MPoll>,
    /// Processors in the order in which they were first named.
    names: Vec<Processor>,
    shares: BTreeMap<(Processor, Priority), MShare>,
    paused: BTreeSet<(Processor, Priority)>,
    next: u64,
    formed: u64,
    units: u64,
    stalled: bool,
    draining: bool,
    actions: Vec<Action>,
}

#[derive(Clone, Debug)]
pub(super) struct MJob {
    pub(super) id: JobId,
    pub(super) processor: Processor,
    pub(super) priority: Priority,
    pub(super) group: Group,
    /// Kept only while a policy groups by it.
    pub(super) key: Option<Arc<str>>,
    pub(super) sequence: u64,
    pub(super) bytes: u32,
    pub(super) place: MPlace,
    clock: Mono,
    prompt: bool,
    alone: bool,
    unit: Option<u64>,
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    deliveries: u32,
    started: Option<WallMs>,
    last: Option<Token>,
    spent: bool,
    /// It is spent by a settle that had no outcome for the job.
    missed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MPlace {
    Waiting,
    Ready,
    Leased,
    Committing(MCommit),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MCommit {
    change: Change,
    by_settle: bool,
    leased: bool,
    overtaken: Option<Requeue>,
    due: Option<Mono>,
}

pub(super) struct MLease {
    pub(super) token: Token,
    processor: Processor,
    priority: Priority,
    worker: Arc<str>,
    in_process: bool,
    request: Option<Arc<str>>,
    closed_by: ClosedBy,
    together: bool,
    single: bool,
    granting: bool,
    delivered: bool,
    outgoing: u32,
    handed_out: bool,
    term: Duration,
    limit: Mono,
    ends: Option<Mono>,
    members: Vec<JobId>,
    settled: Vec<JobId>,
}

struct MPoll {
    poll: Poll,
    /// Waits for the fate of a lease of its request.
    parked: bool,
}

#[derive(Clone, Copy)]
struct MShare {
    left: u64,
    owed: Option<u64>,
}

enum Offer {
    Batch(MBatch),
    Later(Option<Mono>),
}

struct MBatch {
    priority: Priority,
    jobs: Vec<JobId>,
    closed_by: ClosedBy,
    unit: bool,
    on_share: bool,
}

impl Model {
    pub(super) fn new(identity: Identity, book: PolicyBook) -> Self {
        Self {
            identity,
            book,
            now: Now::default(),
            jobs: Vec::new(),
            leases: Vec::new(),
            polls: Vec::new(),
            names: Vec::new(),
            shares: BTreeMap::new(),
            paused: BTreeSet::new(),
            next: 1,
            formed: 0,
            units: 0,
            stalled: false,
            draining: false,
            actions: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, event: &Event, now: Now) -> Vec<Action> {
        self.now = now;
        match event.clone() {
            Event::Arrived(arrivals) => {
                for arrival in arrivals {
                    self.arrived(arrival);
                }
            }
            Event::Recovered(lease) => self.recovered(lease),
            Event::Gone(job) => self.jobs.retain(|other| other.id != job),
            Event::Poll(poll) => self.poll(poll),
            Event::PollGone(poll) => self.polls.retain(|other| other.poll.id != poll),
            Event::GrantWritten(token) => self.grant_written(token),
            Event::GrantFailed(token) => self.give_back(token, true),
            Event::Delivered(token) => self.heard(token),
            Event::Undelivered(token) => self.undelivered(token),
            Event::Settle(settle) => self.settle(&settle),
            Event::Extend { request, token } => self.extend(request, token),
            Event::Committed(jobs) => self.committed(&jobs),
            Event::CommitFailed(jobs) => self.commit_failed(&jobs),
            Event::Policies(book) => self.policies(book),
            Event::Policy(processor, written) => {
                let mut book = self.book.clone();
                match written {
                    Some(written) => drop(book.processors.insert(processor, *written)),
                    None => drop(book.processors.remove(&processor)),
                }
                self.policies(book);
            }
            Event::Pause {
                processor,
                priority,
                paused: true,
            } => {
                self.name(&processor);
                self.paused.insert((processor, priority));
            }
            Event::Pause {
                processor, priority, ..
            } => drop(self.paused.remove(&(processor, priority))),
            Event::Stalled(stalled) => self.stall(stalled),
            Event::Drain => {
                self.draining = true;
                self.polls.iter_mut().for_each(|poll| poll.parked = false);
                self.end_polls(|_| true);
            }
            Event::Tick => {}
        }
        self.tidy();
        self.expire();
        for job in &mut self.jobs {
            if job.place == MPlace::Waiting && job.clock <= now.mono {
                job.place = MPlace::Ready;
                self.units += 1;
                job.unit = job.alone.then_some(self.units);
            }
        }
        self.tidy();
        self.unpark();
        for name in self.names.clone() {
            self.serve(&name);
        }
        let mono = now.mono;
        self.polls.sort_by_key(|poll| (poll.poll.until, poll.poll.id));
        self.end_polls(|poll| poll.until <= mono);
        self.polls.sort_by_key(|poll| poll.poll.id);
        std::mem::take(&mut self.actions)
    }

    fn find(&self, id: JobId) -> Option<&MJob> {
        self.jobs.iter().find(|job| job.id == id)
    }

    fn job(&mut self, id: JobId) -> &mut MJob {
        self.jobs.iter_mut().find(|job| job.id == id).unwrap()
    }

    fn lease(&self, token: Token) -> Option<&MLease> {
        self.leases.iter().find(|lease| lease.token == token)
    }

    fn lease_mut(&mut self, token: Token) -> Option<&mut MLease> {
        self.leases.iter_mut().find(|lease| lease.token == token)
    }

    pub(super) fn policy(&self, job: &MJob) -> Policy {
        if self.book.stands_apart(&job.processor, &job.group) {
            self.book.resolve(&job.processor, &job.group, job.priority)
        } else {
            self.book.resolve_lane(&job.processor, job.priority)
        }
    }

    /// What a job may be mixed with: its own group, its own key, or all that do not stand apart.
    pub(super) fn queue(&self, job: &MJob) -> (Option<Group>, Option<Arc<str>>) {
        let by = self.policy(job).group_by;
        let apart = self.book.stands_apart(&job.processor, &job.group) || by == GroupBy::Group;
        let key = job.key.clone().filter(|_| by == GroupBy::Key);
        (apart.then(|| job.group.clone()), key)
    }

    /// Keys that no policy groups by are forgotten.
    fn forget_keys(&mut self) {
        for at in 0..self.jobs.len() {
            self.jobs[at].key = self.queue(&self.jobs[at]).1;
        }
    }

    fn is_held(job: &MJob) -> bool {
        match job.place {
            MPlace::Leased => true,
            MPlace::Committing(commit) => commit.leased,
            MPlace::Waiting | MPlace::Ready => false,
        }
    }

    /// Members that this lease has the last word on, at such a place.
    fn members(&self, token: Token, at: impl Fn(&MJob) -> bool) -> Vec<JobId> {
        let Some(lease) = self.lease(token) else {
            return Vec::new();
        };
        let mine = |id: &JobId| {
            self.find(*id)
                .is_some_and(|job| job.last == Some(token) && at(job))
        };
        lease.members.iter().copied().filter(mine).collect()
    }

    fn held(&self, token: Token) -> Vec<JobId> {
        self.members(token, Self::is_held)
    }

    fn leased(&self, token: Token) -> Vec<JobId> {
        self.members(token, |job| job.place == MPlace::Leased)
    }

    fn ready(&self, processor: &Processor, priority: Priority) -> Vec<&MJob> {
        let mut ready: Vec<_> = self
            .jobs
            .iter()
            .filter(|job| job.place == MPlace::Ready)
            .collect();
        ready.retain(|job| job.processor == *processor && job.priority == priority);
        ready.sort_by_key(|job| job.sequence);
        ready
    }

    fn waits(&self, processor: &Processor, priority: Priority) -> bool {
        let paused = self.paused.contains(&(processor.clone(), priority));
        !paused && !self.ready(processor, priority).is_empty()
    }

    fn above(&self, processor: &Processor, priority: Priority) -> Option<u32> {
        if priority == Priority::Realtime {
            return None;
        }
        let policy = self.book.resolve_lane(processor, priority);
        policy.lower_lane_share.above.map(|above| above.max(1))
    }

    fn reset(&self, processor: &Processor, priority: Priority) -> MShare {
        let above = self.above(processor, priority);
        MShare {
            left: above.unwrap_or(0).into(),
            owed: None,
        }
    }

    /// What follows from what is there: empty lanes owe nothing, leases that nothing can return to are forgotten.
    fn tidy(&mut self) {
        for name in self.names.clone() {
            for priority in Priority::ALL {
                if !self.waits(&name, priority) {
                    let share = self.reset(&name, priority);
                    self.shares.insert((name.clone(), priority), share);
                }
            }
        }
        let now = self.now.mono;
        let mut kept = Vec::new();
        for token in self.leases.iter().map(|lease| lease.token).collect::<Vec<_>>() {
            let held = !self.held(token).is_empty();
            let open = !self.members(token, |job| !job.spent).is_empty();
            let lease = self.lease_mut(token).unwrap();
            if !held {
                (lease.granting, lease.delivered, lease.ends) = (false, false, None);
            }
            if held || open && lease.limit > now && lease.handed_out {
                kept.push(token);
            }
        }
        self.leases.retain(|lease| kept.contains(&lease.token));
    }

    fn name(&mut self, processor: &Processor) {
        if !self.names.contains(processor) {
            self.names.push(processor.clone());
            for priority in Priority::ALL {
                let share = self.reset(processor, priority);
                self.shares.insert((processor.clone(), priority), share);
            }
        }
    }

    fn made_here(&self, token: Token) -> bool {
        let Identity { node, epoch } = self.identity;
        let ours = token.epoch < epoch || token.epoch == epoch && token.sequence < self.next;
        token.node == node && token.sequence > 0 && ours
    }

    fn arrived(&mut self, arrival: Arrival) {
        self.name(&arrival.processor);
        if self.find(arrival.id).is_some() {
            return;
        }
        let wait = arrival.due.map_or(0, |due| due.0.saturating_sub(self.now.wall.0));
        let past = arrival.recovered.unwrap_or_default();
        self.jobs.push(MJob {
            id: arrival.id,
            processor: arrival.processor,
            priority: arrival.priority,
            group: arrival.group,
            key: arrival.key,
            sequence: arrival.sequence,
            bytes: arrival.wire_bytes,
            place: MPlace::Waiting,
            clock: after(self.now.mono, ms(wait)),
            prompt: arrival.recovered.is_some() && wait == 0,
            alone: past.alone,
            unit: None,
            attempts: past.attempts,
            crashes: past.crashes,
            deliveries: past.deliveries,
            started: past.started,
            last: past.last_token,
            spent: past.spent,
            missed: false,
        });
        self.forget_keys();
        if wait == 0 {
            self.enqueue(vec![arrival.id], false);
        }
    }

    /// Jobs become ready; those that travel together are one unit per queue.
    fn enqueue(&mut self, ids: Vec<JobId>, together: bool) {
        let mut units: BTreeMap<_, u64> = BTreeMap::new();
        for id in ids {
            let (queue, now) = (self.queue(self.find(id).unwrap()), self.now.mono);
            self.units += 1;
            let fresh = self.units;
            let job = self.job(id);
            job.place = MPlace::Ready;
            job.unit = match (job.alone, together) {
                (true, _) => Some(fresh),
                (false, true) => Some(*units.entry(queue).or_insert(fresh)),
                (false, false) => None,
            };
            if job.clock > now {
                job.place = MPlace::Waiting;
            }
        }
    }

    /// The earliest instant at which anything happens by itself.
    pub(super) fn next_timer(&self) -> Option<Mono> {
        let waiting = |job: &&MJob| job.place == MPlace::Waiting;
        let due = self.jobs.iter().filter(waiting).map(|job| job.clock);
        let ends = self
            .leases
            .iter()
            .filter_map(|lease| lease.ends.filter(|_| !self.stalled));
        let forgotten = self
            .leases
            .iter()
            .filter(|lease| self.held(lease.token).is_empty());
        let forgotten = forgotten.map(|lease| lease.limit);
        let until = self.polls.iter().map(|poll| poll.poll.until);
        let linger = self.polls.iter().filter(|poll| !poll.parked && !self.stalled);
        let linger = linger.filter_map(|poll| match self.offer(&poll.poll, 0) {
            Offer::Later(at) => at,
            Offer::Batch(_) => panic!("a batch could close and did not"),
        });
        due.chain(ends).chain(forgotten).chain(until).chain(linger).min()
    }

    /// What a log would report of these leases after a restart.
    pub(super) fn recoverable(&self) -> Vec<RecoveredLease> {
        let lease = |lease: &MLease| RecoveredLease {
            token: lease.token,
            processor: lease.processor.clone(),
            worker: lease.worker.to_string(),
            in_process: lease.token.sequence.is_multiple_of(5),
            request_id: lease.request.as_ref().map(ToString::to_string),
            term_ms: u64::try_from(lease.term.as_millis()).unwrap(),
            granted: self.now.wall,
            delivered: lease.delivered,
            jobs: self.held(lease.token),
        };
        self.leases
            .iter()
            .map(lease)
            .filter(|lease| !lease.jobs.is_empty())
            .collect()
    }

    pub(super) fn past(&self, id: JobId) -> Option<Past> {
        let job = self.find(id)?;
        Some(Past {
            attempts: job.attempts,
            crashes: job.crashes,
            deliveries: job.deliveries,
            alone: job.alone,
            started: job.started,
            last_token: job.last,
            spent: job.spent,
        })
    }
}

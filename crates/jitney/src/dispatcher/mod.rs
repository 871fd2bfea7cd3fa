//! The dispatcher decides: which jobs form the next batch, for whom, and when; leases and retries.
//!
//! In: [`Event`]s, with the time. Out: [`Action`]s, and the instant at which it wants to be asked again.
//! It owns every unsettled job's place, every lease and every pending poll, and does no I/O: no clock, no
//! randomness, no order that differs between two runs. docs/state_machine.md draws its states; rows are
//! named in the code (J4, L7).
//!
//! Invariants: a job is in one place; its last token is the only one whose word counts; a change is carried
//! out when it is durable, never before; a batch is formed only for a poll.

mod closing;
mod commits;
mod entry;
pub mod event;
mod forgetting;
mod forming;
mod granting;
mod id_index;
mod lane;
mod leases;
mod outgoing;
mod pause;
mod places;
mod policies;
mod polls;
mod queue;
mod rate;
mod recovery;
mod retry;
mod settling;
mod share;
mod slab;
mod standing;
#[cfg(test)]
mod tests;
mod timers;
mod touched;

pub use outgoing::Bounds;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::bus::Identity;
use crate::clock::{Mono, Now, between};
use crate::dispatcher::commits::Commit;
use crate::dispatcher::entry::{Groups, IdHash, Jobs, Place};
use crate::dispatcher::event::{Action, Event, JobStatus, LaneStats, PollId};
use crate::dispatcher::lane::Lane;
use crate::dispatcher::leases::Lease;
use crate::dispatcher::outgoing::Outgoing;
use crate::dispatcher::polls::{Class, NotReady, Pending, Request, RequestKey};
use crate::dispatcher::queue::Queue;
use crate::dispatcher::rate::Rate;
use crate::dispatcher::slab::Slab;
use crate::dispatcher::timers::Timers;
use crate::dispatcher::touched::Touched;
use crate::job::{JobId, Priority, Processor, State, Token};
use crate::policy::PolicyBook;

/// The pure state machine of jobs, leases and batches.
#[derive(Debug)]
pub struct Dispatcher {
    identity: Identity,
    policies: PolicyBook,
    /// Some policy groups by the jobs' keys.
    keyed: bool,
    /// The time of the present step.
    now: Now,
    jobs: Jobs,
    groups: Groups,
    queues: Slab<Queue>,
    processors: Vec<ProcessorState>,
    by_name: BTreeMap<Processor, usize>,
    /// Processors that nobody uses, by when they are forgotten.
    idle: BTreeSet<(Mono, usize)>,
    /// Numbers of processors that were forgotten.
    vacant: Vec<usize>,
    leases: BTreeMap<Token, Lease>,
    /// The sequence of the next token.
    next_sequence: u64,
    /// Changes being written, by slot.
    commits: HashMap<u32, Commit, IdHash>,
    polls: BTreeMap<PollId, Pending>,
    requests: BTreeMap<RequestKey, Request>,
    /// Polls so far; their order of waiting.
    polled: u64,
    /// Batches formed so far; when a lane became owed.
    formed: u64,
    timers: Timers,
    /// Processors for which a batch may have become possible in this step, or their next timer changed.
    touched: Touched,
    /// Repeated polls whose lease's fate was decided in this step.
    readmitted: BTreeSet<PollId>,
    /// Jobs held by leases.
    leased: usize,
    stalled: bool,
    outgoing: Outgoing,
    /// Repeated polls that wait until there is room for what they may get again.
    held_up: BTreeSet<PollId>,
    draining: bool,
}

/// What belongs to one processor.
#[derive(Debug)]
struct ProcessorState {
    name: Processor,
    lanes: [Lane; 3],
    /// Pending polls that ask for the same, the longest-waiting first.
    classes: BTreeMap<Class, BTreeMap<u64, PollId>>,
    /// Workers that poll for batches or hold a lease, with how many of both.
    workers: BTreeMap<Arc<str>, u32>,
    /// Workers that say that their program cannot start.
    not_ready: BTreeMap<Arc<str>, NotReady>,
    ever_worked: bool,
    /// Free slots of the polls that wait and would take REALTIME.
    free: u64,
    /// So many of them are kept for REALTIME.
    reserve: u32,
    /// When its next lingering batch closes.
    linger: Option<Mono>,
    /// When it is forgotten, if nobody uses it.
    forgotten_at: Option<Mono>,
    rate: Rate,
}

impl Dispatcher {
    /// A dispatcher without jobs. Its tokens are made of `identity`, which no other start shares.
    #[must_use]
    pub fn new(identity: Identity, policies: PolicyBook) -> Self {
        Self {
            identity,
            keyed: policies.groups_by_key(),
            policies,
            now: Now::default(),
            jobs: Jobs::new(identity.node),
            groups: Groups::default(),
            queues: Slab::new(),
            processors: Vec::new(),
            by_name: BTreeMap::new(),
            idle: BTreeSet::new(),
            vacant: Vec::new(),
            leases: BTreeMap::new(),
            next_sequence: 1,
            commits: HashMap::with_hasher(IdHash(identity.node)),
            polls: BTreeMap::new(),
            requests: BTreeMap::new(),
            polled: 0,
            formed: 0,
            timers: Timers::default(),
            touched: Touched::default(),
            readmitted: BTreeSet::new(),
            leased: 0,
            stalled: false,
            outgoing: Outgoing::default(),
            held_up: BTreeSet::new(),
            draining: false,
        }
    }

    /// Takes one event at `now` and appends what is to be done to `actions`. What the event says comes before
    /// whatever ends at this very instant: a heartbeat in time counts.
    pub fn step(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        self.now = now;
        match event {
            Event::Arrived(arrivals) => {
                self.jobs.warm(arrivals.iter().map(|arrival| arrival.id));
                for arrival in arrivals {
                    self.arrived(arrival);
                }
            }
            Event::Recovered(lease) => self.recovered(lease, actions),
            Event::Gone(job) => self.gone(job),
            Event::Poll(poll) => self.poll(poll, actions),
            Event::PollGone(poll) => self.poll_gone(poll),
            Event::GrantWritten(token) => self.grant_written(token),
            Event::GrantFailed(token) => {
                self.arrived_or_not(token);
                self.grant_failed(token);
            }
            Event::Delivered(token) => {
                self.arrived_or_not(token);
                self.delivered(token);
            }
            Event::Undelivered(token) => {
                self.arrived_or_not(token);
                self.undelivered(token);
            }
            Event::Settle(settle) => self.settle(settle, actions),
            Event::Extend { request, token } => self.extend(request, token, actions),
            Event::Committed(jobs) => self.committed(&jobs),
            Event::CommitFailed(jobs) => self.commit_failed(&jobs),
            Event::Policies(book) => self.change_policies(book),
            Event::Policy(processor, written) => self.change_policy(processor, written),
            Event::Pause {
                processor,
                priority,
                paused,
            } => self.pause(&processor, priority, paused),
            Event::Stalled(stalled) => self.stall(stalled),
            Event::Drain => self.drain(actions),
            Event::Tick => {}
        }
        let ended_polls = self.fire(actions);
        self.admit_again(actions);
        self.serve(actions);
        self.end_polls(&ended_polls, actions);
        self.forget_idle();
    }

    /// When [`Event::Tick`] must be given if nothing else happens; `None` while nothing is awaited.
    #[must_use]
    pub fn next_timer(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// Where an unsettled job is; `None` if it is not one.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobStatus> {
        let slot = self.jobs.find(id)?;
        let job = &self.jobs[slot];
        let (attempts, crashes) = job.counts();
        let leased = || self.commits.get(&slot).is_some_and(|commit| commit.leased);
        let state = match job.place {
            Place::Waiting if job.tried.is_some() => State::Retrying,
            Place::Waiting => State::Scheduled,
            Place::Fresh | Place::Back | Place::Unit => State::Queued,
            Place::Committing if !leased() => State::Queued,
            Place::Leased | Place::Committing => State::Running,
        };
        Some(JobStatus {
            state,
            attempts,
            crashes,
            started: job.tried.as_ref().and_then(|tried| tried.started),
        })
    }

    /// An unsettled job's place in the order of acceptance.
    #[must_use]
    pub fn sequence(&self, id: JobId) -> Option<u64> {
        self.jobs.find(id).map(|slot| self.jobs[slot].sequence)
    }

    /// Every lane of every processor that was named and is not forgotten, with its ages and rates as of `now`.
    #[must_use]
    pub fn lanes(&self, now: Mono) -> Vec<LaneStats> {
        let mut lanes = Vec::with_capacity(self.processors.len() * 3);
        for state in self.by_name.values().map(|&at| &self.processors[at]) {
            let mut before = 1;
            for (priority, lane) in Priority::ALL.into_iter().zip(&state.lanes) {
                // What is served before a job that comes now: its own lane, and those above that go.
                if !lane.paused {
                    before += lane.ready;
                }
                let queued = lane
                    .queues()
                    .filter_map(|queue| self.queues[queue].oldest(&self.jobs));
                let oldest = queued.chain(lane.oldest_in_units(&self.jobs)).min();
                lanes.push(LaneStats {
                    processor: state.name.clone(),
                    priority,
                    paused: lane.paused,
                    queued: lane.ready,
                    running: lane.total - lane.ready - lane.waiting,
                    retrying: lane.waiting,
                    dead: 0,
                    oldest_age: oldest.map(|clock| between(clock, now)),
                    workers: count(state.workers.len()),
                    workers_not_ready: count(state.not_ready.len()),
                    not_ready: state
                        .not_ready
                        .first_key_value()
                        .map(|(worker, said)| (Arc::clone(worker), Arc::clone(&said.reason))),
                    dispatched: lane.dispatched,
                    arrived: lane.arrived,
                    ended: lane.ended,
                    rate_in: lane.rate_in.per_second(now),
                    rate_out: lane.rate_out.per_second(now),
                    predicted_wait: state.rate.time_for(before).filter(|_| !lane.paused),
                });
            }
        }
        lanes
    }

    /// Whether batches may be grouped by the keys of jobs, so that arrivals must bring theirs.
    #[must_use]
    pub const fn wants_keys(&self) -> bool {
        self.keyed
    }

    /// Workers that poll the processor now for batches or hold a lease of it.
    #[must_use]
    pub fn workers(&self, processor: &Processor) -> u32 {
        self.state_of(processor)
            .map_or(0, |state| count(state.workers.len()))
    }

    /// Whether the processor was named by a job or a poll, and is not forgotten.
    #[must_use]
    pub fn knows(&self, processor: &Processor) -> bool {
        self.state_of(processor).is_some()
    }

    /// Whether a worker ever asked for the processor's jobs.
    #[must_use]
    pub fn ever_had_worker(&self, processor: &Processor) -> bool {
        self.state_of(processor).is_some_and(|state| state.ever_worked)
    }

    /// Every processor that was named, and whether a worker ever asked for it.
    pub fn processors(&self) -> impl Iterator<Item = (&Processor, bool)> {
        self.by_name
            .iter()
            .map(|(name, &at)| (name, self.processors[at].ever_worked))
    }

    /// Unsettled jobs.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.jobs.len()
    }

    /// Jobs that a worker holds.
    #[must_use]
    pub fn leased_jobs(&self) -> usize {
        self.leased
    }

    /// How long a job submitted now would wait at the rate at which jobs of the processor end; `None` if
    /// none ended yet.
    #[must_use]
    pub fn predicted_wait(&self, processor: &Processor) -> Option<Duration> {
        let state = self.state_of(processor)?;
        let going = state.lanes.iter().filter(|lane| !lane.paused);
        let before: u64 = going.map(|lane| lane.ready).sum();
        state.rate.time_for(before + 1)
    }

    fn state_of(&self, processor: &Processor) -> Option<&ProcessorState> {
        self.by_name.get(processor).map(|&at| &self.processors[at])
    }
}

fn size(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

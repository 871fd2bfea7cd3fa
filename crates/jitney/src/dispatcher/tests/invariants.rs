//! What must hold after every step, whatever happened; numbers as in reference: 1 conservation, 2 one lease and
//! fencing, 3 sizes, 4 homogeneity, 5 order, 6 scatter, 9 counts, 11 no empty batch and no idle wake-up,
//! 13 work conservation, 14 bounded age, 15 lane order, 18 oversize jobs. Nothing here looks at the model.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::job::Cause;
use crate::policy::{GroupBy, Policy};

/// A job as the outside knows it.
#[derive(Clone, Debug)]
struct Known {
    arrival: Arrival,
    /// The lease that it was handed out under last.
    token: Option<Token>,
    attempts: u32,
    crashes: u32,
    deferred: bool,
}

/// What is known from the events and actions alone.
#[derive(Default)]
pub(super) struct Watch {
    jobs: BTreeMap<JobId, Known>,
    polls: BTreeMap<PollId, Poll>,
    /// How many jobs each lease had.
    sizes: BTreeMap<Token, usize>,
    /// Changes that were decided and neither written nor failed, per job, in order.
    pending: BTreeMap<JobId, Vec<Change>>,
    running_before: BTreeSet<JobId>,
    /// Jobs handed out for the first time in this step.
    first: BTreeSet<JobId>,
    paused: BTreeSet<(Processor, Priority)>,
    stalled: bool,
    draining: bool,
}

impl Watch {
    /// Everything arrives again.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    pub(super) fn before(&mut self, dispatcher: &Dispatcher, event: &Event) {
        self.first.clear();
        let running = |id: &&JobId| matches!(dispatcher.job(**id), Some(job) if job.state == State::Running);
        self.running_before = self.jobs.keys().filter(running).copied().collect();
        match event {
            Event::Arrived(arrivals) => {
                for arrival in arrivals {
                    let past = arrival.recovered.unwrap_or_default();
                    let known = Known {
                        arrival: arrival.clone(),
                        token: past.last_token,
                        attempts: past.attempts,
                        crashes: past.crashes,
                        deferred: arrival.due.is_some() || arrival.recovered.is_some(),
                    };
                    self.jobs.insert(arrival.id, known);
                }
            }
            Event::Gone(id) => {
                self.jobs.remove(id);
                self.pending.remove(id);
            }
            Event::Poll(poll) => {
                self.polls.insert(poll.id, poll.clone());
            }
            Event::PollGone(poll) => {
                self.polls.remove(poll);
            }
            Event::Committed(jobs) => self.durable(jobs),
            Event::CommitFailed(jobs) => {
                for id in jobs {
                    if let Some(changes) = self.pending.get_mut(id) {
                        changes.remove(0);
                    }
                }
            }
            Event::Recovered(lease) => {
                self.sizes.insert(lease.token, lease.jobs.len());
            }
            Event::Pause {
                processor,
                priority,
                paused,
            } => {
                let lane = (processor.clone(), *priority);
                if *paused {
                    self.paused.insert(lane);
                } else {
                    self.paused.remove(&lane);
                }
            }
            Event::Stalled(stalled) => self.stalled = *stalled,
            Event::Drain => self.draining = true,
            _ => {}
        }
    }

    /// 1: what is written is what ends a job, and nothing else does.
    fn durable(&mut self, jobs: &[JobId]) {
        for id in jobs {
            let Some(changes) = self.pending.get_mut(id).filter(|changes| !changes.is_empty()) else {
                continue;
            };
            match changes.remove(0) {
                Change::Finish(_) => {
                    self.jobs.remove(id);
                    self.pending.remove(id);
                }
                Change::Requeue(back) => {
                    let job = self.jobs.get_mut(id).unwrap();
                    (job.attempts, job.crashes, job.deferred) = (back.attempts, back.crashes, true);
                }
            }
        }
    }

    pub(super) fn after(
        &mut self,
        dispatcher: &Dispatcher,
        book: &PolicyBook,
        now: Now,
        event: &Event,
        actions: &[Action],
    ) {
        for action in actions {
            match action {
                Action::Answer { poll, grants } => {
                    let poll = self.polls.remove(poll).expect("a poll is answered once");
                    let new = grants
                        .iter()
                        .filter(|grant| !self.sizes.contains_key(&grant.token));
                    assert!(new.count() <= poll.slots as usize);
                    for grant in grants {
                        self.granted(&poll, grant, book, event);
                    }
                    self.lane_order(dispatcher, &poll, grants);
                }
                Action::Decide(decided) => self.decided(decided, event),
                Action::Extended(extended) => {
                    for id in &extended.retaken {
                        assert_eq!(
                            self.jobs[id].token,
                            Some(extended.token),
                            "2: taken from another lease"
                        );
                    }
                }
                Action::UnknownLease(_) => {}
            }
        }
        self.conservation(dispatcher);
        self.order(dispatcher, book);
        self.work(dispatcher, book);
        if let Some(timer) = dispatcher.next_timer() {
            assert!(timer > now.mono, "11: a timer that is due was not seen to");
        }
    }

    fn policy(&self, book: &PolicyBook, id: JobId) -> (Option<Group>, Policy) {
        let job = &self.jobs[&id].arrival;
        let apart = book.stands_apart(&job.processor, &job.group);
        let policy = if apart {
            book.resolve(&job.processor, &job.group, job.priority)
        } else {
            book.resolve_lane(&job.processor, job.priority)
        };
        let sorted = apart || policy.group_by == GroupBy::Group;
        (sorted.then(|| job.group.clone()), policy)
    }

    fn granted(&mut self, poll: &Poll, grant: &Grant, book: &PolicyBook, event: &Event) {
        assert!(!grant.jobs.is_empty(), "11: an empty batch");
        let lane = (poll.processor.clone(), grant.priority);
        assert!(
            !grant.fresh || !self.paused.contains(&lane),
            "a paused lane hands nothing out"
        );
        let repeated = self.sizes.contains_key(&grant.token);
        let frees = matches!(
            event,
            Event::Committed(_) | Event::GrantFailed(_) | Event::Undelivered(_) | Event::CommitFailed(_)
        );
        let (first_queue, policy) = self.policy(book, grant.jobs[0].id);
        let mut bytes = 0;
        for job in &grant.jobs {
            let (queue, _) = self.policy(book, job.id);
            let known = self
                .jobs
                .get_mut(&job.id)
                .expect("1: only what arrived is handed out");
            assert_eq!(job.attempt, known.attempts + 1, "9");
            assert_eq!(known.arrival.priority, grant.priority, "4");
            bytes += u64::from(known.arrival.wire_bytes);
            if repeated {
                assert_eq!(
                    known.token,
                    Some(grant.token),
                    "2: a repeat gives what is still its own"
                );
            } else {
                assert_eq!(queue, first_queue, "4: groups that stand apart were mixed");
                assert!(
                    frees || !self.running_before.contains(&job.id),
                    "2: handed out twice"
                );
                assert!(
                    self.pending.get(&job.id).is_none_or(Vec::is_empty),
                    "2: its change is being written"
                );
                assert!(
                    known.token.is_none_or(|token| token < grant.token),
                    "2: tokens only grow"
                );
                if known.token.replace(grant.token).is_none() {
                    self.first.insert(job.id);
                }
            }
        }
        if !repeated {
            let most = policy.max_jobs.min(poll.max_jobs.unwrap_or(u32::MAX));
            assert!(grant.jobs.len() <= most as usize, "3: jobs");
            let limit = policy.max_bytes.min(poll.max_bytes.unwrap_or(u64::MAX));
            assert!(bytes <= limit || grant.jobs.len() == 1, "3, 18: bytes");
            assert!(poll.priorities[grant.priority.index()]);
            self.sizes.insert(grant.token, grant.jobs.len());
        }
    }

    /// 15: no lower lane goes, but on its share, while the poll could have had REALTIME.
    fn lane_order(&self, dispatcher: &Dispatcher, poll: &Poll, grants: &[Grant]) {
        let lower = |grant: &Grant| {
            grant.fresh && grant.priority != Priority::Realtime && grant.closed_by != ClosedBy::Share
        };
        let again = grants.iter().any(|grant| !grant.fresh);
        let paused = self
            .paused
            .contains(&(poll.processor.clone(), Priority::Realtime));
        if poll.priorities[0] && !paused && !again && poll.request_id.is_none() && grants.iter().any(lower) {
            let lanes = dispatcher.lanes(Mono(0));
            let realtime = lanes
                .iter()
                .find(|lane| lane.processor == poll.processor)
                .unwrap();
            assert_eq!(realtime.queued, 0, "15");
        }
    }

    fn decided(&mut self, decided: &Decisions, event: &Event) {
        let mut seen = BTreeSet::new();
        if let Event::Settle(settle) = event
            && decided.request.is_some()
        {
            let named: Vec<_> = settle.outcomes.iter().map(|&(id, _)| id).collect();
            let first: Vec<_> = decided.jobs.iter().map(|job| job.job).take(named.len()).collect();
            assert_eq!(first, named, "6: one verdict for each, in order");
            assert!(
                decided.jobs[named.len()..]
                    .iter()
                    .all(|job| job.verdict.is_none())
            );
        }
        for decision in &decided.jobs {
            let Some(change) = decision.change else { continue };
            assert!(seen.insert(decision.job), "6: one change for each");
            let job = &self.jobs[&decision.job];
            assert_eq!(
                job.token,
                Some(decided.token),
                "2: a fenced lease changed something"
            );
            let before = self.pending.entry(decision.job).or_default();
            assert!(
                before.iter().all(|change| matches!(change, Change::Requeue(_))),
                "1: it ends twice"
            );
            let base = match before.last() {
                Some(Change::Requeue(back)) => (back.attempts, back.crashes),
                _ => (job.attempts, job.crashes),
            };
            let single = self.sizes.get(&decided.token) == Some(&1);
            let (counts, expected) = counted(change, single);
            assert_eq!(
                counts,
                (base.0 + expected.0, base.1 + expected.1),
                "9: {change:?}"
            );
            before.push(change);
        }
    }

    fn conservation(&self, dispatcher: &Dispatcher) {
        assert_eq!(dispatcher.unsettled(), self.jobs.len(), "1");
        for id in self.jobs.keys() {
            assert!(dispatcher.job(*id).is_some(), "1: {id} was lost");
        }
        let lanes = dispatcher.lanes(Mono(0));
        let sum: u64 = lanes
            .iter()
            .map(|lane| lane.queued + lane.running + lane.retrying)
            .sum();
        assert_eq!(sum, self.jobs.len() as u64, "1");
    }

    /// 5: of the jobs of a queue that never failed, none goes before an older one.
    fn order(&self, dispatcher: &Dispatcher, book: &PolicyBook) {
        let mut youngest_gone: BTreeMap<(Processor, Priority, Option<Group>), u64> = BTreeMap::new();
        // Which keys are apart depends on when the policy came: that is the model's to tell.
        let calm = |(id, job): &(&JobId, &Known)| {
            !job.deferred && self.policy(book, **id).1.group_by != GroupBy::Key
        };
        for (id, job) in self
            .jobs
            .iter()
            .filter(calm)
            .filter(|(id, _)| self.first.contains(id))
        {
            let queue = (
                job.arrival.processor.clone(),
                job.arrival.priority,
                self.policy(book, *id).0,
            );
            let youngest = youngest_gone.entry(queue).or_default();
            *youngest = job.arrival.sequence.max(*youngest);
        }
        for (id, job) in self
            .jobs
            .iter()
            .filter(calm)
            .filter(|(_, job)| job.token.is_none())
        {
            let queue = (
                job.arrival.processor.clone(),
                job.arrival.priority,
                self.policy(book, *id).0,
            );
            let queued = dispatcher.job(*id).is_some_and(|job| job.state == State::Queued);
            let passed = youngest_gone
                .get(&queue)
                .is_some_and(|&other| other > job.arrival.sequence);
            assert!(!(queued && passed), "5: {id} was passed");
        }
    }

    /// 13, 14: while a poll waits nothing waits for it that need not.
    fn work(&self, dispatcher: &Dispatcher, book: &PolicyBook) {
        if self.stalled || self.draining {
            return;
        }
        let waits = |poll: &&Poll| poll.request_id.is_none() && poll.not_ready.is_none();
        for poll in self.polls.values().filter(waits) {
            let lanes = dispatcher.lanes(Mono(0));
            let mine = |lane: &&LaneStats| {
                let asked = lane.processor == poll.processor && poll.priorities[lane.priority.index()];
                let paused = self.paused.contains(&(lane.processor.clone(), lane.priority));
                assert_eq!(lane.paused, paused);
                asked && !paused && lane.queued > 0
            };
            let reserve = book
                .resolve_lane(&poll.processor, Priority::Realtime)
                .realtime_reserve;
            let reserved = reserve > 0 && poll.priorities[0];
            for lane in lanes.iter().filter(mine) {
                assert_ne!(lane.priority, Priority::Realtime, "13");
                if reserved {
                    continue;
                }
                let ids = self
                    .jobs
                    .iter()
                    .filter(|(_, job)| job.arrival.priority == lane.priority);
                let policies: Vec<_> = ids.map(|(id, _)| self.policy(book, *id).1).collect();
                let delay = policies
                    .iter()
                    .map(|policy| policy.max_delay)
                    .max()
                    .unwrap_or_default();
                assert!(lane.oldest_age.unwrap() < delay, "14");
                let eager = policies.iter().all(|policy| policy.idle_flush);
                assert!(
                    lane.priority == Priority::Slow || !eager || lane.running > 0,
                    "13"
                );
            }
        }
    }
}

/// The counts of a change, and by how much it may raise them: attempts, crashes.
fn counted(change: Change, single: bool) -> ((u32, u32), (u32, u32)) {
    match change {
        Change::Requeue(back) => {
            let raised = match back.cause {
                Cause::Error | Cause::MissingOutcome => (1, 0),
                Cause::BatchFailed => (u32::from(back.due.is_some()), 0),
                Cause::Expired | Cause::Crashed => (0, 1),
                Cause::Released | Cause::Undelivered => (0, 0),
            };
            let alone = back.cause != Cause::BatchFailed || back.due.is_none() || single;
            assert!(alone, "9: an attempt for a batch that failed as a whole");
            ((back.attempts, back.crashes), raised)
        }
        Change::Finish(end) => {
            let lost = matches!(end.cause, Some(Cause::Expired | Cause::Crashed));
            ((end.attempts, end.crashes), if lost { (0, 1) } else { (1, 0) })
        }
    }
}

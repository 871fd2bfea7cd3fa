//! Settles: what a worker's report does to each job of its lease. The table is in docs/state_machine.md.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::dispatcher::Dispatcher;
use crate::dispatcher::commits::Commit;
use crate::dispatcher::entry::{IdHash, Place, Spent};
use crate::dispatcher::event::{Action, Change, Decision, Decisions, Report, Settle, Verdict};
use crate::dispatcher::retry::Try;
use crate::job::{Cause, End, JobId, Priority, Token};
use crate::mutants::{Mutant, active};

/// The members of a settle's lease, looked up at the first job that is not its; `None`: no such lease.
type Members = OnceCell<Option<BTreeSet<JobId>>>;

impl Dispatcher {
    pub(super) fn settle(&mut self, settle: Settle, actions: &mut Vec<Action>) {
        let token = settle.token;
        if !self.made_here(token) {
            actions.push(Action::UnknownLease(settle.request));
            return;
        }
        self.delivered(token);
        let lease = self.leases.get(&token);
        let worker = lease.map_or_else(|| Arc::from(""), |lease| lease.worker.clone());
        let members = OnceCell::new();
        let seed = IdHash(self.identity.node);
        let mut named = HashSet::with_capacity_and_hasher(settle.outcomes.len(), seed);
        let mut jobs = Vec::with_capacity(settle.outcomes.len());
        let slots = self.named_slots(&settle);
        for (&(job, report), slot) in settle.outcomes.iter().zip(slots) {
            let verdict = if named.insert(job) {
                self.standing(slot, (job, report), token, &members)
            } else {
                Err(Verdict::Duplicate)
            };
            jobs.push(match verdict {
                Ok(slot) => self.apply(slot, report, settle.last),
                Err(verdict) => unchanged(job, verdict),
            });
        }
        if settle.failed || settle.last {
            for slot in self.members_at(token, |place| place == Place::Leased) {
                let change = self.unnamed(slot, &settle);
                jobs.push(self.decide(slot, None, change, true));
            }
        }
        actions.push(Action::Decide(Decisions {
            request: Some(settle.request),
            token,
            worker,
            jobs,
        }));
    }

    /// Where the jobs are that a settle names. Most settles name the whole batch in its order: then the lease
    /// knows, and nothing is looked up.
    fn named_slots(&self, settle: &Settle) -> Vec<Option<u32>> {
        let members = self
            .leases
            .get(&settle.token)
            .map_or(&[][..], |lease| &lease.members);
        let at = |(at, &(id, _)): (usize, &(JobId, Report))| {
            let member = members.get(at).filter(|member| member.job == id);
            member
                .and_then(|member| self.jobs.find_at(member.slot, id))
                .or_else(|| self.jobs.find(id))
        };
        settle.outcomes.iter().enumerate().map(at).collect()
    }

    /// Whether a report under this token counts for the job; if not, what its worker is told.
    fn standing(
        &self,
        slot: Option<u32>,
        (id, report): (JobId, Report),
        token: Token,
        members: &Members,
    ) -> Result<u32, Verdict> {
        let slot = slot.ok_or(Verdict::Ended)?;
        let job = &self.jobs[slot];
        if job.last_token() != Some(token) && !active(Mutant::DropFencing) {
            let was_held = match members.get_or_init(|| self.member_ids(token)) {
                Some(members) => members.contains(&id),
                None => job.last_token().is_some_and(|last| last > token),
            };
            return Err(if was_held { Verdict::Late } else { Verdict::Unknown });
        }
        if job.spent() {
            return Err(after(job.spent_by(), report));
        }
        match self.commits.get(&slot) {
            Some(Commit {
                by_settle: true,
                change: Change::Requeue(requeue),
                ..
            }) => Err(after(Spent::by(requeue.cause), report)),
            Some(commit) if commit.by_settle => Err(Verdict::Duplicate),
            Some(commit) if matches!(commit.change, Change::Finish(_)) => Err(Verdict::Late),
            Some(_) | None => Ok(slot),
        }
    }

    fn member_ids(&self, token: Token) -> Option<BTreeSet<JobId>> {
        let lease = self.leases.get(&token)?;
        Some(lease.members.iter().map(|member| member.job).collect())
    }

    /// A report that counts.
    fn apply(&mut self, slot: u32, report: Report, last: bool) -> Decision {
        let job = &self.jobs[slot];
        let (id, held) = (job.id, job.place == Place::Leased);
        let policy = &self.queues[job.queue].policy;
        let this = self.a_try(slot);
        let wall = self.now.wall;
        let (verdict, change) = match report {
            Report::Ok => (Verdict::Applied, this.finish(End::Ok, policy)),
            Report::Error { retryable: false, .. } => (Verdict::Applied, this.finish(End::Error, policy)),
            Report::Error { retry_after, .. } => (
                Verdict::Applied,
                this.fail(Cause::Error, retry_after, policy, wall),
            ),
            Report::Release if held => (Verdict::Released, this.release()),
            Report::Refused if last => (
                Verdict::Refused,
                this.fail(Cause::MissingOutcome, None, policy, wall),
            ),
            Report::Release => return unchanged(id, Verdict::Released),
            Report::Refused => return unchanged(id, Verdict::Refused),
        };
        self.decide(slot, Some(verdict), change, true)
    }

    /// What the end of the lease means for a member that its worker did not name.
    fn unnamed(&self, slot: u32, settle: &Settle) -> Change {
        let policy = &self.queues[self.jobs[slot].queue].policy;
        let this = self.a_try(slot);
        match (settle.failed, settle.crashed) {
            (true, true) => this.crash(Cause::Crashed, policy),
            (true, false) => this.split(policy, self.now.wall),
            (false, _) => this.fail(Cause::MissingOutcome, None, policy, self.now.wall),
        }
    }

    /// The job's try, as it stands: a change that is being written is taken as done.
    pub(super) fn a_try(&self, slot: u32) -> Try {
        let job = &self.jobs[slot];
        let (mut attempts, mut crashes) = job.counts();
        let mut alone = job.alone;
        if let Some(Change::Requeue(requeue)) = self.commits.get(&slot).map(|commit| commit.change) {
            (attempts, crashes, alone) = (requeue.attempts, requeue.crashes, requeue.alone);
        }
        let lease = job.last_token().and_then(|token| self.leases.get(&token));
        let realtime = self.queues[job.queue].priority == Priority::Realtime;
        Try {
            job: job.id,
            attempts,
            crashes,
            alone,
            started: job.tried.as_ref().and_then(|tried| tried.started),
            single: lease.map_or(alone || realtime, |lease| lease.single),
        }
    }
}

/// What a report is told that comes after another settle under its token sent the job back.
const fn after(spent: Spent, report: Report) -> Verdict {
    match (spent, report) {
        (Spent::Missed, Report::Refused) => Verdict::Refused,
        (Spent::Missed, _) => Verdict::Late,
        (Spent::No | Spent::Reported, _) => Verdict::Duplicate,
    }
}

const fn unchanged(job: JobId, verdict: Verdict) -> Decision {
    Decision {
        job,
        verdict: Some(verdict),
        change: None,
    }
}

//! The shadow of a job: what is surely durable of it, what may be, who holds it, and what was told.

use bytes::Bytes;
use jitney::job::{Cause, Group, JobId, Priority, Processor, Token};

use super::{Checker, Verdict, broken};
use crate::orders::OrderId;
use crate::tape::Ended;

/// How sure it is that a record survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Queued in this boot; `written`: it survives the process.
    Queued { written: bool },
    /// Left behind by a crash: it may be there or not.
    Left { written: bool },
    /// It survives everything.
    Durable,
}

impl Fate {
    pub(super) const fn crashed(self) -> Self {
        match self {
            Self::Queued { written } => Self::Left { written },
            other => other,
        }
    }

    /// Whether it must be there after this restart.
    pub(super) const fn must_be(self, power: bool) -> bool {
        match self {
            Self::Durable => true,
            Self::Left { written } => written && !power,
            Self::Queued { .. } => false,
        }
    }
}

/// Where it is, in this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not seen in this boot.
    Unseen,
    /// In its lane.
    Free,
    /// Under this lease, until something durable says otherwise.
    Held(Token),
}

/// Attempts and crashes.
pub(super) type Counts = (u32, u32);

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) order: OrderId,
    pub(super) processor: Processor,
    pub(super) group: Group,
    pub(super) priority: Priority,
    pub(super) data: Bytes,
    pub(super) submit: Fate,
    /// When its submit was appended.
    pub(super) appended_at: u64,
    /// When a caller was first told that it is accepted.
    pub(super) acked: Option<u64>,
    /// How many were told that theirs was the first submit.
    pub(super) firsts: u32,
    pub(super) end: Option<(Ended, Fate)>,
    /// When its end was decided, and the forward jumps of the wall clock until then.
    pub(super) ended_at: (u64, u64),
    /// When its end became durable.
    pub(super) told_at: u64,
    /// The lease that held it when the process ended.
    pub(super) held_before: Option<Token>,
    pub(super) counts: Counts,
    /// Ways back to its lane that are not durable yet, in order.
    pub(super) backs: Vec<Back>,
    pub(super) place: Place,
    /// It travels alone from now on.
    pub(super) alone: bool,
    /// Every grant, in order.
    pub(super) grants: Vec<Granted>,
    /// The last boot in which it arrived.
    pub(super) arrived: u64,
}

/// A way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    pub(super) token: Token,
    pub(super) cause: Cause,
    pub(super) counts: Counts,
    pub(super) alone: bool,
    pub(super) fate: Fate,
}

/// A grant of a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) token: Token,
    /// A worker was given it.
    pub(super) handed: bool,
}

impl Job {
    /// Of an id that was forgotten and came again the first life may be known once more: the second was not written, and
    /// the clock went back.
    pub(super) fn may_be_its_first_life(&self, power: bool) -> bool {
        self.end.is_none() && !self.submit.must_be(power)
    }

    pub(super) fn crashed(&mut self) {
        self.submit = self.submit.crashed();
        if let Some((_, fate)) = &mut self.end {
            *fate = fate.crashed();
        }
        for back in &mut self.backs {
            back.fate = back.fate.crashed();
        }
        if let Place::Held(token) = self.place {
            self.held_before = Some(token);
        } else if self.place == Place::Free {
            self.held_before = None;
        }
        self.place = Place::Unseen;
    }

    /// Its end is durable, or it is not known to be durable itself.
    pub(super) fn is_settled(&self) -> bool {
        let durable = self.acked.is_some() || self.submit == Fate::Durable;
        !durable || matches!(self.end, Some((_, Fate::Durable)))
    }

    pub(super) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// The counts from which the next change may start.
    pub(super) fn bases(&self) -> impl Iterator<Item = Counts> {
        std::iter::once(self.counts).chain(self.backs.iter().map(|back| back.counts))
    }
}

impl Checker {
    /// A job came from the bus.
    pub(super) fn arrived(&mut self, now: u64, id: JobId, counts: Counts, fresh: bool, due: bool) -> Verdict {
        let (boot, power) = (self.boot, self.power);
        let Some(job) = self.jobs.get_mut(&id) else {
            return broken("phantom", || {
                format!("{id} arrived, and nobody's submit made it, or it was gone before")
            });
        };
        if job.arrived == boot && job.place != Place::Unseen {
            return broken("twice", || format!("{id} arrived twice in one boot"));
        }
        if fresh && job.submit != Fate::Durable {
            return broken("early", || format!("{id} is visible before it is durable"));
        }
        if let Some((ended, fate)) = &job.end
            && !fresh
        {
            if fate.must_be(power) {
                return broken("lost", || format!("{id} arrived again after its end: {ended:?}"));
            }
            job.end = None;
        }
        if !fresh {
            job.submit = Fate::Durable;
            // Of the ways back that were under way, a first part is there.
            let surely = job.backs.iter().rposition(|back| back.fate.must_be(power));
            let possible: Vec<Counts> = match surely {
                Some(at) => job.backs[at..].iter().map(|back| back.counts).collect(),
                None => job.bases().collect(),
            };
            if !possible.contains(&counts) {
                return broken("counts", || {
                    format!("{id} came back with {counts:?}, not one of {possible:?}")
                });
            }
            job.counts = counts;
            // Whether it must travel alone is not told; it only matters where nothing was in flight.
            job.alone |= job.backs.iter().any(|back| back.alone && back.counts == counts);
            if !job.backs.is_empty() {
                job.held_before = None;
            }
            job.backs.clear();
        }
        job.arrived = boot;
        job.place = Place::Free;
        if fresh && !due {
            let (processor, priority) = (job.processor.clone(), job.priority);
            self.lanes.arrived(&processor, priority, id, now);
        }
        Ok(())
    }

    pub(super) fn outcome_reported(&self, id: JobId) -> Verdict {
        match self.jobs.get(&id).map(|job| &job.end) {
            Some(Some((_, Fate::Durable))) => Ok(()),
            other => broken("early", || format!("an outcome of {id} is reported: {other:?}")),
        }
    }

    /// Whether the bus must still know this job's result at this time.
    pub(super) fn must_know(&self, job: &Job, now: u64) -> bool {
        if !matches!(job.end, Some((_, Fate::Durable))) {
            return true;
        }
        if self.ever_full {
            return false;
        }
        let (at, jumped) = job.ended_at;
        let age = now
            .saturating_sub(at)
            .saturating_add(self.jumped.saturating_sub(jumped));
        let ttl = self.plan.limits.result_ttl;
        // A restart counts whole milliseconds.
        u128::from(age) + 1_000_000 < ttl.as_micros()
    }
}

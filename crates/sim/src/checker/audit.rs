//! After a restart: what was promised is there, what was not may be, and nothing is there twice.

use jitney::bus::{Bus, Known};
use jitney::job::{End, JobId};
use joblog::record::Outcome;

use super::jobs::{Fate, Job, Place};
use super::leases::Lease;
use super::{Checker, Verdict, broken};
use crate::tape::Ended;

impl Checker {
    /// `Ready` came: each job that a crash left in doubt is there or not, from now on.
    pub(super) fn settle_maybes(&mut self, now: u64, bus: &dyn Bus) -> Verdict {
        let (boot, power, forgets) = (self.boot, self.power, !self.is_remembered());
        let mut gone = Vec::new();
        for (id, job) in &mut self.jobs {
            let found = bus.find(*id);
            if job.arrived == boot {
                if !matches!(found, Some(Known::Unsettled { .. })) {
                    return broken("lost", || format!("{id} arrived, and is {found:?}"));
                }
                if let Some(token) = job.held_before.take()
                    && job.place != Place::Held(token)
                    && job.backs.is_empty()
                    && !power
                    && self.leases.get(&token).is_some_and(Lease::must_be_restored)
                {
                    return broken("lease", || {
                        format!("{id} was held by {token}, delivered, and is not after the restart")
                    });
                }
                continue;
            }
            match found {
                Some(Known::Finished { .. }) if forgets && job.may_be_its_first_life(power) => continue,
                Some(Known::Finished { end, reason, .. }) => {
                    let Some((ended, fate)) = &mut job.end else {
                        return broken("phantom", || format!("{id} is finished, and nobody ended it"));
                    };
                    if (ended.end, ended.reason) != (end, reason) {
                        return broken("two ends", || {
                            format!("{id} is {end:?} {reason:?}, not {ended:?}")
                        });
                    }
                    if *fate != Fate::Durable {
                        job.told_at = now;
                    }
                    *fate = Fate::Durable;
                    job.submit = Fate::Durable;
                    job.backs.clear();
                }
                None => gone.push(*id),
                Some(known) => {
                    return broken("lost", || {
                        format!("{id} is {known:?}, and did not arrive: {job:?}")
                    });
                }
            }
        }
        for id in gone {
            let Some(job) = self.jobs.get(&id) else { continue };
            let ended = matches!(&job.end, Some((_, fate)) if *fate == Fate::Durable || fate.must_be(power));
            let forgotten = ended && !self.must_know(job, now);
            let left = matches!(job.end, Some((_, Fate::Left { .. }))) && !self.is_remembered();
            if (job.acked.is_some() || job.submit.must_be(power)) && !forgotten && !left {
                return broken("lost", || {
                    format!("{id} was accepted, and is gone after the restart: {job:?}")
                });
            }
            if !forgotten {
                self.jobs.remove(&id);
            }
        }
        for lease in self
            .leases
            .values_mut()
            .filter(|lease| lease.boot != boot && lease.sure)
        {
            lease.durable = true;
        }
        self.results_are_there(now, bus)
    }

    /// Results and keys stay to the end in this seed.
    pub(crate) const fn is_remembered(&self) -> bool {
        self.plan.limits.result_ttl.as_secs() > 3_600
    }

    /// The end of a run: everything that was accepted has ended, and its result can be read.
    pub(crate) fn audit(&self, now: u64, bus: &dyn Bus) -> Verdict {
        if let Some((id, job)) = self.jobs.iter().find(|(_, job)| !job.is_settled()) {
            return broken("lost", || format!("{id} had ended, and is open again: {job:?}"));
        }
        self.results_are_there(now, bus)
    }

    fn results_are_there(&self, now: u64, bus: &dyn Bus) -> Verdict {
        for (id, job) in &self.jobs {
            if let Some((ended, Fate::Durable)) = &job.end
                && self.must_know(job, now)
            {
                same_result(*id, job, ended, bus)?;
            }
        }
        Ok(())
    }
}

fn same_result(id: JobId, job: &Job, ended: &Ended, bus: &dyn Bus) -> Verdict {
    let stored = match bus.read(id) {
        Ok(Some(stored)) => stored,
        other => {
            return broken("lost", || {
                format!("{id} has ended, and cannot be read: {other:?}")
            });
        }
    };
    let Some(outcome) = stored
        .outcome
        .as_deref()
        .and_then(|bytes| Outcome::decode(bytes).ok())
    else {
        return broken("lost", || {
            format!("{id} has ended, and its outcome is not there: {job:?}")
        });
    };
    let same = outcome.end == ended.end
        && outcome.reason == ended.reason
        && outcome.token == ended.token
        && (outcome.end != End::Ok || *outcome.result == *ended.result)
        && (outcome.attempts, outcome.crashes) == (ended.attempts, ended.crashes);
    if same {
        Ok(())
    } else {
        broken("two ends", || {
            format!("{id} ended as {ended:?}, and reads as {outcome:?}")
        })
    }
}

//! Judging what is told of many jobs at once: an entry for each order, in their order, each judged as if it had been
//! asked for alone; and all of them at the right moment.

use std::rc::Rc;

use jitney::driver::port::Taken;
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, JobView, Status};

use super::calls::Call;
use super::jobs::Fate;
use super::leases::micros;
use super::{Checker, Verdict, broken};
use crate::orders::Order;

impl Checker {
    pub(super) fn submitted_many(
        &mut self,
        now: u64,
        taken: u64,
        call: &Call,
        orders: &[Rc<Order>],
        entries: &[Result<Taken, Refusal>],
    ) -> Verdict {
        if entries.len() != orders.len() {
            return broken("misdelivered", || {
                format!("{} jobs, {} entries", orders.len(), entries.len())
            });
        }
        let mut forgotten = false;
        for (order, entry) in orders.iter().zip(entries) {
            match entry {
                Ok(entry) if self.is_another_by_now(taken, entry.id) => forgotten = true,
                Ok(entry) => {
                    self.submitted(now, taken, order, (entry.id, entry.replayed))?;
                    self.told_briefly(now, taken, call, entry)?;
                }
                Err(refusal) => self.submit_refused(order, refusal)?,
            }
        }
        if forgotten {
            return Ok(());
        }
        self.told_in_time(now, taken, call, entries)
    }

    /// While a call waited for its last job, this one ended, was forgotten, and was submitted anew by somebody else.
    fn is_another_by_now(&self, taken: u64, id: JobId) -> bool {
        !self.is_remembered() && self.jobs.get(&id).is_some_and(|job| job.appended_at > taken)
    }

    /// What an entry says of its job's end.
    fn told_briefly(&self, now: u64, taken: u64, call: &Call, entry: &Taken) -> Verdict {
        let Some(job) = self.jobs.get(&entry.id) else {
            return Ok(());
        };
        let ended = match &job.end {
            Some((ended, Fate::Durable)) => Some(ended),
            _ => None,
        };
        if entry.status != Status::Submitted {
            return match ended {
                None => broken("durable", || {
                    format!("an end of {} is told that is not durable: {entry:?}", entry.id)
                }),
                Some(ended) if Status::from(ended.end) != entry.status => {
                    broken("two ends", || format!("{entry:?} is told, {ended:?} is durable"))
                }
                Some(_) => Ok(()),
            };
        }
        if self.draining || call.gone {
            return Ok(());
        }
        let wait = call.asked.wait().map(micros);
        if wait.is_some_and(|wait| now < taken + wait) {
            return broken("too soon", || {
                format!(
                    "{} is told unfinished at {now}: {}, taken {taken}",
                    entry.id, call.asked
                )
            });
        }
        // Who waits for none of them is told how it was when the call was taken.
        let known = if wait.is_some() { now } else { taken };
        if ended.is_some() && job.told_at < known {
            return broken("late", || {
                format!("{} is told unfinished, and has ended", entry.id)
            });
        }
        Ok(())
    }

    /// Who waits hears of them when the last has ended.
    fn told_in_time(&self, now: u64, taken: u64, call: &Call, entries: &[Result<Taken, Refusal>]) -> Verdict {
        let ended = |entry: &Result<Taken, Refusal>| {
            let entry = entry.as_ref().ok()?;
            let job = self.jobs.get(&entry.id)?;
            (entry.status != Status::Submitted).then_some(job.told_at)
        };
        let last = entries
            .iter()
            .map(ended)
            .collect::<Option<Vec<u64>>>()
            .and_then(|ends| ends.into_iter().max());
        match last {
            Some(last) if call.asked.wait().is_some() && last.max(taken) < now => broken("late", || {
                format!("the last of {} ended at {last}, and is told at {now}", call.asked)
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn shown_many(
        &self,
        now: u64,
        taken: u64,
        call: &Call,
        ids: &[JobId],
        views: &[Result<JobView, Refusal>],
    ) -> Verdict {
        // As many as one answer takes: here always all.
        if views.len() != ids.len() {
            return broken("misdelivered", || {
                format!("{} jobs are asked for, {} shown", ids.len(), views.len())
            });
        }
        for (id, view) in ids.iter().zip(views) {
            match view {
                Ok(view) if view.id != *id => {
                    return broken("misdelivered", || format!("{} instead of {id}", view.id));
                }
                Ok(view) => self.told(now, taken, call, view)?,
                Err(Refusal::UnknownJob) => self.unknown(now, *id)?,
                Err(refusal) => {
                    return broken("refusal", || format!("{id} is not shown: {refusal:?}"));
                }
            }
        }
        Ok(())
    }
}

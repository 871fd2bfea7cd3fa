//! The shadow of a lease: whose it is, what it holds, until when, and what was said under its token.

use std::time::Duration;

use jitney::driver::port::{Batch, Lease as Poll, SettleBody};
use jitney::job::{JobId, Token};

use super::jobs::Place;
use super::{Checker, Verdict, broken};
use crate::tape::Restored;

/// A delivered mark is written so soon after the notice, stalls of the disk included; a kill takes nothing
/// that was written.
const MARK_SLACK: u64 = 15_000_000;

/// A lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) boot: u64,
    pub(super) worker: String,
    pub(super) request_id: Option<String>,
    pub(super) in_process: bool,
    /// Its jobs as they were dispatched; more never join.
    pub(super) jobs: Vec<JobId>,
    /// Its dispatch record is written.
    pub(super) written: bool,
    /// Its dispatch record survives everything.
    pub(super) durable: bool,
    /// Its dispatch record survived every crash so far.
    pub(super) sure: bool,
    pub(super) handed: bool,
    /// A dispatch record of it is on its way to the disk.
    pub(super) writing: bool,
    /// Its batch is out: it was handed over since it was last dispatched.
    pub(super) out: bool,
    /// When its batch has been out too long, heartbeats or not.
    pub(super) limit: u64,
    /// The end of its term, as far as it was told.
    pub(super) ends: Option<u64>,
    pub(super) undelivered: bool,
    /// How often it was dispatched: a mark belongs to one of these times.
    pub(super) dispatches: u32,
    /// The delivered mark of its last dispatch, or none: whether that is written.
    pub(super) mark: Option<bool>,
    /// When the server heard that it was delivered.
    pub(super) notified: Option<u64>,
    /// The server heard so long before it was killed that the mark must be there.
    pub(super) must_be_marked: bool,
    /// What was said under it in this boot, in order.
    pub(super) said: Vec<SettleBody>,
    /// The size of the batch is not known any more to the server: it restarted.
    pub(super) restarted: bool,
}

impl Lease {
    pub(super) fn crashed(&mut self, now: u64, power: bool, disk_full: bool) {
        self.sure &= self.durable || (self.written && !power);
        self.said.clear();
        self.restarted = true;
        self.ends = None;
        self.mark = self.mark.filter(|written| *written && !power);
        let long_ago = self
            .notified
            .take()
            .is_some_and(|notified| notified + MARK_SLACK < now);
        self.must_be_marked = (self.must_be_marked || (long_ago && !disk_full)) && !power;
    }

    /// It goes out again: who knows whether its worker has it now.
    pub(super) fn dispatched_again(&mut self) {
        self.dispatches += 1;
        (self.mark, self.notified, self.must_be_marked) = (None, None, false);
    }

    /// Its worker surely has it, and the server knew.
    pub(super) fn must_be_restored(&self) -> bool {
        self.sure && !self.undelivered && (self.mark == Some(true) || self.must_be_marked)
    }
}

impl Checker {
    /// A batch was given to a worker.
    pub(super) fn handed(&mut self, now: u64, poll: &Poll, batch: &Batch) -> Verdict {
        let token = batch.token;
        let Some(lease) = self.leases.get_mut(&token) else {
            return broken("durable", || {
                format!("{token} is handed out without a dispatch record")
            });
        };
        if !lease.written {
            return broken("durable", || {
                format!("{token} is handed out before its dispatch is written")
            });
        }
        if lease.worker != *poll.worker {
            return broken("token", || {
                format!("{token} of `{}` is handed to `{}`", lease.worker, poll.worker)
            });
        }
        if lease.handed && lease.request_id.as_deref() != poll.request_id.as_deref() {
            return broken("token", || {
                format!("{token} is handed out twice, to different polls")
            });
        }
        (lease.handed, lease.out) = (true, true);
        lease.undelivered = false;
        lease.ends = Some(now + micros(batch.expires_in));
        for job in &batch.jobs {
            if !lease.jobs.contains(&job.id) {
                return broken("lease", || {
                    format!("{} is handed out in {token}, not dispatched in it", job.id)
                });
            }
        }
        let repeated = lease.restarted || lease.boot != self.boot;
        for job in &batch.jobs {
            if let Some(shadow) = self.jobs.get_mut(&job.id) {
                for grant in shadow.grants.iter_mut().filter(|grant| grant.token == token) {
                    grant.handed = true;
                }
                if let Some(last) = shadow.grants.last()
                    && last.token != token
                    && !repeated
                {
                    return broken("lease", || {
                        format!("{} is handed out in {token}, after {}", job.id, last.token)
                    });
                }
            }
        }
        self.batch_fits(poll, batch)
    }

    /// What is true of every batch (docs/state_machine.md).
    fn batch_fits(&self, poll: &Poll, batch: &Batch) -> Verdict {
        let jobs = || batch.jobs.iter().filter_map(|job| self.jobs.get(&job.id));
        if batch.jobs.is_empty() {
            return broken("batch", || format!("{} is empty", batch.token));
        }
        if !poll.priorities[batch.priority.index()] {
            return broken("batch", || {
                format!("{} is of a lane that its poll does not take", batch.token)
            });
        }
        if jobs().any(|job| job.processor != poll.processor || job.priority != batch.priority) {
            return broken("batch", || format!("{} mixes lanes", batch.token));
        }
        let apart = |job: &super::jobs::Job| {
            self.book
                .stands_apart(&job.processor, &job.group)
                .then(|| job.group.clone())
        };
        // One of an earlier boot was formed under the policies of then.
        let of_this_boot = self
            .identity
            .is_some_and(|identity| identity.epoch == batch.token.epoch);
        if let Some(first) = jobs().next()
            && of_this_boot
            && self.lanes.steady()
            && jobs().any(|job| apart(job) != apart(first))
        {
            return broken("batch", || {
                format!("{} mixes a group that stands apart with others", batch.token)
            });
        }
        let count = batch.jobs.len();
        let over = poll
            .max_jobs
            .is_some_and(|max| count > usize::try_from(max).unwrap_or(usize::MAX));
        if over || (batch.priority == jitney::job::Priority::Realtime && count > 1) {
            return broken("batch", || {
                format!("{} has {count} jobs of {}", batch.token, batch.priority)
            });
        }
        Ok(())
    }

    pub(super) fn delivered(&mut self, now: u64, tokens: &[Token]) {
        for token in tokens {
            if let Some(lease) = self.leases.get_mut(token) {
                lease.notified.get_or_insert(now);
            }
        }
    }

    pub(super) fn undelivered(&mut self, tokens: &[Token]) {
        for token in tokens {
            if let Some(lease) = self.leases.get_mut(token) {
                lease.undelivered = true;
            }
        }
    }

    /// A lease was alive before the restart.
    pub(super) fn restored(&mut self, now: u64, restored: &Restored) -> Verdict {
        let Restored {
            token,
            in_process,
            delivered,
            term,
            ..
        } = *restored;
        let holds = delivered || in_process;
        let power = self.power;
        let Some(lease) = self.leases.get_mut(&token) else {
            return broken("token", || format!("{token} is restored, and was never granted"));
        };
        (lease.sure, lease.durable, lease.written) = (true, true, true);
        (lease.writing, lease.out) = (false, true);
        lease.ends = Some(now + micros(term));
        let marked = lease.mark == Some(true) || lease.must_be_marked;
        if marked && !power && !delivered {
            return broken("lease", || {
                format!("the delivered mark of {token} was written, and is gone")
            });
        }
        for id in &restored.jobs {
            if !lease.jobs.contains(id) {
                return broken("lease", || {
                    format!("{token} is restored with {id}, which it never had")
                });
            }
            let Some(job) = self.jobs.get_mut(id) else {
                continue;
            };
            if job.place == Place::Unseen {
                return broken("lease", || {
                    format!("{token} is restored before its job {id} arrived")
                });
            }
            if holds {
                job.place = Place::Held(token);
            }
        }
        Ok(())
    }

    /// Whether a job may be granted to another lease than the one that has it.
    pub(super) fn is_free(&self, place: Place) -> bool {
        match place {
            Place::Free => true,
            Place::Unseen => false,
            Place::Held(token) => {
                // The batch of a poll that is gone is not handed out: its jobs are back at once.
                let lease = self.leases.get(&token);
                lease.is_none_or(|lease| lease.undelivered || (!lease.writing && !lease.out))
            }
        }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

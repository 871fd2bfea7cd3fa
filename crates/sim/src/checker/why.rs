//! Why a job changes: each outcome and each return must follow from what a worker said of that very job
//! under that very token, or from a term that ran out.

use jitney::driver::port::{JobOutcome, Said, SettleBody};
use jitney::job::{Cause, End, JobId, Priority, Reason, Token};

use super::jobs::{Back, Job};
use super::leases::Lease;
use super::{Checker, Verdict, broken};
use crate::tape::Ended;

/// What one settle says of a job.
#[derive(Debug)]
enum Word<'a> {
    Named(&'a JobOutcome, bool),
    /// Not named in a final settle.
    Missing,
    Failed {
        crashed: bool,
        code: &'a str,
    },
    Nothing,
}

impl Lease {
    fn words(&self, id: JobId) -> impl Iterator<Item = Word<'_>> {
        self.said.iter().map(move |body| match body {
            SettleBody::Failed { error, crashed } => Word::Failed {
                crashed: *crashed,
                code: &error.code,
            },
            // Of two outcomes for one job the first counts.
            SettleBody::Outcomes { outcomes, last } => match outcomes.iter().find(|outcome| outcome.id == id)
            {
                Some(outcome) => Word::Named(outcome, *last),
                None if *last => Word::Missing,
                None => Word::Nothing,
            },
        })
    }
}

impl Checker {
    pub(super) fn why_ended(&self, now: u64, job: &Job, lease: &Lease, ended: &Ended) -> Verdict {
        let id = ended.id;
        let policy = self.book.resolve(&job.processor, &job.group, job.priority);
        let why = match (ended.end, ended.reason) {
            (End::Ok, None) => lease.words(id).any(|word| match word {
                Word::Named(
                    JobOutcome {
                        said: Ok(Said::Ok { result, children }),
                        ..
                    },
                    _,
                ) => result.bytes == ended.result && u32::try_from(children.len()) == Ok(ended.children),
                _ => false,
            }),
            (End::Error, None) => lease.words(id).any(|word| match word {
                Word::Named(
                    JobOutcome {
                        said: Ok(Said::Error { error, retryable, .. }),
                        ..
                    },
                    _,
                ) => !retryable && Some(&error.code) == ended.code.as_ref(),
                _ => false,
            }),
            (End::Error, Some(Reason::Exhausted)) => {
                if ended.attempts < policy.max_attempts {
                    return broken("counts", || format!("{id} is exhausted at once: {ended:?}"));
                }
                lease
                    .words(id)
                    .any(|word| self.failed_try(&word, ended.code.as_deref()))
            }
            (End::Failed, Some(Reason::Dead)) => {
                if ended.crashes < policy.max_crashes {
                    return broken("counts", || format!("{id} is dead too soon: {ended:?}"));
                }
                let alone = job.alone
                    || lease.restarted
                    || lease.jobs.len() == 1
                    || job.priority == Priority::Realtime;
                alone && self.vanished(now, lease, id)
            }
            _ => false,
        };
        if why {
            Ok(())
        } else {
            broken("why", || {
                format!("nothing explains {ended:?}; said {:?}", lease.said)
            })
        }
    }

    pub(super) fn why_returned(&self, now: u64, id: JobId, job: &Job, lease: &Lease, back: &Back) -> Verdict {
        let policy = self.book.resolve(&job.processor, &job.group, job.priority);
        let words = || lease.words(id);
        let why = match back.cause {
            Cause::Released => words().any(|word| {
                matches!(
                    word,
                    Word::Named(
                        JobOutcome {
                            said: Ok(Said::Release),
                            ..
                        },
                        _
                    )
                )
            }),
            Cause::Error => words().any(|word| match word {
                Word::Named(
                    JobOutcome {
                        said: Ok(Said::Error { retryable, .. }),
                        ..
                    },
                    _,
                ) => *retryable,
                _ => self.refused_try(&word),
            }),
            Cause::MissingOutcome => {
                words().any(|word| matches!(word, Word::Missing) || self.refused_try(&word))
            }
            Cause::BatchFailed => words().any(|word| matches!(word, Word::Failed { crashed: false, .. })),
            Cause::Crashed | Cause::Expired => self.vanished(now, lease, id),
            Cause::Undelivered => lease.undelivered,
        };
        if !why {
            return broken("why", || {
                format!("nothing explains {id} {back:?} at {now}; lease {lease:?}")
            });
        }
        let given_up = matches!(back.cause, Cause::Error | Cause::MissingOutcome)
            && back.counts.0 >= policy.max_attempts;
        if given_up {
            return broken("counts", || {
                format!(
                    "{id} goes on after {:?} of {} attempts",
                    back.counts, policy.max_attempts
                )
            });
        }
        Ok(())
    }

    /// The lease may have ended without an outcome for the job that could be taken.
    pub(super) fn had_no_outcome(&self, token: Token, job: &Job, id: JobId) -> bool {
        let said = self.leases.get(&token).is_some_and(|lease| {
            let mut words = lease.words(id);
            words.any(|word| matches!(word, Word::Missing) || self.refused_try(&word))
        });
        // What was said before a restart is not known any more; that this was the last try is.
        said || matches!(&job.end, Some((ended, _)) if ended.reason == Some(Reason::Exhausted))
    }

    /// A try that failed and may be made again.
    fn failed_try(&self, word: &Word<'_>, code: Option<&str>) -> bool {
        match word {
            Word::Named(
                JobOutcome {
                    said: Ok(Said::Error { error, retryable, .. }),
                    ..
                },
                _,
            ) => *retryable && Some(error.code.as_str()) == code,
            Word::Missing => code == Some("missing_outcome"),
            Word::Failed {
                crashed: false,
                code: said,
            } => code == Some(said),
            _ => self.refused_try(word),
        }
    }

    /// An outcome whose children had no room counts as a failed try, if it was the last word.
    fn refused_try(&self, word: &Word<'_>) -> bool {
        let small = self.plan.limits.jobs_max < 1_000;
        matches!(word, Word::Named(JobOutcome { said: Ok(Said::Ok { children, .. }), .. }, true) if small && !children.is_empty())
    }

    /// The worker said that it crashed, its term ran out, or it lived in a process that ended.
    fn vanished(&self, now: u64, lease: &Lease, id: JobId) -> bool {
        let said = lease
            .words(id)
            .any(|word| matches!(word, Word::Failed { crashed: true, .. }));
        // No heartbeat reaches beyond `batch_timeout`, counted from the grant, which a slow disk may have delayed.
        let over = lease.ends.is_some_and(|ends| ends <= now) || lease.limit <= now;
        let in_process = lease.in_process && lease.boot != self.boot;
        said || over || in_process
    }
}

//! The naive model's settles, and what becomes of its decisions.

use super::*;

impl Model {
    pub(super) fn settle(&mut self, settle: &Settle) {
        let token = settle.token;
        if !self.made_here(token) {
            self.actions.push(Action::UnknownLease(settle.request));
            return;
        }
        self.heard(token);
        let mut jobs = Vec::new();
        for (at, &(id, report)) in settle.outcomes.iter().enumerate() {
            let again = settle.outcomes[..at].iter().any(|&(other, _)| other == id);
            jobs.push(match self.standing(id, report, token) {
                _ if again => said(id, Verdict::Duplicate),
                Err(verdict) => said(id, verdict),
                Ok(()) => self.apply(id, report, settle.last),
            });
        }
        if settle.failed || settle.last {
            for id in self.leased(token) {
                let change = match (settle.failed, settle.crashed) {
                    (true, true) => self.crash(id, Cause::Crashed),
                    (true, false) if !self.single(id) => self.back(id, Cause::BatchFailed, true),
                    (true, false) => self.fail(id, Cause::BatchFailed, None),
                    (false, _) => self.fail(id, Cause::MissingOutcome, None),
                };
                jobs.push(self.decide(id, None, change, true));
            }
        }
        let worker = self
            .lease(token)
            .map_or_else(|| Arc::from(""), |lease| lease.worker.clone());
        self.actions.push(Action::Decide(Decisions {
            request: Some(settle.request),
            token,
            worker,
            jobs,
        }));
    }

    pub(super) fn standing(&self, id: JobId, report: Report, token: Token) -> Result<(), Verdict> {
        let job = self.find(id).ok_or(Verdict::Ended)?;
        if job.last != Some(token) {
            let was_held = match self.lease(token) {
                Some(lease) => lease.members.contains(&id),
                None => job.last > Some(token),
            };
            return Err(if was_held { Verdict::Late } else { Verdict::Unknown });
        }
        match job.place {
            _ if job.spent => Err(again(job.missed, report)),
            MPlace::Committing(MCommit {
                by_settle: true,
                change,
                ..
            }) => Err(again(missed(&change), report)),
            MPlace::Committing(MCommit {
                change: Change::Finish(_),
                ..
            }) => Err(Verdict::Late),
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&mut self, id: JobId, report: Report, last: bool) -> Decision {
        let job = self.find(id).unwrap().clone();
        let (attempts, crashes, _) = counts(&job);
        let end = |end| {
            Change::Finish(Finish {
                end,
                reason: None,
                cause: None,
                attempts: attempts + 1,
                crashes,
                started: job.started,
                keep: self.policy(&job).result_ttl,
            })
        };
        let (verdict, change) = match report {
            Report::Ok => (Verdict::Applied, end(End::Ok)),
            Report::Error { retryable: false, .. } => (Verdict::Applied, end(End::Error)),
            Report::Error { retry_after, .. } => (Verdict::Applied, self.fail(id, Cause::Error, retry_after)),
            Report::Release if job.place == MPlace::Leased => {
                (Verdict::Released, self.back(id, Cause::Released, job.alone))
            }
            Report::Release => return said(id, Verdict::Released),
            Report::Refused if last => (Verdict::Refused, self.fail(id, Cause::MissingOutcome, None)),
            Report::Refused => return said(id, Verdict::Refused),
        };
        self.decide(id, Some(verdict), change, true)
    }

    pub(super) fn single(&self, id: JobId) -> bool {
        let job = self.find(id).unwrap();
        let (_, _, alone) = counts(job);
        let lease = job.last.and_then(|token| self.lease(token));
        lease.map_or(alone || job.priority == Priority::Realtime, |lease| lease.single)
    }

    pub(super) fn fail(&self, id: JobId, cause: Cause, retry_after: Option<Duration>) -> Change {
        let job = self.find(id).unwrap();
        let policy = self.policy(job);
        let (attempts, crashes, alone) = counts(job);
        if attempts + 1 >= policy.max_attempts {
            return Change::Finish(Finish {
                end: End::Error,
                reason: Some(Reason::Exhausted),
                cause: (cause != Cause::Error).then_some(cause),
                attempts: attempts + 1,
                crashes,
                started: job.started,
                keep: policy.result_ttl,
            });
        }
        let wait = backoff(&policy, id, attempts + 1).max(retry_after.unwrap_or_default());
        Change::Requeue(Requeue {
            cause,
            due: Some(WallMs(self.now.wall.0.saturating_add(millis(wait)))),
            alone,
            attempts: attempts + 1,
            crashes,
        })
    }

    pub(super) fn crash(&self, id: JobId, cause: Cause) -> Change {
        let job = self.find(id).unwrap();
        let policy = self.policy(job);
        let (attempts, crashes, alone) = counts(job);
        if self.single(id) && crashes + 1 >= policy.max_crashes {
            return Change::Finish(Finish {
                end: End::Failed,
                reason: Some(Reason::Dead),
                cause: Some(cause),
                attempts,
                crashes: crashes + 1,
                started: job.started,
                keep: policy.result_ttl,
            });
        }
        Change::Requeue(Requeue {
            cause,
            due: None,
            alone: alone || crashes + 1 >= 2,
            attempts,
            crashes: crashes + 1,
        })
    }

    pub(super) fn back(&self, id: JobId, cause: Cause, alone: bool) -> Change {
        let (attempts, crashes, _) = counts(self.find(id).unwrap());
        Change::Requeue(Requeue {
            cause,
            due: None,
            alone,
            attempts,
            crashes,
        })
    }

    pub(super) fn decide(
        &mut self,
        id: JobId,
        verdict: Option<Verdict>,
        change: Change,
        by_settle: bool,
    ) -> Decision {
        let now = self.now;
        let job = self.job(id);
        let leased = Self::is_held(job);
        let overtaken = match job.place {
            MPlace::Committing(MCommit {
                change: Change::Requeue(requeue),
                ..
            }) => Some(requeue),
            _ => None,
        };
        let due = match change {
            Change::Requeue(Requeue { due: Some(due), .. }) => {
                Some(after(now.mono, ms(due.0.saturating_sub(now.wall.0))))
            }
            _ => None,
        };
        job.unit = None;
        job.place = MPlace::Committing(MCommit {
            change,
            by_settle,
            leased,
            overtaken,
            due,
        });
        Decision {
            job: id,
            verdict,
            change: Some(change),
        }
    }

    pub(super) fn committed(&mut self, ids: &[JobId]) {
        let mut together: BTreeMap<Option<Token>, Vec<JobId>> = BTreeMap::new();
        for &id in ids {
            let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else {
                continue;
            };
            let MPlace::Committing(commit) = &mut job.place else {
                continue;
            };
            if let Some(overtaken) = commit.overtaken.take() {
                commit.leased = false;
                (job.attempts, job.crashes, job.alone) =
                    (overtaken.attempts, overtaken.crashes, overtaken.alone);
                continue;
            }
            let (commit, last) = (*commit, job.last);
            if commit.by_settle
                && let Some(lease) = last.and_then(|token| self.lease_mut(token))
            {
                lease.settled.push(id);
            }
            match commit.change {
                Change::Finish(_) => self.jobs.retain(|job| job.id != id),
                Change::Requeue(back) => {
                    let job = self.job(id);
                    (job.attempts, job.crashes, job.alone) = (back.attempts, back.crashes, back.alone);
                    job.spent = commit.by_settle;
                    job.missed = missed(&commit.change);
                    job.clock = commit.due.unwrap_or(job.clock);
                    if matches!(back.cause, Cause::Expired | Cause::Crashed) && !back.alone {
                        together.entry(last).or_default().push(id);
                    } else {
                        self.enqueue(vec![id], false);
                    }
                }
            }
        }
        for unit in together.into_values() {
            self.enqueue(unit, true);
        }
    }

    pub(super) fn commit_failed(&mut self, ids: &[JobId]) {
        for &id in ids {
            let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else {
                continue;
            };
            let MPlace::Committing(commit) = &mut job.place else {
                continue;
            };
            if commit.overtaken.take().is_some() {
                continue;
            }
            if !commit.leased {
                self.enqueue(vec![id], false);
                continue;
            }
            job.place = MPlace::Leased;
            let (last, now) = (job.last.unwrap(), self.now.mono);
            let lease = self.lease_mut(last).unwrap();
            lease.limit = lease.limit.max(after(now, lease.term));
            if !lease.granting {
                self.refresh(last);
            }
        }
    }

    pub(super) fn policies(&mut self, book: PolicyBook) {
        let before: Vec<_> = self
            .shares
            .keys()
            .map(|(name, lane)| self.above(name, *lane))
            .collect();
        self.book = book;
        for ((name, lane), before) in self
            .shares
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .into_iter()
            .zip(before)
        {
            if self.above(&name, lane) != before {
                let share = self.reset(&name, lane);
                self.shares.insert((name, lane), share);
            }
        }
        self.forget_keys();
        let mut units: BTreeMap<_, Vec<JobId>> = BTreeMap::new();
        for job in &self.jobs {
            if let Some(unit) = job.unit {
                units.entry((unit, self.queue(job))).or_default().push(job.id);
            }
        }
        for ids in units.into_values() {
            self.enqueue(ids, true);
        }
    }
}

/// Attempts, crashes, alone; a change that is being written is taken as done.
fn counts(job: &MJob) -> (u32, u32, bool) {
    match job.place {
        MPlace::Committing(MCommit {
            change: Change::Requeue(back),
            ..
        }) => (back.attempts, back.crashes, back.alone),
        _ => (job.attempts, job.crashes, job.alone),
    }
}

/// Whether the change of a settle that ended the lease had no outcome to go by.
fn missed(change: &Change) -> bool {
    matches!(change, Change::Requeue(back) if back.cause == Cause::MissingOutcome)
}

/// What a report is told after the token was spent.
fn again(missed: bool, report: Report) -> Verdict {
    match report {
        _ if !missed => Verdict::Duplicate,
        Report::Refused => Verdict::Refused,
        _ => Verdict::Late,
    }
}

fn said(job: JobId, verdict: Verdict) -> Decision {
    Decision {
        job,
        verdict: Some(verdict),
        change: None,
    }
}

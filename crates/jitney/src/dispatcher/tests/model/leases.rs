//! The naive model's leases.

use super::*;

impl Model {
    pub(super) fn refresh(&mut self, token: Token) -> Option<Duration> {
        let now = self.now.mono;
        let lease = self.lease_mut(token)?;
        let ends = after(now, lease.term).min(lease.limit);
        lease.ends = Some(ends);
        Some(between(now, ends))
    }

    pub(super) fn heard(&mut self, token: Token) {
        let held = !self.held(token).is_empty();
        if let Some(lease) = self.lease_mut(token).filter(|lease| held && !lease.granting) {
            lease.delivered = true;
        }
    }

    pub(super) fn grant_written(&mut self, token: Token) {
        if let Some(lease) = self.lease_mut(token).filter(|lease| lease.granting) {
            (lease.granting, lease.handed_out) = (false, true);
            self.refresh(token);
        }
    }

    pub(super) fn undelivered(&mut self, token: Token) {
        let Some(lease) = self.lease_mut(token) else {
            return;
        };
        lease.outgoing = lease.outgoing.saturating_sub(1);
        if lease.outgoing == 0 && !lease.delivered {
            self.give_back(token, false);
        }
    }

    pub(super) fn give_back(&mut self, token: Token, failed: bool) {
        let ids = self.leased(token);
        let Some(lease) = self.lease_mut(token) else {
            return;
        };
        let (together, uncount) = (lease.together, failed && !lease.handed_out);
        if !failed {
            lease.handed_out = true;
        }
        for &id in &ids {
            let job = self.job(id);
            if uncount {
                job.deliveries -= 1;
                job.started = job.started.filter(|_| job.deliveries > 0);
            }
        }
        self.enqueue(ids, together);
        if !self.held(token).is_empty() {
            let lease = self.lease_mut(token).unwrap();
            (lease.granting, lease.delivered, lease.handed_out) = (false, true, true);
            self.refresh(token);
        }
    }

    pub(super) fn grant_again(&mut self, token: Token) -> Option<Grant> {
        let mut ids = self.leased(token);
        let fresh = ids.is_empty();
        if fresh {
            ids = self.members(token, |job| job.place == MPlace::Ready && !job.spent);
            let lease = self.lease(token)?;
            let held_back = self.paused.contains(&(lease.processor.clone(), lease.priority));
            if ids.is_empty() || self.stalled || held_back {
                return None;
            }
            let ended = self.held(token).is_empty();
            self.take_back(&ids);
            let lease = self.lease_mut(token)?;
            lease.granting |= ended;
        } else {
            self.refresh(token);
        }
        let now = self.now.mono;
        let lease = self.lease_mut(token)?;
        lease.outgoing += 1;
        let term = lease.ends.map_or(lease.term, |ends| between(now, ends));
        let (priority, closed_by) = (lease.priority, lease.closed_by);
        Some(Grant {
            token,
            priority,
            term,
            jobs: ids.iter().map(|&id| self.granted(id)).collect(),
            fresh,
            closed_by,
        })
    }

    pub(super) fn take_back(&mut self, ids: &[JobId]) {
        for &id in ids {
            let job = self.job(id);
            (job.place, job.unit) = (MPlace::Leased, None);
        }
    }

    pub(super) fn extend(&mut self, request: RequestId, token: Token) {
        if !self.made_here(token) {
            self.actions.push(Action::UnknownLease(request));
            return;
        }
        self.heard(token);
        let mut answer = Extended {
            request,
            token,
            term: None,
            lost: Vec::new(),
            retaken: Vec::new(),
            worker: Arc::from(""),
            in_process: false,
            request_id: None,
        };
        if let Some(lease) = self.lease(token) {
            let lost = |id: &&JobId| {
                let mine = self.find(**id).is_some_and(|job| {
                    let leaving = matches!(job.place, MPlace::Committing(commit) if !commit.by_settle);
                    job.last == Some(token) && !leaving
                });
                !lease.settled.contains(id) && !mine
            };
            answer.lost = lease.members.iter().filter(lost).copied().collect();
            (answer.worker, answer.in_process) = (lease.worker.clone(), lease.in_process);
            answer.request_id = lease.request.clone();
            if lease.limit > self.now.mono {
                answer.retaken = self.members(token, |job| job.place == MPlace::Ready && !job.spent);
                let ended = self.held(token).is_empty();
                self.take_back(&answer.retaken);
                let stays = |job: &MJob| match job.place {
                    MPlace::Leased => true,
                    MPlace::Committing(commit) => commit.leased && commit.by_settle,
                    MPlace::Waiting | MPlace::Ready => false,
                };
                if !self.members(token, stays).is_empty() {
                    let lease = self.lease_mut(token).unwrap();
                    lease.delivered |= ended;
                    answer.term = Some(lease.term);
                    if !lease.granting {
                        answer.term = self.refresh(token);
                    }
                }
            }
        }
        self.actions.push(Action::Extended(answer));
    }

    pub(super) fn expire(&mut self) {
        if self.stalled {
            return;
        }
        let now = self.now.mono;
        let mut over: Vec<_> = self
            .leases
            .iter()
            .filter_map(|lease| Some((lease.ends?, lease.token)))
            .collect();
        over.retain(|&(ends, _)| ends <= now);
        over.sort();
        for (_, token) in over {
            self.lose(token, Cause::Expired);
        }
    }

    pub(super) fn lose(&mut self, token: Token, cause: Cause) {
        let lease = self.lease_mut(token).unwrap();
        lease.ends = None;
        let worker = lease.worker.clone();
        let ids = self.leased(token);
        let jobs: Vec<_> = ids
            .into_iter()
            .map(|id| self.decide(id, None, self.crash(id, cause), false))
            .collect();
        if !jobs.is_empty() {
            self.actions.push(Action::Decide(Decisions {
                request: None,
                token,
                worker,
                jobs,
            }));
        }
    }

    pub(super) fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
        let now = self.now.mono;
        for token in self.leases.iter().map(|lease| lease.token).collect::<Vec<_>>() {
            let held = !self.held(token).is_empty();
            let lease = self.lease_mut(token).unwrap();
            if !stalled && !lease.granting && held {
                let full = after(now, lease.term);
                lease.limit = lease.limit.max(full);
                lease.ends = lease.ends.max(Some(full));
            }
        }
    }

    pub(super) fn recovered(&mut self, recovered: RecoveredLease) {
        let token = recovered.token;
        let here = |id: &JobId| {
            let job = self.find(*id);
            job.is_some_and(|job| job.place == MPlace::Ready && job.last.is_none_or(|last| last <= token))
        };
        let members: Vec<_> = recovered.jobs.iter().copied().filter(here).collect();
        let Some(first) = members.first().and_then(|&id| self.find(id)).cloned() else {
            return;
        };
        let policy = self.policy(&first);
        for &id in &members {
            let job = self.job(id);
            (job.last, job.spent) = (Some(token), false);
            job.started = job.started.or(Some(recovered.granted));
        }
        let live = recovered.delivered || recovered.in_process;
        self.leases.push(MLease {
            token,
            processor: recovered.processor,
            priority: first.priority,
            worker: Arc::from(recovered.worker),
            in_process: recovered.in_process,
            request: recovered.request_id.map(Arc::from),
            closed_by: ClosedBy::Alone,
            together: false,
            single: members.len() == 1 && (first.alone || first.priority == Priority::Realtime),
            granting: false,
            delivered: live,
            outgoing: 0,
            handed_out: true,
            term: ms(recovered.term_ms).min(policy.batch_timeout),
            limit: after(self.now.mono, policy.batch_timeout),
            ends: None,
            members: members.clone(),
            settled: Vec::new(),
        });
        if live {
            self.take_back(&members);
            self.refresh(token);
        }
        if recovered.in_process {
            self.lose(token, Cause::Crashed);
        }
    }
}

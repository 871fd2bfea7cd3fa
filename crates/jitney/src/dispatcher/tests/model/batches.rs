//! The naive model's polls and batches.

use super::*;

impl Model {
    pub(super) fn poll(&mut self, mut poll: Poll) {
        // One that takes no batch has none to be given again.
        poll.request_id = poll.request_id.filter(|_| poll.not_ready.is_none());
        self.name(&poll.processor);
        let same = |other: &Poll| {
            let named = other.request_id.is_some() && other.request_id == poll.request_id;
            other.id == poll.id
                || named && (&other.worker, &other.processor) == (&poll.worker, &poll.processor)
        };
        self.end_polls(same);
        let ended = self.draining;
        self.polls.push(MPoll { poll, parked: true });
        if ended {
            self.end_polls(|_| true);
        }
        self.unpark();
    }

    pub(super) fn end_polls(&mut self, over: impl Fn(&Poll) -> bool) {
        for poll in self.polls.iter().filter(|poll| over(&poll.poll)) {
            self.actions.push(Action::Answer {
                poll: poll.poll.id,
                grants: Vec::new(),
            });
        }
        self.polls.retain(|poll| !over(&poll.poll));
    }

    /// Polls of which it is decided whether they repeat get their leases again, or stand in line.
    pub(super) fn unpark(&mut self) {
        let parked: Vec<Poll> = self
            .polls
            .iter()
            .filter(|poll| poll.parked && poll.poll.not_ready.is_none())
            .map(|poll| poll.poll.clone())
            .collect();
        for poll in parked {
            let mine = |lease: &&MLease| {
                lease.request.is_some()
                    && (&lease.request, &lease.worker, &lease.processor)
                        == (&poll.request_id, &poll.worker, &poll.processor)
            };
            let leases: Vec<_> = self.leases.iter().filter(mine).collect();
            if leases.iter().any(|lease| lease.granting) {
                continue;
            }
            let tokens: Vec<_> = leases.iter().map(|lease| lease.token).collect();
            let grants: Vec<_> = tokens
                .into_iter()
                .filter_map(|token| self.grant_again(token))
                .collect();
            if grants.is_empty() {
                let stands = self.polls.iter_mut().find(|other| other.poll.id == poll.id);
                stands.unwrap().parked = false;
            } else {
                self.polls.retain(|other| other.poll.id != poll.id);
                self.actions.push(Action::Answer {
                    poll: poll.id,
                    grants,
                });
            }
        }
    }

    pub(super) fn serve(&mut self, processor: &Processor) {
        while !self.stalled {
            let mut line = self
                .polls
                .iter()
                .filter(|poll| !poll.parked && poll.poll.processor == *processor);
            let Some(first) = line.find(|poll| matches!(self.offer(&poll.poll, 0), Offer::Batch(_))) else {
                break;
            };
            let poll = first.poll.clone();
            self.polls.retain(|other| other.poll.id != poll.id);
            let mut grants = Vec::new();
            while let slots @ 1.. = poll.slots - u32::try_from(grants.len()).unwrap()
                && let Offer::Batch(batch) = self.offer(&poll, slots)
            {
                grants.push(self.grant(&poll, batch));
                self.tidy();
            }
            self.actions.push(Action::Answer {
                poll: poll.id,
                grants,
            });
        }
    }

    /// `own`: free slots of the poll itself, if it does not stand in line any more.
    pub(super) fn offer(&self, poll: &Poll, own: u32) -> Offer {
        if self.keeps_slots(poll, own) {
            let realtime = Priority::Realtime;
            let waits = poll.priorities[0] && self.waits(&poll.processor, realtime);
            return if waits {
                self.offer_of(poll, realtime, false)
            } else {
                Offer::Later(None)
            };
        }
        let waits =
            |priority: Priority| poll.priorities[priority.index()] && self.waits(&poll.processor, priority);
        let owed = |priority: Priority| {
            let share = self.shares[&(poll.processor.clone(), priority)];
            let jumps = waits(priority)
                && Priority::ALL
                    .iter()
                    .any(|&above| above < priority && waits(above));
            share.owed.filter(|_| jumps).map(|since| (since, priority))
        };
        if let Some((_, priority)) = Priority::ALL.into_iter().filter_map(owed).min() {
            return self.offer_of(poll, priority, true);
        }
        let mut later = None;
        for priority in Priority::ALL.into_iter().filter(|&priority| waits(priority)) {
            match self.offer_of(poll, priority, false) {
                Offer::Later(at) => later = [later, at].into_iter().flatten().min(),
                batch @ Offer::Batch(_) => return batch,
            }
        }
        Offer::Later(later)
    }

    /// Whether what stays free or runs REALTIME is reserved for it.
    fn keeps_slots(&self, poll: &Poll, own: u32) -> bool {
        let policy = self.book.resolve_lane(&poll.processor, Priority::Realtime);
        let line = self.polls.iter().filter(|other| {
            !other.parked && other.poll.processor == poll.processor && other.poll.priorities[0]
        });
        let free: u32 = line.map(|other| other.poll.slots).sum();
        let running = self.jobs.iter().filter(|job| {
            job.processor == poll.processor && job.priority == Priority::Realtime && Self::is_held(job)
        });
        let used = free + own + u32::try_from(running.count()).unwrap();
        policy.realtime_reserve > 0 && poll.priorities[0] && used <= policy.realtime_reserve
    }

    pub(super) fn offer_of(&self, poll: &Poll, priority: Priority, on_share: bool) -> Offer {
        let ready = self.ready(&poll.processor, priority);
        let batch = |jobs: &[&MJob], reason: ClosedBy, unit: bool| {
            let (jobs, by_bytes) = self.prefix(poll, jobs, on_share);
            let closed_by = match reason {
                _ if on_share => ClosedBy::Share,
                ClosedBy::Full if by_bytes => ClosedBy::Bytes,
                other => other,
            };
            Offer::Batch(MBatch {
                priority,
                jobs,
                closed_by,
                unit,
                on_share,
            })
        };
        if let Some(first) = ready.iter().find(|job| job.unit.is_some()) {
            let unit: Vec<_> = ready
                .iter()
                .copied()
                .filter(|job| job.unit == first.unit)
                .collect();
            return batch(&unit, ClosedBy::Alone, true);
        }
        let mut queues: BTreeMap<_, Vec<&MJob>> = BTreeMap::new();
        for job in ready {
            queues.entry(self.queue(job)).or_default().push(job);
        }
        let mut queues: Vec<_> = queues.into_values().collect();
        queues.sort_by_key(|queue| queue[0].sequence);
        let mut later = None;
        for queue in queues {
            match self.closing(poll, &queue) {
                _ if on_share => return batch(&queue, ClosedBy::Share, false),
                Ok(reason) => return batch(&queue, reason, false),
                Err(at) => later = later.into_iter().chain([at]).min(),
            }
        }
        Offer::Later(later)
    }

    /// The table of docs/state_machine.md.
    pub(super) fn closing(&self, poll: &Poll, queue: &[&MJob]) -> Result<ClosedBy, Mono> {
        let first = queue[0];
        let policy = self.policy(first);
        let (most, bytes) = limits(&policy, poll);
        let same = |job: &&MJob| {
            (&job.processor, job.priority, self.queue(job))
                == (&first.processor, first.priority, self.queue(first))
        };
        let busy = self.jobs.iter().filter(same).any(Self::is_held);
        let owed = self.shares[&(first.processor.clone(), first.priority)]
            .owed
            .is_some();
        let due = after(queue.iter().map(|job| job.clock).min().unwrap(), policy.max_delay);
        let normal = first.priority == Priority::Normal;
        if first.priority == Priority::Realtime {
            Ok(ClosedBy::Alone)
        } else if queue.len() >= most {
            Ok(ClosedBy::Full)
        } else if queue.iter().map(|job| u64::from(job.bytes)).sum::<u64>() > bytes {
            Ok(ClosedBy::Bytes)
        } else if owed {
            Ok(ClosedBy::Share)
        } else if normal && policy.idle_flush && !busy {
            Ok(ClosedBy::Idle)
        } else if normal && queue.len() >= policy.min_jobs as usize {
            Ok(ClosedBy::Hint)
        } else if self.now.mono >= due || queue.iter().any(|job| job.prompt) {
            Ok(ClosedBy::Delay)
        } else {
            Err(due)
        }
    }

    pub(super) fn prefix(&self, poll: &Poll, jobs: &[&MJob], on_share: bool) -> (Vec<JobId>, bool) {
        let policy = self.policy(jobs[0]);
        let (mut most, bytes) = limits(&policy, poll);
        if on_share {
            most = most.min((policy.max_jobs as usize / 4).max(1));
        }
        let mut taken = vec![jobs[0].id];
        let mut sum = u64::from(jobs[0].bytes);
        for job in &jobs[1..] {
            if taken.len() == most {
                return (taken, sum > bytes);
            }
            if sum + u64::from(job.bytes) > bytes {
                return (taken, true);
            }
            sum += u64::from(job.bytes);
            taken.push(job.id);
        }
        (taken, sum > bytes)
    }

    pub(super) fn grant(&mut self, poll: &Poll, batch: MBatch) -> Grant {
        let token = Token {
            node: self.identity.node,
            epoch: self.identity.epoch,
            sequence: self.next,
        };
        self.next += 1;
        self.formed += 1;
        let policy = self.policy(self.find(batch.jobs[0]).unwrap());
        let wall = self.now.wall;
        for &id in &batch.jobs {
            let job = self.job(id);
            (job.place, job.unit, job.last, job.spent) = (MPlace::Leased, None, Some(token), false);
            job.deliveries += 1;
            job.started = job.started.or(Some(wall));
        }
        self.count_shares(poll, &batch);
        let term = policy.lease.min(policy.batch_timeout);
        self.leases.push(MLease {
            token,
            processor: poll.processor.clone(),
            priority: batch.priority,
            worker: poll.worker.clone(),
            in_process: poll.in_process,
            request: poll.request_id.clone(),
            closed_by: batch.closed_by,
            together: batch.unit,
            single: batch.jobs.len() == 1,
            granting: true,
            delivered: false,
            outgoing: 1,
            handed_out: false,
            term,
            limit: after(self.now.mono, policy.batch_timeout),
            ends: None,
            members: batch.jobs.clone(),
            settled: Vec::new(),
        });
        Grant {
            token,
            priority: batch.priority,
            term,
            jobs: batch.jobs.iter().map(|&id| self.granted(id)).collect(),
            fresh: true,
            closed_by: batch.closed_by,
        }
    }

    pub(super) fn granted(&self, id: JobId) -> GrantedJob {
        let job = self.find(id).unwrap();
        GrantedJob {
            id,
            attempt: job.attempts + 1,
            delivery: job.deliveries,
        }
    }

    pub(super) fn count_shares(&mut self, poll: &Poll, batch: &MBatch) {
        let jobs = batch.jobs.len() as u64;
        for priority in Priority::ALL {
            let above = self.above(&poll.processor, priority);
            let waits = self.waits(&poll.processor, priority);
            let share = self.shares.get_mut(&(poll.processor.clone(), priority)).unwrap();
            let Some(above) = above else { continue };
            if priority == batch.priority && batch.on_share {
                *share = MShare {
                    left: u64::from(above) * jobs,
                    owed: None,
                };
            } else if priority > batch.priority && waits && share.owed.is_none() {
                share.left = share.left.saturating_sub(jobs);
                share.owed = (share.left == 0).then_some(self.formed);
            }
        }
    }
}

fn limits(policy: &Policy, poll: &Poll) -> (usize, u64) {
    let jobs = policy.max_jobs.min(poll.max_jobs.unwrap_or(u32::MAX).max(1));
    (
        jobs as usize,
        policy.max_bytes.min(poll.max_bytes.unwrap_or(u64::MAX)),
    )
}

//! Simulated workers at work: polls, heartbeats, settles, and all that can go wrong with them.

use std::sync::Arc;
use std::time::Duration;

use jitney::driver::port::{
    Answer, BatchJob, CallId, JobOutcome, Lease, Leased, Said, Settle, SettleBody, SettleIs,
};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobError, JobId, Payload, Token};

use super::worker::{Held, Style, Task, Worker};
use super::{Happening, Owner, SECOND, World};
use crate::checker::Asked;
use crate::orders::{FLAKY, Order, REFUSED, Work, order_of, result_of};

impl World {
    /// Hires the workers; each processor gets one at least.
    pub(super) fn hire(&mut self) {
        let processors = self.plan.processors.clone();
        let count = usize::try_from(self.plan.workers)
            .unwrap_or(1)
            .max(processors.len());
        for (at, processor) in (0..count).zip(processors.iter().cycle()) {
            let per_job = self.rng.permille(300);
            let mut priorities = [true; 3];
            if at >= processors.len() && self.rng.permille(300) {
                priorities[self.rng.index(3)] = false;
            }
            self.workers.push(Worker {
                name: Arc::from(format!("w-{at}")),
                processor: processor.clone(),
                in_process: self.rng.permille(150),
                per_job,
                slots: u32::try_from(self.rng.range(1, 4)).unwrap_or(1),
                priorities,
                names_polls: self.rng.permille(600),
                life: 0,
                poll: None,
                repeat: None,
                batches: std::collections::BTreeMap::new(),
                settles: std::collections::BTreeMap::new(),
                baggage: Vec::new(),
                extends: std::collections::BTreeMap::new(),
            });
            let soon = self.rng.skewed(0, 10 * SECOND);
            self.after(soon, Happening::Worker(at, 0, Task::Poll));
        }
    }

    /// At the end every worker is there, and begins anew.
    pub(super) fn wake_workers(&mut self) {
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            worker.forget();
            worker.priorities = [true; 3];
            let life = worker.life;
            let soon = self.rng.skewed(0, SECOND);
            self.after(soon, Happening::Worker(at, life, Task::Poll));
        }
    }

    /// Workers inside the server's process end with it.
    pub(super) fn forget_in_process_workers(&mut self) {
        for at in 0..self.workers.len() {
            if self.workers[at].in_process {
                self.kill_worker(at);
            }
        }
    }

    fn kill_worker(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.forget();
        let life = worker.life;
        let later = self.rng.skewed(SECOND / 10, 20 * SECOND);
        self.after(later, Happening::Worker(at, life, Task::Revive));
    }

    pub(super) fn worker_acts(&mut self, at: usize, life: u64, task: Task) {
        if self.workers[at].life != life {
            return;
        }
        match task {
            Task::Poll | Task::Revive => self.poll(at),
            Task::Work(token) => self.work(at, token),
            Task::Beat(token) => self.beat(at, token),
        }
    }

    fn poll(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.poll.is_some() || worker.free_slots() == 0 {
            return;
        }
        let lease = if let Some(lease) = worker.repeat.take() {
            lease
        } else {
            let fewer = self
                .rng
                .permille(200)
                .then(|| u32::try_from(self.rng.range(1, 10)).unwrap_or(1));
            let wait = if self.calm {
                Duration::from_mins(5)
            } else {
                self.rng.millis(0, 40_000)
            };
            // It says so for a while, and then asks for work again.
            let cannot_start = !self.calm && self.rng.permille(self.plan.mischief / 4);
            let named = worker
                .names_polls
                .then(|| Arc::from(format!("{:x}", self.rng.next())));
            Lease {
                processor: worker.processor.clone(),
                worker: Arc::clone(&worker.name),
                in_process: worker.in_process,
                slots: worker.free_slots(),
                max_jobs: if worker.per_job { Some(1) } else { fewer },
                max_bytes: self.rng.permille(100).then(|| self.rng.range(300, 4_000)),
                wait,
                priorities: worker.priorities,
                request_id: named,
                not_ready: cannot_start.then(|| Arc::from("its program does not start")),
                settle: std::mem::take(&mut worker.baggage),
            }
        };
        let life = worker.life;
        let call = self.call(Owner::Worker(at, life), Asked::Lease(lease.clone()));
        self.workers[at].poll = Some((call, lease));
    }

    fn poll_again(&mut self, at: usize, low: u64, high: u64) {
        let life = self.workers[at].life;
        let later = self.rng.skewed(low, high);
        self.after(later, Happening::Worker(at, life, Task::Poll));
    }

    pub(super) fn worker_hears(&mut self, at: usize, life: u64, call: CallId, answer: Answer) {
        let worker = &mut self.workers[at];
        if worker.life != life {
            return;
        }
        if let Some((_, lease)) = worker.poll.take_if(|(poll, _)| *poll == call) {
            self.poll_answered(at, &lease, answer);
        } else if let Some((settle, tries)) = worker.settles.remove(&call) {
            self.settle_answered(at, settle, tries, &answer);
        } else if let Some(token) = worker.extends.remove(&call) {
            self.extended(at, token, &answer);
        }
    }

    fn poll_answered(&mut self, at: usize, lease: &Lease, answer: Answer) {
        match answer {
            Answer::Leased(leased) => self.take_batches(at, lease, leased),
            Answer::Refused(_) => {
                // What it carried is not settled: it goes again.
                for settle in lease.settle.clone() {
                    self.settle(at, settle, 2);
                }
                self.poll_again(at, SECOND / 10, 5 * SECOND);
            }
            _ => {}
        }
    }

    fn take_batches(&mut self, at: usize, lease: &Lease, leased: Leased) {
        for (settle, answer) in lease.settle.iter().zip(&leased.settled) {
            if matches!(answer.results, Err(Refusal::DiskFull | Refusal::OutcomeUnknown)) {
                self.settle(at, settle.clone(), 4);
            }
        }
        for batch in leased.batches {
            let style = self.draw_style();
            if style == Style::Dies {
                return self.kill_worker(at);
            }
            let term = u64::try_from(batch.expires_in.as_micros()).unwrap_or(u64::MAX);
            let held = Held {
                jobs: batch.jobs,
                style,
                beat: term / 3,
            };
            let beat = held.beat;
            let life = self.workers[at].life;
            self.workers[at].batches.insert(batch.token, held);
            let done = match style {
                Style::Stalls => term + self.rng.range(0, 30 * SECOND),
                _ => self.rng.skewed(10, 20 * SECOND),
            };
            self.after(done, Happening::Worker(at, life, Task::Work(batch.token)));
            if style != Style::Stalls {
                self.after(beat, Happening::Worker(at, life, Task::Beat(batch.token)));
            }
        }
        if leased.draining {
            self.poll_again(at, SECOND, 2 * SECOND);
        } else {
            self.poll_again(at, 1, SECOND / 10);
        }
    }

    fn draw_style(&mut self) -> Style {
        if self.calm || !self.rng.permille(self.plan.mischief) {
            return if self.rng.permille(300) {
                Style::OneByOne
            } else {
                Style::Whole
            };
        }
        let styles = [
            Style::Stalls,
            Style::Twice,
            Style::Strangers,
            Style::WrongToken,
            Style::Forgets,
            Style::Fails,
            Style::Crashed,
            Style::Releases,
            Style::Dies,
            Style::Silent,
        ];
        self.rng.pick(&styles).copied().unwrap_or(Style::Whole)
    }

    fn beat(&mut self, at: usize, token: Token) {
        let worker = &self.workers[at];
        if worker.batches.contains_key(&token) {
            let life = worker.life;
            let call = self.call(Owner::Worker(at, life), Asked::Extend { token });
            self.workers[at].extends.insert(call, token);
        }
    }

    fn extended(&mut self, at: usize, token: Token, answer: &Answer) {
        let life = self.workers[at].life;
        let Some(held) = self.workers[at].batches.get_mut(&token) else {
            return;
        };
        match answer {
            Answer::Extended { lost, .. } => {
                held.jobs.retain(|job| !lost.contains(&job.id));
                let beat = held.beat;
                self.after(beat, Happening::Worker(at, life, Task::Beat(token)));
            }
            Answer::Refused(Refusal::LeaseLost | Refusal::UnknownLease) if self.rng.permille(500) => {
                self.drop_batch(at, token);
            }
            // The stubborn go on with what they no longer hold.
            _ => {
                let beat = held.beat;
                self.after(beat, Happening::Worker(at, life, Task::Beat(token)));
            }
        }
    }

    fn drop_batch(&mut self, at: usize, token: Token) {
        self.workers[at].batches.remove(&token);
        self.poll_again(at, 1, SECOND / 10);
    }

    /// The next settle of a batch.
    fn work(&mut self, at: usize, token: Token) {
        let life = self.workers[at].life;
        let Some(held) = self.workers[at].batches.get_mut(&token) else {
            return;
        };
        let style = held.style;
        if style == Style::OneByOne
            && held.jobs.len() > 1
            && let Some(job) = held.jobs.pop()
        {
            let Some(outcome) = self.outcome(&job) else {
                return self.kill_worker(at);
            };
            self.send_settle(at, token, vec![outcome], false);
            let next = self.rng.skewed(10, SECOND);
            return self.after(next, Happening::Worker(at, life, Task::Work(token)));
        }
        let jobs = std::mem::take(&mut held.jobs);
        match style {
            Style::Silent => {}
            Style::Fails | Style::Crashed => {
                let error = error("batch_broke");
                let body = SettleBody::Failed {
                    error,
                    crashed: style == Style::Crashed,
                };
                self.settle(at, Settle { token, body }, 4);
            }
            Style::Releases => {
                let outcomes = jobs
                    .iter()
                    .map(|job| JobOutcome {
                        id: job.id,
                        said: Ok(Said::Release),
                    })
                    .collect();
                self.send_settle(at, token, outcomes, true);
            }
            _ => {
                let mut outcomes = Vec::with_capacity(jobs.len());
                for job in &jobs {
                    let Some(outcome) = self.outcome(job) else {
                        return self.kill_worker(at);
                    };
                    outcomes.push(outcome);
                }
                self.settle_in_style(at, token, style, outcomes);
            }
        }
        self.drop_batch(at, token);
    }

    fn settle_in_style(&mut self, at: usize, token: Token, style: Style, mut outcomes: Vec<JobOutcome>) {
        match style {
            Style::Twice => {
                self.send_settle(at, token, outcomes.clone(), true);
                self.send_settle(at, token, outcomes, true);
            }
            Style::Strangers => {
                let stranger = JobId(self.rng.u128().to_be_bytes());
                let known = self.checker.any_job(token, self.rng.next());
                for id in std::iter::once(stranger).chain(known) {
                    let ok = Payload {
                        content_type: None,
                        bytes: result_of(b"stranger"),
                    };
                    outcomes.push(JobOutcome {
                        id,
                        said: Ok(Said::Ok {
                            result: ok,
                            children: Vec::new(),
                        }),
                    });
                }
                self.send_settle(at, token, outcomes, true);
            }
            Style::WrongToken => {
                let index = self.rng.index(self.tokens.len());
                let mut other = self.tokens.get(index).copied().unwrap_or(token);
                if self.rng.permille(200) {
                    other.sequence += 1_000_000;
                }
                self.send_settle(at, other, outcomes.clone(), self.rng.clone().permille(500));
                self.send_settle(at, token, outcomes, true);
            }
            Style::Forgets => {
                let kept = self.rng.index(outcomes.len() + 1);
                outcomes.truncate(kept);
                self.send_settle(at, token, outcomes, true);
            }
            _ => self.send_settle(at, token, outcomes, true),
        }
    }

    /// Settles; what no request would hold goes in several.
    fn send_settle(&mut self, at: usize, token: Token, outcomes: Vec<JobOutcome>, last: bool) {
        let mut part = Vec::new();
        let mut bytes = 0;
        for outcome in outcomes {
            bytes += outcome_bytes(&outcome);
            if bytes > BODY_BYTES && !part.is_empty() {
                self.send_part(at, token, std::mem::take(&mut part), false);
                bytes = outcome_bytes(&outcome);
            }
            part.push(outcome);
        }
        self.send_part(at, token, part, last);
    }

    fn send_part(&mut self, at: usize, token: Token, outcomes: Vec<JobOutcome>, last: bool) {
        let settle = Settle {
            token,
            body: SettleBody::Outcomes { outcomes, last },
        };
        if self.rng.permille(300) {
            self.workers[at].baggage.push(settle);
        } else {
            self.settle(at, settle, 4);
        }
    }

    fn settle(&mut self, at: usize, settle: Settle, tries: u32) {
        let life = self.workers[at].life;
        let call = self.call(Owner::Worker(at, life), Asked::Settle(settle.clone()));
        self.workers[at].settles.insert(call, (settle, tries));
    }

    fn settle_answered(&mut self, at: usize, settle: Settle, tries: u32, answer: &Answer) {
        let again = match answer {
            Answer::Refused(Refusal::UnknownLease | Refusal::LeaseLost) => false,
            Answer::Refused(_) => true,
            Answer::Settled(settled) => settled.results.as_ref().is_ok_and(|results| {
                results
                    .iter()
                    .any(|result| matches!(result.is, SettleIs::Refused(Refusal::QueueFull { .. })))
            }),
            _ => false,
        };
        if again && tries > 0 {
            self.settle(at, settle, tries - 1);
        }
    }

    pub(super) fn worker_lost(&mut self, at: usize, life: u64, call: CallId) {
        let worker = &mut self.workers[at];
        if worker.life != life {
            return;
        }
        if let Some((_, lease)) = worker.poll.take_if(|(poll, _)| *poll == call) {
            let repeats = lease.request_id.is_some() || !lease.settle.is_empty();
            worker.repeat = repeats.then_some(lease);
            self.poll_again(at, 10, 5 * SECOND);
        } else if let Some((settle, tries)) = worker.settles.remove(&call) {
            if tries > 0 {
                self.settle(at, settle, tries - 1);
            }
        } else if let Some(token) = worker.extends.remove(&call) {
            let soon = self.rng.skewed(10, SECOND);
            self.after(soon, Happening::Worker(at, life, Task::Beat(token)));
        }
    }

    /// What the handler makes of a job; `None`: it kills its worker.
    fn outcome(&mut self, job: &BatchJob) -> Option<JobOutcome> {
        let order = order_of(&job.payload.bytes).and_then(|id| self.order(id));
        let work = order
            .as_ref()
            .map_or(Work::Succeed { children: 0 }, |order| order.work);
        let tried = job.delivery.saturating_sub(1);
        let said = match work {
            Work::Poison { kills } if tried < kills && !self.calm => return None,
            Work::Flaky { failures } if job.attempt <= failures && !self.calm => {
                let retry_after = self.rng.permille(200).then(|| self.rng.millis(1, 3_000));
                Said::Error {
                    error: error(FLAKY),
                    retryable: true,
                    retry_after,
                }
            }
            Work::Refuse => Said::Error {
                error: error(REFUSED),
                retryable: false,
                retry_after: None,
            },
            Work::Succeed { children } => self.success(job, order.as_deref(), children),
            Work::Flaky { .. } | Work::Poison { .. } => self.success(job, order.as_deref(), 0),
        };
        Some(JobOutcome {
            id: job.id,
            said: Ok(said),
        })
    }

    fn success(&mut self, job: &BatchJob, parent: Option<&Order>, children: u32) -> Said {
        let mut made = Vec::new();
        for _ in 0..children {
            let Some(parent) = parent else { break };
            let (id, priority) = (self.next_order_id(), self.draw_priority());
            let order = Order::new(id, &parent.processor, &parent.group, priority, &mut self.rng);
            made.push(self.add_order(order).child());
        }
        let result = Payload {
            content_type: None,
            bytes: result_of(&job.payload.bytes),
        };
        Said::Ok {
            result,
            children: made,
        }
    }
}

/// What a worker puts into one request: a frame of the simulated log is small.
const BODY_BYTES: usize = 16 << 10;

fn outcome_bytes(outcome: &JobOutcome) -> usize {
    match &outcome.said {
        Ok(Said::Ok { result, children }) => {
            let children: usize = children.iter().map(|child| child.payload.bytes.len() + 300).sum();
            result.bytes.len() + children + 300
        }
        _ => 300,
    }
}

fn error(code: &str) -> JobError {
    JobError {
        code: code.to_owned(),
        message: "as simulated".to_owned(),
        data: None,
    }
}

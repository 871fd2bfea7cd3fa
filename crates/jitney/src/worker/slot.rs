//! A batch through handlers: jobs with a handler of their own one after the other, in the batch's order; then
//! each group whose handler takes batches, at once.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{error, warn};

use super::engine::{Running, Slot, Stop};
use super::handler::{self, Handler, Taken};
use super::settle::Ending;
use crate::client::{BatchError, LeasedJob};
use crate::job::JobId;

/// By group.
pub(super) type Handlers = HashMap<String, Arc<dyn Handler>>;

/// One place where handlers run.
pub(super) struct HandlerSlot {
    pub(super) handlers: Arc<Handlers>,
}

impl Slot for HandlerSlot {
    fn is_ready(&mut self) -> bool {
        true
    }

    async fn prepare(&mut self) {}

    async fn run(&mut self, running: Running) -> Ending {
        let stop = running.stop.clone();
        let lost = Arc::clone(&running.lost);
        let mut jobs = Jobs::sort(&self.handlers, running).await;
        tokio::select! {
            // After the grace the handler is dropped where it waits; its job goes back.
            finished = stop.abort.run_until_cancelled(jobs.run(&stop)) => match finished {
                Some(()) if jobs.left.is_empty() => jobs.whole(),
                _ => jobs.given_back().await,
            },
            // It ran longer than a batch may, or the server was away for longer than the lease: what the
            // handler still does is of no use, and it may hang.
            () = lost.all_lost() => {
                warn!("batch lost, dropping its handler");
                Ending::Complete
            }
        }
    }

    async fn close(self, _stop: Stop) {}
}

/// The jobs of one batch.
struct Jobs {
    running: Running,
    /// In order: a handler and what it takes at once.
    calls: Vec<Work>,
    /// Not run to their end.
    left: Vec<JobId>,
    /// What failed a batch handler.
    failed: Option<BatchError>,
    /// What a handler panicked with, and the jobs that it held.
    crashed: Option<(BatchError, Vec<JobId>)>,
}

struct Work {
    handler: Arc<dyn Handler>,
    jobs: Vec<LeasedJob>,
}

impl Jobs {
    /// Sorts the jobs by their handlers; answers those that have none.
    async fn sort(handlers: &Handlers, mut running: Running) -> Self {
        let mut calls = Vec::new();
        let mut batches: Vec<(String, Work)> = Vec::new();
        let mut left = Vec::new();
        for job in std::mem::take(&mut running.batch.jobs) {
            let Some(handler) = handlers.get(&job.group) else {
                warn!(job = %job.id, group = job.group, "no handler for this group");
                running
                    .outbox
                    .push(handler::unknown_group(job.id, &job.group))
                    .await;
                continue;
            };
            left.push(job.id);
            let known = batches.iter_mut().find(|(known, _)| *known == job.group);
            if let Some((_, batch)) = known {
                batch.jobs.push(job);
                continue;
            }
            let group = handler.takes_batches().then(|| job.group.clone());
            let work = Work {
                handler: Arc::clone(handler),
                jobs: vec![job],
            };
            match group {
                Some(group) => batches.push((group, work)),
                None => calls.push(work),
            }
        }
        calls.extend(batches.into_iter().map(|(_, work)| work));
        Self {
            running,
            calls,
            left,
            failed: None,
            crashed: None,
        }
    }

    /// How a batch ended whose jobs were all run. Those without an outcome failed together, or crashed.
    fn whole(self) -> Ending {
        let crashed = self.crashed.is_some();
        match self.crashed.map(|(error, _)| error).or(self.failed) {
            Some(error) => Ending::Failed { error, crashed },
            None => Ending::Complete,
        }
    }

    /// How a batch ended that a stop cut short. There is no crash beside what is given back, so that the jobs of
    /// a handler that panicked count a failed try.
    async fn given_back(self) -> Ending {
        if let Some((error, ids)) = self.crashed {
            for id in ids {
                let outcome = handler::panicked(id, &error.message);
                self.running.outbox.push(outcome).await;
            }
        }
        Ending::Released(self.left)
    }

    async fn run(&mut self, stop: &Stop) {
        for work in std::mem::take(&mut self.calls) {
            if stop.finish.is_cancelled() {
                return;
            }
            self.call(work).await;
        }
    }

    async fn call(&mut self, work: Work) {
        let ids: Vec<JobId> = work.jobs.iter().map(|job| job.id).collect();
        let jobs = work.jobs.into_iter().map(|job| Taken {
            job,
            lost: Arc::clone(&self.running.lost),
        });
        let called = handler::call(&*work.handler, jobs.collect()).await;
        self.left.retain(|id| !ids.contains(id));
        let called = match called {
            Ok(called) => called,
            Err(message) => {
                error!(message, jobs = ids.len(), "handler panicked");
                let code = "panicked".to_owned();
                let (_, crashed) = self
                    .crashed
                    .get_or_insert((BatchError { code, message }, Vec::new()));
                crashed.extend(ids);
                return;
            }
        };
        match called {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.running.outbox.push(outcome).await;
                }
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

//! A batch through handlers: jobs with a handler of their own one after the other, in the batch's order; then
//! each group whose handler takes batches, at once.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tracing::{error, warn};

use super::engine::{Running, Slot, Stop};
use super::handler::{self, Called, Handler, Taken};
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
        let mut jobs = Jobs::sort(&self.handlers, running).await;
        // After the grace the handler is dropped where it waits; its job goes back.
        let finished = stop.abort.run_until_cancelled(jobs.run(&stop)).await.is_some();
        if finished && jobs.left.is_empty() {
            match jobs.failed {
                Some(error) => Ending::Failed {
                    error,
                    crashed: false,
                },
                None => Ending::Complete,
            }
        } else {
            Ending::Released(jobs.left)
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
}

struct Work {
    handler: Arc<dyn Handler>,
    jobs: Vec<(JobId, Box<RawValue>)>,
}

impl Jobs {
    /// Sorts the jobs by their handlers; answers those that have none.
    async fn sort(handlers: &Handlers, mut running: Running) -> Self {
        let mut calls = Vec::new();
        let mut batches: Vec<(String, Work)> = Vec::new();
        let mut left = Vec::new();
        for json in std::mem::take(&mut running.batch.jobs) {
            let (id, group) = match LeasedJob::read(&json) {
                Ok(job) => (job.id, job.group.into_owned()),
                Err(error) => {
                    error!(%error, batch = %running.batch.batch, "a job of the batch cannot be read");
                    continue;
                }
            };
            let Some(handler) = handlers.get(&group) else {
                warn!(job = %id, group, "no handler for this group");
                running.outbox.push(handler::unknown_group(id, &group)).await;
                continue;
            };
            left.push(id);
            let known = batches.iter_mut().find(|(known, _)| *known == group);
            let work = Work {
                handler: Arc::clone(handler),
                jobs: vec![(id, json)],
            };
            match known {
                Some((_, batch)) => batch.jobs.extend(work.jobs),
                None if handler.takes_batches() => batches.push((group, work)),
                None => calls.push(work),
            }
        }
        calls.extend(batches.into_iter().map(|(_, work)| work));
        Self {
            running,
            calls,
            left,
            failed: None,
        }
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
        let ids: Vec<JobId> = work.jobs.iter().map(|(id, _)| *id).collect();
        let jobs = work.jobs.into_iter().map(|(_, json)| Taken {
            json,
            lost: Arc::clone(&self.running.lost),
        });
        let called = handler::call(&*work.handler, jobs.collect()).await;
        self.left.retain(|id| !ids.contains(id));
        let called = called.unwrap_or_else(|message| {
            error!(message, jobs = ids.len(), "handler panicked");
            if work.handler.takes_batches() {
                Called::Err(BatchError {
                    code: "panicked".to_owned(),
                    message,
                })
            } else {
                Ok(ids.iter().map(|id| handler::panicked(*id, &message)).collect())
            }
        });
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

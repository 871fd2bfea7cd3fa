//! Write a worker in Rust: handlers for the groups of a processor, and a loop that feeds them.
//!
//! ```no_run
//! use std::time::Duration;
//! use jitney::client::Client;
//! use jitney::worker::{HandlerError, Job, Outcomes, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     price: i64,
//! }
//!
//! #[derive(Serialize)]
//! struct Executed {
//!     price: i64,
//!     status: &'static str,
//! }
//!
//! // One job at a time.
//! async fn execute(job: Job<Order>) -> Result<Executed, HandlerError> {
//!     if job.data.price < 0 {
//!         return Err(HandlerError::last("bad_price", "the price is below zero"));
//!     }
//!     Ok(Executed { price: job.data.price, status: "approved" })
//! }
//!
//! // Many at once: an outcome for each, which names its job.
//! async fn cancel(jobs: Vec<Job<String>>) -> Result<Outcomes<()>, HandlerError> {
//!     Ok(jobs.iter().map(|job| job.ok(())).collect())
//! }
//!
//! # async fn run() -> Result<(), jitney::client::Error> {
//! let client = Client::new("http://127.0.0.1:8080")?;
//! let worker = Worker::new(client, "orders")
//!     .name("w-1")
//!     .slots(4)
//!     .max_jobs(64)
//!     .on_group("order", execute)
//!     .on_batch("cancel", cancel);
//! worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await
//! # }
//! ```
//!
//! Jobs come at least once: the job's id is the handler's idempotency key. Each outcome is settled as it
//! comes; the last of a batch travel with the poll for the next. A lease is kept alive as long as its batch
//! runs, by a task of its own, so that a slow handler keeps its jobs.
//!
//! A handler that panics counts as a crash of its job (a batch handler: of its jobs in the batch), as if its
//! process had died; the worker goes on. A handler that runs longer than its lease can last (`batch_timeout`)
//! is dropped where it waits, for its jobs are another's by then. A job of a group without a handler ends with
//! the error `unknown_group`. A server that does not answer, or drains, is tried again until the worker stops.
//!
//! At the end of `run_until` a job at hand is finished, everything else is given back, nothing is counted.

pub(crate) mod engine;
mod handler;
pub(crate) mod lease;
mod notice;
#[cfg(test)]
pub(crate) mod scripted;
mod service;
pub(crate) mod settle;
mod slot;
#[cfg(test)]
mod tests;

pub use handler::{HandlerError, Job, Outcomes};
pub use service::{Failure, HandlerService, service};

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_service::Service;

use crate::client::{Client, Error};
use crate::entropy::random_u64;
use crate::job::{Payload, Priority};
use engine::EngineOptions;
use service::BoxError;
use slot::{HandlerSlot, Handlers};

/// How long a stopping worker lets its handlers finish, if nothing else is said: as long as a stopping
/// server waits for their outcomes.
pub const GRACE: Duration = Duration::from_secs(10);

/// Takes the jobs of one processor and runs them through handlers.
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    client: Client,
    processor: String,
    name: String,
    slots: usize,
    max_jobs: Option<u32>,
    priorities: Vec<Priority>,
    grace: Duration,
    handlers: Handlers,
}

impl Worker {
    /// A worker of this processor, with one slot: for one job at a time, or for batches if a handler takes them.
    pub fn new(client: Client, processor: impl Into<String>) -> Self {
        Self {
            client,
            processor: processor.into(),
            name: default_name(),
            slots: 1,
            max_jobs: None,
            priorities: Vec::new(),
            grace: GRACE,
            handlers: Handlers::new(),
        }
    }

    /// The worker's name in logs and records, 1 to 128 bytes. The process id and a random number if not said.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many batches run at once; at least 1. 1.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// Most jobs in a batch; at least 1, and never more than the policy's. If not said: as many as the policy has
    /// where a handler takes batches, of whatever group; else 1, so that nothing lingers and no job is held that is
    /// not begun. More for handlers of single jobs where round trips cost more than jobs.
    pub fn max_jobs(mut self, jobs: u32) -> Self {
        self.max_jobs = Some(jobs.max(1));
        self
    }

    /// Only these lanes. All if not said.
    pub fn priorities(mut self, priorities: &[Priority]) -> Self {
        self.priorities = priorities.to_vec();
        self
    }

    /// How long running handlers may go on after the wish to stop; then they are dropped where they wait
    /// and their jobs given back. [`GRACE`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Not longer than this, whatever was said.
    pub(crate) fn grace_at_most(mut self, grace: Duration) -> Self {
        self.grace = self.grace.min(grace);
        self
    }

    /// Runs the jobs of this group through `handler`, one at a time per slot. Data and results are JSON.
    pub fn on_group<T, R, F, Fut>(mut self, group: impl Into<String>, handler: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(Job<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        self.handlers.insert(group.into(), handler::per_job(handler));
        self
    }

    /// Runs the jobs of this group through `handler`, one at a time per slot. Data and results are bytes
    /// and what they are.
    pub fn on_group_raw<F, Fut>(mut self, group: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Job<Payload>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Payload, HandlerError>> + Send + 'static,
    {
        self.handlers.insert(group.into(), handler::per_job_raw(handler));
        self
    }

    /// Runs all jobs of this group in a batch through `handler` at once. Its error fails them together: the
    /// server then splits the batch to find the one at fault.
    pub fn on_batch<T, R, F, Fut>(mut self, group: impl Into<String>, handler: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(Vec<Job<T>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcomes<R>, HandlerError>> + Send + 'static,
    {
        self.handlers.insert(group.into(), handler::per_batch(handler));
        self
    }

    /// As [`Worker::on_group`], through a tower service: a handler with layers around it, made of [`service()`]
    /// and `tower::ServiceBuilder`. A [`Failure`] that comes out of it is the handler's own error; any other error
    /// is a layer's, and the job is tried again.
    pub fn on_service<T, R, S>(self, group: impl Into<String>, service: S) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        S: Service<Job<T>, Response = R> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
    {
        self.on_group(group, service::called(service))
    }

    /// As [`Worker::on_batch`], through a tower service over all jobs of the group in a batch.
    pub fn on_batch_service<T, R, S>(self, group: impl Into<String>, service: S) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        S: Service<Vec<Job<T>>, Response = Outcomes<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
    {
        self.on_batch(group, service::called(service))
    }

    /// Runs jobs until `stop` is ready; then finishes the job at hand and gives the rest back.
    ///
    /// # Errors
    /// The server refuses this worker for good: a processor's name that is none, say.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let batches = self.handlers.values().any(|handler| handler.takes_batches());
        let handlers = Arc::new(self.handlers);
        let slot = || HandlerSlot {
            handlers: Arc::clone(&handlers),
        };
        let slots = std::iter::repeat_with(slot).take(self.slots).collect();
        let options = EngineOptions {
            client: self.client,
            processor: self.processor,
            worker: self.name,
            max_jobs: self.max_jobs.or((!batches).then_some(1)),
            priorities: self.priorities,
            grace: self.grace,
        };
        Box::pin(engine::run(options, slots, stop)).await
    }
}

/// A name for a worker that was given none: no two are alike.
#[must_use]
pub fn default_name() -> String {
    format!("worker-{}-{:08x}", std::process::id(), random_u64() >> 32)
}

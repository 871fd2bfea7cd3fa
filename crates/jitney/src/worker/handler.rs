//! Handlers: a program's own functions, and the types that reach into them and come out of them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tracing::warn;

use super::lease::Lost;
use crate::client::{BatchError, LeasedJob, Outcome, OutcomeError, Submit, is_json};
use crate::clock::WallMs;
use crate::job::{JobId, Payload};

/// A job in its handler's hands.
#[derive(Clone, Debug)]
pub struct Job<T> {
    /// The job's id: the handler's idempotency key, since a job may come more than once.
    pub id: JobId,
    /// The kind of job.
    pub group: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// How often it was handed out, this time included.
    pub delivery: u32,
    /// What was submitted.
    pub data: T,
    /// The caller's key.
    pub key: Option<String>,
    /// When it was accepted.
    pub submitted_at: Option<WallMs>,
    /// When it expires.
    pub deadline: Option<WallMs>,
    /// Names and values that the caller attached.
    pub labels: BTreeMap<String, String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    children: Children,
    lost: Arc<Lost>,
}

/// The child jobs of a job that runs.
type Children = Arc<Mutex<Vec<Submit>>>;

impl<T> Job<T> {
    /// Submits a job together with this one's result: both become durable together, or neither does. If
    /// the handler fails, it is as if this was not called.
    pub fn submit_child(&self, child: Submit) {
        self.children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(child);
    }

    /// This job's outcome in a batch: done, with this result.
    pub fn ok<R>(&self, result: R) -> (JobId, Result<R, HandlerError>) {
        (self.id, Ok(result))
    }

    /// This job's outcome in a batch: not done, for this reason.
    pub fn error<R>(&self, error: HandlerError) -> (JobId, Result<R, HandlerError>) {
        (self.id, Err(error))
    }

    /// Whether another worker has this job by now, or its caller gave it up: finishing it is of no use.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.contains(self.id)
    }
}

/// Why a handler could not do a job. Any error becomes one with `?`: retryable, with the code `error`.
#[derive(Clone, Debug)]
pub struct HandlerError {
    /// A short name that programs match on.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Whether another try may help.
    pub retryable: bool,
    /// Not before this long from now.
    pub retry_after: Option<Duration>,
    /// JSON for programs.
    pub data: Option<Box<RawValue>>,
}

impl HandlerError {
    /// Trying again may help.
    #[must_use]
    pub fn retryable(code: impl Into<String>, message: impl Display) -> Self {
        Self {
            code: code.into(),
            message: message.to_string(),
            retryable: true,
            retry_after: None,
            data: None,
        }
    }

    /// Trying again does not help: the job ends with this error.
    #[must_use]
    pub fn last(code: impl Into<String>, message: impl Display) -> Self {
        Self {
            retryable: false,
            ..Self::retryable(code, message)
        }
    }

    /// Trying again may help after this long, also where it was said not to.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        (self.retryable, self.retry_after) = (true, Some(pause));
        self
    }

    /// Attaches JSON for programs.
    ///
    /// # Errors
    /// The data cannot be written as JSON.
    pub fn with_data(mut self, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        self.data = Some(serde_json::value::to_raw_value(data)?);
        Ok(self)
    }

    fn outcome(self, id: JobId) -> Outcome {
        let error = OutcomeError {
            code: self.code,
            message: self.message,
            retryable: self.retryable,
            retry_after: self.retry_after,
            data: self.data,
        };
        let wrong = error.too_long();
        if !wrong.is_empty() {
            warn!(job = %id, wrong = wrong.join("; "), "an error was mended");
        }
        Outcome::error(id, error)
    }

    fn batch(self) -> BatchError {
        let error = BatchError {
            code: self.code,
            message: self.message,
        };
        let wrong = error.too_long();
        if !wrong.is_empty() {
            warn!(wrong = wrong.join("; "), "an error was mended");
        }
        error
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retryable("error", error)
    }
}

/// What a batch handler says: one outcome per job, in any order, each naming its job ([`Job::ok`],
/// [`Job::error`]). A job that it leaves out counts as a failed try; of two for one job the first counts.
pub type Outcomes<R> = Vec<(JobId, Result<R, HandlerError>)>;

/// A job on its way into a handler.
#[derive(Debug)]
pub(super) struct Taken {
    /// The job as it came.
    pub(super) job: LeasedJob,
    /// What is lost of its batch.
    pub(super) lost: Arc<Lost>,
}

/// What came of a handler's call: outcomes, or the failure of all its jobs together.
pub(super) type Called = Result<Vec<Outcome>, BatchError>;

/// A handler without its types.
pub(super) trait Handler: Send + Sync + 'static {
    /// Whether it takes many jobs at once.
    fn takes_batches(&self) -> bool;

    /// Runs it.
    fn call(&self, jobs: Vec<Taken>) -> Pin<Box<dyn Future<Output = Called> + Send + '_>>;
}

/// Data that a handler takes.
trait Data: Sized + Send {
    fn read(payload: Payload) -> Result<Self, HandlerError>;
}

/// A result that a handler gives.
trait Reply {
    fn outcome(self, id: JobId, children: Vec<Submit>) -> Outcome;
}

/// Data read by serde, results written by it.
struct Json<T>(T);

impl<T: DeserializeOwned + Send> Data for Json<T> {
    fn read(payload: Payload) -> Result<Self, HandlerError> {
        if payload.content_type.is_some_and(|kept| !is_json(&kept)) {
            let message = "the data is not json; this group's handler reads json";
            return Err(HandlerError::last("invalid_data", message));
        }
        serde_json::from_slice(&payload.bytes)
            .map(Self)
            .map_err(|error| HandlerError::last("invalid_data", error))
    }
}

impl<T: Serialize> Reply for Json<T> {
    fn outcome(self, id: JobId, children: Vec<Submit>) -> Outcome {
        serde_json::to_vec(&self.0)
            .map_err(|error| HandlerError::last("invalid_result", error))
            .and_then(|json| {
                let result = Payload {
                    content_type: None,
                    bytes: json.into(),
                };
                Outcome::done(id, result, children)
                    .map_err(|error| HandlerError::last("invalid_child", error))
            })
            .unwrap_or_else(|error| error.outcome(id))
    }
}

impl Data for Payload {
    fn read(payload: Payload) -> Result<Self, HandlerError> {
        Ok(payload)
    }
}

impl Reply for Payload {
    fn outcome(self, id: JobId, children: Vec<Submit>) -> Outcome {
        Outcome::ok(id, self, children)
            .unwrap_or_else(|error| HandlerError::last("invalid_result", error).outcome(id))
    }
}

/// Calls a function per job.
struct PerJob<F, D, R> {
    function: F,
    types: PhantomData<fn(D) -> R>,
}

/// Calls a function per batch.
struct PerBatch<F, D, R> {
    function: F,
    types: PhantomData<fn(D) -> R>,
}

/// A handler per job, its data and results as JSON.
pub(super) fn per_job<T, R, F, Fut>(function: F) -> Arc<dyn Handler>
where
    T: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(Job<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    let function = move |job: Job<Json<T>>| {
        let called = function(job.map(|data| data.0));
        async move { called.await.map(Json) }
    };
    Arc::new(PerJob {
        function,
        types: PhantomData::<fn(Json<T>) -> Json<R>>,
    })
}

/// A handler per job, its data and results as the bytes that they are.
pub(super) fn per_job_raw<F, Fut>(function: F) -> Arc<dyn Handler>
where
    F: Fn(Job<Payload>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Payload, HandlerError>> + Send + 'static,
{
    Arc::new(PerJob {
        function,
        types: PhantomData::<fn(Payload) -> Payload>,
    })
}

/// A handler per batch, data and results as JSON.
pub(super) fn per_batch<T, R, F, Fut>(function: F) -> Arc<dyn Handler>
where
    T: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(Vec<Job<T>>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcomes<R>, HandlerError>> + Send + 'static,
{
    Arc::new(PerBatch {
        function,
        types: PhantomData::<fn(T) -> R>,
    })
}

impl<F, Fut, D, R> Handler for PerJob<F, D, R>
where
    D: Data + 'static,
    R: Reply + 'static,
    F: Fn(Job<D>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    fn takes_batches(&self) -> bool {
        false
    }

    fn call(&self, jobs: Vec<Taken>) -> Pin<Box<dyn Future<Output = Called> + Send + '_>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(jobs.len());
            for taken in jobs {
                outcomes.push(match read::<D>(taken) {
                    Ok(job) => {
                        let (id, children) = (job.id, Arc::clone(&job.children));
                        finish(id, &children, (self.function)(job).await)
                    }
                    Err(outcome) => outcome,
                });
            }
            Ok(outcomes)
        })
    }
}

impl<F, Fut, T, R> Handler for PerBatch<F, T, R>
where
    T: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(Vec<Job<T>>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcomes<R>, HandlerError>> + Send + 'static,
{
    fn takes_batches(&self) -> bool {
        true
    }

    fn call(&self, jobs: Vec<Taken>) -> Pin<Box<dyn Future<Output = Called> + Send + '_>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(jobs.len());
            let mut good = Vec::with_capacity(jobs.len());
            let mut children = BTreeMap::new();
            for taken in jobs {
                // One whose data does not fit fails alone; the others go on.
                match read::<Json<T>>(taken) {
                    Ok(job) => {
                        children.insert(job.id, Arc::clone(&job.children));
                        good.push(job.map(|data| data.0));
                    }
                    Err(outcome) => outcomes.push(outcome),
                }
            }
            if good.is_empty() {
                return Ok(outcomes);
            }
            let called = (self.function)(good).await.map_err(HandlerError::batch)?;
            for (id, result) in called {
                let children = children.entry(id).or_default();
                outcomes.push(finish(id, children, result.map(Json)));
            }
            Ok(outcomes)
        })
    }
}

fn finish<R: Reply>(id: JobId, children: &Children, result: Result<R, HandlerError>) -> Outcome {
    match result {
        Ok(reply) => {
            let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
            reply.outcome(id, std::mem::take(&mut *children))
        }
        Err(error) => error.outcome(id),
    }
}

/// The job for its handler; or its outcome, if its data does not fit.
fn read<D: Data>(taken: Taken) -> Result<Job<D>, Outcome> {
    let Taken { job, lost } = taken;
    let data = D::read(job.payload).map_err(|error| error.outcome(job.id))?;
    Ok(Job {
        id: job.id,
        group: job.group,
        attempt: job.attempt,
        delivery: job.delivery,
        data,
        key: job.key,
        submitted_at: job.submitted_at,
        deadline: job.deadline,
        labels: job.labels,
        traceparent: job.traceparent,
        children: Arc::default(),
        lost,
    })
}

impl<T> Job<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Job<U> {
        Job {
            id: self.id,
            group: self.group,
            attempt: self.attempt,
            delivery: self.delivery,
            data: map(self.data),
            key: self.key,
            submitted_at: self.submitted_at,
            deadline: self.deadline,
            labels: self.labels,
            traceparent: self.traceparent,
            children: self.children,
            lost: self.lost,
        }
    }
}

/// Calls a handler; its panic comes back as text.
pub(super) async fn call(handler: &dyn Handler, jobs: Vec<Taken>) -> Result<Called, String> {
    let mut called = handler.call(jobs);
    std::future::poll_fn(|cx| {
        // What the handler holds is dropped after a panic and not looked at again.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| called.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic_text(&*panic))),
        }
    })
    .await
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("without a message"))
}

/// The outcome of a job whose handler panicked.
pub(super) fn panicked(id: JobId, message: &str) -> Outcome {
    HandlerError::retryable("panicked", message).outcome(id)
}

/// The outcome of a job whose group has no handler.
pub(super) fn unknown_group(id: JobId, group: &str) -> Outcome {
    let message = format!("this worker has no handler for group `{group}`");
    HandlerError::last("unknown_group", message).outcome(id)
}

//! The client: submits jobs over HTTP, waits for their results, and speaks for a worker.
//!
//! ```no_run
//! use std::time::Duration;
//! use jitney::client::{Client, Submit};
//!
//! # async fn run() -> Result<(), jitney::client::Error> {
//! let client = Client::new("http://127.0.0.1:8080")?;
//! let order = Submit::json("orders", &serde_json::json!({"price": 10}))?.group("order");
//! let job = client.submit_and_wait(order, Duration::from_secs(10)).await?;
//! println!("{}", job.json());
//! # Ok(())
//! # }
//! ```
//!
//! Retries are safe: what certainly did not reach the server is sent again; what may have reached it only
//! if doing it twice is doing it once: where the submit has an id or an idempotency key. Bring one that your
//! own retries share, or let the client make one per call ([`Builder::own_keys`]).
//!
//! A [`Client`] is a cheap handle on one pool of connections; clone it freely.

pub(crate) mod control;
mod error;
mod http;
mod job;
mod many;
mod outcome;
mod retry;
#[cfg(test)]
pub(crate) mod scripted;
mod submit;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod transport;
mod wire;
mod work;

pub use control::{Policy, PolicyScope};
pub use error::{Error, Problem, Retry};
pub use job::{Info, Job, Lanes, ResultError};
pub(crate) use many::{AllHeld, Held};
pub use many::{Ends, Entries, Taken};
pub use outcome::{BatchError, Outcome, OutcomeError};
pub(crate) use outcome::{Said, json_bytes};
pub use retry::Retries;
pub use submit::{Submit, Submitted};
pub(crate) use wire::is_json;
pub use wire::parse_id;
pub use work::{
    Batch, Extended, LeaseAnswer, LeaseRequest, LeasedJob, Settle, SettleAnswer, SettleBody, SettleError,
    SettleIs, SettleResult,
};

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::entropy::{jittered, random_name};
use crate::job::JobId;
use http::Http;
use transport::{Answer, Transport};

/// A wait is asked of the server in pieces of this length: below the server's `wait_max` (5 min) and below
/// the idle timeouts of the proxies in between.
const WAIT_PIECE: Duration = Duration::from_secs(30);

/// The pause after a wait that the server answered early (it drains), so that waiting on is no busy loop.
const EARLY_ANSWER_PAUSE: Duration = Duration::from_millis(500);

/// Talks to one jitney server.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    transport: Arc<dyn Transport>,
    retries: Retries,
    own_keys: bool,
}

/// Sets a [`Client`] up.
#[derive(Clone, Debug)]
pub struct Builder {
    http: http::Options,
    retries: Retries,
    own_keys: bool,
}

impl Builder {
    /// How long a connection may take to open. 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.http.connect_timeout = timeout;
        self
    }

    /// How long an answer may take, beyond the wait that was asked for. 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.http.request_timeout = timeout;
        self
    }

    /// How many idle connections are kept for reuse. 256.
    #[must_use]
    pub fn idle_connections_max(mut self, connections: usize) -> Self {
        self.http.idle_connections_max = connections;
        self
    }

    /// The largest answer that is read. 256 MiB, which is many full batches at once.
    #[must_use]
    pub fn answer_bytes_max(mut self, bytes: usize) -> Self {
        self.http.answer_bytes_max = bytes;
        self
    }

    /// How often and how long to retry.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Whether `submit` makes an idempotency key where the caller brings neither id nor key, so that a submit
    /// whose answer is lost can be sent again. Off, because a key is not free: the server remembers it, and
    /// keeps the result, for `key_ttl` (24 h) after the job ended, and holds `keys_max` (4M) of them, which one
    /// client at 46 jobs a second fills in a day. Turn it on where jobs are few and each matters.
    #[must_use]
    pub fn own_keys(mut self, own_keys: bool) -> Self {
        self.own_keys = own_keys;
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL is not one of `http://`.
    pub fn build(self) -> Result<Client, Error> {
        let transport = Arc::new(Http::new(&self.http)?);
        Ok(Client {
            shared: Arc::new(Shared {
                transport,
                retries: self.retries,
                own_keys: self.own_keys,
            }),
        })
    }
}

impl Client {
    /// A client of the server at `url` (`http://127.0.0.1:8080`; `http://` may be left out), with the
    /// defaults of [`Builder`].
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::builder(url).build()
    }

    /// Sets up a client of the server at `url`.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder {
            http: http::Options {
                url: url.to_owned(),
                connect_timeout: Duration::from_secs(5),
                request_timeout: Duration::from_secs(30),
                idle_connections_max: 256,
                answer_bytes_max: 256 << 20,
            },
            retries: Retries::default(),
            own_keys: false,
        }
    }

    /// A client that reaches its jitney in another way.
    pub(crate) fn over(transport: impl Transport + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                transport: Arc::new(transport),
                retries: Retries::default(),
                own_keys: false,
            }),
        }
    }

    /// The same client, but for how often and how long it retries.
    #[must_use]
    pub fn with_retries(&self, retries: Retries) -> Self {
        Self {
            shared: Arc::new(Shared {
                retries,
                ..Shared::clone(&self.shared)
            }),
        }
    }

    /// The server's URL, as it is used; for a jitney in this process, words that say so.
    #[must_use]
    pub fn url(&self) -> &str {
        self.shared.transport.address()
    }

    /// Whether what it reaches has ended for good.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.transport.is_over()
    }

    /// Submits a job and comes back as soon as it is durable.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        self.send_submit(&self.keyed(submit), None, self.patience()).await
    }

    /// Submits a job and comes back when it has ended, whatever its outcome.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it has not ended after `timeout`, [`Error::Accepted`] if the server could not be
    /// asked any more: it has an id by then, and goes on. Any other: the job may not have been accepted.
    pub async fn submit_and_wait(&self, submit: Submit, timeout: Duration) -> Result<Job, Error> {
        let start = Instant::now();
        let until = start + timeout.max(self.shared.retries.total);
        let piece = timeout.min(WAIT_PIECE);
        let submitted = self.send_submit(&self.keyed(submit), Some(piece), until).await?;
        let id = submitted.job.id;
        let ended = self.wait_on(submitted.job, start, timeout).await;
        ended.map_err(|error| after_submit(id, error))
    }

    /// Reads a job.
    ///
    /// # Errors
    /// [`Error::Refused`] `unknown_job` if there is none, or its time is over.
    pub async fn get(&self, id: JobId) -> Result<Job, Error> {
        self.read(id, None).await
    }

    /// Reads a job once it has ended.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it has not ended after `timeout`; else as [`Client::get`].
    pub async fn get_and_wait(&self, id: JobId, timeout: Duration) -> Result<Job, Error> {
        let start = Instant::now();
        let job = self.read(id, Some(timeout.min(WAIT_PIECE))).await?;
        self.wait_on(job, start, timeout).await
    }

    /// Asks whether the server is alive. One try.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::Protocol`] where something else answers.
    pub async fn alive(&self) -> Result<(), Error> {
        self.shared.transport.health(false).await
    }

    /// Asks whether the server can take work. One try.
    ///
    /// # Errors
    /// As [`Client::alive`], and [`Error::Refused`] with the reason while it cannot.
    pub async fn ready(&self) -> Result<(), Error> {
        self.shared.transport.health(true).await
    }

    /// Counts the lanes.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn lanes(&self) -> Result<Lanes, Error> {
        self.retrying(true, self.patience(), || self.shared.transport.lanes())
            .await
    }

    /// What the server is, and the limits in force.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn info(&self) -> Result<Info, Error> {
        self.retrying(true, self.patience(), || self.shared.transport.info())
            .await
    }

    /// Takes batches. One try: a worker repeats it with the same `request_id` if the answer is lost.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn lease(&self, processor: &str, request: &LeaseRequest) -> Result<LeaseAnswer, Error> {
        self.shared.transport.lease(processor, request).await
    }

    /// Reports outcomes. One try: repeating it is safe, the first counts.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`]. A lease whose jobs are all lost is not an error: each result says `late`.
    pub async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, Error> {
        self.shared.transport.settle(settle).await
    }

    /// Extends a lease. One try.
    ///
    /// # Errors
    /// [`Error::Refused`] `lease_lost` if every job of it is lost; else any but [`Error::TimedOut`].
    pub async fn extend(&self, lease: &str) -> Result<Extended, Error> {
        self.shared.transport.extend(lease).await
    }

    fn keyed(&self, mut submit: Submit) -> Submit {
        if self.shared.own_keys && submit.id.is_none() && submit.idempotency_key.is_none() {
            submit.idempotency_key = Some(random_name());
        }
        submit
    }

    async fn send_submit(
        &self,
        submit: &Submit,
        wait: Option<Duration>,
        until: Instant,
    ) -> Result<Submitted, Error> {
        let repeatable = submit.id.is_some() || submit.idempotency_key.is_some();
        self.retrying(repeatable, until, || self.shared.transport.submit(submit, wait))
            .await
    }

    async fn wait_on(&self, mut job: Job, start: Instant, timeout: Duration) -> Result<Job, Error> {
        while !job.has_ended() {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Error::TimedOut {
                    id: job.id,
                    waited: timeout,
                });
            }
            let piece = left.min(WAIT_PIECE);
            let asked = Instant::now();
            job = self.read(job.id, Some(piece)).await?;
            if !job.has_ended() && asked.elapsed() < piece / 2 {
                sleep(jittered(EARLY_ANSWER_PAUSE).min(left)).await;
            }
        }
        Ok(job)
    }

    async fn read(&self, id: JobId, wait: Option<Duration>) -> Result<Job, Error> {
        let until = Instant::now() + wait.unwrap_or_default().max(self.shared.retries.total);
        self.retrying(true, until, || self.shared.transport.get(id, wait))
            .await
    }

    /// No retry starts later.
    fn patience(&self) -> Instant {
        Instant::now() + self.shared.retries.total
    }

    /// Makes a call until it is answered, or refused in a way that a retry would not change.
    async fn retrying<'a, T>(
        &'a self,
        repeatable: bool,
        until: Instant,
        call: impl Fn() -> Answer<'a, T>,
    ) -> Result<T, Error> {
        let mut attempt = 1;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if self.is_over() => return Err(error),
                Err(error) => error,
            };
            let left = until.saturating_duration_since(Instant::now());
            let Some(pause) = self.shared.retries.pause(&error, repeatable, attempt, left) else {
                return Err(error);
            };
            sleep(pause).await;
            attempt += 1;
        }
    }
}

/// An error of asking for a job that is submitted: as it is, what it says of its own request would be taken for the
/// submit's.
fn after_submit(id: JobId, error: Error) -> Error {
    match error {
        Error::TimedOut { .. } => error,
        error => Error::Accepted {
            id,
            source: Box::new(error),
        },
    }
}

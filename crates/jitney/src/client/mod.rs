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

mod error;
mod job;
mod retry;
#[cfg(test)]
pub(crate) mod scripted;
mod submit;
#[cfg(test)]
mod tests;
mod transport;
mod wire;
mod work;

pub use error::{Error, Problem, Retry};
pub use job::{Info, Job, Lanes};
pub use retry::Retries;
pub use submit::{Submit, Submitted};
pub use wire::parse_id;
pub use work::{
    Batch, BatchError, Extended, LeaseAnswer, LeaseRequest, LeasedJob, Outcome, OutcomeError, Settle,
    SettleAnswer, SettleBody, SettleError, SettleIs, SettleResult,
};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::entropy::{jittered, random_name};
use crate::job::JobId;
use crate::units::format_duration;
use transport::{Call, Reply, Transport};

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

#[derive(Debug)]
struct Shared {
    transport: Transport,
    retries: Retries,
    request_timeout: Duration,
    own_keys: bool,
}

/// Sets a [`Client`] up.
#[derive(Clone, Debug)]
pub struct Builder {
    url: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    idle_connections_max: usize,
    answer_bytes_max: usize,
    retries: Retries,
    own_keys: bool,
}

impl Builder {
    /// How long a connection may take to open. 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an answer may take, beyond the wait that was asked for. 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How many idle connections are kept for reuse. 256.
    #[must_use]
    pub fn idle_connections_max(mut self, connections: usize) -> Self {
        self.idle_connections_max = connections;
        self
    }

    /// The largest answer that is read. 256 MiB, which is many full batches at once.
    #[must_use]
    pub fn answer_bytes_max(mut self, bytes: usize) -> Self {
        self.answer_bytes_max = bytes;
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
        let transport = Transport::new(
            &self.url,
            self.connect_timeout,
            self.idle_connections_max,
            self.answer_bytes_max,
        )?;
        Ok(Client {
            shared: Arc::new(Shared {
                transport,
                retries: self.retries,
                request_timeout: self.request_timeout,
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
            url: url.to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            idle_connections_max: 256,
            answer_bytes_max: 256 << 20,
            retries: Retries::default(),
            own_keys: false,
        }
    }

    /// The server's URL, as it is used.
    #[must_use]
    pub fn url(&self) -> &str {
        self.shared.transport.url()
    }

    /// Submits a job and comes back as soon as it is durable.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        let until = Instant::now() + self.shared.retries.total;
        self.send_submit(&self.keyed(submit), None, until).await
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
        match self.wait_on(submitted.job, start, timeout).await {
            Err(error @ Error::TimedOut { .. }) => Err(error),
            // Not as it is: what it says of its own request would be taken for the submit's.
            Err(error) => Err(Error::Accepted {
                id,
                source: Box::new(error),
            }),
            ended => ended,
        }
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

    /// Counts the lanes.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn lanes(&self) -> Result<Lanes, Error> {
        Ok(Lanes::new(self.read_text(&["v1", "lanes"]).await?))
    }

    /// What the server is, and the limits in force.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn info(&self) -> Result<Info, Error> {
        Ok(Info::new(self.read_text(&["v1", "info"]).await?))
    }

    /// Takes batches. One try: a worker repeats it with the same `request_id` if the answer is lost.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn lease(&self, processor: &str, request: &LeaseRequest) -> Result<LeaseAnswer, Error> {
        let mut call = self.call("POST", &["v1", "processors", processor, "lease"])?;
        call.body = Some(work::encode_lease(request)?);
        call.timeout += request.wait;
        let reply = self.shared.transport.send(&call).await?;
        LeaseAnswer::decode(&reply)
    }

    /// Reports outcomes. One try: repeating it is safe, the first counts.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`]. A lease whose jobs are all lost is not an error: each result says `late`.
    pub async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, Error> {
        let mut call = self.call("POST", &["v1", "leases", &settle.lease, "settle"])?;
        call.body = Some(work::encode_settle(settle)?);
        match self.shared.transport.send(&call).await {
            Ok(reply) => wire::read(&reply.body),
            // The problem of a lost lease carries the same results.
            Err(Error::Refused(problem)) if problem.code == "lease_lost" => {
                wire::read(problem.json().as_bytes()).or(Err(Error::Refused(problem)))
            }
            Err(error) => Err(error),
        }
    }

    /// Extends a lease. One try.
    ///
    /// # Errors
    /// [`Error::Refused`] `lease_lost` if every job of it is lost; else any but [`Error::TimedOut`].
    pub async fn extend(&self, lease: &str) -> Result<Extended, Error> {
        let mut call = self.call("POST", &["v1", "leases", lease, "extend"])?;
        call.body = Some(Bytes::from_static(b"{}"));
        let reply = self.shared.transport.send(&call).await?;
        wire::read(&reply.body)
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
        let mut call = self.call("POST", &["v1", "jobs"])?;
        call.body = Some(submit.encode()?);
        call.idempotency_key = submit.idempotency_key.clone();
        set_wait(&mut call, wait);
        let repeatable = submit.id.is_some() || submit.idempotency_key.is_some();
        let reply = self.send_retrying(&call, repeatable, until).await?;
        Submitted::decode(&reply)
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
        let mut call = self.call("GET", &["v1", "jobs", &id.to_string()])?;
        set_wait(&mut call, wait);
        let until = Instant::now() + wait.unwrap_or_default().max(self.shared.retries.total);
        let reply = self.send_retrying(&call, true, until).await?;
        Job::decode(reply.body)
    }

    async fn read_text(&self, path: &[&str]) -> Result<Bytes, Error> {
        let call = self.call("GET", path)?;
        let until = Instant::now() + self.shared.retries.total;
        let reply = self.send_retrying(&call, true, until).await?;
        wire::check(&reply.body)?;
        Ok(reply.body)
    }

    fn call(&self, method: &'static str, path: &[&str]) -> Result<Call, Error> {
        self.shared
            .transport
            .call(method, path, self.shared.request_timeout)
    }

    async fn send_retrying(&self, call: &Call, repeatable: bool, until: Instant) -> Result<Reply, Error> {
        let mut attempt = 1;
        loop {
            let error = match self.shared.transport.send(call).await {
                Ok(reply) => return Ok(reply),
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

fn set_wait(call: &mut Call, wait: Option<Duration>) {
    if let Some(wait) = wait {
        call.query.push(("wait", format_duration(wait)));
        call.timeout += wait;
    }
}

//! Reads a request's body: bounded in size and in time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, EXPECT};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::error::{Code, Problem, Result};
use super::parse::shown;
use super::{App, Connection};
use crate::driver::refusal::Refusal;
use crate::limits::Limits;
use crate::units::{format_count, format_duration};

/// How much of a refused body is read and dropped beyond what a body may be, so that the client, still sending,
/// sees the answer.
const DRAIN_BYTES_MAX: u64 = 8 << 20;

/// A body may take this many times the time that one pause may take: 16 MiB in five minutes.
const PAUSES_MAX: u32 = 30;

/// Room made at once for a body that says how long it is; a longer one grows as it comes.
const PREPARED_BYTES_MAX: u64 = 1 << 20;

/// How large a body may be, and what to say of a larger one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    code: Code,
    what: &'static str,
    name: &'static str,
    bytes_max: u64,
    /// What any body may be; a refused one is read and dropped a little beyond that.
    body_bytes_max: u64,
    /// It comes from a worker.
    of_worker: bool,
}

impl Bound {
    /// The body is a job's data.
    pub(crate) const fn data(limits: &Limits) -> Self {
        Self {
            code: Code::JobTooLarge,
            what: "data",
            name: "max_job_bytes",
            bytes_max: limits.job_bytes_max,
            body_bytes_max: limits.whole_body_bytes_max(),
            of_worker: false,
        }
    }

    /// The body is a request of its own.
    pub(crate) const fn request(limits: &Limits) -> Self {
        Self {
            code: Code::BodyTooLarge,
            what: "the body",
            name: "max_body_bytes",
            bytes_max: limits.whole_body_bytes_max(),
            body_bytes_max: limits.whole_body_bytes_max(),
            of_worker: false,
        }
    }

    /// The body is read line by line, so that no more than lines of it is in memory.
    pub(crate) const fn lines(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.body_bytes_max,
            ..Self::request(limits)
        }
    }

    /// The body is a worker's poll, settle or extend.
    pub(crate) const fn work(limits: &Limits) -> Self {
        Self {
            of_worker: true,
            ..Self::request(limits)
        }
    }

    const fn drain_bytes(&self) -> u64 {
        self.body_bytes_max.saturating_add(DRAIN_BYTES_MAX)
    }

    /// A body beyond what any body may be is refused as such.
    fn exceeded(&self, bytes: Option<u64>) -> Box<Problem> {
        if bytes.is_some_and(|bytes| bytes > self.body_bytes_max) && self.bytes_max < self.body_bytes_max {
            let body = Self {
                code: Code::BodyTooLarge,
                what: "the body",
                name: "max_body_bytes",
                bytes_max: self.body_bytes_max,
                ..*self
            };
            return body.exceeded(bytes);
        }
        let size = match bytes {
            Some(bytes) => format!("is {} bytes", format_count(bytes)),
            None => "is larger than that".to_owned(),
        };
        let limit = format_count(self.bytes_max);
        let detail = match bytes {
            Some(_) => format!("{} {size}; `{}` is {limit}", self.what, self.name),
            None => format!("`{}` is {limit}; {} {size}", self.name, self.what),
        };
        Problem::new(self.code, detail).limit(self.bytes_max)
    }
}

/// Reads a body. One that is too large goes to `rest`, to be dropped while it is answered.
pub(crate) async fn read(app: &App, parts: &Parts, body: Body, bound: Bound) -> Result<Bytes> {
    let mut pieces = Pieces::new(app, parts, body, bound)?;
    pieces.deadline = Some(Instant::now() + pieces.time_max());
    let mut share = app.bodies().share(bound.of_worker);
    // Most bodies come in one piece, which is kept as it is.
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(data) = pieces.next(None).await? {
        if !share.grow(data.len()) {
            pieces.leave();
            return Err(no_room(share.limit()));
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if more.is_empty() {
            let room = pieces.announced.unwrap_or(0).min(PREPARED_BYTES_MAX);
            more.reserve(usize::try_from(room).unwrap_or(0).max(first.len() + data.len()));
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&data);
    }
    Ok(share.keep(if more.is_empty() { first } else { more.freeze() }))
}

/// Why a body that is encoded is refused: it would be kept as it came, and nobody could tell how to read it.
fn encoded(headers: &HeaderMap) -> Option<Box<Problem>> {
    let encoding = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .find(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))?;
    let detail = format!(
        "the body is encoded (`Content-Encoding: {}`), which jitney does not undo; send it as it is",
        shown(&String::from_utf8_lossy(encoding.as_bytes()))
    );
    Some(Problem::new(Code::UnsupportedMediaType, detail))
}

/// A body, piece by piece as it comes.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// `None` once it has ended, or was left.
    body: Option<Body>,
    bound: Bound,
    announced: Option<u64>,
    pause_max: Duration,
    here: Connection,
    /// Bytes so far.
    read: u64,
    /// When all of it must be there, if it is read as a whole.
    deadline: Option<Instant>,
}

impl Pieces {
    /// Refuses a body that is encoded, or says that it is too large. It goes to `rest`, as does one that turns
    /// out to be.
    pub(crate) fn new(app: &App, parts: &Parts, body: Body, bound: Bound) -> Result<Self> {
        let here = Connection::of(parts);
        if let Some(problem) = encoded(&parts.headers) {
            here.rest().leave(body);
            return Err(problem);
        }
        let announced = body.size_hint().exact();
        if let Some(bytes) = announced.filter(|bytes| *bytes > bound.bytes_max) {
            // A client that asked before sending learns from the answer that it need not.
            if !parts.headers.contains_key(EXPECT) {
                here.rest().drop_of(body, bound.drain_bytes());
            }
            return Err(bound.exceeded(Some(bytes)));
        }
        Ok(Self {
            body: Some(body),
            bound,
            announced,
            pause_max: app.slow_client_timeout(),
            here,
            read: 0,
            deadline: None,
        })
    }

    /// The next piece; `None` at the end, or if none comes within `linger`.
    pub(crate) async fn next(&mut self, linger: Option<Duration>) -> Result<Option<Bytes>> {
        let pause_max = self.pause_max;
        while let Some(body) = &mut self.body {
            let patience = Instant::now() + linger.unwrap_or(pause_max);
            let until = self.deadline.map_or(patience, |deadline| deadline.min(patience));
            // Both are cancel-safe: a frame is taken or not, a token stays cancelled.
            let frame = tokio::select! {
                biased;
                frame = timeout_at(until, body.frame()) => frame,
                () = self.here.stopping().cancelled() => {
                    self.leave();
                    return Err(Refusal::Draining.into());
                }
            };
            let frame = match frame {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    self.body = None;
                    self.here.broke_off();
                    return Err(Problem::invalid("", format!("the body ended early: {error}")));
                }
                Ok(None) => {
                    self.body = None;
                    return Ok(None);
                }
                Err(_) if linger.is_some() => return Ok(None),
                Err(_) if until < patience => return Err(self.too_slow()),
                Err(_) => {
                    let pause = format_duration(pause_max);
                    let detail = format!("the body paused for longer than {pause}");
                    return Err(Problem::new(Code::SlowBody, detail));
                }
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.read = self
                .read
                .saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            if self.read > self.bound.bytes_max {
                self.leave();
                return Err(self.bound.exceeded(None));
            }
            return Ok(Some(data));
        }
        Ok(None)
    }

    /// How long a body may take, or a line of one that is read line by line.
    pub(crate) const fn time_max(&self) -> Duration {
        self.pause_max.saturating_mul(PAUSES_MAX)
    }

    /// It took longer than that.
    pub(crate) fn too_slow(&self) -> Box<Problem> {
        let detail = format!("the body took longer than {}", format_duration(self.time_max()));
        Problem::new(Code::SlowBody, detail)
    }

    /// Whether all of it was read.
    pub(crate) const fn ended(&self) -> bool {
        self.body.is_none()
    }

    /// Nobody wants what is left: it is dropped as it comes, so that the client sees its answer.
    pub(crate) fn leave(&mut self) {
        if let Some(body) = self.body.take() {
            self.here
                .rest()
                .drop_of(body, self.bound.drain_bytes().saturating_sub(self.read));
        }
    }
}

/// The bodies of all connections together take what they may.
pub(crate) fn no_room(limit: u64) -> Box<Problem> {
    let detail = format!(
        "the bodies that are being served take {} bytes, which is `bodies_bytes_max`",
        format_count(limit)
    );
    Problem::new(Code::QueueFull, detail).limit(limit)
}

/// What is left of a body that was refused, dropped piece by piece while its connection goes on.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    left: Mutex<Option<Left>>,
}

#[derive(Debug)]
struct Left {
    body: Body,
    bytes: u64,
}

impl Rest {
    /// Takes a body that nobody wants.
    pub(crate) fn leave(&self, body: Body) {
        self.drop_of(body, DRAIN_BYTES_MAX);
    }

    /// Takes what is left of a body, to drop so many bytes of it.
    fn drop_of(&self, body: Body, bytes: u64) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(Left { body, bytes });
    }

    /// Lets go of the body.
    pub(crate) fn stop(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(left);
    }

    /// Drops what has come. At the end, or once enough was read, lets go of the body: hyper then goes on with
    /// the next request, or closes the connection.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        let mut slot = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = slot.as_mut() {
            let mut frame = left.body.frame();
            let Poll::Ready(frame) = Pin::new(&mut frame).poll(cx) else {
                return;
            };
            let size = match frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => usize::MAX,
            };
            match left.bytes.checked_sub(u64::try_from(size).unwrap_or(u64::MAX)) {
                Some(bytes) => left.bytes = bytes,
                None => *slot = None,
            }
        }
    }
}

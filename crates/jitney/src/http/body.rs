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

use super::budget::Share;
use super::error::{Code, Problem, Result};
use super::parse::shown;
use super::{App, Connection};
use crate::limits::Limits;
use crate::units::format_count;

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
            body_bytes_max: limits.body_bytes_max,
            of_worker: false,
        }
    }

    /// The body is a request of its own.
    pub(crate) const fn request(limits: &Limits) -> Self {
        Self {
            code: Code::BodyTooLarge,
            what: "the body",
            name: "max_body_bytes",
            bytes_max: limits.body_bytes_max,
            body_bytes_max: limits.body_bytes_max,
            of_worker: false,
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
    let pause_max = app.slow_client_timeout();
    let rest = &Connection::of(parts).rest;
    if let Some(problem) = encoded(&parts.headers) {
        rest.leave(body);
        return Err(problem);
    }
    let announced = body.size_hint().exact();
    if let Some(bytes) = announced.filter(|bytes| *bytes > bound.bytes_max) {
        // A client that asked before sending learns from the answer that it need not.
        if !parts.headers.contains_key(EXPECT) {
            rest.drop_of(body, bound.drain_bytes());
        }
        return Err(bound.exceeded(Some(bytes)));
    }
    let share = app.bodies().share(bound.of_worker);
    let whole = collect(body, bound, share, pause_max, rest);
    match tokio::time::timeout(pause_max.saturating_mul(PAUSES_MAX), whole).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(
            Code::SlowBody,
            format!(
                "the body took longer than {}",
                crate::units::format_duration(pause_max.saturating_mul(PAUSES_MAX))
            ),
        )),
    }
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

async fn collect(
    mut body: Body,
    bound: Bound,
    mut share: Share,
    pause_max: Duration,
    rest: &Rest,
) -> Result<Bytes> {
    let announced = body.size_hint().exact();
    // Most bodies come in one piece, which is kept as it is.
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut read: u64 = 0;
    loop {
        let frame = match tokio::time::timeout(pause_max, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Problem::invalid("", format!("the body ended early: {error}")));
            }
            Ok(None) => break,
            Err(_) => {
                let detail = format!(
                    "the body paused for longer than {}",
                    crate::units::format_duration(pause_max)
                );
                return Err(Problem::new(Code::SlowBody, detail));
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        read = read.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if read > bound.bytes_max {
            rest.drop_of(body, bound.drain_bytes().saturating_sub(read));
            return Err(bound.exceeded(None));
        }
        if !share.grow(data.len()) {
            rest.drop_of(body, bound.drain_bytes().saturating_sub(read));
            return Err(no_room(share.limit()));
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if more.is_empty() {
            let room = announced.unwrap_or(0).min(PREPARED_BYTES_MAX);
            more.reserve(usize::try_from(room).unwrap_or(0).max(first.len() + data.len()));
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&data);
    }
    Ok(share.keep(if more.is_empty() { first } else { more.freeze() }))
}

/// The bodies of all connections together take what they may.
fn no_room(limit: u64) -> Box<Problem> {
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

//! Says whether batches reached their worker's connection.
//!
//! In: the duty that a lease's answer carries. Out: `delivered` once every byte of that answer was handed to
//! the kernel. How: hyper takes the body's bytes, writes all that it holds, then flushes; so when a flush
//! succeeds, what was taken before it has been written. A connection that ends first drops the duty, which
//! reports the opposite. One per connection; HTTP/1 answers one request at a time.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::server::handle::Delivery;

/// What a connection is at. Each change makes a new beat, which the watch over slow clients counts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A request's head is due: since the connection opened, or its first byte came.
    Head,
    /// A request is being served.
    Busy,
    /// Everything is answered; nothing is due.
    Idle,
}

/// The state that a connection's socket, its answers and its watch share.
#[derive(Debug, Default)]
pub(crate) struct Link {
    duties: Mutex<Duties>,
    /// Whether `duties.taken` holds anything: spares each flush the lock.
    any_taken: AtomicBool,
    /// [`Phase`] in the low two bits, whether a write waits for the client in the third, the beat above.
    progress: AtomicU32,
    /// The answer is complete as far as its body goes: the next flush makes the connection idle.
    answered: AtomicBool,
    /// The client sends no more.
    input_over: AtomicBool,
    /// The body of the request was read, or nobody wants it.
    body_over: AtomicBool,
    /// Whoever reads the body waits for something else, perhaps for long.
    body_paused: AtomicBool,
}

#[derive(Debug, Default)]
struct Duties {
    /// Of the answer whose body is not taken yet.
    owed: Option<Delivery>,
    /// Of answers that wait for the next flush.
    taken: Vec<Delivery>,
}

const PHASE_BITS: u32 = 0b011;
const STALLED_BIT: u32 = 0b100;
const BEAT: u32 = 0b1000;

impl Link {
    /// The answer that goes out next carries this duty.
    pub(crate) fn owe(&self, delivery: Delivery) {
        self.duties().owed = Some(delivery);
    }

    /// A request's head is complete; `body_over` if that is all of it.
    pub(crate) fn request_began(&self, body_over: bool) {
        self.answered.store(false, Ordering::Relaxed);
        self.body_over.store(body_over, Ordering::Relaxed);
        self.pause_body(false);
        self.enter(Phase::Busy);
    }

    /// Bytes came from the client.
    pub(crate) fn bytes_came(&self) {
        match self.progress() {
            (_, Phase::Idle, _) => self.enter(Phase::Head),
            // A client may send all of its body before it reads any of the answer.
            (_, Phase::Busy, true) => self.enter(Phase::Busy),
            _ => {}
        }
    }

    /// Whether the body of the request was read, or nobody wants it: hyper then reads no more until it is answered.
    pub(crate) fn is_body_over(&self) -> bool {
        self.body_over.load(Ordering::Relaxed)
    }

    /// Whoever reads the body waits for something else, or no longer does.
    pub(crate) fn pause_body(&self, paused: bool) {
        self.body_paused.store(paused, Ordering::Relaxed);
    }

    /// Whether an end behind unread bytes matters: nobody is about to read them.
    pub(crate) fn is_unread_for_long(&self) -> bool {
        self.is_body_over() || self.body_paused.load(Ordering::Relaxed)
    }

    /// The client sends no more.
    pub(crate) fn input_ended(&self) {
        self.input_over.store(true, Ordering::Relaxed);
    }

    /// Whether the client sends no more.
    pub(crate) fn is_input_over(&self) -> bool {
        self.input_over.load(Ordering::Relaxed)
    }

    /// A write waits for the client to read, or no longer does.
    pub(crate) fn stalled(&self, stalled: bool) {
        let word = self.progress.load(Ordering::Relaxed);
        if (word & STALLED_BIT != 0) != stalled {
            let word = (word ^ STALLED_BIT).wrapping_add(BEAT);
            self.progress.store(word, Ordering::Relaxed);
        }
    }

    /// All that hyper held has been handed to the kernel.
    pub(crate) fn flushed(&self) {
        if self.answered.swap(false, Ordering::Relaxed) {
            self.enter(Phase::Idle);
        }
        if self.any_taken.swap(false, Ordering::Relaxed) {
            let taken = std::mem::take(&mut self.duties().taken);
            for delivery in taken {
                delivery.delivered();
            }
        }
    }

    /// The beat, the phase, and whether a write waits for the client.
    pub(crate) fn progress(&self) -> (u32, Phase, bool) {
        let word = self.progress.load(Ordering::Relaxed);
        let phase = match word & PHASE_BITS {
            0 => Phase::Head,
            1 => Phase::Busy,
            _ => Phase::Idle,
        };
        (word / BEAT, phase, word & STALLED_BIT != 0)
    }

    /// Only the connection's own task changes it, so that load and store need not be one.
    fn enter(&self, phase: Phase) {
        let code = match phase {
            Phase::Head => 0,
            Phase::Busy => 1,
            Phase::Idle => 2,
        };
        let word = self.progress.load(Ordering::Relaxed);
        let word = ((word & !PHASE_BITS) | code).wrapping_add(BEAT);
        self.progress.store(word, Ordering::Relaxed);
    }

    fn take_owed(&self) {
        let mut duties = self.duties();
        if let Some(delivery) = duties.owed.take() {
            duties.taken.push(delivery);
            self.any_taken.store(true, Ordering::Relaxed);
        }
    }

    /// A panic while it was held leaves nothing half done in it.
    fn duties(&self) -> MutexGuard<'_, Duties> {
        self.duties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body on its way in.
#[derive(Debug)]
pub(crate) struct Asked<B> {
    body: B,
    link: Arc<Link>,
}

impl<B: http_body::Body> Asked<B> {
    /// Watches a body.
    pub(crate) fn new(body: B, link: Arc<Link>) -> Self {
        link.request_began(body.is_end_stream());
        Self { body, link }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Asked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled
            && (!matches!(frame, Some(Ok(_))) || self.body.is_end_stream())
        {
            self.link.body_over.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Asked<B> {
    fn drop(&mut self) {
        self.link.body_over.store(true, Ordering::Relaxed);
    }
}

/// An answer's body on its way out.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Body,
    link: Arc<Link>,
}

impl Answer {
    /// Watches a body.
    pub(crate) fn new(body: Body, link: Arc<Link>) -> Self {
        Self { body, link }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let complete = match &polled {
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if complete {
            self.link.take_owed();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    /// Hyper is done with the body. What it did not take is not delivered.
    fn drop(&mut self) {
        drop(self.link.duties().owed.take());
        self.link.answered.store(true, Ordering::Relaxed);
    }
}

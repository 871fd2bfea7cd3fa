//! Answers that wait for their client to read them, and the work that makes them.
//!
//! In: pieces of an answer, in order. Out: the body of the response. A client may send all of a long body
//! before it reads any answer; what it leaves unread is held here, within a pool that all requests share.
//! When the pool is used up a request makes no further answers, and so reads no further lines, until its
//! client has read those that it has.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Answers that are made and not read, over all requests, bytes: those to about 700,000 jobs.
const HELD_BYTES_MAX: u32 = 64 << 20;

/// What a permit of the pool stands for, bytes.
const PERMIT_BYTES: u32 = 1 << 10;

/// The memory for answers that are not read yet.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Semaphore>);

impl Default for Pool {
    fn default() -> Self {
        Self::of(HELD_BYTES_MAX)
    }
}

impl Pool {
    fn of(bytes: u32) -> Self {
        let permits = usize::try_from(bytes / PERMIT_BYTES).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(permits)))
    }
}

/// The answers of one request.
#[derive(Debug)]
pub(super) struct Outbox {
    pool: Pool,
    state: Mutex<State>,
    /// The last piece was taken.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Each with its part of the pool. One piece at a time may do without: no request waits for others to go on.
    pieces: VecDeque<(Bytes, Option<OwnedSemaphorePermit>)>,
    /// Whether there ever was a piece.
    begun: bool,
    finished: bool,
    /// Who takes the pieces, if it waits for one.
    reader: Option<Waker>,
}

impl Outbox {
    pub(super) fn new(pool: &Pool) -> Arc<Self> {
        Arc::new(Self {
            pool: pool.clone(),
            state: Mutex::default(),
            emptied: Notify::new(),
        })
    }

    /// Adds a piece. Comes back once there is room for it.
    pub(super) async fn push(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let permits = bytes.min(HELD_BYTES_MAX).div_ceil(PERMIT_BYTES);
        // Both branches are cancel-safe: a permit that is not returned was not taken, and an outbox that
        // is empty stays so, as only this adds to it.
        let room = tokio::select! {
            biased;
            () = self.is_emptied() => None,
            room = Arc::clone(&self.pool.0).acquire_many_owned(permits) => room.ok(),
        };
        let mut state = self.state();
        state.begun = true;
        state.pieces.push_back((piece, room));
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// No piece comes any more.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.finished = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Whether there ever was a piece.
    pub(super) fn has_begun(&self) -> bool {
        self.state().begun
    }

    /// Whether there is a piece to take.
    pub(super) fn holds_any(&self) -> bool {
        !self.state().pieces.is_empty()
    }

    /// All pieces as one.
    pub(super) fn take_all(&self) -> Bytes {
        let pieces = std::mem::take(&mut self.state().pieces);
        let mut pieces = pieces.into_iter().map(|(piece, _)| piece);
        let first = pieces.next().unwrap_or_default();
        let Some(second) = pieces.next() else {
            return first;
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        for piece in pieces {
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }

    async fn is_emptied(&self) {
        while self.holds_any() {
            self.emptied.notified().await;
        }
    }

    /// A panic while it was held leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a response whose answers are still being made.
#[derive(Debug)]
pub(super) struct Answers {
    outbox: Arc<Outbox>,
}

impl Answers {
    pub(super) const fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }
}

impl http_body::Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.outbox.state();
        if let Some((piece, _)) = state.pieces.pop_front() {
            if state.pieces.is_empty() {
                self.outbox.emptied.notify_one();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.finished {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Work that goes on beside its response, carried on by the connection: it ends with it, whatever happens.
#[derive(Default)]
pub(crate) struct Work {
    left: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Work {
    /// Takes work over. A connection answers one request at a time, and so has one piece of work.
    pub(super) fn carry_on(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.left() = Some(Box::pin(work));
    }

    /// Does what can be done now.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        let mut left = self.left();
        if let Some(work) = left.as_mut()
            && work.as_mut().poll(cx).is_ready()
        {
            *left = None;
        }
    }

    /// Lets go of what is not done.
    pub(crate) fn stop(&self) {
        let left = self.left().take();
        // Not while the lock is held: nobody knows what ends with it.
        drop(left);
    }

    /// A panic while it was held leaves nothing half done in it.
    fn left(&self) -> MutexGuard<'_, Option<Pin<Box<dyn Future<Output = ()> + Send>>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_client_that_does_not_read_stops_its_own_request_and_no_other() {
        let pool = Pool::of(4 << 10);
        let piece = || Bytes::from(vec![b'x'; 2 << 10]);
        let slow = Outbox::new(&pool);
        let held = Arc::clone(&slow);
        let mut work = by_hand(async move {
            for _ in 0..10 {
                held.push(piece()).await;
            }
            held.finish();
        });
        // One piece for free, and two from the pool.
        assert!(!work.poll());
        assert_eq!(slow.state().pieces.len(), 3);

        let other = Outbox::new(&pool);
        other.push(piece()).await;
        assert_eq!(other.take_all().len(), 2 << 10);
        other.push(piece()).await;

        let mut answers = Answers::new(Arc::clone(&slow));
        let mut done = false;
        for _ in 0..10 {
            done = done || work.poll();
            assert!(slow.state().pieces.len() <= 3);
            assert!(answers.frame().await.is_some());
        }
        assert!(done || work.poll());
        assert!(answers.frame().await.is_none());
        assert_eq!(pool.0.available_permits(), 4);
    }

    /// A future that the test polls by hand.
    struct ByHand(Pin<Box<dyn Future<Output = ()>>>);

    fn by_hand(work: impl Future<Output = ()> + 'static) -> ByHand {
        ByHand(Box::pin(work))
    }

    impl ByHand {
        fn poll(&mut self) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            self.0.as_mut().poll(&mut cx).is_ready()
        }
    }
}

//! The asynchronous side of the driver's port: cheap handles that call the driver and await its answer.
//!
//! In: calls from HTTP handlers and in-process workers. Out: messages in the driver's mailbox. The mailbox
//! itself is unbounded, its content is not: a call is admitted only while fewer than `calls_max` are open,
//! and every notice (`Gone`, `Hurry`, `Delivered`, `Undelivered`) belongs to an admitted call, so that a notice is
//! never refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::mailbox::Sender;
use crate::driver::port::{Answer, CallId, Command};
use crate::driver::refusal::Refusal;
use crate::job::Token;
use crate::policy::PolicyBook;

/// Calls the driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// An answer on its way to the caller.
#[derive(Debug)]
pub struct Reply {
    /// What the driver said.
    pub answer: Answer,
    /// Present where the answer carries batches: whoever writes them to the worker says so here.
    pub delivery: Option<Delivery>,
}

/// The duty to report whether batches reached their worker. Dropping it reports that they did not.
#[derive(Debug)]
pub struct Delivery {
    tokens: Vec<Token>,
    messages: Sender,
}

/// What travels to the driver's thread.
#[derive(Debug)]
pub(super) enum Message {
    Call(CallId, Command, oneshot::Sender<Reply>),
    Gone(CallId),
    Hurry {
        call: CallId,
        hold_max: Duration,
    },
    Delivered(Vec<Token>),
    Undelivered(Vec<Token>),
    Policies(PolicyBook),
    Stop {
        grace: Duration,
    },
    /// Something else happened that the driver should look at: a commit ended.
    Nudge,
    /// A thread that the driver depends on panicked.
    Panicked,
}

impl Message {
    /// Whether nothing is lost if the driver reads it only once the commit that is under way has ended: a job that
    /// comes now is in the next one at the soonest.
    pub(super) const fn can_wait(&self) -> bool {
        match self {
            Self::Call(_, Command::Submit(_), _) | Self::Delivered(_) => true,
            Self::Call(..)
            | Self::Gone(_)
            | Self::Hurry { .. }
            | Self::Undelivered(_)
            | Self::Policies(_)
            | Self::Stop { .. }
            | Self::Nudge
            | Self::Panicked => false,
        }
    }
}

#[derive(Debug)]
struct Shared {
    messages: Sender,
    /// Names the next call.
    next_call: AtomicU64,
    /// Calls without an answer; each handler adds itself and takes itself away.
    open_calls: AtomicUsize,
    /// The bound on `open_calls`.
    calls_max: usize,
    /// Set by the driver's thread once everything pending has been reported.
    ready: AtomicBool,
    /// Set by the driver's thread when it ends as asked: whatever it has not answered it has not begun.
    stopped: AtomicBool,
}

impl Handle {
    pub(super) fn new(messages: Sender, calls_max: usize) -> Self {
        let shared = Shared {
            messages,
            next_call: AtomicU64::new(1),
            open_calls: AtomicUsize::new(0),
            calls_max,
            ready: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Calls the driver and waits for its answer. Dropping the future tells the driver that the caller
    /// is gone; what was made durable meanwhile stays.
    pub async fn call(&self, command: Command) -> Reply {
        self.begin(command).await
    }

    /// Calls the driver at once; the future is its answer, as that of [`Handle::call`].
    pub fn begin(&self, command: Command) -> impl Future<Output = Reply> + Send + use<> {
        self.begin_unless(command, std::future::pending())
    }

    /// As [`Handle::begin`], but once `leaving` comes the caller may be gone: its answer is held for no longer than
    /// that says, and a poll takes no job.
    pub fn begin_unless<F>(&self, command: Command, leaving: F) -> impl Future<Output = Reply> + Send + use<F>
    where
        F: Future<Output = Duration> + Send,
    {
        let sent = self.send_call(command);
        let handle = self.clone();
        async move {
            let (mut gone, mut receiver) = match sent {
                Ok(sent) => sent,
                Err(refusal) => return Reply::refused(refusal),
            };
            // Cancel-safe: an answer that was not received is still there.
            let reply = tokio::select! {
                biased;
                reply = &mut receiver => reply,
                hold_max = leaving => {
                    handle.send(Message::Hurry { call: gone.open.call, hold_max });
                    receiver.await
                }
            };
            gone.armed = false;
            reply.unwrap_or_else(|_| Reply::refused(handle.unanswered()))
        }
    }

    fn send_call(&self, command: Command) -> Result<(GoneGuard, oneshot::Receiver<Reply>), Refusal> {
        if !self.shared.ready.load(Ordering::Acquire) {
            return Err(Refusal::Recovering);
        }
        let Some(open) = self.admit() else {
            let limit = u64::try_from(self.shared.calls_max).unwrap_or(u64::MAX);
            return Err(Refusal::TooManyWaiters { limit });
        };
        let (sender, receiver) = oneshot::channel();
        if self
            .shared
            .messages
            .send(Message::Call(open.call, command, sender))
            .is_err()
        {
            return Err(Refusal::Draining);
        }
        Ok((GoneGuard { open, armed: true }, receiver))
    }

    /// Puts new policies in force.
    pub fn set_policies(&self, policies: PolicyBook) {
        self.send(Message::Policies(policies));
    }

    /// Asks the driver to drain and end.
    pub fn stop(&self, grace: Duration) {
        self.send(Message::Stop { grace });
    }

    /// The driver takes calls from now on.
    pub fn set_ready(&self) {
        self.shared.ready.store(true, Ordering::Release);
    }

    /// The driver has ended as it was asked to. Said before its port goes, so that no call that finds the port
    /// gone can miss it.
    pub(super) fn set_stopped(&self) {
        self.shared.stopped.store(true, Ordering::Release);
    }

    /// What became of a call that the driver left without an answer: it answers every one that it takes
    /// before it ends as asked; if a sync failed under it, nobody knows.
    fn unanswered(&self) -> Refusal {
        if self.shared.stopped.load(Ordering::Acquire) {
            Refusal::Draining
        } else {
            Refusal::OutcomeUnknown
        }
    }

    /// Wakes the driver, so that it looks at its bus.
    pub(super) fn nudge(&self) {
        self.send(Message::Nudge);
    }

    /// A value that says so if its thread panics, so that the driver does not wait for what will never be done.
    pub(super) fn watch_panic(&self) -> PanicWatch {
        PanicWatch(self.clone())
    }

    /// A driver that ended needs no notice.
    fn send(&self, message: Message) {
        drop(self.shared.messages.send(message));
    }

    fn admit(&self) -> Option<OpenCall> {
        if self.shared.open_calls.fetch_add(1, Ordering::Relaxed) >= self.shared.calls_max {
            self.shared.open_calls.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let call = CallId(self.shared.next_call.fetch_add(1, Ordering::Relaxed));
        Some(OpenCall {
            call,
            shared: Arc::clone(&self.shared),
        })
    }
}

impl Reply {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self {
            answer: Answer::Refused(refusal),
            delivery: None,
        }
    }
}

impl Delivery {
    pub(super) fn new(tokens: Vec<Token>, messages: Sender) -> Self {
        Self { tokens, messages }
    }

    /// The batches were written to the worker's connection.
    pub fn delivered(mut self) {
        let tokens = std::mem::take(&mut self.tokens);
        drop(self.messages.send(Message::Delivered(tokens)));
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.tokens.is_empty() {
            let tokens = std::mem::take(&mut self.tokens);
            drop(self.messages.send(Message::Undelivered(tokens)));
        }
    }
}

/// Held by a thread; dropped in a panic it tells the driver.
#[derive(Debug)]
pub(super) struct PanicWatch(Handle);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send(Message::Panicked);
        }
    }
}

/// Counts one open call.
struct OpenCall {
    call: CallId,
    shared: Arc<Shared>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.shared.open_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reports a caller that went away before its answer.
struct GoneGuard {
    open: OpenCall,
    armed: bool,
}

impl Drop for GoneGuard {
    fn drop(&mut self) {
        if self.armed {
            drop(self.open.shared.messages.send(Message::Gone(self.open.call)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::port::{Inbound, Port};
    use crate::server::port::{ChannelPort, port};

    /// A commit thread that panicked left the driver waiting for its commit for ever, and every caller with it.
    #[test]
    fn a_panic_in_a_thread_under_the_driver_reaches_it() {
        let (handle, mut port) = port(8);
        let watch = handle.watch_panic();
        drop(handle.watch_panic());
        assert!(port.take().is_none() && !port.is_broken());
        let thread = std::thread::spawn(move || {
            let _watch = watch;
            panic!("as a test of panics does");
        });
        thread.join().unwrap_err();
        assert!(port.take().is_none() && port.is_broken());
    }

    async fn left_without_answer(end: impl FnOnce(&Handle, ChannelPort)) -> Answer {
        let (handle, mut channel) = port(8);
        handle.set_ready();
        let caller = handle.clone();
        let call = tokio::spawn(async move { caller.call(Command::Lanes).await.answer });
        while channel
            .take()
            .is_none_or(|inbound| !matches!(inbound, Inbound::Call(..)))
        {
            tokio::task::yield_now().await;
        }
        end(&handle, channel);
        call.await.unwrap()
    }

    /// Submits that met the very end of a graceful stop heard `outcome_unknown`, so that a caller without a
    /// key could not try again, though nothing had been done.
    #[tokio::test]
    async fn a_call_that_a_stop_left_over_was_refused_and_not_begun() {
        let answer = left_without_answer(|handle, port| {
            handle.set_stopped();
            drop(port);
        });
        assert!(matches!(answer.await, Answer::Refused(Refusal::Draining)));
    }

    #[tokio::test]
    async fn a_call_that_a_failed_sync_left_over_may_have_been_done() {
        let answer = left_without_answer(|_, port| drop(port));
        assert!(matches!(answer.await, Answer::Refused(Refusal::OutcomeUnknown)));
    }
}

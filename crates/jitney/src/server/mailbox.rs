//! The driver's letter box: what handles send, in order, and when it is worth waking the driver for it.
//!
//! In: messages from any thread. Out: all that came, to the one thread that waits for it. A thread that sleeps is
//! woken at the price of two context switches, which under load is more than a submit costs by itself. So the driver
//! says how many letters that can wait it leaves unread: while a commit is under way they could not become durable
//! anyway, and what it sleeps for comes as a letter that cannot wait, or with the timeout.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handle::Message;

/// The driver's end. Dropped, it refuses every further letter.
#[derive(Debug)]
pub(super) struct Mailbox(Arc<Shared>);

/// Anyone's end. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender(Arc<Shared>);

/// The driver is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    worth_waking: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// How many of them can wait.
    can_wait: usize,
    /// How many of them the driver sleeps through; `None` while it runs, or was told to.
    sleeps_through: Option<usize>,
    closed: bool,
}

/// A mailbox and a sender to it.
pub(super) fn mailbox() -> (Sender, Mailbox) {
    let shared = Arc::new(Shared::default());
    (Sender(Arc::clone(&shared)), Mailbox(shared))
}

impl Sender {
    /// Sends a message.
    ///
    /// # Errors
    /// [`Closed`] if nobody will ever read it.
    pub(super) fn send(&self, message: Message) -> Result<(), Closed> {
        let mut queue = self.0.queue();
        if queue.closed {
            return Err(Closed);
        }
        queue.can_wait += usize::from(message.can_wait());
        queue.messages.push_back(message);
        let wake = queue.is_due();
        if wake {
            queue.sleeps_through = None;
        }
        drop(queue);
        if wake {
            self.0.worth_waking.notify_one();
        }
        Ok(())
    }
}

impl Mailbox {
    /// A sender to this mailbox.
    pub(super) fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.0))
    }

    /// Everything that came so far.
    pub(super) fn take(&self) -> VecDeque<Message> {
        self.0.queue().take()
    }

    /// Blocks until a message comes that cannot wait, or more than `unread_max` that can, or `timeout` is over, and
    /// takes what came.
    pub(super) fn wait(&self, unread_max: usize, timeout: Option<Duration>) -> VecDeque<Message> {
        let mut queue = self.0.queue();
        queue.sleeps_through = Some(unread_max);
        if queue.is_due() {
            return queue.take();
        }
        let asleep = |queue: &mut Queue| queue.sleeps_through.is_some();
        let woken = &self.0.worth_waking;
        let mut queue = match timeout {
            Some(timeout) => {
                let waited = woken.wait_timeout_while(queue, timeout, asleep);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => woken
                .wait_while(queue, asleep)
                .unwrap_or_else(PoisonError::into_inner),
        };
        queue.take()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        let unread = queue.take();
        // Outside of the lock: whoever waits for an answer to one of them is woken.
        drop(queue);
        drop(unread);
    }
}

impl Shared {
    /// A panic while it was held leaves nothing half done in it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self) -> VecDeque<Message> {
        self.sleeps_through = None;
        self.can_wait = 0;
        mem::take(&mut self.messages)
    }

    /// Whether the driver sleeps although there is something to do.
    fn is_due(&self) -> bool {
        self.sleeps_through
            .is_some_and(|unread_max| self.messages.len() > self.can_wait || self.can_wait > unread_max)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::sync::oneshot;

    use super::*;
    use crate::driver::port::{CallId, Command};

    const LONG: Option<Duration> = Some(Duration::from_secs(60));
    const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

    /// Of those that can wait.
    fn patient() -> Message {
        Message::Delivered(Vec::new())
    }

    #[test]
    fn any_message_wakes_a_driver_that_has_nothing_under_way() {
        let (sender, mailbox) = mailbox();
        let driver = thread::spawn(move || mailbox.wait(0, LONG).len());
        sender.send(patient()).unwrap();
        assert_eq!(driver.join().unwrap(), 1);
    }

    #[test]
    fn during_a_commit_what_can_wait_does() {
        let (sender, mailbox) = mailbox();
        sender.send(patient()).unwrap();
        let queue = &mailbox.0;
        queue.queue().sleeps_through = Some(1);
        assert!(!queue.queue().is_due());
        sender.send(Message::Nudge).unwrap();
        assert_eq!(queue.queue().sleeps_through, None);
        assert_eq!(mailbox.wait(1, NOT_AT_ALL).len(), 2);
        assert_eq!(mailbox.take().len(), 0);
    }

    #[test]
    fn many_that_can_wait_do_not() {
        let (sender, mailbox) = mailbox();
        let driver = thread::spawn(move || mailbox.wait(2, LONG).len());
        for _ in 0..3 {
            sender.send(patient()).unwrap();
        }
        assert_eq!(driver.join().unwrap(), 3);
    }

    #[test]
    fn a_timeout_takes_what_can_wait() {
        let (sender, mailbox) = mailbox();
        sender.send(patient()).unwrap();
        assert_eq!(mailbox.wait(1, NOT_AT_ALL).len(), 1);
    }

    #[test]
    fn nothing_is_sent_to_a_driver_that_is_gone() {
        let (sender, mailbox) = mailbox();
        let (reply, answer) = oneshot::channel();
        sender
            .send(Message::Call(CallId(1), Command::Lanes, reply))
            .unwrap();
        drop(mailbox);
        assert!(answer.blocking_recv().is_err());
        assert_eq!(sender.send(Message::Nudge), Err(Closed));
    }
}

//! The driver's port: calls come from [`Handle`]s through a mailbox, answers go back through oneshots.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use super::handle::{Delivery, Handle, Message, Reply};
use super::mailbox::{Mailbox, mailbox};
use crate::driver::port::{Answer, CallId, Inbound, Port};

/// The receiving end, owned by the driver's thread.
#[derive(Debug)]
pub struct ChannelPort {
    mailbox: Mailbox,
    /// Calls that wait for their answer.
    callers: HashMap<CallId, oneshot::Sender<Reply>>,
    /// What came out of the mailbox and [`Port::take`] has not taken.
    received: VecDeque<Message>,
    /// A thread that the driver depends on has panicked.
    broken: bool,
}

/// A port and its handle. `calls_max` bounds the calls that are open at once.
#[must_use]
pub fn port(calls_max: usize) -> (Handle, ChannelPort) {
    let (sender, mailbox) = mailbox();
    let handle = Handle::new(sender, calls_max);
    (
        handle,
        ChannelPort {
            mailbox,
            callers: HashMap::new(),
            received: VecDeque::new(),
            broken: false,
        },
    )
}

impl ChannelPort {
    /// Whether a thread that the driver depends on has panicked, so that the loop cannot go on.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Blocks until a message comes, or `timeout` is over; without a timeout, until a message comes. Of those that can
    /// wait `unread_max` are left to.
    pub fn wait(&mut self, unread_max: usize, timeout: Option<Duration>) {
        if self.received.is_empty() {
            self.received = self.mailbox.wait(unread_max, timeout);
        }
    }
}

impl Port for ChannelPort {
    fn take(&mut self) -> Option<Inbound> {
        loop {
            if self.received.is_empty() {
                self.received = self.mailbox.take();
            }
            let message = self.received.pop_front()?;
            return Some(match message {
                Message::Call(call, command, reply) => {
                    self.callers.insert(call, reply);
                    Inbound::Call(call, command)
                }
                Message::Gone(call) => {
                    self.callers.remove(&call);
                    Inbound::Gone(call)
                }
                Message::Hurry { call, hold_max } => Inbound::Hurry { call, hold_max },
                Message::Delivered(tokens) => Inbound::Delivered(tokens),
                Message::Undelivered(tokens) => Inbound::Undelivered(tokens),
                Message::Policies(policies) => Inbound::Policies(policies),
                Message::Stop { grace } => Inbound::Stop { grace },
                Message::Nudge => continue,
                Message::Panicked => {
                    self.broken = true;
                    return None;
                }
            });
        }
    }

    fn waits(&self, call: CallId) -> bool {
        self.callers.contains_key(&call)
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        let tokens = match &answer {
            Answer::Leased(leased) => leased.batches.iter().map(|batch| batch.token).collect(),
            _ => Vec::new(),
        };
        let delivery = (!tokens.is_empty()).then(|| Delivery::new(tokens, self.mailbox.sender()));
        // A caller that is gone drops its reply, and with it the delivery, which says so.
        if let Some(caller) = self.callers.remove(&call) {
            drop(caller.send(Reply { answer, delivery }));
        }
    }
}

//! The driver's port over channels: calls come from [`Handle`]s, answers go back through oneshots.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::handle::{Delivery, Handle, Message, Reply};
use crate::driver::port::{Answer, CallId, Inbound, Port};

/// The receiving end, owned by the driver's thread.
#[derive(Debug)]
pub struct ChannelPort {
    receiver: Receiver<Message>,
    /// For the [`Delivery`] of each answer that carries batches.
    sender: Sender<Message>,
    /// Calls that wait for their answer.
    callers: HashMap<CallId, oneshot::Sender<Reply>>,
    /// What [`ChannelPort::wait`] received and [`Port::take`] has not taken.
    received: VecDeque<Message>,
    /// A thread that the driver depends on has panicked.
    broken: bool,
}

/// A port and its handle. `calls_max` bounds the calls that are open at once.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "`calls_max` bounds what is in it, see handle.rs"
)]
pub fn port(calls_max: usize) -> (Handle, ChannelPort) {
    let (sender, receiver) = channel();
    let handle = Handle::new(sender.clone(), calls_max);
    (
        handle,
        ChannelPort {
            receiver,
            sender,
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

    /// Blocks until a message comes, or `timeout` is over; without a timeout, until a message comes.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        if !self.received.is_empty() {
            return;
        }
        let message = match timeout {
            Some(timeout) => self.receiver.recv_timeout(timeout),
            // `sender` keeps the channel open, so that this ends only with a message.
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        self.received.extend(message);
    }
}

impl Port for ChannelPort {
    fn take(&mut self) -> Option<Inbound> {
        loop {
            let message = self
                .received
                .pop_front()
                .or_else(|| self.receiver.try_recv().ok())?;
            return Some(match message {
                Message::Call(call, command, reply) => {
                    self.callers.insert(call, reply);
                    Inbound::Call(call, command)
                }
                Message::Gone(call) => {
                    self.callers.remove(&call);
                    Inbound::Gone(call)
                }
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
        let delivery = (!tokens.is_empty()).then(|| Delivery::new(tokens, self.sender.clone()));
        // A caller that is gone drops its reply, and with it the delivery, which says so.
        if let Some(caller) = self.callers.remove(&call) {
            drop(caller.send(Reply { answer, delivery }));
        }
    }
}

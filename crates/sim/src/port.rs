//! The simulated port: a queue in, and the tape out.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use jitney::driver::port::{Answer, CallId, Inbound, Port};

use crate::mutants::{PortMutant, Sabotage};
use crate::tape::{Seen, Tape};

/// Takes in one turn beyond which the turn counts as one that never ends.
const TAKES_MAX: u64 = 1_000_000;

/// The driver's end of the port; the world holds the same state.
#[derive(Debug)]
pub(crate) struct SimPort {
    state: Rc<RefCell<PortState>>,
    tape: Tape,
}

/// What is on its way in, and who is there.
#[derive(Debug, Default)]
pub(crate) struct PortState {
    inbox: VecDeque<Inbound>,
    /// Calls whose callers are still there.
    present: BTreeSet<CallId>,
    /// Takes in the present turn.
    takes: u64,
    sabotage: Sabotage,
    /// An answer that a mutant holds back, to give it to another call.
    held: Option<(CallId, Answer)>,
}

impl PortState {
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        Self {
            sabotage,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, inbound: Inbound) {
        if let Inbound::Call(call, _) = &inbound {
            self.present.insert(*call);
        }
        self.inbox.push_back(inbound);
    }

    /// The caller hung up; the driver hears of it by `Gone`.
    pub(crate) fn hang_up(&mut self, call: CallId) {
        self.present.remove(&call);
    }

    pub(crate) const fn begin_turn(&mut self) {
        self.takes = 0;
    }
}

impl SimPort {
    pub(crate) const fn new(state: Rc<RefCell<PortState>>, tape: Tape) -> Self {
        Self { state, tape }
    }
}

impl Port for SimPort {
    fn take(&mut self) -> Option<Inbound> {
        let mut state = self.state.borrow_mut();
        state.takes += 1;
        assert!(state.takes < TAKES_MAX, "a turn of the driver does not end");
        let mut inbound = state.inbox.pop_front()?;
        let seen = match &inbound {
            Inbound::Call(call, _) => Seen::Call(*call),
            Inbound::Gone(call) => Seen::Gone(*call),
            // No simulated caller stops sending and waits on: to the checker it is as good as gone.
            Inbound::Hurry { call, .. } => Seen::Gone(*call),
            Inbound::Delivered(tokens) => Seen::Delivered(tokens.clone()),
            Inbound::Undelivered(tokens) => Seen::Undelivered(tokens.clone()),
            Inbound::Policies(policies) => Seen::Policies(Box::new(policies.clone())),
            Inbound::Stop { .. } => Seen::Stop,
        };
        self.tape.borrow_mut().push(seen);
        state.sabotage.spoil_inbound(&mut inbound);
        Some(inbound)
    }

    fn waits(&self, call: CallId) -> bool {
        self.state.borrow().present.contains(&call)
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        let mut state = self.state.borrow_mut();
        state.present.remove(&call);
        if state.sabotage.is(PortMutant::ForgetCall) && call.0.is_multiple_of(11) {
            return;
        }
        let (mut call, mut answer) = (call, answer);
        if state.sabotage.is(PortMutant::AnswerWrongCall) && matches!(answer, Answer::Submitted(_)) {
            // Two answers change places; a lone one waits for its pair.
            match state.held.take() {
                None => {
                    state.held = Some((call, answer));
                    return;
                }
                Some((other_call, other)) => {
                    self.tape.borrow_mut().push(Seen::Answer(call, Box::new(other)));
                    (call, answer) = (other_call, answer);
                }
            }
        }
        if state.sabotage.is(PortMutant::AnswerTwice)
            && let Answer::Leased(leased) = &answer
        {
            let again = Answer::Leased(jitney::driver::port::Leased {
                settled: leased.settled.clone(),
                batches: leased.batches.clone(),
                draining: leased.draining,
            });
            self.tape.borrow_mut().push(Seen::Answer(call, Box::new(again)));
        }
        state.sabotage.spoil_answer(&mut answer);
        self.tape.borrow_mut().push(Seen::Answer(call, Box::new(answer)));
    }
}

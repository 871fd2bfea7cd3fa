//! The tape: everything that passes the driver's two doors, port and bus, in the order in which it passed.
//!
//! Written by [`crate::port::SimPort`] and [`crate::observed::ObservedBus`], read by the checker after each
//! turn. What is taped is the truth of the doors' outer sides: a mutant that lies to the driver lies behind it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use jitney::bus::{AppendError, Durability, Failure, Ticket};
use jitney::driver::port::{Answer, CallId};
use jitney::job::{Cause, End, JobId, Reason, Token};
use jitney::policy::PolicyBook;

/// A tape that two writers and a reader share.
pub(crate) type Tape = Rc<RefCell<Vec<Seen>>>;

/// One thing at one of the doors.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The driver took a call; its maker knows what is in it.
    Call(CallId),
    Gone(CallId),
    Delivered(Vec<Token>),
    Undelivered(Vec<Token>),
    Policies(Box<PolicyBook>),
    Stop,
    /// The driver answered.
    Answer(CallId, Box<Answer>),
    /// The driver appended.
    Append {
        records: Vec<Written>,
        durability: Durability,
        result: Result<Ticket, AppendError>,
    },
    /// The bus reported.
    Bus(Report),
}

/// What the bus reported, as far as the checker asks.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    Written(Ticket),
    Durable(Ticket),
    Failed(Ticket, Failure),
    Arrived {
        id: JobId,
        attempts: u32,
        crashes: u32,
        fresh: bool,
        due: bool,
    },
    Outcome(JobId),
    Leased(Restored),
    Ready,
    SpaceReturned,
    Closed,
    Broken,
    Gone(JobId),
    /// The name, and the value if it has one.
    Setting(String, Option<Bytes>),
}

/// A lease of before the restart.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub token: Token,
    pub in_process: bool,
    pub delivered: bool,
    pub term: Duration,
    pub jobs: Vec<JobId>,
}

/// A record on its way to the bus.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Submit {
        id: JobId,
        parent: Option<JobId>,
        /// Its place in the order of acceptance.
        sequence: u64,
        data: Bytes,
    },
    Dispatch {
        token: Token,
        worker: String,
        request_id: Option<String>,
        in_process: bool,
        jobs: Vec<JobId>,
    },
    Delivered(Token),
    Outcome(Ended),
    Return {
        id: JobId,
        cause: Cause,
        token: Token,
        alone: bool,
        attempts: u32,
        crashes: u32,
    },
    /// The name, and the value if it is not removed.
    Setting(String, Option<Bytes>),
}

/// The end of a job, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub id: JobId,
    pub end: End,
    pub reason: Option<Reason>,
    pub token: Option<Token>,
    pub attempts: u32,
    pub crashes: u32,
    pub result: Bytes,
    pub code: Option<String>,
    pub children: u32,
}

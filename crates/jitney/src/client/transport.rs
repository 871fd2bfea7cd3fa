//! How a client reaches its jitney: over HTTP, or by calls in the same process.
//!
//! In: what callers and workers say. Out: what jitney says to it, once. Trying again is the client's.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::control::{Policy, PolicyChange, PolicyScope};
use super::error::Error;
use super::job::{Info, Job, Lanes};
use super::many::AllHeld;
use super::submit::{Submit, Submitted};
use super::work::{Extended, LeaseAnswer, LeaseRequest, Settle, SettleAnswer};
use crate::job::{JobId, Priority};

/// An answer on its way.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The calls that a jitney takes; each is one try. Dropping an answer takes the call back as far as that is
/// still possible.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// Where the jitney is, for people.
    fn address(&self) -> &str;

    /// Whether it has ended for good, so that no call will ever be taken again.
    fn is_over(&self) -> bool {
        false
    }

    /// Takes a job; answers once it is durable, or with `wait` once it has ended or the wait is over.
    fn submit<'a>(&'a self, submit: &'a Submit, wait: Option<Duration>) -> Answer<'a, Submitted>;

    /// Takes many jobs, each on its own; answers once all that it takes are durable, or with `wait` once all of the last
    /// request's have ended or the wait is over.
    fn submit_many<'a>(&'a self, submits: &'a [&'a Submit], wait: Option<Duration>) -> Answer<'a, AllHeld>;

    /// Shows a job; with `wait` once it has ended or the wait is over.
    fn get(&self, id: JobId, wait: Option<Duration>) -> Answer<'_, Job>;

    /// Counts the lanes.
    fn lanes(&self) -> Answer<'_, Lanes>;

    /// Pauses a lane, or resumes it; answers once that is durable.
    fn set_paused<'a>(&'a self, processor: &'a str, priority: Priority, paused: bool) -> Answer<'a, ()>;

    /// Shows the policy in force; with a change, once that is durable.
    fn policy<'a>(
        &'a self,
        processor: &'a str,
        scope: &'a PolicyScope,
        change: PolicyChange<'a>,
    ) -> Answer<'a, Policy>;

    /// Describes the jitney.
    fn info(&self) -> Answer<'_, Info>;

    /// Says whether it is alive; with `ready`, whether it can take work.
    fn health(&self, ready: bool) -> Answer<'_, ()>;

    /// Gives batches to a worker.
    fn lease<'a>(&'a self, processor: &'a str, request: &'a LeaseRequest) -> Answer<'a, LeaseAnswer>;

    /// Takes outcomes.
    fn settle<'a>(&'a self, settle: &'a Settle) -> Answer<'a, SettleAnswer>;

    /// Extends a lease.
    fn extend<'a>(&'a self, lease: &'a str) -> Answer<'a, Extended>;
}

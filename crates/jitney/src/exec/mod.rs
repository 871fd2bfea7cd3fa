//! `jitney work --exec`: batches through a program in any language, over its standard input and output.
//!
//! In: a command, and how many children it may have. Out: outcomes, settled as the children write them. The
//! contract with the program is docs/exec_protocol.md. A child is a slot of the worker's engine; it lives on
//! from batch to batch, and one that dies is replaced.

mod advice;
mod child;
mod line;
mod lines;
mod mend;
mod once;
pub(crate) mod orphans;
mod silence;
mod slot;
mod stderr;
mod talk;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{self, Client};
use crate::job::Priority;
use crate::worker::engine::{self, EngineOptions};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use line::{Said, read, write_job};

pub use advice::shell_operator;
use child::Program;
use once::OnceSlot;
use slot::ChildSlot;

/// What to run for whose jobs.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Of the server.
    pub client: Client,
    /// Whose jobs.
    pub processor: String,
    /// The program and its arguments; [`words`] makes them of a command line.
    pub command: Vec<String>,
    /// How many children; at least 1.
    pub concurrency: usize,
    /// The worker's name, 1 to 128 bytes.
    pub worker: String,
    /// Most jobs in a batch, if fewer than the policy's.
    pub max_jobs: Option<u32>,
    /// Only these lanes; empty means all.
    pub priorities: Vec<Priority>,
    /// How long a child may go on with its batch after the wish to stop.
    pub grace: Duration,
    /// A fresh child per batch, whose standard input ends after it, and whose exit with 0 says that all is done.
    pub once: bool,
}

/// Why a program is no longer fed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command names no program. For whoever wrote it.
    #[error("the command is empty")]
    NoCommand,
    /// The program cannot be started. For whoever wrote the command, or installs the program.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server refuses the worker for good.
    #[error(transparent)]
    Server(#[from] client::Error),
}

impl Error {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Start { program, source } => advice::of_start(program, source),
            Self::NoCommand | Self::Server(_) => None,
        }
    }
}

/// Splits a command line into words as a shell would, without running one; `None` if a quote is left open.
#[must_use]
pub fn words(command: &str) -> Option<Vec<String>> {
    shlex::split(command)
}

/// Feeds batches to the program until `stop` is ready; then lets each child finish, for at most the grace.
///
/// # Errors
/// [`Error`]: the program cannot be started at the beginning, or the server refuses the worker.
pub async fn run(options: ExecOptions, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let first = options.command.first().ok_or(Error::NoCommand)?.clone();
    let program = Arc::new(Program {
        words: options.command,
        worker: options.worker.clone(),
    });
    let failed = |source| Error::Start {
        program: first.clone(),
        source,
    };
    let numbers = 1..=options.concurrency.max(1);
    let once = options.once;
    let options = EngineOptions {
        client: options.client,
        processor: options.processor,
        worker: options.worker,
        max_jobs: options.max_jobs,
        priorities: options.priorities,
        grace: options.grace,
    };
    if once {
        let slots = numbers.map(|number| OnceSlot::new(&program, number).map_err(failed));
        let slots = slots.collect::<Result<_, _>>()?;
        return Ok(Box::pin(engine::run(options, slots, stop)).await?);
    }
    let slots = numbers.map(|number| ChildSlot::start(&program, number).map_err(failed));
    let slots = slots.collect::<Result<_, _>>()?;
    Ok(Box::pin(engine::run(options, slots, stop)).await?)
}

//! A fresh child per batch, for plain scripts: standard input ends after the batch, and exit code 0 means done.
//!
//! In: a batch. Out: the outcomes that the child writes, if it writes any; else every job is done once the child
//! exits with 0, and the batch failed as a whole if it exits otherwise.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::child::{Child, Next, Program};
use super::line::{self, Said};
use super::lines::Line;
use crate::client::{BatchError, Outcome};
use crate::entropy::jittered;
use crate::job::JobId;
use crate::worker::engine::{Running, Slot, Stop, ids};
use crate::worker::settle::Ending;

/// The pause after a program that could not be started, or died of a signal.
const PAUSE: Duration = Duration::from_secs(1);

/// A place for one child at a time.
#[derive(Debug)]
pub(super) struct OnceSlot {
    program: Arc<Program>,
    number: usize,
    /// The next child waits for the pause.
    hurt: bool,
}

impl OnceSlot {
    /// A slot, if the program is there.
    pub(super) fn new(program: &Arc<Program>, number: usize) -> io::Result<Self> {
        let name = program.words.first().map_or("", String::as_str);
        if !is_there(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self {
            program: Arc::clone(program),
            number,
            hurt: false,
        })
    }
}

/// Whether a program can be found, as the system looks for it: by its path, or in the folders of PATH.
fn is_there(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

impl Slot for OnceSlot {
    fn is_ready(&mut self) -> bool {
        !self.hurt
    }

    async fn prepare(&mut self) {
        sleep(jittered(PAUSE)).await;
        self.hurt = false;
    }

    async fn run(&mut self, mut running: Running) -> Ending {
        let order = ids(&running.batch);
        let mut child = match Child::start(&self.program, self.number) {
            Ok(child) => child,
            Err(error) => {
                warn!(worker = self.program.worker, child = self.number, %error, "child not started");
                self.hurt = true;
                return Ending::Released(order);
            }
        };
        child.give(&mut running.batch);
        child.end_input_after_batch();
        let mut talk = Talk {
            open: order.iter().copied().collect(),
            child: &mut child,
            running,
            spoke: false,
            ended_early: None,
        };
        let ending = talk.run(&order).await;
        self.hurt = matches!(ending, Ending::Failed { crashed: true, .. });
        child.bury().await;
        ending
    }

    async fn close(self, _: Stop) {}
}

/// One batch with its child.
struct Talk<'a> {
    child: &'a mut Child,
    running: Running,
    /// Jobs without an outcome.
    open: HashSet<JobId>,
    /// It wrote an outcome or an end: it speaks the protocol.
    spoke: bool,
    ended_early: Option<Ending>,
}

impl Talk<'_> {
    async fn run(&mut self, order: &[JobId]) -> Ending {
        let stop = self.running.stop.clone();
        let lost = Arc::clone(&self.running.lost);
        let (mut aborting, mut given_up) = (false, false);
        // A wish to stop changes nothing before the grace is over: an input that ended early would be taken for a
        // whole batch.
        loop {
            tokio::select! {
                next = self.child.next() => match next {
                    Next::Line(line) => self.heard(&line).await,
                    Next::Fed => {}
                    Next::Ended => break,
                },
                () = stop.abort.cancelled(), if !aborting => {
                    aborting = true;
                    self.child.terminate();
                }
                () = lost.all_lost(), if !given_up => {
                    given_up = true;
                    warn!(batch = self.running.batch.batch, "batch lost, ending its child");
                    self.child.terminate();
                }
            }
        }
        let open: Vec<JobId> = order
            .iter()
            .copied()
            .filter(|id| self.open.contains(id))
            .collect();
        match self.ended_early.take() {
            Some(ending) => ending,
            None if open.is_empty() => Ending::Complete,
            None if aborting || given_up => Ending::Released(open),
            None => self.verdict(&open).await,
        }
    }

    /// What the exit says of the jobs that the child said nothing of.
    async fn verdict(&mut self, open: &[JobId]) -> Ending {
        match self.child.exit_code() {
            Some(0) => {
                if !self.spoke {
                    for id in open {
                        let done = Outcome::json(*id, &(), Vec::new());
                        let done = done.expect("`null` can always be written as JSON");
                        self.running.outbox.push(done).await;
                    }
                }
                Ending::Complete
            }
            code => {
                let message = self.child.epitaph();
                let crashed = code.is_none();
                warn!(
                    batch = self.running.batch.batch,
                    how = message,
                    jobs = open.len(),
                    "batch failed"
                );
                Ending::Failed {
                    error: BatchError {
                        code: if crashed { "crashed" } else { "exit_code" }.to_owned(),
                        message,
                    },
                    crashed,
                }
            }
        }
    }

    async fn heard(&mut self, line: &Line) {
        if line.partial {
            return self.child.protocol_error(line, &"the line is too long");
        }
        let batch = &self.running.batch.batch;
        match line::read(&line.bytes) {
            Ok(Said::Nothing) => {}
            Ok(Said::Outcome(outcome)) if self.open.remove(&outcome.id) => {
                self.spoke = true;
                self.running.outbox.push(outcome).await;
            }
            Ok(Said::Outcome(_)) => self
                .child
                .protocol_error(line, &"the job is not in this batch, or has its outcome"),
            Ok(Said::Done(of)) if of == *batch => {
                self.spoke = true;
                self.ended_early.get_or_insert(Ending::Complete);
            }
            Ok(Said::Failed(of, error)) if of == *batch => {
                self.spoke = true;
                self.ended_early.get_or_insert(Ending::Failed {
                    error,
                    crashed: false,
                });
            }
            Ok(Said::Done(_) | Said::Failed(..)) => {
                self.child.protocol_error(line, &"it names another batch");
            }
            Err(error) => self.child.protocol_error(line, &error),
        }
    }
}

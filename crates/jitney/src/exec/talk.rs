//! One batch with one child: its lines go in, its outcomes come out.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::warn;

use super::child::{Child, Next};
use super::line::{self, Said};
use super::lines::Line;
use super::silence::Silence;
use crate::job::JobId;
use crate::worker::engine::Running;
use crate::worker::settle::Ending;

/// One batch with one child.
pub(super) struct Talk<'a> {
    child: &'a mut Child,
    running: Running,
    /// Jobs without an outcome.
    open: HashSet<JobId>,
    /// The line that comes first was begun before the batch.
    leftover: bool,
    silence: Silence,
}

/// How a talk ended.
pub(super) enum Talked {
    /// The batch ended, and the child lives on.
    Ended(Ending),
    /// The child ended as it was asked to.
    Stopped(Ending),
    /// The child died, with these jobs open.
    Died(Vec<JobId>),
}

impl<'a> Talk<'a> {
    /// Gives the batch to the child.
    pub(super) fn begin(child: &'a mut Child, mut running: Running, order: &[JobId]) -> Self {
        child.give(&mut running.batch);
        Self {
            open: order.iter().copied().collect(),
            leftover: child.is_mid_line(),
            silence: Silence::begin(),
            child,
            running,
        }
    }

    pub(super) async fn run(&mut self, order: &[JobId]) -> Talked {
        let stop = self.running.stop.clone();
        let lost = Arc::clone(&self.running.lost);
        let (mut finishing, mut aborting, mut given_up) = (false, false, false);
        while !self.open.is_empty() {
            tokio::select! {
                next = self.child.next() => match next {
                    Next::Line(line) => {
                        if let Some(ending) = self.heard(&line).await {
                            return Talked::Ended(ending);
                        }
                    }
                    Next::Fed => {}
                    Next::Ended => {
                        let open = order.iter().copied().filter(|id| self.open.contains(id)).collect();
                        return match finishing || given_up {
                            true => Talked::Stopped(Ending::Released(open)),
                            false => Talked::Died(open),
                        };
                    }
                },
                () = stop.finish.cancelled(), if !finishing => {
                    finishing = true;
                    self.child.end_input();
                }
                () = stop.abort.cancelled(), if !aborting => {
                    aborting = true;
                    self.child.terminate();
                }
                other_lines = self.silence.lasts() => {
                    let batch = &self.running.batch.batch;
                    self.child.silent(batch, self.open.len(), other_lines);
                }
                () = lost.all_lost(), if !given_up => {
                    // It ran longer than a batch may, or the server was away for longer than the lease: what
                    // the child still does is of no use, and it may hang.
                    given_up = true;
                    warn!(batch = self.running.batch.batch, "batch lost, ending its child");
                    self.child.terminate();
                }
            }
        }
        Talked::Ended(Ending::Complete)
    }

    /// What a line changes; an ending if it ends the batch.
    async fn heard(&mut self, line: &Line) -> Option<Ending> {
        if std::mem::take(&mut self.leftover) {
            self.child.unexpected(line);
            return None;
        }
        if line.partial {
            self.child.protocol_error(line, &"the line is too long");
            return None;
        }
        self.silence.other_line();
        let batch = &self.running.batch.batch;
        match line::read(&line.bytes) {
            Ok(Said::Nothing) => {}
            Ok(Said::Outcome(outcome, mended)) if self.open.remove(&outcome.id) => {
                self.silence.broken();
                self.child.mended(batch, Some(outcome.id), mended);
                self.running.outbox.push(outcome).await;
            }
            Ok(Said::Outcome(..)) => self
                .child
                .protocol_error(line, &"the job is not in this batch, or has its outcome"),
            Ok(Said::Done(of)) if of == *batch => return Some(Ending::Complete),
            Ok(Said::Failed(of, error, mended)) if of == *batch => {
                self.child.mended(batch, None, mended);
                return Some(Ending::Failed {
                    error,
                    crashed: false,
                });
            }
            Ok(Said::Done(_) | Said::Failed(..)) => {
                self.child.protocol_error(line, &"it names another batch")
            }
            Err(error) => self.child.protocol_error(line, &error),
        }
        None
    }
}

//! A batch through a child: its lines go in, its outcomes come out, whatever the child does meanwhile.

use std::collections::HashSet;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::child::{Child, Next, Program};
use super::line::{self, Said};
use super::lines::Line;
use crate::client::BatchError;
use crate::entropy::jittered;
use crate::job::JobId;
use crate::worker::engine::{Running, Slot, Stop, ids};
use crate::worker::settle::Ending;

/// The pause before a child is started for the third time without a batch that ended; it doubles.
const RESTART_FIRST: Duration = Duration::from_millis(100);

/// The longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(30);

/// So many lines behind a batch are read before the next; a child that never stops must not stop its slot.
const LEFTOVERS_MAX: usize = 10_000;

/// How long a child may take to read past the lines of a batch that it ended early.
const READ_ON: Duration = Duration::from_secs(30);

/// One child, or the place of one.
#[derive(Debug)]
pub(super) struct ChildSlot {
    program: Arc<Program>,
    number: usize,
    child: Option<Child>,
    /// Deaths and failed starts since a batch ended.
    failures: u32,
}

impl ChildSlot {
    /// A slot with its child, started.
    pub(super) fn start(program: &Arc<Program>, number: usize) -> std::io::Result<Self> {
        Ok(Self {
            program: Arc::clone(program),
            number,
            child: Some(Child::start(program, number)?),
            failures: 0,
        })
    }

    /// The child, ready for a batch: one that died in the meantime is replaced at once.
    async fn ready_child(&mut self) -> Option<&mut Child> {
        if !self.is_ready() {
            self.drop_dead().await;
            match Child::start(&self.program, self.number) {
                Ok(child) => self.child = Some(child),
                Err(error) => {
                    warn!(worker = self.program.worker, child = self.number, %error, "child not started");
                    self.failures += 1;
                }
            }
        }
        self.child.as_mut()
    }

    /// Lets go of a child that takes no more batches.
    async fn drop_dead(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        child.end_input();
        child.terminate();
        loop {
            match child.next().await {
                Next::Line(line) => child.unexpected(&line),
                Next::Fed => {}
                Next::Ended => break,
            }
        }
        child.bury().await;
    }

    /// Writes what is left of a batch that ended early.
    async fn write_rest(&mut self) {
        while let Some(child) = self.child.as_mut()
            && child.is_behind()
        {
            match child.next().await {
                Next::Line(line) => child.unexpected(&line),
                Next::Fed => {}
                Next::Ended => return,
            }
        }
    }

    /// Reads what the child wrote behind its last batch. None of it may count for the next, which may hold the same job
    /// again.
    async fn read_leftovers(&mut self) {
        // The runtime looks at the pipe meanwhile.
        yield_now().await;
        for _ in 0..LEFTOVERS_MAX {
            let Some(child) = self.child.as_mut() else { return };
            let next = tokio::select! {
                biased;
                next = unconstrained(child.next()) => next,
                () = ready(()) => return,
            };
            match next {
                Next::Line(line) => child.unexpected(&line),
                Next::Fed => {}
                Next::Ended => return,
            }
        }
    }

    /// The pause before the next start.
    fn pause(&self) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            more => {
                let doubled = 1_u32.checked_shl(more - 2).unwrap_or(u32::MAX).max(1);
                jittered(RESTART_FIRST.saturating_mul(doubled).min(RESTART_MAX))
            }
        }
    }
}

impl Slot for ChildSlot {
    fn is_ready(&mut self) -> bool {
        self.child.as_mut().is_some_and(Child::is_ready)
    }

    async fn prepare(&mut self) {
        if timeout(READ_ON, self.write_rest()).await.is_err() {
            warn!(
                worker = self.program.worker,
                child = self.number,
                "child reads no further, replacing it"
            );
        }
        while !self.is_ready() {
            sleep(self.pause()).await;
            self.ready_child().await;
        }
    }

    async fn run(&mut self, mut running: Running) -> Ending {
        let open = ids(&running.batch);
        self.read_leftovers().await;
        let Some(child) = self.ready_child().await else {
            return Ending::Released(open);
        };
        child.give(&mut running.batch);
        let mut talk = Talk {
            open: open.iter().copied().collect(),
            leftover: child.is_mid_line(),
            child,
            running,
        };
        let (ending, lives) = talk.run(&open).await;
        match &ending {
            Ending::Failed { crashed: true, .. } => {
                self.failures += 1;
                self.bury().await;
            }
            _ if !lives => self.bury().await,
            _ => self.failures = 0,
        }
        ending
    }

    async fn close(mut self, stop: Stop) {
        if let Some(child) = self.child.take() {
            child.end(&stop).await;
        }
    }
}

impl ChildSlot {
    async fn bury(&mut self) {
        if let Some(child) = self.child.take() {
            child.bury().await;
        }
    }
}

/// One batch with one child.
struct Talk<'a> {
    child: &'a mut Child,
    running: Running,
    /// Jobs without an outcome.
    open: HashSet<JobId>,
    /// The line that comes first was begun before the batch.
    leftover: bool,
}

impl Talk<'_> {
    /// How the batch ended, and whether the child lives.
    async fn run(&mut self, order: &[JobId]) -> (Ending, bool) {
        let stop = self.running.stop.clone();
        let lost = Arc::clone(&self.running.lost);
        let (mut finishing, mut aborting, mut given_up) = (false, false, false);
        while !self.open.is_empty() {
            tokio::select! {
                next = self.child.next() => match next {
                    Next::Line(line) => {
                        if let Some(ending) = self.heard(&line).await {
                            return (ending, true);
                        }
                    }
                    Next::Fed => {}
                    Next::Ended => return (self.died(order, finishing || given_up), false),
                },
                () = stop.finish.cancelled(), if !finishing => {
                    finishing = true;
                    self.child.end_input();
                }
                () = stop.abort.cancelled(), if !aborting => {
                    aborting = true;
                    self.child.terminate();
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
        (Ending::Complete, true)
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
        let batch = &self.running.batch.batch;
        match line::read(&line.bytes) {
            Ok(Said::Nothing) => {}
            Ok(Said::Outcome(outcome)) if self.open.remove(&outcome.id) => {
                self.running.outbox.push(outcome).await;
            }
            Ok(Said::Outcome(_)) => self
                .child
                .protocol_error(line, &"the job is not in this batch, or has its outcome"),
            Ok(Said::Done(of)) if of == *batch => return Some(Ending::Complete),
            Ok(Said::Failed(of, error)) if of == *batch => {
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

    /// The child died: a crash, unless it was asked to end.
    fn died(&self, order: &[JobId], asked: bool) -> Ending {
        if asked {
            let open = order.iter().filter(|id| self.open.contains(id));
            return Ending::Released(open.copied().collect());
        }
        let message = self.child.epitaph();
        warn!(
            batch = self.running.batch.batch,
            how = message,
            jobs = self.open.len(),
            "child died"
        );
        Ending::Failed {
            error: BatchError {
                code: "crashed".to_owned(),
                message,
            },
            crashed: true,
        }
    }
}

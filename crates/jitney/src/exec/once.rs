//! A fresh child per batch, for plain scripts: standard input ends after the batch, and exit code 0 means done.
//!
//! In: a batch. Out: the outcomes that the child writes, if it writes any; else every job is done once the child
//! exits with 0, and the batch failed as a whole if it exits otherwise.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, warn};

use super::advice;
use super::child::{Child, Life, Next, Program};
use super::line::{self, Said};
use super::lines::Line;
use crate::client::{BatchError, Outcome};
use crate::entropy::jittered;
use crate::job::JobId;
use crate::worker::engine::{Running, Slot, Stop, ids};
use crate::worker::settle::Ending;

/// The pause after a program that did not start, or died of a signal; it doubles each time that it does not start.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A place for one child at a time.
#[derive(Debug)]
pub(super) struct OnceSlot {
    program: Arc<Program>,
    number: usize,
    /// The next child waits for the pause.
    hurt: bool,
    /// How often in a row it did not start.
    failures: u32,
    /// Why it does not start.
    trouble: Option<String>,
}

/// What the end of a child says of the jobs that it said nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    /// It left them out of what it said.
    LeftOut,
    /// It read nothing: none of them can be at fault.
    NotStarted,
    Failed,
    Crashed,
}

impl OnceSlot {
    /// A slot, if the program is there.
    pub(super) fn new(program: &Arc<Program>, number: usize) -> io::Result<Self> {
        advice::look(program.name())?;
        Ok(Self {
            program: Arc::clone(program),
            number,
            hurt: false,
            failures: 0,
            trouble: None,
        })
    }

    fn not_started(&mut self, how: String) {
        self.hurt = true;
        self.failures += 1;
        self.trouble = Some(how);
    }
}

impl Slot for OnceSlot {
    fn is_ready(&mut self) -> bool {
        !self.hurt
    }

    async fn prepare(&mut self) {
        sleep(jittered(pause_after(self.failures))).await;
        self.hurt = false;
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().filter(|_| self.hurt)
    }

    async fn run(&mut self, mut running: Running) -> Ending {
        let order = ids(&running.batch);
        let mut child = match Child::start(&self.program, self.number, Life::OneBatch) {
            Ok(child) => child,
            Err(error) => {
                error!(worker = self.program.worker, child = self.number, %error, "child not started");
                self.not_started(format!("`{}` cannot be started: {error}", self.program.name()));
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
        let (ending, verdict) = talk.run(&order).await;
        let (batch, how) = (talk.running.batch.batch, child.epitaph());
        let stderr = child.bury().await;
        self.hurt = verdict == Some(Verdict::Crashed);
        match verdict {
            Some(Verdict::NotStarted) => {
                error!(
                    worker = self.program.worker,
                    child = self.number,
                    batch,
                    how,
                    stderr,
                    "the program does not start: it ended before it read anything; no job is lost, and none is counted as tried"
                );
                self.not_started(how);
                return ending;
            }
            Some(Verdict::Failed | Verdict::Crashed) => {
                let jobs = order.len();
                warn!(
                    worker = self.program.worker,
                    child = self.number,
                    batch,
                    jobs,
                    how,
                    stderr,
                    "batch failed"
                );
            }
            Some(Verdict::Done | Verdict::LeftOut) | None => {}
        }
        self.failures = 0;
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
    /// How the batch ended, and what the child's end says, where it says something.
    async fn run(&mut self, order: &[JobId]) -> (Ending, Option<Verdict>) {
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
            Some(ending) => (ending, None),
            None if open.is_empty() => (Ending::Complete, None),
            None if aborting || given_up => (Ending::Released(open), None),
            None => self.judge(open).await,
        }
    }

    /// What the exit says of the jobs that the child said nothing of.
    async fn judge(&mut self, open: Vec<JobId>) -> (Ending, Option<Verdict>) {
        let verdict = verdict(self.child.exit_code(), self.spoke, self.child.is_untouched());
        let failed = |code: &str, crashed| Ending::Failed {
            error: BatchError {
                code: code.to_owned(),
                message: self.child.died(&self.running.batch.batch),
            },
            crashed,
        };
        let ending = match verdict {
            Verdict::Done => {
                for id in open {
                    let done = Outcome::json(id, &(), Vec::new());
                    let done = done.expect("`null` can always be written as JSON");
                    self.running.outbox.push(done).await;
                }
                Ending::Complete
            }
            Verdict::LeftOut => Ending::Complete,
            Verdict::NotStarted => Ending::Released(open),
            Verdict::Failed => failed("exit_code", false),
            Verdict::Crashed => failed("crashed", true),
        };
        (ending, Some(verdict))
    }

    async fn heard(&mut self, line: &Line) {
        if line.partial {
            return self.child.protocol_error(line, &"the line is too long");
        }
        let batch = &self.running.batch.batch;
        match line::read(&line.bytes) {
            Ok(Said::Nothing) => {}
            Ok(Said::Outcome(outcome, mended)) if self.open.remove(&outcome.id) => {
                self.child.mended(batch, Some(outcome.id), mended);
                self.spoke = true;
                self.running.outbox.push(outcome).await;
            }
            Ok(Said::Outcome(..)) => self
                .child
                .protocol_error(line, &"the job is not in this batch, or has its outcome"),
            Ok(Said::Done(of)) if of == *batch => {
                self.spoke = true;
                self.ended_early.get_or_insert(Ending::Complete);
            }
            Ok(Said::Failed(of, error, mended)) if of == *batch => {
                self.child.mended(batch, None, mended);
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

/// `exit` is the code that it exited with, `None` where a signal killed it.
const fn verdict(exit: Option<i32>, spoke: bool, untouched: bool) -> Verdict {
    match (exit, spoke, untouched) {
        (Some(0), false, _) => Verdict::Done,
        (Some(0), true, _) => Verdict::LeftOut,
        (_, false, true) => Verdict::NotStarted,
        (Some(_), _, _) => Verdict::Failed,
        (None, _, _) => Verdict::Crashed,
    }
}

/// The pause after so many starts that failed in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE.saturating_mul(doubled).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_says_what_became_of_the_jobs() {
        // A plain script need not read its input to be done.
        assert_eq!(verdict(Some(0), false, true), Verdict::Done);
        assert_eq!(verdict(Some(0), true, false), Verdict::LeftOut);
        for exit in [Some(1), None] {
            assert_eq!(verdict(exit, false, true), Verdict::NotStarted);
        }
        assert_eq!(verdict(Some(1), false, false), Verdict::Failed);
        assert_eq!(verdict(Some(1), true, true), Verdict::Failed);
        assert_eq!(verdict(None, false, false), Verdict::Crashed);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pause_after(0), PAUSE);
        assert_eq!(pause_after(1), PAUSE);
        assert_eq!(pause_after(2), 2 * PAUSE);
        assert_eq!(pause_after(6), PAUSE_MAX);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}

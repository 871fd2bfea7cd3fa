//! A place for a child that lives on from batch to batch, whatever becomes of the child.
//!
//! A child that died is replaced. One that ended before it read anything did not start: its batch goes back, and the
//! place takes none until a child has stayed up for a while without.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::child::{Child, Life, Next, Program};
use super::talk::{Talk, Talked};
use crate::client::BatchError;
use crate::entropy::jittered;
use crate::job::JobId;
use crate::worker::engine::{Running, Slot, Stop, ids};
use crate::worker::settle::Ending;

/// The pause before a child is started for the third time without a batch that ended; it doubles.
const RESTART_FIRST: Duration = Duration::from_millis(100);

/// The longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(30);

/// After a child that did not start the next one has no batch for so long.
const TRIAL_MIN: Duration = Duration::from_secs(1);

/// The longest such time, for programs that take long to find out that they cannot start.
const TRIAL_MAX: Duration = Duration::from_secs(30);

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
    /// The child has ended a batch: it did start.
    proven: bool,
    /// Deaths and failed starts since a batch ended.
    failures: u32,
    /// The next child stays without a batch for so long.
    trial: Option<Duration>,
    /// Why there is no child that works.
    trouble: Option<String>,
}

/// What the death of a child says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// One of the batch's jobs may have killed it.
    Crashed,
    /// It did not read this batch, and ended others before.
    Between,
    /// It never read anything.
    NotStarted,
}

impl ChildSlot {
    /// A slot with its child, started.
    pub(super) fn start(program: &Arc<Program>, number: usize) -> std::io::Result<Self> {
        Ok(Self {
            program: Arc::clone(program),
            number,
            child: Some(Child::start(program, number, Life::Long)?),
            proven: false,
            failures: 0,
            trial: None,
            trouble: None,
        })
    }

    /// A child that lives: one that died in the meantime is replaced at once.
    async fn living_child(&mut self) -> Option<&mut Child> {
        if !self.child.as_mut().is_some_and(Child::is_ready) {
            self.drop_dead().await;
            match Child::start(&self.program, self.number, Life::Long) {
                Ok(child) => {
                    self.child = Some(child);
                    if self.trial.is_none() {
                        self.trouble = None;
                    }
                }
                Err(error) => {
                    error!(worker = self.program.worker, child = self.number, %error, "child not started");
                    self.failures += 1;
                    self.trouble = Some(format!("`{}` cannot be started: {error}", self.program.name()));
                }
            }
        }
        self.child.as_mut()
    }

    /// Lets go of a child that takes no more batches.
    async fn drop_dead(&mut self) {
        self.proven = false;
        let Some(mut child) = self.child.take() else {
            return;
        };
        child.end_input();
        child.terminate();
        wait_for_end(&mut child).await;
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

    /// Lets the child show that it stays up.
    async fn stand_trial(&mut self, time: Duration) {
        let Some(child) = self.child.as_mut() else { return };
        if timeout(time, wait_for_end(child)).await.is_ok() {
            self.not_started(None).await;
            return;
        }
        info!(
            worker = self.program.worker,
            child = self.number,
            "child stays up, it takes batches again"
        );
        (self.trial, self.trouble) = (None, None);
    }

    /// The child ended with jobs open, and nobody had asked it to.
    async fn died(&mut self, open: Vec<JobId>, batch: &str) -> Ending {
        let Some(child) = self.child.as_ref() else {
            return Ending::Released(open);
        };
        match death(child.is_untouched(), self.proven) {
            Death::Crashed => self.crashed(open.len(), batch).await,
            Death::Between => {
                let jobs = open.len();
                warn!(
                    worker = self.program.worker,
                    child = self.number,
                    batch,
                    jobs,
                    how = child.epitaph(),
                    "child ended before it read its batch, which is given back"
                );
                self.bury().await;
                Ending::Released(open)
            }
            Death::NotStarted => {
                self.not_started(Some(batch)).await;
                Ending::Released(open)
            }
        }
    }

    async fn crashed(&mut self, jobs: usize, batch: &str) -> Ending {
        self.failures += 1;
        let how = self.child.as_ref().map(Child::epitaph).unwrap_or_default();
        let stderr = self.bury().await;
        warn!(
            worker = self.program.worker,
            child = self.number,
            batch,
            jobs,
            how,
            stderr,
            "child died"
        );
        Ending::Failed {
            error: BatchError {
                code: "crashed".to_owned(),
                message: self.program.died(&how, batch),
            },
            crashed: true,
        }
    }

    /// The child ended before it read anything. The batch, if it had one, goes back.
    async fn not_started(&mut self, batch: Option<&str>) {
        let Some(child) = self.child.as_ref() else { return };
        let (how, age) = (child.epitaph(), child.age());
        self.failures += 1;
        self.trial = Some(trial_after(age));
        let stderr = self.bury().await;
        error!(
            worker = self.program.worker,
            child = self.number,
            batch,
            how,
            stderr,
            "the program does not start: it ended before it read anything; no job is lost, and none is counted as tried"
        );
        self.trouble = Some(how);
    }

    async fn bury(&mut self) -> String {
        self.proven = false;
        match self.child.take() {
            Some(child) => child.bury().await,
            None => String::new(),
        }
    }
}

impl Slot for ChildSlot {
    fn is_ready(&mut self) -> bool {
        self.trial.is_none() && self.child.as_mut().is_some_and(Child::is_ready)
    }

    async fn prepare(&mut self) {
        if timeout(READ_ON, self.write_rest()).await.is_err() {
            warn!(
                worker = self.program.worker,
                child = self.number,
                "child reads no further, replacing it"
            );
        }
        if self.is_ready() {
            return;
        }
        sleep(pause_after(self.failures)).await;
        if self.living_child().await.is_some()
            && let Some(time) = self.trial
        {
            self.stand_trial(time).await;
        }
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    async fn run(&mut self, running: Running) -> Ending {
        let order = ids(&running.batch);
        let batch = running.batch.batch.clone();
        self.read_leftovers().await;
        let Some(child) = self.living_child().await else {
            return Ending::Released(order);
        };
        match Talk::begin(child, running, &order).run(&order).await {
            Talked::Ended(ending) => {
                (self.failures, self.proven) = (0, true);
                ending
            }
            Talked::Stopped(ending) => {
                self.bury().await;
                ending
            }
            Talked::Died(open) => self.died(open, &batch).await,
        }
    }

    async fn close(mut self, stop: Stop) {
        if let Some(child) = self.child.take() {
            child.end(&stop).await;
        }
    }
}

async fn wait_for_end(child: &mut Child) {
    loop {
        match child.next().await {
            Next::Line(line) => child.unexpected(&line),
            Next::Fed => {}
            Next::Ended => return,
        }
    }
}

const fn death(untouched: bool, proven: bool) -> Death {
    match (untouched, proven) {
        (false, _) => Death::Crashed,
        (true, true) => Death::Between,
        (true, false) => Death::NotStarted,
    }
}

/// The pause before the next start.
fn pause_after(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => {
            let doubled = 1_u32.checked_shl(more - 2).unwrap_or(u32::MAX).max(1);
            jittered(RESTART_FIRST.saturating_mul(doubled).min(RESTART_MAX))
        }
    }
}

/// How long the next child is to stay up, after one that ended at this age: longer than it.
fn trial_after(age: Duration) -> Duration {
    (age + age / 2).clamp(TRIAL_MIN, TRIAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_child_that_read_nothing_at_all_did_not_start() {
        assert_eq!(death(true, false), Death::NotStarted);
        assert_eq!(death(true, true), Death::Between);
        assert_eq!(death(false, false), Death::Crashed);
        assert_eq!(death(false, true), Death::Crashed);
    }

    #[test]
    fn starts_are_further_and_further_apart() {
        assert_eq!((pause_after(0), pause_after(1)), (Duration::ZERO, Duration::ZERO));
        for (failures, pause) in [
            (2, RESTART_FIRST),
            (3, 2 * RESTART_FIRST),
            (11, RESTART_MAX),
            (u32::MAX, RESTART_MAX),
        ] {
            let range = pause / 2..=pause * 3 / 2;
            assert!(range.contains(&pause_after(failures)), "{failures}");
        }
    }

    #[test]
    fn a_trial_outlasts_what_failed_within_bounds() {
        let seconds = Duration::from_secs;
        assert_eq!(trial_after(Duration::from_millis(30)), TRIAL_MIN);
        assert_eq!(trial_after(seconds(4)), seconds(6));
        assert_eq!(trial_after(seconds(4_000)), TRIAL_MAX);
    }
}

//! How far a bench is, for the line that shows it, and whether it must stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::Error;

/// Shared between a bench and whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<String>,
    done: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// What is being done, and how many jobs of it are.
    #[must_use]
    pub fn now(&self) -> (String, u64) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        (phase.clone(), self.done.load(Ordering::Relaxed))
    }

    /// Asks what runs on a thread of its own to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn begin(&self, phase: impl Into<String>) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase.into();
        self.done.store(0, Ordering::Relaxed);
    }

    pub(super) fn add(&self, jobs: u64) {
        self.done.fetch_add(jobs, Ordering::Relaxed);
    }

    /// Fails once the bench must stop.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        Ok(())
    }
}

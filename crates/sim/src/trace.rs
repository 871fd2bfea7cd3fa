//! The trace of a run: every happening and every judgement, hashed, and printed if somebody reads along.

use crate::random::{hash, mix};

/// Where a run's lines go.
#[derive(Debug)]
pub(crate) struct Trace {
    verbose: bool,
    hash: u64,
}

impl Trace {
    pub(crate) const fn new(verbose: bool) -> Self {
        Self { verbose, hash: 0 }
    }

    pub(crate) fn line(&mut self, at: u64, text: impl FnOnce() -> String) {
        let line = text();
        self.hash = mix(self.hash ^ at ^ hash(line.as_bytes()));
        if self.verbose {
            crate::report::line(&format!("{:>14.6} {line}", seconds(at)));
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

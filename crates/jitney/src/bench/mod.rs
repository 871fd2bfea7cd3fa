//! Measures jitney: what `jitney bench` and the benches run.
//!
//! In: a scenario and its numbers. Out: figures. Nothing of the server uses it.

pub mod dispatcher;
mod random;

/// A count as a number to divide with; beyond 2^53 it would be rounded, and no count comes near.
#[expect(clippy::cast_precision_loss, reason = "a figure is read to three digits")]
#[must_use]
pub fn figure(count: u64) -> f64 {
    count as f64
}

//! The two clocks. They come in as values: nothing in this crate reads a clock.

use crate::ids::WallMs;

/// Microseconds on a clock that never jumps and never goes back; its zero is of no meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub u64);

/// One reading of both clocks. Ages, leases and delays use `mono`; dates that people see use `wall`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For durations.
    pub mono: Mono,
    /// For dates; it may jump.
    pub wall: WallMs,
}

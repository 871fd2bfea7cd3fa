//! Deliberate bugs, for the simulator to catch: it must, or it proves nothing. Without the feature `mutants`,
//! which only the simulator turns on, `active` is the constant `false` and nothing of this is compiled in.

/// A deliberate bug inside the log that no seam reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// What is copied forward is not synced before its source goes.
    UnsyncedCopy,
    /// The source of a copy goes while there is still something to copy.
    SourceGoesEarly,
    /// A job that moved is looked for in the segment that it came from.
    KeepOldPlace,
    /// An outcome is not copied although the submit that it ended is still on disk.
    ForgetEnd,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::UnsyncedCopy,
        Self::SourceGoesEarly,
        Self::KeepOldPlace,
        Self::ForgetEnd,
    ];
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Turns one mutant on in this thread, or all off.
#[cfg(feature = "mutants")]
pub fn arm(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Whether this bug is on.
#[cfg(feature = "mutants")]
pub(crate) fn active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Whether this bug is on: never, in this build.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn active(_mutant: Mutant) -> bool {
    false
}

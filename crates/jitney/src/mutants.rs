//! Deliberate bugs, for the simulator to catch: it must, or it proves nothing. Without the feature `mutants`,
//! which only the simulator turns on, `active` is the constant `false` and nothing of this is compiled in.

/// A deliberate bug inside jitney.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An outcome counts also after a later lease of its job was granted.
    DropFencing,
    /// The lanes are served in reverse order.
    RealtimeLast,
    /// Lower lanes are owed nothing.
    ForgetShare,
    /// The batch of a lost lease never returns to its lane.
    LoseUnit,
    /// A decision is carried out before it is durable.
    VisibleEarly,
    /// A heartbeat is answered, and extends nothing.
    ForgetExtend,
    /// A crash is not counted.
    UncountedCrash,
    /// A poll whose wait is over is not answered.
    KeepPoll,
    /// A poll of a worker that says that it cannot start is given batches.
    ServeNotReady,
    /// Of many jobs that are submitted together those with the same id or key are not seen to be the same.
    RepeatAmongMany,
    /// Who waits for many jobs is answered when the first has ended.
    FirstOfMany,
    /// A child gets its id whether another job has it or not.
    TakenChildId,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::DropFencing,
        Self::RealtimeLast,
        Self::ForgetShare,
        Self::LoseUnit,
        Self::VisibleEarly,
        Self::ForgetExtend,
        Self::UncountedCrash,
        Self::KeepPoll,
        Self::ServeNotReady,
        Self::RepeatAmongMany,
        Self::FirstOfMany,
        Self::TakenChildId,
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

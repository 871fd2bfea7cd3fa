//! What the process tells its caller when it ends.

use std::process::ExitCode;

/// The exit codes, all of them; docs/cli.md says them to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// The job failed.
    JobFailed,
    /// Wrong usage or configuration, or refused for good: the same call will fail again.
    Usage,
    /// The server cannot be reached.
    Unreachable,
    /// The wait ended first; the job goes on.
    TimedOut,
    /// The server refused: a limit, or it drains. Later it may not.
    Refused,
    /// A bug in jitney.
    Bug,
    /// Input or output: the disk, the log, the lock on it, a port that is not free.
    Io,
    /// A second signal ended it at once.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::JobFailed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::Refused => 5,
            Self::Bug => 70,
            Self::Io => 74,
            Self::Interrupted => 130,
        }
    }
}

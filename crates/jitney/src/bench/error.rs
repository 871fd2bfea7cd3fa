//! Why a bench ended without figures.

use std::io;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused; whoever runs the bench can fix it.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server did not do what it was asked; its log says why.
    #[error("{0}")]
    Server(String),
    /// What was asked for cannot be measured; ask for something else.
    #[error("{0}")]
    Usage(String),
    /// It was stopped.
    #[error("the bench was stopped")]
    Stopped,
}

impl Error {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

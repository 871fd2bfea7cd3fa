//! Why a command ended without doing what it was asked: what to print, and the exit code.

use crate::cli::exit::Exit;
use crate::client::{Error, Problem, Retry};
use crate::config::{Complaint, ConfigError};
use crate::units::UnitError;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What went wrong, with names and numbers.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// The server's problem, as it came.
    pub(crate) problem: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            problem: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn refused(problem: &Problem) -> Self {
        // Over a limit: the server's, not the caller's mistake, though some will never let it through.
        let limit = matches!(problem.status, 413 | 429);
        let exit = match problem.retry {
            Retry::No if !limit => Exit::Usage,
            Retry::No | Retry::Safe | Retry::After | Retry::OnlyWithIdempotencyKey => Exit::Refused,
        };
        let hint = problem
            .did_you_mean
            .as_ref()
            .map(|word| format!("did you mean `{word}`?"))
            .or_else(|| match problem.code.as_str() {
                "unknown_job" => {
                    Some("finished jobs stay readable for `result_ttl`, 1 hour by default".to_owned())
                }
                "draining" | "recovering" => Some("try again once the server is up again".to_owned()),
                "outcome_unknown" => Some(
                    "it may have been done: try again with the same --id or --idempotency-key, if it had one"
                        .to_owned(),
                ),
                _ => None,
            });
        Self {
            exit,
            message: problem.to_string(),
            hint,
            problem: Some(problem.json().to_owned()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(problem) => Self::refused(&problem),
            Error::Unreachable { .. } => Self::new(Exit::Unreachable, error.told())
                .hint("is it running? `jitney serve` starts one; --url or JITNEY_URL says where it is"),
            Error::TimedOut { id, .. } => Self::new(Exit::TimedOut, error.to_string())
                .hint(format!("look again with `jitney job get {id} --wait 30s`")),
            Error::Accepted { id, .. } => Self::new(Exit::Unreachable, error.to_string()).hint(format!(
                "the job goes on; look again with `jitney job get {id} --wait 30s`"
            )),
            Error::Protocol { .. } => Self::new(Exit::Unreachable, error.to_string())
                .hint("is it a jitney server? --url or JITNEY_URL says where it is"),
            Error::Invalid { .. } => Self::usage(error.to_string()),
        }
    }
}

impl From<ConfigError> for Failure {
    /// Of several mistakes each has its hint below it.
    fn from(error: ConfigError) -> Self {
        match <[Complaint; 1]>::try_from(error.complaints) {
            Ok([mut complaint]) => {
                let hint = complaint.hint.take();
                Self {
                    hint,
                    ..Self::usage(complaint.to_string())
                }
            }
            Err(complaints) => Self::usage(ConfigError { complaints }.to_string()),
        }
    }
}

impl From<UnitError> for Failure {
    fn from(error: UnitError) -> Self {
        Self::usage(error.to_string())
    }
}

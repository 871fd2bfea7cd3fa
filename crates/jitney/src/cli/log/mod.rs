//! `jitney log`: what is on disk, whether it is what was written, and what to do if it is not.

mod inspect;
mod record;
mod repair;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use joblog::dir::DirError;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::who;
use crate::config::{self, Sources};

/// Where the log is if nobody says it.
const DEFAULT: &str = "./jitney-data";

/// The log.
#[derive(Subcommand, Debug)]
pub(super) enum LogCommand {
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Repair(repair::RepairArgs),
}

/// Where the log is.
#[derive(Args, Debug)]
struct Directory {
    /// Directory of the log. Default: what ./jitney.toml says, else ./jitney-data.
    #[arg(long, env = "JITNEY_DATA", hide_env_values = true, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Say on standard error which directory it is, and who said so.
    #[arg(long, display_order = 899)]
    verbose: bool,
}

/// The directory of a log, found.
struct Found {
    data: PathBuf,
}

impl Directory {
    /// Which it is.
    fn find(&self, output: Output) -> Result<Found, Failure> {
        let (data, who) = match &self.data {
            Some(data) => (data.clone(), "--data or JITNEY_DATA".to_owned()),
            None => match config::data(&Sources::from_process())? {
                Some(found) => (found.value, who(&found.place)),
                None => (PathBuf::from(DEFAULT), "default".to_owned()),
            },
        };
        if self.verbose {
            output.note(&format!("log: {} ({who})", data.display()));
        }
        Ok(Found { data })
    }
}

impl Found {
    /// Every server has begun a segment before it is ready: a directory without one is the wrong one, or lost.
    fn without_log(&self) -> Failure {
        let message = format!("there is no log in `{}`", self.data.display());
        Failure::new(Exit::Io, message).hint("--data or JITNEY_DATA says where it is")
    }
}

pub(super) fn run(command: LogCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        LogCommand::Inspect(args) => inspect::run(&args, output),
        LogCommand::Verify(args) => verify::run(&args, output),
        LogCommand::Repair(args) => repair::run(&args, output),
    }
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        let message = error.to_string();
        match error {
            DirError::Locked { .. } => {
                Self::new(Exit::Io, message).hint("stop the server that uses it first")
            }
            DirError::Io { .. } => Self::new(Exit::Io, message),
        }
    }
}

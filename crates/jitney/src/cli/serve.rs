//! `jitney serve`: the server, from the configuration to a clean stop.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;
use joblog::dir::DirError;
use joblog::recovery;
use serde_json::json;
use tracing::info;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::ready_file::ReadyFile;
use super::reload::reload;
use super::server_flags::ServerFlags;
use super::signals::{Asked, Signals, exit_at_once};
use super::{block_on, tracing_level};
use crate::config::{self, Config, LogFormat, Sources};
use crate::server::log::OpenError;
use crate::server::{self, Ended, Running, StartError};
use crate::telemetry;

/// Start a server.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: ServerFlags,
    /// Write ADDRESS:PORT to this file once the server is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl ServeArgs {
    /// Whether the arguments or the environment say that standard error is for programs.
    pub(super) fn logs_json(&self) -> bool {
        self.flags.logs_json()
    }
}

pub(super) fn run(args: ServeArgs, output: Output) -> Result<Exit, Failure> {
    let sources = args.flags.sources();
    let config = config::load(&sources)?;
    telemetry::init(
        tracing_level(config.log.level),
        config.log.format == LogFormat::Json,
    );
    let ready_file = args.ready_file.map(ReadyFile::new).transpose()?;
    block_on(serve(sources, config, ready_file, output))
}

async fn serve(
    sources: Sources,
    mut config: Config,
    ready_file: Option<ReadyFile>,
    output: Output,
) -> Result<Exit, Failure> {
    server::raise_open_files();
    let mut signals = Signals::with_reload()?;
    let grace = config.options.grace;
    if let Some(file) = &config.file {
        info!(file = %file.display(), "configuration read");
    }
    let running = tokio::select! {
        running = server::start(config.options.clone()) => running?,
        // Nothing was accepted yet; whatever the log holds is found again at the next start.
        () = signals.next() => return Ok(Exit::Done),
    };
    announce(&running, ready_file.as_ref(), output)?;
    let ended = loop {
        // Both are cancel-safe: a signal that came meanwhile is seen by the next call.
        let asked = tokio::select! {
            ended = running.ended() => break ended,
            asked = signals.asked() => asked,
        };
        match asked {
            Asked::Reload => config = reload(&running, &sources, config).await,
            Asked::Stop => {
                info!(?grace, "stopping");
                break tokio::select! {
                    ended = running.stop(grace) => ended,
                    () = signals.next() => exit_at_once(),
                };
            }
        }
    };
    finish(&ended)
}

/// Says where the server is, once it is ready.
fn announce(running: &Running, ready_file: Option<&ReadyFile>, output: Output) -> Result<(), Failure> {
    let address = running.address();
    if let Some(file) = ready_file {
        file.write(address)?;
    }
    info!(%address, "ready");
    if output.json {
        output.line(&json!({ "listening": address.to_string() }).to_string());
    } else {
        output.line(&format!("listening on http://{address}"));
    }
    Ok(())
}

pub(super) fn finish(ended: &Ended) -> Result<Exit, Failure> {
    match ended {
        Ended::Stopped => {
            info!("stopped");
            Ok(Exit::Done)
        }
        Ended::Panicked => Err(Failure::new(
            Exit::Bug,
            "a part of the server panicked, which is a bug in jitney",
        )
        .hint("report it with the lines above; what was accepted is found again at the next start")),
        Ended::Poisoned => Err(Failure::new(
            Exit::Io,
            "a write to the log failed, and nothing is acknowledged any more",
        )
        .hint("look at the disk, then start again: everything acknowledged is found again")),
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let message = error.to_string();
        match error {
            StartError::Listen { source, .. } => {
                // What is not free now may be so later: whoever supervises us may start us again.
                let exit = match source.kind() {
                    ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => Exit::Io,
                    _ => Exit::Usage,
                };
                Self::new(exit, message)
                    .hint("another program may have it: `--listen 127.0.0.1:0` takes a free port")
            }
            StartError::Log { source, .. } => open_failure(message, &source),
            StartError::Route(_) | StartError::LogTooSmall { .. } => Self::usage(message),
            StartError::Thread(_) => Self::new(Exit::Io, message),
        }
    }
}

fn open_failure(message: String, error: &OpenError) -> Failure {
    let hint = match error {
        OpenError::Directory(DirError::Locked { .. }) => {
            "stop the server that uses it first, or take another --data"
        }
        OpenError::Directory(_) => "look at the directory and whose it is, or take another --data",
        OpenError::Log(recovery::OpenError::Newer { .. }) => "use the jitney that wrote it, or a newer one",
        OpenError::Log(recovery::OpenError::Damaged(_)) => {
            "nothing was changed; `jitney log repair` shows what is lost and what can be done, and asks first"
        }
        OpenError::Log(_) | OpenError::Thread(_) => "nothing was changed; trying again is safe",
    };
    Failure::new(Exit::Io, message).hint(hint)
}

//! `jitney serve`: the server, from the configuration to a clean stop.

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
use super::signals::{Asked, Signals, exit_at_once};
use super::{block_on, tracing_level};
use crate::config::{self, Config, Flag, LogFormat, Sources};
use crate::server::log::OpenError;
use crate::server::{self, Ended, Running, StartError};
use crate::telemetry;

/// Start a server.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Address and port; port 0 takes a free one. Default 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Directory of the log. Default ./jitney-data.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<String>,
    /// Configuration file; without it JITNEY_CONFIG, or ./jitney.toml if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What keeps jobs: log (durable) or memory. Default log.
    #[arg(long, value_name = "BUS")]
    bus: Option<String>,
    /// Listen on an address that other machines can reach although nobody is asked for a key.
    #[arg(long)]
    no_auth: bool,
    /// Write ADDRESS:PORT to this file once the server is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl ServeArgs {
    fn sources(&self) -> Sources {
        let no_auth = self.no_auth.then(|| "true".to_owned());
        let flags = [
            ("--listen", "listen", &self.listen),
            ("--data", "data", &self.data),
            ("--bus", "bus", &self.bus),
            ("--no-auth", "no_auth", &no_auth),
        ];
        let flag = |(name, key, value): (&'static str, &'static str, &Option<String>)| {
            value.clone().map(|value| Flag { name, key, value })
        };
        Sources {
            file: self.config.clone(),
            flags: flags.into_iter().filter_map(flag).collect(),
            ..Sources::from_process()
        }
    }
}

pub(super) fn run(args: ServeArgs, output: Output) -> Result<Exit, Failure> {
    let sources = args.sources();
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
    let mut signals = Signals::with_hangup()?;
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
            StartError::Listen { .. } => Self::usage(message)
                .hint("another program may have it: `--listen 127.0.0.1:0` takes a free port"),
            StartError::Log { source, .. } => open_failure(message, &source),
            StartError::Route(_) => Self::usage(message),
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

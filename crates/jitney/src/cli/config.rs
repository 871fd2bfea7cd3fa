//! `jitney config`: whether the configuration is right.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::config::{self, Sources};

/// The configuration.
#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Check the configuration as `serve` would read it, and name every mistake.
    Check(CheckArgs),
}

/// Check the configuration.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The file; without it JITNEY_CONFIG, or ./jitney.toml if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(command: ConfigCommand, output: Output) -> Result<Exit, Failure> {
    let ConfigCommand::Check(args) = command;
    let sources = Sources {
        file: args.config,
        ..Sources::from_process()
    };
    let config = config::load(&sources)?;
    let options = &config.options;
    let (routes, processors) = (options.routes.len(), options.policies.processors.len());
    let file = config.file.as_ref().map(|path| path.display().to_string());
    if output.json {
        let data = json!({
            "ok": true,
            "file": file,
            "listen": options.listen.to_string(),
            "processors": processors,
            "routes": routes,
        });
        output.line(&data.to_string());
    } else {
        let file = file.unwrap_or_else(|| "no file, so the defaults and the environment".to_owned());
        output.line(&format!(
            "{file}: good (listens on {}, {processors} processors, {routes} routes)",
            options.listen
        ));
    }
    Ok(Exit::Done)
}

//! `jitney config`: whether the configuration is right, and what is in force.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_flags::ServerFlags;
use crate::config::{self, Place, Sources};

/// The configuration.
#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Check the configuration as `serve` would read it, and name every mistake.
    Check(CheckArgs),
    /// Show every value in force and where it comes from: default, file and line, variable, flag.
    Show(ShowArgs),
}

/// Check the configuration.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The file; without it JITNEY_CONFIG, or ./jitney.toml if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Show the configuration.
#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    flags: ServerFlags,
}

pub(super) fn run(command: ConfigCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => check(args, output),
        ConfigCommand::Show(args) => show(&args, output),
    }
}

fn show(args: &ShowArgs, output: Output) -> Result<Exit, Failure> {
    let config = config::load(&args.flags.sources())?;
    let mut title = String::new();
    for shown in config::show(&config) {
        if output.json {
            let (origin, line) = match &shown.place {
                None => ("default".to_owned(), None),
                Some(Place::File(place)) => (place.path.display().to_string(), Some(place.line)),
                Some(Place::Environment(name)) => (name.clone(), None),
                Some(Place::Flag(name)) => ((*name).to_owned(), None),
            };
            let entry = json!({
                "table": shown.title, "key": shown.key, "value": shown.value,
                "origin": origin, "line": line, "default": shown.place.is_none(),
            });
            output.line(&entry.to_string());
            continue;
        }
        if shown.title != title {
            if !title.is_empty() {
                output.line("");
            }
            output.line(&shown.title);
            title.clone_from(&shown.title);
        }
        let value = format!("{} = {}", shown.key, shown.value);
        output.line(&format!("  {value:<40}  # {}", origin(shown.place.as_ref())));
    }
    Ok(Exit::Done)
}

fn origin(place: Option<&Place>) -> String {
    match place {
        None => "default".to_owned(),
        Some(Place::File(place)) => format!("{}:{}", place.path.display(), place.line),
        Some(Place::Environment(name)) => name.clone(),
        Some(Place::Flag(name)) => (*name).to_owned(),
    }
}

fn check(args: CheckArgs, output: Output) -> Result<Exit, Failure> {
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

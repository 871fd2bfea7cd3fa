//! The flags that are keys of `[server]`, and the file: what `serve` starts with, and `config show` shows.

use std::path::PathBuf;

use clap::Args;

use super::is_json;
use crate::config::{Flag, Sources};

/// Flags over the configuration.
#[derive(Args, Debug)]
pub(super) struct ServerFlags {
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
    /// Form of the log on standard error: text or json. Default text.
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
}

impl ServerFlags {
    /// Whether the arguments or the environment say that the log is JSON.
    pub(super) fn logs_json(&self) -> bool {
        is_json(self.log_format.as_deref())
    }

    /// The configuration of this process.
    pub(super) fn sources(&self) -> Sources {
        let no_auth = self.no_auth.then(|| "true".to_owned());
        let flags = [
            ("--listen", "listen", &self.listen),
            ("--data", "data", &self.data),
            ("--bus", "bus", &self.bus),
            ("--no-auth", "no_auth", &no_auth),
            ("--log-format", "log_format", &self.log_format),
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

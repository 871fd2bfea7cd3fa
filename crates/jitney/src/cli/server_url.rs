//! `--url`: which server a client command speaks to.

use clap::Args;

use super::failure::Failure;
use crate::client::{Builder, Client, Retries};

/// Tries of a call: somebody looks on, and a server that is not there shall be named soon.
const ATTEMPTS_MAX: u32 = 3;

/// Which server.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerUrl {
    /// The server.
    #[arg(
        long,
        env = "JITNEY_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub(super) url: String,
}

impl ServerUrl {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let retries = Retries {
            attempts_max: ATTEMPTS_MAX,
            ..Retries::default()
        };
        Ok(self.builder()?.retries(retries).build()?)
    }

    /// A client for many jobs: whatever is sent again is there once, and a server that starts again or a queue that is
    /// full is waited for as long as retries may take in all.
    pub(super) fn client_for_many(&self) -> Result<Client, Failure> {
        let retries = Retries {
            attempts_max: u32::MAX,
            ..Retries::default()
        };
        Ok(self.builder()?.own_keys(true).retries(retries).build()?)
    }

    /// A client for a program that runs by itself.
    pub(super) fn patient_client(&self) -> Result<Client, Failure> {
        Ok(self.builder()?.build()?)
    }

    fn builder(&self) -> Result<Builder, Failure> {
        named(&self.url)?;
        Ok(Client::builder(&self.url))
    }
}

/// Fails if the URL is empty: a variable that is set to nothing is easily overlooked.
pub(super) fn named(url: &str) -> Result<(), Failure> {
    if !url.is_empty() {
        return Ok(());
    }
    let from_environment = std::env::var_os("JITNEY_URL").is_some_and(|url| url.is_empty());
    let source = if from_environment { "JITNEY_URL" } else { "--url" };
    Err(Failure::usage(format!("`{source}` is empty"))
        .hint("take it away, or write one like http://127.0.0.1:8080"))
}

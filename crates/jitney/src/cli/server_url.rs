//! `--url`: which server a client command speaks to.

use clap::Args;

use super::failure::Failure;
use crate::client::{Client, Retries};

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
        Ok(Client::builder(&self.url).retries(retries).build()?)
    }

    /// A client for many jobs: whatever is sent again is there once.
    pub(super) fn client_with_own_keys(&self) -> Result<Client, Failure> {
        Ok(Client::builder(&self.url).own_keys(true).build()?)
    }

    /// A client for a program that runs by itself.
    pub(super) fn patient_client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.url)?)
    }
}

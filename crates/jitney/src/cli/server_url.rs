//! `--url`: which server a client command speaks to. Without it the environment says where, or the configuration
//! that `serve` would read here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use clap::Args;

use super::failure::Failure;
use super::output::Output;
use crate::client::{Builder, Client, Retries};
use crate::config::{self, Place, Sources};

/// Tries of a call: somebody looks on, and a server that is not there shall be named soon.
const ATTEMPTS_MAX: u32 = 3;

/// Where a server is that nobody told where to listen.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Which server.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerUrl {
    /// The server. Default: where JITNEY_LISTEN or ./jitney.toml says that it listens, else http://127.0.0.1:8080.
    #[arg(long, env = "JITNEY_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,
    /// Say on standard error which server it is, and who said so.
    #[arg(long, display_order = 899)]
    verbose: bool,
    /// What was found, so that it is looked for and told once.
    #[arg(skip)]
    found: OnceLock<String>,
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

    /// A client, but for its patience.
    pub(super) fn builder(&self) -> Result<Builder, Failure> {
        if let Some(url) = self.found.get() {
            return Ok(Client::builder(url));
        }
        let (url, who) = match &self.url {
            Some(url) => {
                named(url)?;
                (url.clone(), "--url or JITNEY_URL".to_owned())
            }
            None => said(&Sources::from_process())?,
        };
        if self.verbose {
            Output::default().note(&format!("server: {url} ({who})"));
        }
        Ok(Client::builder(self.found.get_or_init(|| url)))
    }
}

/// The URL that the configuration says, and who said so.
fn said(sources: &Sources) -> Result<(String, String), Failure> {
    let found = config::listen(sources)?;
    let found = found.and_then(|found| Some((local_url(found.value)?, who(&found.place))));
    Ok(found.unwrap_or_else(|| (DEFAULT_URL.to_owned(), "default".to_owned())))
}

/// Who said something, in a few words.
pub(super) fn who(place: &Place) -> String {
    match place {
        Place::File(place) => format!("{}:{}", place.path.display(), place.line),
        Place::Environment(name) => name.clone(),
        Place::Flag(name) => (*name).to_owned(),
    }
}

/// How to reach a server of this machine, or of this container, by the address that it listens on; `None` if only the
/// server knows its port.
fn local_url(listen: SocketAddr) -> Option<String> {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    (address.port() != 0).then(|| format!("http://{address}"))
}

/// Fails if the URL is empty: a variable that is set to nothing is easily overlooked.
fn named(url: &str) -> Result<(), Failure> {
    if !url.is_empty() {
        return Ok(());
    }
    let from_environment = std::env::var_os("JITNEY_URL").is_some_and(|url| url.is_empty());
    let source = if from_environment { "JITNEY_URL" } else { "--url" };
    Err(Failure::usage(format!("`{source}` is empty"))
        .hint("take it away, or write one like http://127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_where_it_listens() {
        for (listen, url) in [
            ("0.0.0.0:9000", Some("http://127.0.0.1:9000")),
            ("[::]:9000", Some("http://127.0.0.1:9000")),
            ("[::1]:9000", Some("http://[::1]:9000")),
            ("10.1.2.3:80", Some("http://10.1.2.3:80")),
            ("127.0.0.1:0", None),
        ] {
            assert_eq!(local_url(listen.parse().unwrap()).as_deref(), url, "{listen}");
        }
    }
}

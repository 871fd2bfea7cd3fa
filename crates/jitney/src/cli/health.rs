//! `jitney health`: whether a server is alive, for what looks after it: a container has no curl.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::named;
use crate::client::{Client, Retries};

/// Where a server is that says nothing else.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Whoever asks asks again; an answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a server whether it is alive; for a container's health check.
#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// Ask whether it can take work too: not while it starts, stops, or has a full disk.
    #[arg(long)]
    ready: bool,
    /// The server. Default: the port of JITNEY_LISTEN on this machine, else http://127.0.0.1:8080.
    #[arg(long, env = "JITNEY_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,
}

pub(super) async fn run(args: HealthArgs, output: Output) -> Result<Exit, Failure> {
    let listen = std::env::var("JITNEY_LISTEN").ok();
    let url = args.url.unwrap_or_else(|| local_url(listen.as_deref()));
    named(&url)?;
    let client = Client::builder(&url)
        .connect_timeout(PATIENCE)
        .request_timeout(PATIENCE)
        .retries(Retries::none())
        .build()?;
    let state = if args.ready {
        client.ready().await?;
        "ready"
    } else {
        client.alive().await?;
        "alive"
    };
    if output.json {
        output.line(&json!({ "state": state }).to_string());
    } else {
        output.line(state);
    }
    Ok(Exit::Done)
}

/// The server of this machine, or of this container, by the address that it was told to listen on.
fn local_url(listen: Option<&str>) -> String {
    let port = listen.and_then(|address| address.rsplit_once(':')?.1.parse::<u16>().ok());
    match port {
        Some(port) => format!("http://127.0.0.1:{port}"),
        None => DEFAULT_URL.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_server_is_asked_wherever_it_listens() {
        for (listen, url) in [
            (Some("0.0.0.0:9000"), "http://127.0.0.1:9000"),
            (Some("[::]:9000"), "http://127.0.0.1:9000"),
            (Some("localhost:80"), "http://127.0.0.1:80"),
            (Some("nonsense"), DEFAULT_URL),
            (None, DEFAULT_URL),
        ] {
            assert_eq!(local_url(listen), url, "{listen:?}");
        }
    }
}

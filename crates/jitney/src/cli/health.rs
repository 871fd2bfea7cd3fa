//! `jitney health`: whether a server is alive, for what looks after it: a container has no curl.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::ServerUrl;
use crate::client::Retries;

/// Whoever asks asks again; an answer that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a server whether it is alive; for a container's health check.
#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// Ask whether it can take work too: not while it starts, stops, or has a full disk.
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    server: ServerUrl,
}

pub(super) async fn run(args: HealthArgs, output: Output) -> Result<Exit, Failure> {
    let client = args
        .server
        .builder()?
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

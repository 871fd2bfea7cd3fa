//! `jitney policy`: how a processor's jobs gather and retry, shown and set in the running server.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::server_url::ServerUrl;
use super::submit::priority_parser;
use crate::client::{Policy, PolicyScope};
use crate::job::Priority;

/// The policies of the server.
#[derive(Subcommand, Debug)]
pub(super) enum PolicyCommand {
    /// Show the policy in force, and where each value comes from.
    Show(ShowArgs),
    /// Set values, durably and at once. The server's configuration file wins over them.
    Set(SetArgs),
    /// Take away what was set: these keys, or all of the table.
    Unset(UnsetArgs),
}

/// Which policy.
#[derive(Args, Debug)]
struct Scope {
    /// Of jobs of this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// In this lane.
    #[arg(long, value_name = "PRIORITY", value_parser = priority_parser())]
    priority: Option<Priority>,
    #[command(flatten)]
    server: ServerUrl,
}

/// Show a policy.
#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Whose.
    processor: String,
    #[command(flatten)]
    scope: Scope,
}

/// Set values.
#[derive(Args, Debug)]
pub(super) struct SetArgs {
    /// Whose.
    processor: String,
    /// Values as in the configuration: max_jobs=20 lease=5s idle_flush=false.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_pair)]
    values: Vec<(String, Value)>,
    #[command(flatten)]
    scope: Scope,
}

/// Take values away.
#[derive(Args, Debug)]
pub(super) struct UnsetArgs {
    /// Whose.
    processor: String,
    /// The keys; all of the table if none is given.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

impl Scope {
    fn of(&self) -> PolicyScope {
        PolicyScope {
            group: self.group.clone(),
            priority: self.priority,
        }
    }
}

/// The part of the answer that is shown.
#[derive(Deserialize)]
struct Answer {
    policy: Map<String, Value>,
    origin: Map<String, Value>,
    warnings: Vec<String>,
}

pub(super) async fn run(command: PolicyCommand, output: Output) -> Result<Exit, Failure> {
    let policy = match command {
        PolicyCommand::Show(args) => {
            let client = args.scope.server.client()?;
            client.policy(&args.processor, &args.scope.of()).await?
        }
        PolicyCommand::Set(args) => {
            let values: Map<String, Value> = args.values.into_iter().collect();
            let values = Value::Object(values).to_string();
            let client = args.scope.server.client()?;
            client
                .set_policy(&args.processor, &args.scope.of(), &values)
                .await?
        }
        PolicyCommand::Unset(args) => {
            let client = args.scope.server.client()?;
            let nulls: Map<String, Value> = args.keys.into_iter().map(|key| (key, Value::Null)).collect();
            if nulls.is_empty() {
                client.clear_policy(&args.processor, &args.scope.of()).await?
            } else {
                let values = Value::Object(nulls).to_string();
                client
                    .set_policy(&args.processor, &args.scope.of(), &values)
                    .await?
            }
        }
    };
    show(&policy, output)
}

fn show(policy: &Policy, output: Output) -> Result<Exit, Failure> {
    if output.json {
        output.line(policy.json());
        return Ok(Exit::Done);
    }
    let answer: Answer = serde_json::from_str(policy.json()).map_err(|error| {
        Failure::new(
            Exit::Unreachable,
            format!("the answer is not one of jitney's: {error}"),
        )
    })?;
    let row = |(key, value): (&String, &Value)| {
        let origin = &answer.origin[key];
        let from = match (origin["from"].as_str(), origin["table"].as_str()) {
            (Some("config"), Some(table)) => format!("configuration, {table}"),
            (Some("api"), Some(table)) => format!("set, {table}"),
            _ => "default".to_owned(),
        };
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Null => "as the server".to_owned(),
            other => other.to_string(),
        };
        vec![key.clone(), value, from]
    };
    let rows: Vec<_> = answer.policy.iter().map(row).collect();
    output.table(&["KEY", "VALUE", "FROM"], &rows);
    for warning in &answer.warnings {
        output.note(&format!("warning: {warning}"));
    }
    Ok(Exit::Done)
}

/// A value of the command line, as JSON has it: numbers and switches are no strings.
fn parse_pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .ok_or_else(|| {
            "write KEY=VALUE, such as max_jobs=20; `policy unset` takes a value away".to_owned()
        })?;
    let value = match (value.parse::<u64>(), value.parse::<bool>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(on)) => on.into(),
        _ => value.into(),
    };
    Ok((key.to_owned(), value))
}

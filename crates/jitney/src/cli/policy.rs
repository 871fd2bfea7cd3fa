//! `jitney policy`: how a processor's jobs gather and retry, shown and set in the running server.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::exit::Exit;
use super::failure::Failure;
use super::lane::{self, Attention};
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
    /// Set values, durably and at once. What the configuration file names in the same table cannot be set.
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

    /// The heading of the table that is set.
    fn table(&self, processor: &str) -> String {
        match (&self.group, self.priority) {
            (Some(group), _) => format!("[processor.{processor}.group.{group}]"),
            (None, Some(priority)) => format!("[processor.{processor}.priority.{}]", priority.name()),
            (None, None) => format!("[processor.{processor}]"),
        }
    }
}

/// The part of the answer that is shown.
#[derive(Deserialize)]
struct Answer {
    processor: String,
    #[serde(default)]
    group: Option<String>,
    priority: String,
    policy: Map<String, Value>,
    origin: Map<String, Value>,
    /// By table and key; servers before it had none.
    #[serde(default)]
    configured: Map<String, Value>,
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
            let client = args.scope.server.client()?;
            let now = client.policy(&args.processor, &args.scope.of()).await?;
            let table = args.scope.table(&args.processor);
            if let Some(failure) = kept_by_the_file(&parse(&now)?, &table, values.keys()) {
                return Err(failure);
            }
            let values = Value::Object(values).to_string();
            let scope = args.scope.of();
            let set = client.set_policy(&args.processor, &scope, &values).await?;
            // A policy may be there before its processor; a misspelt name may be, too.
            let seen = lane::attention(&client, &args.processor).await;
            if let Some(Attention::Never {
                did_you_mean: Some(name),
            }) = seen
            {
                let processor = &args.processor;
                output.note(&format!(
                    "note: no worker has asked for `{processor}` yet; did you mean `{name}`?"
                ));
            }
            set
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

fn parse(policy: &Policy) -> Result<Answer, Failure> {
    serde_json::from_str(policy.json()).map_err(|error| {
        Failure::new(
            Exit::Unreachable,
            format!("the answer is not one of jitney's: {error}"),
        )
    })
}

/// The failure to set what the configuration file names in the same table: it would be kept and change nothing.
fn kept_by_the_file<'a>(
    now: &Answer,
    table: &str,
    keys: impl Iterator<Item = &'a String>,
) -> Option<Failure> {
    let configured = now.configured.get(table)?;
    let named: Vec<_> = keys
        .filter_map(|key| {
            let said = configured.get(key)?;
            Some(format!(
                "`{key}` is {} in {}",
                text(&said["value"]),
                file_of(said)
            ))
        })
        .collect();
    if named.is_empty() {
        return None;
    }
    let message = format!(
        "nothing was set: {}, {table}, and the configuration file wins",
        named.join(", ")
    );
    Some(Failure::new(Exit::JobFailed, message).hint("edit it, then send the server a SIGHUP"))
}

/// The file and the line of a value that the configuration has.
fn file_of(value: &Value) -> String {
    match (value["file"].as_str(), value["line"].as_u64()) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        _ => "the configuration".to_owned(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn show(policy: &Policy, output: Output) -> Result<Exit, Failure> {
    if output.json {
        output.line(policy.json());
        return Ok(Exit::Done);
    }
    let answer = parse(policy)?;
    // The lane too: without --priority it is one of three.
    output.line(&match &answer.group {
        Some(group) => format!(
            "[processor.{}.group.{group}] {}",
            answer.processor, answer.priority
        ),
        None => format!("[processor.{}] {}", answer.processor, answer.priority),
    });
    let row = |(key, value): (&String, &Value)| {
        let origin = &answer.origin[key];
        let from = match (origin["from"].as_str(), origin["table"].as_str()) {
            (Some("config"), Some(table)) => format!("{}, {table}", file_of(origin)),
            (Some("api"), Some(table)) => format!("set, {table}"),
            _ => "default".to_owned(),
        };
        let value = match value {
            Value::Null => "as the server".to_owned(),
            other => text(other),
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

//! What an operator changes in the running server: paused lanes, policies.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::body::{self, Bound};
use super::error::{Problem, Result};
use super::json::Json;
use super::parse::object::{self, At};
use super::parse::query::Query;
use super::parse::{self, job};
use super::settle::whole_problem;
use super::{App, Segment, Segments, headers, submit, view};
use crate::driver::port::{Answer, Command, LanePaused, PolicyView, SetPolicy};
use crate::job::{Group, Priority};
use crate::policy::{FileLine, KEYS, LATER_KEYS, Origin, PolicyPatch, Shown, Table};
use crate::written::Value;

/// Which table of a processor is meant.
const SCOPE: &[&str] = &["group", "priority"];

/// `POST /v1/lanes/{processor}/{priority}/pause`
pub(super) async fn pause(
    State(app): State<App>,
    segments: Segments,
    request: Request,
) -> Result<Response<Body>> {
    set_paused(&app, segments, request, true).await
}

/// `POST /v1/lanes/{processor}/{priority}/resume`
pub(super) async fn resume(
    State(app): State<App>,
    segments: Segments,
    request: Request,
) -> Result<Response<Body>> {
    set_paused(&app, segments, request, false).await
}

/// `GET /v1/processors/{processor}/policy`
pub(super) async fn policy(
    State(app): State<App>,
    Segment(processor): Segment,
    request: Request,
) -> Result<Response<Body>> {
    headers::check_accept(request.headers())?;
    let query = Query::parse(request.uri(), SCOPE, &[])?;
    answer(&app, &processor, &query, Change::None).await
}

/// `PUT /v1/processors/{processor}/policy`
pub(super) async fn set_policy(
    State(app): State<App>,
    Segment(processor): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let (parts, bytes) = read(&app, request).await?;
    let query = Query::parse(&parts.uri, SCOPE, &[])?;
    answer(&app, &processor, &query, Change::Set(&bytes)).await
}

/// `DELETE /v1/processors/{processor}/policy`
pub(super) async fn clear_policy(
    State(app): State<App>,
    Segment(processor): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let (parts, bytes) = read(&app, request).await?;
    if !bytes.is_empty() {
        object::body(&bytes, &[], &[])?;
    }
    let query = Query::parse(&parts.uri, SCOPE, &[])?;
    answer(&app, &processor, &query, Change::Clear).await
}

/// What is to become of what was set over the API.
pub(crate) enum Change<'a> {
    /// It stays.
    None,
    /// These values are set: a JSON object.
    Set(&'a [u8]),
    /// All of the table is taken away.
    Clear,
}

/// The policy in force, after a change that is durable.
pub(crate) async fn policy_json(
    app: &App,
    processor: &str,
    (group, priority): (Option<&str>, Option<&str>),
    change: Change<'_>,
) -> Result<Json> {
    let processor = job::processor_name(processor).map_err(|detail| Problem::invalid("processor", detail))?;
    let group = group.map(job::group_name).transpose();
    let group = group.map_err(|detail| Problem::invalid("group", detail))?;
    let priority = priority.map(parse::priority).transpose();
    let priority = priority.map_err(|detail| Problem::invalid("priority", detail))?;
    let (patch, clear) = match change {
        Change::None => {
            let priority = priority.unwrap_or(Priority::Normal);
            return ask(
                app,
                Command::Policy {
                    processor,
                    group,
                    priority,
                },
            )
            .await;
        }
        Change::Set(body) => values(body)?,
        Change::Clear => (PolicyPatch::default(), KEYS.iter().map(|key| key.name).collect()),
    };
    let set = SetPolicy {
        processor,
        table: table(group, priority)?,
        patch,
        clear,
    };
    ask(app, Command::SetPolicy(Box::new(set))).await
}

/// Pauses a lane, or resumes it.
pub(crate) async fn pause_lane(
    app: &App,
    processor: &str,
    priority: &str,
    paused: bool,
) -> Result<LanePaused> {
    let command = Command::Pause {
        processor: job::processor_name(processor).map_err(|detail| Problem::invalid("processor", detail))?,
        priority: parse::priority(priority).map_err(|detail| Problem::invalid("priority", detail))?,
        paused,
    };
    match app.handle().call(command).await.answer {
        Answer::Paused(lane) => Ok(lane),
        Answer::Refused(refusal) => Err(whole_problem(refusal)),
        other => Err(submit::foreign(&other).into()),
    }
}

async fn set_paused(
    app: &App,
    Segments(segments): Segments,
    request: Request,
    paused: bool,
) -> Result<Response<Body>> {
    let (parts, bytes) = read(app, request).await?;
    Query::parse(&parts.uri, &[], &[])?;
    if !bytes.is_empty() {
        object::body(&bytes, &[], &[])?;
    }
    let [processor, priority] = segments.as_slice() else {
        return Err(Problem::invalid("", "the path names no lane"));
    };
    let lane = pause_lane(app, processor, priority, paused).await?;
    let mut json = Json::with_capacity(128);
    json.open();
    json.key("processor");
    json.string(lane.processor.as_str());
    json.key("priority");
    json.string(lane.priority.name());
    json.key("paused");
    json.boolean(lane.paused);
    json.close();
    Ok(view::json_response(StatusCode::OK, json))
}

async fn answer(app: &App, processor: &str, query: &Query<'_>, change: Change<'_>) -> Result<Response<Body>> {
    let scope = (query.get("group"), query.get("priority"));
    let json = policy_json(app, processor, scope, change).await?;
    Ok(view::json_response(StatusCode::OK, json))
}

async fn ask(app: &App, command: Command) -> Result<Json> {
    match app.handle().call(command).await.answer {
        Answer::Policy(view) => Ok(shown(&view)),
        // A policy that is set twice is set once.
        Answer::Refused(refusal) => Err(whole_problem(refusal)),
        other => Err(submit::foreign(&other).into()),
    }
}

async fn read(app: &App, request: Request) -> Result<(Parts, Bytes)> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(app, &parts, body, Bound::request(app.limits())).await?;
    headers::check_accept(&parts.headers)?;
    headers::check_json_type(&parts.headers)?;
    Ok((parts, bytes))
}

fn table(group: Option<Group>, priority: Option<Priority>) -> Result<Table> {
    match (group, priority) {
        (None, None) => Ok(Table::Processor),
        (None, Some(priority)) => Ok(Table::Priority(priority)),
        (Some(group), None) => Ok(Table::Group(group)),
        (Some(_), Some(_)) => Err(Problem::invalid(
            "priority",
            "a policy is set for a group or for a priority, not for both",
        )),
    }
}

/// The values of a body, and the keys that it takes away.
fn values(body: &[u8]) -> Result<(PolicyPatch, Vec<&'static str>)> {
    let keys: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    let object = object::body(body, &keys, LATER_KEYS)?;
    let mut patch = PolicyPatch::default();
    let mut clear = Vec::new();
    for key in KEYS {
        match object.written(key.name) {
            None => {}
            // Elsewhere `null` says nothing; here it takes away what was set.
            Some(raw) if raw.get() == "null" => clear.push(key.name),
            Some(raw) => set(&mut patch, key.name, raw)?,
        }
    }
    Ok((patch, clear))
}

/// Sets one key from the value in the body, with the words of the configuration where it is wrong.
fn set(patch: &mut PolicyPatch, key: &'static str, raw: &RawValue) -> Result<()> {
    let at = At::Field(&At::Body, key);
    let text;
    let value = match object::kind(raw) {
        "a string" => {
            text = object::text(raw, at)?;
            Value::String(&text)
        }
        "a boolean" => Value::Boolean(raw.get() == "true"),
        "a number" if raw.get().contains(['.', 'e', 'E']) => Value::Other("float"),
        "a number" => Value::Integer {
            digits: raw.get(),
            radix: 10,
        },
        "a list" => Value::Other("array"),
        _ => Value::Other("object"),
    };
    patch.set(key, &value).map_err(|wrong| {
        let hint = wrong.hint.map_or_else(String::new, |hint| format!("; {hint}"));
        at.invalid(format!("`{key}`: {}{hint}", wrong.message)).into()
    })
}

fn shown(view: &PolicyView) -> Json {
    let mut json = Json::with_capacity(2048);
    json.open();
    json.key("processor");
    json.string(view.processor.as_str());
    json.key("group");
    json.string_or_null(view.group.as_ref().map(Group::as_str));
    json.key("priority");
    json.string(view.priority.name());
    json.key("policy");
    json.open();
    for explained in &view.keys {
        json.key(explained.key);
        value(&mut json, explained.value.as_ref());
    }
    json.close();
    json.key("origin");
    json.open();
    for explained in &view.keys {
        json.key(explained.key);
        let (from, table) = match &explained.origin {
            Origin::Default => ("default", None),
            Origin::Config(table) => ("config", Some(table.heading(&view.processor).to_string())),
            Origin::ConfigForAll(table) => ("config", Some(table.heading_for_all().to_string())),
            Origin::Api(table) => ("api", Some(table.heading(&view.processor).to_string())),
        };
        json.open();
        json.key("from");
        json.string(from);
        if let Some(table) = table {
            json.key("table");
            json.string(&table);
        }
        place(&mut json, explained.at.as_ref());
        json.close();
    }
    json.close();
    configured(&mut json, view);
    json.key("set");
    json.open();
    for (table, patch) in &view.set {
        json.name(&table.heading(&view.processor).to_string());
        json.open();
        for (key, said) in patch.values() {
            if said.is_some() {
                json.key(key);
                value(&mut json, said.as_ref());
            }
        }
        json.close();
    }
    json.close();
    json.key("warnings");
    json.open_list();
    for warning in &view.warnings {
        json.string(warning);
    }
    json.close_list();
    json.close();
    json
}

/// What the configuration says, by table and key.
fn configured(json: &mut Json, view: &PolicyView) {
    json.key("configured");
    json.open();
    // The keys of one table stand together.
    for keys in view.configured.chunk_by(|one, next| one.heading == next.heading) {
        json.name(&keys[0].heading);
        json.open();
        for configured in keys {
            json.key(configured.key);
            json.open();
            json.key("value");
            value(json, Some(&configured.value));
            place(json, configured.at.as_ref());
            json.close();
        }
        json.close();
    }
    json.close();
}

fn place(json: &mut Json, at: Option<&FileLine>) {
    if let Some(FileLine { path, line }) = at {
        json.key("file");
        json.string(&path.display().to_string());
        json.key("line");
        json.number(u64::try_from(*line).unwrap_or(u64::MAX));
    }
}

fn value(json: &mut Json, value: Option<&Shown>) {
    match value {
        None => json.null(),
        Some(Shown::Number(number)) => json.number(*number),
        Some(Shown::Switch(on)) => json.boolean(*on),
        Some(Shown::Text(text)) => json.string(text),
    }
}

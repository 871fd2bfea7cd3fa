//! The configured routes: plain URLs in front of jobs, with the schemas of their bodies.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::examples;
use super::operation::errors;
use super::operations::{BODY, DRIVER, EVERYWHERE, PATH, SUBMIT, any_body, label_segment, submit_headers};
use super::schema::{named, named_as};
use crate::http::error::{Code, PROBLEM_JSON};
use crate::http::route_table::{Ready, RouteTable};
use crate::limits::Limits;
use crate::units::format_duration;

/// A route as the document has it.
pub(super) struct Documented {
    pub(super) path: String,
    pub(super) method: String,
    pub(super) operation: Value,
    /// The schema of its body and the name that it has in the document.
    pub(super) schema: Option<(String, Value)>,
}

/// All of them, in the order of the configuration.
pub(super) fn all(table: &RouteTable, limits: &Limits) -> Vec<Documented> {
    table
        .routes
        .iter()
        .map(|route| documented(route, limits))
        .collect()
}

fn documented(route: &Ready, limits: &Limits) -> Documented {
    let method = route.method.as_str().to_ascii_lowercase();
    let schema = route.schema.as_ref().map(|schema| {
        let name = name(route);
        let schema = moved(schema.written.clone(), &name);
        (name, schema)
    });
    let body = match &schema {
        // Under any type: it is read as JSON.
        Some((name, _)) => json!({"description": "The data of the job.", "required": true,
            "content": {"application/json": {"schema": named(name)}}}),
        None => any_body(limits),
    };
    let mut parameters: Vec<Value> = route.labels.iter().map(|label| label_segment(label)).collect();
    parameters.extend(submit_headers());
    let mut operation = json!({
        "operationId": name(route),
        "tags": ["routes"],
        "summary": format!("A job of {}", route.processor.as_str()),
        "description": description(route),
        "parameters": parameters,
        "responses": responses(route, schema.is_some()),
    });
    // DELETE may have a body, says this server; nothing else may be said of it there.
    if route.method != Method::DELETE || schema.is_some() {
        operation["requestBody"] = body;
    }
    Documented {
        path: route.template.clone(),
        method,
        operation,
        schema,
    }
}

/// A name from the method and the path: `post_shops_shop_orders`.
fn name(route: &Ready) -> String {
    let path: Vec<String> = route
        .template
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            segment.trim_matches(['{', '}']).chars().map(plain).collect()
        })
        .collect();
    let method = route.method.as_str().to_ascii_lowercase();
    // The number keeps `/a-b` and `/a_b` apart.
    format!("route{}_{method}_{}", route.number, path.join("_"))
}

fn description(route: &Ready) -> String {
    let (group, priority) = (route.group.as_str(), route.priority.name());
    let wait = match route.wait {
        Some(wait) => format!(
            "The answer is the result itself; after `{}` it is `202`, and the job goes on.",
            format_duration(wait)
        ),
        None => "The answer is `202` as soon as the job is durable.".to_owned(),
    };
    format!("The body is the data of a job of group `{group}` and priority `{priority}`. {wait}")
}

/// Results, jobs that go on, failed jobs by their status, and refusals.
fn responses(route: &Ready, has_schema: bool) -> Value {
    let headers = |names: &[&str]| -> Value {
        let refs = names.iter().map(|name| {
            let header = json!({"$ref": format!("#/components/headers/{name}")});
            ((*name).to_owned(), header)
        });
        Value::Object(refs.collect())
    };
    let replayed = "Idempotency-Replayed";
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The result of the job, with its own content type.",
            "headers": headers(&["Jitney-Job-Id", replayed]),
            "content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}},
        }),
    );
    responses.insert(
        "202".to_owned(),
        json!({
            "description": "The job is durable and goes on.",
            "headers": headers(&["Jitney-Job-Id", "Location", replayed]),
            "content": {"application/json": {"schema": named("Job"), "example": examples::queued()}},
            "links": super::operations::job_links(),
        }),
    );
    for (status, response) in errors(&groups(route, has_schema)) {
        responses.insert(status, response);
    }
    for (status, whens) in failures(route) {
        let said = format!("- `job_failed`: {}.", whens.join("; "));
        let failed = named_as("JobProblem", "The error that the job ended with.");
        let entry = responses
            .entry(status.to_string())
            .or_insert_with(|| json!({"description": ""}));
        let before = entry["description"].as_str().unwrap_or_default();
        entry["description"] = json!(format!("{before}\n{said}").trim());
        let content = &mut entry["content"][PROBLEM_JSON];
        content["schema"] = match content.get("schema") {
            Some(refused) => json!({"anyOf": [refused, failed]}),
            None => failed,
        };
        content["examples"]["job_failed"] = json!({"value": examples::job_problem(status)});
    }
    Value::Object(responses)
}

fn groups(route: &Ready, has_schema: bool) -> Vec<&'static [Code]> {
    // JSON that is none is told apart only where the body says, or must be, JSON.
    let mut groups = vec![
        EVERYWHERE,
        BODY,
        SUBMIT,
        DRIVER,
        &[Code::MalformedJson, Code::ResultExpired],
    ];
    if has_schema || !route.labels.is_empty() {
        groups.push(PATH);
    }
    if route.template.starts_with("/{") {
        // What is jitney's own is not caught.
        groups.push(&[Code::NotFound]);
    }
    groups
}

/// Each status of a failed job, and when it is given.
fn failures(route: &Ready) -> BTreeMap<u16, Vec<String>> {
    let mut failures: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (outcome, status) in route.statuses() {
        let when = match outcome.as_str() {
            "error" => "the handler's error is final".to_owned(),
            "exhausted" => "its attempts are used up".to_owned(),
            "batch_failed" => "it ended without an outcome".to_owned(),
            other => format!("its error is `{}`", other.trim_start_matches("error.")),
        };
        failures.entry(status).or_default().push(when);
    }
    failures
}

/// A schema whose references lead to where it stands now: `#/$defs/x` becomes `#/components/schemas/NAME/$defs/x`.
fn moved(mut schema: Value, name: &str) -> Value {
    let own = schema.get("$id").and_then(Value::as_str).map(str::to_owned);
    if let Some(object) = schema.as_object_mut() {
        object.shift_remove("$id");
    }
    move_refs(
        &mut schema,
        own.as_deref(),
        &format!("#/components/schemas/{name}"),
    );
    schema
}

/// Keywords whose values are data, not schemas.
const DATA: [&str; 5] = ["const", "enum", "default", "example", "examples"];
/// Keywords that have schemas by name.
const NAMED: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];

fn move_refs(schema: &mut Value, own: Option<&str>, root: &str) {
    match schema {
        Value::Object(object) => {
            for (keyword, value) in object.iter_mut() {
                if keyword == "$ref" {
                    move_ref(value, own, root);
                } else if NAMED.contains(&keyword.as_str()) {
                    if let Value::Object(schemas) = value {
                        schemas
                            .values_mut()
                            .for_each(|schema| move_refs(schema, own, root));
                    }
                } else if !DATA.contains(&keyword.as_str()) {
                    move_refs(value, own, root);
                }
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(|schema| move_refs(schema, own, root)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn move_ref(reference: &mut Value, own: Option<&str>, root: &str) {
    let Some(text) = reference.as_str() else { return };
    let local = own.and_then(|own| text.strip_prefix(own)).unwrap_or(text);
    if let Some(pointer) = local.strip_prefix('#') {
        // An anchor is a name of its own, wherever the schema stands.
        if pointer.is_empty() || pointer.starts_with('/') {
            *reference = json!(format!("{root}{pointer}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_where_the_schema_stands() {
        let schema = json!({"$id": "https://example.org/order", "properties": {"$ref": {"$ref": "#/$defs/a"},
            "b": {"$ref": "https://example.org/order#/$defs/b"}, "c": {"const": {"$ref": "#"}},
            "d": {"items": [{"$ref": "#"}]}}, "$defs": {"a": {"$ref": "https://elsewhere.example/x"}}});
        assert_eq!(
            moved(schema, "order"),
            json!({"properties": {"$ref": {"$ref": "#/components/schemas/order/$defs/a"},
                "b": {"$ref": "#/components/schemas/order/$defs/b"}, "c": {"const": {"$ref": "#"}},
                "d": {"items": [{"$ref": "#/components/schemas/order"}]}},
                "$defs": {"a": {"$ref": "https://elsewhere.example/x"}}})
        );
    }
}

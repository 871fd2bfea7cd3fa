//! Compares answers with the OpenAPI document: whatever a test of the edge is told, the document must foresee.

use std::sync::{Arc, LazyLock};

use jitney::http::App;
use jitney::metrics::Metrics;
use jitney::server::options::Options;
use jitney::server::port::port;
use serde_json::{Value, json};

/// The document, with schemas that admit no field that they do not name.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let (handle, _port) = port(1);
    let metrics = Arc::new(Metrics::default());
    let app = App::new(handle, &Options::default(), metrics).unwrap();
    let mut document: Value = serde_json::from_slice(app.openapi()).unwrap();
    close(&mut document["components"]["schemas"]);
    document
});

fn close(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        if object.get("properties").is_some_and(Value::is_object) {
            object.entry("additionalProperties").or_insert(json!(false));
        }
        object.values_mut().for_each(close);
    }
    if let Some(list) = schema.as_array_mut() {
        list.iter_mut().for_each(close);
    }
}

/// Fails unless an operation on this path can answer like that. A path that the document does not have, a
/// configured route or nothing at all, is not for it to judge.
pub(super) fn assert_foreseen(path: &str, status: u16, content_type: &str, body: &Value) {
    let Some(item) = path_item(path) else { return };
    // Under another method than those of its operations.
    if body["code"] == "method_not_allowed" {
        return;
    }
    let operations: Vec<&Value> = item.as_object().unwrap().values().collect();
    let told = |why: &str| format!("{path} answered {status} {body}, and the OpenAPI document {why}");
    let responses = operations
        .iter()
        .map(|operation| &operation["responses"][status.to_string()]);
    let schemas: Vec<&Value> = responses
        .filter_map(|response| response["content"].as_object()?.get(content_type)?.get("schema"))
        .collect();
    assert!(
        !schemas.is_empty(),
        "{}",
        told("has no such response (http/openapi/operations.rs)")
    );
    let errors: Vec<String> = schemas
        .into_iter()
        .flat_map(|schema| misfits(schema, body))
        .collect();
    assert!(
        errors.is_empty(),
        "{}: {errors:?}",
        told("says otherwise (http/openapi: the operation's errors, or the schema)")
    );
}

/// The operations on a path: that of its own name rather than one with parameters.
fn path_item(path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    paths.get(path).or_else(|| {
        let found = paths.iter().find(|(template, _)| is_of(template, path));
        found.map(|(_, item)| item)
    })
}

fn is_of(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(known, segment)| (known.starts_with('{') && !segment.is_empty()) || *known == segment)
}

fn misfits(schema: &Value, body: &Value) -> Vec<String> {
    let mut whole = schema.clone();
    whole["components"] = DOCUMENT["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    validator
        .iter_errors(body)
        .map(|error| error.to_string())
        .collect()
}

#[test]
fn an_answer_that_nobody_foresaw_is_noticed() {
    let problem = |code: &str| json!({"type": "/docs/errors#x", "title": "t", "status": 404, "code": code, "detail": "d", "retry": "no"});
    let foreseen = |status: u16, code: &str| {
        let body = problem(code);
        std::panic::catch_unwind(|| assert_foreseen("/v1/jobs/x", status, "application/problem+json", &body))
            .is_ok()
    };
    assert!(foreseen(404, "unknown_job"));
    assert!(!foreseen(404, "unknown_lease"));
    assert!(!foreseen(410, "result_expired"));
    let lanes = json!({"lanes": [], "more": 1});
    let judged = std::panic::catch_unwind(|| assert_foreseen("/v1/lanes", 200, "application/json", &lanes));
    assert!(judged.is_err());
}

//! What keeps the document true: it has what is served, all of it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use tower_service::Service as _;

use super::*;
use crate::http::error::Code;
use crate::http::parse::{job, outcome};
use crate::http::{App, docs, lease, own_paths, router, submit};
use crate::job::{Group, Priority, Processor};
use crate::metrics::Metrics;
use crate::server::options::{Options, Route};
use crate::server::port::port;

const METHODS: [&str; 8] = [
    "get", "post", "put", "patch", "delete", "options", "trace", "connect",
];

fn route(method: &str, path: &str, schema: Option<Value>) -> Route {
    Route {
        method: method.to_owned(),
        path: path.to_owned(),
        processor: Processor::parse("orders").unwrap(),
        group: Group::default(),
        priority: Priority::Normal,
        wait: Some(Duration::from_secs(1)),
        schema,
        status: BTreeMap::from([("error.card_declined".to_owned(), 402)]),
    }
}

fn routes() -> Vec<Route> {
    let schema = json!({"type": "object", "properties": {"price": {"$ref": "#/$defs/price"}},
        "$defs": {"price": {"type": "integer"}}});
    vec![
        route("POST", "/shops/{shop}/orders", Some(schema)),
        route("PUT", "/{anything}", None),
    ]
}

fn app(routes: &[Route]) -> App {
    // Without a driver behind it, every call is refused: whether a method is served shows all the same.
    let (handle, _port) = port(8);
    let options = Options {
        routes: routes.to_vec(),
        ..Options::default()
    };
    App::new(handle, &options, Arc::new(Metrics::default())).unwrap()
}

fn with_routes() -> Value {
    serde_json::from_slice(app(&routes()).openapi()).unwrap()
}

/// Every operation: its path, its method, and what the document says of it.
fn documented(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Codes per operation, as `post /v1/jobs`.
fn codes(operation: &Value) -> BTreeSet<&str> {
    let responses = operation["responses"].as_object().unwrap().values();
    responses
        .filter_map(|response| response.pointer("/content/application~1problem+json/schema"))
        .flat_map(|schema| match schema["anyOf"].as_array() {
            Some(several) => several.iter().collect(),
            None => vec![schema],
        })
        .filter_map(|schema| schema.pointer("/properties/code/enum"))
        .flat_map(|codes| codes.as_array().unwrap())
        .map(|code| code.as_str().unwrap())
        .collect()
}

async fn is_served(router: &mut axum::Router, method: &str, path: &str) -> bool {
    let request = Request::builder()
        .method(Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap())
        .uri(path.replace(['{', '}'], ""))
        .header("host", "localhost")
        .body(Body::empty())
        .unwrap();
    let status = router.call(request).await.unwrap().status().as_u16();
    status != Code::MethodNotAllowed.status()
}

#[tokio::test]
async fn every_endpoint_is_documented_and_nothing_else() {
    let app = app(&[]);
    let document: Value = serde_json::from_slice(app.openapi()).unwrap();
    let mut router = router(&app);
    let assets: Vec<&str> = docs::asset_paths().collect();
    for path in own_paths().filter(|path| !assets.contains(path)) {
        for method in METHODS {
            let operation = document["paths"][path].get(method);
            match (is_served(&mut router, method, path).await, operation) {
                (true, None) => panic!(
                    "`{method} {path}` is served and not in the OpenAPI document: describe it in \
                     http/openapi/operations.rs (an `Operation`, named in `all`), its bodies in schemas.rs"
                ),
                (false, Some(_)) => panic!(
                    "`{method} {path}` is in the OpenAPI document (http/openapi/operations.rs) and not served"
                ),
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
    let served: Vec<&str> = own_paths().collect();
    for (path, method, _) in documented(&document) {
        assert!(
            served.contains(&path),
            "`{method} {path}` is in http/openapi/operations.rs and not among the paths of http/mod.rs"
        );
    }
}

#[test]
fn every_route_is_documented() {
    let document = with_routes();
    for route in routes() {
        let operation = &document["paths"][&route.path][route.method.to_ascii_lowercase()];
        assert_eq!(operation["tags"], json!(["routes"]), "{route:?}");
        assert!(operation["responses"]["402"].is_object(), "{operation}");
    }
    let shops = &document["paths"]["/shops/{shop}/orders"]["post"];
    assert_eq!(shops["parameters"][0]["name"], "shop");
    let schema = shops["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        .as_str()
        .unwrap();
    let schema = document.pointer(schema.trim_start_matches('#')).unwrap();
    let price = schema["properties"]["price"]["$ref"].as_str().unwrap();
    assert_eq!(
        document.pointer(price.trim_start_matches('#')).unwrap(),
        &json!({"type": "integer"})
    );
}

#[test]
fn every_error_code_belongs_to_an_operation() {
    let document = with_routes();
    let mut known: BTreeSet<&str> = documented(&document)
        .flat_map(|(_, _, operation)| codes(operation))
        .collect();
    // Another method than those of an operation is no operation: the introduction names it.
    known.insert(Code::MethodNotAllowed.name());
    for code in Code::ALL {
        assert!(
            known.contains(code.name()),
            "no operation of the OpenAPI document can give `{}`: add it to a group in http/openapi/operations.rs, \
             or to the operations that give it",
            code.name()
        );
    }
}

#[test]
fn the_fields_of_requests_are_those_that_are_read() {
    let schemas = schemas::all(&Limits::default());
    let all = |names: &[&str]| -> BTreeSet<String> {
        let properties = names.iter().map(|name| &schemas[*name]["properties"]);
        properties
            .flat_map(|fields| fields.as_object().unwrap().keys().cloned())
            .collect()
    };
    // One that comes alone has its idempotency key in a header.
    let (_, envelope) = job::ONE_OF_MANY_FIELDS.split_last().unwrap();
    for (names, read) in [
        (&["EnvelopeOfJson", "EnvelopeOfBytes"][..], envelope),
        (&["OneOfManyOfJson", "OneOfManyOfBytes"], job::ONE_OF_MANY_FIELDS),
        (&["ChildOfJson", "ChildOfBytes"], job::CHILD_FIELDS),
        (&["Poll"], lease::FIELDS),
        (&["SettleOutcomes", "SettleFailed"], outcome::SETTLE_FIELDS),
        (&["PolledOutcomes", "PolledFailed"], lease::SETTLE_FIELDS),
        (
            &["OutcomeOk", "OutcomeOkBytes", "OutcomeError", "OutcomeRelease"],
            outcome::OUTCOME_FIELDS,
        ),
    ] {
        let read: BTreeSet<String> = read.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            all(names),
            read,
            "{names:?}: the schema (http/openapi) and the parser (http/parse) differ"
        );
    }
    let keys: BTreeSet<String> = crate::policy::KEYS
        .iter()
        .map(|key| key.name.to_owned())
        .collect();
    assert_eq!(
        all(&["Policy"]),
        keys,
        "http/openapi/control.rs and policy/keys.rs differ"
    );
    let inner = |pointer: &str| -> Vec<&String> {
        let (name, pointer) = pointer.split_once('/').unwrap();
        schemas[name]
            .pointer(&format!("/{pointer}"))
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .collect()
    };
    assert_eq!(
        inner("OutcomeError/properties/error/properties"),
        outcome::ERROR_FIELDS
    );
    assert_eq!(
        inner("SettleFailed/properties/failed/properties"),
        outcome::FAILED_FIELDS
    );
    let document = with_routes();
    let parameters = document["paths"]["/v1/processors/{processor}/jobs"]["post"]["parameters"]
        .as_array()
        .unwrap();
    let in_query: BTreeSet<&str> = parameters
        .iter()
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| parameter["name"].as_str().unwrap())
        .map(|name| if name == "labels" { "label." } else { name })
        .collect();
    assert_eq!(in_query, submit::PARAMETERS.iter().copied().collect());
}

/// A validator of a schema of the document, with the document's own schemas at hand.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let mut whole = schema.clone();
    let object = whole.as_object_mut().unwrap();
    object.insert("components".to_owned(), document["components"].clone());
    jsonschema::options()
        .should_validate_formats(true)
        .build(&whole)
        .unwrap()
}

/// Every media type of the document: where it stands, and what it says.
fn media_types<'a>(value: &'a Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    if let Some(content) = value.get("content").and_then(Value::as_object) {
        found.extend(
            content
                .iter()
                .map(|(name, media)| (format!("{at} {name}"), media)),
        );
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        media_types(inner, &format!("{at}/{name}"), found);
    }
}

#[test]
fn every_example_fits_its_schema() {
    let document = with_routes();
    let mut media = Vec::new();
    media_types(&document["paths"], "", &mut media);
    let mut checked = 0;
    for (at, media) in media {
        let validator = validator(&document, &media["schema"]);
        let named = media["examples"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, example)| example);
        let examples = named.map(|example| match example.get("$ref").and_then(Value::as_str) {
            Some(pointer) => &document.pointer(pointer.trim_start_matches('#')).unwrap()["value"],
            None => &example["value"],
        });
        for example in examples.chain(media.get("example")) {
            let errors: Vec<String> = validator
                .iter_errors(example)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{at}: {example}: {errors:?}");
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn names_of_operations_are_unique_and_links_lead_to_them() {
    let document = with_routes();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in documented(&document) {
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{method} {path}"
        );
    }
    for (path, method, operation) in documented(&document) {
        for response in operation["responses"].as_object().unwrap().values() {
            for link in response["links"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, link)| link)
            {
                assert!(
                    ids.contains(link["operationId"].as_str().unwrap()),
                    "{method} {path}: {link}"
                );
            }
        }
    }
}

#[test]
fn the_limits_in_force_are_in_the_document() {
    let limits = Limits {
        job_bytes_max: 4_321,
        wait_max: Duration::from_secs(7),
        ..Limits::default()
    };
    let text = document(&limits, &RouteTable { routes: Vec::new() }).to_string();
    assert!(text.contains("at most 4321 bytes (`max_job_bytes`)"), "{text}");
    assert!(text.contains("at most `7s` (`wait_max`)"), "{text}");
}

#[test]
fn each_example_of_an_error_says_what_its_page_says() {
    for code in Code::ALL {
        let sentence = examples::first_sentence(code.name());
        assert!(
            sentence.len() > 10 && !sentence.contains("retry"),
            "{}: {sentence:?}",
            code.name()
        );
    }
}

//! The OpenAPI 3.1 document of this server, made from the code that serves.
//!
//! In: the limits in force and the configured routes. Out: the text at `/openapi.json`, built once at start.
//! Nothing on the wire is a derived type (bodies are read and written by hand, so that data is never copied), so
//! there is nothing to derive a document from; what keeps it true are tests:
//! - every method that the router takes has an entry in [`operations`], and no entry is without one;
//! - the fields of a request's schema are the very lists that the parsers check names against;
//! - every error code belongs to an operation, and every answer that any test of the edge gets is compared with
//!   the document: its status, its code, its fields;
//! - every example fits its schema, and `cargo xtask e2e` sends what the document allows, and what it does not.
//!
//! To add an endpoint: serve it in `http/mod.rs`, then describe it in `operations.rs`, `schemas.rs` having its
//! bodies.

mod control;
mod examples;
mod many;
mod operation;
mod operations;
mod patterns;
mod routes;
mod schema;
mod schemas;
mod work;

use serde_json::{Map, Value, json};

use super::route_table::RouteTable;
use crate::limits::Limits;

/// What the document says first.
const INTRODUCTION: &str = "\
jitney gathers jobs into batches and hands them to workers. A job that was answered is durable.

Every error is `application/problem+json` with a stable `code`: [errors](/docs/errors). Any operation may also \
answer `405 method_not_allowed` under another method, and a path that is not here `404 not_found`.

- Durations are strings with a unit: `250ms`, `30s`, `5m`, `1h`, `90d`. Times are RFC 3339 in UTC.
- Lengths of names, keys and labels count bytes of UTF-8.
- A field that is `null` counts as absent; an unknown field or query parameter is an error.
- An answer may gain fields within `/v1`: ignore those that you do not know.";

/// Makes the document.
pub(super) fn document(limits: &Limits, table: &RouteTable) -> Value {
    let mut paths = Map::new();
    for operation in operations::all(limits) {
        insert(&mut paths, operation.path, operation.method, operation.document());
    }
    let mut schemas = schemas::all(limits);
    for route in routes::all(table, limits) {
        if let Some((name, schema)) = route.schema {
            schemas.insert(name, schema);
        }
        insert(&mut paths, &route.path, &route.method, route.operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "jitney",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "tags": [
            {"name": "submit", "description": "Callers: submit jobs, wait for them, read them."},
            {"name": "routes", "description": "The URLs of this server's configuration, each in front of a job."},
            {"name": "work", "description": "Workers: lease batches, settle their jobs."},
            {"name": "operate", "description": "Operators: lanes, limits, health, metrics."},
            {"name": "docs", "description": "This document and its pages."},
        ],
        "paths": paths,
        "components": {"schemas": schemas, "examples": examples::problems(), "headers": operation::headers()},
    })
}

fn insert(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[method] = operation;
}

#[cfg(test)]
mod tests;

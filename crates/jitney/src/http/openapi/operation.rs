//! One operation and how it is written down: what it takes, what it answers, and every error it can give.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::schema::named;
use crate::http::error::{Code, PROBLEM_JSON};

/// A method on a path.
pub(super) struct Operation {
    /// In lower case.
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    /// Its stable name, for generated clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: String,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    pub(super) answers: Vec<Answer>,
    /// Every error that it can give, in groups; a code may come twice.
    pub(super) errors: Vec<&'static [Code]>,
}

/// An answer that is no error.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) description: &'static str,
    /// Content types and what comes under them.
    pub(super) content: Value,
    /// Names of [`headers`].
    pub(super) headers: &'static [&'static str],
    /// Operations to go on with, by their ids.
    pub(super) links: Value,
}

impl Answer {
    /// An answer in JSON.
    pub(super) fn json(status: StatusCode, description: &'static str, schema: &str, example: Value) -> Self {
        Self {
            status,
            description,
            content: json!({"application/json": {"schema": named(schema), "example": example}}),
            headers: &[],
            links: Value::Null,
        }
    }

    /// An answer of another type.
    pub(super) fn text(description: &'static str, content_type: &str) -> Self {
        let mut content = Map::new();
        content.insert(content_type.to_owned(), json!({"schema": {"type": "string"}}));
        Self {
            status: StatusCode::OK,
            description,
            content: Value::Object(content),
            headers: &[],
            links: Value::Null,
        }
    }

    /// With these headers.
    pub(super) fn headers(mut self, headers: &'static [&'static str]) -> Self {
        self.headers = headers;
        self
    }

    /// With these links.
    pub(super) fn links(mut self, links: Value) -> Self {
        self.links = links;
        self
    }

    fn document(&self) -> Value {
        let mut answer = json!({"description": self.description});
        if !self.headers.is_empty() {
            answer["headers"] = header_refs(self.headers);
        }
        if !self.content.is_null() {
            answer["content"] = self.content.clone();
        }
        if !self.links.is_null() {
            answer["links"] = self.links.clone();
        }
        answer
    }
}

impl Operation {
    /// As the document has it.
    pub(super) fn document(&self) -> Value {
        let mut responses = Map::new();
        for answer in &self.answers {
            responses.insert(answer.status.as_str().to_owned(), answer.document());
        }
        for (status, response) in errors(&self.errors) {
            // A lost lease is an answer with results, too: described where it is given.
            responses.entry(status).or_insert(response);
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
        });
        if !self.parameters.is_empty() {
            operation["parameters"] = json!(self.parameters);
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation["responses"] = Value::Object(responses);
        operation
    }
}

/// A response per status for these codes.
pub(super) fn errors(groups: &[&[Code]]) -> Vec<(String, Value)> {
    let mut codes: Vec<Code> = groups.iter().flat_map(|group| group.iter().copied()).collect();
    codes.sort_by_key(|code| (code.status(), code.name()));
    codes.dedup();
    codes
        .chunk_by(|a, b| a.status() == b.status())
        .map(|codes| (codes[0].status().to_string(), problem(codes)))
        .collect()
}

/// The response of codes that share a status.
fn problem(codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
    let lines: Vec<String> = codes
        .iter()
        .map(|code| {
            let (name, title) = (code.name(), code.title());
            format!("- [`{name}`](/docs/errors#{name}): {title}.")
        })
        .collect();
    let examples: Map<String, Value> = names
        .iter()
        .map(|name| {
            (
                (*name).to_owned(),
                json!({"$ref": format!("#/components/examples/{name}")}),
            )
        })
        .collect();
    let mut schema = named("Problem");
    schema["properties"] = json!({"code": {"enum": names}, "status": {"const": codes[0].status()}});
    let mut content = Map::new();
    content.insert(
        PROBLEM_JSON.to_owned(),
        json!({"schema": schema, "examples": examples}),
    );
    let mut response = json!({"description": lines.join("\n")});
    if codes.iter().any(|code| code.says_when()) {
        response["headers"] = header_refs(&["Retry-After"]);
    }
    response["content"] = Value::Object(content);
    response
}

/// The headers that answers carry.
pub(super) fn headers() -> Value {
    let header = |description: &str, schema: Value| json!({"description": description, "schema": schema});
    json!({
        "Location": header("Where the job can be read.", json!({"type": "string", "format": "uri-reference"})),
        "Idempotency-Replayed": header(
            "`true` where this is the job of an earlier submit, absent otherwise.",
            json!({"type": "string", "enum": ["true"]}),
        ),
        "Retry-After": header(
            "Seconds until the same request may be sent again.",
            json!({"type": "integer", "minimum": 1}),
        ),
        "Jitney-Job-Id": header("The job behind the answer.", json!({"type": "string", "format": "uuid"})),
        "ETag": header("Names this version of the text.", json!({"type": "string"})),
    })
}

fn header_refs(names: &[&str]) -> Value {
    let refs: Map<String, Value> = names
        .iter()
        .map(|name| {
            (
                (*name).to_owned(),
                json!({"$ref": format!("#/components/headers/{name}")}),
            )
        })
        .collect();
    Value::Object(refs)
}

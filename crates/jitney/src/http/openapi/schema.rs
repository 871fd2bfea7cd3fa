//! Small words for JSON Schema, so that the schemas of the contract read like its tables.

use serde_json::{Map, Value, json};

/// A named schema.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A named schema, said to be something in particular.
pub(super) fn named_as(name: &str, description: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}"), "description": description})
}

/// A schema or `null`, which counts as absent.
pub(super) fn or_null(mut schema: Value) -> Value {
    match schema.get_mut("type") {
        Some(kind) => *kind = json!([kind.clone(), "null"]),
        None => return json!({"anyOf": [schema, {"type": "null"}]}),
    }
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    schema
}

/// A string.
pub(super) fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// A string of so many characters.
pub(super) fn text_of(min: usize, max: usize, description: &str) -> Value {
    json!({"type": "string", "minLength": min, "maxLength": max, "description": description})
}

/// A whole number that counts something.
pub(super) fn count(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

/// `true` or `false`.
pub(super) fn boolean(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

/// An instant.
pub(super) fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

/// One of these words.
pub(super) fn one_of(words: &[&str], description: &str) -> Value {
    json!({"type": "string", "enum": words, "description": description})
}

/// A list.
pub(super) fn list(items: Value, description: &str) -> Value {
    json!({"type": "array", "items": items, "description": description})
}

/// Any JSON value.
pub(super) fn anything(description: &str) -> Value {
    json!({"description": description})
}

/// An object of a request: what is not named is an error.
pub(super) fn request(description: &str, required: &[&str], properties: Map<String, Value>) -> Value {
    let mut schema = answer(description, required, properties);
    schema["additionalProperties"] = Value::Bool(false);
    schema
}

/// An object of an answer: it may gain fields.
pub(super) fn answer(description: &str, required: &[&str], properties: Map<String, Value>) -> Value {
    let mut schema = json!({"type": "object", "description": description});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["properties"] = Value::Object(properties);
    schema
}

/// The fields of an object, in their order.
pub(super) fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

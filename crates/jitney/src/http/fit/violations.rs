//! Finds the places where a body does not fit its schema, in a bounded number of steps.
//!
//! In: a schema, and a body that does not fit. Out: at least one violation. What all of a value's parts must fit is
//! gone through part by part. Of alternatives one is gone into where the value says which it means to be, by a `const`
//! or an `enum` of one of its fields, or where no other comes into question; else the value fits none of them, and that
//! is said. What only the validator understands is named as a whole.

use std::fmt::{self, Write as _};
use std::time::Duration;

use jsonschema::Draft;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::branching::escaped;
use super::{Part, Schema};
use crate::http::error::Violation;

/// Violations that an answer lists at most.
const VIOLATIONS_MAX: usize = 100;

/// Parts of the body that are looked at, each by a part of the schema.
const STEPS_MAX: u32 = 20_000;

/// Time for all of it.
const TIME_MAX: Duration = Duration::from_millis(200);

/// Levels of parts within parts: a reference may lead to itself.
const DEPTH_MAX: u32 = 300;

/// References that are followed from one alternative to what it is.
const HOPS_MAX: usize = 8;

/// The longest text of one violation, bytes: it may quote what it complains of.
const DETAIL_BYTES_MAX: usize = 300;

/// Keywords that a shell has not: they say something of what is in the value, or send elsewhere. Fields alone are there
/// by name, as it matters which are known.
const NOT_OF_SHELL: [&str; 27] = [
    "$anchor",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "$schema",
    "additionalItems",
    "allOf",
    "anyOf",
    "contains",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "else",
    "id",
    "if",
    "items",
    "maxContains",
    "minContains",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
];

/// Keywords that are not gone into: only the validator says whether a value fits them.
const OPAQUE: [&str; 12] = [
    "$dynamicRef",
    "$id",
    "$recursiveRef",
    "$ref",
    "contains",
    "dependencies",
    "dependentSchemas",
    "not",
    "patternProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// What was found.
pub(super) struct Found {
    pub(super) violations: Vec<Violation>,
    /// The search ended before it had seen everything, or may have missed something.
    pub(super) more: bool,
}

struct Search<'a> {
    schema: &'a Schema,
    found: Found,
    steps: u32,
    until: Instant,
    /// Where in the body it is.
    here: String,
    depth: u32,
}

/// A part of the schema that is an object, and where it stands in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    fields: &'a Map<String, Value>,
    pointer: &'a str,
}

/// Finds the violations of a body that does not fit.
pub(super) fn find(schema: &Schema, body: &Value) -> Found {
    let mut search = Search {
        schema,
        found: Found {
            violations: Vec::new(),
            more: false,
        },
        steps: 0,
        until: Instant::now() + TIME_MAX,
        here: String::new(),
        depth: 0,
    };
    search.visit(&schema.written, "", body);
    if search.found.violations.is_empty() {
        search.found.more = true;
        search.report("it does not fit the schema, and where would take too long to find out");
    }
    search.found
}

impl Search<'_> {
    fn visit(&mut self, part: &Value, pointer: &str, value: &Value) {
        if self.is_over() {
            return;
        }
        self.steps += 1;
        self.depth += 1;
        let before = self.found.violations.len();
        match part {
            Value::Bool(false) => self.report("nothing may stand here"),
            Value::Object(fields) => {
                let place = Place { fields, pointer };
                // References within a schema of its own name are relative to that.
                let own = pointer.is_empty() || !fields.contains_key("$id");
                if own {
                    self.all(place, value);
                }
                if self.found.violations.len() == before {
                    self.others(place, value, own);
                }
            }
            _ => {}
        }
        self.depth -= 1;
    }

    /// Whether the bounds are reached.
    fn is_over(&mut self) -> bool {
        let over = self.found.violations.len() >= VIOLATIONS_MAX
            || self.steps >= STEPS_MAX
            || self.depth >= DEPTH_MAX
            || Instant::now() >= self.until;
        self.found.more |= over;
        over
    }

    fn report(&mut self, detail: impl fmt::Display) {
        let pointer = self.here.clone();
        self.report_at(pointer, detail);
    }

    fn report_at(&mut self, pointer: String, detail: impl fmt::Display) {
        if self.found.violations.len() < VIOLATIONS_MAX {
            let detail = bounded(detail);
            self.found.violations.push(Violation { pointer, detail });
        } else {
            self.found.more = true;
        }
    }

    fn visit_in(&mut self, name: &str, part: &Value, pointer: &str, value: &Value) {
        let length = self.here.len();
        self.here.push('/');
        self.here.push_str(&escaped(name));
        self.visit(part, pointer, value);
        self.here.truncate(length);
    }

    /// What the value and all that is in it must fit.
    fn all(&mut self, place: Place<'_>, value: &Value) {
        let root = &self.schema.written;
        if let Some((part, pointer)) = target(root, place.fields) {
            self.visit(part, pointer, value);
            if self.is_old() {
                // There nothing counts beside a reference.
                return;
            }
        }
        self.shell(place, value);
        if let Value::Object(values) = value {
            self.fields(place, values);
        }
        if let Value::Array(values) = value {
            self.items(place, values);
        }
        for (at, part) in list(place.fields, "allOf").iter().enumerate() {
            self.visit(part, &format!("{}/allOf/{at}", place.pointer), value);
        }
    }

    fn is_old(&self) -> bool {
        matches!(
            self.schema.validator.draft(),
            Draft::Draft4 | Draft::Draft6 | Draft::Draft7
        )
    }

    /// What is said of the value itself.
    fn shell(&mut self, place: Place<'_>, value: &Value) {
        let Some(shell) = self
            .schema
            .part(Part::Shell, place.pointer, || shell_of(place.fields))
        else {
            return;
        };
        for error in shell.iter_errors(value) {
            self.report_at(format!("{}{}", self.here, error.instance_path()), &error);
        }
    }

    fn fields(&mut self, place: Place<'_>, values: &Map<String, Value>) {
        let known = place.fields.get("properties").and_then(Value::as_object);
        for (name, part) in known.into_iter().flatten() {
            if let (Some(value), false) = (values.get(name), part == &Value::Bool(false)) {
                let pointer = format!("{}/properties/{}", place.pointer, escaped(name));
                self.visit_in(name, part, &pointer, value);
            }
        }
        let more = place.fields.get("additionalProperties");
        if let Some(part @ Value::Object(_)) = more
            && !place.fields.contains_key("patternProperties")
        {
            let pointer = format!("{}/additionalProperties", place.pointer);
            for (name, value) in values {
                if !known.is_some_and(|known| known.contains_key(name)) {
                    self.visit_in(name, part, &pointer, value);
                }
            }
        }
    }

    fn items(&mut self, place: Place<'_>, values: &[Value]) {
        let (first, rest) = match list(place.fields, "items") {
            [] => ("prefixItems", "items"),
            _ => ("items", "additionalItems"),
        };
        let known = list(place.fields, first);
        for (at, (part, value)) in known.iter().zip(values).enumerate() {
            let pointer = format!("{}/{first}/{at}", place.pointer);
            self.visit_in(&at.to_string(), part, &pointer, value);
        }
        let pointer = format!("{}/{rest}", place.pointer);
        match place.fields.get(rest) {
            Some(Value::Bool(false)) if values.len() > known.len() => {
                self.report(format_args!("it has at most {} items", known.len()));
            }
            Some(part @ Value::Object(_)) => {
                for (at, value) in values.iter().enumerate().skip(known.len()) {
                    if self.is_over() {
                        return;
                    }
                    self.visit_in(&at.to_string(), part, &pointer, value);
                }
            }
            _ => {}
        }
    }

    /// What is left where nothing was found: alternatives, and what only the validator understands. `own` is false
    /// where nothing was looked for.
    fn others(&mut self, place: Place<'_>, value: &Value, own: bool) {
        let has = |name: &&&str| place.fields.contains_key(**name);
        let opaque: Vec<&str> = OPAQUE.iter().filter(has).copied().collect();
        let opaque: Vec<&str> = opaque
            .into_iter()
            .filter(|name| *name != "$ref" || target(&self.schema.written, place.fields).is_none())
            .filter(|name| *name != "$id" || !own)
            .collect();
        let alternatives = ["anyOf", "oneOf", "if"];
        let none = alternatives.iter().filter(has).count() == 0 && opaque.is_empty();
        if none || self.fits(place.pointer, value) {
            return;
        }
        let before = self.found.violations.len();
        if own {
            for keyword in ["anyOf", "oneOf"] {
                self.alternatives(place, keyword, value);
            }
            self.condition(place, value);
        }
        if self.found.violations.len() == before {
            match opaque.as_slice() {
                [] => self.report("it does not fit the schema"),
                names => self.report(format_args!("it does not fit `{}`", names.join("`, `"))),
            }
        }
    }

    /// Whether a value fits a part. Where that cannot be known, it is taken to fit: another part is to blame.
    fn fits(&self, pointer: &str, value: &Value) -> bool {
        let whole = self.schema.part(Part::Whole, pointer, || Value::Null);
        whole.is_none_or(|whole| whole.is_valid(value))
    }

    fn alternatives(&mut self, place: Place<'_>, keyword: &str, value: &Value) {
        let parts = list(place.fields, keyword);
        let mut fitting = 0;
        for at in 0..parts.len() {
            if self.is_over() {
                return;
            }
            fitting += usize::from(self.fits(&format!("{}/{keyword}/{at}", place.pointer), value));
        }
        match (fitting, keyword) {
            (_, _) if parts.is_empty() => {}
            (0, _) => {
                let before = self.found.violations.len();
                if let Some(at) = self.meant(parts, value) {
                    self.visit(&parts[at], &format!("{}/{keyword}/{at}", place.pointer), value);
                }
                if self.found.violations.len() == before {
                    let count = parts.len();
                    self.report(format_args!("it fits none of the {count} schemas of `{keyword}`"));
                }
            }
            (2.., "oneOf") => {
                self.report(format_args!(
                    "it fits {fitting} of the schemas of `oneOf`, and may fit only one"
                ));
            }
            _ => {}
        }
    }

    /// Which alternative the value means to be, if it says so.
    fn meant(&self, parts: &[Value], value: &Value) -> Option<usize> {
        let mut tagged = Vec::new();
        let mut possible = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            match likeness(&self.schema.written, part, value) {
                Likeness::Tagged => tagged.push(at),
                Likeness::Possible => possible.push(at),
                Likeness::Other => {}
            }
        }
        match (tagged.as_slice(), possible.as_slice()) {
            ([at], _) | ([], [at]) => Some(*at),
            _ => None,
        }
    }

    fn condition(&mut self, place: Place<'_>, value: &Value) {
        if !place.fields.contains_key("if") {
            return;
        }
        let branch = match self.fits(&format!("{}/if", place.pointer), value) {
            true => "then",
            false => "else",
        };
        if let Some(part) = place.fields.get(branch) {
            self.visit(part, &format!("{}/{branch}", place.pointer), value);
        }
    }
}

/// How much a value looks like an alternative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// A field of it says that it is this one.
    Tagged,
    /// Nothing says that it is not.
    Possible,
    Other,
}

fn likeness(root: &Value, part: &Value, value: &Value) -> Likeness {
    let mut part = part;
    for _ in 0..HOPS_MAX {
        match part.as_object().and_then(|fields| target(root, fields)) {
            Some((next, _)) => part = next,
            None => break,
        }
    }
    let Some(fields) = part.as_object() else {
        return Likeness::Other;
    };
    if admits(fields, value) == Some(false) || !is_of_type(fields, value) {
        return Likeness::Other;
    }
    let mut likeness = Likeness::Possible;
    let known = fields.get("properties").and_then(Value::as_object);
    for (name, part) in known.into_iter().flatten() {
        let said = part.as_object().zip(value.get(name));
        match said.and_then(|(fields, value)| admits(fields, value)) {
            Some(true) => likeness = Likeness::Tagged,
            Some(false) => return Likeness::Other,
            None => {}
        }
    }
    let lacks = |name: &Value| name.as_str().is_some_and(|name| value.get(name).is_none());
    let lacks_any = value.is_object() && list(fields, "required").iter().any(lacks);
    match likeness {
        Likeness::Possible if lacks_any => Likeness::Other,
        likeness => likeness,
    }
}

/// Whether a value is one of those that are listed, where any are.
fn admits(fields: &Map<String, Value>, value: &Value) -> Option<bool> {
    match fields.get("const") {
        Some(only) => Some(only == value),
        None => fields
            .get("enum")?
            .as_array()
            .map(|values| values.contains(value)),
    }
}

fn is_of_type(fields: &Map<String, Value>, value: &Value) -> bool {
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number" | "integer") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    };
    match fields.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(is),
        Some(kind) => is(kind),
        None => true,
    }
}

/// What a reference within the schema leads to, and where that stands.
fn target<'a>(root: &'a Value, fields: &'a Map<String, Value>) -> Option<(&'a Value, &'a str)> {
    let pointer = fields.get("$ref")?.as_str()?.strip_prefix('#')?;
    (!pointer.contains('%')).then_some((root.pointer(pointer)?, pointer))
}

fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    fields
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A part without what it says of what is in the value.
fn shell_of(fields: &Map<String, Value>) -> Value {
    let mut shell = Map::new();
    for (name, part) in fields {
        let kept = match (name.as_str(), part) {
            (name, _) if NOT_OF_SHELL.contains(&name) || name.starts_with("unevaluated") => continue,
            ("properties", Value::Object(parts)) => {
                let open = |part: &Value| Value::Bool(part != &Value::Bool(false));
                Value::Object(
                    parts
                        .iter()
                        .map(|(name, part)| (name.clone(), open(part)))
                        .collect(),
                )
            }
            ("patternProperties", Value::Object(parts)) => Value::Object(
                parts
                    .keys()
                    .map(|name| (name.clone(), Value::Bool(true)))
                    .collect(),
            ),
            ("additionalProperties", Value::Object(_)) => continue,
            (_, part) => part.clone(),
        };
        shell.insert(name.clone(), kept);
    }
    Value::Object(shell)
}

/// A text of bounded length.
fn bounded(detail: impl fmt::Display) -> String {
    struct Bounded(String);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for letter in text.chars() {
                if self.0.len() + letter.len_utf8() > DETAIL_BYTES_MAX {
                    self.0.push_str("...");
                    return Err(fmt::Error);
                }
                self.0.push(letter);
            }
            Ok(())
        }
    }
    let mut text = Bounded(String::new());
    // It fails where the text is cut.
    write!(text, "{detail}").unwrap_or(());
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn found(schema: &Value, body: &Value) -> Found {
        let schema = Schema::new(schema).unwrap();
        assert!(!schema.validator.is_valid(body), "{body}");
        find(&schema, body)
    }

    fn pointers(schema: &Value, body: &Value) -> Vec<String> {
        let found = found(schema, body).violations;
        found.into_iter().map(|violation| violation.pointer).collect()
    }

    fn said(schema: &Value, body: &Value) -> String {
        let found = found(schema, body).violations;
        let said: Vec<_> = found
            .iter()
            .map(|violation| format!("{}: {}", violation.pointer, violation.detail))
            .collect();
        said.join("; ")
    }

    /// Sums, products and numbers.
    fn expressions() -> Value {
        let node = |kind: &str| {
            json!({
                "type": "object",
                "required": ["kind", "left", "right"],
                "properties": {
                    "kind": {"const": kind},
                    "left": {"$ref": "#/$defs/expression"},
                    "right": {"$ref": "#/$defs/expression"},
                },
            })
        };
        json!({
            "$defs": {"expression": {"anyOf": [node("sum"), node("product"), {"type": "number"}]}},
            "$ref": "#/$defs/expression",
        })
    }

    /// An expression so deep, with something else at the bottom.
    fn nested(depth: usize, kind: &str) -> Value {
        let mut body = json!("bad");
        for _ in 0..depth {
            body = json!({"kind": kind, "left": body, "right": 1});
        }
        body
    }

    #[test]
    fn what_a_value_says_that_it_is_leads_to_the_place() {
        let body = nested(20, "sum");
        let violation = found(&expressions(), &body).violations.remove(0);
        assert_eq!(violation.pointer, "/left".repeat(20));
        assert_eq!(violation.detail, "it fits none of the 3 schemas of `anyOf`");
    }

    /// Five seconds and six gigabytes.
    #[test]
    fn alternatives_that_cannot_be_told_apart_take_no_long_time() {
        let node = |one: &str, two: &str| json!({"type": "object", "properties": {one: {"$ref": "#/$defs/e"}, two: {"$ref": "#/$defs/e"}}});
        let schema = json!({
            "$defs": {"e": {"anyOf": [node("left", "right"), node("right", "left")]}},
            "$ref": "#/$defs/e",
        });
        let body = nested(100, "sum");
        let found = found(&schema, &body);
        assert_eq!(found.violations.len(), 1);
        assert_eq!(found.violations[0].pointer, "");
    }

    #[test]
    fn every_place_is_found_and_no_more_than_fit() {
        let schema = json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "tags": {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "string", "minLength": 2}},
                "pair": {"prefixItems": [true, true], "items": false},
                "a/b": {"allOf": [{"minimum": 3}, {"multipleOf": 2}]},
                "gone": false,
            },
            "additionalProperties": {"type": "integer"},
        });
        let body = json!({
            "tags": [1, "a", "ok", 2], "pair": [1, 2, 3], "a/b": 1, "gone": 1, "more": "x",
        });
        let mut found = pointers(&schema, &body);
        found.sort_unstable();
        let places = [
            "", "/a~1b", "/a~1b", "/gone", "/more", "/pair", "/tags/0", "/tags/1", "/tags/3",
        ];
        assert_eq!(found, places);
        let many = json!({"name": "x", "tags": vec![json!(1); 100_000]});
        let found = self::found(&schema, &many);
        assert_eq!((found.violations.len(), found.more), (VIOLATIONS_MAX, true));
    }

    #[test]
    fn what_only_the_validator_understands_is_named() {
        for (schema, body, expected) in [
            (
                json!({"not": {"type": "string"}}),
                json!("x"),
                ": it does not fit `not`",
            ),
            (
                json!({"properties": {"x": {"patternProperties": {"^a": {"type": "null"}}}}}),
                json!({"x": {"ab": 1}}),
                "/x: it does not fit `patternProperties`",
            ),
            (
                json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]}),
                json!(3),
                ": it fits 2 of the schemas of `oneOf`, and may fit only one",
            ),
            (
                json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}}),
                json!({"a": 1}),
                ": \"b\" is a required property",
            ),
            (
                json!({"properties": {"x": {"$id": "urn:x", "properties": {"y": {"type": "null"}}}}}),
                json!({"x": {"y": 1}}),
                "/x: it does not fit `$id`",
            ),
            (
                json!({"$defs": {"n": {"$anchor": "n", "type": "null"}}, "items": {"$ref": "#n"}}),
                json!([null, 1]),
                "/1: it does not fit `$ref`",
            ),
            (
                json!({"$schema": "http://json-schema.org/draft-07/schema#",
                       "definitions": {"s": {"type": "string"}},
                       "items": [{"$ref": "#/definitions/s", "maxLength": 1}],
                       "additionalItems": {"type": "null"}}),
                json!([7, 8]),
                "/0: 7 is not of type \"string\"; /1: 8 is not of type \"null\"",
            ),
        ] {
            assert_eq!(said(&schema, &body), expected, "{schema}");
        }
    }

    #[test]
    fn a_reference_to_itself_ends() {
        let schema = json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}},
                            "allOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]});
        let found = found(&schema, &json!(1));
        assert!(found.more);
        assert!(!found.violations.is_empty());
    }

    #[test]
    fn a_violation_quotes_no_more_than_a_little() {
        let text = said(&json!({"type": "null"}), &json!("x".repeat(1 << 20)));
        assert!(text.ends_with("...") && text.len() < 400, "{text}");
    }
}

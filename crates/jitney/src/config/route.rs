//! `[[route]]`: plain URLs in front of jobs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Complaint, Complaints, FilePlace, Place, suggestion};
use super::source::{Key, Keys, Source, read_text};
use super::value::{Value, Wrong, typed};
use crate::job::{Group, Priority, Processor};
use crate::server::options::Route;
use crate::units::format_duration;

/// First segments that are jitney's own.
const RESERVED: &[&str] = &[
    "v1",
    "docs",
    "openapi.json",
    "metrics",
    "healthz",
    "readyz",
    "dashboard",
    "events",
    "a",
];

/// The most labels of a job.
const LABELS_MAX: usize = 16;

/// Methods whose requests have a body.
const METHODS: &[&str] = &["POST", "PUT", "PATCH", "DELETE"];

/// Outcomes that `status` maps, beside `error.CODE`.
const OUTCOMES: &[&str] = &["error", "exhausted", "batch_failed"];

/// The status codes that an outcome other than a result may have.
const STATUS_RANGE: std::ops::RangeInclusive<u16> = 400..=599;

/// What one table says.
pub(super) struct Draft {
    method: Option<String>,
    path: Option<String>,
    processor: Option<Processor>,
    group: Group,
    priority: Priority,
    wait: Option<Duration>,
    /// As it is written; read once the table is.
    schema: Option<String>,
}

/// Every key of a route but `status`, which is a table.
pub(super) const KEYS: &[Key<Draft>] = &[
    Key {
        name: "method",
        set: |route, value| {
            let text = value.text()?;
            let Some(method) = METHODS.iter().find(|method| **method == text) else {
                return Err(Wrong {
                    message: format!("`{text}` is not one of {}", METHODS.join(", ")),
                    hint: suggestion(text, METHODS.iter().copied()),
                });
            };
            route.method = Some((*method).to_owned());
            Ok(())
        },
    },
    Key {
        name: "path",
        set: |route, value| {
            let path = value.text()?;
            check_path(path)?;
            route.path = Some(path.to_owned());
            Ok(())
        },
    },
    Key {
        name: "processor",
        set: |route, value| {
            route.processor = Some(name(value, "a processor", Processor::parse)?);
            Ok(())
        },
    },
    Key {
        name: "group",
        set: |route, value| {
            route.group = name(value, "a group", Group::parse)?;
            Ok(())
        },
    },
    Key {
        name: "priority",
        set: |route, value| {
            let text = value.text()?;
            let found = Priority::ALL.into_iter().find(|priority| priority.name() == text);
            route.priority = found.ok_or_else(|| Wrong {
                message: format!("`{text}` is not a priority"),
                hint: suggestion(text, Priority::ALL.map(Priority::name)),
            })?;
            Ok(())
        },
    },
    Key {
        name: "wait",
        set: |route, value| {
            route.wait = Some(value.span()?);
            Ok(())
        },
    },
    Key {
        name: "schema",
        set: |route, value| {
            route.schema = Some(value.text()?.to_owned());
            Ok(())
        },
    },
];

/// What a route has that says nothing of these.
pub(super) const DEFAULTS: &[(&str, &str)] =
    &[("method", "POST"), ("group", "default"), ("priority", "NORMAL")];

/// A route that was read, and where its `wait` stands.
pub(super) struct Written {
    pub(super) route: Route,
    wait: Option<Place>,
}

/// Complains about routes that contradict the server's limits.
pub(super) fn check(routes: &[Written], wait_max: Duration, complaints: &mut Complaints) {
    for Written { route, wait } in routes {
        if let Some(asked) = route.wait.filter(|asked| *asked > wait_max) {
            let message = format!(
                "`wait` is {}, more than the server's `wait_max` ({})",
                format_duration(asked),
                format_duration(wait_max)
            );
            complaints.push(
                Complaint::new(message, wait.clone()).hint("lower it, or raise `wait_max` in [server]"),
            );
        }
    }
}

/// Reads all routes.
pub(super) fn read(
    value: &Spanned<DeValue<'_>>,
    source: &Source,
    routes: &mut Vec<Written>,
    complaints: &mut Complaints,
) {
    let Some(tables) = value.get_ref().as_array() else {
        let place = source.place(value.span());
        return complaints.push(
            Complaint::new("routes are a list of tables", place).hint("write [[route]], with two brackets"),
        );
    };
    for value in tables {
        let Some(table) = source.table(value, "[[route]]", complaints) else {
            continue;
        };
        let here = source.place(value.span());
        let Some(written) = read_route(table, &here, source, complaints) else {
            continue;
        };
        let route = &written.route;
        let shape = shape(&route.path);
        let taken = |other: &&Route| other.method == route.method && self::shape(&other.path) == shape;
        if let Some(other) = routes.iter().map(|written| &written.route).find(taken) {
            let message = format!(
                "two routes answer `{} {}`: the other is `{}`",
                route.method, route.path, other.path
            );
            complaints.push(Complaint::new(message, here).hint("give one of them another path or method"));
            continue;
        }
        routes.push(written);
    }
}

fn read_route(
    table: &DeTable<'_>,
    here: &Place,
    source: &Source,
    complaints: &mut Complaints,
) -> Option<Written> {
    let mut keys = Keys::new(Draft {
        method: None,
        path: None,
        processor: None,
        group: Group::default(),
        priority: Priority::Normal,
        wait: None,
        schema: None,
    })
    .also(&["status"]);
    let mut plain = DeTable::new();
    let mut status = BTreeMap::new();
    for (key, value) in table {
        if key.get_ref().as_ref() != "status" {
            plain.insert(key.clone(), value.clone());
        }
    }
    keys.set_table(KEYS, &plain, "[[route]]", source, complaints);
    if let Some(value) = table.get("status") {
        read_status(value, source, &mut status, complaints);
    }
    let schema = keys.draft.schema.as_ref().and_then(|written| {
        let place = keys.place("schema");
        let read = read_schema(&source.directory().join(written), place);
        read.map_err(|complaint| complaints.push(complaint)).ok()
    });
    for (key, example) in [
        ("path", "path = \"/orders\""),
        ("processor", "processor = \"orders\""),
    ] {
        if !plain.keys().any(|written| written.get_ref() == key) {
            let message = format!("a route needs `{key}`");
            complaints
                .push(Complaint::new(message, here.clone()).hint(format!("write for example {example}")));
        }
    }
    let wait = keys.place("wait");
    let draft = keys.draft;
    let route = Route {
        method: draft.method.unwrap_or_else(|| "POST".to_owned()),
        path: draft.path?,
        processor: draft.processor?,
        group: draft.group,
        priority: draft.priority,
        wait: draft.wait,
        schema,
        status,
    };
    Some(Written { route, wait })
}

fn read_status(
    value: &Spanned<DeValue<'_>>,
    source: &Source,
    status: &mut BTreeMap<String, u16>,
    complaints: &mut Complaints,
) {
    let Some(table) = source.table(value, "`status`", complaints) else {
        return;
    };
    for (key, value) in table {
        let outcome = key.get_ref().as_ref();
        let of_code = outcome
            .strip_prefix("error.")
            .is_some_and(|code| !code.is_empty());
        if !of_code && !OUTCOMES.contains(&outcome) {
            let mut complaint = source.unknown(outcome, key.span(), "in `status`", OUTCOMES.iter().copied());
            if complaint
                .hint
                .as_ref()
                .is_some_and(|hint| hint.starts_with("known"))
            {
                complaint.hint = Some(format!(
                    "use {}, or \"error.CODE\" with a handler's code, quoted",
                    OUTCOMES.join(", ")
                ));
            }
            complaints.push(complaint);
            continue;
        }
        let number = typed(value.get_ref()).count(0).ok();
        let code = number.and_then(|number| u16::try_from(number).ok());
        match code.filter(|code| STATUS_RANGE.contains(code)) {
            Some(code) => {
                let place = source.place(value.span());
                complaints.set("[[route]]", &format!("status.{outcome}"), code.to_string(), place);
                status.insert(outcome.to_owned(), code);
            }
            None => {
                let (first, last) = (STATUS_RANGE.start(), STATUS_RANGE.end());
                let message = format!("`{outcome}` must be an HTTP error status, {first} to {last}");
                complaints.push(Complaint::new(message, source.place(value.span())));
            }
        }
    }
}

fn name<T>(value: &Value<'_>, what: &str, parse: fn(&str) -> Option<T>) -> Result<T, Wrong> {
    let text = value.text()?;
    parse(text).ok_or_else(|| {
        Wrong::new(format!("`{text}` cannot be the name of {what}"))
            .hint("1 to 64 letters, digits, `_` and `-` (a group also `.`), starting with a letter or digit")
    })
}

fn check_path(path: &str) -> Result<(), Wrong> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Wrong::new(format!("`{path}` does not start with `/`")));
    };
    let visible = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%');
    if let Some(byte) = path.as_bytes().iter().find(|byte| !visible(byte)) {
        let character = byte.escape_ascii();
        return Err(Wrong::new(format!("`{path}`: `{character}` cannot be in a path")));
    }
    let segments: Vec<_> = rest.split('/').collect();
    if RESERVED.contains(&segments[0]) {
        let message = format!("`{path}`: `/{}` is jitney's own", segments[0]);
        return Err(Wrong::new(message).hint("choose another first segment"));
    }
    let mut labels = Vec::new();
    for segment in &segments {
        if segment.is_empty() && segments.len() > 1 {
            return Err(Wrong::new(format!("`{path}` has an empty segment")));
        }
        if !segment.contains(['{', '}', '*']) {
            continue;
        }
        let label = segment
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'));
        let label =
            label.filter(|label| !label.is_empty() && label.len() <= 64 && !label.contains(['{', '}', '*']));
        match label {
            Some(label) if labels.contains(&label) => {
                return Err(Wrong::new(format!("`{path}` has the label `{label}` twice")));
            }
            Some(label) => labels.push(label),
            None => {
                return Err(Wrong::new(format!("`{path}`: `{segment}` is not a label"))
                    .hint("a label is a whole segment: /orders/{kind}"));
            }
        }
    }
    if labels.len() > LABELS_MAX {
        let found = labels.len();
        return Err(Wrong::new(format!(
            "`{path}` has {found} labels; a job has at most {LABELS_MAX}"
        )));
    }
    Ok(())
}

/// The path with its labels left blank: two routes of one shape would answer the same requests.
fn shape(path: &str) -> String {
    let blank = |segment: &str| match segment.starts_with('{') {
        true => "{}".to_owned(),
        false => segment.to_owned(),
    };
    path.split('/').map(blank).collect::<Vec<_>>().join("/")
}

/// Reads a schema and makes sure that it can be used. `place` is where the configuration names it.
fn read_schema(path: &Path, place: Option<Place>) -> Result<Json, Complaint> {
    let text = read_text(path).map_err(|complaint| Complaint {
        message: format!("`schema`: {}", complaint.message),
        place,
        hint: Some("the path is relative to the configuration file".to_owned()),
    })?;
    let schema: Json = serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line().max(1), error.column().max(1));
        let place = FilePlace {
            path: path.to_owned(),
            line,
            column,
            text: text.lines().nth(line - 1).unwrap_or_default().to_owned(),
            width: 1,
        };
        let full = error.to_string();
        let said = match text.starts_with('\u{feff}') {
            true => "it begins with a byte-order mark; write it as UTF-8 without one",
            false => full.split(" at line ").next().unwrap_or_default(),
        };
        Complaint::new(format!("the schema is not JSON: {said}"), Place::File(place))
    })?;
    let named = path.display();
    let refuse = |at: String, said: String| {
        let at = if at.is_empty() {
            "the top".to_owned()
        } else {
            format!("`{at}`")
        };
        Complaint::new(format!("`{named}` is not a JSON Schema: at {at}: {said}"), None)
            .hint("see https://json-schema.org for what a schema may say; references to other files are not followed")
    };
    let valid = jsonschema::meta::validate(&schema).map_err(|error| error.to_owned());
    match valid.and_then(|()| jsonschema::validator_for(&schema)) {
        Ok(_) => Ok(schema),
        Err(error) => {
            let said = error.to_string();
            // What follows is about features of the validator that are off on purpose.
            let said = said.split(" and retrieving it failed").next().unwrap_or_default();
            Err(refuse(error.instance_path().to_string(), said.to_owned()))
        }
    }
}

//! The routes of the configuration, checked and made ready: paths, schemas, status maps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;

use super::error::{ROUTE_ERROR, ROUTE_EXHAUSTED};
use super::fit::Schema;
use super::parse::job::{LABEL_NAME_BYTES_MAX, LABELS_MAX};
use crate::job::{Group, JobError, Priority, Processor, Reason, Status};
use crate::limits::Limits;
use crate::server::options::Route;
use crate::units::format_duration;

/// First segments of paths that are jitney's own.
pub(super) const RESERVED: [&str; 9] = [
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

/// Methods whose requests carry a body.
const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];

/// Why a route cannot be served. The configuration's owner can fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route `{method} {path}`: {what}")]
pub struct RouteError {
    /// Its method, as written.
    pub method: String,
    /// Its path, as written.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// All routes.
#[derive(Debug)]
pub(super) struct RouteTable {
    pub(super) routes: Vec<Ready>,
}

/// A route that can be served.
pub(super) struct Ready {
    pub(super) method: Method,
    /// Its place in the configuration.
    pub(super) number: usize,
    /// As it was written, for metrics and for the document.
    pub(super) template: String,
    /// The path with its parameters numbered, so that two routes of one shape are one path to the router.
    pub(super) path: String,
    /// The label that each parameter becomes, in their order.
    pub(super) labels: Vec<String>,
    pub(super) processor: Processor,
    pub(super) group: Group,
    pub(super) priority: Priority,
    pub(super) wait: Option<Duration>,
    pub(super) schema: Option<Arc<Schema>>,
    status: BTreeMap<String, u16>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.template)
    }
}

impl RouteTable {
    /// Checks routes.
    pub(super) fn new(routes: &[Route], limits: &Limits) -> Result<Self, RouteError> {
        let mut ready: Vec<Ready> = Vec::with_capacity(routes.len());
        for route in routes {
            let wrong = |what: String| RouteError {
                method: route.method.clone(),
                path: route.path.clone(),
                what,
            };
            let this = Ready::new(ready.len(), route, limits).map_err(wrong)?;
            let taken = |other: &&Ready| other.method == this.method && other.path == this.path;
            if let Some(other) = ready.iter().find(taken) {
                return Err(wrong(format!("`{other:?}` answers the same requests")));
            }
            this.warn();
            ready.push(this);
        }
        Ok(Self { routes: ready })
    }

    /// What the router matches, and what metrics show for it.
    pub(super) fn templates(&self) -> impl Iterator<Item = (String, String)> {
        self.routes
            .iter()
            .map(|route| (route.path.clone(), route.template.clone()))
    }
}

impl Ready {
    fn new(number: usize, route: &Route, limits: &Limits) -> Result<Self, String> {
        if !METHODS.contains(&route.method.as_str()) {
            return Err(format!("the method is one of {}", METHODS.join(", ")));
        }
        let method = Method::from_bytes(route.method.as_bytes()).map_err(|error| error.to_string())?;
        if let Some(wait) = route.wait.filter(|wait| *wait > limits.wait_max) {
            return Err(format!(
                "`wait` is {}; `wait_max` is {}",
                format_duration(wait),
                format_duration(limits.wait_max)
            ));
        }
        let (path, labels) = shape(&route.path)?;
        let schema = match &route.schema {
            Some(schema) => Some(Arc::new(Schema::new(schema)?)),
            None => None,
        };
        if let Some((outcome, status)) = route
            .status
            .iter()
            .find(|(_, status)| !(400..=599).contains(*status))
        {
            return Err(format!("`{outcome}` has status {status}; it must be 400 to 599"));
        }
        Ok(Self {
            method,
            number,
            template: route.path.clone(),
            path,
            labels,
            processor: route.processor.clone(),
            group: route.group.clone(),
            priority: route.priority,
            wait: route.wait.filter(|wait| *wait > Duration::ZERO),
            schema,
            status: route.status.clone(),
        })
    }

    /// Tells the operator of a schema that is costly to check.
    fn warn(&self) {
        let schema = self.schema.as_deref();
        if let Some(place) = schema.and_then(|schema| schema.branches.as_deref()) {
            tracing::warn!(
                route = ?self,
                place,
                "alternatives of a route's schema lead back to themselves: a body that fits none is costly to check; \
                 give each a `const` field to tell it by"
            );
        }
    }

    /// Outcomes and the statuses that they have, those of the configuration and the defaults.
    pub(super) fn statuses(&self) -> BTreeMap<String, u16> {
        let defaults = [
            ("error", ROUTE_ERROR),
            ("exhausted", ROUTE_EXHAUSTED),
            ("batch_failed", ROUTE_EXHAUSTED),
        ];
        let mut statuses: BTreeMap<String, u16> =
            defaults.map(|(name, status)| (name.to_owned(), status)).into();
        statuses.extend(self.status.clone());
        statuses
    }

    /// The HTTP status of a job that did not end well.
    pub(super) fn status_of(&self, status: Status, reason: Option<Reason>, error: Option<&JobError>) -> u16 {
        let by_code = error.and_then(|error| self.status.get(&format!("error.{}", error.code)));
        let (name, default) = match (status, reason) {
            (Status::BatchFailed, _) => ("batch_failed", ROUTE_EXHAUSTED),
            (_, Some(Reason::Exhausted)) => ("exhausted", ROUTE_EXHAUSTED),
            _ => ("error", ROUTE_ERROR),
        };
        by_code
            .or_else(|| self.status.get(name))
            .copied()
            .unwrap_or(default)
    }
}

/// A path with its parameters numbered, and their names.
fn shape(path: &str) -> Result<(String, Vec<String>), String> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err("the path must start with `/`".to_owned());
    };
    if rest.is_empty() {
        return Ok(("/".to_owned(), Vec::new()));
    }
    let mut shape = String::with_capacity(path.len());
    let mut labels: Vec<String> = Vec::new();
    for (at, segment) in rest.split('/').enumerate() {
        if at == 0 && RESERVED.contains(&segment) {
            return Err(format!("paths under `/{segment}` are jitney's own"));
        }
        shape.push('/');
        let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
            check_segment(segment)?;
            shape.push_str(segment);
            continue;
        };
        check_label_name(name)?;
        if labels.iter().any(|known| known == name) {
            return Err(format!("`{{{name}}}` stands twice in the path"));
        }
        shape.push_str(&format!("{{p{}}}", labels.len()));
        labels.push(name.to_owned());
    }
    if labels.len() > LABELS_MAX {
        return Err(format!("a job has at most {LABELS_MAX} labels"));
    }
    Ok((shape, labels))
}

fn check_segment(segment: &str) -> Result<(), String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@%".contains(&byte);
    match segment.bytes().all(fine) && !segment.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "`{segment}` is no path segment: plain URL characters, or a name in braces for all of it"
        )),
    }
}

fn check_label_name(name: &str) -> Result<(), String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match (1..=LABEL_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fine) {
        true => Ok(()),
        false => Err(format!(
            "`{{{name}}}` is no label name: 1 to {LABEL_NAME_BYTES_MAX} of A-Z a-z 0-9 _ - ."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str) -> Route {
        Route {
            method: method.to_owned(),
            path: path.to_owned(),
            processor: Processor::parse("orders").unwrap(),
            group: Group::default(),
            priority: Priority::Normal,
            wait: None,
            schema: None,
            status: BTreeMap::new(),
        }
    }

    fn said(routes: &[Route]) -> String {
        RouteTable::new(routes, &Limits::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn segments_in_braces_become_labels() {
        assert_eq!(shape("/"), Ok(("/".to_owned(), Vec::new())));
        assert_eq!(
            shape("/shops/{shop}/orders/{kind}"),
            Ok((
                "/shops/{p0}/orders/{p1}".to_owned(),
                vec!["shop".to_owned(), "kind".to_owned()]
            ))
        );
    }

    #[test]
    fn routes_that_cannot_be_are_named() {
        assert_eq!(
            said(&[route("POST", "/v1/orders")]),
            "route `POST /v1/orders`: paths under `/v1` are jitney's own"
        );
        assert_eq!(
            said(&[route("POST", "/a/{x}"), route("POST", "/x")]),
            "route `POST /a/{x}`: paths under `/a` are jitney's own"
        );
        assert_eq!(
            said(&[
                route("POST", "/o/{x}"),
                route("PUT", "/o/{y}"),
                route("POST", "/o/{z}")
            ]),
            "route `POST /o/{z}`: `POST /o/{x}` answers the same requests"
        );
        assert_eq!(
            said(&[route("GET", "/x")]),
            "route `GET /x`: the method is one of POST, PUT, PATCH, DELETE"
        );
        for path in [
            "x", "/x/", "//", "/x y", "/{x}y", "/{}", "/{*all}", "/{x}/{x}", "/x?y",
        ] {
            assert!(
                RouteTable::new(&[route("POST", path)], &Limits::default()).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_schema_that_is_none_is_an_error() {
        let mut route = route("POST", "/orders");
        route.schema = Some(serde_json::json!({"type": "objekt"}));
        let said = said(&[route]);
        assert!(said.starts_with("route `POST /orders`: its schema: "), "{said}");
    }

    #[test]
    fn the_most_precise_status_wins() {
        let mut route = route("POST", "/orders");
        route.status = BTreeMap::from([("error".to_owned(), 400), ("error.declined".to_owned(), 402)]);
        let table = RouteTable::new(&[route], &Limits::default()).unwrap();
        let ready = &table.routes[0];
        let error = |code: &str| JobError {
            code: code.to_owned(),
            message: String::new(),
            data: None,
        };
        let of = |status, reason, code| ready.status_of(status, reason, Some(&error(code)));
        assert_eq!(of(Status::ProcessedError, None, "declined"), 402);
        assert_eq!(of(Status::ProcessedError, None, "other"), 400);
        assert_eq!(of(Status::ProcessedError, Some(Reason::Exhausted), "other"), 502);
        assert_eq!(
            of(Status::ProcessedError, Some(Reason::Exhausted), "declined"),
            402
        );
        assert_eq!(of(Status::BatchFailed, Some(Reason::Dead), "crashed"), 502);
    }
}

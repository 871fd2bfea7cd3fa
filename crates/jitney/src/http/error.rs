//! What goes wrong, as callers see it: stable codes, status codes, and whether to try again.
//!
//! In: refusals of the driver and what the edge itself finds wrong. Out: `application/problem+json`. This is
//! the only file with error status codes; docs/errors.md explains each code, and a test keeps the two equal.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;

use super::json::Json;
use crate::driver::refusal::Refusal;

/// The content type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// How long to stay away where nothing better is known.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// A full disk does not empty itself within a second.
const RETRY_DISK: Duration = Duration::from_secs(5);

/// A stable error code. Its place in docs/errors.md is `#` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    MalformedJson,
    UnknownField,
    MissingField,
    InvalidValue,
    Forbidden,
    UnknownJob,
    UnknownLease,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    SlowBody,
    LeaseLost,
    ResultExpired,
    JobTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    IdReused,
    QueueFull,
    KeysFull,
    TooManyWaiters,
    TooManyProcessors,
    HeadTooLarge,
    Internal,
    Draining,
    Recovering,
    DiskFull,
    OutcomeUnknown,
    TooManyConnections,
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It will fail again.
    No,
    /// Whenever the caller likes.
    Safe,
    /// After `Retry-After`.
    After,
    /// It may have been done.
    OnlyWithIdempotencyKey,
}

impl Code {
    /// All codes, in the order of docs/errors.md.
    pub(crate) const ALL: [Self; 29] = [
        Self::MalformedJson,
        Self::UnknownField,
        Self::MissingField,
        Self::InvalidValue,
        Self::Forbidden,
        Self::UnknownJob,
        Self::UnknownLease,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::SlowBody,
        Self::LeaseLost,
        Self::ResultExpired,
        Self::JobTooLarge,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::IdReused,
        Self::QueueFull,
        Self::KeysFull,
        Self::TooManyWaiters,
        Self::TooManyProcessors,
        Self::HeadTooLarge,
        Self::Internal,
        Self::Draining,
        Self::Recovering,
        Self::DiskFull,
        Self::OutcomeUnknown,
        Self::TooManyConnections,
    ];

    /// Name, status, title, and whether to retry.
    const fn row(self) -> (&'static str, u16, &'static str, Retry) {
        use Retry::{After, No, OnlyWithIdempotencyKey, Safe};
        match self {
            Self::MalformedJson => ("malformed_json", 400, "The body is not JSON", No),
            Self::UnknownField => ("unknown_field", 400, "A field is unknown", No),
            Self::MissingField => ("missing_field", 400, "A field is missing", No),
            Self::InvalidValue => ("invalid_value", 400, "A value is wrong", No),
            Self::Forbidden => ("forbidden", 403, "Not allowed", No),
            Self::UnknownJob => ("unknown_job", 404, "No such job", No),
            Self::UnknownLease => ("unknown_lease", 404, "No such lease", No),
            Self::NotFound => ("not_found", 404, "Nothing is here", No),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Not with this method", No),
            Self::NotAcceptable => ("not_acceptable", 406, "The answer would be JSON", No),
            Self::SlowBody => ("slow_body", 408, "The body came too slowly", Safe),
            Self::LeaseLost => ("lease_lost", 409, "The lease is lost", No),
            Self::ResultExpired => ("result_expired", 410, "The result is gone", No),
            Self::JobTooLarge => ("job_too_large", 413, "The job is too large", No),
            Self::BodyTooLarge => ("body_too_large", 413, "The body is too large", No),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "The body must be JSON", No),
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                422,
                "The key stands for another job",
                No,
            ),
            Self::IdReused => ("id_reused", 422, "The id is another job's", No),
            Self::QueueFull => ("queue_full", 429, "The queue is full", After),
            Self::KeysFull => ("keys_full", 429, "Too many idempotency keys", After),
            Self::TooManyWaiters => ("too_many_waiters", 429, "Too many callers wait", After),
            Self::TooManyProcessors => ("too_many_processors", 429, "Too many processors", No),
            Self::HeadTooLarge => ("head_too_large", 431, "The request's head is too large", No),
            Self::Internal => (
                "internal",
                500,
                "A bug, or a failing disk",
                OnlyWithIdempotencyKey,
            ),
            Self::Draining => ("draining", 503, "The server is stopping", After),
            Self::Recovering => ("recovering", 503, "The server is starting", After),
            Self::DiskFull => ("disk_full", 503, "The disk is full", After),
            Self::OutcomeUnknown => (
                "outcome_unknown",
                503,
                "A write to the disk failed",
                OnlyWithIdempotencyKey,
            ),
            Self::TooManyConnections => ("too_many_connections", 503, "Too many connections", After),
        }
    }

    /// The name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub(crate) const fn status(self) -> u16 {
        self.row().1
    }

    /// Whether its answers say when to come back.
    pub(crate) fn says_when(self) -> bool {
        self.row().3 == Retry::After
    }

    /// A few words for people.
    pub(crate) const fn title(self) -> &'static str {
        self.row().2
    }
}

impl Retry {
    /// Each of them.
    pub(crate) const ALL: [Self; 4] = [Self::No, Self::Safe, Self::After, Self::OnlyWithIdempotencyKey];

    /// The name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Safe => "safe",
            Self::After => "after",
            Self::OnlyWithIdempotencyKey => "only_with_idempotency_key",
        }
    }
}

/// One place where a body does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// JSON pointer into the body.
    pub(crate) pointer: String,
    /// What is wrong there.
    pub(crate) detail: String,
}

/// An error on its way to the caller. Boxed where it travels in a `Result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    /// What is wrong and what would be right, in one line.
    pub(crate) detail: String,
    pub(crate) retry: Retry,
    /// Set where `retry` is `After`.
    pub(crate) retry_after: Option<Duration>,
    /// The limit that was met; for `wait`, milliseconds.
    pub(crate) limit: Option<u64>,
    /// JSON pointer to the field at fault, or the name of the query parameter or header.
    pub(crate) pointer: Option<String>,
    pub(crate) violations: Vec<Violation>,
}

/// What handlers give back.
pub(crate) type Result<T> = std::result::Result<T, Box<Problem>>;

impl Problem {
    /// A problem of this code.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Box<Self> {
        let retry = code.row().3;
        Box::new(Self {
            code,
            detail: detail.into(),
            retry,
            retry_after: (retry == Retry::After).then_some(RETRY_SOON),
            limit: None,
            pointer: None,
            violations: Vec::new(),
        })
    }

    /// A value that is wrong: `pointer` names the field, query parameter or header.
    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Box<Self> {
        let mut problem = Self::new(Code::InvalidValue, detail);
        problem.pointer = Some(pointer.into());
        problem
    }

    /// Adds the limit that was met.
    pub(crate) fn limit(mut self: Box<Self>, limit: u64) -> Box<Self> {
        self.limit = Some(limit);
        self
    }

    /// Says that a write whose outcome is unknown may be repeated after all: the request carries what makes
    /// its repeat harmless.
    pub(crate) fn repeatable(mut self: Box<Self>) -> Box<Self> {
        if self.retry == Retry::OnlyWithIdempotencyKey {
            self.retry = Retry::Safe;
        }
        self
    }

    /// Writes the problem as a JSON object; also where an error stands inside an answer.
    pub(crate) fn write(&self, json: &mut Json) {
        json.open();
        self.write_fields(json);
        json.close();
    }

    fn write_fields(&self, json: &mut Json) {
        let code = self.code.name();
        json.key("type");
        json.plain(format_args!("/docs/errors#{code}"));
        json.key("title");
        json.string(self.code.title());
        json.key("status");
        json.number(u64::from(self.code.status()));
        json.key("code");
        json.string(code);
        json.key("detail");
        json.string(&self.detail);
        json.key("retry");
        json.string(self.retry.name());
        if let Some(after) = self.retry_after {
            json.key("retry_after_ms");
            json.millis(after);
        }
        if let Some(limit) = self.limit {
            json.key("limit");
            json.number(limit);
        }
        if let Some(pointer) = &self.pointer {
            json.key("pointer");
            json.string(pointer);
        }
        if !self.violations.is_empty() {
            json.key("violations");
            json.open_list();
            for violation in &self.violations {
                json.open();
                json.key("pointer");
                json.string(&violation.pointer);
                json.key("detail");
                json.string(&violation.detail);
                json.close();
            }
            json.close_list();
        }
    }
}

impl IntoResponse for Box<Problem> {
    fn into_response(self) -> Response<Body> {
        let mut json = Json::default();
        self.write(&mut json);
        let response = problem_response(self.code.status(), json);
        match self.retry_after {
            Some(after) => with_header(response, header::RETRY_AFTER, retry_after(after)),
            None => response,
        }
    }
}

fn problem_response(code: u16, json: Json) -> Response<Body> {
    let mut response = Response::new(Body::from(json.finish()));
    *response.status_mut() = status(code);
    let problem = HeaderValue::from_static(PROBLEM_JSON);
    with_header(response, header::CONTENT_TYPE, problem)
}

/// The head of a problem in raw HTTP, for a connection that is refused before it is one.
pub(crate) fn raw_response(problem: &Problem) -> Vec<u8> {
    let mut json = Json::default();
    problem.write(&mut json);
    let body = json.finish();
    let status = status(problem.code.status());
    let after = problem
        .retry_after
        .map(|after| format!("retry-after: {}\r\n", seconds(after)))
        .unwrap_or_default();
    let mut raw = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n{after}connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    raw.extend_from_slice(&body);
    raw
}

/// What to say in place of a bare refusal of hyper's, which begins with these bytes: the request's head was none,
/// or too large. Nothing if they are no such refusal.
pub(crate) fn unreadable_head(refusal: &[u8], head_bytes_max: u64) -> Option<Box<Problem>> {
    let code: u16 = std::str::from_utf8(refusal.strip_prefix(b"HTTP/1.1 ")?.get(..3)?)
        .ok()?
        .parse()
        .ok()?;
    match code {
        400 => Some(Problem::invalid(
            "",
            "the request's head cannot be read as HTTP/1.1",
        )),
        414 | 431 => {
            let detail =
                "the request's head, its target included, is larger than 64 KiB, or has more than 100 fields";
            Some(Problem::new(Code::HeadTooLarge, detail).limit(head_bytes_max))
        }
        _ => None,
    }
}

/// A handler's error as a problem: the answer of a route whose job failed.
pub(crate) struct JobProblem<'a> {
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    /// JSON.
    pub(crate) data: Option<&'a [u8]>,
    /// Why the job ended, if that was not its handler's word.
    pub(crate) reason: Option<&'static str>,
    /// The job was submitted, and failed, before.
    pub(crate) replayed: bool,
}

/// The answer of a route whose job failed.
pub(crate) fn job_problem(problem: &JobProblem<'_>) -> Response<Body> {
    let mut json = Json::default();
    json.open();
    json.key("type");
    json.string("/docs/errors#job_failed");
    json.key("title");
    json.string("The job failed");
    json.key("status");
    json.number(u64::from(problem.status));
    json.key("code");
    json.string(problem.code);
    json.key("detail");
    json.string(problem.message);
    json.key("retry");
    json.string(Retry::No.name());
    if let Some(reason) = problem.reason {
        json.key("reason");
        json.string(reason);
    }
    if problem.replayed {
        json.key("replayed");
        json.boolean(true);
    }
    if let Some(data) = problem.data {
        json.key("data");
        json.raw(data);
    }
    json.close();
    problem_response(problem.status, json)
}

/// `409 lease_lost` for a settle whose every outcome came too late: a problem, and the results beside it.
pub(crate) fn lease_lost(results: impl FnOnce(&mut Json)) -> Response<Body> {
    let problem = Problem::new(Code::LeaseLost, Refusal::LeaseLost.to_string());
    let mut json = Json::default();
    json.open();
    problem.write_fields(&mut json);
    results(&mut json);
    json.close();
    problem_response(problem.code.status(), json)
}

/// What [`crate::server::options::Route::status`] may say when nothing is written.
pub(crate) const ROUTE_ERROR: u16 = 422;
/// As [`ROUTE_ERROR`], when attempts are exhausted and for `batch_failed`.
pub(crate) const ROUTE_EXHAUSTED: u16 = 502;

/// Adds a header to a response of any kind.
pub(crate) fn with_header(
    mut response: Response<Body>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

/// The value of `Retry-After`: whole seconds, rounded up.
pub(crate) fn retry_after(after: Duration) -> HeaderValue {
    HeaderValue::from(seconds(after))
}

fn seconds(after: Duration) -> u64 {
    let whole = after.as_secs();
    whole.saturating_add(u64::from(after.subsec_nanos() > 0)).max(1)
}

/// Every code in the table, and every code that a route may name, is a valid status.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<Refusal> for Box<Problem> {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::QueueFull {
                limit, retry_after, ..
            } => {
                let mut problem = Problem::new(Code::QueueFull, detail).limit(limit);
                problem.retry_after = Some(retry_after);
                problem
            }
            Refusal::KeysFull { limit } => Problem::new(Code::KeysFull, detail).limit(limit),
            Refusal::TooManyWaiters { limit } => Problem::new(Code::TooManyWaiters, detail).limit(limit),
            Refusal::TooManyProcessors { limit } => {
                Problem::new(Code::TooManyProcessors, detail).limit(limit)
            }
            Refusal::DiskFull => {
                let mut problem = Problem::new(Code::DiskFull, detail);
                problem.retry_after = Some(RETRY_DISK);
                problem
            }
            Refusal::Draining => Problem::new(Code::Draining, detail),
            Refusal::Recovering => Problem::new(Code::Recovering, detail),
            Refusal::OutcomeUnknown => Problem::new(Code::OutcomeUnknown, detail),
            Refusal::UnknownJob => Problem::new(Code::UnknownJob, detail),
            Refusal::UnknownLease => Problem::new(Code::UnknownLease, detail),
            Refusal::LeaseLost => Problem::new(Code::LeaseLost, detail),
            Refusal::IdReused(_) => Problem::new(Code::IdReused, detail),
            Refusal::IdempotencyKeyReused(_) => Problem::new(Code::IdempotencyKeyReused, detail),
            Refusal::JobTooLarge { limit, .. } => Problem::new(Code::JobTooLarge, detail).limit(limit),
            Refusal::BodyTooLarge { limit, .. } => Problem::new(Code::BodyTooLarge, detail).limit(limit),
            Refusal::TooManyChildren { limit, pointer, .. } => {
                at(Code::InvalidValue, detail, pointer).limit(limit)
            }
            Refusal::InvalidValue { pointer, .. } => at(Code::InvalidValue, detail, pointer),
            Refusal::UnknownField { pointer, .. } => at(Code::UnknownField, detail, pointer),
            Refusal::MissingField { pointer, .. } => at(Code::MissingField, detail, pointer),
            Refusal::Internal(cause) => {
                tracing::error!(cause, "a request failed inside");
                Problem::new(
                    Code::Internal,
                    "the server failed inside; its log says how".to_owned(),
                )
            }
        }
    }
}

fn at(code: Code, detail: String, pointer: String) -> Box<Problem> {
    let mut problem = Problem::new(code, detail);
    problem.pointer = Some(pointer);
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::Value;

    const PAGE: &str = include_str!("../../../../docs/errors.md");

    fn written(problem: &Problem) -> Value {
        let mut json = Json::default();
        problem.write(&mut json);
        serde_json::from_slice(&json.finish()).unwrap()
    }

    #[test]
    fn the_page_explains_every_code_as_it_is() {
        let mut sections = PAGE.split("\n## ").skip(1);
        for code in Code::ALL {
            let (name, status, _, retry) = code.row();
            let section = sections.next().unwrap();
            let start = format!("{name}\n\n{status}, retry `{}`", retry.name());
            assert!(section.starts_with(&start), "{start}\n\n{section}");
        }
        assert!(sections.next().unwrap().starts_with("job_failed\n"));
        assert_eq!(sections.next(), None);
    }

    #[test]
    fn a_limit_on_a_value_is_named_with_the_value() {
        let refusal = Refusal::TooManyChildren {
            count: 3,
            limit: 2,
            pointer: "/outcomes/0/jobs".to_owned(),
        };
        let problem = written(&Box::<Problem>::from(refusal));
        assert_eq!(
            (&problem["code"], &problem["limit"], &problem["pointer"]),
            (
                &Value::from("invalid_value"),
                &Value::from(2),
                &Value::from("/outcomes/0/jobs")
            )
        );
    }

    #[test]
    fn a_refusal_is_a_problem_with_its_limit() {
        let refusal = Refusal::QueueFull {
            what: "jobs_max",
            limit: 10,
            retry_after: Duration::from_millis(1_200),
        };
        let problem = Box::<Problem>::from(refusal);
        assert_eq!(
            written(&problem),
            serde_json::json!({"type": "/docs/errors#queue_full", "title": "The queue is full", "status": 429,
                "code": "queue_full", "detail": "the queue is full: `jobs_max` is 10", "retry": "after",
                "retry_after_ms": 1200, "limit": 10})
        );
        let response = problem.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.status().as_u16(), 429);
    }

    #[test]
    fn an_unknown_outcome_is_safe_to_repeat_only_where_that_is_harmless() {
        let problem = Box::<Problem>::from(Refusal::OutcomeUnknown);
        assert_eq!(written(&problem)["retry"], "only_with_idempotency_key");
        assert_eq!(written(&problem.repeatable())["retry"], "safe");
        let refused = Problem::new(Code::IdReused, "x").repeatable();
        assert_eq!(written(&refused)["retry"], "no");
    }
}

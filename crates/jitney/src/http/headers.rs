//! What the headers of a request say, checked.

use std::time::Duration;

use axum::http::header::{ACCEPT, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName};

use super::error::{Code, Problem, Result};
use super::parse::job;
use super::parse::payload::{self, Declared};
use super::parse::query::Query;
use super::parse::shown;
use crate::units::format_duration;

/// The header that names a submit.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the answer is that of an earlier submit.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The job behind the answer of a route.
pub(crate) const JITNEY_JOB_ID: HeaderName = HeaderName::from_static("jitney-job-id");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The caller's idempotency key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let detail = "`Idempotency-Key` is given twice";
        return Err(Problem::invalid("Idempotency-Key", detail));
    }
    check_idempotency_key(value.as_bytes())?;
    Ok(value.to_str().ok())
}

/// Fails if an idempotency key is none.
pub(crate) fn check_idempotency_key(key: &[u8]) -> Result<()> {
    job::check_idempotency_key(key, "Idempotency-Key")
        .map_err(|detail| Problem::invalid("Idempotency-Key", detail))
}

/// How long the caller waits: the parameter `wait`, or `Prefer: wait=10`. Zero is no wait.
pub(crate) fn wait(query: &Query<'_>, headers: &HeaderMap, wait_max: Duration) -> Result<Option<Duration>> {
    let wait = match query.duration("wait")? {
        Some(wait) => Some(wait),
        None => preferred_wait(headers),
    };
    match wait {
        Some(wait) => check_wait(wait, wait_max, "wait"),
        None => Ok(None),
    }
}

/// Fails if a wait is too long; zero becomes none.
pub(crate) fn check_wait(wait: Duration, wait_max: Duration, pointer: &str) -> Result<Option<Duration>> {
    if wait > wait_max {
        let detail = format!(
            "`wait` is {}; `wait_max` is {}",
            format_duration(wait),
            format_duration(wait_max)
        );
        let limit = u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX);
        return Err(Problem::invalid(pointer, detail).limit(limit));
    }
    Ok(Some(wait).filter(|wait| *wait > Duration::ZERO))
}

/// `wait` of RFC 7240, whole seconds. Preferences stand between commas; what follows a semicolon is a parameter of one,
/// and of none that is known. Of two the first counts; a preference that cannot be read is no preference.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter();
    let seconds = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| unquoted(value, b','))
        .find_map(|preference| {
            let preference = unquoted(preference, b';').next()?;
            let (name, seconds) = preference.split_once('=').unwrap_or((preference, ""));
            name.trim().eq_ignore_ascii_case("wait").then_some(seconds.trim())
        })?;
    let bare = seconds.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let digits = bare.unwrap_or(seconds);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok().map(Duration::from_secs))?
}

/// What stands between separators, but for those in quotes.
fn unquoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter: char| {
        let plain = !std::mem::take(&mut escaped);
        match letter {
            '"' if plain => quoted = !quoted,
            '\\' if plain && quoted => escaped = true,
            _ => {}
        }
        !quoted && letter == char::from(separator)
    })
}

/// Fails if the body came under a transfer coding but `chunked`: hyper undoes that one alone, and what a program on the
/// way made of another is not known.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<()> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let (coding, more) = (codings.next(), codings.next());
    match coding {
        None => Ok(()),
        Some(coding) if more.is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        Some(coding) => {
            let detail = format!(
                "the body's transfer coding is `{}`; jitney reads `chunked` alone, or a body with `Content-Length`",
                shown(&String::from_utf8_lossy(coding.as_bytes()))
            );
            Err(Problem::invalid("Transfer-Encoding", detail))
        }
    }
}

/// The W3C trace context, if it is valid and the only one; a wrong one is as good as none, says the standard.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    is_traceparent(text).then(|| text.to_owned())
}

/// Whether a text is a W3C trace context.
pub(crate) fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = || parts.next().unwrap_or_default();
    let (version, trace, parent, flags) = (part(), part(), part(), part());
    version == "00"
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && parts.next().is_none()
        && [trace, parent].iter().all(|id| id.bytes().any(|b| b != b'0'))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Fails if the caller accepts no JSON.
pub(crate) fn check_accept(headers: &HeaderMap) -> Result<()> {
    check_accept_of(headers, &["application/json"])
}

/// Fails if the caller accepts neither NDJSON nor JSON: clients that always say that they want JSON get lines of it.
pub(crate) fn check_accept_ndjson(headers: &HeaderMap) -> Result<()> {
    check_accept_of(headers, &NDJSON_ANSWERS)
}

fn check_accept_of(headers: &HeaderMap, types: &[&str]) -> Result<()> {
    let mut ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|range| !range.trim().is_empty())
        .peekable();
    if ranges.peek().is_none() || ranges.any(|range| admits(range, types)) {
        return Ok(());
    }
    Err(Problem::new(
        Code::NotAcceptable,
        format!("the answer is {}, which `Accept` does not admit", types[0]),
    ))
}

/// The types under which NDJSON comes: the first is the one that answers have.
pub(crate) const NDJSON_TYPES: [&str; 4] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
];

/// Whether the body is declared to be NDJSON.
pub(crate) fn is_ndjson(headers: &HeaderMap) -> Result<bool> {
    let content_type = payload::content_type(headers)?.unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    Ok(NDJSON_TYPES
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known)))
}

/// What an answer in NDJSON may be called.
const NDJSON_ANSWERS: [&str; 5] = [
    NDJSON_TYPES[0],
    NDJSON_TYPES[1],
    NDJSON_TYPES[2],
    NDJSON_TYPES[3],
    "application/json",
];

fn admits(range: &str, types: &[&str]) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let admitted = ["*/*", "application/*"]
        .iter()
        .chain(types)
        .any(|known| kind.eq_ignore_ascii_case(known));
    let refused = parts
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(name, value)| {
            name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
        });
    admitted && !refused
}

/// Fails if the body of an endpoint that reads JSON is declared to be something else.
pub(crate) fn check_json_type(headers: &HeaderMap) -> Result<()> {
    let content_type = payload::content_type(headers)?;
    let essence = content_type
        .and_then(|text| text.split(';').next())
        .unwrap_or_default()
        .trim();
    let detail = match payload::declared(content_type) {
        Declared::Nothing | Declared::Json | Declared::OwnJson => return Ok(()),
        Declared::Form if !payload::is_multipart(content_type) => return Ok(()),
        Declared::Other
            if NDJSON_TYPES
                .iter()
                .any(|known| essence.eq_ignore_ascii_case(known)) =>
        {
            format!("`{essence}` is for many jobs at `/v1/jobs`; send application/json here")
        }
        Declared::Form => {
            "the body came as `multipart/form-data` (`curl -F`, or a form with files), of which jitney reads \
             no parts; send the JSON itself as application/json (curl: `--data-binary @FILE`)"
                .to_owned()
        }
        Declared::Other => {
            format!("`{essence}` is not JSON; send application/json, or no content type")
        }
    };
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::http::HeaderValue;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    /// The same, with names that come more than once.
    fn several(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn json_must_be_acceptable() {
        for (accept, fine) in [
            ("*/*", true),
            ("text/html, application/json;q=0.5", true),
            ("application/*", true),
            ("text/html", false),
            ("application/json;q=0, text/html", false),
            ("application/x-ndjson", false),
            ("", true),
        ] {
            assert_eq!(
                check_accept(&headers(&[("accept", accept)])).is_ok(),
                fine,
                "{accept}"
            );
        }
    }

    #[test]
    fn a_preference_is_read_and_a_wrong_one_is_none() {
        for (prefer, seconds) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=\"5\"", Some(5)),
            ("Wait = 7", Some(7)),
            ("wait=soon", None),
            ("respond-async", None),
            // A duration is none of RFC 7240's, nor a sign.
            ("wait=10s", None),
            ("wait=+5", None),
            ("wait", None),
            ("wait=", None),
            // Parameters of other preferences are theirs.
            ("foo; wait=5", None),
            ("foo; wait=5, wait=6", Some(6)),
            ("wait=7; foo=1; bar", Some(7)),
            ("foo=\"a, wait=5\", wait=8", Some(8)),
            ("foo=\"\\\", wait=5\"", None),
            // Of two the first counts.
            ("wait=3, wait=4", Some(3)),
            ("wait=soon, wait=4", None),
        ] {
            assert_eq!(
                preferred_wait(&headers(&[("prefer", prefer)])),
                seconds.map(Duration::from_secs),
                "{prefer}"
            );
        }
    }

    #[test]
    fn only_a_valid_trace_context_is_kept() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            traceparent(&headers(&[("traceparent", valid)])),
            Some(valid.to_owned())
        );
        for wrong in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "x",
        ] {
            assert_eq!(traceparent(&headers(&[("traceparent", wrong)])), None, "{wrong}");
        }
        let twice = several(&[("traceparent", valid), ("traceparent", valid)]);
        assert_eq!(traceparent(&twice), None);
    }

    /// `gzip, chunked` was read as if it were `chunked`, so that a job's data was what nobody had sent.
    #[test]
    fn chunked_is_the_only_transfer_coding() {
        for (codings, fine) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked", "chunked"], false),
            (&["chunked, chunked"], false),
            (&["identity"], false),
            (&[""], false),
        ] {
            let list: Vec<_> = codings
                .iter()
                .map(|coding| ("transfer-encoding", *coding))
                .collect();
            assert_eq!(check_coding(&several(&list)).is_ok(), fine, "{codings:?}");
        }
    }

    #[test]
    fn a_content_type_is_given_once() {
        let twice = several(&[
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ]);
        let problem = payload::content_type(&twice).unwrap_err();
        assert_eq!(problem.detail, "`Content-Type` is given twice");
    }
}

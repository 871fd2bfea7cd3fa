//! Records for people and for programs. Data, results and the data of errors are private: they are only shown where
//! somebody asks for them.

use joblog::ids::{JobId, WallMs};
use joblog::record::{Cause, ErrorFields, Outcome, Record, Return, Submit};
use serde_json::{Map, Value, json};

use crate::job::{Status, reason_name};

/// A record as one line.
pub(super) fn line(record: &Record<'_>, show_data: bool) -> String {
    match record {
        Record::Submit(submit) => submit_line(submit, show_data),
        Record::Dispatch(dispatch) => {
            let jobs: Vec<_> = dispatch.jobs.iter().map(JobId::to_string).collect();
            format!(
                "dispatch   {} jobs to {} at {}, lease {} of {} ms{}: {}",
                jobs.len(),
                text(dispatch.worker),
                time(dispatch.granted),
                dispatch.token,
                dispatch.term_ms,
                if dispatch.in_process { ", in-process" } else { "" },
                jobs.join(" ")
            )
        }
        Record::Delivered(token) => format!("delivered  lease {token}"),
        Record::Outcome(outcome) => outcome_line(outcome, show_data),
        Record::Return(returned) => return_line(returned, show_data),
        Record::Ended(ended) => format!(
            "ended      {} at {}, its result is gone",
            ended.id,
            time(ended.finished)
        ),
        Record::Tries(tries) => format!(
            "tries      {} handed out {} times, last under lease {}",
            tries.id, tries.deliveries, tries.token
        ),
        Record::Copied(copied) => format!(
            "copied     from segment {}, of LSN {} on",
            copied.source, copied.origin
        ),
        Record::Setting(setting) => {
            let value = match setting.value {
                None => "removed".to_owned(),
                Some(value) if show_data => data(value),
                Some(value) => format!("{} bytes", value.len()),
            };
            format!(
                "setting    {} version {}: {value}",
                text(setting.name),
                setting.version
            )
        }
    }
}

fn submit_line(submit: &Submit<'_>, show_data: bool) -> String {
    let mut line = format!(
        "submit     {} {}/{} {} at {}, number {}, {} bytes",
        submit.id,
        submit.processor,
        submit.group,
        submit.priority,
        time(submit.accepted),
        submit.sequence,
        submit.data.len()
    );
    let mut also = |name: &str, value: Option<String>| append(&mut line, name, value);
    also("of type", submit.content_type.map(text));
    also("key", submit.key.map(text));
    for (name, value) in &submit.labels {
        also("label", Some(format!("{}={}", text(name), text(value))));
    }
    also(
        "with an idempotency key of",
        submit.idempotency.map(|key| format!("hash {:032x}", key.hash)),
    );
    also("with", submit.client_id.then(|| "its caller's id".to_owned()));
    also(
        "child",
        submit
            .parent
            .map(|(parent, index)| format!("{index} of {parent}")),
    );
    also("expires", submit.deadline.map(time));
    also("not before", submit.run_at.map(time));
    also("data", show_data.then(|| data(submit.data)));
    line
}

fn outcome_line(outcome: &Outcome<'_>, show_data: bool) -> String {
    let status = Status::from(outcome.end).name();
    let mut line = format!(
        "outcome    {} {status} at {}, {} attempts, {} crashes, {} bytes",
        outcome.id,
        time(outcome.finished),
        outcome.attempts,
        outcome.crashes,
        outcome.result.len()
    );
    let mut also = |name: &str, value: Option<String>| append(&mut line, name, value);
    also(
        "because",
        outcome.reason.map(|reason| reason_name(reason).to_owned()),
    );
    also("worker", outcome.worker.map(text));
    also("lease", outcome.token.map(|token| token.to_string()));
    also(
        "children",
        Some(outcome.children)
            .filter(|count| *count > 0)
            .map(|count| count.to_string()),
    );
    also("error", outcome.error.map(error));
    also(
        "result",
        (show_data && !outcome.result.is_empty()).then(|| data(outcome.result)),
    );
    also(
        "error data",
        outcome
            .error
            .and_then(|error| error.data)
            .filter(|_| show_data)
            .map(data),
    );
    line
}

fn return_line(returned: &Return<'_>, show_data: bool) -> String {
    let mut line = format!(
        "return     {} {}, {} attempts, {} crashes, lease {}",
        returned.id,
        cause_name(returned.cause),
        returned.attempts,
        returned.crashes,
        returned.token
    );
    let mut also = |name: &str, value: Option<String>| append(&mut line, name, value);
    also("due", returned.due.map(time));
    also("written", returned.written.map(time));
    also("travels", returned.alone.then(|| "alone".to_owned()));
    also("error", returned.error.map(error));
    also(
        "error data",
        returned
            .error
            .and_then(|error| error.data)
            .filter(|_| show_data)
            .map(data),
    );
    line
}

/// A record as the fields of a JSON object. What it does not say is left out.
pub(super) fn fields(record: &Record<'_>, show_data: bool) -> Map<String, Value> {
    let fields = match record {
        Record::Submit(submit) => submit_json(submit, show_data),
        Record::Dispatch(dispatch) => json!({
            "record": "dispatch",
            "lease": dispatch.token.to_string(),
            "worker": dispatch.worker,
            "granted": time(dispatch.granted),
            "term_ms": dispatch.term_ms,
            "in_process": dispatch.in_process,
            "jobs": dispatch.jobs.iter().map(JobId::to_string).collect::<Vec<_>>(),
        }),
        Record::Delivered(token) => json!({ "record": "delivered", "lease": token.to_string() }),
        Record::Outcome(outcome) => outcome_json(outcome, show_data),
        Record::Ended(ended) => json!({
            "record": "ended",
            "job": ended.id.to_string(),
            "finished": time(ended.finished),
        }),
        Record::Tries(tries) => json!({
            "record": "tries",
            "job": tries.id.to_string(),
            "deliveries": tries.deliveries,
            "lease": tries.token.to_string(),
        }),
        Record::Copied(copied) => json!({
            "record": "copied",
            "source": copied.source,
            "origin": copied.origin,
        }),
        Record::Return(returned) => json!({
            "record": "return",
            "job": returned.id.to_string(),
            "cause": cause_name(returned.cause),
            "attempts": returned.attempts,
            "crashes": returned.crashes,
            "lease": returned.token.to_string(),
            "due": returned.due.map(time),
            "written": returned.written.map(time),
            "alone": returned.alone,
            "error": error_json(returned.error, show_data),
        }),
        Record::Setting(setting) => json!({
            "record": "setting",
            "name": setting.name,
            "version": setting.version,
            "value_bytes": setting.value.map(<[u8]>::len),
            "value": setting.value.filter(|_| show_data).map(data),
        }),
    };
    match fields {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

fn submit_json(submit: &Submit<'_>, show_data: bool) -> Value {
    let labels = submit.labels.iter();
    let labels: Map<_, _> = labels
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "record": "submit",
        "job": submit.id.to_string(),
        "processor": submit.processor,
        "group": submit.group,
        "priority": submit.priority.name(),
        "sequence": submit.sequence,
        "accepted": time(submit.accepted),
        "data_bytes": submit.data.len(),
        "content_type": submit.content_type,
        "key": submit.key,
        "labels": Some(labels).filter(|labels| !labels.is_empty()),
        "client_id": submit.client_id.then_some(true),
        "parent": submit.parent.map(|(parent, _)| parent.to_string()),
        "deadline": submit.deadline.map(time),
        "run_at": submit.run_at.map(time),
        "data": show_data.then(|| data(submit.data)),
    })
}

fn outcome_json(outcome: &Outcome<'_>, show_data: bool) -> Value {
    json!({
        "record": "outcome",
        "job": outcome.id.to_string(),
        "status": Status::from(outcome.end).name(),
        "reason": outcome.reason.map(reason_name),
        "finished": time(outcome.finished),
        "attempts": outcome.attempts,
        "crashes": outcome.crashes,
        "children": outcome.children,
        "worker": outcome.worker,
        "lease": outcome.token.map(|token| token.to_string()),
        "result_bytes": outcome.result.len(),
        "error": error_json(outcome.error, show_data),
        "result": show_data.then(|| data(outcome.result)),
    })
}

const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Released => "released",
        Cause::Undelivered => "undelivered",
        Cause::Expired => "expired",
        Cause::Crashed => "crashed",
        Cause::BatchFailed => "batch_failed",
        Cause::Error => "error",
        Cause::MissingOutcome => "missing_outcome",
    }
}

fn error(error: ErrorFields<'_>) -> String {
    format!("{}: {}", text(error.code), text(error.message))
}

fn error_json(error: Option<ErrorFields<'_>>, show_data: bool) -> Value {
    let Some(error) = error else { return Value::Null };
    let data = error.data.filter(|_| show_data).map(data);
    json!({ "code": error.code, "message": error.message, "data": data })
}

/// One more thing that a line says.
fn append(line: &mut String, name: &str, value: Option<String>) {
    if let Some(value) = value {
        for part in [", ", name, " ", &value] {
            line.push_str(part);
        }
    }
}

/// Text that somebody else wrote: nothing in it steers a terminal.
fn text(text: &str) -> String {
    text.escape_debug().collect()
}

/// Data as text where it is text, else in hexadecimal digits.
fn data(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(data) => text(data),
        Err(_) => {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            format!("0x{}", digits.collect::<String>())
        }
    }
}

/// RFC 3339, UTC, milliseconds.
pub(super) fn time(at: WallMs) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        // Beyond the year 9999: a clock that wrong has no date.
        Err(_) => format!("{} ms", at.0),
    }
}

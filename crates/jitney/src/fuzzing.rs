//! What the fuzz targets call: any bytes go in, and each function panics where a promise of the parsers does not
//! hold. No part of the interface.

use std::path::Path;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::driver::port::{Said, SettleBody, Submit};
use crate::exec;
use crate::http::lease;
use crate::http::many::fuzzing as many;
use crate::http::parse::job::{self, KEY_BYTES_MAX, LABELS_MAX, Name};
use crate::http::parse::object;
use crate::http::parse::outcome::{CODE_BYTES_MAX, MESSAGE_BYTES_MAX, Reader, SETTLE_FIELDS};
use crate::job::Processor;
use crate::limits::Limits;

/// What the jobs of the target `submit` may weigh: little, so that it is found what happens beyond.
const JOB_BYTES_MAX: u64 = 4 << 10;

/// A submit as one envelope, as lines, and as an array, which take the same, however the bytes come.
///
/// # Panics
/// If an envelope that was taken does not say the same when it is written and read again, or if the ways differ.
pub fn submit(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let one = read_envelope(&body);
    let items = many::array(&body, JOB_BYTES_MAX);
    assert!(one.is_none() || items.is_err(), "an object is no array");
    for job in one.iter().chain(items.iter().flatten().flatten()) {
        check_job(job);
    }
    let piece_bytes = bytes.first().map_or(1, |byte| usize::from(*byte) + 1);
    let entries = many::lines(&body, body.len().max(1), JOB_BYTES_MAX);
    assert_eq!(
        said(&entries),
        said(&many::lines(&body, piece_bytes, JOB_BYTES_MAX)),
        "lines are the same however the body comes"
    );
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines: Vec<&[u8]> = lines.filter(|line| !line.trim_ascii().is_empty()).collect();
    assert_eq!(entries.len(), lines.len(), "each line has its entry");
    for (line, entry) in lines.iter().zip(&entries) {
        let alone = many::array(&[b"[", *line, b"]"].concat().into(), JOB_BYTES_MAX);
        let taken = |job: &Submit| format!("{job:?}");
        if let Ok([alone]) = alone.as_deref() {
            assert_eq!(
                alone.as_ref().ok().map(taken),
                entry.as_ref().ok().map(taken),
                "an array and lines take the same"
            );
        } else {
            assert!(entry.is_err(), "a line that is taken is one value");
        }
        if let Ok(job) = entry {
            check_job(job);
        }
    }
}

fn said(entries: &[crate::http::error::Result<Submit>]) -> Vec<String> {
    entries.iter().map(|entry| format!("{entry:?}")).collect()
}

/// What is taken keeps every bound, and says the same when it is written and read again.
fn check_job(first: &Submit) {
    assert!((1..=64).contains(&first.processor.as_str().len()));
    assert!(first.labels.len() <= LABELS_MAX);
    assert!(
        first
            .key
            .as_ref()
            .is_none_or(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
    );
    assert!(u64::try_from(first.payload.bytes.len()).is_ok_and(|bytes| bytes <= JOB_BYTES_MAX));
    assert!(
        first.payload.content_type.is_some()
            || serde_json::from_slice::<&RawValue>(&first.payload.bytes).is_ok(),
        "what is taken is JSON"
    );
    let second =
        read_envelope(&write_envelope(first).into()).expect("a submit that was taken is taken again");
    let said = |job: &Submit| {
        let Submit {
            processor,
            group,
            priority,
            payload,
            id,
            key,
            labels,
            ..
        } = job;
        format!("{processor:?} {group:?} {priority:?} {payload:?} {id:?} {key:?} {labels:?}")
    };
    assert_eq!(
        said(first),
        said(&second),
        "a submit says the same when it is written again"
    );
}

fn read_envelope(body: &Bytes) -> Option<Submit> {
    let envelope = job::envelope(body).ok()?;
    let (fields, id) = job::single(&envelope, body, JOB_BYTES_MAX).ok()?;
    let name = Name {
        id,
        ..Name::default()
    };
    Some(job::submit(fields, name))
}

fn write_envelope(job: &Submit) -> Vec<u8> {
    let mut envelope = Map::new();
    let mut put = |name: &str, value: Value| drop(envelope.insert(name.to_owned(), value));
    put("processor", json!(job.processor.as_str()));
    put("group", json!(job.group.as_str()));
    put("priority", json!(job.priority.name()));
    put("key", json!(job.key));
    put("id", json!(job.id.map(|id| id.to_string())));
    let labels: Map<_, _> = job
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    put("labels", Value::Object(labels));
    let mut written = serde_json::to_vec(&envelope).expect("strings can be written as JSON");
    // The data goes in as it is: no tree is built of it, and no number changes.
    written.pop();
    let payload = &job.payload;
    if let Some(content_type) = &payload.content_type {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &payload.bytes);
        let content_type = json!(&**content_type);
        written.extend_from_slice(
            format!(r#","data_base64":"{data}","content_type":{content_type}}}"#).as_bytes(),
        );
    } else {
        written.extend_from_slice(br#","data":"#);
        written.extend_from_slice(&payload.bytes);
        written.push(b'}');
    }
    written
}

/// A worker's poll, and a settle.
///
/// # Panics
/// If one that was taken breaks a bound, or holds a result that is none.
pub fn lease_and_settle(bytes: &[u8]) {
    let limits = Limits::default();
    let body = Bytes::copy_from_slice(bytes);
    let processor = Processor::parse("orders").expect("it is a name");
    if let Ok(poll) = lease::read(&limits, processor, &body) {
        assert!((1..=128).contains(&poll.lease.worker.len()));
        assert!(poll.lease.slots >= 1 && poll.lease.wait <= limits.wait_max);
        assert!(poll.lease.priorities.contains(&true));
        for settle in &poll.lease.settle {
            check_settle(&settle.body, &limits);
        }
    }
    if let Ok(object) = object::body(&body, SETTLE_FIELDS, &[]) {
        let reader = Reader {
            body: &body,
            limits: &limits,
        };
        if let Ok(settle) = reader.settle(&object) {
            check_settle(&settle.body, &limits);
        }
    }
}

fn check_settle(settle: &SettleBody, limits: &Limits) {
    match settle {
        SettleBody::Failed { error, .. } => {
            assert!(error.code.len() <= CODE_BYTES_MAX && error.message.len() <= MESSAGE_BYTES_MAX);
        }
        SettleBody::Outcomes { outcomes, .. } => {
            for outcome in outcomes {
                match &outcome.said {
                    Ok(Said::Ok { result, children }) => {
                        assert!(
                            u64::try_from(children.len()).is_ok_and(|count| count <= limits.children_max)
                        );
                        assert!(
                            result.content_type.is_some()
                                || serde_json::from_slice::<&RawValue>(&result.bytes).is_ok()
                        );
                    }
                    Ok(Said::Error { error, .. }) => {
                        assert!(
                            error.code.len() <= CODE_BYTES_MAX && error.message.len() <= MESSAGE_BYTES_MAX
                        );
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A configuration file.
///
/// # Panics
/// If the same text does not give the same twice, or a mistake cannot be shown.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // A schema is a file of its own: what it is named is not for a fuzzer to open.
    if text.contains("schema") {
        return;
    }
    let path = Path::new("jitney.toml");
    match (crate::config::parse(text, path), crate::config::parse(text, path)) {
        (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        (Err(one), Err(other)) => {
            assert!(!one.complaints.is_empty());
            assert_eq!(one.to_string(), other.to_string());
        }
        _ => panic!("the same text is good and bad"),
    }
}

/// A line of a child process.
///
/// # Panics
/// If an outcome that was taken travels neither as it was written nor as an error that the server takes.
pub fn exec_line(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(exec::Said::Outcome(outcome, _)) = exec::read(line) {
            let text = std::str::from_utf8(line).expect("an outcome is text").trim();
            let sent = serde_json::to_string(&outcome).expect("an outcome can be written");
            if sent != text {
                let body = Bytes::from(sent);
                let reader = Reader {
                    body: &body,
                    limits: &Limits::default(),
                };
                let raw = serde_json::from_slice(&body).expect("what is sent is JSON");
                let read = reader.whole(raw).expect("it names its job");
                assert!(matches!(read.said, Ok(Said::Error { .. })), "an error is taken");
            }
        }
    }
    // What goes the other way: a job is one line, and the same value.
    if let Ok(json) = serde_json::from_slice::<&RawValue>(bytes) {
        let mut line = Vec::new();
        exec::write_job(json.get(), &mut line);
        assert_eq!(
            line.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count(),
            1
        );
        if let Ok(value) = serde_json::from_str::<Value>(json.get()) {
            assert_eq!(serde_json::from_slice::<Value>(&line).ok(), Some(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input that is kept: the seeds, and those that once failed.
    fn replay(target: &str, run: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/corpus")
            .join(target);
        let inputs = std::fs::read_dir(folder).unwrap();
        let mut inputs: Vec<_> = inputs.map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 2, "{target} has its seeds");
        for input in inputs {
            eprintln!("{}", input.display());
            run(&std::fs::read(input).unwrap());
        }
    }

    #[test]
    fn kept_submits_hold() {
        replay("submit", submit);
    }

    #[test]
    fn kept_polls_and_settles_hold() {
        replay("lease_settle", lease_and_settle);
    }

    #[test]
    fn kept_configurations_hold() {
        replay("config", config);
    }

    #[test]
    fn kept_lines_of_children_hold() {
        replay("exec_line", exec_line);
    }
}

//! The lines of the exec protocol: what goes to a child is encoded here, what it writes is read here.
//!
//! Pure: bytes in, bytes or a value out. Any bytes on a line are an answer or an error, never a panic.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::mend;
use crate::client::{Batch, BatchError, Outcome, parse_id};
use crate::job::JobId;

/// The version of the protocol; it changes only if a line changes its meaning.
const VERSION: u32 = 1;

/// What a child wrote.
#[derive(Debug)]
pub(crate) enum Said {
    /// An empty line.
    Nothing,
    /// The outcome of a job.
    Outcome(Outcome, Mended),
    /// The end of the batch of this id.
    Done(String),
    /// The failure of the batch of this id.
    Failed(String, BatchError, Mended),
}

/// What was wrong with an error that is sent otherwise than it was written.
pub(crate) type Mended = Option<String>;

/// Why a line says nothing that the protocol knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// Bytes.
    #[error("not utf-8")]
    NotUtf8,
    /// Text.
    #[error("not a json object of the protocol: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The id is no UUID.
    #[error("`{0}` is not the id of a job")]
    BadId(String),
    /// A JSON object without the fields that matter.
    #[error("neither an outcome nor the end of a batch")]
    Neither,
}

/// Appends the header line of a batch.
pub(super) fn write_header(batch: &Batch, to: &mut Vec<u8>) {
    let header = Header {
        v: VERSION,
        batch: &batch.batch,
        jobs: batch.jobs.len(),
        expires_at: &batch.expires_at,
    };
    serde_json::to_writer(&mut *to, &header).expect("strings and numbers can always be written as JSON");
    to.push(b'\n');
}

/// Appends a job line. Raw line ends are legal JSON only between values, where they mean as much as spaces.
pub(crate) fn write_job(job: &str, to: &mut Vec<u8>) {
    let without_line_ends = |byte: u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
    to.extend(job.bytes().map(without_line_ends));
    to.push(b'\n');
}

/// Reads a line, without its LF.
pub(crate) fn read(line: &[u8]) -> Result<Said, LineError> {
    let text = std::str::from_utf8(line).map_err(|_| LineError::NotUtf8)?.trim();
    if text.is_empty() {
        return Ok(Said::Nothing);
    }
    let fields: Fields<'_> = serde_json::from_str(text)?;
    if let Some(id) = &fields.id {
        let id = parse_id(id).ok_or_else(|| LineError::BadId(id.chars().take(64).collect()))?;
        return fields.outcome(id, text);
    }
    match (fields.batch, fields.failed, fields.done) {
        (Some(batch), Some(failed), _) => {
            let (error, mended) = mend::batch_error(failed)?;
            Ok(Said::Failed(batch.into_owned(), error, mended))
        }
        (Some(batch), None, true) => Ok(Said::Done(batch.into_owned())),
        _ => Err(LineError::Neither),
    }
}

#[derive(Serialize)]
struct Header<'a> {
    v: u32,
    batch: &'a str,
    jobs: usize,
    expires_at: &'a str,
}

/// The fields that tell the kinds of lines apart. What an outcome says in detail is the server's to check.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    ok: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ok_base64: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    release: Option<&'a RawValue>,
    #[serde(borrow, default)]
    jobs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    batch: Option<Cow<'a, str>>,
    #[serde(default)]
    done: bool,
    #[serde(borrow, default)]
    failed: Option<&'a RawValue>,
}

/// `"ok":null` is an outcome.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Fields<'_> {
    fn outcome(&self, id: JobId, text: &str) -> Result<Said, LineError> {
        let said = [self.ok, self.ok_base64, self.error, self.release];
        if said.iter().all(Option::is_none) {
            return Err(LineError::Neither);
        }
        if self.error.is_some()
            && let Some((error, mended)) = mend::job_error(text)
        {
            return Ok(Said::Outcome(Outcome::error(id, error), mended));
        }
        let json = RawValue::from_string(text.to_owned())?;
        let outcome = Outcome::verbatim(id, json, self.jobs.is_some());
        Ok(Said::Outcome(outcome, None))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::job::Priority;

    const ID: &str = "0199b7a0-0000-7000-8000-000000000001";

    fn said(value: &Value) -> Result<Said, LineError> {
        read(value.to_string().as_bytes())
    }

    #[test]
    fn every_kind_of_line_is_read() {
        for outcome in [
            json!({"id": ID, "ok": null}),
            json!({"id": ID, "ok": {"a": 1}, "jobs": [{"processor": "mail", "data": {}}]}),
            json!({"id": ID, "ok_base64": "/wA=", "content_type": "image/png"}),
            json!({"id": ID, "error": {"code": "x", "message": "y", "retryable": false}}),
            json!({"id": ID, "release": true}),
        ] {
            let Ok(Said::Outcome(read, None)) = said(&outcome) else {
                panic!("{outcome}");
            };
            assert_eq!(serde_json::to_value(&read).unwrap(), outcome);
            assert_eq!(read.has_children(), outcome.get("jobs").is_some());
        }
        let done = json!({"batch": "b", "done": true});
        assert!(matches!(said(&done), Ok(Said::Done(batch)) if batch == "b"));
        let failed = json!({"batch": "b", "failed": {"code": "c", "message": "m"}});
        assert!(
            matches!(said(&failed), Ok(Said::Failed(batch, error, None)) if batch == "b" && error.code == "c")
        );
        assert!(matches!(read(b" \r"), Ok(Said::Nothing)));
    }

    #[test]
    fn anything_else_is_an_error() {
        for wrong in [
            "hello",
            "[]",
            "1",
            "{}",
            r#"{"id":"x","ok":1}"#,
            r#"{"id":1,"ok":1}"#,
            &format!(r#"{{"id":"{ID}"}}"#),
            &format!(r#"{{"id":"{ID}","ok":1}} {{"#),
            r#"{"batch":"b"}"#,
            r#"{"batch":"b","done":false}"#,
            r#"{"batch":"b","failed":"why"}"#,
            r#"{"done":true}"#,
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(matches!(read(&[0xff, 0xfe]), Err(LineError::NotUtf8)));
    }

    #[test]
    fn a_batch_is_one_header_and_one_line_per_job() {
        let job = "{\"id\":1,\r\n\"data\":{\"a\":\n\"\\n\\r\", \"b\" :1.0}}";
        let batch = Batch {
            lease: "l".to_owned(),
            batch: "b-81".to_owned(),
            priority: Priority::Normal,
            expires_at: "2026-01-05T10:00:30.000Z".to_owned(),
            expires_in_ms: 30_000,
            jobs: Vec::new(),
        };
        let mut lines = Vec::new();
        write_header(&batch, &mut lines);
        write_job(job, &mut lines);
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            concat!(
                r#"{"v":1,"batch":"b-81","jobs":0,"expires_at":"2026-01-05T10:00:30.000Z"}"#,
                "\n",
                r#"{"id":1,  "data":{"a": "\n\r", "b" :1.0}}"#,
                "\n"
            )
        );
    }

    /// JSON as programs write it by hand: line ends wherever white space may be.
    fn spread(value: &Value) -> String {
        serde_json::to_string_pretty(value).unwrap().replace('\n', "\r\n")
    }

    proptest! {
        #[test]
        fn no_bytes_on_a_line_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&bytes));
        }

        #[test]
        fn no_mutilated_outcome_panics(at in 0_usize..90, byte in any::<u8>()) {
            let mut line = format!(r#"{{"id":"{ID}","ok":{{"a":[1]}},"jobs":[]}}"#).into_bytes();
            let at = at % line.len();
            line[at] = byte;
            drop(read(&line));
            line.truncate(at);
            drop(read(&line));
        }

        #[test]
        fn a_job_is_one_line_and_the_same_value(text in any::<String>(), number in any::<f64>()) {
            let value = json!({"text": text, "list": [number, {"x": null}], "empty": {}});
            let text = spread(&value);
            let mut line = Vec::new();
            write_job(&text, &mut line);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(line.len(), text.len() + 1);
            prop_assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}

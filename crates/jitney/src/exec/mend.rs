//! Errors as programs write them, made such that the server takes them: a final error is final, however its text
//! came out.
//!
//! Pure. A message that is too long is cut, half a surrogate pair becomes U+FFFD, a code that is none becomes
//! `invalid_code`. What may change whether a job is tried again (an unknown field, say) is left for the server to judge.

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::client::{BatchError, OutcomeError};
use crate::units::parse_duration;

/// A line that says nothing but the error of a job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorLine<'a> {
    #[serde(borrow, rename = "id")]
    _id: &'a RawValue,
    #[serde(borrow)]
    error: JobError<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobError<'a> {
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(default)]
    retryable: Option<bool>,
    #[serde(default)]
    retry_after: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Failed<'a> {
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

/// The error of a line that says nothing else, and what was wrong with it; `None` where the line itself is to go to
/// the server.
pub(super) fn job_error(line: &str) -> Option<(OutcomeError, Option<String>)> {
    let ErrorLine { error, .. } = serde_json::from_str(line).ok()?;
    let retryable = error.retryable.unwrap_or(false);
    let retry_after = match error.retry_after.as_deref() {
        Some(text) if retryable => Some(parse_duration(text).ok()?),
        // Whoever writes this may mean that it is tried again.
        Some(_) => return None,
        None => None,
    };
    let mut wrong = Vec::new();
    let read = OutcomeError {
        code: code(error.code, &mut wrong),
        message: message(error.message, &mut wrong),
        retryable,
        retry_after,
        data: error
            .data
            .filter(|data| data.get() != "null")
            .map(ToOwned::to_owned),
    };
    wrong.extend(read.too_long());
    Some((read, sentence(&wrong)))
}

/// The error of a whole batch, and what was wrong with it.
pub(super) fn batch_error(json: &RawValue) -> Result<(BatchError, Option<String>), serde_json::Error> {
    let failed: Failed<'_> = serde_json::from_str(json.get())?;
    let mut wrong = Vec::new();
    let read = BatchError {
        code: code(failed.code, &mut wrong),
        message: message(failed.message, &mut wrong),
    };
    wrong.extend(read.too_long());
    Ok((read, sentence(&wrong)))
}

fn sentence(wrong: &[String]) -> Option<String> {
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// An empty one is sent as `invalid_code`.
fn code(written: Option<&RawValue>, wrong: &mut Vec<String>) -> String {
    match written.and_then(text) {
        Some(Text { text, whole: true }) if !text.is_empty() => return text,
        Some(Text { whole: false, .. }) => wrong.push("its code is no Unicode text".to_owned()),
        Some(_) => wrong.push("its code is empty".to_owned()),
        None if written.is_some() => wrong.push("its code is no string".to_owned()),
        None => wrong.push("it has no code".to_owned()),
    }
    String::new()
}

fn message(written: Option<&RawValue>, wrong: &mut Vec<String>) -> String {
    match (written.and_then(text), written) {
        (Some(Text { text, whole }), _) => {
            if !whole {
                wrong.push("its message has half a surrogate pair".to_owned());
            }
            text
        }
        (None, Some(other)) => {
            wrong.push("its message is no string".to_owned());
            other.get().to_owned()
        }
        (None, None) => {
            wrong.push("it has no message".to_owned());
            String::new()
        }
    }
}

/// The text of a JSON string.
struct Text {
    text: String,
    /// Every character is one.
    whole: bool,
}

fn text(json: &RawValue) -> Option<Text> {
    let Wtf8(mut bytes) = serde_json::from_str(json.get()).ok()?;
    let whole = std::str::from_utf8(&bytes).is_ok();
    // Half a pair takes three bytes, and so does U+FFFD.
    for at in 0..bytes.len().saturating_sub(2) {
        if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
            bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    Some(Text { text, whole })
}

/// A JSON string as bytes, which may hold halves of surrogate pairs: `str` cannot.
struct Wtf8(Vec<u8>);

impl<'de> Deserialize<'de> for Wtf8 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Wtf8;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Wtf8, E> {
                Ok(Wtf8(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is sent of an error, and what was wrong with it.
    fn sent(error: &str) -> Option<(Value, Option<String>)> {
        let line = format!(r#"{{"id":"x","error":{error}}}"#);
        let (error, wrong) = job_error(&line)?;
        Some((serde_json::to_value(&error).unwrap(), wrong))
    }

    #[test]
    fn an_error_that_is_right_stays_as_it_is() {
        let right = r#"{"code":"card_declined","message":"no \u00e9 \ud83d\ude00","retryable":true,"retry_after":"2s","data":{"a":1}}"#;
        let (read, wrong) = sent(right).unwrap();
        assert_eq!(read, serde_json::from_str::<Value>(right).unwrap());
        assert_eq!(wrong, None);
        let (read, wrong) = sent(r#"{"code":"c","message":"m","data":null,"retry_after":null}"#).unwrap();
        assert_eq!(read, json!({"code": "c", "message": "m", "retryable": false}));
        assert_eq!(wrong, None);
    }

    #[test]
    fn text_is_cut_or_replaced_and_a_code_that_is_none_is_said_to_be() {
        let long = "x".repeat(5_000);
        let code = "c".repeat(65);
        for (error, code, message, wrong) in [
            (
                format!(r#"{{"code":"c","message":"{long}"}}"#),
                "c",
                &long[..4_096],
                "its message is 5000 bytes, sent are 4096",
            ),
            (
                r#"{"code":"c","message":"a\ud800b\udfff"}"#.to_owned(),
                "c",
                "a\u{fffd}b\u{fffd}",
                "its message has half a surrogate pair",
            ),
            (
                format!(r#"{{"code":"{code}","message":"m"}}"#),
                "invalid_code",
                "m",
                "its code is 65 bytes, at most 64 are taken",
            ),
            (
                r#"{"code":"\ud800","message":7}"#.to_owned(),
                "invalid_code",
                "7",
                "its code is no Unicode text; its message is no string",
            ),
            (
                r#"{"code":"","message":"m"}"#.to_owned(),
                "invalid_code",
                "m",
                "its code is empty",
            ),
            (
                r#"{"code":[1]}"#.to_owned(),
                "invalid_code",
                "",
                "its code is no string; it has no message",
            ),
            (
                "{}".to_owned(),
                "invalid_code",
                "",
                "it has no code; it has no message",
            ),
        ] {
            let (read, said) = sent(&error).unwrap();
            assert_eq!(
                read,
                json!({"code": code, "message": message, "retryable": false})
            );
            assert_eq!(said.as_deref(), Some(wrong));
            let (batch, said) = batch_error(&RawValue::from_string(error).unwrap()).unwrap();
            assert_eq!(
                serde_json::to_value(&batch).unwrap(),
                json!({"code": code, "message": message})
            );
            assert_eq!(said.as_deref(), Some(wrong));
        }
    }

    #[test]
    fn what_may_mean_another_try_is_for_the_server_to_judge() {
        for unclear in [
            r#"{"code":"c","message":"m","retriable":true}"#,
            r#"{"code":"c","message":"m","retryable":"yes"}"#,
            r#"{"code":"c","message":"m","retry_after":"2s"}"#,
            r#"{"code":"c","message":"m","retryable":true,"retry_after":"soon"}"#,
            r#""card declined""#,
        ] {
            assert!(sent(unclear).is_none(), "{unclear}");
        }
        assert!(job_error(r#"{"id":"x","error":{"code":"c"},"retryable":true}"#).is_none());
    }
}

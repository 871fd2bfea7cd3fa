//! What workers report: outcomes per job, or the failure of a whole batch.
//!
//! A settle whose shape is wrong is refused as a whole. Inside it each outcome stands alone: one that is wrong
//! carries its refusal to the driver, and the others count.

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::job::{self, CHILD_FIELDS, LATER_FIELDS, Names, Shared};
use super::object::{self, At, Object, Result};
use super::shown;
use crate::driver::port::{Child, JobOutcome, Said, SettleBody};
use crate::driver::refusal::Refusal;
use crate::job::{JobError, Payload};
use crate::limits::Limits;

/// The fields of a settle.
pub(crate) const SETTLE_FIELDS: &[&str] = &["outcomes", "final", "failed", "crashed"];

/// The longest error code, bytes: it is a metric's and a route's word.
pub(crate) const CODE_BYTES_MAX: usize = 64;
/// The longest error message, bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;

/// The fields of an outcome.
pub(crate) const OUTCOME_FIELDS: &[&str] = &[
    "id",
    "ok",
    "ok_base64",
    "content_type",
    "jobs",
    "error",
    "release",
];
/// The fields of a failed job's error.
pub(crate) const ERROR_FIELDS: &[&str] = &["code", "message", "retryable", "data", "retry_after"];
/// The fields of a failed batch.
pub(crate) const FAILED_FIELDS: &[&str] = &["code", "message", "data"];

/// Outcomes of what can be no job of any lease, because its id is none: their places, and what was written.
pub(crate) type Strangers = Vec<(usize, String)>;

/// A settle as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// What the driver is told.
    pub(crate) body: SettleBody,
    /// The driver is not asked about them.
    pub(crate) strangers: Strangers,
}

/// What reading outcomes needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    /// What everything is read from: results stay slices of it.
    pub(crate) body: &'a Bytes,
    /// The bounds.
    pub(crate) limits: &'a Limits,
}

impl Reader<'_> {
    /// Reads a settle without its lease.
    pub(crate) fn settle(&self, object: &Object<'_, '_>) -> Result<Read> {
        let at = object.at();
        let last = object.boolean("final")?;
        let crashed = object.boolean("crashed")?;
        let outcomes = object.get("outcomes");
        if let Some(failed) = object.get("failed") {
            if outcomes.is_some() {
                return Err(At::Field(&at, "failed").invalid("`failed` and `outcomes` exclude each other"));
            }
            if last == Some(false) {
                return Err(
                    At::Field(&at, "final").invalid("`failed` ends the lease; `final` cannot be false")
                );
            }
            let error = self.failed(failed, At::Field(&at, "failed"))?;
            return Ok(Read {
                body: SettleBody::Failed {
                    error,
                    crashed: crashed.unwrap_or(false),
                },
                strangers: Vec::new(),
            });
        }
        if crashed.is_some() {
            return Err(At::Field(&at, "crashed").invalid("`crashed` goes with `failed` only"));
        }
        let Some(outcomes) = outcomes else {
            return Err(Refusal::MissingField {
                detail: "`outcomes` is missing (or `failed`)".to_owned(),
                pointer: At::Field(&at, "outcomes").to_string(),
            });
        };
        let at = At::Field(&at, "outcomes");
        let list = object::list(outcomes, at)?;
        let mut outcomes = Vec::with_capacity(list.len());
        let mut strangers = Vec::new();
        for (index, raw) in list.into_iter().enumerate() {
            match self.outcome(raw, At::Item(&at, index))? {
                Ok(outcome) => outcomes.push(outcome),
                Err(id) => strangers.push((index, id)),
            }
        }
        let last = last.unwrap_or(true);
        Ok(Read {
            body: SettleBody::Outcomes { outcomes, last },
            strangers,
        })
    }

    /// Reads the one outcome that is the whole of the body.
    pub(crate) fn whole(&self, raw: &RawValue) -> Result<JobOutcome> {
        self.outcome(raw, At::Body)?.map_err(|id| {
            At::Field(&At::Body, "id").invalid(format!("`{}` is no job id (a UUID)", shown(&id)))
        })
    }

    /// Reads one outcome, or gives back an id that is none. Without an id nobody can say whose it is: that is the
    /// request's fault.
    fn outcome(&self, raw: &RawValue, at: At<'_>) -> Result<std::result::Result<JobOutcome, String>> {
        let object = object::open(raw, at)?;
        let text = object::text(object.required("id")?, At::Field(&at, "id"))?;
        let Some(id) = super::job_id(&text) else {
            return Ok(Err(text.into_owned()));
        };
        let said = self.said(&object);
        Ok(Ok(JobOutcome { id, said }))
    }

    fn said(&self, object: &Object<'_, '_>) -> Result<Said> {
        object.only(OUTCOME_FIELDS, &[])?;
        let at = object.at();
        let release = object.boolean("release")?.unwrap_or(false);
        let ok = object.written("ok");
        let error = object.get("error");
        // `ok: null` beside another outcome is a field left empty, not a second outcome.
        let is_ok = object.get("ok").is_some() || object.get("ok_base64").is_some();
        let named = u8::from(is_ok) + u8::from(error.is_some()) + u8::from(release);
        if named > 1 {
            return Err(at.invalid("an outcome is one of `ok`, `error` and `release`"));
        }
        if error.is_some() || release {
            for name in ["jobs", "content_type"] {
                if object.get(name).is_some() {
                    return Err(At::Field(&at, name).invalid(format!("`{name}` goes with `ok` only")));
                }
            }
        }
        if let Some(error) = error {
            return self.error(error, At::Field(&at, "error"));
        }
        if release {
            return Ok(Said::Release);
        }
        if ok.is_none() && !is_ok {
            return Err(Refusal::MissingField {
                detail: "an outcome needs `ok`, `error` or `release`".to_owned(),
                pointer: At::Field(&at, "ok").to_string(),
            });
        }
        self.ok(object)
    }

    fn ok(&self, object: &Object<'_, '_>) -> Result<Said> {
        let at = object.at();
        let names = Names {
            json: "ok",
            base64: "ok_base64",
        };
        let result = job::either(object, self.body, &names, object.get("ok"))?;
        job::check_size("result", &result.bytes, self.limits.job_bytes_max)?;
        let children = match object.get("jobs") {
            Some(raw) => self.children(raw, At::Field(&at, "jobs"))?,
            None => Vec::new(),
        };
        check_total(&result, &children, self.limits)?;
        Ok(Said::Ok { result, children })
    }

    fn error(&self, raw: &RawValue, at: At<'_>) -> Result<Said> {
        let object = object::object(raw, at, ERROR_FIELDS, &[])?;
        let retryable = object.boolean("retryable")?.unwrap_or(false);
        let retry_after = object.pause("retry_after")?;
        if retry_after.is_some() && !retryable {
            return Err(At::Field(&at, "retry_after").invalid("`retry_after` goes with `retryable` only"));
        }
        let retry_after = retry_after.filter(|after| *after > Duration::ZERO);
        Ok(Said::Error {
            error: self.job_error(&object)?,
            retryable,
            retry_after,
        })
    }

    fn failed(&self, raw: &RawValue, at: At<'_>) -> Result<JobError> {
        self.job_error(&object::object(raw, at, FAILED_FIELDS, &[])?)
    }

    fn job_error(&self, object: &Object<'_, '_>) -> Result<JobError> {
        object.required("code")?;
        object.required("message")?;
        let code = object.bounded_text("code", 1..=CODE_BYTES_MAX)?;
        let message = object.bounded_text("message", 0..=MESSAGE_BYTES_MAX)?;
        let data = object
            .get("data")
            .map(|raw| self.body.slice_ref(raw.get().as_bytes()));
        if let Some(data) = &data {
            job::check_size("error data", data, self.limits.job_bytes_max)?;
        }
        Ok(JobError {
            code: code.unwrap_or_default().into_owned(),
            message: message.unwrap_or_default().into_owned(),
            data,
        })
    }

    fn children(&self, raw: &RawValue, at: At<'_>) -> Result<Vec<Child>> {
        let list = object::list(raw, at)?;
        check_child_count(list.len(), at, self.limits)?;
        let mut shared = Shared::default();
        list.into_iter()
            .enumerate()
            .map(|(index, raw)| {
                let object = object::object(raw, At::Item(&at, index), CHILD_FIELDS, LATER_FIELDS)?;
                let fields = job::fields(&object, self.body, self.limits.job_bytes_max, &mut shared)?;
                Ok(Child {
                    processor: fields.processor,
                    group: fields.group,
                    priority: fields.priority,
                    payload: fields.payload,
                    key: fields.key,
                    labels: fields.labels,
                    traceparent: None,
                })
            })
            .collect()
    }
}

/// Fails if an outcome has too many children.
pub(crate) fn check_child_count(count: usize, at: At<'_>, limits: &Limits) -> Result<()> {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let limit = limits.children_max;
    match count > limit {
        true => Err(Refusal::TooManyChildren {
            count,
            limit,
            pointer: at.to_string(),
        }),
        false => Ok(()),
    }
}

/// An outcome and its children are one frame: base64 may have made them larger on the wire, never on disk, but
/// labels and keys add up.
pub(crate) fn check_total(result: &Payload, children: &[Child], limits: &Limits) -> Result<()> {
    let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let children = children.iter().map(|child| {
        let labels = child.labels.iter().map(|(name, value)| name.len() + value.len());
        size(child.payload.bytes.len() + child.key.as_ref().map_or(0, String::len) + labels.sum::<usize>())
    });
    let bytes = size(result.bytes.len()).saturating_add(children.sum());
    let limit = limits.whole_body_bytes_max();
    match bytes > limit {
        true => Err(Refusal::BodyTooLarge { bytes, limit }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use crate::http::parse::payload::is_json;

    const SETTLE: &str = r#"{"outcomes":[
        {"id":"0199a3c4-0000-7000-8000-00000000002a","ok":{"a":[1,"\u00e9"]},"jobs":[
            {"processor":"mail","group":"g","data":"x","labels":{"a":"b"}},
            {"processor":"mail","data_base64":"/wA=","content_type":"image/png","key":null}]},
        {"id":"0199a3c4-0000-7000-8000-00000000002b","error":{"code":"c","message":"m","data":{},
            "retryable":true,"retry_after":"2s"}},
        {"id":"0199a3c4-0000-7000-8000-00000000002c","release":true}],"final":false}"#;

    /// What was read, or nothing: the point is that reading never fails otherwise.
    fn read(bytes: &Bytes) -> Option<SettleBody> {
        let limits = Limits::default();
        let object = object::body(bytes, SETTLE_FIELDS, &[]).ok()?;
        let reader = Reader {
            body: bytes,
            limits: &limits,
        };
        reader.settle(&object).ok().map(|read| read.body)
    }

    fn payloads(said: &Said) -> Vec<&Payload> {
        match said {
            Said::Ok { result, children } => {
                let children = children.iter().map(|child| &child.payload);
                std::iter::once(result).chain(children).collect()
            }
            Said::Error { .. } | Said::Release => Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn a_damaged_settle_is_read_or_refused_and_its_json_is_json(
            changes in prop::collection::vec((0..SETTLE.len(), any::<u8>(), any::<bool>()), 0..6)
        ) {
            let mut bytes = SETTLE.as_bytes().to_vec();
            for (at, byte, remove) in changes {
                let at = at.min(bytes.len() - 1);
                match remove {
                    true => drop(bytes.remove(at)),
                    false => bytes[at] = byte,
                }
            }
            let Some(SettleBody::Outcomes { outcomes, .. }) = read(&Bytes::from(bytes)) else {
                return Ok(());
            };
            for outcome in outcomes {
                let Ok(said) = outcome.said else { continue };
                for payload in payloads(&said) {
                    prop_assert!(payload.content_type.is_some() || is_json(&payload.bytes));
                }
            }
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_duration() {
        let said = |pause: &str| {
            let text = SETTLE.replace("\"2s\"", pause);
            let Some(SettleBody::Outcomes { outcomes, .. }) = read(&Bytes::from(text)) else {
                panic!("refused");
            };
            outcomes.into_iter().nth(1).unwrap().said
        };
        for (pause, millis) in [
            ("\"2s\"", Some(2_000)),
            ("2", Some(2_000)),
            ("2.0", Some(2_000)),
            ("0.25", Some(250)),
            ("1e1", Some(10_000)),
            ("0", None),
            ("null", None),
        ] {
            let Ok(Said::Error { retry_after, .. }) = said(pause) else {
                panic!("{pause}");
            };
            assert_eq!(retry_after, millis.map(Duration::from_millis), "{pause}");
        }
        for pause in ["-1", "1e300", "\"2\"", "\"soon\"", "true", "[2]"] {
            let refusal = said(pause).unwrap_err();
            let Refusal::InvalidValue { detail, pointer } = refusal else {
                panic!("{pause}: {refusal:?}");
            };
            assert_eq!(pointer, "/outcomes/1/error/retry_after");
            assert!(detail.contains("`retry_after`"), "{pause}: {detail}");
        }
    }

    #[test]
    fn the_undamaged_settle_is_read() {
        let Some(SettleBody::Outcomes {
            outcomes,
            last: false,
        }) = read(&Bytes::from(SETTLE))
        else {
            panic!("refused");
        };
        assert!(outcomes.iter().all(|outcome| outcome.said.is_ok()));
        assert_eq!(outcomes.len(), 3);
    }
}

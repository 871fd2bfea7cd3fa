//! Reads requests: bytes in, checked values out, nothing of `data` copied and no JSON tree built.
//!
//! A JSON object is read as a list of names and raw values, each a slice of the body. What is wrong is named:
//! the field, by a JSON pointer, what it is, and what it should be.

pub(crate) mod job;
pub(crate) mod lines;
pub(crate) mod object;
pub(crate) mod outcome;
pub(crate) mod payload;
pub(crate) mod query;

use uuid::Uuid;

use crate::job::{JobId, Priority};
use crate::near::{meant, nearest};

/// The version that refuses what is not built yet.
pub(crate) const VERSION: &str = "jitney 0.1";

/// What is wrong with a name that is not known: not in this version, or misspelt.
pub(crate) fn unknown_name(what: &str, name: &str, known: &[&str], later: &[&str]) -> String {
    if later.contains(&name) {
        return format!("{what} `{name}` is not in {VERSION}");
    }
    match meant(name, known.iter().copied()) {
        Some(near) => format!("there is no {what} `{name}`; did you mean `{near}`?"),
        None if known.is_empty() => format!("there is no {what} `{name}`; none is known here"),
        None => format!("there is no {what} `{name}`; known are {}", known.join(", ")),
    }
}

/// Reads a job id: a UUID with hyphens.
pub(crate) fn job_id(text: &str) -> Option<JobId> {
    // `Uuid` also reads forms without hyphens, in braces, and as URN; one form is enough.
    (text.len() == 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
        .map(|id| JobId(id.into_bytes()))
}

/// Reads a priority, or says what is wrong with it.
pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    Priority::ALL
        .into_iter()
        .find(|priority| priority.name() == text)
        .ok_or_else(|| {
            let names = Priority::ALL.map(Priority::name);
            match nearest(text, names) {
                Some(near) => format!("`{}` is no priority; did you mean `{near}`?", shown(text)),
                None => format!(
                    "`{}` is no priority; use one of {}",
                    shown(text),
                    names.join(", ")
                ),
            }
        })
}

/// What an error shows of a value: its start, so that an error stays small.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_with_hyphens_is_a_job_id() {
        let text = "0199a3c4-0000-7000-8000-00000000002a";
        assert_eq!(job_id(text).unwrap().to_string(), text);
        assert!(job_id(&text.to_uppercase()).is_some());
        for wrong in [
            "",
            "7",
            &text.replace('-', ""),
            &format!("{{{text}}}"),
            &text[1..],
        ] {
            assert_eq!(job_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_field_that_others_call_differently_is_told_by_its_name() {
        assert_eq!(
            unknown_name("field", "batch_size", &["max_bytes", "max_jobs"], &[]),
            "there is no field `batch_size`; did you mean `max_jobs`?"
        );
    }

    #[test]
    fn a_wrong_priority_is_told_the_nearest() {
        assert_eq!(priority("SLOW"), Ok(Priority::Slow));
        assert_eq!(
            priority("normal").unwrap_err(),
            "`normal` is no priority; did you mean `NORMAL`?"
        );
        assert_eq!(
            priority("9").unwrap_err(),
            "`9` is no priority; use one of REALTIME, NORMAL, SLOW"
        );
    }
}

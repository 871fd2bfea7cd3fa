//! In what a submit differs from the job that its id or key was used for, as far as that job is still known.

use std::fmt;

use joblog::record::Submit as Record;

use super::port::Submit;

/// The parts that differ; none where nothing is known of the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differs([bool; PARTS.len()]);

/// What a fingerprint is made of, in its order.
const PARTS: [&str; 7] = [
    "processor",
    "group",
    "priority",
    "key",
    "labels",
    "content type",
    "data",
];

impl Differs {
    /// These parts, by their names; for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        Self(PARTS.map(|part| names.contains(&part)))
    }

    /// A submit and one that is in flight.
    pub(super) fn between(submit: &Submit, first: &Submit) -> Self {
        let labels = |submit: &Submit| {
            let mut labels = submit.labels.clone();
            labels.sort();
            labels
        };
        Self([
            submit.processor != first.processor,
            submit.group != first.group,
            submit.priority != first.priority,
            submit.key != first.key,
            labels(submit) != labels(first),
            submit.payload.content_type != first.payload.content_type,
            submit.payload.bytes != first.payload.bytes,
        ])
    }

    /// A submit and one that is stored.
    pub(super) fn from_stored(submit: &Submit, first: &Record<'_>) -> Self {
        let labels = submit.labels.iter();
        let mut labels: Vec<_> = labels
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        labels.sort_unstable();
        let mut others = first.labels.clone();
        others.sort_unstable();
        Self([
            submit.processor.as_str() != first.processor,
            submit.group.as_str() != first.group,
            submit.priority != first.priority,
            submit.key.as_deref() != first.key,
            labels != others,
            submit.payload.content_type.as_deref() != first.content_type,
            *submit.payload.bytes != *first.data,
        ])
    }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = PARTS.iter().zip(self.0);
        let names: Vec<_> = parts
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| *name)
            .collect();
        match names.as_slice() {
            [] => Ok(()),
            [name] => write!(f, ": `{name}` differs"),
            [names @ .., last] => write!(f, ": `{}` and `{last}` differ", names.join("`, `")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_nothing_is_guessed() {
        for (names, said) in [
            (&[][..], ""),
            (&["data"], ": `data` differs"),
            (&["data", "group"], ": `group` and `data` differ"),
            (
                &["key", "labels", "content type"],
                ": `key`, `labels` and `content type` differ",
            ),
        ] {
            assert_eq!(Differs::of(names).to_string(), said);
        }
    }
}

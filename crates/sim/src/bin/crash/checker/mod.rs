//! The checker: a history in, what is wrong with it out. It knows nothing of how the history came to be.
//!
//! Each promise is a check of its own, with the number of things that were checked, so that a check that saw
//! nothing does not pass for one that found nothing.

mod callers;
mod control;
mod evidence;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;

use crate::history::{Event, Line};
use evidence::Evidence;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    Kept,
    Own,
    Once,
    Clash,
    Stable,
    Plan,
    Asked,
    Unrefused,
    Data,
    Delivered,
    Tokens,
    Fenced,
    Children,
    Paused,
}

impl Check {
    const ALL: [Self; 14] = [
        Self::Kept,
        Self::Own,
        Self::Once,
        Self::Clash,
        Self::Stable,
        Self::Plan,
        Self::Asked,
        Self::Unrefused,
        Self::Data,
        Self::Delivered,
        Self::Tokens,
        Self::Fenced,
        Self::Children,
        Self::Paused,
    ];

    /// The promise.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Kept => "every acknowledged job has a final outcome that can be read",
            Self::Own => "every answer is the caller's own, every result that of its own data",
            Self::Once => "the same key or id is the same job, and no job is there twice",
            Self::Clash => "a key or id with other data is refused",
            Self::Stable => "a final outcome never changes",
            Self::Plan => "every job ends as its data and its policy allow",
            Self::Asked => "every call has at most one answer",
            Self::Unrefused => "no call is refused without a cause",
            Self::Data => "every worker gets the data that was submitted",
            Self::Delivered => "every result comes from a worker that held the job",
            Self::Tokens => "no lease token repeats",
            Self::Fenced => "an applied outcome is the one that counts",
            Self::Children => "a parent's outcome and its children come together, once",
            Self::Paused => "a lane whose pause was acknowledged stays paused until its resume",
        }
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    /// What to look for in the history: an id, a number as `"n":7,`, a lease.
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// What the checker says.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// How much each check looked at.
    pub(crate) looked_at: BTreeMap<Check, u64>,
    pub(crate) acknowledged: u64,
    /// Acknowledged jobs that are not there with an outcome in the end.
    pub(crate) lost: u64,
    pub(crate) results: u64,
    pub(crate) deliveries: u64,
    /// Deliveries of a job that was handed out before.
    pub(crate) again: u64,
    /// What is not checked, because nothing in the history says anything of it.
    pub(crate) left_out: &'static [Check],
}

impl Verdict {
    pub(crate) fn checks(&self) -> impl Iterator<Item = (Check, u64, usize)> {
        let checked = |check: &Check| !self.left_out.contains(check);
        Check::ALL.into_iter().filter(checked).map(|check| {
            let found = self
                .findings
                .iter()
                .filter(|finding| finding.check == check)
                .count();
            (check, self.looked_at.get(&check).copied().unwrap_or(0), found)
        })
    }

    fn saw(&mut self, check: Check) {
        *self.looked_at.entry(check).or_default() += 1;
    }

    fn find(&mut self, check: Check, subject: &str, text: String) {
        self.findings.push(Finding {
            check,
            subject: subject.to_owned(),
            text,
        });
    }

    /// One thing looked at; what is wrong with it, if anything is.
    fn look(&mut self, check: Check, subject: &str, wrong: Option<String>) {
        self.saw(check);
        if let Some(text) = wrong {
            self.find(check, subject, text);
        }
    }
}

/// Checks a whole history.
pub(crate) fn check(lines: &[Line]) -> Verdict {
    let evidence = Evidence::of(lines);
    let mut verdict = Verdict::default();
    callers::check(&evidence, &mut verdict);
    workers::check(&evidence, &mut verdict);
    control::check(&evidence, &mut verdict);
    verdict
}

/// Checks the history of callers alone: their workers are in the same process, and leases pass nobody's hands.
pub(crate) fn check_callers(lines: &[Line]) -> Verdict {
    let mut verdict = Verdict {
        left_out: &[
            Check::Data,
            Check::Delivered,
            Check::Tokens,
            Check::Fenced,
            Check::Children,
            Check::Paused,
        ],
        ..Verdict::default()
    };
    callers::check(&Evidence::of(lines), &mut verdict);
    verdict
}

/// The ids of all jobs that are known to exist, to be read at the end.
pub(crate) fn ids(lines: &[Line]) -> Vec<String> {
    let evidence = Evidence::of(lines);
    evidence.ids().into_iter().map(str::to_owned).collect()
}

/// The lines of a history that name the subject, or belong to a call that does.
pub(crate) fn story<'a>(lines: &'a [Line], subject: &str) -> Vec<&'a Line> {
    let names = |line: &&Line| serde_json::to_string(line).is_ok_and(|text| text.contains(subject));
    let calls: Vec<_> = lines.iter().filter(names).filter_map(call).collect();
    let of_call = |line: &&Line| call(line).is_some_and(|call| calls.contains(&call));
    lines.iter().filter(|line| names(line) || of_call(line)).collect()
}

fn call(line: &Line) -> Option<(&str, u64)> {
    let call = match &line.event {
        Event::Submit(submit) => submit.call,
        Event::Read { call, .. }
        | Event::Answer { call, .. }
        | Event::Taken { call, .. }
        | Event::Pause { call, .. }
        | Event::Paused { call }
        | Event::Look { call }
        | Event::Looked { call, .. }
        | Event::Failed { call, .. }
        | Event::Poll { call, .. }
        | Event::Leased { call, .. }
        | Event::Settle { call, .. }
        | Event::Settled { call, .. } => *call,
        Event::Cut | Event::Note { .. } => return None,
    };
    Some((&line.by, call))
}

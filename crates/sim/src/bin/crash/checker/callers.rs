//! What callers were promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::evidence::{Answer, Evidence, Known};
use super::{Check, Verdict};
use crate::history::{End, Name};
use crate::order::{BRITTLE, Executed, Plan};

/// Codes of calls that failed because the server was gone, went, or came; and of a read whose wait ended.
const EXCUSED: &[&str] = &[
    "unreachable",
    "timed_out",
    "draining",
    "recovering",
    "queue_full",
    "lease_lost",
];

pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    kept(evidence, verdict);
    once(evidence, verdict);
    stable(evidence, verdict);
    calls(evidence, verdict);
    for answer in &evidence.answers {
        own(evidence, answer, verdict);
    }
}

/// Whatever was acknowledged, or handed out, must be readable at the end, ended.
fn kept(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let last_reads: HashMap<_, _> = evidence
        .answers
        .iter()
        .filter(|answer| evidence.reads.get(&answer.call).is_some_and(|(_, last)| *last))
        .map(|answer| (answer.job.id.as_str(), answer.job.end.is_some()))
        .collect();
    let answered = evidence.answers.iter().map(|answer| answer.job.id.as_str());
    let taken = evidence.taken.iter().map(|taken| taken.id);
    let acknowledged: BTreeSet<_> = answered.chain(taken).collect();
    for id in evidence.ids() {
        let wrong = match last_reads.get(id) {
            Some(true) => None,
            Some(false) => Some("it has not ended after everything was drained".to_owned()),
            None => Some("it is gone: the last read does not find it".to_owned()),
        };
        if acknowledged.contains(id) {
            verdict.acknowledged += 1;
            verdict.lost += u64::from(wrong.is_some());
        }
        verdict.look(Check::Kept, id, wrong);
    }
}

fn once(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut ids: BTreeMap<u64, &str> = BTreeMap::new();
    for (id, numbers) in evidence.numbers() {
        let wrong = (numbers.len() > 1).then(|| format!("it is several jobs: {numbers:?}"));
        verdict.look(Check::Once, id, wrong);
        for n in numbers {
            if let Some(first) = ids.insert(n, id) {
                verdict.find(Check::Once, id, format!("number {n} is also job `{first}`"));
            }
        }
    }
    let answers = evidence
        .answers
        .iter()
        .map(|answer| (answer.call, answer.job.id.as_str()));
    let taken = evidence.taken.iter().map(|taken| (taken.call, taken.id));
    for (call, id) in answers.chain(taken) {
        let Some(submit) = evidence.submits.get(&call) else {
            continue;
        };
        match &submit.name {
            _ if submit.clash => {
                let text = format!(
                    "{:?} was used before, and number {} was accepted",
                    submit.name, submit.n
                );
                verdict.find(Check::Clash, id, text);
            }
            Name::Id(own) => {
                let wrong = (own != id).then(|| format!("its caller said `{own}`"));
                verdict.look(Check::Once, id, wrong);
            }
            Name::Key(_) | Name::None => {}
        }
    }
    let mut firsts = BTreeSet::new();
    for taken in evidence.taken.iter().filter(|taken| !taken.replayed) {
        let wrong = (!firsts.insert(taken.id)).then(|| "it was taken as new twice".to_owned());
        verdict.look(Check::Once, taken.id, wrong);
    }
    for (call, code) in &evidence.failures {
        let Some(submit) = evidence.submits.get(call).filter(|submit| submit.clash) else {
            continue;
        };
        let expected = match submit.name {
            Name::Id(_) => "id_reused",
            _ => "idempotency_key_reused",
        };
        if !EXCUSED.contains(code) {
            let wrong = (*code != expected).then(|| format!("refused with `{code}`, not `{expected}`"));
            verdict.look(Check::Clash, &format!("\"n\":{},", submit.n), wrong);
        }
    }
}

/// Every final outcome that was ever shown is the first one shown, and once shown it stays.
fn stable(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut ends: HashMap<&str, (u64, &End)> = HashMap::new();
    for answer in &evidence.answers {
        let id = answer.job.id.as_str();
        let wrong = match (&answer.job.end, ends.get(id)) {
            (Some(end), None) => {
                ends.insert(id, (answer.at, end));
                None
            }
            (Some(end), Some((_, first))) => {
                (end != *first).then(|| format!("its outcome was {first:?} and became {end:?}"))
            }
            (None, Some((at, _))) if evidence.begun.get(&answer.call).is_some_and(|begun| begun > at) => {
                Some("it had ended, and a later call says it has not".to_owned())
            }
            (None, _) => None,
        };
        verdict.look(Check::Stable, id, wrong);
    }
}

fn calls(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for (call, count) in &evidence.answered {
        let subject = format!("\"call\":{},", call.1);
        let wrong = if *count > 1 {
            Some(format!("call {call:?} has {count} answers"))
        } else if evidence.begun.contains_key(call) {
            None
        } else {
            Some(format!("call {call:?} has an answer and was never made"))
        };
        verdict.look(Check::Asked, &subject, wrong);
    }
    for (call, code) in &evidence.failures {
        let clash = evidence.submits.get(call).is_some_and(|submit| submit.clash);
        if !clash {
            let lease = evidence.settles.get(call).map(|settle| settle.lease);
            let subject = match lease {
                Some(lease) => lease.to_owned(),
                None => format!("\"call\":{},", call.1),
            };
            let forgotten =
                *code == "unknown_lease" && lease.is_some_and(|lease| evidence.may_be_forgotten(lease));
            let wrong = (!forgotten && !EXCUSED.contains(code))
                .then(|| format!("call {call:?} was refused with `{code}`"));
            verdict.look(Check::Unrefused, &subject, wrong);
        }
    }
}

/// An answer is about the job that was asked for, and shows the outcome of that job's data.
fn own(evidence: &Evidence<'_>, answer: &Answer<'_>, verdict: &mut Verdict) {
    let id = answer.job.id.as_str();
    let asked_id = evidence.reads.get(&answer.call).map(|(id, _)| *id);
    if let Some(asked) = asked_id {
        let wrong = (asked != id).then(|| format!("`{asked}` was asked for"));
        verdict.look(Check::Own, id, wrong);
    }
    let submit = evidence.submits.get(&answer.call).filter(|submit| !submit.clash);
    if let (Some(submit), Some(n)) = (submit, answer.job.n) {
        let wrong = (submit.n != n).then(|| format!("number {} was submitted, and {n} answered", submit.n));
        verdict.look(Check::Own, id, wrong);
    }
    let Some(n) = submit.map(|submit| submit.n).or(answer.job.n) else {
        return;
    };
    let (Some(end), Some(known)) = (&answer.job.end, evidence.jobs.get(&n)) else {
        return;
    };
    if let Some(result) = &end.result {
        verdict.results += 1;
        let wrong = match serde_json::from_str::<Executed>(result) {
            Ok(executed) if (executed.n, executed.hash) == (n, known.hash) => None,
            _ => Some(format!("the result of number {n} is {result}")),
        };
        verdict.look(Check::Own, id, wrong);
    }
    let wrong = (!allowed(known, end)).then(|| format!("number {n}, {known:?}, ended as {end:?}"));
    verdict.look(Check::Plan, id, wrong);
}

fn allowed(known: &Known, end: &End) -> bool {
    let code = end.code.as_deref();
    match (end.status.as_str(), end.reason.as_deref()) {
        ("processed_ok", None) => known.plan != Plan::Fail && end.result.is_some(),
        ("processed_error", None) => known.plan == Plan::Fail && code == Some("planned"),
        ("processed_error", Some("exhausted")) => {
            known.processor == BRITTLE && matches!(code, Some("again" | "whole" | "missing_outcome"))
        }
        ("batch_failed", Some("dead")) => known.processor == BRITTLE && code == Some("crashed"),
        _ => false,
    }
}

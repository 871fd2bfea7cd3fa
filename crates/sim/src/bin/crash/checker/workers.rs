//! What workers were promised, and what must be true of their leases.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::evidence::{Evidence, Settle};
use super::{Check, Verdict};
use crate::history::{End, Outcome};
use crate::order::{CHILDREN, Executed, Plan};

pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let ends = ends(evidence);
    tokens(evidence, verdict);
    data(evidence, verdict);
    delivered(evidence, &ends, verdict);
    fenced(evidence, &ends, verdict);
    children(evidence, &ends, verdict);
}

/// The outcome of each job, with what its maker said of its lease.
type Ends<'a> = BTreeMap<&'a str, &'a End>;

fn ends<'a>(evidence: &Evidence<'a>) -> Ends<'a> {
    let ended = evidence.answers.iter();
    let mut ends = BTreeMap::new();
    for (id, end) in ended.filter_map(|answer| Some((answer.job.id.as_str(), answer.job.end.as_ref()?))) {
        ends.entry(id).or_insert(end);
    }
    ends
}

/// The lease under which a job ended, where the outcome came from a worker.
fn lease_of(end: &End) -> Option<String> {
    match &end.result {
        Some(result) => serde_json::from_str::<Executed>(result)
            .ok()
            .map(|executed| executed.lease),
        None => end
            .message
            .clone()
            .filter(|_| end.code.as_deref() == Some("planned")),
    }
}

fn tokens(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for _ in &evidence.leases {
        verdict.saw(Check::Tokens);
    }
    for (lease, text) in &evidence.repeated {
        verdict.find(Check::Tokens, lease, text.clone());
    }
}

fn data(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut seen = BTreeSet::new();
    for delivery in &evidence.deliveries {
        verdict.deliveries += 1;
        verdict.again += u64::from(!seen.insert(delivery.id));
        let wrong = match evidence.jobs.get(&delivery.n) {
            None => Some(format!("number {} was never submitted", delivery.n)),
            Some(known) if known.hash != delivery.hash => {
                Some(format!("other data than number {} had", delivery.n))
            }
            Some(_) => None,
        };
        verdict.look(Check::Data, delivery.id, wrong);
    }
}

/// A result was made by a worker to which the job was handed out, and which said so.
fn delivered(evidence: &Evidence<'_>, ends: &Ends<'_>, verdict: &mut Verdict) {
    let mut said: BTreeSet<(&str, &str)> = BTreeSet::new();
    for settle in evidence.settles.values() {
        said.extend(settle.said.iter().map(|said| (settle.lease, said.id.as_str())));
    }
    for (id, end) in ends {
        let Some(lease) = lease_of(end) else { continue };
        let held = evidence
            .leases
            .get(lease.as_str())
            .is_some_and(|held| held.jobs.contains(id));
        let wrong = if !held {
            Some(format!("its result is of lease `{lease}`, which did not hold it"))
        } else if said.contains(&(lease.as_str(), *id)) {
            None
        } else {
            Some(format!(
                "its result is of lease `{lease}`, whose worker never settled it"
            ))
        };
        verdict.look(Check::Delivered, id, wrong);
    }
}

/// What counted, counted once, and is what the job ended with.
fn fenced(evidence: &Evidence<'_>, ends: &Ends<'_>, verdict: &mut Verdict) {
    let mut applied: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut of_lease: HashMap<&str, Vec<&Settle<'_>>> = HashMap::new();
    for settle in evidence.settles.values() {
        of_lease.entry(settle.lease).or_default().push(settle);
    }
    // Job -> when its final outcome was applied, and under which lease.
    let mut last: HashMap<&str, (u64, &str)> = HashMap::new();
    for spoken in &evidence.verdicts {
        let Some(settle) = evidence.settles.get(&spoken.call) else {
            continue;
        };
        let id = spoken.verdict.id.as_str();
        let outcome = settle.says(id);
        match spoken.verdict.is.as_str() {
            "applied" => {
                let wrong = if !applied.insert((id, settle.lease)) {
                    Some(format!(
                        "two outcomes were applied under lease `{}`",
                        settle.lease
                    ))
                } else if matches!(outcome, Some(Outcome::Ok | Outcome::FinalError)) {
                    match last.insert(id, (spoken.at, settle.lease)) {
                        Some((_, first)) => Some(format!(
                            "final under `{first}`, and again under `{}`",
                            settle.lease
                        )),
                        None => not_the_end(ends.get(id), settle.lease),
                    }
                } else {
                    None
                };
                verdict.look(Check::Fenced, id, wrong);
            }
            "duplicate" => {
                let wrong = (!was_said(&of_lease[settle.lease], settle, id)).then(|| {
                    let lease = settle.lease;
                    format!("`duplicate`, but nobody settled it before under lease `{lease}`")
                });
                verdict.look(Check::Fenced, id, wrong);
            }
            "late" | "released" => verdict.saw(Check::Fenced),
            "unknown" if evidence.may_be_forgotten(settle.lease) => verdict.saw(Check::Fenced),
            other => verdict.find(
                Check::Fenced,
                id,
                format!("`{other}` for a job that lease `{}` held", settle.lease),
            ),
        }
    }
    after_the_end(evidence, &last, verdict);
}

fn not_the_end(end: Option<&&End>, lease: &str) -> Option<String> {
    match end.and_then(|end| lease_of(end)) {
        Some(of) if of == lease => None,
        of => Some(format!(
            "applied under lease `{lease}`, but the outcome is of {of:?}"
        )),
    }
}

/// Whether another settle of the lease named the job, or the whole batch, before this one was sent.
fn was_said(of_lease: &[&Settle<'_>], this: &Settle<'_>, id: &str) -> bool {
    of_lease.iter().any(|settle| {
        let earlier = !std::ptr::eq(*settle, this) && settle.at <= this.at;
        earlier && (settle.said.is_empty() || settle.says(id).is_some())
    })
}

/// Nothing is applied to a job by a settle that was sent after its final outcome was confirmed.
fn after_the_end(evidence: &Evidence<'_>, last: &HashMap<&str, (u64, &str)>, verdict: &mut Verdict) {
    for spoken in &evidence.verdicts {
        let Some(settle) = evidence.settles.get(&spoken.call) else {
            continue;
        };
        let Some((at, lease)) = last.get(spoken.verdict.id.as_str()) else {
            continue;
        };
        let counted = matches!(spoken.verdict.is.as_str(), "applied" | "released");
        if counted && settle.lease != *lease && settle.at > *at {
            let text = format!(
                "`{}` under lease `{}` after lease `{lease}` ended it",
                spoken.verdict.is, settle.lease
            );
            verdict.find(Check::Fenced, &spoken.verdict.id, text);
        }
    }
}

/// A parent that ended well has each of its children, which ended well too; any other has none.
fn children(evidence: &Evidence<'_>, ends: &Ends<'_>, verdict: &mut Verdict) {
    let mut children: HashMap<u64, BTreeSet<&str>> = HashMap::new();
    for delivery in &evidence.deliveries {
        if let Some(parent) = evidence.jobs.get(&delivery.n).and_then(|known| known.parent) {
            children.entry(parent).or_default().insert(delivery.id);
        }
    }
    let parents: HashMap<&str, &str> = evidence
        .answers
        .iter()
        .filter_map(|answer| Some((answer.job.id.as_str(), answer.job.parent.as_deref()?)))
        .collect();
    for (id, numbers) in evidence.numbers() {
        let Some(n) = numbers.first() else { continue };
        if evidence
            .jobs
            .get(n)
            .is_none_or(|known| known.plan != Plan::Parent)
        {
            continue;
        }
        let well = ends.get(id).is_some_and(|end| end.status == "processed_ok");
        let expected = if well { CHILDREN } else { 0 };
        let there = children.remove(n).unwrap_or_default();
        let ended = |child: &&&str| {
            parents.get(**child) == Some(&id)
                && ends.get(**child).is_some_and(|end| end.status == "processed_ok")
        };
        let counted = ends.get(id).map_or(0, |end| u64::from(end.children));
        let ended = u64::try_from(there.iter().filter(ended).count()).unwrap_or(u64::MAX);
        let all = u64::try_from(there.len()).unwrap_or(u64::MAX);
        let wrong = (all != expected || ended != expected || counted != expected).then(|| {
            format!("{all} children were handed out, {ended} ended well, it says {counted}, not {expected}")
        });
        verdict.look(Check::Children, id, wrong);
    }
    for (n, ids) in children {
        let text = format!("children {ids:?} of number {n}, which nobody has");
        verdict.find(Check::Children, &format!("\"n\":{n},"), text);
    }
}

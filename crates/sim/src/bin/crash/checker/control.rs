//! What the operator was promised: a lane is as it was told, over every kill, and hands nothing out while it is paused.

use std::collections::BTreeMap;

use super::evidence::Evidence;
use super::{Check, Verdict};
use crate::history::{Event, Lane};

/// From when until when a lane was surely paused: from the answer to the pause to the wish to let it go on.
type Pauses<'a> = BTreeMap<&'a Lane, Vec<(u64, u64)>>;

pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let pauses = looks(evidence, verdict);
    for handed in &evidence.handed {
        let Some(pauses) = pauses.get(handed.lane) else {
            continue;
        };
        // What was asked for before the pause may have been granted before it, and come again.
        let within = pauses
            .iter()
            .find(|(from, until)| *from < handed.asked && handed.at < *until);
        let wrong = within.map(|(from, until)| {
            let (asked, at) = (handed.asked, handed.at);
            format!(
                "lease `{}`, asked for at {asked}, came at {at}; the lane was paused from {from} to {until}",
                handed.lease
            )
        });
        verdict.look(Check::Paused, &subject(handed.lane), wrong);
    }
}

/// Follows the operator, who does one thing after the other: what is surely so when it looks must be what it sees.
fn looks<'a>(evidence: &Evidence<'a>, verdict: &mut Verdict) -> Pauses<'a> {
    let mut pauses = Pauses::new();
    // What is under way: the call, the lane, and whether it pauses.
    let mut wish: Option<(u64, &Lane, bool)> = None;
    let mut sure: BTreeMap<&Lane, bool> = BTreeMap::new();
    for (at, event) in &evidence.control {
        match event {
            Event::Pause { call, lane, paused } => {
                wish = Some((*call, lane, *paused));
                sure.remove(lane);
                if !paused {
                    let open = pauses.get_mut(lane).into_iter().flatten();
                    open.for_each(|(_, until)| *until = (*until).min(*at));
                }
            }
            Event::Paused { call } => {
                if let Some((_, lane, paused)) = wish.take_if(|(wished, _, _)| wished == call) {
                    sure.insert(lane, paused);
                    if paused {
                        pauses.entry(lane).or_default().push((*at, u64::MAX));
                    }
                }
            }
            Event::Looked { paused, .. } => {
                for (lane, expected) in &sure {
                    let there = paused.contains(lane);
                    let wrong = (there != *expected)
                        .then(|| format!("paused: {there} at {at}, but {expected} was acknowledged"));
                    verdict.look(Check::Paused, &subject(lane), wrong);
                }
            }
            _ => {}
        }
    }
    pauses
}

/// As it stands in the history.
fn subject(lane: &Lane) -> String {
    serde_json::to_string(lane).unwrap_or_default()
}

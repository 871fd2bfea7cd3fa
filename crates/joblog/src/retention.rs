//! What is kept, and how long: results and keys. What that means for segments is in `live`.
//!
//! In: jobs that ended, and the time. Out: those whose time is up, oldest first.
//!
//! Ages count on the mono clock. After a restart a job's age starts at the wall clock's difference to its end,
//! never below 0.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::JobId;
use crate::time::{Mono, Now};

/// A job that ended, and when: milliseconds on the mono clock, which may lie before its zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    at_ms: i64,
    id: JobId,
}

/// The jobs of one time to keep, in the order in which they ended.
#[derive(Default)]
struct Class {
    /// Their results are kept.
    kept: VecDeque<Ended>,
    /// Their results gave way; their keys are known until their time is up.
    gave_way: VecDeque<Ended>,
}

/// Every finished job that is not forgotten, by the time that it is kept. There are as many classes as
/// processors have different times.
#[derive(Default)]
pub(crate) struct Retention {
    classes: BTreeMap<u64, Class>,
}

/// The mono clock in milliseconds.
fn mono_ms(now: Mono) -> i64 {
    i64::try_from(now.0 / 1000).unwrap_or(i64::MAX)
}

impl Retention {
    /// Enters a job that ended `age_ms` ago.
    pub(crate) fn enter(&mut self, id: JobId, keep_ms: u64, age_ms: u64, now: Now) {
        let class = self.classes.entry(keep_ms).or_default();
        let at_ms = mono_ms(now.mono).saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
        // Wall clocks that jumped may put an age out of order: then it counts from its predecessor's.
        let at_ms = class.kept.back().map_or(at_ms, |last| last.at_ms.max(at_ms));
        class.kept.push_back(Ended { at_ms, id });
    }

    /// Enters a job that ended `age_ms` ago, and whose result is gone.
    pub(crate) fn enter_key(&mut self, id: JobId, keep_ms: u64, age_ms: u64, now: Now) {
        let class = self.classes.entry(keep_ms).or_default();
        let at_ms = mono_ms(now.mono).saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
        let at_ms = class.gave_way.back().map_or(at_ms, |last| last.at_ms.max(at_ms));
        class.gave_way.push_back(Ended { at_ms, id });
    }

    /// The next job whose time is up.
    pub(crate) fn next_expired(&mut self, now: Now) -> Option<JobId> {
        for (keep_ms, class) in &mut self.classes {
            for queue in [&mut class.kept, &mut class.gave_way] {
                if queue
                    .front()
                    .is_some_and(|front| expires_ms(front, *keep_ms) <= mono_ms(now.mono))
                {
                    return queue.pop_front().map(|ended| ended.id);
                }
            }
        }
        None
    }

    /// The job that ended first of those whose results are kept; its result gives way.
    pub(crate) fn give_way(&mut self, key_stays: impl Fn(JobId) -> bool) -> Option<JobId> {
        let (_, class) = self
            .classes
            .iter_mut()
            .filter(|(_, class)| !class.kept.is_empty())
            .min_by_key(|(_, class)| class.kept.front().map(|front| front.at_ms))?;
        let ended = class.kept.pop_front()?;
        if key_stays(ended.id) {
            class.gave_way.push_back(ended);
        }
        Some(ended.id)
    }

    /// Forgets a job before its time: its id was submitted anew.
    pub(crate) fn forget(&mut self, id: JobId) {
        for class in self.classes.values_mut() {
            class.kept.retain(|ended| ended.id != id);
            class.gave_way.retain(|ended| ended.id != id);
        }
    }

    /// When the next job's time is up.
    pub(crate) fn next_timer(&self) -> Option<Mono> {
        let fronts = self.classes.iter().flat_map(|(keep_ms, class)| {
            [class.kept.front(), class.gave_way.front()]
                .into_iter()
                .flatten()
                .map(|e| expires_ms(e, *keep_ms))
        });
        fronts
            .min()
            .map(|at_ms| Mono(u64::try_from(at_ms).unwrap_or(0).saturating_mul(1000)))
    }
}

fn expires_ms(ended: &Ended, keep_ms: u64) -> i64 {
    ended
        .at_ms
        .saturating_add(i64::try_from(keep_ms).unwrap_or(i64::MAX))
}

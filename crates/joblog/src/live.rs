//! How much of each segment is live: what must be read again after a restart, or be copied before the segment goes.
//!
//! In: records that come to matter or stop mattering, and where they are. Out: which segments may go. The index owns it.
//!
//! Beside what is kept for its own sake, an outcome is live as long as a submit that it ended is on disk in another
//! segment, however long that job is forgotten: without it the next start would take the submit for an unsettled job.
//! Such submits are the *dead* of their segment: each with the segment that holds its end.

use std::collections::{HashMap, VecDeque};

use crate::hash::{IdMap, Seed};
use crate::ids::JobId;

/// What the end of a job without its result takes on disk, about: see [`crate::record::Ended`].
pub(crate) const ENDED_BYTES: u64 = 112;

/// One segment.
#[derive(Default)]
struct Slot {
    /// What is live in it.
    bytes: u64,
    /// Unsettled jobs whose submit is in it.
    unsettled: u64,
    /// Submits in it whose job is forgotten or has lost its result, and the segment that holds the job's end. An
    /// entry that names its own segment needs nothing any more.
    dead: Vec<(JobId, u32)>,
    /// What is counted for dispatches and returns in it.
    facts: Facts,
    /// Dispatches and returns were copied into it.
    had_facts: bool,
    gone: bool,
}

/// Dispatches and returns that were copied into a segment. Nobody knows when they stop mattering: at the soonest when
/// as many jobs have ended as they speak of, at the latest when no job is unsettled. Then they count for nothing, and the
/// next copy finds out.
#[derive(Clone, Copy, Default)]
struct Facts {
    bytes: u64,
    /// The number of outcomes at which they stop counting.
    until: u64,
}

/// Dead submits by their job: segment, and place in its list.
type Needed = IdMap<JobId, Vec<(u32, usize)>>;

pub(crate) struct Live {
    slots: VecDeque<Slot>,
    first: u32,
    /// The segment that is being copied, and the places in `dead` that name it.
    copying: Option<(u32, Needed)>,
    seed: Seed,
    /// Outcomes so far.
    ended: u64,
    /// Bytes that stopped being live since somebody looked.
    released: u64,
    /// A segment may have become free since somebody looked.
    changed: bool,
}

impl Live {
    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            copying: None,
            seed,
            ended: 0,
            released: 0,
            changed: true,
        }
    }

    /// A segment was begun; its slot is the next one.
    pub(crate) fn add_segment(&mut self) {
        self.slots.push_back(Slot::default());
        self.changed = true;
    }

    /// The last segment was none: its slot is the next one's.
    pub(crate) fn drop_last_segment(&mut self) {
        self.slots.pop_back();
    }

    /// The segment is gone, and the submits in it.
    pub(crate) fn segment_gone(&mut self, slot: u32) {
        let Some(at) = self.at(slot) else { return };
        let Slot { dead, .. } = std::mem::replace(
            &mut self.slots[at],
            Slot {
                gone: true,
                ..Slot::default()
            },
        );
        for (_, end) in dead {
            if end != slot {
                self.sub(end, ENDED_BYTES);
            }
        }
        while self.slots.pop_front_if(|slot| slot.gone).is_some() {
            self.first += 1;
        }
        self.changed = true;
    }

    pub(crate) fn add(&mut self, slot: u32, bytes: u64) {
        if let Some(slot) = self.there(slot) {
            slot.bytes += bytes;
        }
    }

    pub(crate) fn sub(&mut self, slot: u32, bytes: u64) {
        let Some(slot) = self.there(slot) else { return };
        slot.bytes = slot.bytes.saturating_sub(bytes);
        let empty = slot.bytes == 0;
        self.released += bytes;
        self.changed |= empty;
    }

    pub(crate) fn job_in(&mut self, slot: u32) {
        if let Some(slot) = self.there(slot) {
            slot.unsettled += 1;
        }
    }

    pub(crate) fn job_out(&mut self, slot: u32) {
        if let Some(slot) = self.there(slot) {
            slot.unsettled = slot.unsettled.saturating_sub(1);
            let last = slot.unsettled == 0;
            self.changed |= last;
        }
    }

    /// One more outcome.
    pub(crate) const fn count_end(&mut self) {
        self.ended += 1;
    }

    /// A submit stays on disk beyond its job: the job's end must, too.
    pub(crate) fn bury(&mut self, id: JobId, submit: u32, end: u32) {
        if submit == end {
            return;
        }
        let Some(slot) = self.there(submit) else { return };
        let place = (submit, slot.dead.len());
        slot.dead.push((id, end));
        self.add(end, ENDED_BYTES);
        if let Some((source, needed)) = &mut self.copying
            && *source == end
        {
            needed.entry(id).or_default().push(place);
        }
    }

    /// The segment that holds the end of a dead submit in `submit`, the latest of that id.
    pub(crate) fn end_of(&self, id: JobId, submit: u32) -> Option<u32> {
        let slot = self.slots.get(self.at(submit)?)?;
        let entry = slot.dead.iter().rev().find(|(dead, _)| *dead == id)?;
        Some(entry.1)
    }

    /// A segment is about to be copied: from now on it is known which ends in it are needed.
    pub(crate) fn begin_copy(&mut self, source: u32) {
        let mut needed: Needed = HashMap::with_hasher(self.seed);
        for (number, slot) in (self.first..).zip(&self.slots) {
            for (place, (id, end)) in slot.dead.iter().enumerate() {
                if *end == source && number != source {
                    needed.entry(*id).or_default().push((number, place));
                }
            }
        }
        self.copying = Some((source, needed));
    }

    pub(crate) fn end_copy(&mut self) {
        self.copying = None;
    }

    /// Whether the end of this job must be copied from the segment that is being copied.
    pub(crate) fn needs_end(&self, id: JobId) -> bool {
        self.copying
            .as_ref()
            .is_some_and(|(_, needed)| needed.contains_key(&id))
    }

    /// The end of this job was copied to another segment.
    pub(crate) fn end_copied(&mut self, id: JobId, to: u32) {
        let Some((source, needed)) = &mut self.copying else {
            return;
        };
        let source = *source;
        for (submit, place) in needed.remove(&id).unwrap_or_default() {
            let Some(at) = self.at(submit) else { continue };
            let Some(entry) = self.slots[at].dead.get_mut(place) else {
                continue;
            };
            entry.1 = to;
            self.sub(source, ENDED_BYTES);
            if submit != to {
                self.add(to, ENDED_BYTES);
            }
        }
    }

    /// Dispatches and returns were copied into a segment.
    pub(crate) fn facts_copied(&mut self, slot: u32, bytes: u64, jobs: u64) {
        let until = self.ended + jobs;
        if let Some(slot) = self.there(slot) {
            slot.had_facts = true;
            slot.bytes += bytes;
            slot.facts.bytes += bytes;
            slot.facts.until = slot.facts.until.max(until);
        }
    }

    /// Whether it is worth looking for a segment that can go.
    pub(crate) fn take_changed(&mut self, segment_bytes: u64) -> bool {
        let worth = self.changed || self.released > segment_bytes / 16;
        if worth {
            self.changed = false;
            self.released = 0;
            self.forget_facts();
        }
        worth
    }

    /// Somebody should look again.
    pub(crate) const fn look_again(&mut self) {
        self.changed = true;
    }

    pub(crate) fn bytes(&self, slot: u32) -> u64 {
        self.at(slot)
            .and_then(|at| self.slots.get(at))
            .map_or(0, |slot| slot.bytes)
    }

    /// What is live in all segments.
    pub(crate) fn total(&self) -> u64 {
        self.slots.iter().map(|slot| slot.bytes).sum()
    }

    pub(crate) fn unsettled(&self, slot: u32) -> u64 {
        self.at(slot)
            .and_then(|at| self.slots.get(at))
            .map_or(0, |slot| slot.unsettled)
    }

    pub(crate) fn had_facts(&self, slot: u32) -> bool {
        self.at(slot)
            .and_then(|at| self.slots.get(at))
            .is_some_and(|slot| slot.had_facts)
    }

    fn forget_facts(&mut self) {
        let none_unsettled = self.slots.iter().all(|slot| slot.unsettled == 0);
        for slot in &mut self.slots {
            if slot.facts.bytes > 0 && (none_unsettled || self.ended >= slot.facts.until) {
                slot.bytes = slot.bytes.saturating_sub(slot.facts.bytes);
                slot.facts.bytes = 0;
            }
        }
    }

    fn at(&self, slot: u32) -> Option<usize> {
        let at = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }

    fn there(&mut self, slot: u32) -> Option<&mut Slot> {
        let at = self.at(slot)?;
        self.slots.get_mut(at).filter(|slot| !slot.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was copied of jobs' tries counted until as many jobs had ended, and no more came: a small log stayed full.
    #[test]
    fn tries_that_were_copied_count_for_nothing_once_no_job_is_unsettled() {
        let mut live = Live::new(Seed(7));
        live.add_segment();
        live.job_in(0);
        live.facts_copied(0, 1_000, 5);
        assert!(live.take_changed(1 << 20));
        assert_eq!(live.bytes(0), 1_000);
        live.job_out(0);
        assert!(live.take_changed(1 << 20));
        assert_eq!(live.bytes(0), 0);
    }
}

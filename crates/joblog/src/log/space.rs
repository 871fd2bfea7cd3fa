//! Room: the spares that wait to become segments, who may take them, and what to do when the disk is full.
//!
//! Three spares are wanted: the next segment; one that only settles may take, so that a full disk can empty
//! again; one that only a start may take, so that a full disk never prevents it. While a spare is being made,
//! a group that needs one waits. Only when making one failed for want of room is anything refused.

use std::sync::Arc;

use super::Space;
use crate::time::{Mono, Now};

/// A file of full length without a use.
pub(crate) struct Spare<F> {
    pub(crate) name: String,
    pub(crate) file: Arc<F>,
    /// How long it is.
    pub(crate) bytes: u64,
}

/// How long after a failure for want of room the next try comes, microseconds: people free space by hand.
const RETRY_US: u64 = 1_000_000;

pub(crate) struct Spares<F> {
    ready: Vec<Spare<F>>,
    /// The number in the next spare's name.
    next_name: u64,
    wanted: usize,
    /// Set while the disk is known to be full: when to try again.
    full: Option<Mono>,
    /// Somebody was refused or failed for want of room since space last returned.
    refused: bool,
}

/// Whether a group can have a new segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Ready,
    /// A spare is being made.
    Wait,
    Full,
}

/// How many spares an append of this kind must leave.
const fn held_back(space: Space) -> usize {
    match space {
        Space::Submit => 2,
        Space::Settle => 1,
    }
}

impl<F> Spares<F> {
    pub(crate) fn new(ready: Vec<Spare<F>>, next_name: u64, wanted: usize) -> Self {
        Self {
            ready,
            next_name,
            wanted,
            full: None,
            refused: false,
        }
    }

    pub(super) fn room(&self, space: Space) -> Room {
        if self.ready.len() > held_back(space) {
            Room::Ready
        } else if self.full.is_some() {
            Room::Full
        } else {
            Room::Wait
        }
    }

    /// Whether an append is refused at the door. `fits` says whether the hot segment can hold it.
    pub(super) fn refuses(&mut self, space: Space, fits: bool) -> bool {
        // Once the settles' spare is in use, the hot segment is theirs alone.
        let mine = space == Space::Settle || self.ready.len() >= held_back(Space::Submit);
        let refuses = self.full.is_some() && !(fits && mine) && self.room(space) == Room::Full;
        self.refused |= refuses;
        refuses
    }

    /// Whether submits, or even settles, are refused when the hot segment is full.
    pub(super) fn is_full(&self, space: Space) -> bool {
        self.room(space) == Room::Full
    }

    pub(super) fn take(&mut self) -> Option<Spare<F>> {
        self.ready.pop()
    }

    pub(crate) fn put(&mut self, spare: Spare<F>) {
        self.ready.push(spare);
    }

    /// The length of the longest spare: the next start copies the hot segment into one, and may find no room beside it.
    pub(super) fn longest(&self) -> u64 {
        self.ready
            .iter()
            .map(|spare| spare.bytes)
            .max()
            .unwrap_or(u64::MAX)
    }

    /// What the spares take.
    pub(crate) fn bytes(&self) -> u64 {
        self.ready.iter().map(|spare| spare.bytes).sum()
    }

    /// Whether the hot segment, with nothing live in it, can be exchanged for a spare: the settles' will do, as the
    /// segment takes its place. Not the recovery's.
    pub(super) fn can_exchange(&self) -> bool {
        self.ready.len() > held_back(Space::Settle)
    }

    /// Whether a spare should be made or kept now.
    pub(super) fn wants_more(&self) -> bool {
        self.ready.len() < self.wanted
    }

    /// Whether the time has come to try to make one, full disk or not.
    pub(super) fn may_try(&self, now: Mono) -> bool {
        self.full.is_none_or(|at| at <= now)
    }

    pub(crate) const fn name_next(&mut self) -> u64 {
        let name = self.next_name;
        self.next_name += 1;
        name
    }

    /// Making a spare found no room.
    pub(super) fn spare_failed(&mut self, now: Now) {
        self.full = Some(Mono(now.mono.0 + RETRY_US));
    }

    /// A group was failed for want of room. The next try comes no later for it.
    pub(super) fn group_failed(&mut self, now: Now) {
        self.full.get_or_insert(Mono(now.mono.0 + RETRY_US));
        self.refused = true;
    }

    /// There is room, as far as anyone knows. Says whether somebody waits to hear it.
    pub(super) fn found_room(&mut self) -> bool {
        if self.ready.len() < held_back(Space::Submit) {
            // The reserves come first: one more spare is only the recovery's own.
            self.full = self.full.map(|_| Mono(0));
            return false;
        }
        self.full = None;
        std::mem::take(&mut self.refused)
    }

    /// When to look again whether there is room.
    pub(super) const fn next_timer(&self) -> Option<Mono> {
        self.full
    }
}

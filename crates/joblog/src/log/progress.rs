//! From queued to durable: one commit at a time, and what follows from its writing, its sync, its failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::commit::{Commit, End, Reached, Switch};
use super::effect::{Effect, What};
use super::groups::{Contents, Group, own};
use super::space::{Room, Spare};
use super::{Closing, Durability, Failure, Log, Progress, Segment, Space, Tail};
use crate::frame::{self, Head, Kind};
use crate::index::{Place, Warm};
use crate::record::{Record, Submit};
use crate::replay::Seat;
use crate::segment::{FRAMES_AT, Header, RESERVE_BYTES, Stream, segment_name};
use crate::storage::{File, Storage};
use crate::time::{Mono, Now};

/// How long the last records stay without a witness, and unsynced, microseconds.
const MARK_US: u64 = 1_000_000;

/// The commit that is out.
pub(super) struct InFlight<F> {
    kind: Kind,
    lsn: u64,
    durable_lsn: u64,
    file: Arc<F>,
    frame: Arc<Vec<u8>>,
    contents: Contents,
    switch: Option<Next<F>>,
    sync_after: bool,
    reached: Arc<Reached>,
}

/// The segment that the commit begins.
struct Next<F> {
    spare: Spare<F>,
    name: String,
    number: u64,
    epoch: u64,
    /// The LSN of the old segment's end frame, if this commit writes it.
    end_lsn: Option<u64>,
}

/// A frame on its way from written to synced.
pub(super) struct Written {
    lsn: u64,
    slot: u32,
    offset: u64,
    frame: Arc<Vec<u8>>,
    contents: Contents,
    at: Mono,
}

impl<F> InFlight<F> {
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.frame.len()).unwrap_or(u64::MAX)
    }
}

impl<S: Storage> Log<S> {
    /// The next commit to carry out, if one is due and none is out.
    pub fn next_commit(&mut self, now: Now) -> Option<Commit<S>> {
        self.now = now;
        if self.poisoned.is_some() || self.in_flight.is_some() || self.closing == Closing::Done {
            return None;
        }
        while let Some(group) = self.queue.front() {
            let (bytes, space) = (group.bytes(), group.space());
            let switch = self.needs_switch(bytes);
            match if switch {
                self.spares.room(space)
            } else {
                Room::Ready
            } {
                Room::Ready => return self.commit_group(switch),
                Room::Wait => return None,
                Room::Full => self.fail_first_group(space),
            }
        }
        if self.closing == Closing::Asked {
            return self.commit_end();
        }
        if self.is_exchange_due() {
            return self.commit_exchange();
        }
        if self.mark_at().is_some_and(|at| at <= now.mono) {
            return Some(self.commit_empty(Kind::Mark, None));
        }
        None
    }

    /// The frame is written, or is not: the answer to [`Commit::write`].
    pub fn written(&mut self, result: io::Result<()>, now: Now) {
        self.now = now;
        self.enter_durable();
        let Some(mut commit) = self.in_flight.take() else {
            return;
        };
        match result {
            Ok(()) => {
                self.switched(&mut commit);
                self.frame_written(commit);
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.switched(&mut commit);
                self.found_full(&commit);
            }
            Err(error) => {
                self.fail_appends(&commit.frame, &commit.contents, Failure::Unknown);
                self.poison(format!("a write failed: {error}"));
            }
        }
    }

    /// The frame is synced, or is not: the answer to [`Commit::sync`]. What follows for its jobs is worked out when
    /// [`Log::progress`] is asked: the next commit can be on its way before that.
    pub fn synced(&mut self, result: io::Result<()>, now: Now) {
        self.now = now;
        let Some(commit) = self.in_flight.take() else {
            return;
        };
        if let Err(error) = result {
            self.poison(format!("a sync failed: {error}"));
            return;
        }
        self.syncs += 1;
        self.lsn.durable = self.lsn.durable.max(commit.lsn);
        if commit.kind == Kind::End {
            self.closed();
        }
    }

    /// When a mark is due, if nothing else comes: while the last records have no witness, or are not synced.
    pub(super) fn mark_at(&self) -> Option<Mono> {
        let busy = self.in_flight.is_some() || !self.queue.is_empty() || self.tail.sealed;
        let needed = self.lsn.witnessed < self.lsn.last_records;
        (needed && !busy).then_some(Mono(self.lsn.last_frame_at.0 + MARK_US))
    }

    /// Whether a frame of so many bytes goes into another segment.
    pub(super) fn needs_switch(&self, bytes: u64) -> bool {
        let capacity = self.options.segment_bytes.min(self.spares.longest());
        let full = self.tail.offset + bytes + RESERVE_BYTES > capacity;
        self.tail.sealed || self.tail.exhausted || full
    }

    /// Whether the hot segment gives way to a spare though nothing is written: no other segment can go while it is the
    /// hot one, so nothing would ever give its room back if no new work is taken.
    fn is_exchange_due(&self) -> bool {
        if self.closing != Closing::Open {
            return false;
        }
        let too_long = self.options.is_too_long(self.hot().bytes);
        if too_long && self.spares.room(Space::Submit) == Room::Ready {
            return true;
        }
        // What is done with this one: its file is a spare at once.
        let used = self.tail.exhausted || self.tail.offset > self.options.segment_bytes / 2;
        let dead = self.index.unsettled() == 0 && self.index.live.bytes(self.tail.slot) == 0;
        let refuses = self.spares.is_full(Space::Submit) && self.spares.can_exchange();
        used && dead && refuses && self.unsynced.is_empty()
    }

    /// Begins another segment with a mark.
    fn commit_exchange(&mut self) -> Option<Commit<S>> {
        let next = self.next_segment()?;
        Some(self.commit_empty(Kind::Mark, Some(next)))
    }

    fn commit_group(&mut self, switch: bool) -> Option<Commit<S>> {
        let next = if switch { Some(self.next_segment()?) } else { None };
        let group = self.queue.pop_front()?;
        let waited_for = group
            .contents
            .appends
            .iter()
            .any(|append| append.durability == Durability::Sync);
        // Frames that nobody waits for are synced within a second all the same.
        let overdue = self
            .unsynced
            .front()
            .is_some_and(|first| first.at.0 + MARK_US <= self.now.mono.0);
        Some(self.commit(Kind::Group, group, next, waited_for || overdue))
    }

    /// The end frame of a clean stop; nothing if the segment has one.
    fn commit_end(&mut self) -> Option<Commit<S>> {
        if self.tail.sealed {
            self.closed();
            return None;
        }
        Some(self.commit_empty(Kind::End, None))
    }

    fn closed(&mut self) {
        self.enter_durable();
        self.closing = Closing::Done;
        // Nobody needs what is under way in the background any more.
        self.stopped.store(true, Ordering::Relaxed);
        self.progress.push_back(Progress::Closed);
    }

    fn commit_empty(&mut self, kind: Kind, next: Option<Next<S::File>>) -> Commit<S> {
        let group = Group {
            frame: vec![0; frame::HEAD],
            contents: Contents::default(),
        };
        self.commit(kind, group, next, true)
    }

    fn next_segment(&mut self) -> Option<Next<S::File>> {
        let spare = self.spares.take()?;
        let number = self.identity.next_number;
        self.identity.next_number += 1;
        let end_lsn = (!self.tail.sealed).then_some(self.lsn.next);
        Some(Next {
            spare,
            name: segment_name(number),
            number,
            epoch: (self.random)(),
            end_lsn,
        })
    }

    fn commit(
        &mut self,
        kind: Kind,
        group: Group,
        next: Option<Next<S::File>>,
        sync_after: bool,
    ) -> Commit<S> {
        let Group { mut frame, contents } = group;
        // An empty frame is a witness of all before it, which is synced first; so is the first of a segment.
        let sync_before = kind != Kind::Group && next.is_none();
        let lsn = self.lsn.next + u64::from(next.as_ref().is_some_and(|next| next.end_lsn.is_some()));
        let witness = sync_before || next.is_some();
        let durable_lsn = if witness { lsn - 1 } else { self.lsn.durable };
        let epoch = next.as_ref().map_or(self.tail.epoch, |next| next.epoch);
        Head {
            kind,
            epoch,
            lsn,
            durable_lsn,
        }
        .seal(&mut frame);
        let frame = Arc::new(frame);
        let write_awaited = contents
            .appends
            .iter()
            .any(|append| append.durability == Durability::Write);
        let hot = self.hot();
        let (file, offset) = next.as_ref().map_or((&hot.file, self.tail.offset), |next| {
            (&next.spare.file, FRAMES_AT)
        });
        let file = Arc::clone(file);
        let reached = Arc::new(Reached::default());
        let commit = Commit {
            storage: self.storage.clone(),
            file: Arc::clone(&file),
            offset,
            frame: Arc::clone(&frame),
            sync_before,
            switch: next.as_ref().map(|next| self.switch(next, lsn)),
            sync_after,
            write_awaited,
            reached: Arc::clone(&reached),
        };
        self.in_flight = Some(InFlight {
            kind,
            lsn,
            durable_lsn,
            file,
            frame,
            contents,
            switch: next,
            sync_after,
            reached,
        });
        commit
    }

    /// What happens on disk between the old segment and the new one, whose first LSN is `first_lsn`.
    fn switch(&self, next: &Next<S::File>, first_lsn: u64) -> Switch<S::File> {
        let hot = self.hot();
        let end = next.end_lsn.map(|lsn| {
            let head = Head {
                kind: Kind::End,
                epoch: self.tail.epoch,
                lsn,
                durable_lsn: lsn - 1,
            };
            End {
                file: Arc::clone(&hot.file),
                offset: self.tail.offset,
                frame: head.empty_frame(),
            }
        });
        let header = Header {
            stream: Stream::Hot,
            boot: self.identity.boot,
            number: next.number,
            epoch: next.epoch,
            first_lsn,
            replaces: 0,
            node: self.identity.node,
            sequence: self.identity.last_sequence,
            // The header's sync makes this length durable. Who cannot ask says nothing.
            file_bytes: next.spare.file.len().unwrap_or(0),
        };
        Switch {
            end,
            from: next.spare.name.clone(),
            to: next.name.clone(),
            header: header.encode(),
        }
    }

    /// Takes over as much of the commit's switch as was carried out.
    fn switched(&mut self, commit: &mut InFlight<S::File>) {
        let Some(next) = commit.switch.take() else { return };
        let sealed = commit.reached.sealed();
        if let (true, Some(end_lsn)) = (sealed, next.end_lsn) {
            self.tail.sealed = true;
            self.lsn.next = end_lsn + 1;
            self.lsn.durable = self.lsn.durable.max(end_lsn);
            self.lsn.witnessed = self.lsn.witnessed.max(end_lsn - 1);
        }
        if commit.reached.begun() {
            let bytes = next.spare.file.len().unwrap_or(self.options.segment_bytes);
            let slot = self.segments.push(Segment {
                name: next.name,
                number: next.number,
                epoch: next.epoch,
                stream: Stream::Hot,
                first_lsn: commit.lsn,
                file: next.spare.file,
                bytes,
                copied: None,
                stays: false,
            });
            self.index.live.add_segment();
            self.tail = Tail {
                slot,
                epoch: next.epoch,
                offset: FRAMES_AT,
                sealed: false,
                exhausted: false,
            };
        } else {
            // It is as good a spare as before.
            self.spares.put(next.spare);
        }
    }

    fn frame_written(&mut self, commit: InFlight<S::File>) {
        let bytes = commit.bytes();
        let (slot, offset) = (self.tail.slot, self.tail.offset);
        self.tail.offset += bytes;
        if let Some(hot) = self.segments.get_mut(slot) {
            hot.bytes = hot.bytes.max(self.tail.offset);
        }
        self.lsn.next = commit.lsn + 1;
        self.lsn.witnessed = commit.durable_lsn;
        self.lsn.last_frame_at = self.now.mono;
        if commit.kind == Kind::Group {
            self.groups_written += 1;
            self.group_sizes.count(commit.contents.appends.len());
            self.lsn.last_records = commit.lsn;
            self.cache.put(slot, u32_of(offset), Arc::clone(&commit.frame));
            self.progress.extend(
                commit
                    .contents
                    .appends
                    .iter()
                    .map(|append| Progress::Written(append.ticket)),
            );
        } else {
            // Before an empty frame everything was synced.
            self.lsn.durable = self.lsn.durable.max(commit.lsn - 1);
        }
        let (frame, contents) = (Arc::clone(&commit.frame), commit.contents);
        self.unsynced.push_back(Written {
            lsn: commit.lsn,
            slot,
            offset,
            frame,
            contents,
            at: self.now.mono,
        });
        if commit.sync_after {
            self.in_flight = Some(InFlight {
                contents: Contents::default(),
                ..commit
            });
        }
    }

    /// The disk had no room, and the frame is cut. The segment takes no more.
    fn found_full(&mut self, commit: &InFlight<S::File>) {
        if commit.kind == Kind::End {
            // Everything before it was synced: the next start finds it all, and says that the stop was not clean.
            self.lsn.durable = self.lsn.durable.max(commit.lsn - 1);
            self.closed();
            return;
        }
        self.tail.exhausted |= Arc::ptr_eq(&self.hot().file, &commit.file);
        self.lsn.last_frame_at = self.now.mono;
        self.fail_appends(&commit.frame, &commit.contents, Failure::DiskFull);
        self.spares.group_failed(self.now);
    }

    /// Order is law: first durable, then in the index, then told.
    pub(super) fn enter_durable(&mut self) {
        let durable = self.lsn.durable;
        while let Some(written) = self.unsynced.pop_front_if(|first| first.lsn <= durable) {
            let Contents { appends, effects } = &written.contents;
            self.index.warm(effects.iter().map(|effect| match &effect.what {
                What::Submit(id) => Warm::Submit(*id),
                What::Outcome(ending) => Warm::Ending(ending.id),
                What::Record => Warm::Nothing,
            }));
            let offset = u32_of(written.offset);
            for effect in effects {
                let place = Place {
                    slot: written.slot,
                    offset: offset + effect.at,
                    bytes: effect.bytes,
                };
                self.apply(effect, &written.frame, place);
            }
            let durable = appends.iter().map(|append| Progress::Durable(append.ticket));
            self.progress.extend(durable);
        }
    }

    fn apply(&mut self, effect: &Effect, frame: &[u8], place: Place) {
        match &effect.what {
            What::Submit(id) => self.index.nameless_submit(*id, place),
            What::Outcome(ending) => {
                let taken = self.index.outcome(ending, place, 0, self.now);
                // They are few, and the submit says whose they are. One that cannot be read is not counted.
                if let Some(submit) = taken.and_then(|taken| taken.dead)
                    && let Ok(slice) = self.fetch(submit)
                    && let Ok(submit) = Submit::decode(slice.as_ref())
                {
                    self.index.died(ending.id, submit.processor, submit.priority);
                }
            }
            What::Record => match own(effect.record(frame)) {
                Record::Submit(submit) => {
                    self.index.submit(&submit, place, Seat::default());
                }
                Record::Setting(setting) => {
                    self.settings.unqueue(&setting);
                    self.settings.apply(&setting, place.slot, &mut self.index.live);
                }
                _ => {}
            },
        }
    }

    /// After an error of which nothing is known nothing is acknowledged any more.
    pub(super) fn poison(&mut self, why: String) {
        self.enter_durable();
        for written in std::mem::take(&mut self.unsynced) {
            self.fail_appends(&written.frame, &written.contents, Failure::Unknown);
        }
        for group in std::mem::take(&mut self.queue) {
            self.fail(&group, Failure::Unknown);
        }
        self.poisoned = Some(why);
    }
}

fn u32_of(offset: u64) -> u32 {
    u32::try_from(offset).expect("segments are shorter than 4 GiB")
}

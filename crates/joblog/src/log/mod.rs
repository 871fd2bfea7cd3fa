//! The log: appends in, durable records out, and what they say of every job.
//!
//! The caller owns the one [`Log`] and all its time: it appends, takes a [`Commit`] and carries it out (on a
//! thread, or step by step), reports back, and reads [`Progress`]. Nothing here blocks but point reads of old
//! records; nothing here starts a thread. While a commit is out, appends gather in the next group.
//!
//! Order is law: a record enters the index only when it is durable, and `Durable` is said only then.

mod api;
mod chore;
mod commit;
mod copy;
mod effect;
mod groups;
mod progress;
mod segments;
mod space;
mod tries;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use api::{
    AppendError, Durability, Failure, GroupSizes, KeyEntry, Known, Opened, Options, Progress, ReadError,
    Slice, Space, Stored, Ticket, Usage,
};
pub use chore::Chore;
pub(crate) use chore::fill;
pub use commit::Commit;
pub(crate) use segments::Segments;
pub(crate) use space::{Spare, Spares};

use copy::Copying;

use crate::cache::Cache;
use crate::ids::{JobId, Priority, WallMs};
use crate::index::{Index, Place};
use crate::record::{IdempotencyKey, Record};
use crate::recovery::{self, OpenError, Start};
use crate::replay::{Drain, Recovered};
use crate::segment::Stream;
use crate::settings::Settings;
use crate::storage::{File, Storage};
use crate::time::{Mono, Now};

/// A stream of random numbers, from outside so that a simulation can repeat it.
pub(crate) type RandomSource = Box<dyn FnMut() -> u64 + Send>;

/// The embedded durable log of one directory.
pub struct Log<S: Storage> {
    storage: S,
    options: Options,
    random: RandomSource,
    identity: Identity,
    /// By slot, from the first on; those of both streams.
    segments: Segments<S::File>,
    tail: Tail,
    lsn: Lsn,
    /// Groups that wait to be committed; appends go into the last.
    queue: VecDeque<groups::Group>,
    in_flight: Option<progress::InFlight<S::File>>,
    /// Frames that are written and not known to be synced.
    unsynced: VecDeque<progress::Written>,
    index: Index,
    settings: Settings,
    copying: Copying<S::File>,
    cache: Cache,
    spares: Spares<S::File>,
    chore: Option<chore::Running<S::File>>,
    /// The log is closed: a chore that takes long ends early.
    stopped: Arc<AtomicBool>,
    progress: VecDeque<Progress>,
    next_ticket: u64,
    closing: Closing,
    /// Why the log takes no more records.
    poisoned: Option<String>,
    drain: Drain,
    /// The last reading of the clocks.
    now: Now,
    groups_written: u64,
    group_sizes: GroupSizes,
    syncs: u64,
}

/// What never changes in a boot, and what only grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) node: u64,
    /// This boot's epoch.
    pub(crate) boot: u32,
    /// The number of the next segment.
    pub(crate) next_number: u64,
    /// The highest sequence of any submit.
    pub(crate) last_sequence: u64,
}

/// A segment file.
pub(crate) struct Segment<F> {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) stream: Stream,
    /// The first LSN, of its own stream.
    pub(crate) first_lsn: u64,
    pub(crate) file: Arc<F>,
    /// Bytes on disk, as far as known.
    pub(crate) bytes: u64,
    /// The records that this process copied into it, bytes, for a cold segment: copied again before half of them are
    /// dead it might look no better than before, for ever.
    pub(crate) copied: Option<u64>,
    /// It is damaged: it stays for the next start to name, and for a person to look at.
    pub(crate) stays: bool,
}

/// Where the last segment is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// The segment.
    pub(crate) slot: u32,
    pub(crate) epoch: u64,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// It has its end frame: the next frame goes into another segment.
    pub(crate) sealed: bool,
    /// The disk had no room for a frame in it.
    pub(crate) exhausted: bool,
}

/// How far the log is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lsn {
    /// The next frame's.
    pub(crate) next: u64,
    /// The highest known synced.
    pub(crate) durable: u64,
    /// The durable LSN in the newest frame: what has a witness.
    pub(crate) witnessed: u64,
    /// The last frame with records.
    pub(crate) last_records: u64,
    /// When the last frame was written.
    pub(crate) last_frame_at: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Open,
    /// What is queued is written, then the end frame.
    Asked,
    Done,
}

/// Segments beside the spares: the hot one, the cold one, and one on its way from the one to the other.
const SEGMENTS_NEEDED: u64 = 3;

/// Forgotten per tick: a bound on one call, not on the rate, as the timer asks for the next at once.
const EXPIRE_AT_ONCE: usize = 10_000;

impl<S: Storage> Log<S> {
    /// Opens the log of a directory: recovers what is there, begins a new segment, durably.
    ///
    /// `random` must never repeat itself over restarts. Until [`Log::next_recovered`] is exhausted,
    /// what it still holds stays in memory.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was lost by trying.
    pub fn open(
        storage: S,
        options: Options,
        mut random: RandomSource,
        now: Now,
    ) -> Result<Opened<S>, OpenError> {
        options.check().map_err(OpenError::Options)?;
        let Start {
            identity,
            segments,
            tail,
            lsn,
            cold_lsn,
            spares,
            index,
            settings,
            drain,
            report,
        } = recovery::start(&storage, &options, &mut random, now)?;
        let cache = Cache::new(options.cache_bytes);
        let log = Self {
            storage,
            options,
            random,
            identity,
            segments,
            tail,
            lsn,
            queue: VecDeque::new(),
            in_flight: None,
            unsynced: VecDeque::new(),
            index,
            settings,
            copying: Copying::new(cold_lsn),
            cache,
            spares,
            chore: None,
            stopped: Arc::default(),
            progress: VecDeque::new(),
            next_ticket: 1,
            closing: Closing::Open,
            poisoned: None,
            drain,
            now,
            groups_written: 0,
            group_sizes: GroupSizes::default(),
            syncs: 0,
        };
        Ok(Opened { log, report })
    }

    /// The directory's own random number.
    #[must_use]
    pub const fn node(&self) -> u64 {
        self.identity.node
    }

    /// This boot's epoch, durable already.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.identity.boot
    }

    /// The next unsettled job, in the order of acceptance, then the next lease, of before this start.
    pub fn next_recovered(&mut self) -> Option<Recovered> {
        self.drain.next()
    }

    /// The next thing that happened.
    pub fn progress(&mut self) -> Option<Progress> {
        self.enter_durable();
        self.progress.pop_front()
    }

    /// Forgets what is past its time, or more than may be kept. Call it when [`Log::next_timer`] says so, and after
    /// everybody who waits for what [`Log::progress`] told has read it: a result does not give way before.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.index.expire(now, EXPIRE_AT_ONCE);
        self.enter_durable();
        if self.chore.is_none() && !self.spares.wants_more() && self.spares.may_try(now.mono) {
            self.room_found();
        }
    }

    /// Whether a commit is out.
    #[must_use]
    pub const fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// When [`Log::tick`] and [`Log::next_chore`] must be called even if nothing else happens.
    #[must_use]
    pub fn next_timer(&self) -> Option<Mono> {
        if self.is_over() {
            return None;
        }
        let (full, copy) = if self.chore.is_none() {
            (self.spares.next_timer(), self.copying.next_timer(self.now.mono))
        } else {
            (None, None)
        };
        [full, copy, self.index.next_timer()].into_iter().flatten().min()
    }

    /// When [`Log::next_commit`] must be called even if nothing else happens: a mark is due then.
    #[must_use]
    pub fn commit_due(&self) -> Option<Mono> {
        self.mark_at().filter(|_| !self.is_over())
    }

    fn is_over(&self) -> bool {
        self.poisoned.is_some() || self.closing == Closing::Done
    }

    /// Asks for a clean end: what is queued is committed, then an end frame; then comes [`Progress::Closed`].
    /// Commits go on until then, and chores while anything is queued: a group may wait for a segment.
    pub fn close(&mut self) {
        if self.closing == Closing::Open {
            self.closing = Closing::Asked;
        }
    }

    /// What memory knows of a job.
    #[must_use]
    pub fn find(&self, id: JobId) -> Option<Known> {
        self.index.find(id)
    }

    /// Which job an idempotency key stands for, queued submits included.
    #[must_use]
    pub fn find_key(&self, key: IdempotencyKey) -> Option<KeyEntry> {
        self.index.find_key(key)
    }

    /// Whether the next submit with a key or a client's id is refused.
    #[must_use]
    pub fn keys_full(&self) -> bool {
        self.index.keys_full(1)
    }

    /// The value of a setting, if it has one and that is durable.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.settings.get(name)
    }

    /// Every durable setting that has a value, in the order of names.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.settings.iter()
    }

    /// Reads a durable job's submit back, and its outcome if that is kept.
    ///
    /// # Errors
    /// [`ReadError`] if the medium fails or a record is damaged.
    pub fn read(&self, id: JobId) -> Result<Option<Stored>, ReadError> {
        let Some((submit, outcome)) = self.index.places(id) else {
            return Ok(None);
        };
        let outcome = outcome.map(|place| self.fetch(place)).transpose()?;
        Ok(Some(Stored {
            submit: self.fetch(submit)?,
            outcome,
        }))
    }

    /// How many jobs of which processor and priority were given up and can still be read.
    pub fn dead(&self) -> impl Iterator<Item = (&Arc<str>, Priority, u64)> {
        self.index.dead()
    }

    /// Figures for limits and metrics.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let counts = self.index.counts();
        let segments: u64 = self.segments.iter().map(|(_, segment)| segment.bytes).sum();
        let spare_bytes = self.spares.bytes();
        Usage {
            unsettled: count(self.index.unsettled()),
            results: count(self.index.results()),
            result_bytes: counts.result_bytes,
            results_evicted: counts.results_evicted,
            keys: count(self.index.keys()),
            disk_bytes: segments + spare_bytes,
            spare_bytes,
            live_bytes: self.index.live.total(),
            queued_bytes: self.queued_bytes(),
            groups: self.groups_written,
            group_sizes: self.group_sizes,
            syncs: self.syncs,
            submits_full: self.spares.is_full(Space::Submit),
            settles_full: self.spares.is_full(Space::Settle),
            needed_bytes: SEGMENTS_NEEDED * self.options.segment_bytes,
        }
    }

    /// Why the log takes no more records, if it does not: an I/O error after which nothing is certain.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    fn fetch(&self, place: Place) -> Result<Slice, ReadError> {
        if let Some(slice) = self.cache.get(place) {
            return Ok(slice);
        }
        let Some(segment) = self.segments.get(place.slot) else {
            return Err(ReadError::new(
                "no segment",
                place.offset,
                "its segment is gone".to_owned(),
            ));
        };
        let failed = |what: String| ReadError::new(&segment.name, place.offset, what);
        let length = usize::try_from(place.bytes).map_err(|error| failed(error.to_string()))?;
        let mut bytes = vec![0; length];
        segment
            .file
            .read_at(&mut bytes, u64::from(place.offset))
            .map_err(|error| failed(error.to_string()))?;
        Record::decode(&bytes).map_err(|error| failed(error.to_string()))?;
        Ok(Slice::new(Arc::new(bytes), 0..length))
    }

    /// The segment that new records go to.
    fn hot(&self) -> &Segment<S::File> {
        let hot = self.segments.get(self.tail.slot);
        hot.expect("the segment that is written to is never let go")
    }

    fn room_found(&mut self) {
        if self.spares.found_room() {
            self.progress.push_back(Progress::SpaceReturned);
        }
    }
}

/// How old a job's end is at a restart.
pub(crate) fn age_ms(finished: WallMs, now: Now) -> u64 {
    now.wall.0.saturating_sub(finished.0)
}

//! The words of the log's interface.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Log;
use crate::frame;
use crate::ids::JobId;
use crate::record::{End, Reason};
use crate::recovery::Report;
use crate::segment::{FRAMES_AT, RESERVE_BYTES};
use crate::storage::Storage;

/// Limits of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a segment file is. At least four times `frame_bytes_max` is sensible.
    pub segment_bytes: u64,
    /// A group that is this long takes no further append: one commit's latency stays bounded.
    pub group_bytes_max: usize,
    /// The most that the records of one append may take.
    pub frame_bytes_max: usize,
    /// Payloads of recent frames that are kept in memory.
    pub cache_bytes: usize,
    /// How long a result is kept if its outcome does not say.
    pub result_ttl_ms: u64,
    /// How long a key is known after its job ended; its result is kept at least as long.
    pub key_ttl_ms: u64,
    /// Beyond so many kept results the oldest give way.
    pub results_max: usize,
    /// Beyond so many bytes of kept results (submit and outcome) the oldest give way.
    pub result_bytes_max: u64,
    /// Beyond so many keys and client ids further ones are refused.
    pub keys_max: usize,
    /// How many spare segments are wanted: the next, and two reserves.
    pub spares: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            group_bytes_max: 4 << 20,
            // A body of 16 MiB, and what its records add.
            frame_bytes_max: 20 << 20,
            cache_bytes: 64 << 20,
            result_ttl_ms: 3_600_000,
            key_ttl_ms: 86_400_000,
            results_max: 10_000_000,
            result_bytes_max: 8 << 30,
            keys_max: 4_000_000,
            spares: 3,
        }
    }
}

impl Options {
    /// Whether a file of this length is used again: one that is much longer than a segment is of another time, and
    /// would hold room for ever that nobody asked for.
    pub(crate) const fn fits_a_segment(&self, bytes: u64) -> bool {
        bytes >= self.segment_bytes && !self.is_too_long(bytes)
    }

    /// Whether a file is much longer than a segment: a little longer it is where frames of starts had to be added.
    pub(crate) const fn is_too_long(&self, bytes: u64) -> bool {
        bytes > self.segment_bytes + self.segment_bytes / 16
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let beside = FRAMES_AT + RESERVE_BYTES + u64::try_from(2 * frame::HEAD).unwrap_or(u64::MAX);
        let needed = u64::try_from(self.frame_bytes_max)
            .unwrap_or(u64::MAX)
            .saturating_add(beside);
        if self.segment_bytes < needed {
            return Err(format!(
                "segments of {} bytes cannot hold a frame: at least {needed} are needed",
                self.segment_bytes
            ));
        }
        if u32::try_from(self.segment_bytes).is_err() {
            return Err(format!(
                "segments of {} bytes are too long: less than 4 GiB",
                self.segment_bytes
            ));
        }
        if self.spares < 3 {
            return Err(format!(
                "{} spares are too few: at least 3 are needed",
                self.spares
            ));
        }
        Ok(())
    }
}

/// A log and what its start found.
pub struct Opened<S: Storage> {
    /// The log, ready for appends. Its [`Log::next_recovered`] has the jobs of before.
    pub log: Log<S>,
    /// What a person may want to know.
    pub report: Report,
}

/// Names one append; increases by 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What an append is for; a full disk refuses the first long before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// New work.
    Submit,
    /// Settles, returns, expiries, dispatch records: what lets the disk empty again.
    Settle,
}

/// How safe an append must be before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `Written` is all that anyone waits for; no sync is made for its sake.
    Write,
    /// A sync follows; `Durable` is waited for.
    Sync,
}

/// What [`Log::progress`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The records survive the end of this process. In the order of tickets; before `Durable`.
    Written(Ticket),
    /// The records survive a power cut. In the order of tickets.
    Durable(Ticket),
    /// The append failed. May come before the `Durable` of an earlier ticket.
    Failed(Ticket, Failure),
    /// There is room again after a refusal or a failure for want of it.
    SpaceReturned,
    /// The end frame is durable.
    Closed,
}

/// Why queued records did not become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No room; nothing of the append is there, nor will be. Trying again later is safe.
    DiskFull,
    /// Whether it is there is known only after a restart.
    Unknown,
}

/// Why records were not even queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// No room for this kind of append. Trying again later is safe.
    DiskFull,
    /// The log is poisoned or closed. Only a restart helps.
    Closed,
    /// As many keys are known as may be. Trying again later is safe.
    KeysFull,
    /// As many settings are kept as may be. Somebody must remove one.
    SettingsFull,
    /// The records do not fit in one frame. The caller must make them smaller.
    TooLarge {
        /// What they may take.
        bytes: u64,
        /// What a frame takes.
        limit: u64,
    },
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str("the disk is full"),
            Self::Closed => f.write_str("the log takes no more records"),
            Self::SettingsFull => f.write_str("as many settings are kept as may be"),
            Self::KeysFull => f.write_str("as many idempotency keys are known as `keys_max` allows"),
            Self::TooLarge { bytes, limit } => {
                write!(
                    f,
                    "{bytes} bytes of records exceed the limit of {limit} for one frame"
                )
            }
        }
    }
}

impl std::error::Error for AppendError {}

/// A stored record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    file: String,
    offset: u32,
    what: String,
}

impl ReadError {
    pub(super) fn new(file: &str, offset: u32, what: String) -> Self {
        Self {
            file: file.to_owned(),
            offset,
            what,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot read the record at byte {} of `{}`: {}",
            self.offset, self.file, self.what
        )
    }
}

impl std::error::Error for ReadError {}

/// What memory knows of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its submit is queued, not durable.
    Submitting {
        /// The append it waits for.
        ticket: Ticket,
        /// Its fingerprint; 0 for a job without key or client's id, here and below.
        fingerprint: u128,
    },
    /// Durable and without an outcome (an outcome may be queued).
    Unsettled {
        /// Its fingerprint.
        fingerprint: u128,
    },
    /// Its outcome is durable.
    Finished {
        /// Its fingerprint.
        fingerprint: u128,
        /// How it ended.
        end: End,
        /// Why.
        reason: Option<Reason>,
        /// Whether its result can still be read; `false` if it gave way while its key lives on.
        readable: bool,
    },
}

/// What an idempotency key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The job.
    pub id: JobId,
    /// The fingerprint that the first submit had.
    pub fingerprint: u128,
}

/// Encoded records of one job, read back. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The encoded submit; [`crate::record::Submit::decode`] reads it without copying.
    pub submit: Slice,
    /// The encoded outcome, if there is one that is kept; [`crate::record::Outcome::decode`] reads it.
    pub outcome: Option<Slice>,
}

/// Bytes inside a shared buffer.
#[derive(Clone)]
pub struct Slice {
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Slice {
    /// `range` lies within the buffer.
    pub(crate) const fn new(buffer: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Self { buffer, range }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.range.len())
    }
}

/// Counts commit groups by how many appends are in each: what shares a write and a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupSizes {
    /// By [`GroupSizes::BOUNDS`]; the last is for all above.
    pub groups: [u64; 12],
    /// Appends in all of them.
    pub appends: u64,
}

impl GroupSizes {
    /// Upper bounds, appends.
    pub const BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

    pub(super) fn count(&mut self, appends: usize) {
        let appends = u64::try_from(appends).unwrap_or(u64::MAX);
        let above = Self::BOUNDS.iter().take_while(|bound| **bound < appends);
        self.groups[above.count()] += 1;
        self.appends = self.appends.saturating_add(appends);
    }

    /// The bounds and how many groups lie in each, and the number above all of them.
    pub fn buckets(&self) -> (impl Iterator<Item = (u64, u64)>, u64) {
        let [groups @ .., above] = self.groups;
        (Self::BOUNDS.into_iter().zip(groups), above)
    }
}

/// Figures of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Unsettled jobs, submits in flight included.
    pub unsettled: u64,
    /// Finished jobs whose result is kept.
    pub results: u64,
    /// Bytes of those results on disk, their submits included.
    pub result_bytes: u64,
    /// Results that gave way before their time.
    pub results_evicted: u64,
    /// Idempotency keys and client ids held.
    pub keys: u64,
    /// Bytes on disk, spares included.
    pub disk_bytes: u64,
    /// Bytes of spares: files that hold nothing and wait to become segments.
    pub spare_bytes: u64,
    /// Bytes of records on disk that matter: what a restart must read again, and a copy would copy.
    pub live_bytes: u64,
    /// Bytes of records that wait for their write and sync.
    pub queued_bytes: u64,
    /// Commit groups written.
    pub groups: u64,
    /// How many appends each of them had.
    pub group_sizes: GroupSizes,
    /// Syncs made after groups.
    pub syncs: u64,
    /// Whether new work is refused once the hot segment is full.
    pub submits_full: bool,
    /// Whether even settles are refused then.
    pub settles_full: bool,
    /// Bytes of the segments that the log cannot do without, spares apart: the one that is written to, one of copies,
    /// and one on its way from the first to the second. With less, what is not live cannot always be given back.
    pub needed_bytes: u64,
}

impl Usage {
    /// Bytes of the segments: what jobs, results and keys hold. Spares do not count: they hold nothing.
    #[must_use]
    pub const fn segments_bytes(&self) -> u64 {
        self.disk_bytes.saturating_sub(self.spare_bytes)
    }
}

//! What a record does once it is durable, noted when it is appended: nobody reads it again for that.
//!
//! In: a record that was just encoded, and where. Out: what the index is told after the sync.

use std::ops::Range;

use crate::ids::JobId;
use crate::index::Ending;
use crate::record::Record;

/// A record in a frame, and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    /// Where the record begins in its frame.
    pub(super) at: u32,
    /// How long it is.
    pub(super) bytes: u32,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A job with neither a client's id nor a key.
    Submit(JobId),
    Outcome(Ending),
    /// More than is noted here: the record says it.
    Record,
}

impl Effect {
    /// `None` for what is read at the next start only: leases and returns.
    pub(super) fn of(record: &Record<'_>, place: Range<usize>) -> Option<Self> {
        let what = match record {
            Record::Submit(submit) if submit.has_identity() => What::Record,
            Record::Submit(submit) => What::Submit(submit.id),
            Record::Outcome(outcome) => What::Outcome(outcome.into()),
            Record::Setting(_) => What::Record,
            Record::Dispatch(_)
            | Record::Delivered(_)
            | Record::Return(_)
            | Record::Ended(_)
            | Record::Tries(_)
            | Record::Copied(_) => return None,
        };
        Some(Self {
            at: number(place.start),
            bytes: number(place.len()),
            what,
        })
    }

    /// Whether it lies before this place of its frame.
    pub(super) fn starts_before(&self, end: usize) -> bool {
        size(self.at) < end
    }

    /// The same once the bytes from `from` on are at `to`, in another frame.
    pub(super) fn moved(self, from: usize, to: usize) -> Self {
        Self {
            at: number(size(self.at) - from + to),
            ..self
        }
    }

    /// The record's bytes.
    pub(super) fn record<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[size(self.at)..][..size(self.bytes)]
    }
}

fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame is shorter than a segment, which is below 4 GiB")
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).expect("a pointer has at least 32 bits")
}

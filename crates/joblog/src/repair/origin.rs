//! Where copies belong in the order of the log, when the record that says so is damaged.
//!
//! In: the bytes of that record, and what stands around it. Out: what it said, if a checksum confirms it. If none does,
//! the earliest place that no other record speaks against. An end, a dispatch or a return that is read too early changes
//! nothing, so the worst is that a job is processed again, which the plan says; a submit that is read too early finds
//! all that came after it.

use std::collections::BTreeSet;

use super::cold::COPIED_BYTES;
use super::image::Mended;
use super::{Piece, RepairError, Step};
use crate::frame;
use crate::ids::{JobId, WallMs};
use crate::record::{Copied, Record, Records};
use crate::recovery::{Damage, OpenError, Visitor, survey, walk};
use crate::segment::COUNT_MAX;
use crate::storage::Storage;

/// No log gets so far: the frame belongs somewhere else.
const NOWHERE: u64 = COUNT_MAX;

/// What a damaged *copied* record leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct Lead {
    /// The damaged frame.
    frame: Vec<u8>,
    /// The source, as far as it is known.
    source: u64,
}

/// A frame that does not say where it belongs.
#[derive(Clone, Debug)]
pub(super) struct Loose {
    /// Which of the segment's pieces it is.
    piece: usize,
    source: u64,
    /// The lowest sequence of its submits.
    sequence: Option<u64>,
    /// Submits whose ids the callers made, which may come again, and when they were accepted.
    clients: Vec<(JobId, WallMs)>,
    /// Jobs whose ends it holds.
    ends: BTreeSet<JobId>,
    /// It belongs here, or later.
    bound: u64,
}

impl Lead {
    pub(super) const fn none() -> Self {
        Self {
            frame: Vec::new(),
            source: 0,
        }
    }

    pub(super) fn of(frame: &[u8]) -> Self {
        Self {
            frame: frame.to_vec(),
            source: 0,
        }
    }

    /// What the record must have said, if a checksum confirms it. `next` and `open` are the copies around it.
    pub(super) fn find(
        &mut self,
        next: Option<u64>,
        open: Option<u64>,
        origins: &BTreeSet<u64>,
    ) -> Option<Copied> {
        // Of no segment, so its copy counts.
        self.source = next.or(open).unwrap_or(0);
        let raw: [u8; COPIED_BYTES] = *self.frame.get(frame::HEAD..)?.first_chunk()?;
        let word = |at: usize| {
            raw[at..]
                .first_chunk()
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        let (source, origin) = (word(12), word(20));
        let sources: BTreeSet<u64> = [Some(source), next, open].into_iter().flatten().collect();
        let near = (0..64)
            .step_by(8)
            .flat_map(|shift| (1..256).map(move |change: u64| origin ^ (change << shift)));
        let known = || std::iter::once(origin).chain(origins.iter().copied());
        for source in sources {
            for origin in known().chain(near.clone()).filter(|origin| is_lsn(*origin)) {
                let copied = Copied { source, origin };
                if encode(copied)[4..8] == raw[4..8] {
                    return Some(copied);
                }
            }
            for origin in known().filter(|origin| is_lsn(*origin)) {
                let copied = Copied { source, origin };
                let mut patched = self.frame.clone();
                patched[frame::HEAD..frame::HEAD + COPIED_BYTES].copy_from_slice(&encode(copied));
                if frame::is_whole(&patched) {
                    return Some(copied);
                }
            }
        }
        None
    }

    /// What the record says until it is known where the frame belongs.
    pub(super) const fn placeholder(&self) -> Copied {
        Copied {
            source: self.source,
            origin: NOWHERE,
        }
    }
}

fn is_lsn(origin: u64) -> bool {
    (1..COUNT_MAX).contains(&origin)
}

fn encode(copied: Copied) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record::Copied(copied).encode(&mut bytes);
    bytes
}

impl Loose {
    pub(super) fn new(piece: usize, lead: &Lead, records: &[u8]) -> Self {
        let mut loose = Self {
            piece,
            source: lead.source,
            sequence: None,
            clients: Vec::new(),
            ends: BTreeSet::new(),
            bound: 1,
        };
        for (_, bytes) in Records::new(records).flatten() {
            match Record::decode(bytes) {
                Ok(Record::Submit(submit)) => {
                    let lowest = loose.sequence.unwrap_or(u64::MAX).min(submit.sequence);
                    loose.sequence = Some(lowest);
                    if submit.client_id {
                        loose.clients.push((submit.id, submit.accepted));
                    }
                }
                Ok(Record::Outcome(outcome)) => drop(loose.ends.insert(outcome.id)),
                Ok(Record::Ended(ended)) => drop(loose.ends.insert(ended.id)),
                _ => {}
            }
        }
        loose
    }
}

/// Gives every loose frame its place; each comes with the number of the step that it is in. Returns the jobs whose
/// ends stand in them.
pub(super) fn settle<S: Storage>(
    storage: &S,
    steps: &mut [Step],
    loose: Vec<(usize, Loose)>,
) -> Result<Vec<JobId>, RepairError> {
    if loose.is_empty() {
        return Ok(Vec::new());
    }
    let mended = Mended::new(storage, steps).map_err(|error| OpenError::io("the directory", error))?;
    let survey = survey(&mended)?;
    let hot: Vec<u64> = survey.chain.iter().map(|found| found.header.first_lsn).collect();
    // Whatever is written from now on comes later.
    let latest = hot.last().map_or(1, |first| (first - 1).max(1));
    let mut bounds = Bounds {
        loose,
        hot,
        place: NOWHERE,
    };
    walk(&survey, &mut bounds)?;
    let mut ends = Vec::new();
    for (step, loose) in bounds.loose {
        ends.extend(loose.ends);
        let copied = Copied {
            source: loose.source,
            origin: loose.bound.min(latest),
        };
        if let Some(Step::Mend { pieces, .. }) = steps.get_mut(step)
            && let Some(Piece::Saved { records, .. }) = pieces.get_mut(loose.piece)
        {
            records[..COPIED_BYTES].copy_from_slice(&encode(copied));
        }
    }
    Ok(ends)
}

/// Finds what came before the loose frames.
struct Bounds {
    loose: Vec<(usize, Loose)>,
    /// The first LSNs of the hot segments.
    hot: Vec<u64>,
    /// Where in the order of the log it is.
    place: u64,
}

impl Visitor for Bounds {
    fn segment(&mut self, slot: u32) {
        let first = usize::try_from(slot).ok().and_then(|slot| self.hot.get(slot));
        self.place = first.copied().unwrap_or(NOWHERE);
    }

    fn frame(&mut self) {}

    fn record(&mut self, record: &Record<'_>, _: u64, _: usize) {
        if let Record::Copied(copied) = record {
            self.place = copied.origin;
        }
        let place = self.place;
        if place == NOWHERE {
            return;
        }
        for (_, loose) in &mut self.loose {
            let is_earlier = match record {
                // Sequences grow with the log. An id of the server's own is never used again, so its end comes later.
                Record::Submit(submit) => {
                    loose.sequence.is_some_and(|lowest| submit.sequence < lowest)
                        || (!submit.client_id && loose.ends.contains(&submit.id))
                }
                Record::Outcome(outcome) => loose.follows(outcome.id, outcome.finished),
                Record::Ended(ended) => loose.follows(ended.id, ended.finished),
                _ => false,
            };
            if is_earlier {
                loose.bound = loose.bound.max(place);
            }
        }
    }

    fn damage(&mut self, damage: Damage) -> Result<(), OpenError> {
        Err(OpenError::Damaged(damage))
    }
}

impl Loose {
    /// Whether a job of it has the id of one that ended before.
    fn follows(&self, id: JobId, finished: WallMs) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|(client, accepted)| *client == id && finished < *accepted)
    }
}

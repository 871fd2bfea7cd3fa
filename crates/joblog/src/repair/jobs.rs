//! What a damage means for jobs: which are gone, which will run again.

use std::collections::{BTreeSet, HashSet};

use super::scan::Piece;
use super::{LostKind, Plan, Step};
use crate::frame::{Reader, Slot};
use crate::ids::JobId;
use crate::record::{Record, Records};
use crate::recovery::{
    Damage, Ending, Found, OpenError, Survey, Visitor, show_records, walk_as, walk_segment,
};
use crate::storage::File;

/// What happens to jobs when a plan is carried out, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Accepted, and gone: their submits are damaged, or later records tell of them and nothing else does.
    pub gone: BTreeSet<JobId>,
    /// Ended, and their outcomes are gone: they will be processed again.
    pub again: BTreeSet<JobId>,
    /// Unsettled jobs that stay.
    pub unsettled: u64,
    /// Frames of which nothing can be said: each held anything from no job to thousands.
    pub frames_unknown: u64,
}

#[derive(Default)]
struct Seen {
    unsettled: HashSet<JobId>,
    /// Jobs that records tell of, without submit and without outcome so far.
    mentioned: HashSet<JobId>,
}

/// Reads what stays as the next start will, and compares it with what is lost.
pub(super) fn count<F: File>(plan: &Plan, survey: &Survey<F>) -> Result<Jobs, OpenError> {
    let mut seen = Seen::default();
    walk_as(survey, &mut seen, |found, last, seen| {
        let mending = plan.steps.iter().find_map(|step| match step {
            Step::Mend { name, pieces, .. } if *name == found.name => Some(pieces),
            _ => None,
        });
        match mending {
            Some(pieces) => read_mended(found, pieces, seen),
            None => walk_segment(found, last, seen),
        }
    })?;
    let lost = |wanted: LostKind| {
        let records = plan.findings.iter().flat_map(|finding| &finding.lost);
        records
            .filter(move |record| record.kind == wanted)
            .filter_map(|record| record.job)
    };
    let gone = lost(LostKind::Submit).filter(|id| !seen.unsettled.contains(id));
    let again = lost(LostKind::Outcome).filter(|id| seen.unsettled.contains(id));
    Ok(Jobs {
        gone: gone.chain(seen.mentioned.iter().copied()).collect(),
        again: again.collect(),
        unsettled: u64::try_from(seen.unsettled.len()).unwrap_or(u64::MAX),
        frames_unknown: plan.findings.iter().map(|finding| finding.frames_unknown).sum(),
    })
}

/// Reads a segment as its pieces will be.
fn read_mended<F: File>(found: &Found<F>, pieces: &[Piece], seen: &mut Seen) -> Result<Ending, OpenError> {
    let failed = |error| OpenError::io(&found.name, error);
    let mut reader = Reader::new(&*found.file).map_err(failed)?;
    let mut next_lsn = found.header.first_lsn;
    for piece in pieces {
        match piece {
            Piece::Keep { offset, bytes } => {
                let (mut at, end) = (*offset, offset + bytes);
                while at < end
                    && let Slot::Frame(frame) = reader.frame(at, found.header.epoch).map_err(failed)?
                {
                    show_records(found, &frame, at, seen)?;
                    at += frame.bytes;
                    next_lsn = frame.head.lsn + 1;
                }
            }
            Piece::Saved { lsn, records } => {
                for (_, bytes) in Records::new(records).flatten() {
                    if let Ok(record) = Record::decode(bytes) {
                        seen.take(&record);
                    }
                }
                next_lsn = lsn + 1;
            }
            Piece::Blank { first_lsn, count } => next_lsn = first_lsn + count,
            Piece::End { lsn } => next_lsn = lsn + 1,
        }
    }
    Ok(Ending {
        next_lsn,
        offset: 0,
        torn_to: 0,
        clean: true,
    })
}

impl Visitor for Seen {
    fn segment(&mut self, _: u32) {}

    fn frame(&mut self) {}

    fn record(&mut self, record: &Record<'_>, _: u64, _: usize) {
        self.take(record);
    }

    /// Where a missing segment will be filled in, LSNs do not join yet.
    fn damage(&mut self, _: Damage) -> Result<(), OpenError> {
        Ok(())
    }
}

impl Seen {
    fn take(&mut self, record: &Record<'_>) {
        match record {
            Record::Submit(submit) => drop(self.unsettled.insert(submit.id)),
            Record::Outcome(outcome) => self.ended(outcome.id),
            Record::Ended(ended) => self.ended(ended.id),
            Record::Dispatch(dispatch) => dispatch.jobs.iter().for_each(|id| self.mention(*id)),
            Record::Return(returned) => self.mention(returned.id),
            _ => {}
        }
    }

    fn ended(&mut self, id: JobId) {
        self.unsettled.remove(&id);
        self.mentioned.remove(&id);
    }

    fn mention(&mut self, id: JobId) {
        if !self.unsettled.contains(&id) {
            self.mentioned.insert(id);
        }
    }
}

//! What a damage means for jobs: which are gone, which will run again.

use std::collections::{BTreeSet, HashSet};

use super::scan::Piece;
use super::{LostKind, Plan, Step};
use crate::frame::{Reader, Slot};
use crate::ids::JobId;
use crate::record::{Record, Records};
use crate::recovery::{OpenError, Survey};
use crate::segment::FRAMES_AT;
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

/// Reads what stays, and compares it with what is lost.
pub(super) fn count<F: File>(plan: &Plan, survey: &Survey<F>) -> Result<Jobs, OpenError> {
    let mut seen = Seen::default();
    for found in survey.cold.iter().chain(&survey.chain) {
        let failed = |error| OpenError::io(&found.name, error);
        let mut reader = Reader::new(&*found.file).map_err(failed)?;
        let mending = plan.steps.iter().find_map(|step| match step {
            Step::Mend { name, pieces, .. } if *name == found.name => Some(pieces.as_slice()),
            _ => None,
        });
        let whole = [Piece::Keep {
            offset: FRAMES_AT,
            bytes: u64::MAX - FRAMES_AT,
        }];
        for piece in mending.unwrap_or(&whole) {
            match piece {
                Piece::Saved { records, .. } => seen.records(records),
                Piece::Keep { offset, bytes } => {
                    let (mut at, end) = (*offset, offset + bytes);
                    while at < end
                        && let Slot::Frame(frame) = reader.frame(at, found.header.epoch).map_err(failed)?
                    {
                        seen.records(frame.records);
                        at += frame.bytes;
                    }
                }
                Piece::Blank { .. } | Piece::End { .. } => {}
            }
        }
    }
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

impl Seen {
    fn records(&mut self, records: &[u8]) {
        for (_, bytes) in Records::new(records).flatten() {
            let Ok(record) = Record::decode(bytes) else {
                continue;
            };
            match record {
                Record::Submit(submit) => drop(self.unsettled.insert(submit.id)),
                Record::Outcome(outcome) => {
                    self.unsettled.remove(&outcome.id);
                    self.mentioned.remove(&outcome.id);
                }
                Record::Ended(ended) => drop(self.unsettled.remove(&ended.id)),
                Record::Dispatch(dispatch) => dispatch.jobs.iter().for_each(|id| self.mention(*id)),
                Record::Return(returned) => self.mention(returned.id),
                _ => {}
            }
        }
    }

    fn mention(&mut self, id: JobId) {
        if !self.unsettled.contains(&id) {
            self.mentioned.insert(id);
        }
    }
}

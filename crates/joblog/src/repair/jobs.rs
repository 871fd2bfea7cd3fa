//! What a damage means for jobs: which are gone, which will run again.

use std::collections::{BTreeSet, HashSet};

use super::image::Mended;
use super::{LostKind, LostRecord, Plan, RepairError};
use crate::ids::JobId;
use crate::record::Record;
use crate::recovery::{Damage, OpenError, Visitor, survey, walk};
use crate::storage::Storage;

/// What happens to jobs when a plan is carried out, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Accepted, and gone: their submits are damaged, or later records tell of them and nothing else does.
    pub gone: BTreeSet<JobId>,
    /// Those of them whose ids only damaged bytes say: a job is gone, but its id may be another.
    pub unsure: BTreeSet<JobId>,
    /// How many more are gone at most, of which nothing tells; `None` if nothing says how many.
    pub more_gone_max: Option<u64>,
    /// Ended, and their outcomes are gone: they will be processed again.
    pub again: BTreeSet<JobId>,
    /// Those of them whose ids only damaged bytes say: such a job will be processed again, but its id may be another.
    pub again_unsure: BTreeSet<JobId>,
    /// How many more will be at most, of which nothing tells.
    pub more_again_max: u64,
    /// Unsettled jobs that stay.
    pub unsettled: u64,
    /// Frames of which nothing can be said, or not of all that they held: anything from no job to thousands.
    pub frames_unknown: u64,
    /// Bytes of them in which no record can be told from another.
    pub unknown_bytes: u64,
}

#[derive(Default)]
struct Seen {
    unsettled: HashSet<JobId>,
    /// Jobs that records tell of, without submit and without outcome so far.
    mentioned: HashSet<JobId>,
    /// Jobs that damaged bytes name.
    lost: HashSet<JobId>,
    /// Those of them that a whole record tells of, too.
    confirmed: HashSet<JobId>,
}

/// Reads what stays as the next start will, and compares it with what is lost. `displaced`: jobs whose ends stay, where
/// they may not be found any more. What would be damage to a start is an error.
pub(super) fn count<S: Storage>(
    plan: &Plan,
    mended: &Mended<S>,
    displaced: &[JobId],
) -> Result<Jobs, RepairError> {
    let survey = survey(mended)?;
    if let Some(damage) = survey.damages.first() {
        return Err(OpenError::Damaged(damage.clone()).into());
    }
    let lost = |wanted: &'static [LostKind]| {
        let records = plan.findings.iter().flat_map(|finding| &finding.lost);
        records
            .filter(|record| wanted.contains(&record.kind))
            .filter_map(|record| record.job)
    };
    let records = plan.findings.iter().flat_map(|finding| &finding.lost);
    let mut seen = Seen {
        lost: records.filter_map(|record| record.job).collect(),
        ..Seen::default()
    };
    walk(&survey, &mut seen)?;
    let gone = lost(&[LostKind::Submit]).filter(|id| !seen.unsettled.contains(id));
    let comes_again = |id: &JobId| seen.unsettled.contains(id);
    let again_unsure: BTreeSet<JobId> = lost(&[LostKind::Outcome, LostKind::End])
        .filter(comes_again)
        .collect();
    let displaced: BTreeSet<JobId> = displaced.iter().copied().filter(comes_again).collect();
    let again: BTreeSet<JobId> = again_unsure.union(&displaced).copied().collect();
    let unsettled = u64::try_from(seen.unsettled.len()).unwrap_or(u64::MAX);
    let more_again_max =
        more_ends(plan, &again_unsure).min(unsettled - u64::try_from(again.len()).unwrap_or(0));
    let findings = plan.findings.iter();
    let frames_unknown = findings.clone().map(|finding| finding.frames_unknown).sum();
    let unknown_bytes = findings.clone().map(|finding| finding.unknown_bytes).sum();
    let mut more = findings.map(|finding| finding.more_submits_max);
    // A damaged record may be a submit that does not look like one, unless a whole record tells of its job.
    let nameless = plan.findings.iter().flat_map(|finding| &finding.lost);
    let nameless = nameless.filter(|record| match (record.kind, record.job) {
        (_, None) => record.may_submit,
        (LostKind::Submit, Some(_)) => false,
        (_, Some(id)) => !seen.confirmed.contains(&id),
    });
    let nameless = u64::try_from(nameless.count()).unwrap_or(u64::MAX);
    let more_gone_max = more.try_fold(nameless, |sum, more| Some(sum.saturating_add(more?)));
    // Else what tells of a job that is not there tells of one that ended, and was forgotten.
    let mut records = plan.findings.iter().flat_map(|finding| &finding.lost);
    let may_be_gone = frames_unknown > 0 || records.any(|record| record.may_submit);
    let mentioned = seen.mentioned.iter().copied().filter(|_| may_be_gone);
    let unsure = gone.clone().filter(|id| !seen.confirmed.contains(id));
    Ok(Jobs {
        unsure: unsure.collect(),
        more_gone_max,
        gone: gone.chain(mentioned).collect(),
        again_unsure: again_unsure.difference(&displaced).copied().collect(),
        again,
        more_again_max,
        unsettled,
        frames_unknown,
        unknown_bytes,
    })
}

/// How many ends of jobs can be among what is lost, beside those of `named`.
fn more_ends(plan: &Plan, named: &BTreeSet<JobId>) -> u64 {
    let names = |lost: &LostRecord| {
        let ends = matches!(lost.kind, LostKind::Outcome | LostKind::End);
        ends && lost.job.is_some_and(|id| named.contains(&id))
    };
    let records = plan.findings.iter().flat_map(|finding| &finding.lost);
    let nameless = records.filter(|lost| lost.may_end && !names(lost)).count();
    let unread = plan
        .findings
        .iter()
        .map(|finding| finding.more_ends_max.unwrap_or(u64::MAX));
    unread.fold(u64::try_from(nameless).unwrap_or(u64::MAX), u64::saturating_add)
}

impl Visitor for Seen {
    fn segment(&mut self, _: u32) {}

    fn frame(&mut self) {}

    fn record(&mut self, record: &Record<'_>, _: u64, _: usize) {
        match record {
            Record::Submit(submit) => {
                self.confirm(submit.id);
                self.unsettled.insert(submit.id);
            }
            Record::Outcome(outcome) => self.ended(outcome.id),
            Record::Ended(ended) => self.ended(ended.id),
            Record::Dispatch(dispatch) => dispatch.jobs.iter().for_each(|id| self.mention(*id)),
            Record::Return(returned) => self.mention(returned.id),
            Record::Tries(tries) => self.mention(tries.id),
            _ => {}
        }
    }

    fn damage(&mut self, damage: Damage) -> Result<(), OpenError> {
        Err(OpenError::Damaged(damage))
    }
}

impl Seen {
    fn ended(&mut self, id: JobId) {
        self.confirm(id);
        self.unsettled.remove(&id);
        self.mentioned.remove(&id);
    }

    fn confirm(&mut self, id: JobId) {
        if self.lost.contains(&id) {
            self.confirmed.insert(id);
        }
    }

    fn mention(&mut self, id: JobId) {
        self.confirm(id);
        if !self.unsettled.contains(&id) {
            self.mentioned.insert(id);
        }
    }
}

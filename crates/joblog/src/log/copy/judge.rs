//! What of a segment must be copied: record by record, as the index has it.

use super::{Run, What};
use crate::ids::JobId;
use crate::index::{Index, Kept, Place};
use crate::mutants::{Mutant, active};
use crate::record::{Dispatch, Record};
use crate::segment::Stream;
use crate::settings::Settings;

/// What of one record must be copied goes into the run's frames.
pub(super) fn judge_record<F>(
    index: &Index,
    settings: &Settings,
    run: &mut Run<F>,
    from: Place,
    bytes: &[u8],
) {
    // A record that was synced and does not decode is found by the next start; its segment's frames were valid.
    let Ok(record) = Record::decode(bytes) else { return };
    match &record {
        Record::Submit(submit) => {
            run.fold.submit(submit.id);
            match index.submit_to_copy(submit.id, from) {
                Kept::Whole => run.whole(What::Submit(submit.id), from, bytes),
                Kept::End(ended) => run.encoded(What::End(ended.id), from, &Record::Ended(ended)),
                Kept::Nothing => {}
            }
        }
        Record::Outcome(outcome) => match index.outcome_to_copy(outcome, from) {
            Kept::Whole => run.whole(What::Outcome(outcome.id), from, bytes),
            Kept::End(_) if active(Mutant::ForgetEnd) => {}
            Kept::End(ended) => run.encoded(What::Outcome(ended.id), from, &Record::Ended(ended)),
            Kept::Nothing => {}
        },
        Record::Ended(ended) => {
            if let Kept::End(ended) = index.end_to_copy(ended, from.slot) {
                run.encoded(What::End(ended.id), from, &Record::Ended(ended));
            }
        }
        Record::Setting(setting) => {
            if settings.is_live(setting, from.slot) {
                run.whole(What::Setting, from, bytes);
            }
        }
        Record::Copied(copied) => {
            if run.origin != copied.origin || run.out.is_empty() {
                run.origin = copied.origin;
                run.push_out();
            }
        }
        Record::Dispatch(_) | Record::Delivered(_) | Record::Return(_) | Record::Tries(_) => {
            judge_fact(index, run, &record, bytes);
        }
    }
}

fn judge_fact<F>(index: &Index, run: &mut Run<F>, record: &Record<'_>, bytes: &[u8]) {
    let hot = run.stream == Stream::Hot;
    match record {
        Record::Dispatch(dispatch) => {
            let unsettled = |id: &&JobId| index.is_unsettled(**id);
            let jobs: Vec<JobId> = dispatch.jobs.iter().filter(unsettled).copied().collect();
            run.seen.insert(dispatch.token);
            if hot {
                run.fold.dispatch(dispatch, jobs);
            } else if !jobs.is_empty() {
                let count = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
                let mut kept = Vec::new();
                Record::Dispatch(Dispatch {
                    jobs,
                    ..dispatch.clone()
                })
                .encode(&mut kept);
                run.fact(&kept, count);
            }
        }
        Record::Delivered(token) => {
            let seen = run.seen.contains(token);
            if hot {
                run.fold.delivered(*token, seen);
            } else if index.unsettled() > 0 {
                run.fact(bytes, 1);
            }
        }
        Record::Return(returned) if index.is_unsettled(returned.id) => {
            if hot {
                run.fold.returned(returned);
            } else {
                run.fact(bytes, 1);
            }
        }
        Record::Tries(tries) if index.is_unsettled(tries.id) => run.fact(bytes, 1),
        _ => {}
    }
}

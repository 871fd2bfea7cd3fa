//! Goes through the segments, and writes down what is to be done about each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::cold::{self, Around};
use super::headers::{Mended, NO_FRAME};
use super::origin::Loose;
use super::scan::{self, Piece, Wound};
use super::{Finding, MISSING_FRAMES_MAX, Plan, RepairError, Step};
use crate::frame::{self, Reader};
use crate::recovery::{Found, OpenError, Survey, cold_damages};
use crate::segment::{FRAMES_AT, Header, Stream, damaged_name, segment_name};
use crate::storage::File;

pub(super) struct Planner<'r> {
    plan: Plan,
    /// Names in the directory, and those that the plan adds.
    names: BTreeSet<String>,
    random: &'r mut dyn FnMut() -> u64,
    /// Frames whose place is not known, with the numbers of their steps.
    loose: Vec<(usize, Loose)>,
}

impl<'r> Planner<'r> {
    pub(super) fn new(names: &[String], random: &'r mut dyn FnMut() -> u64) -> Self {
        Self {
            plan: Plan::default(),
            names: names.iter().cloned().collect(),
            random,
            loose: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Plan, Vec<(usize, Loose)>) {
        (self.plan, self.loose)
    }

    /// Segments with a header that cannot be used, and that are not part of the log.
    pub(super) fn headers<F>(&mut self, mended: &BTreeMap<u64, Mended>, survey: &Survey<F>) {
        for (number, verdict) in mended {
            let name = segment_name(*number);
            let mut read = survey.chain.iter().chain(&survey.cold);
            let what = match verdict {
                Mended::Aside(why) => why,
                Mended::Header { .. } if read.any(|found| found.name == name) => continue,
                Mended::Header { .. } => "its header is damaged, and another segment stands for it",
            };
            let kept = self.keeper(*number, 0);
            self.plan.findings.push(Finding {
                file: name.clone(),
                offset: 0,
                bytes: 0,
                what: what.to_owned(),
                kept: Some(kept.clone()),
                saved: 0,
                lost: Vec::new(),
                frames_unknown: u64::from(*verdict == Mended::Aside(NO_FRAME)),
                unknown_bytes: 0,
                more_submits_max: (*verdict != Mended::Aside(NO_FRAME)).then_some(0),
                more_ends_max: (*verdict != Mended::Aside(NO_FRAME)).then_some(0),
            });
            self.plan.steps.push(Step::Aside { name, kept });
        }
    }

    /// The log, segment by segment. The number of one that is a copy, and would not be seen to be a whole one any
    /// more: then its original counts.
    pub(super) fn chain<F: File>(
        &mut self,
        mended: &BTreeMap<u64, Mended>,
        survey: &Survey<F>,
    ) -> Result<Option<u64>, RepairError> {
        let mut end: Option<(u64, Header)> = None;
        for (index, found) in survey.chain.iter().enumerate() {
            let mut header = found.header;
            let verdict = mended.get(&header.number);
            if let Some((next_lsn, before)) = end {
                if let Some(Mended::Header {
                    from_the_start: false,
                    ..
                }) = verdict
                    && next_lsn < header.first_lsn
                {
                    header.first_lsn = next_lsn;
                }
                self.join(next_lsn, &before, &header, survey)?;
            }
            let ends_before = survey.chain.get(index + 1).map(|next| next.header.first_lsn);
            let scan = scan::scan(&found.name, &*found.file, &header, ends_before)?;
            let last = ends_before.is_none();
            if !last && !scan.sealed {
                return Err(RepairError::Stuck {
                    file: found.name.clone(),
                    what: "it has no end frame, and no room for one".to_owned(),
                });
            }
            end = Some((scan.next_lsn, header));
            if verdict.is_some() || !scan.wounds.is_empty() {
                let original = segment_name(header.replaces);
                let replaced = survey.leftovers.iter().any(|left| left.name == original);
                if last && replaced && !scan.is_whole_copy(found)? {
                    return Ok(Some(header.number));
                }
                self.mend(&found.name, header, verdict.is_none(), scan.pieces, scan.wounds);
            }
        }
        Ok(None)
    }

    /// The segments of copies. The number of a segment that is there although its copy counts.
    pub(super) fn cold<F: File>(
        &mut self,
        mended: &BTreeMap<u64, Mended>,
        survey: &Survey<F>,
    ) -> Result<Option<u64>, RepairError> {
        let damages = cold_damages(survey)?;
        let there = survey.numbers();
        let mut next_lsn = 1;
        for (index, found) in survey.cold.iter().enumerate() {
            let verdict = mended.get(&found.header.number);
            let ends_before = survey.cold.get(index + 1).map(|next| next.header.first_lsn);
            let damage = damages.iter().find(|damage| damage.file == found.name);
            if verdict.is_none() && damage.is_none() {
                // What ends it stands before the next one; of the last one nobody asks.
                next_lsn = ends_before.unwrap_or(next_lsn);
                continue;
            }
            let mut around = Around {
                header: found.header,
                frames_at: FRAMES_AT,
                ends_before,
                there: &there,
            };
            if let Some(Mended::Header {
                from_the_start: false,
                ..
            }) = verdict
            {
                (around.header.first_lsn, around.frames_at) =
                    first_lsn(found, next_lsn).map_err(|error| OpenError::io(&found.name, error))?;
            }
            let header = around.header;
            let scan = cold::scan(found, &around)?;
            next_lsn = ends_before.unwrap_or(next_lsn);
            let tail = survey.chain.last().map(|last| last.header.number);
            if let Some(source) = scan.stray.filter(|source| Some(*source) != tail) {
                return Ok(Some(source));
            }
            if verdict.is_some() || !scan.wounds.is_empty() {
                let step = self.plan.steps.len();
                self.loose
                    .extend(scan.loose.into_iter().map(|loose| (step, loose)));
                self.mend(&found.name, header, verdict.is_none(), scan.pieces, scan.wounds);
            } else if let Some(damage) = damage {
                return Err(RepairError::Stuck {
                    file: damage.file.clone(),
                    what: format!(
                        "at byte {}, {}, though no byte of it is damaged; a file that is not of this log may have \
                         come into the directory: move it out, and repair again",
                        damage.offset, damage.what
                    ),
                });
            }
        }
        Ok(None)
    }

    /// The end of one segment and the start of the next: LSNs have no gap.
    fn join<F>(
        &mut self,
        next_lsn: u64,
        before: &Header,
        after: &Header,
        survey: &Survey<F>,
    ) -> Result<(), RepairError> {
        let name = segment_name(after.number);
        let stuck = |what: String| RepairError::Stuck {
            file: name.clone(),
            what,
        };
        // Where there are copies any hot segment may be gone.
        let gap = after.first_lsn > next_lsn && !survey.cold.is_empty();
        if after.first_lsn == next_lsn || gap {
            return Ok(());
        }
        let missing = after.first_lsn.checked_sub(next_lsn).ok_or_else(|| {
            stuck(format!(
                "it starts with LSN {}, which is in the segment before it",
                after.first_lsn
            ))
        })?;
        let taken: Vec<&str> = survey.leftovers.iter().map(|left| left.name.as_str()).collect();
        let number = (before.number + 1..after.number)
            .find(|number| !taken.contains(&segment_name(*number).as_str()))
            .ok_or_else(|| stuck(format!("{missing} frames before it are missing")))?;
        let missing_name = segment_name(number);
        self.plan.findings.push(Finding {
            file: missing_name,
            offset: 0,
            bytes: 0,
            what: format!(
                "it is missing, and with it {missing} frames, {next_lsn} to {}",
                after.first_lsn - 1
            ),
            kept: None,
            saved: 0,
            lost: Vec::new(),
            // The last of them ended the segment.
            frames_unknown: missing - 1,
            unknown_bytes: 0,
            more_submits_max: (missing == 1).then_some(0),
            more_ends_max: (missing == 1).then_some(0),
        });
        self.fill(number, before, next_lsn..after.first_lsn);
        Ok(())
    }

    /// A segment without records takes the place of one that is missing, with these LSNs.
    fn fill(&mut self, number: u64, before: &Header, missing: Range<u64>) {
        let mut header = Header {
            number,
            epoch: (self.random)(),
            first_lsn: missing.start,
            replaces: 0,
            ..*before
        };
        let lsn = missing.end - 1;
        let (first_lsn, count) = (missing.start, lsn - missing.start);
        let mut pieces = vec![Piece::Blank { first_lsn, count }, Piece::End { lsn }];
        if count >= MISSING_FRAMES_MAX {
            // More are not stood for one by one: where there is a segment of copies, though empty, any may be gone.
            (header.stream, header.first_lsn) = (Stream::Cold, 1);
            pieces = vec![Piece::End { lsn: 1 }];
        }
        let name = segment_name(number);
        self.plan.steps.push(Step::Fill {
            name,
            number,
            header,
            pieces,
        });
    }

    fn mend(
        &mut self,
        name: &str,
        header: Header,
        header_kept: bool,
        pieces: Vec<Piece>,
        wounds: Vec<Wound>,
    ) {
        let mut kept = Vec::new();
        if !header_kept {
            let wound = Wound {
                offset: 0,
                bytes: FRAMES_AT,
                what: "its header is damaged".to_owned(),
                ..Wound::default()
            };
            self.wound(name, header.number, wound, &mut kept);
        }
        for wound in wounds {
            self.wound(name, header.number, wound, &mut kept);
        }
        self.plan.steps.push(Step::Mend {
            name: name.to_owned(),
            number: header.number,
            header,
            header_kept,
            pieces,
            kept,
        });
    }

    /// The name of a file for damaged bytes; an earlier repair may have taken the first.
    fn keeper(&mut self, number: u64, offset: u64) -> String {
        let first = damaged_name(number, offset);
        let others = (2_u32..).map(|again| format!("{first}-{again}"));
        let free = std::iter::once(first.clone())
            .chain(others)
            .find(|name| !self.names.contains(name));
        let name = free.expect("a directory has fewer than 2^32 files");
        self.names.insert(name.clone());
        name
    }

    fn wound(&mut self, name: &str, number: u64, wound: Wound, kept: &mut Vec<(u64, u64, String)>) {
        let keeper = (wound.bytes > 0).then(|| self.keeper(number, wound.offset));
        if let Some(keeper) = &keeper {
            kept.push((wound.offset, wound.bytes, keeper.clone()));
        }
        self.plan.findings.push(Finding {
            file: name.to_owned(),
            offset: wound.offset,
            bytes: wound.bytes,
            unknown_bytes: wound.unknown_bytes,
            more_submits_max: wound.more_submits_max(),
            more_ends_max: wound.more_ends_max(),
            what: wound.what,
            kept: keeper,
            saved: wound.saved,
            lost: wound.lost,
            frames_unknown: wound.frames_unknown,
        });
    }
}

/// The first LSN of a cold segment whose header and first frames are damaged, and where its frames begin: there are LSNs
/// left for what is damaged, unless those before it were `next_lsn`.
fn first_lsn<F: File>(found: &Found<F>, next_lsn: u64) -> std::io::Result<(u64, u64)> {
    let Header { epoch, first_lsn, .. } = found.header;
    let mut reader = Reader::new(&*found.file)?;
    let claimed = reader
        .bytes(FRAMES_AT, 40)?
        .and_then(|head| frame::claimed_lsn(head, epoch));
    let may_be = |lsn: &u64| (next_lsn..first_lsn).contains(lsn) && first_lsn - lsn < MISSING_FRAMES_MAX;
    if let Some(lsn) = claimed.or(first_lsn.checked_sub(1)).filter(may_be) {
        return Ok((lsn, FRAMES_AT));
    }
    let first = reader.find_frame(FRAMES_AT, epoch, |head| head.lsn == first_lsn)?;
    Ok((first_lsn, first.map_or(FRAMES_AT, |(at, _)| at)))
}

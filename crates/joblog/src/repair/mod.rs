//! Makes a damaged log one that opens, and loses nothing that can be read.
//!
//! [`plan`] reads everything, changes nothing, and says what is damaged and what is lost with it. [`Plan::carry_out`]
//! writes the mended segments beside the damaged ones, keeps every damaged byte in a `damaged-...` file, syncs all
//! of it, and only then lets each mended segment take the name of the damaged one. So it can be cut off at any
//! moment and begun again. LSNs stay what they were: an empty frame stands for each one that is lost.
//!
//! Whoever carries out must hold the directory's lock. Damage to what only a newer jitney can read is not touched.

mod apply;
mod headers;
mod jobs;
mod salvage;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::{error, fmt, io};

pub use jobs::Jobs;
pub use salvage::{LostKind, LostRecord};

use crate::recovery::{OpenError, Survey, survey_as};
use crate::segment::{Header, State, damaged_name};
use crate::storage::Storage;
use headers::Mended;
use scan::{Piece, Scan, Wound};

/// All that a repair would do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every damage, in the order of the log. None: there is nothing to repair.
    pub findings: Vec<Finding>,
    /// What happens to jobs.
    pub jobs: Jobs,
    steps: Vec<Step>,
}

/// One damage, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The segment's file.
    pub file: String,
    /// Where the damaged bytes start.
    pub offset: u64,
    /// How many they are; 0 where they are missing.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
    /// The file that will keep the damaged bytes; `None` where there are none.
    pub kept: Option<String>,
    /// Records in damaged frames that are whole, and stay.
    pub saved: u64,
    /// Records that cannot be saved, as far as their bytes say.
    pub lost: Vec<LostRecord>,
    /// Frames of which nothing can be said; each may have held many records.
    pub frames_unknown: u64,
}

/// Why there is no repair.
#[derive(Debug)]
pub enum RepairError {
    /// The directory cannot be read, or is of a newer format.
    Read(OpenError),
    /// What is damaged does not fit together in any way that is known. Nothing was changed.
    Stuck {
        /// The segment's file.
        file: String,
        /// What does not fit.
        what: String,
    },
    /// The medium failed while the plan was carried out. Segments that were not mended are as they were; doing it
    /// again is safe.
    Write {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A change to the directory.
#[derive(Clone, Debug)]
enum Step {
    /// The segment gets these bytes.
    Mend {
        name: String,
        number: u64,
        header: Header,
        /// Its header is written as it was read, with all that it may say beyond what is known here.
        header_kept: bool,
        pieces: Vec<Piece>,
        /// Damaged bytes: where, how many, and the file that keeps them.
        kept: Vec<(u64, u64, String)>,
    },
    /// A segment that stands for one that is missing.
    Fill {
        name: String,
        number: u64,
        header: Header,
        pieces: Vec<Piece>,
    },
    /// The whole file gets the name of one that keeps damaged bytes.
    Aside { name: String, kept: String },
}

/// More frames than this are not stood for one by one.
const MISSING_FRAMES_MAX: u64 = 10_000_000;

/// Reads a directory and says what a repair would do; changes nothing.
///
/// `random` must never repeat itself: it names what cannot be read back.
///
/// # Errors
/// [`RepairError`]; trying again is safe.
pub fn plan<S: Storage>(storage: &S, random: &mut dyn FnMut() -> u64) -> Result<Plan, RepairError> {
    let names = storage
        .list()
        .map_err(|error| OpenError::io("the directory", error))?;
    let mut mended = headers::mend(storage, random)?;
    let (mut plan, survey) = loop {
        let survey = survey_as(storage, |number, state| match mended.get(&number) {
            Some(Mended::Header { header, .. }) => Some(State::Begun(*header)),
            Some(Mended::Aside(_)) => None,
            None => Some(state),
        })?;
        let mut planner = Planner {
            plan: Plan::default(),
            names: names.iter().cloned().collect(),
            random: &mut *random,
        };
        cold_is_whole(&mended, &survey)?;
        planner.headers(&mended, &survey);
        let Some(number) = planner.chain(&mended, &survey)? else {
            break (planner.plan, survey);
        };
        // Each time there is one segment less.
        mended.insert(number, Mended::Aside("it is a copy of which too little is left"));
    };
    if !plan.findings.is_empty() {
        plan.jobs = jobs::count(&plan, &survey)?;
        plan.findings
            .sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    }
    Ok(plan)
}

/// Copies are not mended: what is left of a cold segment says too little of what is gone.
fn cold_is_whole<F: crate::storage::File>(
    mended: &BTreeMap<u64, Mended>,
    survey: &Survey<F>,
) -> Result<(), RepairError> {
    let stuck = |found: &crate::recovery::Found<F>, what: String| {
        let file = found.name.clone();
        Err(RepairError::Stuck { file, what })
    };
    for found in &survey.cold {
        if mended.contains_key(&found.header.number) {
            return stuck(
                found,
                "its header is damaged, and it holds copies, which are not mended".to_owned(),
            );
        }
    }
    match crate::recovery::check_cold(survey) {
        Err(OpenError::Damaged(damage)) => Err(RepairError::Stuck {
            file: damage.file,
            what: format!(
                "at byte {}, {}; copies are not mended",
                damage.offset, damage.what
            ),
        }),
        other => other.map_err(RepairError::Read),
    }
}

struct Planner<'r> {
    plan: Plan,
    /// Names in the directory, and those that the plan adds.
    names: BTreeSet<String>,
    random: &'r mut dyn FnMut() -> u64,
}

impl Planner<'_> {
    /// Segments with a header that cannot be used, and that are not part of the log.
    fn headers<F>(&mut self, mended: &BTreeMap<u64, Mended>, survey: &Survey<F>) {
        for (number, verdict) in mended {
            let name = crate::segment::segment_name(*number);
            let what = match verdict {
                Mended::Aside(why) => why,
                Mended::Header { .. } if survey.chain.iter().any(|found| found.name == name) => continue,
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
                frames_unknown: 0,
            });
            self.plan.steps.push(Step::Aside { name, kept });
        }
    }

    /// The log, segment by segment. The number of one that is a copy, and would not be seen to be a whole one any
    /// more: then its original counts.
    fn chain<F: crate::storage::File>(
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
                let original = crate::segment::segment_name(header.replaces);
                let replaced = survey.leftovers.iter().any(|left| left.name == original);
                if last && replaced && !scan.is_whole_copy(found)? {
                    return Ok(Some(header.number));
                }
                self.mend(&found.name, header, verdict.is_none(), scan);
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
        let name = crate::segment::segment_name(after.number);
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
        if missing > MISSING_FRAMES_MAX {
            return Err(stuck(format!("{missing} frames before it are missing")));
        }
        let taken: Vec<&str> = survey.leftovers.iter().map(|left| left.name.as_str()).collect();
        let number = (before.number + 1..after.number)
            .find(|number| !taken.contains(&crate::segment::segment_name(*number).as_str()))
            .ok_or_else(|| stuck(format!("{missing} frames before it are missing")))?;
        let missing_name = crate::segment::segment_name(number);
        self.plan.findings.push(Finding {
            file: missing_name.clone(),
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
        });
        let header = Header {
            number,
            epoch: (self.random)(),
            first_lsn: next_lsn,
            replaces: 0,
            ..*before
        };
        self.plan.steps.push(Step::Fill {
            name: missing_name,
            number,
            header,
            pieces: vec![
                Piece::Blank {
                    first_lsn: next_lsn,
                    count: missing - 1,
                },
                Piece::End {
                    lsn: after.first_lsn - 1,
                },
            ],
        });
        Ok(())
    }

    fn mend(&mut self, name: &str, header: Header, header_kept: bool, scan: Scan) {
        let mut kept = Vec::new();
        if !header_kept {
            let wound = Wound {
                offset: 0,
                bytes: crate::segment::FRAMES_AT,
                what: "its header is damaged".to_owned(),
                frames_unknown: 0,
                saved: 0,
                lost: Vec::new(),
            };
            self.wound(name, header.number, wound, &mut kept);
        }
        for wound in scan.wounds {
            self.wound(name, header.number, wound, &mut kept);
        }
        self.plan.steps.push(Step::Mend {
            name: name.to_owned(),
            number: header.number,
            header,
            header_kept,
            pieces: scan.pieces,
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
            what: wound.what,
            kept: keeper,
            saved: wound.saved,
            lost: wound.lost,
            frames_unknown: wound.frames_unknown,
        });
    }
}

impl Plan {
    /// Whether there is nothing to repair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Repairs. Afterwards the log opens, with everything that the plan did not say is lost.
    ///
    /// # Errors
    /// [`RepairError::Write`]; what is mended by then is mended whole, the rest is as it was.
    pub fn carry_out<S: Storage>(&self, storage: &S) -> Result<(), RepairError> {
        apply::carry_out(storage, &self.steps)
    }
}

impl From<OpenError> for RepairError {
    fn from(error: OpenError) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Stuck { file, what } => write!(f, "`{file}` cannot be repaired: {what}"),
            Self::Write { file, source } => write!(f, "cannot write `{file}`: {source}"),
        }
    }
}

impl error::Error for RepairError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Write { source, .. } => Some(source),
            Self::Stuck { .. } => None,
        }
    }
}

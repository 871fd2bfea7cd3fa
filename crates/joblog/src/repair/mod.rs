//! Makes a damaged log one that opens, and loses nothing that can be read.
//!
//! [`plan`] reads everything, changes nothing, and says what is damaged and what is lost with it. [`Plan::carry_out`]
//! writes the mended segments beside the damaged ones, keeps every damaged byte in a `damaged-...` file, syncs all
//! of it, and only then lets each mended segment take the name of the damaged one. So it can be cut off at any
//! moment and begun again. LSNs stay what they were: an empty frame stands for each one that is lost.
//!
//! Whoever carries out must hold the directory's lock. Damage to what only a newer jitney can read is not touched.

mod apply;
mod closing;
mod cold;
mod headers;
mod image;
mod jobs;
mod origin;
mod planner;
mod salvage;
mod scan;

use std::{error, fmt, io};

pub use jobs::Jobs;
pub use salvage::{LostKind, LostRecord};

use crate::recovery::{OpenError, survey_as};
use crate::segment::{Header, State};
use crate::storage::Storage;
use headers::Mended;
use planner::Planner;
use scan::Piece;

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
    /// Frames of which nothing can be said, or not of all that they held; each may have held many records.
    pub frames_unknown: u64,
    /// Bytes in which no record can be told from another. What is missing has none.
    pub unknown_bytes: u64,
    /// Submits that can be lost beside those in `lost`, at most; `None` if nothing says how many.
    pub more_submits_max: Option<u64>,
    /// The same of outcomes, and of ends.
    pub more_ends_max: Option<u64>,
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

/// More frames than this are not stood for one by one: a segment of 64 MiB holds no more.
const MISSING_FRAMES_MAX: u64 = 2_000_000;

/// Why a segment is put aside that was there beside its copy.
const COPIED: &str = "a copy of it counts, and proves that it was gone";

/// Reads a directory and says what a repair would do; changes nothing.
///
/// `random` must never repeat itself: it names what cannot be read back.
///
/// # Errors
/// [`RepairError`]; trying again is safe.
pub fn plan<S: Storage>(storage: &S, random: &mut dyn FnMut() -> u64) -> Result<Plan, RepairError> {
    let failed = |error| OpenError::io("the directory", error);
    let names = storage.list().map_err(failed)?;
    let mut mended = headers::mend(storage, random)?;
    let (mut plan, loose) = loop {
        let survey = survey_as(storage, |number, state| match mended.get(&number) {
            Some(Mended::Header { header, .. }) => Some(State::Begun(*header)),
            Some(Mended::Aside(_)) => None,
            None => Some(state),
        })?;
        let mut planner = Planner::new(&names, random);
        planner.headers(&mended, &survey);
        let aside = planner
            .chain(&mended, &survey)?
            .map(|number| (number, "it is a copy of which too little is left"));
        let aside = match aside {
            None => planner.cold(&mended, &survey)?.map(|number| (number, COPIED)),
            aside => aside,
        };
        let Some((number, why)) = aside else {
            break planner.finish();
        };
        // Each time there is one segment less.
        mended.insert(number, Mended::Aside(why));
    };
    if !plan.findings.is_empty() {
        let displaced = origin::settle(storage, &mut plan.steps, loose).map_err(not_mended)?;
        let after = image::Mended::new(storage, &plan.steps).map_err(failed)?;
        plan.jobs = jobs::count(&plan, &after, &displaced).map_err(not_mended)?;
        plan.findings
            .sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    }
    Ok(plan)
}

/// What would still be damaged is said before anything is changed.
fn not_mended(error: RepairError) -> RepairError {
    match error {
        RepairError::Read(OpenError::Damaged(damage)) => RepairError::Stuck {
            file: damage.file,
            what: format!(
                "at byte {}, {}, and no repair of that is known",
                damage.offset, damage.what
            ),
        },
        other => other,
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

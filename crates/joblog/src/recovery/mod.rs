//! From files to a log: what is there, where it ends, and a new segment to go on in.
//!
//! In: a directory in whatever state a crash left it. Out: index, jobs, leases, and a tail that can be written to;
//! or an error that names file and offset. Nothing acknowledged is dropped: a tail is cut only where
//! docs/log_format.md section 6 finds nothing that shows that it was synced.

mod begin;
mod cold;
mod survey;
mod walk;

use std::{error, fmt, io};

use crate::index::{Index, Place, Submitted};
use crate::log::{Identity, Lsn, Options, RandomSource, Segments, Spares, Tail, age_ms};
use crate::record::Record;
use crate::replay::{Drain, Replay};
use crate::settings::Settings;
use crate::storage::Storage;
use crate::time::Now;

pub(crate) use survey::{Found, Survey, survey, survey_as};
pub(crate) use walk::{Ending, Visitor, walk};

/// What a start found, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// This boot's epoch: 1 at the first start.
    pub boot: u32,
    /// Whether the last stop was clean.
    pub clean: bool,
    /// A torn tail that was cut.
    pub cut: Option<Cut>,
    /// Frames that were read.
    pub frames: u64,
    /// Records that were read.
    pub records: u64,
    /// Unsettled jobs.
    pub unsettled: u64,
    /// Finished jobs whose results are kept.
    pub results: u64,
    /// Outcomes of jobs that were not there, or had one already. The first wins.
    pub outcomes_ignored: u64,
    /// Submits of jobs that were there already.
    pub submits_ignored: u64,
    /// The highest sequence of any submit so far.
    pub last_sequence: u64,
}

/// A torn tail: frames that were being written when the power went. Nothing shows that any of them was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: String,
    /// Where the first torn frame started.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// The file that keeps them; `None` if there was no room for it.
    pub kept: Option<String>,
}

/// Damage: bytes that were synced are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// Why a log does not open.
#[derive(Debug)]
pub enum OpenError {
    /// The medium failed. Trying again is safe.
    Io {
        /// The file, or what was being done.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Acknowledged data is damaged. A person must decide; nothing was changed.
    Damaged(Damage),
    /// A newer jitney wrote this directory. Use that one.
    Newer {
        /// The file.
        file: String,
        /// What is new.
        what: String,
    },
    /// The options contradict one another.
    Options(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is damaged at byte {}: {}",
            self.file, self.offset, self.what
        )
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, source } => write!(f, "cannot open the log: `{file}`: {source}"),
            Self::Damaged(damage) => write!(f, "{damage}; `jitney log verify --data DIR` shows all of it"),
            Self::Newer { file, what } => write!(f, "`{file}` is of a newer format: {what}"),
            Self::Options(what) => f.write_str(what),
        }
    }
}

impl error::Error for OpenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl OpenError {
    pub(crate) fn io(file: &str, source: io::Error) -> Self {
        Self::Io {
            file: file.to_owned(),
            source,
        }
    }
}

impl Report {
    /// Takes over what the index counted.
    fn count(&mut self, index: &Index) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.unsettled = count(index.unsettled());
        self.results = count(index.results());
        self.outcomes_ignored = index.counts().outcomes_ignored;
        self.submits_ignored = index.counts().submits_ignored;
    }
}

/// Looks for damage in the cold segments.
pub(crate) fn cold_damages<F: crate::storage::File>(survey: &Survey<F>) -> Result<Vec<Damage>, OpenError> {
    struct Damages(Vec<Damage>);
    impl Visitor for Damages {
        fn segment(&mut self, _: u32) {}
        fn frame(&mut self) {}
        fn record(&mut self, _: &Record<'_>, _: u64, _: usize) {}
        fn damage(&mut self, damage: Damage) -> Result<(), OpenError> {
            self.0.push(damage);
            Ok(())
        }
    }
    let mut found = Damages(Vec::new());
    for frame in cold::read(&survey.cold, &survey.numbers(), &mut found)?.frames {
        cold::visit(&survey.cold[frame.segment], &frame, &mut found)?;
    }
    Ok(found.0)
}

/// Everything that a log starts with.
pub(crate) struct Start<S: Storage> {
    pub(crate) identity: Identity,
    pub(crate) segments: Segments<S::File>,
    pub(crate) tail: Tail,
    pub(crate) lsn: Lsn,
    /// The LSN of the next cold frame.
    pub(crate) cold_lsn: u64,
    pub(crate) spares: Spares<S::File>,
    pub(crate) index: Index,
    pub(crate) settings: Settings,
    pub(crate) drain: Drain,
    pub(crate) report: Report,
}

/// Recovers a directory and begins a new segment in it.
pub(crate) fn start<S: Storage>(
    storage: &S,
    options: &Options,
    random: &mut RandomSource,
    now: Now,
) -> Result<Start<S>, OpenError> {
    let survey = survey(storage)?;
    if let Some(damage) = survey.damages.first() {
        return Err(OpenError::Damaged(damage.clone()));
    }
    let hot = walk::cold_slots(&survey.chain);
    let mut visitor = Rebuild::new(options, random(), (hot, survey.cold.len()), now);
    let (ending, copies) = walk(&survey, &mut visitor)?;
    visitor.index.started();
    let Rebuild {
        mut index,
        slots,
        settings,
        replay,
        mut report,
        ..
    } = visitor;
    let headers = survey.chain.iter().chain(&survey.cold);
    let earlier = headers.map(|found| found.header.sequence).max();
    let last_sequence = replay.last_sequence().max(earlier.unwrap_or(0));
    let started = begin::begin(
        storage,
        options,
        random,
        survey,
        (&ending, &copies),
        last_sequence,
    )?;
    let begin::Begun {
        identity,
        segments,
        tail,
        next_lsn,
        spares,
        cut,
    } = started;
    // A cold segment that was free is not there any more.
    for _ in segments.next_slot()..slots {
        index.live.drop_last_segment();
    }
    report.boot = identity.boot;
    report.clean = ending.clean;
    report.cut = cut;
    report.last_sequence = last_sequence;
    report.count(&index);
    Ok(Start {
        drain: replay.finish(&index),
        identity,
        segments,
        tail,
        // Every record has a witness: the copy frame, or the header, which is younger than its predecessor's end.
        lsn: Lsn {
            next: next_lsn,
            durable: next_lsn - 1,
            witnessed: next_lsn - 1,
            last_records: 0,
            last_frame_at: now.mono,
        },
        cold_lsn: copies.next_lsn,
        spares,
        index,
        settings,
        report,
    })
}

/// Takes every record in, in order.
struct Rebuild {
    index: Index,
    settings: Settings,
    replay: Replay,
    report: Report,
    slot: u32,
    /// The slot of the first cold segment.
    cold_from: u32,
    /// How many slots there are.
    slots: u32,
    now: Now,
}

impl Rebuild {
    fn new(options: &Options, seed: u64, (hot, cold): (usize, usize), now: Now) -> Self {
        let mut index = Index::new(options, seed);
        for _ in 0..hot + cold {
            index.live.add_segment();
        }
        let count = |count: usize| u32::try_from(count).expect("segments are counted in 32 bits");
        Self {
            index,
            settings: Settings::default(),
            replay: Replay::new(seed),
            report: Report::default(),
            slot: 0,
            cold_from: count(hot),
            slots: count(hot + cold),
            now,
        }
    }
}

impl Rebuild {
    /// Copies of dispatches and returns are live until somebody finds otherwise.
    fn count_facts(&mut self, record: &Record<'_>, place: Place) {
        let jobs = match record {
            _ if self.slot < self.cold_from => return,
            Record::Dispatch(dispatch) => dispatch.jobs.len(),
            Record::Delivered(_) | Record::Return(_) | Record::Tries(_) => 1,
            _ => return,
        };
        let jobs = u64::try_from(jobs).unwrap_or(u64::MAX);
        self.index
            .live
            .facts_copied(place.slot, u64::from(place.bytes), jobs);
    }
}

impl Visitor for Rebuild {
    fn segment(&mut self, slot: u32) {
        self.slot = slot;
    }

    fn frame(&mut self) {
        self.report.frames += 1;
    }

    fn record(&mut self, record: &Record<'_>, offset: u64, bytes: usize) {
        self.report.records += 1;
        let place = Place {
            slot: self.slot,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        self.count_facts(record, place);
        match record {
            Record::Submit(submit) => {
                if self.index.submit(submit, place, self.replay.next_seat()) == Submitted::New {
                    self.replay.submit(submit);
                }
            }
            Record::Outcome(outcome) => {
                let age = age_ms(outcome.finished, self.now);
                if let Some(taken) = self.index.outcome(&outcome.into(), place, age, self.now) {
                    if taken.dead.is_some()
                        && let Some((processor, priority)) = self.replay.lane(taken.seat)
                    {
                        self.index.died(outcome.id, processor, priority);
                    }
                    self.replay.settled(taken.seat);
                }
            }
            Record::Dispatch(dispatch) => self.replay.dispatch(dispatch, &self.index),
            Record::Delivered(token) => self.replay.delivered(*token),
            Record::Return(returned) => self.replay.returned(returned, &self.index, self.now.wall),
            Record::Setting(setting) => {
                self.settings.apply(setting, place.slot, &mut self.index.live);
            }
            Record::Ended(ended) => {
                let age = age_ms(ended.finished, self.now);
                if let Some(seat) = self.index.ended(ended, place, age, self.now) {
                    self.replay.settled(seat);
                }
            }
            Record::Tries(tries) => self.replay.tries(tries, &self.index, self.now.wall),
            Record::Copied(_) => {}
        }
    }

    fn damage(&mut self, damage: Damage) -> Result<(), OpenError> {
        Err(OpenError::Damaged(damage))
    }
}

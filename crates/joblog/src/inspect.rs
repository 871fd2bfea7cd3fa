//! Shows what is in a directory, whatever state it is in: segments, frames, records.
//!
//! In: files, opened by name and read once. Out: what stands in them, in order. Nothing is judged (that is
//! [`crate::verify`]) and nothing is changed; it works beside a process that writes, whose last frames may be seen
//! half. A file that goes while it is looked for is passed over.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::frame::{Kind, Reader, Slot};
use crate::ids::JobId;
use crate::record::{DecodeError, Record, Records};
use crate::recovery::{OpenError, survey};
use crate::segment::{self, FRAMES_AT, Header, Name, Stream};
use crate::storage::{File, Storage};

/// A file with a segment's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The file.
    pub name: String,
    /// The number in its name.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub state: State,
    /// What its header says, if it can be read.
    pub header: Option<Fields>,
    /// What its frames hold; empty until they are read.
    pub content: Content,
}

/// What a file with a segment's name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Part of the log.
    InUse,
    /// Another segment stands for it; the next start frees it.
    Replaced,
    /// Free: no frame was ever written under its name.
    NotBegun,
    /// Its header is damaged.
    Damaged(String),
    /// Of a newer format.
    Newer(u16),
}

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `hot`: new records; `cold`: copies.
    pub stream: &'static str,
    /// The start that made it.
    pub boot: u32,
    /// Marks the frames of this use of the file.
    pub epoch: u64,
    /// The LSN of its first frame.
    pub first_lsn: u64,
    /// The segment that it is a copy of; 0: none.
    pub replaces: u64,
    /// The directory's own number.
    pub node: u64,
}

/// What is in a segment's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Valid frames.
    pub frames: u64,
    /// Records in them that can be read.
    pub records: u64,
    /// Records in them that cannot.
    pub malformed: u64,
    /// Submits among the records.
    pub submits: u64,
    /// Outcomes among them.
    pub outcomes: u64,
    /// The LSN of the last valid frame; 0 if there is none.
    pub last_lsn: u64,
    /// Where the last valid frame ends.
    pub end: u64,
    /// Bytes between valid frames that belong to none.
    pub damaged_bytes: u64,
    /// Bytes behind the last valid frame that show frames of this use: a torn tail, or one being written.
    pub torn_bytes: u64,
    /// It has its end frame.
    pub sealed: bool,
    /// Jobs submitted here without an outcome anywhere; `None` if not all segments were read.
    pub unsettled: Option<u64>,
    /// Bytes of their submits.
    pub unsettled_bytes: Option<u64>,
}

/// What is met in a segment, in order.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A valid frame; its records follow.
    Frame {
        /// Where it starts.
        offset: u64,
        /// How long it is, head and padding included.
        bytes: u64,
        /// `group`, `mark`, `end` or `copy`.
        kind: &'static str,
        /// Its LSN.
        lsn: u64,
        /// The highest LSN that was known synced when it was written.
        durable_lsn: u64,
    },
    /// A record of that frame.
    Record {
        /// Where it starts in the file.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// The frame's LSN.
        lsn: u64,
        /// What it says.
        record: &'a Record<'a>,
    },
    /// A record of that frame that cannot be read.
    Malformed {
        /// The frame's LSN.
        lsn: u64,
        /// Why.
        error: DecodeError,
    },
    /// Bytes that belong to no valid frame, with valid frames behind them.
    Gap {
        /// Where they start.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
    /// Bytes behind the last valid frame that show frames of this use.
    Torn {
        /// Where they start.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
}

/// The segments of a directory in the order of their numbers, without their contents.
///
/// # Errors
/// Whatever the medium says.
pub fn segments<S: Storage>(storage: &S) -> io::Result<Vec<Segment>> {
    let mut names = storage.list()?;
    names.sort_unstable();
    let in_use = in_use(storage)?;
    let mut segments = Vec::new();
    for name in names {
        let Name::Segment(number) = segment::parse_name(&name) else {
            continue;
        };
        let Some(file) = found(storage.open(&name))? else {
            continue;
        };
        let (state, header) = match segment::examine(&file, number)? {
            segment::State::Begun(header) if in_use.contains(&name) => (State::InUse, Some(header)),
            segment::State::Begun(header) => (State::Replaced, Some(header)),
            segment::State::NotBegun => (State::NotBegun, None),
            segment::State::Newer(version) => (State::Newer(version), None),
            segment::State::Damaged(what) => (State::Damaged(what.to_owned()), None),
        };
        segments.push(Segment {
            bytes: file.len()?,
            name,
            number,
            state,
            header: header.map(Fields::from),
            content: Content::default(),
        });
    }
    Ok(segments)
}

/// Reads all segments that are in use or damaged, and counts what they hold; `see` is shown everything with the
/// number of its segment. Unsettled jobs are counted if `all` segments are given.
///
/// # Errors
/// Whatever the medium says.
pub fn read<S: Storage>(
    storage: &S,
    segments: &mut [Segment],
    all: bool,
    mut see: impl FnMut(u64, &Seen<'_>),
) -> io::Result<()> {
    let mut tally = Tally::of(segments);
    for segment in segments.iter_mut() {
        if !matches!(segment.state, State::InUse | State::Damaged(_)) {
            continue;
        }
        let number = segment.number;
        let Some(file) = found(storage.open(&segment.name))? else {
            continue;
        };
        let mut content = Content::default();
        tally.begin(number, segment.header);
        read_segment(&file, segment.header, &mut |seen| {
            content.count(seen);
            if all {
                tally.count(seen);
            }
            see(number, seen);
        })?;
        segment.content = content;
    }
    if all {
        let mut unsettled: HashMap<u64, (u64, u64)> = HashMap::new();
        for Open { number, bytes, .. } in tally.open.into_values() {
            let sums = unsettled.entry(number).or_default();
            *sums = (sums.0 + 1, sums.1 + bytes);
        }
        for segment in segments {
            let (jobs, bytes) = unsettled.get(&segment.number).copied().unwrap_or_default();
            segment.content.unsettled = Some(jobs);
            segment.content.unsettled_bytes = Some(bytes);
        }
    }
    Ok(())
}

/// The names of the segments that make up the log; none where that cannot be said.
fn in_use<S: Storage>(storage: &S) -> io::Result<Vec<String>> {
    match survey(storage) {
        Ok(survey) => {
            let both = survey.chain.into_iter().chain(survey.cold);
            Ok(both.map(|found| found.name).collect())
        }
        // A segment that is recycled at this moment: the next look knows better.
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(OpenError::Io { source, .. }) => Err(source),
        Err(_) => Ok(Vec::new()),
    }
}

fn found<F>(file: io::Result<F>) -> io::Result<Option<F>> {
    match file {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which jobs have no outcome. Copies lie behind what they were made of or before it, and an outcome before its submit:
/// so the order of the log counts, not that of the files.
struct Tally {
    open: HashMap<JobId, Open>,
    /// Ends whose submit was not seen yet.
    ended: HashMap<JobId, Position>,
    /// Segments that are there: what was copied of them does not count yet.
    there: HashSet<u64>,
    number: u64,
    is_cold: bool,
    /// Where the records belong that come next: the first LSN of the hot segment that they were written to.
    origin: u64,
    /// They count.
    counts: bool,
}

/// A job without outcome, so far.
struct Open {
    at: Position,
    /// The segment with its submit.
    number: u64,
    bytes: u64,
}

/// A place in the order of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    origin: u64,
    lsn: u64,
    offset: u64,
}

impl Tally {
    fn of(segments: &[Segment]) -> Self {
        let in_use = segments.iter().filter(|segment| segment.state == State::InUse);
        Self {
            open: HashMap::new(),
            ended: HashMap::new(),
            there: in_use.map(|segment| segment.number).collect(),
            number: 0,
            is_cold: false,
            origin: 0,
            counts: true,
        }
    }

    fn begin(&mut self, number: u64, header: Option<Fields>) {
        self.number = number;
        self.is_cold = header.is_some_and(|header| header.stream == stream_name(Stream::Cold));
        self.origin = header.map_or(0, |header| header.first_lsn);
        self.counts = !self.is_cold;
    }

    fn count(&mut self, seen: &Seen<'_>) {
        let Seen::Record {
            offset,
            bytes,
            lsn,
            record,
        } = seen
        else {
            return;
        };
        let at = Position {
            origin: self.origin,
            lsn: *lsn,
            offset: *offset,
        };
        match record {
            Record::Copied(copied) => {
                self.origin = copied.origin;
                self.counts = !self.there.contains(&copied.source);
            }
            _ if !self.counts => {}
            Record::Submit(submit) => self.submitted(submit.id, at, *bytes),
            Record::Outcome(outcome) => self.ended(outcome.id, at),
            Record::Ended(ended) => self.ended(ended.id, at),
            _ => {}
        }
    }

    fn submitted(&mut self, id: JobId, at: Position, bytes: u64) {
        let ended = self.ended.get(&id).is_some_and(|end| *end > at);
        let newer = self.open.get(&id).is_none_or(|open| open.at < at);
        if !ended && newer {
            let number = self.number;
            self.open.insert(id, Open { at, number, bytes });
        }
    }

    fn ended(&mut self, id: JobId, at: Position) {
        match self.open.get(&id) {
            Some(open) if open.at < at => drop(self.open.remove(&id)),
            // The job was submitted again since.
            Some(_) => {}
            None => {
                let last = self.ended.entry(id).or_insert(at);
                *last = at.max(*last);
            }
        }
    }
}

fn read_segment<F: File>(file: &F, header: Option<Fields>, see: &mut dyn FnMut(&Seen<'_>)) -> io::Result<()> {
    let mut reader = Reader::new(file)?;
    let epoch = match header {
        Some(header) => header.epoch,
        // Whose header is damaged: the first frame says which use of the file it is.
        None => match reader.first_of_any_epoch(FRAMES_AT)? {
            Some((_, epoch)) => epoch,
            None => return Ok(()),
        },
    };
    let mut offset = FRAMES_AT;
    loop {
        if let Slot::Frame(frame) = reader.frame(offset, epoch)? {
            let (head, bytes) = (frame.head, frame.bytes);
            see(&Seen::Frame {
                offset,
                bytes,
                kind: kind_name(head.kind),
                lsn: head.lsn,
                durable_lsn: head.durable_lsn,
            });
            read_records(frame.records, offset + 40, head.lsn, see);
            offset += bytes;
            if head.kind == Kind::End {
                return Ok(());
            }
        } else if let Some((at, _)) = reader.find_frame(offset, epoch, |_| true)? {
            let bytes = at - offset;
            see(&Seen::Gap { offset, bytes });
            offset = at;
        } else {
            let bytes = reader.reach(offset, epoch)? - offset;
            if bytes > 0 {
                see(&Seen::Torn { offset, bytes });
            }
            return Ok(());
        }
    }
}

fn read_records(records: &[u8], records_at: u64, lsn: u64, see: &mut dyn FnMut(&Seen<'_>)) {
    for item in Records::new(records) {
        match item.and_then(|(at, bytes)| Ok((at, bytes.len(), Record::decode(bytes)?))) {
            Ok((at, bytes, record)) => see(&Seen::Record {
                offset: records_at + u64::try_from(at).unwrap_or(u64::MAX),
                bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
                lsn,
                record: &record,
            }),
            Err(error) => see(&Seen::Malformed { lsn, error }),
        }
    }
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Group => "group",
        Kind::Mark => "mark",
        Kind::End => "end",
        Kind::Copy => "copy",
    }
}

impl Content {
    fn count(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Frame {
                offset,
                bytes,
                kind,
                lsn,
                ..
            } => {
                self.frames += 1;
                self.last_lsn = *lsn;
                self.end = offset + bytes;
                self.sealed = *kind == "end";
            }
            Seen::Record { record, .. } => {
                self.records += 1;
                self.submits += u64::from(matches!(record, Record::Submit(_)));
                self.outcomes += u64::from(matches!(record, Record::Outcome(_)));
            }
            Seen::Malformed { .. } => self.malformed += 1,
            Seen::Gap { bytes, .. } => self.damaged_bytes += bytes,
            Seen::Torn { bytes, .. } => self.torn_bytes += bytes,
        }
    }
}

const fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Hot => "hot",
        Stream::Cold => "cold",
    }
}

impl From<Header> for Fields {
    fn from(header: Header) -> Self {
        Self {
            stream: stream_name(header.stream),
            boot: header.boot,
            epoch: header.epoch,
            first_lsn: header.first_lsn,
            replaces: header.replaces,
            node: header.node,
        }
    }
}

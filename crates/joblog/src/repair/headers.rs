//! Segments whose header is damaged: what it must have said.
//!
//! In: every file with a segment's name. Out: for each damaged one a header that fits its frames and its
//! neighbours, or the verdict that it cannot be read. Where the old value cannot be known the new
//! one is on the safe side: a boot epoch or a sequence that was never used may be skipped, none may come twice.

use std::collections::BTreeMap;

use super::salvage::token;
use crate::frame::{Reader, Slot};
use crate::record::{Record, Records};
use crate::recovery::OpenError;
use crate::segment::{self, BOOT_MAX, FRAMES_AT, Header, Name, State, Stream};
use crate::storage::{File, Storage};

/// What is to be done about a segment whose header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mended {
    /// This is its header.
    Header {
        header: Header,
        /// Its first frame is valid; else the first LSN is only that of the first frame that is.
        from_the_start: bool,
    },
    /// It is put aside: why.
    Aside(&'static str),
}

/// Why a segment is put aside of which nothing is left.
pub(super) const NO_FRAME: &str = "no frame in it is valid";

/// What the frames of a segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frames {
    /// It holds copies.
    copies: bool,
    epoch: u64,
    first_lsn: u64,
    /// A frame stands where the first must.
    from_the_start: bool,
    /// The directory that a token names.
    node: Option<u64>,
    /// The highest boot epoch in any token.
    boot: u32,
    /// The highest sequence of a job.
    sequence: u64,
}

/// Segments by number, for each what is to be done; empty if all headers are good.
pub(super) fn mend<S: Storage>(
    storage: &S,
    random: &mut dyn FnMut() -> u64,
) -> Result<BTreeMap<u64, Mended>, OpenError> {
    let mut good = BTreeMap::new();
    let mut damaged = Vec::new();
    let mut names = storage
        .list()
        .map_err(|error| OpenError::io("the directory", error))?;
    names.sort_unstable();
    for name in names {
        let Name::Segment(number) = segment::parse_name(&name) else {
            continue;
        };
        let failed = |error| OpenError::io(&name, error);
        let file = storage.open(&name).map_err(failed)?;
        match segment::examine(&file, number).map_err(failed)? {
            State::Begun(header) => drop(good.insert(number, header)),
            State::NotBegun => {}
            State::Damaged(_) => damaged.push((number, name, file)),
            State::Newer(version) => {
                return Err(OpenError::Newer {
                    file: name,
                    what: format!("version {version}"),
                });
            }
        }
    }
    let mut mended = strangers(&mut good);
    for (number, name, file) in damaged {
        let read = frames(&file).map_err(|error| OpenError::io(&name, error))?;
        let verdict = judge(number, read, &good, random);
        if let Mended::Header { header, .. } = &verdict {
            good.insert(number, *header);
        }
        mended.insert(number, verdict);
    }
    Ok(mended)
}

/// Segments of another directory: those of the fewer, or else of the older.
fn strangers(good: &mut BTreeMap<u64, Header>) -> BTreeMap<u64, Mended> {
    let mut nodes: BTreeMap<u64, (usize, u32)> = BTreeMap::new();
    for header in good.values() {
        let (count, boot) = nodes.entry(header.node).or_default();
        *count += 1;
        *boot = (*boot).max(header.boot);
    }
    let Some((&ours, _)) = nodes.iter().max_by_key(|(_, weight)| **weight) else {
        return BTreeMap::new();
    };
    let strange: Vec<u64> = good
        .iter()
        .filter(|(_, header)| header.node != ours)
        .map(|(number, _)| *number)
        .collect();
    let aside = |number| {
        good.remove(&number);
        (number, Mended::Aside("it belongs to another directory"))
    };
    strange.into_iter().map(aside).collect()
}

/// The header of a segment with these frames.
fn judge(
    number: u64,
    frames: Option<Frames>,
    good: &BTreeMap<u64, Header>,
    random: &mut dyn FnMut() -> u64,
) -> Mended {
    let Some(frames) = frames else {
        return Mended::Aside(NO_FRAME);
    };
    let before = good.range(..number).next_back().map(|(_, header)| header);
    let after = good.range(number + 1..).next().map(|(_, header)| header);
    // A copy has the LSNs of its original. Whether either is read any more, the survey decides.
    let original = good
        .range(..number)
        .rfind(|(_, header)| header.stream == Stream::Hot && header.first_lsn == frames.first_lsn)
        .filter(|_| !frames.copies)
        .map(|(number, _)| *number);
    // Each start makes a segment, so there were at most as many starts as there are numbers.
    let starts = |numbers: u64| u32::try_from(numbers).unwrap_or(BOOT_MAX / 2);
    let most = before.map_or_else(
        || starts(number),
        |before| before.boot.saturating_add(starts(number - before.number)),
    );
    let boot = after.map_or(most, |after| most.min(after.boot)).max(frames.boot);
    let node = before.or(after).map(|header| header.node).or(frames.node);
    let header = Header {
        stream: frames.stream(),
        boot,
        number,
        epoch: frames.epoch,
        first_lsn: frames.first_lsn,
        replaces: original.unwrap_or(0),
        node: node.unwrap_or_else(random),
        sequence: before.map_or(0, |before| before.sequence).max(frames.sequence),
        file_bytes: 0,
    };
    Mended::Header {
        header,
        from_the_start: frames.from_the_start,
    }
}

/// Reads the frames of a segment whose epoch is not known: that of the first frame in it.
fn frames<F: File>(file: &F) -> std::io::Result<Option<Frames>> {
    let mut reader = Reader::new(file)?;
    let Some((at, epoch)) = reader.first_of_any_epoch(FRAMES_AT)? else {
        return Ok(None);
    };
    let Slot::Frame(first) = reader.frame(at, epoch)? else {
        return Ok(None);
    };
    let head = first.head;
    let mut frames = Frames {
        epoch: head.epoch,
        first_lsn: head.lsn,
        from_the_start: at == FRAMES_AT,
        ..Frames::default()
    };
    let mut next = Some((at, head.lsn));
    while let Some((at, lsn)) = next {
        let Slot::Frame(frame) = reader.frame(at, frames.epoch)? else {
            break;
        };
        frames.take_records(frame.records);
        let behind = at + frame.bytes;
        next = reader
            .find_frame(behind, frames.epoch, |head| head.lsn > lsn)?
            .map(|(at, head)| (at, head.lsn));
    }
    Ok(Some(frames))
}

impl Frames {
    /// Only cold segments say where their records come from.
    const fn stream(&self) -> Stream {
        if self.copies { Stream::Cold } else { Stream::Hot }
    }

    fn take_records(&mut self, records: &[u8]) {
        for (_, bytes) in Records::new(records).flatten() {
            let Ok(record) = Record::decode(bytes) else {
                continue;
            };
            self.copies |= matches!(record, Record::Copied(_));
            if let Record::Submit(submit) = &record {
                self.sequence = self.sequence.max(submit.sequence);
            }
            if let Some(token) = token(&record) {
                self.node = self.node.or(Some(token.node));
                if token.epoch <= BOOT_MAX / 2 {
                    self.boot = self.boot.max(token.epoch);
                }
            }
        }
    }
}

//! Which copies count: docs/log_format.md section 6.
//!
//! A copy lies in one cold segment: its frames, then a closing frame that names the segment it was made of. It counts
//! once it is closed and that segment is gone. Only the last copy of the last cold segment can be one that does not
//! count: the start writes an end frame over it.

use std::collections::BTreeSet;
use std::io;

use super::survey::Found;
use super::{Damage, OpenError, Visitor};
use crate::frame::{Head, Kind, Reader, Slot};
use crate::record::{Copied, Record, Records};
use crate::segment::FRAMES_AT;
use crate::storage::File;

/// How much is read at once: frames are visited in the order of their origins, which is seldom that of the file.
const BLOCK_BYTES: usize = 64 << 10;

/// A frame of copies that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counted {
    /// Its place in the order of the log.
    pub(crate) origin: u64,
    pub(crate) lsn: u64,
    /// Which of the cold segments.
    pub(crate) segment: usize,
    pub(crate) offset: u64,
}

/// What the cold segments hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cold {
    /// In the order of the log.
    pub(crate) frames: Vec<Counted>,
    /// Where the last segment must be ended, and the LSN of its end frame; `None` if it has one.
    pub(crate) open: Option<(u64, u64)>,
    /// The LSN of the next cold frame, after that end.
    pub(crate) next_lsn: u64,
    /// Nothing in the last segment counts: it is a free file.
    pub(crate) last_is_free: bool,
}

/// Reads the heads of all cold frames. `there` are the numbers of all segments.
pub(crate) fn read<F: File>(
    cold: &[Found<F>],
    there: &BTreeSet<u64>,
    visitor: &mut impl Visitor,
) -> Result<Cold, OpenError> {
    let mut all = Cold {
        next_lsn: 1,
        ..Cold::default()
    };
    for (segment, found) in cold.iter().enumerate() {
        let first = found.header.first_lsn;
        if first < all.next_lsn {
            let what = format!("it starts with LSN {first}, but {} comes next", all.next_lsn);
            visitor.damage(Damage {
                file: found.name.clone(),
                offset: 32,
                what,
            })?;
        }
        let last = segment + 1 == cold.len();
        read_segment(found, segment, last, there, &mut all, visitor)?;
    }
    all.frames.sort_unstable();
    Ok(all)
}

fn read_segment<F: File>(
    found: &Found<F>,
    segment: usize,
    last: bool,
    there: &BTreeSet<u64>,
    all: &mut Cold,
    visitor: &mut impl Visitor,
) -> Result<(), OpenError> {
    let epoch = found.header.epoch;
    let failed = |error| OpenError::io(&found.name, error);
    let mut reader = Reader::new(&*found.file).map_err(failed)?;
    let (mut offset, mut lsn) = (FRAMES_AT, found.header.first_lsn);
    // Up to where every start keeps it.
    let (mut kept_offset, mut kept_lsn) = (offset, lsn);
    let mut waiting: Vec<(Counted, u64)> = Vec::new();
    loop {
        let (head, copied, bytes) = match reader.frame(offset, epoch).map_err(failed)? {
            Slot::Frame(frame) if frame.head.lsn == lsn => {
                (frame.head, first_record(frame.records), frame.bytes)
            }
            Slot::Newer(version) => {
                let what = format!("frame version {version} at byte {offset}");
                return Err(OpenError::Newer {
                    file: found.name.clone(),
                    what,
                });
            }
            Slot::Frame(_) | Slot::Nothing => break,
        };
        let at = offset;
        offset += bytes;
        lsn += 1;
        match (head.kind, copied) {
            (Kind::Group, Some(Copied { source, origin })) => {
                let lsn = head.lsn;
                let frame = Counted {
                    origin,
                    lsn,
                    segment,
                    offset: at,
                };
                waiting.push((frame, source));
                continue;
            }
            (Kind::Copy, Some(Copied { source, .. })) if !there.contains(&source) => {
                let counted = waiting.drain(..).filter(|(_, from)| *from == source);
                all.frames.extend(counted.map(|(frame, _)| frame));
            }
            // Its source is there and is read itself.
            (Kind::Copy, Some(_)) => break,
            (Kind::Mark, _) => {}
            (Kind::End, _) => {
                all.next_lsn = lsn;
                return Ok(());
            }
            (Kind::Group | Kind::Copy, None) => {
                let what = format!("frame {} does not say where it comes from", head.lsn);
                visitor.damage(damage(found, at, what))?;
            }
        }
        (kept_offset, kept_lsn) = (offset, lsn);
    }
    check_ending(found, (kept_offset, kept_lsn), last, &mut reader, visitor)?;
    if last {
        all.last_is_free = kept_offset == FRAMES_AT;
        all.open = (!all.last_is_free).then_some((kept_offset, kept_lsn));
        all.next_lsn = kept_lsn + u64::from(!all.last_is_free);
    }
    Ok(())
}

/// Nothing behind what is kept may say that more was synced.
fn check_ending<F: File>(
    found: &Found<F>,
    (kept_offset, kept_lsn): (u64, u64),
    last: bool,
    reader: &mut Reader<'_, F>,
    visitor: &mut impl Visitor,
) -> Result<(), OpenError> {
    let epoch = found.header.epoch;
    let failed = |error| OpenError::io(&found.name, error);
    let witness = reader
        .find_frame(kept_offset, epoch, |head| {
            head.lsn > kept_lsn && head.durable_lsn >= kept_lsn
        })
        .map_err(failed)?;
    let invalid = |why: String| format!("frame {kept_lsn} is not valid, but {why}");
    let what = match witness {
        Some((at, head)) => Some(invalid(format!(
            "frame {} at byte {at} says that it was synced",
            head.lsn
        ))),
        None if last => found.shortened()?,
        None => Some(invalid("a later segment was begun".to_owned())),
    };
    what.map_or(Ok(()), |what| visitor.damage(damage(found, kept_offset, what)))
}

fn damage<F>(found: &Found<F>, offset: u64, what: String) -> Damage {
    Damage {
        file: found.name.clone(),
        offset,
        what,
    }
}

/// Where the records of a frame come from, as its first record says.
fn first_record(records: &[u8]) -> Option<Copied> {
    let (_, bytes) = Records::new(records).next()?.ok()?;
    match Record::decode(bytes) {
        Ok(Record::Copied(copied)) => Some(copied),
        _ => None,
    }
}

/// Shows the records of one frame.
pub(super) fn visit<F: File>(
    found: &Found<F>,
    frame: &Counted,
    visitor: &mut impl Visitor,
) -> Result<(), OpenError> {
    let failed = |error| OpenError::io(&found.name, error);
    let mut reader = Reader::with_block(&*found.file, BLOCK_BYTES).map_err(failed)?;
    match reader.frame(frame.offset, found.header.epoch).map_err(failed)? {
        Slot::Frame(read) => {
            visitor.frame();
            super::walk::show_records(found, &read, frame.offset, visitor)
        }
        _ => Err(OpenError::io(
            &found.name,
            io::Error::other("a frame was valid a moment ago and is not any more"),
        )),
    }
}

/// Ends the last cold segment, over whatever does not count in it.
pub(super) fn end<F: File>(found: &Found<F>, (offset, lsn): (u64, u64)) -> io::Result<()> {
    let frame = Head {
        kind: Kind::End,
        epoch: found.header.epoch,
        lsn,
        durable_lsn: lsn - 1,
    }
    .empty_frame();
    found.file.write_at(&frame, offset)?;
    found.file.sync_data()
}

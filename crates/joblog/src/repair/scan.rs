//! One segment, read to its end whatever is damaged in it: what stays, and what takes the place of the rest.

use super::salvage::{LostKind, LostRecord, Salvaged, salvage};
use super::{MISSING_FRAMES_MAX, RepairError};
use crate::frame::{self, Head, Kind, Reader, Slot};
use crate::record::DecodeError;
use crate::recovery::{Found, OpenError};
use crate::segment::{FRAMES_AT, Header};
use crate::storage::File;

/// Larger damage is kept, but not searched for records: no frame is so long.
const SALVAGE_BYTES_MAX: u64 = 64 << 20;

/// No submit is shorter: its head, its fixed fields, a processor and a group of one byte.
const SUBMIT_BYTES_MIN: u64 = 12 + 34 + 6 + 6;

/// No end of a job is shorter: the head of its record, and its fixed fields.
const END_BYTES_MIN: u64 = 12 + 27;

/// What a segment is made of once it is mended, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Valid frames, byte for byte.
    Keep { offset: u64, bytes: u64 },
    /// A frame of saved records in place of a damaged one.
    Saved { lsn: u64, records: Vec<u8> },
    /// The frame that closes the copy of this segment.
    Close { lsn: u64, source: u64 },
    /// Empty frames in place of damaged ones: LSNs have no gap.
    Blank { first_lsn: u64, count: u64 },
    /// The end frame.
    End { lsn: u64 },
}

/// Damaged bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wound {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) what: String,
    /// Frames of which nothing can be said.
    pub(super) frames_unknown: u64,
    pub(super) saved: u64,
    pub(super) lost: Vec<LostRecord>,
    /// Bytes in which no record can be told from another.
    pub(super) unknown_bytes: u64,
    /// There were more bytes, and they are missing.
    pub(super) open_ended: bool,
    /// The submits among the saved records.
    pub(super) submits: u64,
    /// Submits that can be lost at most, as the sequences of those before and behind say.
    pub(super) submits_max: Option<u64>,
}

impl Wound {
    /// How many ends of jobs can be lost beside those in `lost`, at most; `None` if nothing says it.
    pub(super) fn more_ends_max(&self) -> Option<u64> {
        if self.frames_unknown == 0 {
            return Some(0);
        }
        (!self.open_ended && self.unknown_bytes > 0).then_some(self.unknown_bytes / END_BYTES_MIN)
    }

    /// How many submits can be lost beside those in `lost`, at most; `None` if nothing says it.
    pub(super) fn more_submits_max(&self) -> Option<u64> {
        if self.frames_unknown == 0 {
            return Some(0);
        }
        let submits = self.lost.iter().filter(|record| record.kind == LostKind::Submit);
        let known = u64::try_from(submits.count()).unwrap_or(u64::MAX);
        let by_bytes =
            (!self.open_ended && self.unknown_bytes > 0).then_some(self.unknown_bytes / SUBMIT_BYTES_MIN);
        let by_sequences = self.submits_max.map(|max| max.saturating_sub(known));
        by_bytes.into_iter().chain(by_sequences).min()
    }
}

/// What the reading of a segment gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) pieces: Vec<Piece>,
    pub(super) wounds: Vec<Wound>,
    /// The LSN that the next segment must start with, if the segment is sealed.
    pub(super) next_lsn: u64,
    /// Mended, it has an end frame.
    pub(super) sealed: bool,
}

impl Scan {
    /// Whether a start will take the mended segment for a whole copy: something in it was not copied.
    pub(super) fn is_whole_copy<F: File>(&self, found: &Found<F>) -> Result<bool, OpenError> {
        let failed = |error| OpenError::io(&found.name, error);
        let mut reader = Reader::new(&*found.file).map_err(failed)?;
        for piece in &self.pieces {
            let shows = match piece {
                Piece::Keep { offset, bytes } => {
                    let wanted = |head: &Head| head.kind == Kind::Copy || head.durable_lsn != 0;
                    let frame = reader.find_frame(*offset, found.header.epoch, wanted);
                    frame.map_err(failed)?.is_some_and(|(at, _)| at < offset + bytes)
                }
                // What is made in place of a lost frame says that all before it is durable.
                Piece::Saved { lsn, .. } | Piece::Close { lsn, .. } | Piece::End { lsn } => *lsn > 1,
                Piece::Blank { first_lsn, count } => first_lsn + count > 2,
            };
            if shows {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads a segment. `ends_before`: the first LSN of the next segment, so that it is known where this one ended.
pub(super) fn scan<F: File>(
    name: &str,
    file: &F,
    header: &Header,
    ends_before: Option<u64>,
) -> Result<Scan, RepairError> {
    let failed = |error| OpenError::io(name, error);
    let mut scanner = Scanner {
        name,
        reader: Reader::new(file).map_err(failed)?,
        shortened: header.shortened(file.len().map_err(failed)?),
        // The header's own may be that of a submit in its segment: it was queued before the header was made.
        last_sequence: None,
        bounded: 0,
        epoch: header.epoch,
        ends_before,
        offset: FRAMES_AT,
        scan: Scan {
            next_lsn: header.first_lsn,
            ..Scan::default()
        },
    };
    while scanner.step()? {}
    if !scanner.scan.sealed && !scanner.scan.wounds.is_empty() {
        scanner.torn_tail()?;
    }
    Ok(scanner.scan)
}

struct Scanner<'a, F> {
    name: &'a str,
    reader: Reader<'a, F>,
    epoch: u64,
    ends_before: Option<u64>,
    offset: u64,
    /// Why the file cannot be all of its segment, if it cannot.
    shortened: Option<String>,
    /// The sequence of the last submit in a valid frame.
    last_sequence: Option<u64>,
    /// So many wounds have submits behind them.
    bounded: usize,
    scan: Scan,
}

impl<F: File> Scanner<'_, F> {
    /// Reads on by one frame, or by one damage. Whether there is more.
    fn step(&mut self) -> Result<bool, RepairError> {
        let lsn = self.scan.next_lsn;
        let name = self.name;
        let failed = |error| OpenError::io(name, error);
        let fits = self.ends_before.is_none_or(|limit| lsn < limit);
        match self.reader.frame(self.offset, self.epoch).map_err(failed)? {
            Slot::Frame(frame) if frame.head.lsn == lsn && fits => {
                let (kind, bytes) = (frame.head.kind, frame.bytes);
                let salvaged = salvage(frame.records, false).map_err(|error| newer(name, &error))?;
                if salvaged.lost.is_empty() && salvaged.unknown_bytes == 0 {
                    self.bound(salvaged.sequences);
                    self.keep(bytes);
                } else {
                    let what = format!("frame {lsn} holds a malformed record");
                    self.replace(bytes, what, lsn, salvaged);
                }
                self.scan.next_lsn = lsn + 1;
                self.scan.sealed = kind == Kind::End;
                return Ok(!self.scan.sealed);
            }
            Slot::Newer(version) => {
                return Err(RepairError::Read(OpenError::Newer {
                    file: name.to_owned(),
                    what: format!("frame version {version} at byte {}", self.offset),
                }));
            }
            Slot::Frame(_) | Slot::Nothing => {}
        }
        self.damaged()
    }

    fn keep(&mut self, bytes: u64) {
        let offset = self.offset;
        self.offset += bytes;
        match self.scan.pieces.last_mut() {
            Some(Piece::Keep {
                offset: at,
                bytes: kept,
            }) if *at + *kept == offset => *kept += bytes,
            _ => self.scan.pieces.push(Piece::Keep { offset, bytes }),
        }
    }

    /// Submits that stay, of these sequences: between them and those before no more can be lost than sequences are
    /// missing.
    fn bound(&mut self, sequences: Option<(u64, u64)>) {
        let Some((first, last)) = sequences else { return };
        let missing = self
            .last_sequence
            .and_then(|before| first.checked_sub(before)?.checked_sub(1));
        for wound in &mut self.scan.wounds[self.bounded..] {
            wound.submits_max = missing.and_then(|missing| missing.checked_sub(wound.submits));
        }
        self.bounded = self.scan.wounds.len();
        self.last_sequence = Some(last);
    }

    /// One frame that is not kept as it is.
    fn replace(&mut self, bytes: u64, what: String, lsn: u64, salvaged: Salvaged) {
        self.scan.wounds.push(Wound {
            offset: self.offset,
            bytes,
            what,
            frames_unknown: u64::from(salvaged.unknown_bytes > 0),
            saved: salvaged.saved,
            lost: salvaged.lost,
            unknown_bytes: salvaged.unknown_bytes,
            submits: salvaged.submits,
            ..Wound::default()
        });
        self.offset += bytes;
        self.scan.pieces.push(piece(lsn, salvaged.records));
    }

    /// What stands here is no frame: it ends the log, or it is damage.
    fn damaged(&mut self) -> Result<bool, RepairError> {
        let (lsn, offset, epoch, name) = (self.scan.next_lsn, self.offset, self.epoch, self.name);
        let failed = |error| OpenError::io(name, error);
        if let Some(limit) = self.ends_before {
            let next = self
                .reader
                .find_frame(offset, epoch, |head| head.lsn > lsn && head.lsn < limit)
                .map_err(failed)?;
            match next {
                Some((at, head)) => self.wound(at, head.lsn)?,
                None => self.wound_to_the_end(limit)?,
            }
            return Ok(next.is_some());
        }
        // The rule of docs/log_format.md section 6, as recovery has it.
        let witness = self
            .reader
            .find_frame(offset, epoch, |head| head.lsn > lsn && head.durable_lsn >= lsn)
            .map_err(failed)?;
        if witness.is_none() {
            self.shortened()?;
            return Ok(false);
        }
        let next = self
            .reader
            .find_frame(offset, epoch, |head| head.lsn > lsn)
            .map_err(failed)?;
        let Some((at, head)) = next else { return Ok(false) };
        self.wound(at, head.lsn)?;
        Ok(true)
    }

    /// The frames from here to `end`, where LSN `next_lsn` stands, are damaged.
    fn wound(&mut self, end: u64, next_lsn: u64) -> Result<(), RepairError> {
        let (offset, first) = (self.offset, self.scan.next_lsn);
        let missing = next_lsn - first;
        if missing > MISSING_FRAMES_MAX {
            return Err(RepairError::Stuck {
                file: self.name.to_owned(),
                what: format!("{missing} frames from byte {offset} on are missing"),
            });
        }
        let mut wound = Wound {
            offset,
            bytes: end - offset,
            what: frames_damaged(first, next_lsn),
            ..Wound::default()
        };
        while self.scan.next_lsn < next_lsn {
            let lsn = self.scan.next_lsn;
            let place = Place {
                offset: self.offset,
                end,
                only: next_lsn - lsn == 1,
            };
            let bytes = damaged_frame(&mut self.reader, self.epoch, lsn, &place)
                .map_err(|error| OpenError::io(self.name, error))?;
            let Some(bytes) = bytes else {
                let count = next_lsn - lsn;
                wound.frames_unknown += count;
                wound.unknown_bytes += end - self.offset;
                self.scan.pieces.push(Piece::Blank {
                    first_lsn: lsn,
                    count,
                });
                break;
            };
            let salvaged = self.salvage(bytes)?;
            let silent = !place.only && self.says_nothing(bytes)?;
            let unknown = salvaged.unknown_bytes > 0 || silent;
            wound.frames_unknown += u64::from(unknown);
            // One that says that it is empty may have reached as far as any.
            wound.unknown_bytes += if silent {
                end - self.offset
            } else {
                salvaged.unknown_bytes
            };
            wound.submits += salvaged.submits;
            wound.saved += salvaged.saved;
            wound.lost.extend(salvaged.lost);
            self.scan.pieces.push(piece(lsn, salvaged.records));
            self.offset += bytes;
            self.scan.next_lsn += 1;
        }
        self.scan.wounds.push(wound);
        (self.offset, self.scan.next_lsn) = (end, next_lsn);
        Ok(())
    }

    /// No frame of this segment is valid from here on, and the next segment starts with LSN `limit`.
    fn wound_to_the_end(&mut self, limit: u64) -> Result<(), RepairError> {
        let name = self.name;
        let end = self
            .reader
            .reach(self.offset, self.epoch)
            .map_err(|error| OpenError::io(name, error))?;
        if self.scan.next_lsn < limit {
            self.wound(end, limit)?;
            if let Some(wound) = self.scan.wounds.last_mut() {
                wound.open_ended = true;
            }
        } else {
            self.scan.wounds.push(Wound {
                offset: self.offset,
                bytes: end - self.offset,
                what: "the segment has no end frame".to_owned(),
                ..Wound::default()
            });
        }
        self.end(limit - 1);
        Ok(())
    }

    /// The file is shorter than it was, so what stood behind the last valid frame is gone. Of the frame that the end
    /// cuts in two the records that are whole stay.
    fn shortened(&mut self) -> Result<(), RepairError> {
        let Some(what) = self.shortened.take() else {
            return Ok(());
        };
        let (offset, lsn, name) = (self.offset, self.scan.next_lsn, self.name);
        let failed = |error| OpenError::io(name, error);
        let left = self.reader.file_bytes().saturating_sub(offset);
        let head = self.reader.bytes(offset, left.min(40)).map_err(failed)?;
        let bytes = match head.and_then(|head| frame::claimed(head, self.epoch, lsn)) {
            Some(bytes) => {
                let bytes = bytes.min(left);
                self.wound(offset + bytes, lsn + 1)?;
                bytes
            }
            // Less than the head of a frame is kept too.
            None if left < 40 => left,
            None => 0,
        };
        if bytes == 0 || left < 40 {
            self.scan.wounds.push(Wound {
                offset,
                bytes,
                ..Wound::default()
            });
            self.offset = offset + bytes;
        }
        if let Some(wound) = self.scan.wounds.last_mut() {
            wound.what = what;
            wound.frames_unknown = 1;
            wound.open_ended = true;
        }
        Ok(())
    }

    /// A torn tail goes with what is mended before it; its bytes are kept as a start would keep them.
    fn torn_tail(&mut self) -> Result<(), OpenError> {
        let (name, offset) = (self.name, self.offset);
        let end = self
            .reader
            .reach(offset, self.epoch)
            .map_err(|error| OpenError::io(name, error))?;
        if end > offset {
            self.scan.wounds.push(Wound {
                offset,
                bytes: end - offset,
                what: "a torn tail: nothing shows that any of it was acknowledged".to_owned(),
                ..Wound::default()
            });
        }
        Ok(())
    }

    /// The last LSN of a sealed segment is its end frame's, and that has no records to lose.
    fn end(&mut self, lsn: u64) {
        let was_blank = match self.scan.pieces.last_mut() {
            Some(Piece::Blank { count, .. }) => {
                *count -= 1;
                true
            }
            _ => false,
        };
        if !was_blank {
            return;
        }
        if let Some(wound) = self.scan.wounds.last_mut() {
            wound.frames_unknown = wound.frames_unknown.saturating_sub(1);
        }
        self.scan.pieces.push(Piece::End { lsn });
        self.scan.sealed = true;
    }

    fn says_nothing(&mut self, bytes: u64) -> Result<bool, OpenError> {
        let name = self.name;
        let frame = self.reader.bytes(self.offset, bytes);
        let frame = frame.map_err(|error| OpenError::io(name, error))?;
        Ok(says_nothing(frame.unwrap_or_default()))
    }

    fn salvage(&mut self, bytes: u64) -> Result<Salvaged, OpenError> {
        let name = self.name;
        let frame = self
            .reader
            .bytes(self.offset, bytes)
            .map_err(|error| OpenError::io(name, error))?;
        let records = frame
            .and_then(|frame| frame.get(frame::HEAD..))
            .unwrap_or_default();
        salvage(records, true).map_err(|error| newer(name, &error))
    }
}

/// Where a damaged frame stands.
pub(super) struct Place {
    pub(super) offset: u64,
    /// Where the next valid one does.
    pub(super) end: u64,
    /// It is the only one between.
    pub(super) only: bool,
}

/// How long the damaged frame here is: to the end if it is the only one, else as its head says; at most what
/// is there.
pub(super) fn damaged_frame<F: File>(
    reader: &mut Reader<'_, F>,
    epoch: u64,
    lsn: u64,
    place: &Place,
) -> std::io::Result<Option<u64>> {
    let left = place.end - place.offset;
    if place.only {
        return Ok(Some(left).filter(|left| (40..=SALVAGE_BYTES_MAX).contains(left)));
    }
    let head = reader.bytes(place.offset, left.min(40))?;
    let bytes = head.and_then(|head| frame::claimed(head, epoch, lsn));
    Ok(bytes
        .filter(|bytes| *bytes <= SALVAGE_BYTES_MAX)
        .map(|bytes| bytes.min(left)))
}

/// Whether a damaged frame claims to be a group, and to be empty: no group is, so what it held is not known.
pub(super) fn says_nothing(raw: &[u8]) -> bool {
    raw.len() <= frame::HEAD && frame::may_be_group(raw)
}

fn piece(lsn: u64, records: Vec<u8>) -> Piece {
    if records.is_empty() {
        Piece::Blank {
            first_lsn: lsn,
            count: 1,
        }
    } else {
        Piece::Saved { lsn, records }
    }
}

pub(super) fn frames_damaged(first: u64, next: u64) -> String {
    match next - first {
        1 => format!("frame {first} is not valid"),
        count => format!("{count} frames, {first} to {}, are not valid", next - 1),
    }
}

pub(super) fn newer(name: &str, error: &DecodeError) -> OpenError {
    OpenError::Newer {
        file: name.to_owned(),
        what: error.to_string(),
    }
}

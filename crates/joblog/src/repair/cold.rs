//! One cold segment, read to its end whatever is damaged in it: docs/log_format.md sections 6 and 12.
//!
//! A copy counts whole, once it is closed and its source is gone; so what is left of a copy must be closed anew where
//! its closing frame is lost, or the next closing frame would make a start pass it over. What was never closed stays
//! so: behind the last frame that is known to be synced nothing is taken for a copy.

use std::collections::BTreeSet;

use super::closing::{self, Entry, Says};
use super::origin::{Lead, Loose};
use super::salvage::{Salvaged, salvage};
use super::scan::{Piece, Place, Wound, damaged_frame, frames_damaged, newer, says_nothing};
use super::{MISSING_FRAMES_MAX, RepairError};
use crate::frame::{self, Frame, Head, Kind, Reader, Slot};
use crate::record::{Copied, DecodeError, Record, Records};
use crate::recovery::{Found, OpenError};
use crate::segment::{FRAMES_AT, Header};
use crate::storage::File;

/// A *copied* record.
pub(super) const COPIED_BYTES: usize = 28;

/// An end frame that differs in no more bytes is one: a group differs in its kind, its length and its checksum.
const NEARLY_BYTES: usize = 4;

/// What is known of the segment beside its frames.
pub(super) struct Around<'a> {
    /// Its header, as it will be.
    pub(super) header: Header,
    /// Where its first frame stands.
    pub(super) frames_at: u64,
    /// The first LSN of the next cold segment.
    pub(super) ends_before: Option<u64>,
    /// The numbers of all segments: what is copied of one of these does not count.
    pub(super) there: &'a BTreeSet<u64>,
}

/// What the reading of a cold segment gave.
#[derive(Debug, Default)]
pub(super) struct ColdScan {
    pub(super) pieces: Vec<Piece>,
    pub(super) wounds: Vec<Wound>,
    /// Frames of copies that do not say any more where they belong: they stand in `pieces` with an origin that is none.
    pub(super) loose: Vec<Loose>,
    /// A segment that is there although its copy counts, as what stands behind the copy proves.
    pub(super) stray: Option<u64>,
}

struct Scanner<'a, F> {
    name: &'a str,
    reader: Reader<'a, F>,
    around: &'a Around<'a>,
    offset: u64,
    lsn: u64,
    sealed: bool,
    /// Why the file cannot be all of the segment, if it cannot.
    shortened: Option<String>,
    entries: Vec<Entry>,
    wounds: Vec<Wound>,
}

/// Reads a cold segment.
pub(super) fn scan<F: File>(found: &Found<F>, around: &Around<'_>) -> Result<ColdScan, RepairError> {
    let mut scanner = Scanner {
        name: &found.name,
        reader: Reader::new(&*found.file).map_err(|error| OpenError::io(&found.name, error))?,
        around,
        offset: FRAMES_AT,
        lsn: around.header.first_lsn,
        sealed: false,
        // Where another cold segment follows, that says that there was more.
        shortened: match around.ends_before {
            Some(_) => None,
            None => found.shortened()?,
        },
        entries: Vec::new(),
        wounds: Vec::new(),
    };
    if around.frames_at > FRAMES_AT {
        scanner.pass_over(around.frames_at);
    }
    while scanner.step()? {}
    if !scanner.sealed {
        scanner.tail()?;
    }
    scanner.close_copies();
    if !scanner.sealed && around.ends_before.is_some() {
        scanner.end()?;
    }
    Ok(scanner.finish())
}

impl<F: File> Scanner<'_, F> {
    fn failed(&self) -> impl Fn(std::io::Error) -> OpenError + use<F> {
        let name = self.name.to_owned();
        move |error| OpenError::io(&name, error)
    }

    /// Bytes before the first frame: no LSN is left for what was there.
    fn pass_over(&mut self, to: u64) {
        self.wound(
            to,
            "what stands before its first frame is not valid".to_owned(),
            1,
        );
    }

    fn wound(&mut self, to: u64, what: String, frames_unknown: u64) {
        self.wounds.push(Wound {
            offset: self.offset,
            bytes: to - self.offset,
            what,
            frames_unknown,
            // Whoever knows better says so.
            open_ended: frames_unknown > 0,
            unknown_bytes: if frames_unknown > 0 { to - self.offset } else { 0 },
            ..Wound::default()
        });
        self.offset = to;
    }

    /// Reads on by one frame, or by one damage. Whether there is more.
    fn step(&mut self) -> Result<bool, RepairError> {
        let (offset, epoch, lsn, name) = (self.offset, self.around.header.epoch, self.lsn, self.name);
        let failed = self.failed();
        let fits = self.around.ends_before.is_none_or(|limit| lsn < limit);
        match self.reader.frame(offset, epoch).map_err(&failed)? {
            Slot::Frame(frame) if frame.head.lsn == lsn && fits => {
                let (bytes, read) = (
                    frame.bytes,
                    read_valid(&frame).map_err(|error| newer(name, &error))?,
                );
                self.valid(bytes, read);
                return Ok(!self.sealed);
            }
            Slot::Newer(version) => {
                return Err(RepairError::Read(OpenError::Newer {
                    file: name.to_owned(),
                    what: format!("frame version {version} at byte {offset}"),
                }));
            }
            Slot::Frame(_) | Slot::Nothing => {}
        }
        // Frames behind the end may be of a copy that never counted: only what a witness speaks of was synced.
        let witness = self
            .reader
            .find_frame(offset, epoch, |head| head.lsn > lsn && head.durable_lsn >= lsn);
        if !fits || witness.map_err(&failed)?.is_none() {
            return Ok(false);
        }
        let next = self.reader.find_frame(offset, epoch, |head| head.lsn > lsn);
        let Some((at, head)) = next.map_err(&failed)? else {
            return Ok(false);
        };
        self.damaged(at, head.lsn)?;
        Ok(true)
    }

    fn valid(&mut self, bytes: u64, read: Read) {
        let (offset, lsn) = (self.offset, self.lsn);
        self.lsn += 1;
        self.sealed = matches!(read, Read::Good(Says::End));
        match read {
            Read::Good(says) => {
                self.entries.push(Entry::Keep { offset, bytes, says });
                self.offset += bytes;
            }
            Read::Bad(entry, salvaged) => {
                let what = if matches!(entry, Broken::Group { copied: None, .. }) {
                    format!("frame {lsn} does not say where it comes from")
                } else {
                    format!("frame {lsn} holds a malformed record")
                };
                self.wound(offset + bytes, what, 0);
                self.broken(lsn, entry, salvaged);
            }
        }
    }

    /// What is left of a frame takes its LSN.
    fn broken(&mut self, lsn: u64, broken: Broken, salvaged: Salvaged) {
        if let Some(wound) = self.wounds.last_mut() {
            wound.frames_unknown += u64::from(salvaged.unknown_bytes > 0);
            wound.unknown_bytes += salvaged.unknown_bytes;
            wound.saved += salvaged.saved;
            wound.lost.extend(salvaged.lost);
        }
        let records = salvaged.records;
        self.entries.push(match broken {
            Broken::Close(source) => Entry::Close { lsn, source },
            Broken::Group { copied, lead } if !records.is_empty() => Entry::Group {
                lsn,
                copied,
                records,
                lead,
            },
            Broken::Group { .. } | Broken::Nothing => Entry::Blank {
                first_lsn: lsn,
                count: 1,
            },
        });
    }

    /// The frames from here to `end`, where LSN `next_lsn` stands, are damaged.
    fn damaged(&mut self, end: u64, next_lsn: u64) -> Result<(), RepairError> {
        let (failed, epoch, name) = (self.failed(), self.around.header.epoch, self.name);
        let missing = next_lsn - self.lsn;
        if missing > MISSING_FRAMES_MAX {
            return Err(RepairError::Stuck {
                file: name.to_owned(),
                what: format!("{missing} frames from byte {} on are missing", self.offset),
            });
        }
        let mut at = self.offset;
        self.wound(end, frames_damaged(self.lsn, next_lsn), 0);
        while self.lsn < next_lsn {
            let (lsn, left) = (self.lsn, next_lsn - self.lsn);
            let place = Place {
                offset: at,
                end,
                only: left == 1,
            };
            let bytes = damaged_frame(&mut self.reader, epoch, lsn, &place).map_err(&failed)?;
            let Some(bytes) = bytes else {
                if let Some(wound) = self.wounds.last_mut() {
                    wound.frames_unknown += left;
                    wound.unknown_bytes += end - at;
                }
                let (first_lsn, count) = (lsn, left);
                self.entries.push(Entry::Blank { first_lsn, count });
                self.lsn = next_lsn;
                break;
            };
            let raw = self.reader.bytes(at, bytes).map_err(&failed)?.unwrap_or_default();
            let (broken, mut salvaged) = read_damaged(raw).map_err(|error| newer(name, &error))?;
            if !place.only && says_nothing(raw) {
                salvaged.unknown_bytes = end - at;
            }
            self.broken(lsn, broken, salvaged);
            at += bytes;
            self.lsn += 1;
        }
        Ok(())
    }

    /// What stands behind the last frame that is known to be synced: an end frame that is lost, and what it ended; or
    /// a copy that is not closed.
    fn tail(&mut self) -> Result<(), RepairError> {
        let (offset, epoch, failed) = (self.offset, self.around.header.epoch, self.failed());
        let end = self.reader.reach(offset, epoch).map_err(&failed)?;
        let sealed_before = self.around.ends_before.is_some();
        if sealed_before {
            let head = self.reader.bytes(offset, 40).map_err(&failed)?;
            if is_nearly(head.unwrap_or_default(), &end_frame(epoch, self.lsn)) {
                // Behind an end frame stands what never counted.
                self.wound(end.max(offset + 40), "its end frame is damaged".to_owned(), 0);
                return Ok(());
            }
        } else if let Some(what) = self.shortened.clone() {
            return self.cut_short(end, what);
        } else if end == offset {
            return Ok(());
        }
        let (heads, closes) = self.what_was_there()?;
        let (what, frames_unknown) = match (sealed_before, closes) {
            (true, _) => ("its end is missing, and maybe more", heads.max(1)),
            (false, true) => (
                "what stands there may be copies that count, or never have counted",
                heads,
            ),
            (false, false) => ("copies that do not count: what they were made of is there", 0),
        };
        self.wound(end, what.to_owned(), frames_unknown);
        Ok(())
    }

    /// What stood behind the last valid frame is gone. Of the frame that the end cuts in two what is whole stays.
    fn cut_short(&mut self, end: u64, what: String) -> Result<(), RepairError> {
        if end > self.offset {
            self.damaged(end, self.lsn + 1)?;
        } else {
            let left = self.reader.file_bytes().saturating_sub(self.offset);
            let end = self.offset + if left < 40 { left } else { 0 };
            self.wound(end, String::new(), 0);
        }
        if let Some(wound) = self.wounds.last_mut() {
            wound.what = what;
            wound.frames_unknown = 1;
            wound.open_ended = true;
        }
        Ok(())
    }

    /// How many frames begin from here on, and whether one of them closes a copy whose source is gone.
    fn what_was_there(&mut self) -> Result<(u64, bool), OpenError> {
        let (epoch, failed) = (self.around.header.epoch, self.failed());
        let (mut heads, mut closes, mut from) = (0, false, self.offset);
        while let Some(at) = self.reader.find_head(from, Some(epoch)).map_err(&failed)? {
            heads += 1;
            if let Slot::Frame(frame) = self.reader.frame(at, epoch).map_err(&failed)?
                && frame.head.kind == Kind::Copy
            {
                let copied = copied_of(frame.records);
                closes |= copied.is_some_and(|copied| !self.around.there.contains(&copied.source));
            }
            from = at + 8;
        }
        Ok((heads, closes))
    }

    /// Every copy that is not closed where it must have been gets its closing frame, in the place of a lost one.
    fn close_copies(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        let (entries, open) = closing::close(entries, self.around.there);
        self.entries = entries;
        // A later segment was begun, so the last copy was closed. In a file that was shortened it was if its source is
        // gone.
        let was_closed = self.around.ends_before.is_some() || self.shortened.is_some();
        if !self.sealed
            && was_closed
            && let Some(source) = open.filter(|source| !self.around.there.contains(source))
        {
            let lsn = self.lsn;
            self.entries.push(Entry::Close { lsn, source });
            self.lsn += 1;
        }
    }

    fn end(&mut self) -> Result<(), RepairError> {
        let lsn = self.lsn;
        if self.around.ends_before.is_some_and(|limit| lsn >= limit) {
            return Err(RepairError::Stuck {
                file: self.name.to_owned(),
                what: format!(
                    "its frames reach LSN {lsn}, and the next segment of copies starts before; one of both is not of this log: \
                     move it out of the directory, and repair again"
                ),
            });
        }
        self.entries.push(Entry::End { lsn });
        Ok(())
    }

    fn finish(self) -> ColdScan {
        let mut scan = ColdScan {
            wounds: self.wounds,
            ..ColdScan::default()
        };
        let there = self.around.there;
        let entries = self.entries.len();
        for (index, entry) in self.entries.into_iter().enumerate() {
            if let Entry::Close { source, .. }
            | Entry::Keep {
                says: Says::Close(source),
                ..
            } = entry
                && there.contains(&source)
                && index + 1 < entries
            {
                scan.stray = scan.stray.or(Some(source));
            }
            scan.push(entry);
        }
        scan
    }
}

impl ColdScan {
    fn push(&mut self, entry: Entry) {
        let piece = match entry {
            Entry::Keep { offset, bytes, .. } => {
                if let Some(Piece::Keep {
                    offset: at,
                    bytes: kept,
                }) = self.pieces.last_mut()
                    && *at + *kept == offset
                {
                    *kept += bytes;
                    return;
                }
                Piece::Keep { offset, bytes }
            }
            Entry::Group {
                lsn,
                copied,
                records,
                lead,
            } => {
                let place = copied.unwrap_or(lead.placeholder());
                let mut all = Vec::new();
                Record::Copied(place).encode(&mut all);
                all.extend_from_slice(&records);
                if copied.is_none() {
                    self.loose.push(Loose::new(self.pieces.len(), &lead, &records));
                }
                Piece::Saved { lsn, records: all }
            }
            Entry::Close { lsn, source } => Piece::Close { lsn, source },
            Entry::Blank { first_lsn, count } => Piece::Blank { first_lsn, count },
            Entry::End { lsn } => Piece::End { lsn },
        };
        self.pieces.push(piece);
    }
}

/// What a valid frame is to a repair.
enum Read {
    Good(Says),
    Bad(Broken, Salvaged),
}

/// What is left of a frame that does not stay as it is.
enum Broken {
    Group { copied: Option<Copied>, lead: Lead },
    Close(u64),
    Nothing,
}

fn read_valid(frame: &Frame<'_>) -> Result<Read, DecodeError> {
    let copied = copied_of(frame.records);
    match frame.head.kind {
        Kind::Mark => return Ok(Read::Good(Says::Mark)),
        Kind::End => return Ok(Read::Good(Says::End)),
        Kind::Copy => {
            return Ok(match copied {
                Some(copied) => Read::Good(Says::Close(copied.source)),
                None => Read::Bad(Broken::Nothing, Salvaged::default()),
            });
        }
        Kind::Group => {}
    }
    let salvaged = salvage(frame.records, false)?;
    let good = salvaged.lost.is_empty() && salvaged.unknown_bytes == 0;
    Ok(match copied {
        Some(copied) if good => Read::Good(Says::Group(copied)),
        Some(copied) => {
            let lead = Lead::none();
            let salvaged = without_copied(salvaged);
            let copied = Some(copied);
            Read::Bad(Broken::Group { copied, lead }, salvaged)
        }
        None => {
            let (copied, lead) = (None, Lead::none());
            Read::Bad(Broken::Group { copied, lead }, salvaged)
        }
    })
}

/// `raw` are the bytes of a frame that is not valid.
fn read_damaged(raw: &[u8]) -> Result<(Broken, Salvaged), DecodeError> {
    let records = raw.get(frame::HEAD..).unwrap_or_default();
    let Some((first, rest)) = records.split_first_chunk::<COPIED_BYTES>() else {
        let unknown_bytes = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let salvaged = Salvaged {
            unknown_bytes,
            ..Salvaged::default()
        };
        return Ok((Broken::Nothing, salvaged));
    };
    let copied = match Record::decode(first) {
        Ok(Record::Copied(copied)) => Some(copied),
        Err(error @ DecodeError::Newer { .. }) => return Err(error),
        _ => None,
    };
    // Only a closing frame holds nothing else.
    if rest.len() < 8 {
        let closing = copied.map_or(Broken::Nothing, |copied| Broken::Close(copied.source));
        return Ok((closing, Salvaged::default()));
    }
    let salvaged = salvage(rest, true)?;
    let lead = Lead::of(raw);
    Ok((Broken::Group { copied, lead }, salvaged))
}

fn end_frame(epoch: u64, lsn: u64) -> Vec<u8> {
    Head {
        kind: Kind::End,
        epoch,
        lsn,
        durable_lsn: lsn - 1,
    }
    .empty_frame()
}

/// Whether so few bytes differ that these are the same, damaged.
fn is_nearly(bytes: &[u8], expected: &[u8]) -> bool {
    let same = bytes.iter().zip(expected).filter(|(a, b)| a == b).count();
    bytes.len() == expected.len() && same + NEARLY_BYTES >= expected.len()
}

/// Where the records of a frame come from, as its first record says.
fn copied_of(records: &[u8]) -> Option<Copied> {
    let (_, bytes) = Records::new(records).next()?.ok()?;
    match Record::decode(bytes) {
        Ok(Record::Copied(copied)) => Some(copied),
        _ => None,
    }
}

/// The *copied* record is written anew.
fn without_copied(mut salvaged: Salvaged) -> Salvaged {
    if copied_of(&salvaged.records).is_some() {
        let first = Records::new(&salvaged.records).next();
        let bytes = first.and_then(Result::ok).map_or(0, |(_, bytes)| bytes.len());
        salvaged.records.drain(..bytes);
        salvaged.saved -= 1;
    }
    salvaged
}

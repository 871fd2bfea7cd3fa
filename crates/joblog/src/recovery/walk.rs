//! Reads the log's frames in order, and decides where it ends.

use super::cold::{self, Cold};
use super::survey::{Found, Survey};
use super::{Damage, OpenError};
use crate::frame::{self, Frame, Kind, Reader, Slot};
use crate::record::{DecodeError, Record, Records};
use crate::segment::FRAMES_AT;
use crate::storage::File;

/// Is shown everything that is read.
pub(crate) trait Visitor {
    /// The frames of the next segment follow.
    fn segment(&mut self, slot: u32);
    /// A valid frame; its records follow.
    fn frame(&mut self);
    /// A record: where it is in its segment, and how long.
    fn record(&mut self, record: &Record<'_>, offset: u64, bytes: usize);
    /// Damage. The walk ends with the error, or goes on behind the damage.
    fn damage(&mut self, damage: Damage) -> Result<(), OpenError>;
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The LSN that comes next.
    pub(crate) next_lsn: u64,
    /// Where the frames of the last segment end.
    pub(crate) offset: u64,
    /// How far the bytes behind it reach that show a torn tail; `offset` if nothing does.
    pub(crate) torn_to: u64,
    /// The last segment has its end frame.
    pub(crate) clean: bool,
}

impl Ending {
    /// Of a last segment without an end frame.
    const fn open(next_lsn: u64, offset: u64, torn_to: u64) -> Self {
        Self {
            next_lsn,
            offset,
            torn_to,
            clean: false,
        }
    }
}

/// Reads all segments: the hot ones in order, and each frame of copies where its records were first written.
pub(crate) fn walk<F: File>(
    survey: &Survey<F>,
    visitor: &mut impl Visitor,
) -> Result<(Ending, Cold), OpenError> {
    let Survey { chain, cold, .. } = survey;
    let copies = cold::read(cold, &survey.numbers(), visitor)?;
    let mut waiting = copies.frames.iter().peekable();
    let mut ending = Ending {
        next_lsn: 1,
        offset: FRAMES_AT,
        torn_to: FRAMES_AT,
        clean: true,
    };
    for (index, found) in chain.iter().enumerate() {
        let first = found.header.first_lsn;
        // The oldest that is left may start anywhere: retention took what was before. Where there are copies any
        // segment may be gone.
        let gap = first > ending.next_lsn && !cold.is_empty();
        if index > 0 && first != ending.next_lsn && !gap {
            let what = format!("it starts with LSN {first}, but {} comes next", ending.next_lsn);
            visitor.damage(damage(found, 32, what))?;
        }
        while let Some(frame) = waiting.next_if(|frame| frame.origin < first) {
            visitor.segment(slot_of(cold_slots(chain) + frame.segment));
            cold::visit(&cold[frame.segment], frame, visitor)?;
        }
        visitor.segment(slot_of(index));
        ending = walk_segment(found, index + 1 == chain.len(), visitor)?;
    }
    for frame in waiting {
        visitor.segment(slot_of(cold_slots(chain) + frame.segment));
        cold::visit(&cold[frame.segment], frame, visitor)?;
    }
    Ok((ending, copies))
}

/// The slot of the first cold segment: there is one hot segment at least, once the start is over.
pub(crate) fn cold_slots<F>(chain: &[Found<F>]) -> usize {
    chain.len().max(1)
}

fn slot_of(index: usize) -> u32 {
    u32::try_from(index).expect("segments are counted in 32 bits")
}

/// Reads a hot segment.
fn walk_segment<F: File>(
    found: &Found<F>,
    last: bool,
    visitor: &mut impl Visitor,
) -> Result<Ending, OpenError> {
    let epoch = found.header.epoch;
    let failed = |error| OpenError::io(&found.name, error);
    let mut reader = Reader::new(&*found.file).map_err(failed)?;
    let (mut offset, mut lsn) = (FRAMES_AT, found.header.first_lsn);
    loop {
        match reader.frame(offset, epoch).map_err(failed)? {
            Slot::Frame(frame) if frame.head.lsn == lsn => {
                visitor.frame();
                show_records(found, &frame, offset, visitor)?;
                offset += frame.bytes;
                lsn += 1;
                if frame.head.kind == Kind::End {
                    return Ok(Ending {
                        next_lsn: lsn,
                        offset,
                        torn_to: offset,
                        clean: true,
                    });
                }
                continue;
            }
            Slot::Newer(version) => {
                let what = format!("frame version {version} at byte {offset}");
                return Err(OpenError::Newer {
                    file: found.name.clone(),
                    what,
                });
            }
            Slot::Frame(_) | Slot::Nothing => {}
        }
        // The rule of docs/log_format.md section 6: a later frame that knew this one synced makes it damage,
        // and so does a later segment.
        let witness = reader
            .find_frame(offset, epoch, |head| head.lsn > lsn && head.durable_lsn >= lsn)
            .map_err(failed)?;
        let what = match witness {
            Some((at, head)) => format!("frame {} at byte {at} says that it was synced", head.lsn),
            None if last => match found.shortened()? {
                Some(what) => {
                    visitor.damage(damage(found, offset, what))?;
                    return Ok(Ending::open(lsn, offset, offset));
                }
                None => break,
            },
            None => "a later segment was begun".to_owned(),
        };
        let what = format!("frame {lsn} is not valid, but {what}");
        visitor.damage(damage(found, offset, what))?;
        // Who only looks goes on behind the damage.
        let next = reader
            .find_frame(offset, epoch, |head| head.lsn > lsn)
            .map_err(failed)?;
        let Some((at, head)) = next else { break };
        (offset, lsn) = (at, head.lsn);
    }
    let torn_to = reader.reach(offset, epoch).map_err(failed)?;
    Ok(Ending::open(lsn, offset, torn_to))
}

fn damage<F>(found: &Found<F>, offset: u64, what: String) -> Damage {
    Damage {
        file: found.name.clone(),
        offset,
        what,
    }
}

pub(super) fn show_records<F>(
    found: &Found<F>,
    frame: &Frame<'_>,
    offset: u64,
    visitor: &mut impl Visitor,
) -> Result<(), OpenError> {
    let records_at = offset + u64::try_from(frame::HEAD).unwrap_or(u64::MAX);
    for item in Records::new(frame.records) {
        let decoded = item.and_then(|(at, bytes)| Ok((at, bytes, Record::decode(bytes)?)));
        match decoded {
            Ok((at, bytes, record)) => {
                visitor.record(
                    &record,
                    records_at + u64::try_from(at).unwrap_or(u64::MAX),
                    bytes.len(),
                );
            }
            Err(error @ DecodeError::Newer { .. }) => {
                return Err(OpenError::Newer {
                    file: found.name.clone(),
                    what: error.to_string(),
                });
            }
            Err(error) => {
                visitor.damage(damage(
                    found,
                    offset,
                    format!("in frame {}: {error}", frame.head.lsn),
                ))?;
            }
        }
    }
    Ok(())
}

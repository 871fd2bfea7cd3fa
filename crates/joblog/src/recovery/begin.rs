//! The segment that a start begins: a copy of the last one, or the very first.
//!
//! The last segment is copied even if it is sealed. A sync that failed leaves frames that can be read until the
//! power goes, and then are gone; whether that happened before this start nobody can tell.

use std::io;
use std::sync::Arc;

use super::cold::{self, Cold};
use super::survey::{Found, Leftover, Survey};
use super::{Cut, Ending, OpenError};
use crate::frame::{self, Head, Kind, Reader, Slot};
use crate::log::{Identity, Options, RandomSource, Segment, Segments, Spare, Spares, Tail, fill};
use crate::segment::{FRAMES_AT, HEADER, Header, Stream, cut_name, filling_name, segment_name, spare_name};
use crate::storage::{File, Storage};

/// So much of the very first segment, and of the first spare, is pre-written: enough for the time until the first spares are ready,
/// little enough that nobody waits for it.
const FIRST_BYTES: u64 = 4 << 20;

/// How many files of cut bytes are kept.
const CUTS_MAX: usize = 16;

/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;

pub(super) struct Begun<F> {
    pub(super) identity: Identity,
    pub(super) segments: Segments<F>,
    pub(super) tail: Tail,
    pub(super) next_lsn: u64,
    pub(super) spares: Spares<F>,
    pub(super) cut: Option<Cut>,
}

/// Begins a segment, durably. After this the directory holds the log, spares, and nothing else of ours.
pub(super) fn begin<S: Storage>(
    storage: &S,
    options: &Options,
    random: &mut RandomSource,
    mut survey: Survey<S::File>,
    (ending, cold): (&Ending, &Cold),
    last_sequence: u64,
) -> Result<Begun<S::File>, OpenError> {
    for name in &survey.filling {
        storage.remove(name).map_err(|error| OpenError::io(name, error))?;
    }
    let cut = keep_cut(storage, &survey, ending)?;
    end_cold(&mut survey, cold)?;
    let last = survey.chain.pop();
    let is_first = last.is_none();
    let number = survey.last_number + 1;
    let header = Header {
        stream: Stream::Hot,
        boot: survey.last_boot + 1,
        number,
        epoch: random(),
        first_lsn: last
            .as_ref()
            .map_or(ending.next_lsn, |last| last.header.first_lsn),
        replaces: last.as_ref().map_or(0, |last| last.header.number),
        node: survey.node.unwrap_or_else(&mut *random),
        sequence: last_sequence,
        file_bytes: 0,
    };
    let Found { name, file, header } = begin_file(storage, options, &mut survey, header)?;
    let (mut offset, mut next_lsn) = (FRAMES_AT, ending.next_lsn);
    if let Some(last) = last {
        offset = copy(&last, &*file, header.epoch, ending).map_err(|error| OpenError::io(&name, error))?;
        next_lsn += 1;
        survey.leftovers.push(Leftover {
            name: last.name,
            file: last.file,
        });
    }
    let mut spares = keep_spares(storage, options, &mut survey)?;
    if is_first && options.spares > 0 && spares.bytes() == 0 {
        let number = spares.name_next();
        spares.put(first_spare(storage, options, number)?);
    }
    let slot = u32::try_from(survey.chain.len()).expect("segments are counted in 32 bits");
    let begun = Found { name, file, header };
    let segments = list(survey.chain.into_iter().chain([begun]).chain(survey.cold))?;
    let identity = Identity {
        node: header.node,
        boot: header.boot,
        next_number: number + 1,
        last_sequence,
    };
    let tail = Tail {
        slot,
        epoch: header.epoch,
        offset,
        sealed: false,
        exhausted: false,
    };
    Ok(Begun {
        identity,
        segments,
        tail,
        next_lsn,
        spares,
        cut,
    })
}

/// The segments by slot: the hot ones, then the cold ones.
fn list<F: File>(all: impl Iterator<Item = Found<F>>) -> Result<Segments<F>, OpenError> {
    let mut segments = Segments::new();
    for found in all {
        let Found { name, file, header } = found;
        let bytes = file.len().map_err(|error| OpenError::io(&name, error))?;
        segments.push(Segment {
            name,
            number: header.number,
            epoch: header.epoch,
            stream: header.stream,
            first_lsn: header.first_lsn,
            file,
            bytes,
            copied: None,
            stays: false,
        });
    }
    Ok(segments)
}

/// The cold segments take no more frames: the next copy begins another. What does not count in the last of them must
/// never count, so an end frame is put before it; if nothing in it counts, its file is free.
fn end_cold<F: File>(survey: &mut Survey<F>, cold: &Cold) -> Result<(), OpenError> {
    if cold.last_is_free
        && let Some(Found { name, file, .. }) = survey.cold.pop()
    {
        survey.leftovers.push(Leftover { name, file });
    }
    if let (Some(open), Some(last)) = (cold.open, survey.cold.last()) {
        cold::end(last, open).map_err(|error| OpenError::io(&last.name, error))?;
    }
    Ok(())
}

/// Gives a file its header, then the segment's name, each durable before the next step: what goes wrong with a
/// header that has no segment's name yet is no damage. The header says how long the file is.
fn begin_file<S: Storage>(
    storage: &S,
    options: &Options,
    survey: &mut Survey<S::File>,
    header: Header,
) -> Result<Found<S::File>, OpenError> {
    let name = segment_name(header.number);
    let failed = |error| OpenError::io(&name, error);
    let Leftover { name: source, file } = take_file(storage, options, survey)?;
    // A file may have been a segment until its last rename, which need not be durable: then its end may count.
    storage.sync_dir().map_err(failed)?;
    hold_length(&*file).map_err(failed)?;
    let file_bytes = file.len().map_err(failed)?;
    let header = Header { file_bytes, ..header };
    file.write_at(&header.encode(), 0).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    storage.rename(&source, &name).map_err(failed)?;
    storage.sync_dir().map_err(failed)?;
    Ok(Found { name, file, header })
}

/// Writes the end of a free file anew. After a sync that failed the file may be longer than it is after a power cut;
/// so the next sync, that of a header, makes the length durable that the header tells of.
fn hold_length<F: File>(file: &F) -> io::Result<()> {
    let zeros = [0; HEADER];
    match file.len()?.checked_sub(FRAMES_AT) {
        Some(at) => file.write_at(&zeros, at),
        None => Ok(()),
    }
}

/// Copies the frames of the last segment, the same LSNs at the same offsets, and closes the copy. Returns where
/// it ends.
fn copy<F: File>(from: &Found<F>, to: &F, epoch: u64, ending: &Ending) -> io::Result<u64> {
    let mut reader = Reader::new(&*from.file)?;
    let mut offset = FRAMES_AT;
    let (mut block, mut block_at) = (Vec::new(), offset);
    while offset < ending.offset {
        let Slot::Frame(frame) = reader.frame(offset, from.header.epoch)? else {
            return Err(io::Error::other(
                "a frame of its predecessor was valid a moment ago and is not any more",
            ));
        };
        // What ended a segment or a copy says nothing here.
        let kind = if frame.head.kind == Kind::Group {
            Kind::Group
        } else {
            Kind::Mark
        };
        let mut copied = vec![0; frame::HEAD];
        copied.extend_from_slice(frame.records);
        Head {
            kind,
            epoch,
            durable_lsn: 0,
            ..frame.head
        }
        .seal(&mut copied);
        block.extend_from_slice(&copied);
        offset += frame.bytes;
        if block.len() >= COPY_BYTES || offset >= ending.offset {
            to.write_at(&block, block_at)?;
            block.clear();
            block_at = offset;
        }
    }
    to.sync_data()?;
    // Only now is the copy complete: this frame says so.
    let lsn = ending.next_lsn;
    let frame = Head {
        kind: Kind::Copy,
        epoch,
        lsn,
        durable_lsn: lsn - 1,
    }
    .empty_frame();
    to.write_at(&frame, offset)?;
    to.sync_data()?;
    Ok(offset + u64::try_from(frame.len()).map_err(io::Error::other)?)
}

/// A file for the new segment: a spare, or what is free anyway, or a new one.
fn take_file<S: Storage>(
    storage: &S,
    options: &Options,
    survey: &mut Survey<S::File>,
) -> Result<Leftover<S::File>, OpenError> {
    // The longest: the copy of the last segment may find no other room.
    survey.spares.sort_by_key(|spare| spare.file.len().unwrap_or(0));
    if let Some(file) = survey.spares.pop().or_else(|| survey.leftovers.pop()) {
        return Ok(file);
    }
    survey.last_spare += 1;
    let name = filling_name(survey.last_spare);
    let file = storage
        .create(&name)
        .map_err(|error| OpenError::io(&name, error))?;
    // A segment that cannot be pre-written grows as it is used.
    match fill(&file, FIRST_BYTES.min(options.segment_bytes)) {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(OpenError::io(&name, error)),
        _ => Ok(Leftover {
            name,
            file: Arc::new(file),
        }),
    }
}

/// The spare of a directory that is new, before the first job: were the disk full a moment later, the next start would
/// find no room.
fn first_spare<S: Storage>(storage: &S, options: &Options, number: u64) -> Result<Spare<S::File>, OpenError> {
    let (filling, name) = (filling_name(number), spare_name(number));
    let failed = |error| OpenError::io(&filling, error);
    let file = storage.create(&filling).map_err(failed)?;
    let bytes = FIRST_BYTES.min(options.segment_bytes);
    fill(&file, bytes).map_err(failed)?;
    storage.rename(&filling, &name).map_err(failed)?;
    storage.sync_dir().map_err(failed)?;
    Ok(Spare {
        name,
        file: Arc::new(file),
        bytes,
    })
}

/// Gives every file that is free a spare's name: a replaced segment must not be read again once the
/// one that replaces it is gone. Removes what is too many, too short or too long.
fn keep_spares<S: Storage>(
    storage: &S,
    options: &Options,
    survey: &mut Survey<S::File>,
) -> Result<Spares<S::File>, OpenError> {
    let mut ready = Vec::new();
    let free = survey.spares.drain(..).map(|file| (file, false));
    for (Leftover { name, file }, rename) in free.chain(survey.leftovers.drain(..).map(|file| (file, true))) {
        let failed = |error| OpenError::io(&name, error);
        let bytes = file.len().map_err(failed)?;
        if ready.len() >= options.spares || !options.fits_a_segment(bytes) {
            storage.remove(&name).map_err(failed)?;
            continue;
        }
        let mut spare = name.clone();
        if rename {
            survey.last_spare += 1;
            spare = spare_name(survey.last_spare);
            storage.rename(&name, &spare).map_err(failed)?;
        }
        ready.push(Spare {
            name: spare,
            file,
            bytes,
        });
    }
    storage
        .sync_dir()
        .map_err(|error| OpenError::io("the directory", error))?;
    // Only now that their names are durable: under an older one the end of a file may count.
    let mut held = Vec::new();
    for spare in ready {
        match hold_length(&*spare.file) {
            Ok(()) => held.push(spare),
            // A full disk must not prevent a start.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let removed = storage.remove(&spare.name);
                removed.map_err(|error| OpenError::io(&spare.name, error))?;
            }
            Err(error) => return Err(OpenError::io(&spare.name, error)),
        }
    }
    Ok(Spares::new(held, survey.last_spare + 1, options.spares))
}

/// Keeps the bytes of a torn tail in a file of their own, for a person to look at.
fn keep_cut<S: Storage>(
    storage: &S,
    survey: &Survey<S::File>,
    ending: &Ending,
) -> Result<Option<Cut>, OpenError> {
    let Some(last) = survey.chain.last().filter(|_| ending.torn_to > ending.offset) else {
        return Ok(None);
    };
    let mut cuts = survey.cuts.clone();
    cuts.sort_unstable();
    for (_, _, old) in cuts.iter().take(cuts.len().saturating_sub(CUTS_MAX - 1)) {
        storage.remove(old).map_err(|error| OpenError::io(old, error))?;
    }
    let bytes = ending.torn_to - ending.offset;
    let name = cut_name(last.header.number, ending.offset);
    let kept = match write_cut(storage, &name, last, ending.offset, bytes) {
        Ok(()) => Some(name),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            // Half of it is of no use, and a full disk must not prevent a start.
            match storage.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OpenError::io(&name, error));
                }
                _ => None,
            }
        }
        Err(error) => return Err(OpenError::io(&name, error)),
    };
    Ok(Some(Cut {
        file: last.name.clone(),
        offset: ending.offset,
        bytes,
        kept,
    }))
}

fn write_cut<S: Storage>(
    storage: &S,
    name: &str,
    from: &Found<S::File>,
    offset: u64,
    bytes: u64,
) -> io::Result<()> {
    // A start that crashed after this point cuts the same bytes again.
    let file = match storage.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => storage.open(name)?,
        created => created?,
    };
    let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    from.file.read_at(&mut content, offset)?;
    file.write_at(&content, 0)?;
    file.sync_data()
}

//! Carries a plan out: everything is written and synced under other names before any segment's name changes hands.

use std::io;

use super::scan::Piece;
use super::{RepairError, Step};
use crate::frame::{self, Head, Kind};
use crate::segment::{FRAMES_AT, HEADER, Header, mending_name};
use crate::storage::{File, Storage};

/// How much is copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// How many empty frames are written at once: about as many bytes.
const BLANKS_AT_ONCE: u64 = 25_000;

pub(super) fn carry_out<S: Storage>(storage: &S, steps: &[Step]) -> Result<(), RepairError> {
    let failed = |file: &str| {
        let file = file.to_owned();
        move |source| RepairError::Write { file, source }
    };
    clear(storage).map_err(failed("the directory"))?;
    for step in steps {
        if let Err((file, source)) = prepare(storage, step) {
            // A full disk shall not stay full for our sake; what cannot be removed is removed the next time.
            clear(storage).ok();
            return Err(RepairError::Write { file, source });
        }
    }
    // Law: every byte that is kept or mended is durable before a damaged one loses its name.
    storage.sync_dir().map_err(failed("the directory"))?;
    for step in steps {
        let (from, to) = match step {
            Step::Mend { name, number, .. } | Step::Fill { name, number, .. } => {
                (mending_name(*number), name)
            }
            Step::Aside { name, kept } => (name.clone(), kept),
        };
        storage.rename(&from, to).map_err(failed(to))?;
        storage.sync_dir().map_err(failed("the directory"))?;
    }
    Ok(())
}

/// Removes what a repair that was cut off left half written.
fn clear<S: Storage>(storage: &S) -> io::Result<()> {
    for name in storage.list()? {
        if name.starts_with("mending-") {
            storage.remove(&name)?;
        }
    }
    Ok(())
}

fn prepare<S: Storage>(storage: &S, step: &Step) -> Result<(), (String, io::Error)> {
    match step {
        Step::Aside { .. } => Ok(()),
        Step::Mend {
            name,
            number,
            header,
            header_kept,
            pieces,
            kept,
        } => {
            let source = storage.open(name).map_err(|error| (name.clone(), error))?;
            for (offset, bytes, keeper) in kept {
                keep(storage, &source, *offset, *bytes, keeper).map_err(|error| (keeper.clone(), error))?;
            }
            let mut sector = header.encode();
            if *header_kept {
                source
                    .read_at(&mut sector, 0)
                    .map_err(|error| (name.clone(), error))?;
            }
            write_segment(storage, *number, &sector, header, pieces, Some(&source))
        }
        Step::Fill {
            number,
            header,
            pieces,
            ..
        } => write_segment(storage, *number, &header.encode(), header, pieces, None),
    }
}

fn keep<S: Storage>(storage: &S, source: &S::File, offset: u64, bytes: u64, keeper: &str) -> io::Result<()> {
    let file = storage.create(keeper)?;
    copy(source, offset, bytes, &file, 0)?;
    file.sync_data()
}

fn write_segment<S: Storage>(
    storage: &S,
    number: u64,
    sector: &[u8; HEADER],
    header: &Header,
    pieces: &[Piece],
    source: Option<&S::File>,
) -> Result<(), (String, io::Error)> {
    let name = mending_name(number);
    let write = || {
        let file = storage.create(&name)?;
        file.write_at(sector, 0)?;
        let mut end = FRAMES_AT;
        for piece in pieces {
            end = write_piece(&file, end, header.epoch, piece, source)?;
        }
        file.sync_data()
    };
    write().map_err(|error| (name.clone(), error))
}

/// Writes a piece at `at`; returns where it ends.
fn write_piece<F: File>(file: &F, at: u64, epoch: u64, piece: &Piece, source: Option<&F>) -> io::Result<u64> {
    // All before it is synced when it gets the segment's name, so each may say so.
    let head = |kind, lsn: u64| Head {
        kind,
        epoch,
        lsn,
        durable_lsn: lsn - 1,
    };
    let frames = match piece {
        Piece::Keep { offset, bytes } => {
            let source = source.ok_or_else(|| io::Error::other("there is nothing to copy from"))?;
            copy(source, *offset, *bytes, file, at)?;
            return Ok(at + bytes);
        }
        Piece::Saved { lsn, records } => {
            let mut frame = vec![0; frame::HEAD];
            frame.extend_from_slice(records);
            head(Kind::Group, *lsn).seal(&mut frame);
            frame
        }
        Piece::Blank { first_lsn, count } => {
            let (mut at, mut lsn, last) = (at, *first_lsn, first_lsn + count);
            // A missing segment may have been millions of frames.
            while lsn < last {
                let block = lsn..last.min(lsn + BLANKS_AT_ONCE);
                lsn = block.end;
                let frames: Vec<u8> = block
                    .flat_map(|lsn| head(Kind::Mark, lsn).empty_frame())
                    .collect();
                at = write(file, at, &frames)?;
            }
            return Ok(at);
        }
        Piece::End { lsn } => head(Kind::End, *lsn).empty_frame(),
    };
    write(file, at, &frames)
}

/// Writes frames at `at`; returns where they end.
fn write<F: File>(file: &F, at: u64, frames: &[u8]) -> io::Result<u64> {
    file.write_at(frames, at)?;
    Ok(at + u64::try_from(frames.len()).map_err(io::Error::other)?)
}

fn copy<F: File>(from: &F, offset: u64, bytes: u64, to: &F, at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes {
        let block = (bytes - done).min(COPY_BYTES);
        let mut buffer = vec![0; usize::try_from(block).map_err(io::Error::other)?];
        from.read_at(&mut buffer, offset + done)?;
        to.write_at(&buffer, at + done)?;
        done += block;
    }
    Ok(())
}

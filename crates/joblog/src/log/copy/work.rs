//! The I/O of a copy, carried out away from the log: reading frames, writing frames, beginning a cold segment.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::CHUNK_BYTES;
use crate::frame::{self, Kind, Reader, Slot};
use crate::log::commit::{final_error, write_or_cut};
use crate::mutants::{Mutant, active};
use crate::segment::HEADER;
use crate::storage::{File, Storage};

/// Frames as they were read.
pub(in crate::log) struct Chunk {
    /// Offset of the records in the segment, and the records.
    pub(super) frames: VecDeque<(u64, Vec<u8>)>,
    /// How far the records of the first of them are judged.
    pub(super) judged: usize,
    pub(super) next_offset: u64,
    pub(super) end: ChunkEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkEnd {
    More,
    End,
    /// A frame that was synced is not valid any more.
    Damage,
}

/// What a chore of the copy does.
pub(in crate::log) enum CopyWork<F> {
    /// Begins a cold segment, after it sealed the one before.
    Begin {
        end: Option<Write<F>>,
        file: Arc<F>,
        from: String,
        to: String,
        header: Box<[u8; HEADER]>,
    },
    /// Writes and syncs frames, then reads some.
    Piece {
        write: Option<Write<F>>,
        read: Option<Read<F>>,
    },
}

pub(in crate::log) struct Write<F> {
    pub(super) file: Arc<F>,
    pub(super) offset: u64,
    pub(super) bytes: Arc<Vec<u8>>,
}

pub(in crate::log) struct Read<F> {
    pub(super) file: Arc<F>,
    pub(super) epoch: u64,
    pub(super) offset: u64,
    pub(super) chunk: Arc<Mutex<Option<Chunk>>>,
}

impl<F: File> Write<F> {
    fn run(&self) -> io::Result<()> {
        write_or_cut(&*self.file, &self.bytes, self.offset)?;
        if active(Mutant::UnsyncedCopy) {
            return Ok(());
        }
        self.file.sync_data().map_err(final_error)
    }
}

impl<F: File> Read<F> {
    fn run(&self) -> io::Result<()> {
        let mut reader = Reader::with_block(&*self.file, CHUNK_BYTES).map_err(final_error)?;
        let mut chunk = Chunk {
            frames: VecDeque::new(),
            judged: 0,
            next_offset: self.offset,
            end: ChunkEnd::More,
        };
        let mut bytes = 0;
        while chunk.end == ChunkEnd::More && bytes < CHUNK_BYTES {
            let Slot::Frame(frame) = reader.frame(chunk.next_offset, self.epoch).map_err(final_error)? else {
                chunk.end = ChunkEnd::Damage;
                break;
            };
            let records_at = chunk.next_offset + 40;
            chunk.frames.push_back((records_at, frame.records.to_vec()));
            bytes += frame.records.len() + frame::HEAD;
            chunk.next_offset += frame.bytes;
            if frame.head.kind == Kind::End {
                chunk.end = ChunkEnd::End;
            }
        }
        *self.chunk.lock().unwrap_or_else(PoisonError::into_inner) = Some(chunk);
        Ok(())
    }
}

impl<F: File> CopyWork<F> {
    pub(in crate::log) fn run<S: Storage<File = F>>(&self, storage: &S) -> io::Result<()> {
        match self {
            Self::Begin {
                end,
                file,
                from,
                to,
                header,
            } => {
                if let Some(end) = end {
                    end.run()?;
                }
                file.write_at(&header[..], 0).map_err(final_error)?;
                file.sync_data().map_err(final_error)?;
                storage.rename(from, to).map_err(final_error)?;
                storage.sync_dir().map_err(final_error)
            }
            Self::Piece { write, read } => {
                if let Some(write) = write {
                    write.run()?;
                }
                read.as_ref().map_or(Ok(()), Read::run)
            }
        }
    }
}

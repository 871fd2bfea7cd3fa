//! A directory as it will be once a plan is carried out.
//!
//! In: the steps of a plan, and the files as they are. Out: the same files with the mended ones in place of the damaged
//! ones, made as they are read. What is counted before a repair is read from here, and what a repair writes is copied
//! from here: so it says what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::{Piece, Step};
use crate::frame::{self, Head, Kind};
use crate::record::{Copied, Record};
use crate::segment::{FRAMES_AT, HEADER, Header, limit_file_bytes};
use crate::storage::{File, Storage};

/// A frame without records.
const EMPTY_BYTES: u64 = 40;

/// A mended segment: its bytes are made when they are read.
pub(super) struct Image<F> {
    original: Option<F>,
    parts: Vec<Part>,
    bytes: u64,
}

struct Part {
    start: u64,
    bytes: u64,
    what: What,
}

enum What {
    /// Bytes of the damaged segment, from there on.
    Original(u64),
    Bytes(Vec<u8>),
    /// Marks, the first with this LSN.
    Marks {
        first_lsn: u64,
        epoch: u64,
    },
}

impl<F: File> Image<F> {
    /// The segment of this header and these pieces. `sector`: its header as it was read, if that stays.
    pub(super) fn new(
        header: &Header,
        sector: Option<[u8; HEADER]>,
        pieces: &[Piece],
        original: Option<F>,
    ) -> Self {
        let mut image = Self {
            original,
            parts: Vec::new(),
            bytes: 0,
        };
        image.push(FRAMES_AT, What::Bytes(Vec::new()));
        for piece in pieces {
            image.piece(header.epoch, piece);
        }
        let mut sector = sector.unwrap_or_else(|| header.encode());
        limit_file_bytes(&mut sector, image.bytes);
        image.parts[0].what = What::Bytes(sector.to_vec());
        image
    }

    fn push(&mut self, bytes: u64, what: What) {
        let start = self.bytes;
        self.parts.push(Part { start, bytes, what });
        self.bytes += bytes;
    }

    fn piece(&mut self, epoch: u64, piece: &Piece) {
        let frame = match piece {
            Piece::Keep { offset, bytes } => return self.push(*bytes, What::Original(*offset)),
            Piece::Blank { first_lsn, count } => {
                let first_lsn = *first_lsn;
                return self.push(count * EMPTY_BYTES, What::Marks { first_lsn, epoch });
            }
            Piece::Saved { lsn, records } => frame(Kind::Group, epoch, *lsn, records),
            Piece::Close { lsn, source } => {
                let (mut record, source, origin) = (Vec::new(), *source, 0);
                Record::Copied(Copied { source, origin }).encode(&mut record);
                frame(Kind::Copy, epoch, *lsn, &record)
            }
            Piece::End { lsn } => frame(Kind::End, epoch, *lsn, &[]),
        };
        self.push(u64::try_from(frame.len()).unwrap_or(u64::MAX), What::Bytes(frame));
    }
}

/// All before it is synced when it gets the segment's name, so each may say so.
fn frame(kind: Kind, epoch: u64, lsn: u64, records: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; frame::HEAD];
    frame.extend_from_slice(records);
    Head {
        kind,
        epoch,
        lsn,
        durable_lsn: lsn - 1,
    }
    .seal(&mut frame);
    frame
}

impl Part {
    /// Fills `buffer`, which lies in this part, from `at` on in it.
    fn read<F: File>(&self, original: Option<&F>, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &self.what {
            What::Original(offset) => {
                let original = original.ok_or(io::ErrorKind::NotFound)?;
                original.read_at(buffer, offset + at)
            }
            What::Bytes(bytes) => {
                let start = usize::try_from(at).map_err(io::Error::other)?;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            What::Marks { first_lsn, epoch } => {
                let mut lsn = first_lsn + at / EMPTY_BYTES;
                let mut skip = usize::try_from(at % EMPTY_BYTES).map_err(io::Error::other)?;
                let mut done = 0;
                while done < buffer.len() {
                    let mark = frame(Kind::Mark, *epoch, lsn, &[]);
                    let taken = (mark.len() - skip).min(buffer.len() - done);
                    buffer[done..done + taken].copy_from_slice(&mark[skip..skip + taken]);
                    done += taken;
                    skip = 0;
                    lsn += 1;
                }
                Ok(())
            }
        }
    }
}

impl<F: File> File for Image<F> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buffer;
        let mut part = self.parts.partition_point(|part| part.start + part.bytes <= at);
        while !rest.is_empty() {
            let Some(here) = self.parts.get(part) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let inside = at - here.start;
            let left = usize::try_from(here.bytes - inside).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(left.min(rest.len()));
            here.read(self.original.as_ref(), now, inside)?;
            at += u64::try_from(now.len()).map_err(io::Error::other)?;
            rest = later;
            part += 1;
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The files of a directory after these steps, to be read only.
pub(super) struct Mended<S: Storage> {
    storage: S,
    images: Arc<BTreeMap<String, Arc<Image<S::File>>>>,
    /// Files that are put aside.
    aside: Arc<BTreeSet<String>>,
}

impl<S: Storage> Clone for Mended<S> {
    fn clone(&self) -> Self {
        Self {
            storage: self.storage.clone(),
            images: Arc::clone(&self.images),
            aside: Arc::clone(&self.aside),
        }
    }
}

impl<S: Storage> Mended<S> {
    pub(super) fn new(storage: &S, steps: &[Step]) -> io::Result<Self> {
        let mut images = BTreeMap::new();
        let mut aside = BTreeSet::new();
        for step in steps {
            match step {
                Step::Aside { name, .. } => drop(aside.insert(name.clone())),
                Step::Mend { name, .. } | Step::Fill { name, .. } => {
                    images.insert(name.clone(), Arc::new(image_of(storage, step)?));
                }
            }
        }
        Ok(Self {
            storage: storage.clone(),
            images: Arc::new(images),
            aside: Arc::new(aside),
        })
    }
}

/// What a step that writes a segment writes.
pub(super) fn image_of<S: Storage>(storage: &S, step: &Step) -> io::Result<Image<S::File>> {
    match step {
        Step::Mend {
            name,
            header,
            header_kept,
            pieces,
            ..
        } => {
            let original = storage.open(name)?;
            let mut sector = [0; HEADER];
            let sector = if *header_kept {
                original.read_at(&mut sector, 0)?;
                Some(sector)
            } else {
                None
            };
            Ok(Image::new(header, sector, pieces, Some(original)))
        }
        Step::Fill { header, pieces, .. } => Ok(Image::new(header, None, pieces, None)),
        Step::Aside { .. } => Err(io::ErrorKind::NotFound.into()),
    }
}

/// A file as it will be.
pub(super) enum Shown<F> {
    AsItIs(F),
    Image(Arc<Image<F>>),
}

impl<F: File> File for Shown<F> {
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::AsItIs(file) => file.len(),
            Self::Image(image) => image.len(),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::AsItIs(file) => file.read_at(buffer, offset),
            Self::Image(image) => image.read_at(buffer, offset),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Storage> Storage for Mended<S> {
    type File = Shown<S::File>;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.storage.list()?.into_iter().collect();
        names.retain(|name| !self.aside.contains(name));
        names.extend(self.images.keys().cloned());
        Ok(names.into_iter().collect())
    }

    fn open(&self, name: &str) -> io::Result<Shown<S::File>> {
        match self.images.get(name) {
            Some(image) => Ok(Shown::Image(Arc::clone(image))),
            None => self.storage.open(name).map(Shown::AsItIs),
        }
    }

    fn create(&self, _: &str) -> io::Result<Shown<S::File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

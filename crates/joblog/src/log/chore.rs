//! Work in the background: making spares, and letting segments go. One chore at a time.

use std::io;

use super::commit::final_error;
use super::{Log, Spare};
use crate::segment::{filling_name, spare_name};
use crate::storage::{File, Storage};
use crate::time::Now;

/// How much is written at once when a spare is filled.
const FILL_BYTES: usize = 1 << 20;

/// A piece of work that takes time. Call [`Chore::run`] on a thread of its own, then tell the log.
pub struct Chore<S: Storage> {
    storage: S,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// Write a file of zeros, then give it a spare's name.
    Fill {
        filling: String,
        spare: String,
        bytes: u64,
    },
    /// Rename a dead segment to a spare.
    Recycle { segment: String, spare: String },
    /// Remove a dead segment.
    Remove { segment: String },
}

/// The chore that is out.
pub(super) struct Running(Work);

impl<S: Storage> Chore<S> {
    /// Does the work. Takes as long as the disk does.
    ///
    /// # Errors
    /// `StorageFull`: nothing of it is left. Any other error is final: the log takes no more records once it is told.
    pub fn run(&self) -> io::Result<()> {
        match &self.work {
            Work::Fill {
                filling,
                spare,
                bytes,
            } => {
                let file = self.storage.create(filling).map_err(or_final)?;
                if let Err(error) = fill(&file, *bytes) {
                    // What it took is given back at once: somebody else may need it more.
                    self.storage.remove(filling).map_err(final_error)?;
                    return Err(error);
                }
                self.storage.rename(filling, spare).map_err(final_error)?;
            }
            Work::Recycle { segment, spare } => self.storage.rename(segment, spare).map_err(final_error)?,
            Work::Remove { segment } => self.storage.remove(segment).map_err(final_error)?,
        }
        self.storage.sync_dir().map_err(final_error)
    }
}

/// Writes zeros and syncs them.
pub(crate) fn fill<F: File>(file: &F, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let part = usize::try_from(bytes - offset).map_or(FILL_BYTES, |left| left.min(FILL_BYTES));
        file.write_at(&zeros[..part], offset).map_err(or_final)?;
        offset += u64::try_from(part).map_err(io::Error::other)?;
    }
    file.sync_data().map_err(final_error)
}

/// Only "no room" may be tried again.
fn or_final(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::StorageFull {
        error
    } else {
        final_error(error)
    }
}

impl<S: Storage> Log<S> {
    /// The next chore to carry out, if one is due and none is out.
    pub fn next_chore(&mut self) -> Option<Chore<S>> {
        if self.chore.is_some() || self.poisoned.is_some() {
            return None;
        }
        let work = self.retire().or_else(|| self.prepare())?;
        self.chore = Some(Running(work.clone()));
        Some(Chore {
            storage: self.storage.clone(),
            work,
        })
    }

    /// The answer to [`Chore::run`].
    pub fn chore_done(&mut self, result: io::Result<()>, now: Now) {
        self.now = now;
        let Some(Running(work)) = self.chore.take() else {
            return;
        };
        match (result, work) {
            (Ok(()), Work::Fill { spare, .. }) => match self.storage.open(&spare) {
                Ok(file) => {
                    self.spares.put(Spare {
                        name: spare,
                        file: file.into(),
                    });
                    self.room_found();
                }
                Err(error) => self.poison(format!("a spare segment does not open: {error}")),
            },
            (Ok(()), Work::Recycle { spare, .. }) => {
                if let Some(segment) = self.drop_oldest_segment() {
                    self.spares.put(Spare {
                        name: spare,
                        file: segment.file,
                    });
                }
                self.room_found();
            }
            (Ok(()), Work::Remove { .. }) => {
                self.drop_oldest_segment();
                self.room_found();
            }
            (Err(error), Work::Fill { .. }) if error.kind() == io::ErrorKind::StorageFull => {
                self.spares.spare_failed(now);
            }
            (Err(error), work) => self.poison(format!("{work:?} failed: {error}")),
        }
    }

    /// Segments go from the oldest on, when nothing in them is live: see `retention`.
    fn retire(&mut self) -> Option<Work> {
        if self.segments.len() < 2 || !self.index.oldest_is_dead() {
            return None;
        }
        let oldest = self.segments.front()?;
        let segment = oldest.name.clone();
        // A file that was not written to its full length is no use as a spare.
        let full_length = oldest.bytes >= self.options.segment_bytes;
        if full_length && self.spares.wants_more() {
            let spare = spare_name(self.spares.name_next());
            return Some(Work::Recycle { segment, spare });
        }
        Some(Work::Remove { segment })
    }

    fn prepare(&mut self) -> Option<Work> {
        if !self.spares.wants_more() || !self.spares.may_try(self.now.mono) {
            return None;
        }
        let number = self.spares.name_next();
        let (filling, spare) = (filling_name(number), spare_name(number));
        Some(Work::Fill {
            filling,
            spare,
            bytes: self.options.segment_bytes,
        })
    }

    fn drop_oldest_segment(&mut self) -> Option<super::Segment<S::File>> {
        let segment = self.segments.pop_front()?;
        self.settings.segment_gone(self.first_slot);
        self.first_slot += 1;
        self.index.drop_oldest_segment();
        Some(segment)
    }
}

//! Work in the background: making spares, and letting segments go. One chore at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::commit::final_error;
use super::copy::{CopyDone, CopyWork};
use super::{Closing, Log, Space, Spare};
use crate::segment::{Stream, filling_name, spare_name};
use crate::storage::{File, Storage};
use crate::time::Now;

/// How much is written at once when a spare is filled.
const FILL_BYTES: usize = 1 << 20;

/// How much of a spare is synced at once.
const SYNC_BYTES: usize = 8 << 20;

/// Copying begins when the segments are longer than so many times what is live in them.
const LIVE_PART: u64 = 3;

/// A piece of work that takes time. Call [`Chore::run`] on a thread of its own, then tell the log.
pub struct Chore<S: Storage> {
    storage: S,
    work: Work<S::File>,
    stopped: Arc<AtomicBool>,
}

enum Work<F> {
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
    /// A piece of a copy.
    Copy(CopyWork<F>),
}

/// What is to be done, and what follows from it.
type Due<F> = (Work<F>, Running<F>);

/// The chore that is out, and what follows from it.
pub(super) enum Running<F> {
    Fill {
        spare: String,
    },
    /// The segment goes; its file becomes this spare, or nothing.
    Retire {
        slot: u32,
        spare: Option<String>,
    },
    Copy(CopyDone<F>),
}

impl<S: Storage> Chore<S> {
    /// Does the work. Takes as long as the disk does.
    ///
    /// # Errors
    /// `StorageFull`: nothing of it is left; nor if it was `Interrupted`, as the log is closed. Any other error is final: the log takes no more records once it is told.
    pub fn run(&self) -> io::Result<()> {
        match &self.work {
            Work::Fill {
                filling,
                spare,
                bytes,
            } => {
                let file = self.storage.create(filling).map_err(or_final)?;
                if let Err(error) = fill_unless(&file, *bytes, &self.stopped) {
                    // What it took is given back at once: somebody else may need it more.
                    self.storage.remove(filling).map_err(final_error)?;
                    return Err(error);
                }
                self.storage.rename(filling, spare).map_err(final_error)?;
            }
            Work::Recycle { segment, spare } => self.storage.rename(segment, spare).map_err(final_error)?,
            Work::Remove { segment } => self.storage.remove(segment).map_err(final_error)?,
            Work::Copy(work) => return work.run(&self.storage),
        }
        self.storage.sync_dir().map_err(final_error)
    }
}

/// Writes zeros and syncs them.
pub(crate) fn fill<F: File>(file: &F, bytes: u64) -> io::Result<()> {
    fill_unless(file, bytes, &AtomicBool::new(false))
}

/// The same, unless the log is closed meanwhile. It is synced in parts: so the end of a process waits for one of them
/// at most.
fn fill_unless<F: File>(file: &F, bytes: u64, stopped: &AtomicBool) -> io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    let (mut offset, mut unsynced) = (0, 0);
    while offset < bytes {
        if stopped.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let part = usize::try_from(bytes - offset).map_or(FILL_BYTES, |left| left.min(FILL_BYTES));
        file.write_at(&zeros[..part], offset).map_err(or_final)?;
        offset += u64::try_from(part).map_err(io::Error::other)?;
        unsynced += part;
        if unsynced >= SYNC_BYTES && offset < bytes {
            file.sync_data().map_err(final_error)?;
            unsynced = 0;
        }
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
        // A log that is being closed needs no more than the segment that something in its queue waits for.
        let closes = self.closing != Closing::Open && self.queue.is_empty();
        if self.chore.is_some() || self.poisoned.is_some() || closes {
            return None;
        }
        // What is live decides which segments go.
        self.enter_durable();
        let (work, running) = self
            .retire()
            // Commits wait for spares, nobody for a copy.
            .or_else(|| self.prepare())
            .or_else(|| self.copy())
            // Of what was just read nothing may have to stay.
            .or_else(|| self.retire())?;
        self.chore = Some(running);
        Some(Chore {
            storage: self.storage.clone(),
            work,
            stopped: Arc::clone(&self.stopped),
        })
    }

    /// The answer to [`Chore::run`].
    pub fn chore_done(&mut self, result: io::Result<()>, now: Now) {
        self.now = now;
        let Some(running) = self.chore.take() else {
            return;
        };
        if self.closing == Closing::Done {
            return;
        }
        if let Err(error) = result {
            self.chore_failed(running, &error);
            return;
        }
        match running {
            Running::Fill { spare } => match self.storage.open(&spare) {
                Ok(file) => {
                    self.spares.put(Spare {
                        name: spare,
                        file: file.into(),
                        bytes: self.options.segment_bytes,
                    });
                    self.room_found();
                }
                Err(error) => self.poison(format!("a spare segment does not open: {error}")),
            },
            Running::Retire { slot, spare } => {
                let segment = self.segment_gone(slot);
                if let (Some(segment), Some(name)) = (segment, spare) {
                    let super::Segment { file, bytes, .. } = segment;
                    self.spares.put(Spare { name, file, bytes });
                }
                self.room_found();
            }
            Running::Copy(done) => self.copy_piece_done(done),
        }
    }

    fn chore_failed(&mut self, running: Running<S::File>, error: &io::Error) {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let what = match running {
            Running::Fill { .. } if full => {
                self.spares.spare_failed(self.now);
                // Results are what can be spared: new work is worth more than old answers.
                self.index.shed_bytes(self.options.segment_bytes);
                return;
            }
            Running::Copy(done) if full => {
                self.copy_found_full(done);
                return;
            }
            Running::Fill { .. } => "making a spare",
            Running::Retire { .. } => "letting a segment go",
            Running::Copy(_) => "copying a segment",
        };
        self.poison(format!("{what} failed: {error}"));
    }

    /// A segment that nothing needs goes.
    fn retire(&mut self) -> Option<Due<S::File>> {
        let slot = if self.copying.is_busy() {
            self.copying.copied()?
        } else {
            self.free_segment()?
        };
        let segment = self.segments.get(slot)?;
        let name = segment.name.clone();
        if self.options.fits_a_segment(segment.bytes) && self.spares.wants_more() {
            let spare = spare_name(self.spares.name_next());
            let work = Work::Recycle {
                segment: name,
                spare: spare.clone(),
            };
            let spare = Some(spare);
            return Some((work, Running::Retire { slot, spare }));
        }
        let spare = None;
        Some((Work::Remove { segment: name }, Running::Retire { slot, spare }))
    }

    /// The next segment that can go as it is. If none can, begins to copy one that holds little.
    fn free_segment(&mut self) -> Option<u32> {
        if !self.index.live.take_changed(self.options.segment_bytes) {
            return None;
        }
        let live = &self.index.live;
        let cold_tail = self.copying.tail_slot();
        let (mut bytes, mut live_bytes) = (0, 0);
        let mut least: Option<(u64, u32)> = None;
        let oldest_job = self.oldest_job();
        let unsettled = self.index.unsettled() > 0;
        for (slot, segment) in self.segments.iter() {
            if slot == self.tail.slot || segment.stays {
                continue;
            }
            let here = live.bytes(slot);
            // A job's dispatches and returns come after its submit, and are counted nowhere.
            let may_hold_facts = match segment.stream {
                Stream::Hot => oldest_job < segment.first_lsn,
                Stream::Cold => unsettled && live.had_facts(slot),
            };
            if here == 0 && !may_hold_facts && self.may_leave_gap(slot, segment) {
                self.index.live.look_again();
                return Some(slot);
            }
            if Some(slot) == cold_tail || (segment.stream == Stream::Cold && here == 0) {
                // The one is being filled. The other is there to say that hot segments may be gone, until another
                // says it.
                continue;
            }
            bytes += segment.bytes;
            live_bytes += here;
            let worth = segment.copied.is_none_or(|then| here.saturating_mul(2) < then);
            if worth
                && here.saturating_mul(LIVE_PART) < segment.bytes
                && least.is_none_or(|(least, _)| here < least)
            {
                least = Some((here, slot));
            }
        }
        let (here, slot) = least?;
        if here == 0 || bytes > live_bytes.saturating_mul(LIVE_PART) || self.spares.is_full(Space::Submit) {
            self.begin_copy(slot);
            self.index.live.look_again();
        }
        None
    }

    /// Whether the segment may go without a copy: the next start must know that a hot segment may be missing, and
    /// knows it by the cold ones.
    fn may_leave_gap(&self, slot: u32, segment: &super::Segment<S::File>) -> bool {
        let mut others = self.segments.iter().filter(|(other, _)| *other != slot);
        let says_so = |(other, segment): (u32, &super::Segment<S::File>)| {
            let kept = Some(other) != self.copying.tail_slot() || self.copying.tail_is_kept();
            segment.stream == Stream::Cold && kept
        };
        let mut hot = self
            .segments
            .iter()
            .filter(|(_, other)| other.stream == Stream::Hot);
        let alone = match segment.stream {
            Stream::Hot => hot.all(|(_, other)| other.first_lsn >= segment.first_lsn),
            Stream::Cold => hot.count() == 1,
        };
        alone || others.any(says_so)
    }

    /// The first LSN of the oldest hot segment that holds an unsettled job; 0 if a cold one does.
    fn oldest_job(&self) -> u64 {
        let holding = self
            .segments
            .iter()
            .filter(|(slot, _)| self.index.live.unsettled(*slot) > 0);
        let lsns = holding.map(|(_, segment)| match segment.stream {
            Stream::Hot => segment.first_lsn,
            Stream::Cold => 0,
        });
        lsns.min().unwrap_or(u64::MAX)
    }

    fn copy(&mut self) -> Option<Due<S::File>> {
        let (work, done) = self.copy_work()?;
        Some((Work::Copy(work), Running::Copy(done)))
    }

    fn prepare(&mut self) -> Option<Due<S::File>> {
        if !self.spares.wants_more() || !self.spares.may_try(self.now.mono) {
            return None;
        }
        let number = self.spares.name_next();
        let (filling, spare) = (filling_name(number), spare_name(number));
        let running = Running::Fill { spare: spare.clone() };
        let bytes = self.options.segment_bytes;
        Some((
            Work::Fill {
                filling,
                spare,
                bytes,
            },
            running,
        ))
    }

    fn segment_gone(&mut self, slot: u32) -> Option<super::Segment<S::File>> {
        let segment = self.segments.remove(slot)?;
        self.index.live.segment_gone(slot);
        self.settings.segment_gone(slot, &mut self.index.live);
        if self.copying.copied() == Some(slot) {
            self.copy_done();
        }
        self.copying.segment_gone(slot);
        Some(segment)
    }
}

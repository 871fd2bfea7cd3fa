//! The I/O of one commit group, carried out away from the log: on a thread, or step by step in a simulation.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::frame;
use crate::segment::HEADER;
use crate::storage::{File, Storage};

/// One frame to write, and what must happen before it. Call [`Commit::write`], tell the log, then, if
/// [`Commit::needs_sync`], [`Commit::sync`], and tell the log.
pub struct Commit<S: Storage> {
    pub(super) storage: S,
    /// Where the frame goes.
    pub(super) file: Arc<S::File>,
    pub(super) offset: u64,
    pub(super) frame: Arc<Vec<u8>>,
    /// What is before the frame must be synced first, because the frame says that it is.
    pub(super) sync_before: bool,
    /// The frame goes into a new segment.
    pub(super) switch: Option<Switch<S::File>>,
    pub(super) sync_after: bool,
    pub(super) write_awaited: bool,
    pub(super) reached: Arc<Reached>,
}

/// From one segment to the next.
pub(super) struct Switch<F> {
    /// The end frame of the old segment; `None` if it is there already.
    pub(super) end: Option<End<F>>,
    /// The spare's name, and the name that it gets.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) header: [u8; HEADER],
}

pub(super) struct End<F> {
    pub(super) file: Arc<F>,
    pub(super) offset: u64,
    pub(super) frame: Vec<u8>,
}

/// How far a switch came, for when the disk turns out full in the middle of it.
#[derive(Default)]
pub(super) struct Reached(AtomicU8);

impl Reached {
    const SEALED: u8 = 1;
    const BEGUN: u8 = 2;

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Release);
    }

    /// The old segment has its end frame, synced.
    pub(super) fn sealed(&self) -> bool {
        self.0.load(Ordering::Acquire) >= Self::SEALED
    }

    /// The new segment has its header, synced.
    pub(super) fn begun(&self) -> bool {
        self.0.load(Ordering::Acquire) >= Self::BEGUN
    }
}

impl<S: Storage> Commit<S> {
    /// Writes the frame. Takes as long as the disk does.
    ///
    /// # Errors
    /// `StorageFull`: nothing of the frame is there, nor will it ever be. Any other error is final: the log
    /// takes no more records once it is told.
    pub fn write(&self) -> io::Result<()> {
        if let Some(switch) = &self.switch {
            self.switch(switch)?;
        }
        if self.sync_before {
            self.file.sync_data().map_err(final_error)?;
        }
        write_or_cut(&*self.file, &self.frame, self.offset)
    }

    /// How long the frame is.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Whether anything in the group waits for a sync.
    #[must_use]
    pub const fn needs_sync(&self) -> bool {
        self.sync_after
    }

    /// Whether anything in the group waits for no more than being written.
    #[must_use]
    pub const fn is_write_awaited(&self) -> bool {
        self.write_awaited
    }

    /// Makes the frame and all before it durable. Only after [`Commit::write`].
    ///
    /// # Errors
    /// Final: the log takes no more records once it is told.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(final_error)
    }

    /// Order is law: the old segment is synced, sealed, and synced again before the new one has a header.
    fn switch(&self, switch: &Switch<S::File>) -> io::Result<()> {
        if let Some(end) = &switch.end {
            end.file.sync_data().map_err(final_error)?;
            write_or_cut(&*end.file, &end.frame, end.offset)?;
            end.file.sync_data().map_err(final_error)?;
            self.reached.set(Reached::SEALED);
        }
        // The header before the name: half a header in a file that is called a segment would be damage.
        if let Err(error) = self.file.write_at(&switch.header, 0) {
            let full = error.kind() == io::ErrorKind::StorageFull;
            return Err(if full { error } else { final_error(error) });
        }
        self.file.sync_data().map_err(final_error)?;
        self.storage
            .rename(&switch.from, &switch.to)
            .map_err(final_error)?;
        self.storage.sync_dir().map_err(final_error)?;
        self.reached.set(Reached::BEGUN);
        Ok(())
    }
}

/// Writes a frame; if the disk is full, makes sure that what was written of it never comes back.
pub(super) fn write_or_cut<F: File>(file: &F, frame: &[u8], offset: u64) -> io::Result<()> {
    let Err(error) = file.write_at(frame, offset) else {
        return Ok(());
    };
    if error.kind() != io::ErrorKind::StorageFull {
        return Err(final_error(error));
    }
    // Before anyone hears that the group failed, its frame must be no frame, also after a power cut.
    if file.len().map_err(final_error)? > offset {
        let head = usize::try_from(file.len().map_err(final_error)? - offset)
            .map_or(frame::HEAD, |left| left.min(frame::HEAD));
        file.write_at(&[0; frame::HEAD][..head], offset)
            .map_err(final_error)?;
        file.sync_data().map_err(final_error)?;
    }
    Err(error)
}

/// An error after which nothing is known of the disk. Its kind is never `StorageFull`, whatever the system
/// said: a sync that found the disk full is as final as any other failed sync.
pub(crate) fn final_error(error: io::Error) -> io::Error {
    io::Error::other(error)
}

//! The simulated disk as the log sees it, and the hands that do the log's I/O when the world says so.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jitney::bus::log::{Done, Executor};
use joblog::log::{Chore, Commit};
use joblog::storage::{File, Storage};
use joblog::testing::{SimDisk, SimFile};

use crate::mutants::DiskMutant;

/// A [`SimDisk`] whose power can go after so many operations, and to which mutants do less than was asked.
#[derive(Clone)]
pub(crate) struct SimStorage {
    disk: SimDisk,
    /// Operations until the power goes; `u64::MAX`: it does not.
    fuse: Arc<AtomicU64>,
    mutant: Option<DiskMutant>,
}

/// An open file of it.
pub(crate) struct FusedFile {
    file: SimFile,
    storage: SimStorage,
}

impl SimStorage {
    pub(crate) fn new(disk: SimDisk, fuse: Option<u64>, mutant: Option<DiskMutant>) -> Self {
        Self {
            disk,
            fuse: Arc::new(AtomicU64::new(fuse.unwrap_or(u64::MAX))),
            mutant,
        }
    }

    /// The power stays on after all.
    pub(crate) fn disarm(&self) {
        self.fuse.store(u64::MAX, Ordering::Relaxed);
    }

    fn burn(&self) -> io::Result<()> {
        let left = self.fuse.load(Ordering::Relaxed);
        if left == u64::MAX {
            return Ok(());
        }
        self.fuse.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 0 {
            Err(io::Error::other("the power is gone"))
        } else {
            Ok(())
        }
    }
}

impl Storage for SimStorage {
    type File = FusedFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.burn()?;
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<FusedFile> {
        self.burn()?;
        Ok(FusedFile {
            file: self.disk.open(name)?,
            storage: self.clone(),
        })
    }

    fn create(&self, name: &str) -> io::Result<FusedFile> {
        self.burn()?;
        Ok(FusedFile {
            file: self.disk.create(name)?,
            storage: self.clone(),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.burn()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.burn()?;
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.burn()?;
        if self.mutant == Some(DiskMutant::ForgetDirectory) {
            return Ok(());
        }
        self.disk.sync_dir()
    }
}

impl File for FusedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.storage.burn()?;
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.burn()?;
        if self.storage.mutant == Some(DiskMutant::NeverSync) {
            return Ok(());
        }
        self.file.sync_data()
    }
}

/// What the log has asked for and what is done of it. The world moves it on, one step at a time, so that a
/// crash can fall between any two.
#[derive(Default)]
pub(crate) struct Hands {
    commit: Option<Commit<SimStorage>>,
    written: bool,
    /// Commits that a mutant called synced before they were.
    late: VecDeque<Commit<SimStorage>>,
    chore: Option<Chore<SimStorage>>,
    done: VecDeque<Done>,
    /// A step of this kind is to be scheduled.
    commit_waits: bool,
    chore_waits: bool,
    mutant: Option<DiskMutant>,
}

/// What an executor step turned out to be, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write(bool),
    Sync(bool),
    Chore(bool),
    LateSync,
    Nothing,
}

impl Hands {
    pub(crate) fn new(mutant: Option<DiskMutant>) -> Self {
        Self {
            mutant,
            ..Self::default()
        }
    }

    /// Whether a commit step is to be scheduled; asked once per step.
    pub(crate) const fn wants_commit_step(&mut self) -> bool {
        std::mem::replace(&mut self.commit_waits, false)
    }

    pub(crate) const fn wants_chore_step(&mut self) -> bool {
        std::mem::replace(&mut self.chore_waits, false)
    }

    /// The next step of the commit: its write, then its sync.
    pub(crate) fn step_commit(&mut self) -> Step {
        let Some(commit) = self.commit.take() else {
            return self.late.pop_front().map_or(Step::Nothing, |commit| {
                drop(commit.sync());
                Step::LateSync
            });
        };
        if self.written {
            let result = commit.sync();
            let step = Step::Sync(result.is_ok());
            self.done.push_back(Done::Synced(result));
            return step;
        }
        let result = commit.write();
        let ok = result.is_ok();
        self.done.push_back(Done::Written(result));
        if ok && commit.needs_sync() {
            self.commit_waits = true;
            if self.mutant == Some(DiskMutant::SyncLate) {
                self.done.push_back(Done::Synced(Ok(())));
                self.late.push_back(commit);
            } else {
                self.written = true;
                self.commit = Some(commit);
            }
        }
        Step::Write(ok)
    }

    pub(crate) fn step_chore(&mut self) -> Step {
        let Some(chore) = self.chore.take() else {
            return Step::Nothing;
        };
        let result = chore.run();
        let step = Step::Chore(result.is_ok());
        self.done.push_back(Done::Chore(result));
        step
    }
}

/// The log's executor: hands over to the world.
pub(crate) struct SimExecutor(pub Rc<RefCell<Hands>>);

impl Executor<SimStorage> for SimExecutor {
    fn start_commit(&mut self, commit: Commit<SimStorage>) {
        let mut hands = self.0.borrow_mut();
        hands.commit = Some(commit);
        hands.written = false;
        hands.commit_waits = true;
    }

    fn start_chore(&mut self, chore: Chore<SimStorage>) {
        let mut hands = self.0.borrow_mut();
        hands.chore = Some(chore);
        hands.chore_waits = true;
    }

    fn poll(&mut self) -> Option<Done> {
        self.0.borrow_mut().done.pop_front()
    }
}

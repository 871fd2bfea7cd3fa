//! The files of a directory, of which only so many are open at once: a log may have more segments than a process may
//! have files open.
//!
//! In: names, reads and writes. Out: the same as from files that stay open. A file that was not used for long is closed
//! and opened anew under the name that it has by then; not while it holds what is not synced, as a failed sync is told
//! to who has the file open, nor once its name is gone.
//!
//! Two locks, that of the table before that of a file; a file that is open needs only its own.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::no_room;
use crate::storage::File;

/// Fewer open files than this help nobody: a commit, a copy and a read use four.
const FILES_MIN: usize = 8;

/// The system's number of "too many open files": the kind of the error does not tell.
const EMFILE: i32 = 24;

/// A file of a [`super::DirStorage`].
#[derive(Debug)]
pub struct DirFile {
    handle: Arc<Handle>,
    files: Arc<Files>,
}

#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    /// Whether files may be made, changed and removed.
    writable: bool,
    /// So many are open at most.
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Those that somebody holds, by their names.
    names: HashMap<String, Vec<Weak<Handle>>>,
    /// Those that are open, in the order in which they are looked at when one must be closed.
    open: VecDeque<Weak<Handle>>,
}

#[derive(Debug)]
struct Handle {
    state: Mutex<State>,
    /// Device and inode: what is opened anew must be the same file.
    identity: (u64, u64),
    /// It was used since somebody looked for a file to close.
    used: AtomicBool,
    /// Writes that were begun, and how many of them a sync covers.
    writes: AtomicU64,
    synced: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// `None` once nothing of that name is there.
    name: Option<String>,
    file: Option<Arc<fs::File>>,
}

impl Files {
    pub(super) fn new(path: &Path, writable: bool, limit: usize) -> Self {
        Self {
            path: path.to_owned(),
            writable,
            limit: limit.max(FILES_MIN),
            table: Mutex::default(),
        }
    }

    pub(super) fn open(this: &Arc<Self>, name: &str) -> io::Result<DirFile> {
        let mut table = lock(&this.table);
        table.make_room(this.limit);
        let file = this.open_named(name).map_err(|error| too_many(error, &table))?;
        Self::enter(this, &mut table, name, file)
    }

    pub(super) fn create(this: &Arc<Self>, name: &str) -> io::Result<DirFile> {
        let mut table = lock(&this.table);
        table.make_room(this.limit);
        let created = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(this.path.join(name))
            .map_err(|error| no_room(too_many(error, &table)))?;
        Self::enter(this, &mut table, name, created)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut table = lock(&self.table);
        self.pin(&table, to)?;
        // Whoever opens one of them anew waits for its name.
        let handles = table.handles(from);
        let mut states: Vec<_> = handles.iter().map(|handle| lock(&handle.state)).collect();
        fs::rename(self.path.join(from), self.path.join(to))?;
        for state in &mut states {
            state.name = Some(to.to_owned());
        }
        drop(states);
        table.forget(to);
        if let Some(moved) = table.names.remove(from) {
            table.names.insert(to.to_owned(), moved);
        }
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut table = lock(&self.table);
        self.pin(&table, name)?;
        fs::remove_file(self.path.join(name))?;
        table.forget(name);
        Ok(())
    }

    fn enter(this: &Arc<Self>, table: &mut Table, name: &str, file: fs::File) -> io::Result<DirFile> {
        let metadata = file.metadata()?;
        let handle = Arc::new(Handle {
            state: Mutex::new(State {
                name: Some(name.to_owned()),
                file: Some(Arc::new(file)),
            }),
            identity: (metadata.dev(), metadata.ino()),
            used: AtomicBool::new(true),
            writes: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        });
        table.open.push_back(Arc::downgrade(&handle));
        let named = table.names.entry(name.to_owned()).or_default();
        named.push(Arc::downgrade(&handle));
        Ok(DirFile {
            handle,
            files: Arc::clone(this),
        })
    }

    /// Opens what somebody holds under this name, as the name is about to go.
    fn pin(&self, table: &Table, name: &str) -> io::Result<()> {
        for handle in table.handles(name) {
            let mut state = lock(&handle.state);
            if state.file.is_none() {
                state.file = Some(Arc::new(self.open_anew(name, &handle)?));
            }
        }
        Ok(())
    }

    fn open_named(&self, name: &str) -> io::Result<fs::File> {
        let path = self.path.join(name);
        OpenOptions::new().read(true).write(self.writable).open(path)
    }

    fn open_anew(&self, name: &str, handle: &Handle) -> io::Result<fs::File> {
        let file = self.open_named(name)?;
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) == handle.identity {
            Ok(file)
        } else {
            Err(io::Error::other(format!(
                "`{name}` is another file than it was when the log was opened"
            )))
        }
    }

    /// The file, open.
    fn file(&self, handle: &Arc<Handle>) -> io::Result<Arc<fs::File>> {
        handle.used.store(true, Ordering::Relaxed);
        if let Some(file) = &lock(&handle.state).file {
            return Ok(Arc::clone(file));
        }
        let mut table = lock(&self.table);
        table.make_room(self.limit);
        let mut state = lock(&handle.state);
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let name = state.name.clone().ok_or(io::ErrorKind::NotFound)?;
        let opened = self.open_anew(&name, handle);
        let file = Arc::new(opened.map_err(|error| too_many(error, &table))?);
        state.file = Some(Arc::clone(&file));
        table.open.push_back(Arc::downgrade(handle));
        Ok(file)
    }
}

impl Table {
    fn handles(&self, name: &str) -> Vec<Arc<Handle>> {
        let held = self.names.get(name).into_iter().flatten();
        held.filter_map(Weak::upgrade).collect()
    }

    /// The name is gone: those that are held stay open.
    fn forget(&mut self, name: &str) {
        for handle in self.names.remove(name).iter().flatten().filter_map(Weak::upgrade) {
            lock(&handle.state).name = None;
        }
    }

    /// Closes files until another may be opened, the longest unused first. Those that cannot be closed stay.
    fn make_room(&mut self, limit: usize) {
        // Each is looked at twice at most: a file that was used is passed over once.
        let mut looks = 2 * self.open.len();
        while self.open.len() >= limit && looks > 0 {
            looks -= 1;
            let Some(first) = self.open.pop_front() else {
                return;
            };
            let Some(handle) = first.upgrade() else { continue };
            let was_used = handle.used.swap(false, Ordering::Relaxed);
            if was_used || !handle.close() {
                self.open.push_back(first);
            }
        }
    }
}

impl Handle {
    /// Closes the file, if nothing speaks against it.
    fn close(&self) -> bool {
        let mut state = lock(&self.state);
        let synced = self.synced.load(Ordering::Acquire) == self.writes.load(Ordering::Acquire);
        let closes = synced && state.name.is_some();
        if closes {
            state.file = None;
        }
        closes
    }
}

impl Drop for DirFile {
    fn drop(&mut self) {
        let mut table = lock(&self.files.table);
        let held = |weak: &Weak<Handle>| weak.as_ptr() != Arc::as_ptr(&self.handle);
        table.open.retain(held);
        if let Some(name) = &lock(&self.handle.state).name
            && let Some(named) = table.names.get_mut(name)
        {
            named.retain(held);
            if named.is_empty() {
                table.names.remove(name);
            }
        }
    }
}

impl File for DirFile {
    fn len(&self) -> io::Result<u64> {
        let file = self.files.file(&self.handle)?;
        file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.files.file(&self.handle)?.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Before the write, so that the file stays open from here until it is synced.
        self.handle.writes.fetch_add(1, Ordering::AcqRel);
        let file = self.files.file(&self.handle)?;
        file.write_all_at(bytes, offset).map_err(no_room)
    }

    fn sync_data(&self) -> io::Result<()> {
        let covered = self.handle.writes.load(Ordering::Acquire);
        self.files.file(&self.handle)?.sync_data()?;
        self.handle.synced.fetch_max(covered, Ordering::AcqRel);
        Ok(())
    }
}

/// "Too many open files", with the number of those that are ours, and what to do.
fn too_many(error: io::Error, table: &Table) -> io::Error {
    if error.raw_os_error() != Some(EMFILE) {
        return error;
    }
    io::Error::other(format!(
        "too many open files (EMFILE): this process has as many open as it may, {} of them files of the log; raise \
         the limit (`ulimit -n`, `LimitNOFILE`)",
        table.open.len()
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_are_called_so_and_counted() {
        let mut table = Table::default();
        table.open.extend([Weak::new(), Weak::new(), Weak::new()]);
        let text = too_many(io::Error::from_raw_os_error(EMFILE), &table).to_string();
        assert!(
            text.contains("EMFILE") && text.contains("3 of them files of the log"),
            "{text}"
        );
        let other = too_many(io::ErrorKind::NotFound.into(), &table);
        assert_eq!(other.kind(), io::ErrorKind::NotFound);
    }
}

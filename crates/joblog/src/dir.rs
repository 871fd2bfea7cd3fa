//! A real directory as [`Storage`], held by one process at a time. Of its files only so many are open at once.

mod files;

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{error, fmt};

pub use files::DirFile;
use files::Files;

use crate::storage::Storage;

/// The file that is locked beside the directory itself, with its holder's pid in it.
const LOCK: &str = "lock";

/// A directory of the file system. Clones are the same directory; the lock goes with the last of them.
#[derive(Clone, Debug)]
pub struct DirStorage(Arc<Dir>);

#[derive(Debug)]
struct Dir {
    path: PathBuf,
    files: Arc<Files>,
    /// Open for its syncs; and locked as long as it is open, where that is wanted.
    dir: fs::File,
    /// Locked as long as it is open; `None` where there was nothing to lock, or it is not wanted.
    _lock: Option<fs::File>,
    /// Why the process's pid is not in it.
    pid_untold: Option<io::Error>,
}

/// So many of its files a directory has open at once, where nobody says. A log with segments of 64 MiB and 16 GiB has
/// as many; beyond that a read of an old record may open its file anew.
const FILES_MAX: usize = 256;

/// Why a directory cannot be used.
#[derive(Debug)]
pub enum DirError {
    /// Another process uses it. Stop that one first.
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, as far as it says.
        pid: Option<u32>,
    },
    /// The file system refuses. Whoever owns the directory can fix it.
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for DirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path, pid: Some(pid) } => {
                write!(f, "`{}` is in use by the process with pid {pid}", path.display())
            }
            Self::Locked { path, pid: None } => {
                write!(f, "`{}` is in use by another process", path.display())
            }
            Self::Io { path, source } => write!(f, "`{}`: {source}", path.display()),
        }
    }
}

impl error::Error for DirError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Locked { .. } => None,
        }
    }
}

impl DirStorage {
    /// Takes a directory for this process, and makes it if it is not there.
    ///
    /// # Errors
    /// [`DirError`]; the directory is as it was.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        Self::open_with(path, FILES_MAX)
    }

    /// The same, with at most so many of its files open at once (at least 8), but for those that are being written.
    ///
    /// # Errors
    /// As [`DirStorage::open`].
    pub fn open_with(path: &Path, files_max: usize) -> Result<Self, DirError> {
        let failed = |at: &Path, source| DirError::Io {
            path: at.to_owned(),
            source,
        };
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(|error| failed(path, error))?;
            // The new name must outlive a power cut, or all that is in it is lost.
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            fs::File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(|error| failed(parent, error))?;
        }
        let dir = fs::File::open(path).map_err(|error| failed(path, error))?;
        let locked = |pid| DirError::Locked {
            path: path.to_owned(),
            pid,
        };
        // Two locks: that of the directory cannot be removed by hand, that of the file is the one that older versions
        // take. Some file systems lock no directory; there the file alone must do.
        if let Err(TryLockError::WouldBlock) = dir.try_lock() {
            return Err(locked(told_pid(path)));
        }
        let lock_path = path.join(LOCK);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(no_room);
        let (lock, pid_untold) = match opened {
            Ok(mut lock) => {
                match lock.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Err(locked(pid(&mut lock))),
                    Err(TryLockError::Error(error)) => return Err(failed(&lock_path, error)),
                }
                let written = write_pid(&mut lock);
                (Some(lock), written.err())
            }
            // A full disk prevents no start: the directory is locked.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => (None, Some(error)),
            Err(error) => return Err(failed(&lock_path, error)),
        };
        Ok(Self(Arc::new(Dir {
            path: path.to_owned(),
            files: Arc::new(Files::new(path, true, files_max)),
            dir,
            _lock: lock,
            pid_untold,
        })))
    }

    /// Why `lock` does not say whose the directory is, if it does not. Nothing depends on it.
    #[must_use]
    pub fn pid_untold(&self) -> Option<&io::Error> {
        self.0.pid_untold.as_ref()
    }

    /// Looks at a directory beside whoever uses it: takes no lock, and opens files for reading only. What is
    /// being written meanwhile may be seen half.
    ///
    /// # Errors
    /// [`DirError`]; also if there is no such directory.
    pub fn look(path: &Path) -> Result<Self, DirError> {
        let dir = fs::File::open(path).map_err(|source| DirError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::to_look_at(path, dir, None))
    }

    /// The process that uses the directory, as far as its lock says, else 0; `None` if nobody does.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        let blocks = |file: io::Result<fs::File>| {
            let locked = file.ok().map(|file| file.try_lock_shared());
            matches!(locked, Some(Err(TryLockError::WouldBlock)))
        };
        let used = blocks(fs::File::open(&self.0.path)) || blocks(fs::File::open(self.join(LOCK)));
        used.then(|| told_pid(&self.0.path).unwrap_or(0))
    }

    /// Takes a directory to look at: nothing in it is made or changed. No process may use it meanwhile.
    ///
    /// # Errors
    /// [`DirError`]; also if there is no such directory.
    pub fn inspect(path: &Path) -> Result<Self, DirError> {
        let failed = |at: &Path, source| DirError::Io {
            path: at.to_owned(),
            source,
        };
        let locked = || DirError::Locked {
            path: path.to_owned(),
            pid: told_pid(path),
        };
        let dir = fs::File::open(path).map_err(|error| failed(path, error))?;
        if let Err(TryLockError::WouldBlock) = dir.try_lock_shared() {
            return Err(locked());
        }
        let lock_path = path.join(LOCK);
        let lock = match fs::File::open(&lock_path) {
            Ok(lock) => match lock.try_lock_shared() {
                Ok(()) => Some(lock),
                Err(TryLockError::WouldBlock) => return Err(locked()),
                Err(TryLockError::Error(error)) => return Err(failed(&lock_path, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&lock_path, error)),
        };
        Ok(Self::to_look_at(path, dir, lock))
    }

    fn to_look_at(path: &Path, dir: fs::File, lock: Option<fs::File>) -> Self {
        Self(Arc::new(Dir {
            path: path.to_owned(),
            files: Arc::new(Files::new(path, false, FILES_MAX)),
            dir,
            _lock: lock,
            pid_untold: None,
        }))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

/// No pid is so long.
const PID_BYTES_MAX: u64 = 32;

fn pid(lock: &mut fs::File) -> Option<u32> {
    let mut text = String::new();
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that `lock` names.
fn told_pid(path: &Path) -> Option<u32> {
    pid(&mut fs::File::open(path.join(LOCK)).ok()?)
}

/// Writes over what is there: a file that is cut first may not get its block back on a full disk.
fn write_pid(lock: &mut fs::File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    let written = lock.rewind().and_then(|()| lock.write_all(text.as_bytes()));
    let length = if written.is_ok() { text.len() } else { 0 };
    let cut = u64::try_from(length)
        .map_err(io::Error::other)
        .and_then(|length| lock.set_len(length));
    written.and(cut)
}

impl Storage for DirStorage {
    type File = DirFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<DirFile> {
        Files::open(&self.0.files, name)
    }

    fn create(&self, name: &str) -> io::Result<DirFile> {
        Files::create(&self.0.files, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.files.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.dir.sync_all()
    }
}

/// A quota that is used up is a full disk to us.
fn no_room(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::QuotaExceeded {
        io::ErrorKind::StorageFull.into()
    } else {
        error
    }
}

//! Opens the embedded log in a directory, with the threads that do its I/O.

use std::io;
use std::path::Path;

use joblog::dir::{DirError, DirStorage};
use joblog::log::Log;
use joblog::recovery::{self, Report};

use super::handle::Handle;
use super::io::IoThreads;
use super::machine;
use crate::bus::log::LogBus;
use crate::clock::Now;
use crate::entropy::random_u64;
use crate::limits::Limits;

/// The log bus of a real directory.
pub type DirBus = LogBus<DirStorage, IoThreads<DirStorage>>;

/// What the log itself is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The size of a segment file.
    pub segment_bytes: u64,
    /// Payloads kept in memory.
    pub cache_bytes: usize,
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is in use by another process, or the file system refuses it.
    #[error(transparent)]
    Directory(#[from] DirError),
    /// The log is damaged, of a newer format, or cannot be read.
    #[error(transparent)]
    Log(#[from] recovery::OpenError),
    /// The system has no thread for its I/O.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Opens, and recovers, the log of a directory.
///
/// # Errors
/// [`OpenError`]; nothing was lost by trying.
pub(super) fn open(
    data: &Path,
    options: Options,
    limits: &Limits,
    handle: &Handle,
    now: Now,
) -> Result<DirBus, OpenError> {
    let storage = DirStorage::open_with(data, machine::log_files_max())?;
    if let Some(error) = storage.pid_untold() {
        tracing::warn!(data = %data.display(), %error, "`lock` does not say which process uses the directory; it is locked all the same");
    }
    let options = crate::bus::log::options(limits, options.segment_bytes, options.cache_bytes);
    let opened = Log::open(storage, options, Box::new(random_u64), now)?;
    tell(data, &opened.report);
    let threads = IoThreads::start(handle).map_err(OpenError::Thread)?;
    Ok(LogBus::new(opened.log, threads).holding_commits())
}

fn tell(data: &Path, report: &Report) {
    let data = data.display();
    if let Some(cut) = &report.cut {
        tracing::warn!(
            %data,
            file = cut.file,
            offset = cut.offset,
            bytes = cut.bytes,
            kept = cut.kept,
            "a torn tail was cut, as a power cut leaves it; nothing shows that any of it was acknowledged"
        );
    }
    tracing::info!(
        %data,
        boot = report.boot,
        clean = report.clean,
        unsettled = report.unsettled,
        results = report.results,
        "the log is open"
    );
}

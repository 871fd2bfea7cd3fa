//! What the machine allows: limits that depend on its disk and on its open files.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::options::BusOptions;
use crate::limits::Limits;

/// Open files that are not connections: segments, the lock, standard streams, listeners.
const FILES_RESERVED: u64 = 512;

/// The share of the disk that the log may fill, in hundredths.
const DISK_PERCENT: u64 = 80;

/// The limits, no wider than the machine.
pub(super) fn bound(mut limits: Limits, bus: &BusOptions) -> Limits {
    if let Some(files) = getrlimit(Resource::Nofile).current {
        limits.connections_max = limits
            .connections_max
            .min(files.saturating_sub(FILES_RESERVED))
            .max(1);
    }
    if let BusOptions::Log { data, .. } = bus {
        limits.log_bytes_max = limits
            .log_bytes_max
            .or_else(|| disk_bytes(data).map(|all| all / 100 * DISK_PERCENT));
    }
    limits
}

/// The size of the disk that holds a directory, which need not be there yet.
fn disk_bytes(directory: &Path) -> Option<u64> {
    let there = directory
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty())
        .find(|path| path.exists());
    let disk = statvfs(there.unwrap_or_else(|| Path::new("."))).ok()?;
    Some(disk.f_blocks.saturating_mul(disk.f_frsize))
}

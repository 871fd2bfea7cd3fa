//! What the machine allows: limits that depend on its disk and on its open files.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::BusOptions;
use crate::limits::Limits;

/// Open files that are not connections: files of the log, the lock, standard streams, listeners.
const FILES_RESERVED: u64 = 512;

/// How many files of the log are open at once: half of those. Further segments are opened when they are read.
const LOG_FILES_MAX: u64 = FILES_RESERVED / 2;

/// The share of the disk that the log may fill, in hundredths.
const DISK_PERCENT: u64 = 80;

/// Lets this process open as many files as it may be allowed to: each connection is one, and what a shell or a
/// service manager gives at first (1,024) is the allowance for programs that use `select`.
///
/// For a program that is a server; a library leaves its host's limits alone.
pub fn raise_open_files() {
    let files = getrlimit(Resource::Nofile);
    if files.current == files.maximum {
        return;
    }
    let raised = Rlimit {
        current: files.maximum,
        maximum: files.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the open-file limit");
    }
}

/// How many files of the log may be open at once: a quarter of what this process may open, where that is little.
pub(super) fn log_files_max() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let most = files.map_or(LOG_FILES_MAX, |files| LOG_FILES_MAX.min(files / 4));
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// The limits, no wider than the machine.
pub(super) fn bound(mut limits: Limits, bus: &BusOptions) -> Limits {
    if let Some(files) = getrlimit(Resource::Nofile).current {
        let room = files.saturating_sub(FILES_RESERVED).max(1);
        if room < limits.connections_max {
            tracing::info!(
                connections_max = room,
                configured = limits.connections_max,
                open_files = files,
                "the open-file limit leaves room for fewer connections"
            );
            limits.connections_max = room;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        raise_open_files();
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
        let many = Limits {
            connections_max: u64::MAX,
            ..Limits::default()
        };
        let room = files
            .current
            .map_or(u64::MAX, |files| files.saturating_sub(512).max(1));
        assert_eq!(bound(many, &BusOptions::Memory).connections_max, room);
        let few = Limits {
            connections_max: 1,
            ..Limits::default()
        };
        assert_eq!(bound(few, &BusOptions::Memory).connections_max, 1);
    }

    #[test]
    fn the_log_may_fill_most_of_its_disk_unless_told_otherwise() {
        let bus = BusOptions::Log {
            data: Path::new("/nowhere/yet").to_owned(),
            segment_bytes: 64 << 20,
            cache_bytes: 0,
        };
        let disk = statvfs("/").unwrap();
        let all = disk.f_blocks * disk.f_frsize;
        let found = bound(Limits::default(), &bus).log_bytes_max.unwrap();
        assert_eq!(found, all / 100 * 80);
        let told = Limits {
            log_bytes_max: Some(7),
            ..Limits::default()
        };
        assert_eq!(bound(told, &bus).log_bytes_max, Some(7));
        assert_eq!(bound(Limits::default(), &BusOptions::Memory).log_bytes_max, None);
    }
}

//! What the system says of processes and cores.

use std::fs;
use std::time::Duration;

/// A tick of the times in /proc: fixed at 100 a second for every program.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Processor time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory at its highest, bytes.
    pub(super) rss_peak: u64,
    /// Resident memory, bytes.
    pub(super) rss: u64,
    /// How often one of its threads went to sleep.
    pub(super) sleeps: u64,
}

/// What a process has used; `None` where the system does not say it as Linux does.
pub(super) fn used(pid: u32) -> Option<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut sleeps = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that ended meanwhile sleeps no more.
        let task = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        sleeps += value(&task, "voluntary_ctxt_switches:").unwrap_or(0);
    }
    Some(Used {
        cpu: TICK * u32::try_from(ticks(&stat)?).ok()?,
        rss_peak: value(&status, "VmHWM:")? * 1024,
        rss: value(&status, "VmRSS:")? * 1024,
        sleeps,
    })
}

/// User and system time, from the text of /proc/PID/stat. The name in it may have blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn value(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The processor's name.
pub(super) fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Which core the server runs on, and which the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) server: usize,
    pub(super) load: usize,
}

#[cfg(target_os = "linux")]
mod affinity {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::Cores;

    /// The first core that this thread may use and the last; `None` if that is one and the same.
    pub(in crate::bench) fn cores() -> Option<Cores> {
        let set = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
        let server = cores.next()?;
        Some(Cores {
            server,
            load: cores.next_back()?,
        })
    }

    /// From now on this thread, and what it starts, runs on that core only.
    pub(in crate::bench) fn pin(core: usize) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    use super::Cores;

    pub(in crate::bench) fn cores() -> Option<Cores> {
        None
    }

    pub(in crate::bench) fn pin(_core: usize) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) use affinity::{cores, pin};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_found_behind_any_name() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 120 30 7 7 20 0";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks("nothing"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_used_something() {
        let used = used(std::process::id()).unwrap();
        assert!(used.rss > 0 && used.rss <= used.rss_peak, "{used:?}");
    }
}

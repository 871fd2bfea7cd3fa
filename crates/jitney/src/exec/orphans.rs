//! Processes that children left behind, where they become this process's own: as process 1 of a container, or as a
//! subreaper. Nobody else can wait for them, and each would stay a zombie.
//!
//! In: the end of any child. Out: nothing; those that are no children of ours are waited for, one by one. A wait for
//! any child would take the status of one of ours, which its slot needs.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::process::{Child, Command};

/// The children that somebody here waits for. Of the whole process, as children are.
static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a child. Nobody looks for orphans between its start and the note that it is ours.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut ours = ours();
    let child = command.spawn()?;
    ours.extend(child.id());
    Ok(child)
}

/// Somebody waited for this child: its number may be another's now.
pub(super) fn waited_for(child: Option<u32>) {
    if let Some(child) = child {
        ours().remove(&child);
    }
}

fn ours() -> MutexGuard<'static, BTreeSet<u32>> {
    // A set is whole after each of its operations, so that a panic elsewhere leaves it usable.
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for orphans, as long as it is polled; does nothing where they are another's. For a process whose children
/// are all started here.
pub(crate) async fn reap() -> Infallible {
    #[cfg(target_os = "linux")]
    linux::reap().await;
    std::future::pending().await
}

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;
    use std::{fs, io};

    use rustix::process::{Pid, WaitId, WaitIdOptions, child_subreaper, getpid, waitid};
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::time::sleep;
    use tracing::{debug, warn};

    use super::ours;

    /// Orphans that end together are looked for once.
    const PAUSE: Duration = Duration::from_millis(100);

    pub(super) async fn reap() {
        if getpid() != Pid::INIT && !matches!(child_subreaper(), Ok(Some(_))) {
            return;
        }
        let mut ended = match signal(SignalKind::child()) {
            Ok(ended) => ended,
            Err(error) => return cannot(&error),
        };
        loop {
            if let Err(error) = reap_ended() {
                return cannot(&error);
            }
            sleep(PAUSE).await;
            if ended.recv().await.is_none() {
                return;
            }
        }
    }

    fn cannot(error: &io::Error) {
        warn!(%error, "cannot look for orphans of children: they stay as zombies, unless an init (`docker run --init`) takes them");
    }

    fn reap_ended() -> io::Result<()> {
        // Held meanwhile, so that no child of ours is met before it is known.
        let ours = ours();
        for child in children()? {
            let orphan = i32::try_from(child).ok().and_then(Pid::from_raw);
            if let Some(orphan) = orphan.filter(|_| !ours.contains(&child))
                && matches!(
                    waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
                    Ok(Some(_))
                )
            {
                debug!(pid = child, "waited for an orphan of a child");
            }
        }
        Ok(())
    }

    /// Every child of this process, by the threads that the system counts them under.
    fn children() -> io::Result<Vec<u32>> {
        let (mut children, mut listed) = (Vec::new(), false);
        for task in fs::read_dir("/proc/self/task")? {
            match fs::read_to_string(task?.path().join("children")) {
                Ok(text) => {
                    listed = true;
                    children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
                }
                // The thread ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if !listed {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the system does not list children",
            ));
        }
        Ok(children)
    }
}

//! The log bus over a real directory, with the threads that the server runs it with.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use jitney::bus::log::{Done, Executor, LogBus};
use jitney::clock::Now;
use jitney::driver::port::Port;
use jitney::server::io::IoThreads;
use jitney::server::port::{ChannelPort, port};
use joblog::dir::DirStorage;
use joblog::log::{Chore, Commit, Log};
use joblog::testing::Random;
use tempfile::TempDir;

use crate::harness::{Harness, Restarts};
use crate::sim_log::options;

/// A disk that needs longer than this for one commit has stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// The log bus in a temporary directory.
pub(crate) struct DirLog {
    directory: TempDir,
    /// Where the threads say that something is done.
    nudges: Option<ChannelPort>,
    under_way: Rc<Cell<u32>>,
    random: Random,
}

impl Harness for DirLog {
    type Bus = LogBus<DirStorage, Counted>;

    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            directory,
            nudges: None,
            under_way: Rc::default(),
            random: Random(1),
        }
    }

    fn open(&mut self, now: Now) -> Self::Bus {
        let storage = DirStorage::open(self.directory.path()).unwrap();
        let mut random = Random(self.random.next());
        let opened = Log::open(storage, options(), Box::new(move || random.next()), now).unwrap();
        let (handle, nudges) = port(1);
        self.nudges = Some(nudges);
        self.under_way = Rc::default();
        let threads = IoThreads::start(&handle).unwrap();
        LogBus::new(
            opened.log,
            Counted {
                threads,
                under_way: Rc::clone(&self.under_way),
            },
        )
    }

    fn progress(&mut self) -> bool {
        if self.under_way.get() == 0 {
            return false;
        }
        let nudges = self.nudges.as_mut().expect("the bus is open");
        nudges.wait(0, Some(PATIENCE));
        assert!(nudges.take().is_none(), "nobody calls through this port");
        true
    }
}

impl Restarts for DirLog {
    fn kill(&mut self) {
        // Dropping the bus joined its threads and unlocked the directory; nothing more was written.
    }
}

/// Knows how much the threads are yet to report.
pub(crate) struct Counted {
    threads: IoThreads<DirStorage>,
    under_way: Rc<Cell<u32>>,
}

impl Executor<DirStorage> for Counted {
    fn start_commit(&mut self, commit: Commit<DirStorage>) {
        let words = if commit.needs_sync() { 2 } else { 1 };
        self.under_way.set(self.under_way.get() + words);
        self.threads.start_commit(commit);
    }

    fn start_chore(&mut self, chore: Chore<DirStorage>) {
        self.under_way.set(self.under_way.get() + 1);
        self.threads.start_chore(chore);
    }

    fn poll(&mut self) -> Option<Done> {
        let done = self.threads.poll()?;
        // A commit that failed is not synced.
        let words = if matches!(done, Done::Written(Err(_))) {
            self.under_way.get()
        } else {
            1
        };
        self.under_way.set(self.under_way.get() - words);
        Some(done)
    }
}

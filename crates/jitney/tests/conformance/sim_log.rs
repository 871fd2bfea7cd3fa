//! The log bus over a simulated disk, with an executor whose commits the test can stop, fail and lose.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use jitney::bus::log::{self, Done, Executor, LogBus};
use jitney::bus::{Bus, Event};
use jitney::clock::Now;
use joblog::log::{Chore, Commit, Log, Options};
use joblog::storage::Storage;
use joblog::testing::{Random, SimDisk};

use crate::harness::{Faulty, Harness, Restarts, Step, limits};

/// The log's options under [`limits`]: small segments, so that the tests with many jobs go through several, and a
/// small cache, so that payloads are read back from the disk, too.
pub(crate) fn options() -> Options {
    Options {
        frame_bytes_max: 128 << 10,
        ..log::options(&limits(), 512 << 10, 128 << 10)
    }
}

/// The log bus on a disk that can fail.
pub(crate) struct SimLog {
    disk: SimDisk,
    gate: Gate,
    random: Random,
}

impl Harness for SimLog {
    type Bus = LogBus<SimDisk, SteppedExecutor<SimDisk>>;

    fn new() -> Self {
        Self {
            disk: SimDisk::new(),
            gate: Gate::default(),
            random: Random(1),
        }
    }

    fn open(&mut self, now: Now) -> Self::Bus {
        self.gate = Gate::default();
        let mut random = Random(self.random.next());
        let opened = Log::open(self.disk.clone(), options(), Box::new(move || random.next()), now).unwrap();
        LogBus::new(opened.log, SteppedExecutor::new(self.gate.clone()))
    }

    fn progress(&mut self) -> bool {
        self.gate.can_go_on()
    }
}

impl Restarts for SimLog {
    fn kill(&mut self) {
        self.disk = self.disk.kill();
    }
}

impl Faulty for SimLog {
    fn hold(&mut self, step: Step) {
        self.gate.hold.set(Some(step));
    }

    fn release(&mut self) {
        self.gate.hold.set(None);
    }

    fn is_held(&self) -> bool {
        self.gate.is_held()
    }

    fn cut_power(&mut self, seed: u64) {
        self.disk = self.disk.crash(seed);
    }

    fn fail_next_write_for_want_of_room(&mut self) {
        self.disk.fail_next_write_full(100);
    }

    fn fail_next_sync(&mut self) {
        self.disk.fail_next_sync();
    }

    fn fill(&mut self) {
        self.disk.set_capacity(Some(self.disk.used()));
    }

    fn make_room(&mut self) {
        self.disk.set_capacity(None);
    }

    fn append_bytes_max(&self) -> u64 {
        u64::try_from(options().frame_bytes_max).unwrap()
    }
}

/// What the test and the executor both see.
#[derive(Clone, Default)]
struct Gate {
    /// No commit goes past this.
    hold: Rc<Cell<Option<Step>>>,
    /// The step that the commit under way is to take next.
    next: Rc<Cell<Option<Step>>>,
    /// A chore is to be run.
    chore: Rc<Cell<bool>>,
}

impl Gate {
    fn is_held(&self) -> bool {
        self.next.get().is_some() && self.next.get() == self.hold.get()
    }

    fn can_go_on(&self) -> bool {
        self.chore.get() || (self.next.get().is_some() && !self.is_held())
    }
}

/// Does one step of I/O whenever it is asked for what is done, up to where it is held.
pub(crate) struct SteppedExecutor<S: Storage> {
    gate: Gate,
    commit: Option<Stage<S>>,
    chore: Option<Chore<S>>,
}

enum Stage<S: Storage> {
    New(Commit<S>),
    Written(Commit<S>),
    Synced(io::Result<()>),
}

impl<S: Storage> SteppedExecutor<S> {
    fn new(gate: Gate) -> Self {
        Self {
            gate,
            commit: None,
            chore: None,
        }
    }

    fn step(&mut self) -> Option<Done> {
        match self.commit.take()? {
            Stage::New(commit) => {
                let written = commit.write();
                if written.is_ok() && commit.needs_sync() {
                    self.commit = Some(Stage::Written(commit));
                }
                Some(Done::Written(written))
            }
            Stage::Written(commit) => {
                self.commit = Some(Stage::Synced(commit.sync()));
                None
            }
            Stage::Synced(synced) => Some(Done::Synced(synced)),
        }
    }

    fn tell(&self) {
        self.gate.chore.set(self.chore.is_some());
        self.gate
            .next
            .set(self.commit.as_ref().map(|commit| match commit {
                Stage::New(_) => Step::Write,
                Stage::Written(_) => Step::Sync,
                Stage::Synced(_) => Step::Report,
            }));
    }
}

impl<S: Storage> Executor<S> for SteppedExecutor<S> {
    fn start_commit(&mut self, commit: Commit<S>) {
        assert!(self.commit.is_none(), "one commit is under way at most");
        self.commit = Some(Stage::New(commit));
        self.tell();
    }

    fn start_chore(&mut self, chore: Chore<S>) {
        assert!(self.chore.is_none(), "one chore is under way at most");
        self.chore = Some(chore);
        self.tell();
    }

    fn poll(&mut self) -> Option<Done> {
        let mut done = self.chore.take().map(|chore| Done::Chore(chore.run()));
        while done.is_none() && self.commit.is_some() && !self.gate.is_held() {
            done = self.step();
            self.tell();
        }
        self.tell();
        done
    }
}

/// A spare segment could not be made, and the node refused everything from then on without ever ending: no append
/// had failed that would have told it.
#[test]
fn a_medium_that_fails_in_the_background_breaks_the_bus() {
    let mut harness = SimLog::new();
    let mut bus = harness.open(Now::default());
    harness.disk.fail_next_dir_sync();
    let events: Vec<_> = (0..20).filter_map(|_| bus.poll(Now::default())).collect();
    let broken = events.iter().filter(|event| matches!(event, Event::Broken));
    assert_eq!(broken.count(), 1, "{events:?}");
}

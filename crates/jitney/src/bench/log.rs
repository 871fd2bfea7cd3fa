//! The log alone, against a bare loop that writes and syncs as many bytes into the same kind of file.
//!
//! Per 128 jobs of 256 bytes two commits: their submits, then their outcomes. Inline: one thread does all,
//! as the bare loop does. Pipelined: a thread writes and syncs, as in the server, while the next group is
//! encoded. Filling spare segments is the disk's work and not timed; what is read back is nothing.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use std::{io, mem, slice};

use joblog::dir::{DirFile, DirStorage};
use joblog::log::{Chore, Commit, Durability, Log, Space};
use joblog::record::{Outcome, Record, Submit};
use joblog::storage::{File as _, Storage as _};
use joblog::{Options, log};

use super::error::Error;
use super::progress::Progress;
use super::random::Random;
use super::scratch::Scratch;
use crate::clock::{Clock as _, SystemClock, WallMs, between};
use crate::entropy::random_u64;
use crate::job::{End, JobId, Priority};

/// Jobs per commit.
const GROUP: u64 = 128;

/// The measured time is cut into so many rounds, in which each way has its turn: the disk's mood is shared.
const ROUNDS: u32 = 5;

/// The files of the bare loop.
const BARE_FILES: usize = 2;
const BARE_FILE_BYTES: u64 = 64 << 20;

/// Jobs per second, each way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// A bare loop: write, sync, write, sync.
    pub(super) bare: f64,
    /// The log, all on one thread.
    pub(super) inline: f64,
    /// The log, with a thread for its disk.
    pub(super) pipelined: f64,
    /// Bytes of the two frames of 128 jobs.
    pub(super) frame_bytes: [usize; 2],
}

/// Measures all three for about `duration` each.
pub(super) fn measure(
    directory: &Scratch,
    duration: Duration,
    payload_bytes: usize,
    progress: &Progress,
) -> Result<Rates, Error> {
    let failed = |source| Error::io("the disk failed", source);
    let storage = DirStorage::open(&directory.path().join("log"))
        .map_err(|error| Error::Server(format!("cannot make a log: {error}")))?;
    let mut bench = Bench::new(storage, payload_bytes)?;
    let frame_bytes = bench.frames().map_err(failed)?;
    let bare_storage = DirStorage::open(&directory.path().join("bare"))
        .map_err(|error| Error::Server(format!("cannot make a directory: {error}")))?;
    let mut bare = Bare::new(&bare_storage, frame_bytes).map_err(failed)?;
    let turn = duration / ROUNDS;
    let mut totals = [Total::default(); 3];
    for _ in 0..ROUNDS {
        for (which, total) in totals.iter_mut().enumerate() {
            progress.check()?;
            let ran = match which {
                0 => bare.run(turn),
                1 => bench.inline(turn),
                _ => bench.pipelined(turn),
            };
            let ran = ran.map_err(failed)?;
            progress.add(ran.jobs);
            total.jobs += ran.jobs;
            total.took += ran.took;
        }
    }
    let [bare, inline, pipelined] = totals.map(Total::rate);
    Ok(Rates {
        bare,
        inline,
        pipelined,
        frame_bytes,
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    jobs: u64,
    took: Duration,
}

impl Total {
    fn rate(self) -> f64 {
        super::figure(self.jobs) / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// The yardstick.
struct Bare {
    clock: SystemClock,
    files: Vec<DirFile>,
    frames: [Vec<u8>; 2],
    /// Where the next frame goes: which file, and the offset in it.
    at: (usize, u64),
}

impl Bare {
    fn new(storage: &DirStorage, frame_bytes: [usize; 2]) -> io::Result<Self> {
        let mut random = Random::new(2);
        let frames = frame_bytes.map(|bytes| (0..bytes).map(|_| random.byte()).collect());
        let zeros = vec![0; 1 << 20];
        let mut files = Vec::new();
        for number in 0..BARE_FILES {
            let file = storage.create(&format!("bare-{number}"))?;
            for offset in (0..BARE_FILE_BYTES).step_by(zeros.len()) {
                file.write_at(&zeros, offset)?;
            }
            file.sync_data()?;
            files.push(file);
        }
        storage.sync_dir()?;
        Ok(Self {
            clock: SystemClock::new(),
            files,
            frames,
            at: (0, 0),
        })
    }

    fn run(&mut self, duration: Duration) -> io::Result<Total> {
        let start = self.clock.now().mono;
        let mut total = Total::default();
        while total.took < duration {
            for frame in &self.frames {
                let bytes = u64::try_from(frame.len()).map_err(io::Error::other)?;
                let (mut file, mut offset) = self.at;
                if offset + bytes > BARE_FILE_BYTES {
                    (file, offset) = ((file + 1) % self.files.len(), 0);
                }
                self.files[file].write_at(frame, offset)?;
                self.files[file].sync_data()?;
                self.at = (file, offset + bytes);
            }
            total.jobs += GROUP;
            total.took = between(start, self.clock.now().mono);
        }
        Ok(total)
    }
}

struct Bench {
    clock: SystemClock,
    log: Log<DirStorage>,
    data: Vec<u8>,
    result: Vec<u8>,
    jobs: u64,
    /// Taken from the log, and not yet carried out.
    chore: Option<Chore<DirStorage>>,
}

impl Bench {
    fn new(storage: DirStorage, payload_bytes: usize) -> Result<Self, Error> {
        let clock = SystemClock::new();
        let opened = Log::open(storage, Options::default(), Box::new(random_u64), clock.now())
            .map_err(|error| Error::Server(format!("cannot open a new log: {error}")))?;
        let mut random = Random::new(3);
        let mut bench = Self {
            clock,
            log: opened.log,
            data: (0..payload_bytes).map(|_| random.byte()).collect(),
            result: (0..64).map(|_| random.byte()).collect(),
            jobs: 0,
            chore: None,
        };
        bench.chores();
        Ok(bench)
    }

    /// How long the two frames of 128 jobs are.
    fn frames(&mut self) -> io::Result<[usize; 2]> {
        let mut bytes = [0; 2];
        let first = self.submits()?;
        bytes[0] = self.commit()?;
        self.outcomes(first)?;
        bytes[1] = self.commit()?;
        Ok(bytes)
    }

    fn inline(&mut self, duration: Duration) -> io::Result<Total> {
        let mut total = Total::default();
        while total.took < duration {
            let start = self.clock.now().mono;
            let first = self.submits()?;
            self.commit()?;
            self.outcomes(first)?;
            self.commit()?;
            total.jobs += GROUP;
            total.took += between(start, self.clock.now().mono);
            self.chores();
        }
        Ok(total)
    }

    fn pipelined(&mut self, duration: Duration) -> io::Result<Total> {
        let disk = Disk::start()?;
        let mut total = Total::default();
        while total.took < duration {
            total = self.pipeline(&disk, total, duration)?;
            self.chores();
        }
        disk.stop()?;
        Ok(total)
    }

    /// Turns jobs over until the log wants a chore, or the time is up. While a group is out the next is
    /// appended: submits and, of the group of submits before, outcomes in turn.
    fn pipeline(&mut self, disk: &Disk, mut total: Total, duration: Duration) -> io::Result<Total> {
        let mut start = self.clock.now().mono;
        let mut durable = self.submits()?;
        self.start(disk)?;
        while total.took < duration {
            // It waits until nothing is under way: its work is not timed.
            self.chore = self.log.next_chore();
            if self.chore.is_some() {
                break;
            }
            let next = self.submits()?;
            self.exchange(disk)?;
            self.outcomes(mem::replace(&mut durable, next))?;
            self.exchange(disk)?;
            total.jobs += GROUP;
            let now = self.clock.now().mono;
            total.took += between(mem::replace(&mut start, now), now);
        }
        self.done(disk)?;
        self.progress()?;
        self.outcomes(durable)?;
        self.commit()?;
        total.jobs += GROUP;
        total.took += between(start, self.clock.now().mono);
        Ok(total)
    }

    fn start(&mut self, disk: &Disk) -> io::Result<()> {
        let commit = self.log.next_commit(self.clock.now());
        let commit = commit.ok_or_else(|| io::Error::other("the log has no commit for its group"))?;
        disk.start_commit(commit)
    }

    /// One commit ends, the next is started; only then the log enters the jobs of the first.
    fn exchange(&mut self, disk: &Disk) -> io::Result<()> {
        self.done(disk)?;
        self.start(disk)?;
        self.progress()
    }

    fn done(&mut self, disk: &Disk) -> io::Result<()> {
        let (written, synced) = disk.done()?;
        let now = self.clock.now();
        self.log.written(written, now);
        self.log.synced(synced, now);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<usize> {
        let commit = self.log.next_commit(self.clock.now());
        let commit = commit.ok_or_else(|| io::Error::other("the log has no commit for its group"))?;
        let bytes = commit.frame_bytes();
        self.log.written(commit.write(), self.clock.now());
        self.log.synced(commit.sync(), self.clock.now());
        self.progress()?;
        Ok(bytes)
    }

    fn progress(&mut self) -> io::Result<()> {
        while let Some(progress) = self.log.progress() {
            if matches!(progress, log::Progress::Failed(..)) {
                return Err(io::Error::other("a commit failed"));
            }
        }
        Ok(())
    }

    fn chores(&mut self) {
        while let Some(chore) = self.chore.take().or_else(|| self.log.next_chore()) {
            let result = chore.run();
            self.log.chore_done(result, self.clock.now());
        }
    }

    /// Appends a group of submits; returns the first one's number.
    fn submits(&mut self) -> io::Result<u64> {
        let first = self.jobs;
        self.jobs += GROUP;
        for number in first..self.jobs {
            let record = Record::Submit(submit(number, &self.data));
            append(&mut self.log, &record, Space::Submit)?;
        }
        Ok(first)
    }

    /// Appends the outcomes of a group.
    fn outcomes(&mut self, first: u64) -> io::Result<()> {
        for number in first..first + GROUP {
            let record = Record::Outcome(outcome(number, &self.result));
            append(&mut self.log, &record, Space::Settle)?;
        }
        Ok(())
    }
}

fn append(log: &mut Log<DirStorage>, record: &Record<'_>, space: Space) -> io::Result<()> {
    log.append(slice::from_ref(record), space, Durability::Sync)
        .map(drop)
        .map_err(io::Error::other)
}

/// What was written, and what was synced.
type Done = (io::Result<()>, io::Result<()>);

/// The thread that writes and syncs.
struct Disk {
    commits: SyncSender<Commit<DirStorage>>,
    done: Receiver<Done>,
    thread: JoinHandle<()>,
}

impl Disk {
    fn start() -> io::Result<Self> {
        let (commits, receiver) = sync_channel::<Commit<DirStorage>>(1);
        let (sender, done) = sync_channel(1);
        let thread = Builder::new().name("bench-disk".to_owned()).spawn(move || {
            for commit in receiver {
                // Nobody listens any more: the bench is over.
                if sender.send((commit.write(), commit.sync())).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            commits,
            done,
            thread,
        })
    }

    fn start_commit(&self, commit: Commit<DirStorage>) -> io::Result<()> {
        self.commits.send(commit).map_err(|_| ended())
    }

    fn done(&self) -> io::Result<Done> {
        self.done.recv().map_err(|_| ended())
    }

    fn stop(self) -> io::Result<()> {
        drop(self.commits);
        self.thread.join().map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that writes has ended")
}

/// The number is spread over the id, as in a random one.
fn id(number: u64) -> JobId {
    let spread = u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    JobId((u128::from(number) << 64 | spread).to_be_bytes())
}

const ACCEPTED: WallMs = WallMs(1_700_000_000_000);

fn submit(number: u64, data: &[u8]) -> Submit<'_> {
    Submit {
        id: id(number),
        processor: "bench",
        group: "default",
        priority: Priority::Normal,
        data,
        content_type: None,
        key: None,
        labels: Vec::new(),
        idempotency: None,
        fingerprint: 0,
        client_id: false,
        parent: None,
        traceparent: None,
        ttl_ms: None,
        deadline: None,
        run_at: None,
        sequence: number,
        accepted: ACCEPTED,
    }
}

fn outcome(number: u64, result: &[u8]) -> Outcome<'_> {
    Outcome {
        id: id(number),
        end: End::Ok,
        reason: None,
        token: None,
        worker: Some("bench-1"),
        started: Some(ACCEPTED),
        finished: ACCEPTED,
        attempts: 1,
        crashes: 0,
        result,
        content_type: None,
        error: None,
        children: 0,
        keep_ms: None,
    }
}

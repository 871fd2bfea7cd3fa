//! The log alone: jobs that are appended and settled on a real disk, and a start over what is there.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that fails has nothing to say but where"
)]

use std::io;
use std::path::{Path, PathBuf};

use divan::Bencher;
use divan::counter::ItemsCount;
use joblog::dir::{DirFile, DirStorage};
use joblog::ids::{JobId, Priority, WallMs};
use joblog::log::{Durability, Opened, Space};
use joblog::record::{End, Outcome, Record, Submit};
use joblog::storage::{File, Storage};
use joblog::time::{Mono, Now};
use joblog::{Log, Options};

fn main() {
    divan::main();
}

const GROUP: u64 = 128;

/// 128 jobs per iteration, of 256 bytes with results of 64: one commit for their submits, one for their outcomes.
/// A sample in which a spare segment was filled is an outlier: the median tells, not the mean.
#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn append_and_settle(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new("append_and_settle", true);
    bencher
        .counter(ItemsCount::new(GROUP))
        .bench_local(|| bench.cycle());
}

/// The same without the disk's part: encoding, checksums, the index.
#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn append_and_settle_without_sync(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new("without_sync", false);
    bencher
        .counter(ItemsCount::new(GROUP))
        .bench_local(|| bench.cycle());
}

/// Opening a log of so many pending jobs and four times as many settled ones.
#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 5, sample_size = 1)]
fn recover(bencher: Bencher<'_, '_>, pending: u64) {
    let mut bench = Bench::new("recover", false);
    for _ in 0..(pending * 4).div_ceil(GROUP) {
        bench.cycle();
    }
    for _ in 0..pending.div_ceil(GROUP) {
        bench.submits();
        bench.commit();
    }
    let folder = bench.stop();
    bencher.counter(ItemsCount::new(pending)).bench_local(|| {
        let mut log = open(&folder.0, false);
        std::iter::from_fn(|| log.next_recovered()).count()
    });
}

/// A folder beside the binary, so that it is on the disk of the target directory; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let exe = std::env::current_exe().unwrap();
        let path = exe.with_file_name(format!("bench-log-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A directory whose syncs may be left out.
#[derive(Clone)]
struct Disk {
    dir: DirStorage,
    sync: bool,
}

struct DiskFile {
    file: DirFile,
    sync: bool,
}

impl Disk {
    fn file(&self, file: DirFile) -> DiskFile {
        DiskFile {
            file,
            sync: self.sync,
        }
    }
}

impl Storage for Disk {
    type File = DiskFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.dir.list()
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        self.dir.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        self.dir.create(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.sync { self.dir.sync_dir() } else { Ok(()) }
    }
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync { self.file.sync_data() } else { Ok(()) }
    }
}

struct Bench {
    // Before its folder: the log lets go of its files first.
    log: Log<Disk>,
    folder: Folder,
    jobs: u64,
    now: Now,
}

fn open(path: &Path, sync: bool) -> Log<Disk> {
    let dir = DirStorage::open(path).unwrap();
    let storage = Disk { dir, sync };
    let mut seed = u64::from(std::process::id()) | 1 << 40;
    let random = Box::new(move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    });
    let now = Now {
        mono: Mono(1_000_000),
        wall: WallMs(1_700_000_000_000),
    };
    let Opened { log, .. } = Log::open(storage, Options::default(), random, now).unwrap();
    log
}

impl Bench {
    fn new(name: &str, sync: bool) -> Self {
        let folder = Folder::new(name);
        let mut bench = Self {
            log: open(&folder.0, sync),
            folder,
            jobs: 0,
            now: Now {
                mono: Mono(1_000_000),
                wall: WallMs(1_700_000_000_000),
            },
        };
        bench.chores();
        bench
    }

    fn cycle(&mut self) {
        let first = self.jobs;
        self.submits();
        self.commit();
        self.outcomes(first);
        self.commit();
        self.chores();
    }

    fn submits(&mut self) {
        let data = [b'7'; 256];
        for _ in 0..GROUP {
            self.jobs += 1;
            let record = Record::Submit(submit(self.jobs, &data));
            self.log
                .append(&[record], Space::Submit, Durability::Sync)
                .unwrap();
        }
    }

    fn outcomes(&mut self, first: u64) {
        let result = [b'8'; 64];
        for job in first + 1..=first + GROUP {
            let record = Record::Outcome(outcome(job, &result));
            self.log
                .append(&[record], Space::Settle, Durability::Sync)
                .unwrap();
        }
    }

    fn commit(&mut self) {
        self.now.mono.0 += 100;
        while let Some(commit) = self.log.next_commit(self.now) {
            self.log.written(commit.write(), self.now);
            if commit.needs_sync() {
                self.log.synced(commit.sync(), self.now);
            }
            while self.log.progress().is_some() {}
        }
    }

    fn chores(&mut self) {
        while let Some(chore) = self.log.next_chore() {
            self.log.chore_done(chore.run(), self.now);
        }
    }

    /// Lets go of the log; its folder stays until the value is dropped.
    fn stop(self) -> Folder {
        let Self { log, folder, .. } = self;
        drop(log);
        folder
    }
}

/// The number is spread over the id, as in a random one.
fn id(number: u64) -> JobId {
    let spread = u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    JobId((u128::from(number) << 64 | spread).to_be_bytes())
}

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
        accepted: WallMs(1_700_000_000_000),
    }
}

fn outcome(number: u64, result: &[u8]) -> Outcome<'_> {
    Outcome {
        id: id(number),
        end: End::Ok,
        reason: None,
        token: None,
        worker: Some("bench-1"),
        started: Some(WallMs(1_700_000_000_000)),
        finished: WallMs(1_700_000_000_000),
        attempts: 1,
        crashes: 0,
        result,
        content_type: None,
        error: None,
        children: 0,
        keep_ms: None,
    }
}

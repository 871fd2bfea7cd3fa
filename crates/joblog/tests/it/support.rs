//! What the tests of the log share: a log over a simulated disk, driven by hand, and small records.

use joblog::ids::{JobId, Priority, Token, WallMs};
use joblog::log::{AppendError, Durability, Progress, Space, Ticket};
use joblog::record::{Dispatch, End, Outcome, Record, Setting, Submit};
use joblog::recovery::{OpenError, Report};
use joblog::replay::Recovered;
use joblog::testing::{Random, SimDisk};
use joblog::time::{Mono, Now};
use joblog::{Log, Options};

pub(crate) const SECOND: u64 = 1_000_000;

pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 32 << 10,
        group_bytes_max: 8 << 10,
        frame_bytes_max: 16 << 10,
        cache_bytes: 4 << 10,
        ..Options::default()
    }
}

pub(crate) fn id(number: u64) -> JobId {
    let mut bytes = [0x5A; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    JobId(bytes)
}

pub(crate) fn submit(number: u64, data: &[u8]) -> Submit<'_> {
    Submit {
        id: id(number),
        processor: "orders",
        group: "order",
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
        accepted: WallMs(1_000),
    }
}

pub(crate) fn outcome(number: u64, result: &[u8], finished: WallMs) -> Outcome<'_> {
    Outcome {
        id: id(number),
        end: End::Ok,
        reason: None,
        token: None,
        worker: Some("w-1"),
        started: Some(WallMs(1_500)),
        finished,
        attempts: 1,
        crashes: 0,
        result,
        content_type: None,
        error: None,
        children: 0,
        keep_ms: None,
    }
}

pub(crate) fn dispatch(token: Token, jobs: &[u64], granted: WallMs) -> Dispatch<'static> {
    Dispatch {
        token,
        worker: "w-1",
        in_process: false,
        request_id: Some("r-1"),
        term_ms: 30_000,
        granted,
        jobs: jobs.iter().map(|number| id(*number)).collect(),
    }
}

/// A log and all around it. Time moves only by hand.
pub(crate) struct TestLog {
    pub(crate) disk: SimDisk,
    pub(crate) log: Log<SimDisk>,
    pub(crate) report: Report,
    pub(crate) now: Now,
    pub(crate) options: Options,
    pub(crate) seed: u64,
}

impl TestLog {
    pub(crate) fn new() -> Self {
        Self::with(small())
    }

    pub(crate) fn with(options: Options) -> Self {
        let now = Now {
            mono: Mono(5 * SECOND),
            wall: WallMs(1_000_000),
        };
        Self::open(SimDisk::new(), options, now, 1).unwrap()
    }

    pub(crate) fn open(disk: SimDisk, options: Options, now: Now, seed: u64) -> Result<Self, OpenError> {
        let mut random = Random(seed);
        let source = Box::new(move || random.next());
        let opened = Log::open(disk.clone(), options.clone(), source, now)?;
        Ok(Self {
            disk,
            log: opened.log,
            report: opened.report,
            now,
            options,
            seed,
        })
    }

    /// The next start on what is left of the disk.
    pub(crate) fn reopen(&self, disk: SimDisk) -> Result<Self, OpenError> {
        Self::open(disk, self.options.clone(), self.now, self.seed + 1)
    }

    pub(crate) fn advance(&mut self, micros: u64) {
        self.now.mono.0 += micros;
        self.now.wall.0 += micros / 1000;
        self.log.tick(self.now);
    }

    pub(crate) fn submit(&mut self, number: u64, data: &[u8]) -> Result<Ticket, AppendError> {
        self.log.append(
            &[Record::Submit(submit(number, data))],
            Space::Submit,
            Durability::Sync,
        )
    }

    pub(crate) fn settle(&mut self, number: u64, result: &[u8]) -> Result<Ticket, AppendError> {
        let record = Record::Outcome(outcome(number, result, self.now.wall));
        self.log.append(&[record], Space::Settle, Durability::Sync)
    }

    /// `None` as the value removes the name.
    pub(crate) fn set(&mut self, name: &str, value: Option<&[u8]>) -> Result<Ticket, AppendError> {
        let record = Record::Setting(Setting {
            name,
            value,
            version: 0,
        });
        self.log.append(&[record], Space::Settle, Durability::Sync)
    }

    pub(crate) fn settings(&self) -> Vec<(String, Vec<u8>)> {
        let owned = |(name, value): (&str, &std::sync::Arc<[u8]>)| (name.to_owned(), value.to_vec());
        self.log.settings().map(owned).collect()
    }

    /// Carries out one chore, if one is due.
    pub(crate) fn chore(&mut self) -> bool {
        let Some(chore) = self.log.next_chore() else {
            return false;
        };
        let result = chore.run();
        self.log.chore_done(result, self.now);
        true
    }

    /// Carries out one commit, if one is due.
    pub(crate) fn commit(&mut self) -> bool {
        let Some(commit) = self.log.next_commit(self.now) else {
            return false;
        };
        let written = commit.write();
        let ok = written.is_ok();
        self.log.written(written, self.now);
        if ok && commit.needs_sync() {
            let synced = commit.sync();
            self.log.synced(synced, self.now);
        }
        true
    }

    /// Carries out all that is due.
    pub(crate) fn settle_down(&mut self) -> Vec<Progress> {
        while self.chore() || self.commit() {}
        self.progress()
    }

    pub(crate) fn progress(&mut self) -> Vec<Progress> {
        std::iter::from_fn(|| self.log.progress()).collect()
    }

    pub(crate) fn recovered(&mut self) -> Vec<Recovered> {
        std::iter::from_fn(|| self.log.next_recovered()).collect()
    }

    /// The jobs among what is recovered, by the numbers of [`id`].
    pub(crate) fn recovered_jobs(&mut self) -> Vec<u64> {
        let jobs = self.recovered().into_iter().filter_map(|item| match item {
            Recovered::Job(job) => Some(job.sequence),
            Recovered::Lease(_) => None,
        });
        jobs.collect()
    }

    pub(crate) fn result(&self, number: u64) -> Option<Vec<u8>> {
        let stored = self.log.read(id(number)).unwrap()?;
        let outcome = stored.outcome?;
        Some(Outcome::decode(outcome.as_ref()).unwrap().result.to_vec())
    }

    pub(crate) fn data(&self, number: u64) -> Option<Vec<u8>> {
        let stored = self.log.read(id(number)).unwrap()?;
        Some(Submit::decode(stored.submit.as_ref()).unwrap().data.to_vec())
    }
}

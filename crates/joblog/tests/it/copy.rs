//! Copying forward: what is live moves, and nothing that a reader can see changes, wherever the power goes.
//!
//! The judge is a second log that is given the same records and never copies: its one segment holds them all.

use std::collections::{BTreeMap, BTreeSet};

use joblog::Options;
use joblog::ids::{JobId, Token, WallMs};
use joblog::inspect;
use joblog::log::{Durability, Known, Progress, Space};
use joblog::record::{Cause, IdempotencyKey, Outcome, Record, Return, Submit};
use joblog::repair::{Plan, plan};
use joblog::storage::{File as _, Storage as _};
use joblog::testing::{Random, SimDisk};
use joblog::verify::verify;

use crate::support::{SECOND, TestLog, dispatch, id, outcome, small, submit};

const KEY_TTL_MS: u64 = 40_000;

fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        frame_bytes_max: 6 << 10,
        group_bytes_max: 4 << 10,
        result_ttl_ms: 15_000,
        key_ttl_ms: KEY_TTL_MS,
        results_max: 60,
        ..small()
    }
}

/// What a job that is live takes on disk.
#[derive(Clone, Copy, Default)]
struct Sizes {
    submit: u64,
    outcome: u64,
}

struct Pair {
    random: Random,
    /// The log that copies.
    log: TestLog,
    /// The log that does not.
    judge: TestLog,
    sizes: BTreeMap<u64, Sizes>,
    next_sequence: u64,
    numbers: u64,
    tokens: Vec<Token>,
    last_batch: Vec<u64>,
    leases: u64,
    copies_seen: u64,
}

fn size(record: &Record<'_>) -> u64 {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes.len() as u64
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut log = TestLog::with(options(16 << 10));
        log.settle_down();
        Self {
            random: Random(seed),
            log,
            judge: TestLog::with(options(2 << 20)),
            sizes: BTreeMap::new(),
            next_sequence: 1,
            numbers: 0,
            tokens: Vec::new(),
            last_batch: Vec::new(),
            leases: 0,
            copies_seen: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    /// The same records to both, durably.
    fn append(&mut self, records: &[Record<'_>]) {
        for log in [&mut self.log, &mut self.judge] {
            let ticket = log.log.append(records, Space::Settle, Durability::Sync).unwrap();
            // A group may wait for a spare.
            while !log.progress().contains(&Progress::Durable(ticket)) {
                assert!(log.commit() || log.chore(), "the group got no segment");
            }
        }
    }

    fn unsettled(&self) -> Vec<u64> {
        let open = |number: &u64| matches!(self.judge.log.find(id(*number)), Some(Known::Unsettled { .. }));
        (1..=self.numbers).filter(open).collect()
    }

    fn pick(&mut self, from: &[u64]) -> Option<u64> {
        let count = from.len() as u64;
        // The youngest mostly, so that old ones stay.
        let at = if self.below(3) == 0 {
            self.below(count.max(1))
        } else {
            count.saturating_sub(1 + self.below(3))
        };
        from.get(usize::try_from(at).unwrap()).copied()
    }

    fn submit(&mut self) {
        // Now and then an id that was forgotten comes again.
        let mut number = self.numbers + 1;
        if self.below(8) == 0 && self.numbers > 0 {
            let old = 1 + self.below(self.numbers);
            if self.judge.log.find(id(old)).is_none() {
                number = old;
            }
        }
        let data = vec![u8::try_from(number % 251).unwrap(); usize::try_from(self.below(900)).unwrap()];
        let mut record = Submit {
            sequence: self.next_sequence,
            ..submit(number, &data)
        };
        // Ids of the server's own never come again.
        let kind = if number == self.numbers + 1 {
            self.below(4)
        } else {
            0
        };
        self.numbers = self.numbers.max(number);
        match kind {
            0 => {
                record.client_id = true;
                record.fingerprint = u128::from(number) + 7;
            }
            1 => {
                record.idempotency = Some(IdempotencyKey {
                    scope: 1,
                    hash: u128::from(number),
                });
                record.fingerprint = u128::from(number) + 9;
            }
            _ => {}
        }
        self.next_sequence += 1;
        let record = Record::Submit(record);
        self.sizes.insert(
            number,
            Sizes {
                submit: size(&record),
                outcome: 0,
            },
        );
        self.append(&[record]);
    }

    fn settle(&mut self) {
        let open = self.unsettled();
        let Some(number) = self.pick(&open) else { return };
        let result = vec![b'r'; usize::try_from(self.below(700)).unwrap()];
        let keep = [None, Some(5), Some(4_000), Some(60_000)][usize::try_from(self.below(4)).unwrap()];
        let record = Record::Outcome(Outcome {
            keep_ms: keep,
            ..outcome(number, &result, self.log.now.wall)
        });
        self.sizes.get_mut(&number).unwrap().outcome = size(&record);
        self.append(&[record]);
    }

    fn dispatch(&mut self) {
        let open = self.unsettled();
        self.leases += 1;
        let token = Token {
            node: self.log.log.node(),
            epoch: self.log.log.epoch(),
            sequence: self.leases,
        };
        let count = usize::try_from(1 + self.below(4)).unwrap();
        let mut jobs: Vec<u64> = open.iter().rev().take(count).copied().collect();
        let mut token = token;
        // Now and then the last lease is written anew, with what is left of it.
        if let (0, Some(last)) = (self.below(6), self.tokens.last()) {
            token = *last;
            self.last_batch.retain(|number| open.contains(number));
            jobs.clone_from(&self.last_batch);
        }
        if !jobs.is_empty() {
            self.tokens.push(token);
            self.append(&[Record::Dispatch(dispatch(token, &jobs, self.log.now.wall))]);
            self.last_batch = jobs;
        }
    }

    fn some_token(&mut self) -> Option<Token> {
        let back = usize::try_from(self.below(4)).unwrap();
        self.tokens.iter().rev().nth(back).copied()
    }

    fn give_back(&mut self) {
        let open = self.unsettled();
        let (Some(number), Some(token)) = (self.pick(&open), self.some_token()) else {
            return;
        };
        let causes = [Cause::Released, Cause::Undelivered, Cause::Crashed, Cause::Error];
        let cause = causes[usize::try_from(self.below(4)).unwrap()];
        let (attempts, crashes) = (
            u32::try_from(self.below(9)).unwrap(),
            u32::try_from(self.below(3)).unwrap(),
        );
        let now = self.log.now.wall;
        let due = (self.below(2) == 0).then_some(WallMs(now.0 + 5_000));
        let alone = self.below(5) == 0;
        let record = Return {
            id: id(number),
            cause,
            token,
            due,
            written: due.map(|_| now),
            alone,
            attempts,
            crashes,
            error: None,
        };
        self.append(&[Record::Return(record)]);
    }

    fn step(&mut self) {
        match self.below(24) {
            0..6 => self.submit(),
            6..12 => self.settle(),
            12..14 => self.dispatch(),
            14 => {
                if let Some(token) = self.some_token() {
                    self.append(&[Record::Delivered(token)]);
                }
            }
            15..17 => self.give_back(),
            17 => {
                let name = format!("s{}", self.below(5));
                let value =
                    (self.below(3) > 0).then(|| vec![b'v'; usize::try_from(self.below(300)).unwrap()]);
                for log in [&mut self.log, &mut self.judge] {
                    log.set(&name, value.as_deref()).unwrap();
                }
                self.append(&[]);
            }
            18..20 => {
                let micros = self.below(15) * SECOND;
                self.log.advance(micros);
                self.judge.advance(micros);
            }
            _ => {
                for _ in 0..self.below(5) {
                    self.log.chore();
                }
            }
        }
    }

    fn compare(&mut self) {
        let (ours, theirs) = (self.log.recovered(), self.judge.recovered());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "what a start hands over");
        }
        assert_eq!(ours.len(), theirs.len());
        self.compare_memory();
    }

    fn compare_memory(&mut self) {
        for number in 1..=self.numbers {
            let (ours, theirs) = (self.log.log.find(id(number)), self.judge.log.find(id(number)));
            let gone = matches!(ours, Some(Known::Finished { readable: false, .. }));
            if gone {
                // A start that has all outcomes brings some back that had given way.
                assert!(
                    matches!(theirs, Some(Known::Finished { .. })),
                    "{number}: {ours:?} and {theirs:?}"
                );
            } else {
                assert_eq!(ours, theirs, "{number}");
                assert_eq!(self.log.data(number), self.judge.data(number), "{number}");
                assert_eq!(self.log.result(number), self.judge.result(number), "{number}");
            }
            let key = IdempotencyKey {
                scope: 1,
                hash: u128::from(number),
            };
            assert_eq!(
                self.log.log.find_key(key),
                self.judge.log.find_key(key),
                "{number}"
            );
        }
        assert_eq!(self.log.settings(), self.judge.settings());
    }

    /// Both start anew; the one that copies may lose its power in the middle of it.
    fn restart(&mut self) {
        let seed = self.random.next();
        if self.below(2) == 0
            && let Some(chore) = self.log.log.next_chore()
        {
            let changes = self.below(7);
            self.log.disk.power_off_after(changes);
            let _ = chore.run();
        }
        let disk = if self.below(4) == 0 {
            self.log.disk.kill()
        } else {
            self.log.disk.crash(seed)
        };
        self.log = self.log.reopen(disk).unwrap();
        self.judge = self.judge.reopen(self.judge.disk.kill()).unwrap();
        self.compare();
    }

    fn check_bound(&mut self) {
        self.log.settle_down();
        let sizes = |number: &u64| self.sizes[number];
        let live = (1..=self.numbers).map(|number| match self.log.log.find(id(number)) {
            Some(Known::Unsettled { .. }) => sizes(&number).submit + 200,
            Some(Known::Finished { readable: true, .. }) => sizes(&number).submit + sizes(&number).outcome,
            Some(_) => 224,
            // Its end, as long as its submit is somewhere.
            None => 112,
        });
        let settings: u64 = self
            .log
            .settings()
            .iter()
            .map(|(name, value)| (name.len() + value.len() + 32) as u64)
            .sum();
        check_disk(&self.log, live.sum::<u64>() + settings);
        self.check_inspection();
        let names = self.log.disk.list().unwrap();
        self.copies_seen += names.iter().filter(|name| is_cold(&self.log.disk, name)).count() as u64;
    }
}

impl Pair {
    /// Whoever only looks counts the same jobs.
    fn check_inspection(&self) {
        let disk = &self.log.disk;
        let mut segments = inspect::segments(disk).unwrap();
        inspect::read(disk, &mut segments, true, |_, _| ()).unwrap();
        let counted = segments.iter().filter_map(|segment| segment.content.unsettled);
        assert_eq!(counted.sum::<u64>(), self.log.log.usage().unsettled);
    }
}

fn is_cold(disk: &SimDisk, name: &str) -> bool {
    name.starts_with("segment") && disk.content(name)[10] == 1
}

/// The promise of DESIGN: three times what is live, and six segments.
fn check_disk(log: &TestLog, live: u64) {
    let used = log.disk.used();
    let bound = 3 * live + 6 * log.options.segment_bytes;
    assert!(
        used <= bound,
        "{used} bytes for {live} live ones, {bound} at most"
    );
}

fn run(seed: u64, steps: u64) -> u64 {
    let mut pair = Pair::new(seed);
    for step in 0..steps {
        pair.step();
        match pair.below(60) {
            0 => pair.restart(),
            1 => {
                pair.check_bound();
                pair.compare_memory();
            }
            _ => {}
        }
        if step + 1 == steps {
            pair.restart();
            pair.check_bound();
        }
    }
    pair.copies_seen
}

impl Pair {
    /// Damages something somewhere, and repairs. Says whether there was something to repair.
    fn damage_and_repair(&self, random: &mut Random, cold: bool) -> bool {
        let mut below = |limit: usize| usize::try_from(random.next() % limit as u64).unwrap();
        let disk = SimDisk::new();
        let mut segments = self.log.disk.list().unwrap();
        segments.retain(|name| name.starts_with("segment"));
        for name in &segments {
            disk.plant(name, &self.log.disk.content(name));
        }
        segments.retain(|name| is_cold(&disk, name) == cold);
        if segments.is_empty() {
            return false;
        }
        let name = &segments[below(segments.len())];
        let content = disk.content(name);
        // The free space behind the frames says nothing.
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let at = below(used);
        let frames: Vec<usize> = (512..used)
            .step_by(8)
            .filter(|at| content[*at..].starts_with(b"JOBF"))
            .collect();
        let frame = *frames.get(below(frames.len().max(1))).unwrap_or(&0);
        let mut noise = vec![0; 1 + below(200)];
        let zeros = match below(5) {
            0 => Some((at / 512 * 512, 512)),
            1 => {
                noise.fill_with(|| u8::try_from(below(256)).unwrap());
                disk.open(name).unwrap().write_at(&noise, at as u64).unwrap();
                None
            }
            2 => {
                disk.flip(name, frame + below(40));
                None
            }
            // What says where the copies of the frame belong.
            3 => Some((frame + 40, 28)),
            _ => {
                disk.flip(name, at);
                None
            }
        };
        if let Some((at, bytes)) = zeros {
            disk.open(name)
                .unwrap()
                .write_at(&vec![0; bytes], at as u64)
                .unwrap();
        }
        let mut source = Random(5);
        let plan = plan(&disk, &mut || source.next()).unwrap();
        let verdict = verify(&disk).unwrap();
        assert_eq!(plan.is_empty(), verdict.damages.is_empty(), "{name}: {verdict:?}");
        if plan.is_empty() {
            return false;
        }
        plan.carry_out(&disk).unwrap();
        self.check_repaired(&plan, disk);
        true
    }

    /// What the plan said is so, and nothing else changed.
    fn check_repaired(&self, plan: &Plan, disk: SimDisk) {
        let opened = self.log.reopen(disk).unwrap();
        assert_eq!(
            opened.report.unsettled, plan.jobs.unsettled,
            "as many jobs stay as were said to: {plan:?}"
        );
        if plan.jobs.frames_unknown > 0 {
            return;
        }
        let open = |log: &TestLog, number| matches!(log.log.find(id(number)), Some(Known::Unsettled { .. }));
        let changed: BTreeSet<JobId> = (1..=self.numbers)
            .filter(|number| open(&self.log, *number) != open(&opened, *number))
            .map(id)
            .collect();
        let named: BTreeSet<JobId> = plan.jobs.gone.union(&plan.jobs.again).copied().collect();
        let unnamed = changed.difference(&named).count();
        // An id, or what a record was, may be what is damaged: then another job is named, or none.
        let lost = plan.findings.iter().flat_map(|finding| &finding.lost);
        let strange = lost.filter(|lost| lost.job.is_none_or(|job| !changed.contains(&job)));
        let misnamed = plan.findings.iter().flat_map(|finding| &finding.lost);
        let misnamed = misnamed.filter(|lost| lost.job.is_some_and(|job| !named.contains(&job)));
        assert!(
            unnamed <= strange.count() + misnamed.count(),
            "{changed:?} change, and are not named: {plan:?}"
        );
    }
}

#[test]
fn a_repair_where_copies_are_says_what_becomes_of_the_jobs() {
    let (mut hot, mut cold) = (0, 0);
    for seed in 0..seeds() {
        let mut pair = Pair::new(seed);
        let mut random = Random(seed);
        for step in 1..=300 {
            pair.step();
            if step % 60 == 0 {
                if random.next().is_multiple_of(2) {
                    pair.restart();
                }
                pair.log.settle_down();
                for _ in 0..4 {
                    hot += u64::from(pair.damage_and_repair(&mut random, false));
                    cold += u64::from(pair.damage_and_repair(&mut random, true));
                }
            }
        }
    }
    assert!(
        hot > 2 * seeds() && cold > 2 * seeds(),
        "{hot} and {cold} repairs"
    );
}

/// `JOBLOG_COPY_SEEDS` runs more of them.
fn seeds() -> u64 {
    std::env::var("JOBLOG_COPY_SEEDS").map_or(40, |count| count.parse().unwrap())
}

#[test]
fn a_log_that_copies_and_one_that_does_not_say_the_same() {
    let copies: u64 = (0..seeds()).map(|seed| run(seed, 500)).sum();
    assert!(copies > 2 * seeds(), "{copies} cold segments were seen");
}

/// One unsettled job in each segment, and nothing else that lasts.
#[test]
fn one_old_job_in_each_segment_holds_no_segment() {
    let mut log = TestLog::with(Options {
        results_max: 10,
        ..options(16 << 10)
    });
    log.settle_down();
    let mut number = 0;
    let mut live = 0;
    for _ in 0..60 {
        number += 1;
        live += size(&Record::Submit(submit(number, b"the one that stays")));
        log.submit(number, b"the one that stays").unwrap();
        for _ in 0..12 {
            number += 1;
            log.submit(number, &[1; 1000]).unwrap();
            log.settle_down();
            let short = Outcome {
                keep_ms: Some(1),
                ..outcome(number, b"done", log.now.wall)
            };
            log.log
                .append(&[Record::Outcome(short)], Space::Settle, Durability::Sync)
                .unwrap();
            log.settle_down();
        }
        log.advance(SECOND);
        log.settle_down();
        check_disk(&log, live);
    }
    let mut log = log.reopen(log.disk.crash(3)).unwrap();
    assert_eq!(
        log.recovered_jobs(),
        (0..60).map(|at| 1 + at * 13).collect::<Vec<_>>()
    );
}

/// A job that is handed out and given back for ever takes no room for ever.
#[test]
fn a_job_that_goes_back_and_forth_takes_no_room() {
    let mut log = TestLog::with(options(16 << 10));
    log.submit(1, b"restless").unwrap();
    log.settle_down();
    for sequence in 1..=3_000 {
        let token = Token {
            node: log.log.node(),
            epoch: 1,
            sequence,
        };
        let back = Return {
            id: id(1),
            cause: Cause::Released,
            token,
            due: None,
            written: None,
            alone: false,
            attempts: 2,
            crashes: 1,
            error: None,
        };
        let records = [
            Record::Dispatch(dispatch(token, &[1], log.now.wall)),
            Record::Return(back),
        ];
        log.log.append(&records, Space::Settle, Durability::Sync).unwrap();
        log.settle_down();
    }
    check_disk(&log, 10_000);
    let mut log = log.reopen(log.disk.crash(3)).unwrap();
    let recovered = log.recovered();
    let [joblog::replay::Recovered::Job(job)] = &recovered[..] else {
        panic!("one job and no lease: {recovered:?}")
    };
    assert_eq!(
        (job.past.deliveries, job.past.attempts, job.past.crashes),
        (3_000, 2, 1)
    );
}

/// Copying stops where the disk is full and goes on where there is room; nothing is lost meanwhile.
#[test]
fn a_copy_that_finds_no_room_goes_on_later() {
    let mut log = TestLog::with(options(16 << 10));
    log.settle_down();
    for number in 1..=60 {
        log.submit(number, &[2; 1000]).unwrap();
        log.settle_down();
        if number % 10 != 0 {
            let short = Outcome {
                keep_ms: Some(1),
                ..outcome(number, b"done", log.now.wall)
            };
            log.log
                .append(&[Record::Outcome(short)], Space::Settle, Durability::Sync)
                .unwrap();
            while log.commit() {}
        }
    }
    log.advance(SECOND);
    log.disk.fail_nth_write_full(1, 10);
    for _ in 0..40 {
        log.settle_down();
        log.advance(SECOND);
    }
    check_disk(&log, 12 * 1200);
    let mut log = log.reopen(log.disk.crash(3)).unwrap();
    assert_eq!(log.recovered_jobs(), [10, 20, 30, 40, 50, 60]);
}

//! Random lives of a log: appends, commits, chores, faults, crashes at any step. After each restart everything
//! that was durable is there, nothing that failed for want of room is, and the log opens.

use std::collections::BTreeMap;

use crate::support::{TestLog, dispatch, outcome, submit};
use joblog::ids::{Token, WallMs};
use joblog::log::{Durability, Failure, Progress, Space, Ticket};
use joblog::record::Record;
use joblog::testing::{Random, SimDisk};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Appended; nothing is known.
    Queued,
    Durable,
    /// Failed for want of room: it must never be seen.
    Refused,
}

#[derive(Clone, Debug)]
struct Job {
    submit: Fate,
    outcome: Option<Fate>,
}

/// What one append was about.
#[derive(Clone, Copy, Debug)]
enum Part {
    Submit(u64),
    Outcome(u64),
    Dispatch,
}

struct Life {
    random: Random,
    log: TestLog,
    jobs: BTreeMap<u64, Job>,
    tickets: BTreeMap<Ticket, Part>,
    next: u64,
    leases: u64,
    durable: u64,
    restarts: u64,
}

fn payload(number: u64) -> Vec<u8> {
    let length = usize::try_from(number * 131 % 1500).unwrap();
    (0..length)
        .map(|at| u8::try_from((at as u64 * 7 + number) % 251).unwrap())
        .collect()
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut log = TestLog::new();
        log.seed = seed << 8;
        Self {
            random: Random(seed),
            log,
            jobs: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next: 1,
            leases: 0,
            durable: 0,
            restarts: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    fn step(&mut self) {
        match self.below(40) {
            0..12 => self.submit(),
            12..20 => self.settle(),
            20..23 => self.dispatch(),
            23..32 => self.commit(),
            32..36 => self.chore(),
            36 => {
                let micros = self.below(1_500_000);
                self.log.advance(micros);
            }
            37 => self.fault(),
            _ => {
                if self.below(4) == 0 {
                    self.crash();
                }
            }
        }
        self.learn();
        if self.log.log.poisoned().is_some() {
            self.crash();
        }
    }

    fn submit(&mut self) {
        let number = self.next;
        let data = payload(number);
        let durability = if self.below(5) == 0 {
            Durability::Write
        } else {
            Durability::Sync
        };
        let record = Record::Submit(submit(number, &data));
        let appended = self.log.log.append(&[record], Space::Submit, durability);
        if let Ok(ticket) = appended {
            self.next += 1;
            self.jobs.insert(
                number,
                Job {
                    submit: Fate::Queued,
                    outcome: None,
                },
            );
            self.tickets.insert(ticket, Part::Submit(number));
        }
    }

    fn settle(&mut self) {
        let open: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.submit == Fate::Durable && job.outcome.is_none_or(|fate| fate == Fate::Refused)
            })
            .map(|(number, _)| *number)
            .collect();
        if open.is_empty() {
            return;
        }
        let pick = usize::try_from(self.below(open.len() as u64)).unwrap();
        // The oldest mostly, so that segments die.
        let number = if self.below(3) == 0 { open[pick] } else { open[0] };
        let result = payload(number + 1);
        let mut record = outcome(number, &result, self.log.now.wall);
        record.keep_ms = Some(20_000);
        let appended = self
            .log
            .log
            .append(&[Record::Outcome(record)], Space::Settle, Durability::Sync);
        if let Ok(ticket) = appended {
            self.jobs.get_mut(&number).unwrap().outcome = Some(Fate::Queued);
            self.tickets.insert(ticket, Part::Outcome(number));
        }
    }

    fn dispatch(&mut self) {
        self.leases += 1;
        let token = Token {
            node: self.log.log.node(),
            epoch: self.log.log.epoch(),
            sequence: self.leases,
        };
        let record = Record::Dispatch(dispatch(token, &[self.next.saturating_sub(1)], WallMs(5)));
        if let Ok(ticket) = self.log.log.append(&[record], Space::Settle, Durability::Write) {
            self.tickets.insert(ticket, Part::Dispatch);
        }
    }

    /// A commit, with the power cut at any of its steps.
    fn commit(&mut self) {
        let now = self.log.now;
        let Some(commit) = self.log.log.next_commit(now) else {
            return;
        };
        let cut_at = self.below(24);
        if cut_at < 2 {
            // In the middle of what a commit does, or right behind it.
            let changes = self.below(9);
            self.log.disk.power_off_after(changes);
            let _ = commit.write().and_then(|()| commit.sync());
            return self.crash();
        }
        let written = commit.write();
        let ok = written.is_ok();
        self.log.log.written(written, now);
        self.learn();
        if !ok || !commit.needs_sync() {
            return;
        }
        if cut_at == 2 {
            return self.crash();
        }
        let synced = commit.sync();
        if cut_at == 3 {
            return self.crash();
        }
        self.log.log.synced(synced, now);
    }

    fn chore(&mut self) {
        if self.below(12) == 0
            && let Some(chore) = self.log.log.next_chore()
        {
            let changes = self.below(8);
            self.log.disk.power_off_after(changes);
            let _ = chore.run();
            return self.crash();
        }
        self.log.chore();
    }

    fn fault(&mut self) {
        let after = usize::try_from(self.below(3000)).unwrap();
        match self.below(8) {
            0..4 => self.log.disk.fail_next_write_full(after),
            4 => self.log.disk.fail_next_sync(),
            5 => self.log.disk.fail_next_write(),
            6 => self
                .log
                .disk
                .set_capacity(Some(self.log.disk.used() + u64::try_from(after).unwrap())),
            _ => self.log.disk.set_capacity(None),
        }
    }

    fn learn(&mut self) {
        for progress in self.log.progress() {
            let (ticket, fate) = match progress {
                Progress::Durable(ticket) => (ticket, Fate::Durable),
                Progress::Failed(ticket, Failure::DiskFull) => (ticket, Fate::Refused),
                _ => continue,
            };
            self.durable += u64::from(fate == Fate::Durable);
            match self.tickets[&ticket] {
                Part::Submit(number) => self.jobs.get_mut(&number).unwrap().submit = fate,
                Part::Outcome(number) => self.jobs.get_mut(&number).unwrap().outcome = Some(fate),
                Part::Dispatch => {}
            }
        }
    }

    fn crash(&mut self) {
        self.learn();
        let disk = self.dead_disk();
        self.restart(disk);
    }

    fn dead_disk(&mut self) -> SimDisk {
        let seed = self.random.next();
        let mut disk = if self.below(4) == 0 {
            self.log.disk.kill()
        } else {
            self.log.disk.crash(seed)
        };
        // Starts that are cut short themselves.
        while self.below(3) == 0 {
            let changes = self.below(30);
            disk.set_capacity(None);
            disk.power_off_after(changes);
            self.log.seed += 1;
            let _ = self.log.reopen(disk.clone());
            let seed = self.random.next();
            disk = if self.below(4) == 0 {
                disk.kill()
            } else {
                disk.crash(seed)
            };
        }
        disk
    }

    fn restart(&mut self, disk: SimDisk) {
        self.restarts += 1;
        disk.set_capacity(None);
        self.log = self
            .log
            .reopen(disk)
            .unwrap_or_else(|error| panic!("refused to open: {error}"));
        self.tickets.clear();
        let recovered = self.log.recovered_jobs();
        assert!(recovered.is_sorted(), "jobs come in the order of acceptance");
        let mut gone = Vec::new();
        for (number, job) in &mut self.jobs {
            let pending = recovered.binary_search(number).is_ok();
            let known = self.log.log.find(crate::support::id(*number));
            match job.submit {
                Fate::Refused => assert_eq!(known, None, "{number} was refused, and is there"),
                Fate::Durable => match job.outcome {
                    None | Some(Fate::Refused) => assert!(pending, "{number} is lost"),
                    Some(Fate::Durable) => assert!(!pending, "{number} was settled, and is back"),
                    Some(Fate::Queued) => job.outcome = (!pending).then_some(Fate::Durable),
                },
                Fate::Queued if pending => job.submit = Fate::Durable,
                Fate::Queued => {
                    assert_eq!(known, None);
                    gone.push(*number);
                }
            }
            if pending {
                assert_eq!(self.log.data(*number), Some(payload(*number)));
            } else if let Some(result) = self.log.result(*number) {
                assert_eq!(result, payload(*number + 1));
            }
        }
        for number in gone {
            self.jobs.remove(&number);
        }
        for number in recovered {
            assert!(self.jobs.contains_key(&number), "{number} was never appended");
        }
        let now = self.log.now;
        let kept = |job: &Job| job.outcome == Some(Fate::Durable);
        let results = self.jobs.values().filter(|job| kept(job)).count();
        assert!(self.log.log.usage().results <= results as u64, "at {now:?}");
    }
}

#[test]
fn what_is_durable_survives_every_crash_and_what_was_refused_never_appears() {
    let seeds = std::env::var("JOBLOG_SEEDS").map_or(12, |seeds| seeds.parse().unwrap());
    let first = std::env::var("JOBLOG_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (mut durable, mut restarts) = (0, 0);
    for seed in first..first + seeds {
        let caught = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            for _ in 0..1500 {
                life.step();
            }
            life.crash();
            (life.durable, life.restarts)
        });
        let (d, r) =
            caught.unwrap_or_else(|_| panic!("seed {seed}: replay with JOBLOG_SEED={seed} JOBLOG_SEEDS=1"));
        durable += d;
        restarts += r;
    }
    assert!(
        durable > seeds * 300 && restarts > seeds * 10,
        "{durable} durable, {restarts} restarts: too tame"
    );
}

/// Frames that nobody waits for, then one frame that says that they are synced: a mark, an end, a new segment.
#[test]
fn a_frame_that_witnesses_others_is_not_there_before_them() {
    for (what, changes, seed) in
        (0..3).flat_map(|what| (0..9).flat_map(move |changes| (0..24).map(move |seed| (what, changes, seed))))
    {
        let mut log = TestLog::new();
        log.settle_down();
        for number in 1..=4 {
            // At another place in its sectors for each seed.
            let data = vec![1; 4900 + 16 * usize::try_from(seed).unwrap()];
            let record = Record::Submit(submit(number, &data));
            let durability = if number == 1 {
                Durability::Sync
            } else {
                Durability::Write
            };
            log.log.append(&[record], Space::Submit, durability).unwrap();
            log.commit();
        }
        match what {
            0 => log.advance(crate::support::SECOND),
            1 => log.log.close(),
            _ => {
                log.submit(5, &[1; 9000]).unwrap();
            }
        }
        let commit = log.log.next_commit(log.now).unwrap();
        log.disk.power_off_after(changes);
        let _ = commit.write().and_then(|()| commit.sync());
        let mut log = log.reopen(log.disk.crash(seed)).unwrap();
        let jobs = log.recovered_jobs();
        assert!(
            jobs.starts_with(&[1]) && jobs.is_sorted(),
            "{jobs:?} after {changes} changes of {what}"
        );
        assert!(
            changes < 2 || jobs.len() >= 4,
            "{jobs:?} after {changes} changes of {what}"
        );
    }
}

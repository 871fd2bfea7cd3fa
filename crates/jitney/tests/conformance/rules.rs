//! The durability rules of the bus's documentation, asked of the bus itself, without a driver.

use jitney::bus::{
    AppendError, Bus, Durability, Event, Failure, Known, Record, SettingRecord, Space, Ticket,
};
use jitney::clock::{Mono, Now, WallMs};
use jitney::job::{End, JobId, Priority, Token};
use joblog::record::{Dispatch, Outcome, Submit};

use crate::harness::{Faulty, Harness, Restarts, Step};

/// Polls until a bus is quiet, at most.
const POLLS_MAX: usize = 100_000;

/// What the bus said, short enough to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Written(Ticket),
    Durable(Ticket),
    Failed(Ticket, Failure),
    Arrived(JobId),
    Outcome(JobId),
    /// The first byte of the name, and of the value if there is one.
    Setting(u8, Option<u8>),
    Ready,
    Closed,
    Other,
}

use Said::{Arrived, Closed, Durable, Failed, Outcome as Ended, Ready, Setting, Written};

/// A bus alone, and all that it said in this boot.
struct Alone<H: Harness> {
    harness: H,
    bus: Option<H::Bus>,
    now: Now,
    said: Vec<Said>,
}

impl<H: Harness> Alone<H> {
    fn open() -> Self {
        let now = Now {
            mono: Mono(1),
            wall: WallMs(1_750_000_000_000),
        };
        let mut alone = Self {
            harness: H::new(),
            bus: None,
            now,
            said: Vec::new(),
        };
        alone.reopen();
        assert_eq!(alone.said, [Ready]);
        alone.said.clear();
        alone
    }

    fn reopen(&mut self) {
        self.said.clear();
        self.bus = Some(self.harness.open(self.now));
        self.listen();
    }

    fn bus(&mut self) -> &mut H::Bus {
        self.bus.as_mut().expect("the bus is open")
    }

    /// Hears all that the bus has to say for now.
    fn listen(&mut self) {
        let now = self.now;
        for _ in 0..POLLS_MAX {
            match self.bus().poll(now) {
                Some(event) => self.said.push(short(&event)),
                None if !self.harness.progress() => return,
                None => {}
            }
        }
        panic!("the bus never came to rest");
    }

    fn submit(&mut self, n: u8) -> Ticket {
        self.bus()
            .append(&[submit(n, b"{}")], Space::Submit, Durability::Sync)
            .unwrap()
    }

    fn finish(&mut self, n: u8) -> Ticket {
        self.bus()
            .append(&[outcome(n)], Space::Settle, Durability::Sync)
            .unwrap()
    }

    /// `None` as the value removes the name.
    fn set(&mut self, name: &str, value: Option<&[u8]>) -> Ticket {
        let record = Record::Setting(SettingRecord {
            name,
            value,
            version: 0,
        });
        self.bus()
            .append(&[record], Space::Settle, Durability::Sync)
            .unwrap()
    }

    fn count(&self, said: Said) -> usize {
        self.said.iter().filter(|other| **other == said).count()
    }

    /// Where this was said; it must have been, once.
    fn place(&self, said: Said) -> usize {
        assert_eq!(self.count(said), 1, "{said:?} is said once: {:?}", self.said);
        self.said
            .iter()
            .position(|other| *other == said)
            .expect("it was counted")
    }

    fn arrivals(&self) -> Vec<JobId> {
        let arrival = |said: &Said| if let Arrived(id) = said { Some(*id) } else { None };
        self.said.iter().filter_map(arrival).collect()
    }
}

impl<H: Restarts> Alone<H> {
    fn kill_and_reopen(&mut self) {
        self.bus = None;
        self.harness.kill();
        self.reopen();
    }
}

impl<H: Faulty> Alone<H> {
    fn cut_power_and_reopen(&mut self, seed: u64) {
        self.bus = None;
        self.harness.cut_power(seed);
        self.reopen();
    }
}

fn short(event: &Event) -> Said {
    match event {
        Event::Written(ticket) => Written(*ticket),
        Event::Durable(ticket) => Durable(*ticket),
        Event::Failed(ticket, failure) => Failed(*ticket, *failure),
        Event::Arrived(arrival) => Arrived(arrival.id),
        Event::Outcome(id) => Ended(*id),
        Event::Ready => Ready,
        Event::Closed => Closed,
        Event::Setting(setting) => Setting(
            setting.name.as_bytes()[0],
            setting.value.as_ref().map(|value| value[0]),
        ),
        Event::Gone(_) | Event::Leased(_) | Event::SpaceReturned | Event::Broken => Said::Other,
    }
}

fn id(n: u8) -> JobId {
    JobId([n; 16])
}

fn submit(n: u8, data: &[u8]) -> Record<'_> {
    Record::Submit(Submit {
        id: id(n),
        processor: "orders",
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
        sequence: u64::from(n),
        accepted: WallMs(1_750_000_000_000),
    })
}

fn outcome(n: u8) -> Record<'static> {
    Record::Outcome(Outcome {
        id: id(n),
        end: End::Ok,
        reason: None,
        token: None,
        worker: None,
        started: None,
        finished: WallMs(1_750_000_000_000),
        attempts: 1,
        crashes: 0,
        result: b"{\"done\":true}",
        content_type: None,
        error: None,
        children: 0,
        keep_ms: None,
    })
}

fn dispatch(token: Token, n: u8) -> Record<'static> {
    Record::Dispatch(Dispatch {
        token,
        worker: "w",
        in_process: false,
        request_id: None,
        term_ms: 30_000,
        granted: WallMs(1_750_000_000_000),
        jobs: vec![id(n)],
    })
}

/// Rule 1: `Durable` promises survival of a power cut, so it waits for the sync.
pub(crate) fn rule1_durable_comes_only_after_the_sync<H: Faulty>() {
    for step in [Step::Write, Step::Sync, Step::Report] {
        let mut alone = Alone::<H>::open();
        alone.harness.hold(step);
        let ticket = alone.submit(1);
        alone.listen();
        assert!(alone.harness.is_held(), "{step:?}");
        assert_eq!(alone.count(Durable(ticket)), 0, "held before {step:?}");
        alone.harness.release();
        alone.listen();
        alone.place(Durable(ticket));
    }
}

/// Rule 1: after the power cut all that was durable is there, whatever else was under way.
pub(crate) fn rule1_what_was_durable_survives_a_power_cut<H: Faulty>() {
    for seed in 0..20 {
        let mut alone = Alone::<H>::open();
        let durable: Vec<u8> = (1..=5).collect();
        let tickets: Vec<Ticket> = durable.iter().map(|n| alone.submit(*n)).collect();
        alone.finish(2);
        alone.listen();
        for ticket in tickets {
            alone.place(Durable(ticket));
        }
        alone.harness.hold(Step::Sync);
        alone.submit(6);
        alone.listen();
        alone.cut_power_and_reopen(seed);
        let arrivals = alone.arrivals();
        for n in [1, 3, 4, 5] {
            assert!(
                arrivals.contains(&id(n)),
                "job {n} is there after power cut {seed}: {arrivals:?}"
            );
        }
        assert!(matches!(
            alone.bus().find(id(2)),
            Some(Known::Finished { readable: true, .. })
        ));
    }
}

/// The records of one append become durable together or not at all, wherever the power goes.
pub(crate) fn rule1_an_append_is_there_wholly_or_not_at_all<H: Faulty>() {
    let mut seen = [false; 2];
    for seed in 0..40 {
        let mut alone = Alone::<H>::open();
        alone.submit(1);
        alone.listen();
        alone.harness.hold(Step::Sync);
        let data = [b'x'; 3_000];
        let records = [outcome(1), submit(2, &data), submit(3, &data), submit(4, &data)];
        alone
            .bus()
            .append(&records, Space::Settle, Durability::Sync)
            .unwrap();
        alone.listen();
        assert!(alone.harness.is_held());
        alone.cut_power_and_reopen(seed);
        let arrivals = alone.arrivals();
        let whole = arrivals == [id(2), id(3), id(4)];
        assert!(
            whole || arrivals == [id(1)],
            "after power cut {seed}: {arrivals:?}"
        );
        seen[usize::from(whole)] = true;
    }
    assert_eq!(seen, [true; 2], "the seeds show both");
}

/// Rule 2: tickets become durable in the order of their appends.
pub(crate) fn rule2_tickets_become_durable_in_the_order_of_their_appends<H: Harness>() {
    let mut alone = Alone::<H>::open();
    let mut tickets = Vec::new();
    for n in 1..=30 {
        tickets.push(alone.submit(n));
        if n % 7 == 0 {
            alone.listen();
        }
    }
    alone.listen();
    let places: Vec<usize> = tickets
        .iter()
        .map(|ticket| alone.place(Durable(*ticket)))
        .collect();
    assert!(places.is_sorted(), "{:?}", alone.said);
    assert!(tickets.is_sorted(), "tickets name appends in their order");
}

/// Rule 2: a failure for want of room is a promise, too: nothing of that append is there, ever.
pub(crate) fn rule2_what_found_no_room_is_not_there_now_or_after_a_restart<H: Faulty>() {
    for seed in 0..20 {
        let mut alone = Alone::<H>::open();
        let before = alone.submit(1);
        alone.listen();
        alone.harness.fail_next_write_for_want_of_room();
        let refused = alone.submit(2);
        alone.listen();
        alone.place(Durable(before));
        alone.place(Failed(refused, Failure::DiskFull));
        assert_eq!(alone.count(Durable(refused)), 0);
        assert_eq!(alone.bus().find(id(2)), None);
        assert_eq!(alone.bus().usage().unsettled, 1);
        assert_eq!(alone.arrivals(), [id(1)]);
        if seed % 2 == 0 {
            // What comes behind it does not bring it back.
            let behind = alone.finish(1);
            alone.listen();
            alone.place(Durable(behind));
        }
        alone.cut_power_and_reopen(seed);
        let expected: &[JobId] = if seed % 2 == 0 { &[] } else { &[id(1)] };
        assert_eq!(alone.arrivals(), expected, "after power cut {seed}");
        assert_eq!(alone.bus().find(id(2)), None);
    }
}

/// Rule 3: a job can be seen once its submit is durable, and is shown once.
pub(crate) fn rule3_a_job_arrives_once_and_after_its_submit_is_durable<H: Harness>() {
    let mut alone = Alone::<H>::open();
    let one = alone.submit(1);
    let records = [submit(2, b"2"), submit(3, b"3")];
    let both = alone
        .bus()
        .append(&records, Space::Submit, Durability::Sync)
        .unwrap();
    alone.listen();
    assert!(alone.place(Durable(one)) < alone.place(Arrived(id(1))));
    assert!(alone.place(Durable(both)) < alone.place(Arrived(id(2))));
    assert!(alone.place(Arrived(id(2))) < alone.place(Arrived(id(3))));
    assert_eq!(alone.bus().find(id(3)), Some(Known::Unsettled { fingerprint: 0 }));
}

/// Rule 3: a job whose submit may still be lost is not shown.
pub(crate) fn rule3_no_job_arrives_before_its_sync<H: Faulty>() {
    let mut alone = Alone::<H>::open();
    alone.harness.hold(Step::Report);
    alone.submit(1);
    alone.listen();
    assert!(alone.harness.is_held());
    assert_eq!(alone.arrivals(), []);
    assert!(matches!(alone.bus().find(id(1)), Some(Known::Submitting { .. })));
    alone.harness.release();
    alone.listen();
    assert_eq!(alone.arrivals(), [id(1)]);
}

/// Rule 3: after a restart every unsettled job is shown again, in the order of acceptance, then `Ready`.
pub(crate) fn rule3_after_a_restart_every_unsettled_job_arrives_again_in_order_before_ready<H: Restarts>() {
    let mut alone = Alone::<H>::open();
    for n in 1..=40 {
        alone.submit(n);
        alone.listen();
    }
    for n in (1..=40).filter(|n| n % 3 == 0) {
        alone.finish(n);
    }
    alone.listen();
    for _ in 0..3 {
        alone.kill_and_reopen();
        let expected: Vec<JobId> = (1..=40).filter(|n| n % 3 != 0).map(id).collect();
        assert_eq!(alone.arrivals(), expected);
        assert_eq!(
            alone.place(Ready),
            alone.said.len() - 1,
            "`Ready` comes last: {:?}",
            alone.said
        );
    }
}

/// Rule 4: an outcome is told once, after it is durable; the job does not arrive again; a second outcome of the
/// same job says nothing.
pub(crate) fn rule4_an_outcome_is_told_once_and_after_it_is_durable<H: Harness>() {
    let mut alone = Alone::<H>::open();
    alone.submit(1);
    alone.listen();
    let ticket = alone.finish(1);
    alone.listen();
    assert!(alone.place(Durable(ticket)) < alone.place(Ended(id(1))));
    assert_eq!(alone.arrivals(), [id(1)]);
    assert!(matches!(
        alone.bus().find(id(1)),
        Some(Known::Finished {
            end: End::Ok,
            readable: true,
            ..
        })
    ));
    let stored = alone.bus().read(id(1)).unwrap().unwrap();
    let outcome = Outcome::decode(stored.outcome.as_deref().unwrap())
        .unwrap()
        .result
        .to_vec();
    assert_eq!(outcome, b"{\"done\":true}");
    assert_eq!(alone.bus().usage().unsettled, 0);
}

/// Rule 4: an outcome that may still be lost is not told.
pub(crate) fn rule4_no_outcome_is_told_before_its_sync<H: Faulty>() {
    let mut alone = Alone::<H>::open();
    alone.submit(1);
    alone.listen();
    alone.harness.hold(Step::Report);
    alone.finish(1);
    alone.listen();
    assert!(alone.harness.is_held());
    assert_eq!(alone.count(Ended(id(1))), 0);
    assert_eq!(alone.bus().find(id(1)), Some(Known::Unsettled { fingerprint: 0 }));
    alone.harness.release();
    alone.listen();
    alone.place(Ended(id(1)));
}

/// Rule 4: a job that has ended is never shown again.
pub(crate) fn rule4_after_a_restart_a_finished_job_stays_finished<H: Restarts>() {
    let mut alone = Alone::<H>::open();
    alone.submit(1);
    alone.submit(2);
    alone.listen();
    alone.finish(1);
    alone.listen();
    alone.kill_and_reopen();
    assert_eq!(alone.arrivals(), [id(2)]);
    assert_eq!(alone.count(Ended(id(1))), 0, "its outcome is no news");
    assert!(matches!(
        alone.bus().find(id(1)),
        Some(Known::Finished { readable: true, .. })
    ));
    assert!(alone.bus().read(id(1)).unwrap().unwrap().outcome.is_some());
}

/// Rule 5: after a failed sync nothing is ever durable again in this process; the next start has all that was
/// durable before.
pub(crate) fn rule5_after_a_failed_sync_nothing_is_durable<H: Faulty>() {
    for seed in 0..20 {
        let mut alone = Alone::<H>::open();
        alone.submit(1);
        alone.listen();
        alone.harness.fail_next_sync();
        let unknown = alone.submit(2);
        alone.listen();
        alone.place(Failed(unknown, Failure::Unknown));
        let durable = |said: &Said| matches!(said, Durable(_));
        let before = alone.said.iter().filter(|said| durable(said)).count();
        let later = alone
            .bus()
            .append(&[submit(3, b"3")], Space::Submit, Durability::Sync);
        assert_eq!(later, Err(AppendError::Closed));
        alone.listen();
        assert_eq!(alone.said.iter().filter(|said| durable(said)).count(), before);
        alone.cut_power_and_reopen(seed);
        assert_eq!(alone.arrivals().first(), Some(&id(1)));
        assert!(!alone.arrivals().contains(&id(3)));
    }
}

/// Rule 6: first written, then durable.
pub(crate) fn rule6_written_comes_before_durable<H: Harness>() {
    let mut alone = Alone::<H>::open();
    let tickets = [alone.submit(1), alone.submit(2)];
    alone.listen();
    for ticket in tickets {
        assert!(alone.place(Written(ticket)) < alone.place(Durable(ticket)));
    }
}

/// Rule 6: whoever asked for the write alone hears of it without any sync.
pub(crate) fn rule6_written_is_told_before_the_sync<H: Faulty>() {
    let mut alone = Alone::<H>::open();
    alone.submit(1);
    alone.listen();
    let syncs = alone.bus().usage().syncs;
    let token = Token {
        node: 1,
        epoch: 1,
        sequence: 1,
    };
    let written = alone
        .bus()
        .append(&[dispatch(token, 1)], Space::Settle, Durability::Write)
        .unwrap();
    alone.listen();
    alone.place(Written(written));
    assert_eq!(
        alone.bus().usage().syncs,
        syncs,
        "no sync for the sake of a write"
    );
    assert_eq!(alone.count(Durable(written)), 0);
    alone.harness.hold(Step::Sync);
    let synced = alone.submit(2);
    alone.listen();
    assert!(alone.harness.is_held());
    alone.place(Written(synced));
}

/// Rule 6: what was written is there after kill -9, synced or not.
pub(crate) fn rule6_what_was_written_survives_the_end_of_the_process<H: Restarts>() {
    let mut alone = Alone::<H>::open();
    alone.submit(1);
    alone.listen();
    let token = Token {
        node: 1,
        epoch: 1,
        sequence: 1,
    };
    let written = alone
        .bus()
        .append(&[dispatch(token, 1)], Space::Settle, Durability::Write)
        .unwrap();
    alone.listen();
    alone.place(Written(written));
    alone.bus = None;
    alone.harness.kill();
    let mut bus = alone.harness.open(alone.now);
    let mut leases = Vec::new();
    while let Some(event) = bus.poll(alone.now) {
        if let Event::Leased(lease) = event {
            leases.push((lease.token, lease.jobs));
        }
    }
    assert_eq!(leases, [(token, vec![id(1)])]);
}

/// `close` writes and syncs what is queued, says `Closed` last, and ends the bus.
pub(crate) fn a_closed_bus_takes_no_more<H: Harness>() {
    let mut alone = Alone::<H>::open();
    let ticket = alone.submit(1);
    alone.bus().close();
    alone.listen();
    assert!(alone.place(Durable(ticket)) < alone.place(Closed));
    let late = alone
        .bus()
        .append(&[submit(2, b"2")], Space::Submit, Durability::Sync);
    assert_eq!(late, Err(AppendError::Closed));
}

/// Rule 7: a setting is told after it is durable, and so is its removal.
pub(crate) fn rule7_a_setting_is_told_once_and_after_it_is_durable<H: Harness>() {
    let mut alone = Alone::<H>::open();
    let first = alone.set("a", Some(b"1"));
    let second = alone.set("a", None);
    alone.listen();
    for (ticket, value) in [(first, Some(b'1')), (second, None)] {
        assert!(alone.place(Durable(ticket)) < alone.place(Setting(b'a', value)));
    }
}

/// Rule 7: after a restart the latest of each name comes before any job, and what was removed does not come.
pub(crate) fn rule7_after_a_restart_the_latest_of_each_setting_is_told_first<H: Restarts>() {
    let mut alone = Alone::<H>::open();
    for (name, value) in [
        ("a", Some(&b"1"[..])),
        ("b", Some(b"1")),
        ("c", Some(b"1")),
        ("a", Some(b"2")),
        ("b", None),
    ] {
        alone.set(name, value);
    }
    alone.submit(1);
    alone.listen();
    for _ in 0..2 {
        alone.kill_and_reopen();
        let expected = [
            Setting(b'a', Some(b'2')),
            Setting(b'c', Some(b'1')),
            Arrived(id(1)),
            Ready,
        ];
        assert_eq!(alone.said, expected);
    }
    alone.set("a", Some(b"3"));
    alone.listen();
    alone.kill_and_reopen();
    assert_eq!(
        alone.count(Setting(b'a', Some(b'3'))),
        1,
        "versions go on growing"
    );
}

/// Rule 7: no setting is told before its sync.
pub(crate) fn rule7_no_setting_is_told_before_its_sync<H: Faulty>() {
    let mut alone = Alone::<H>::open();
    alone.harness.hold(Step::Sync);
    alone.set("a", Some(b"1"));
    alone.listen();
    assert_eq!(alone.count(Setting(b'a', Some(b'1'))), 0);
    alone.harness.release();
    alone.listen();
    assert_eq!(alone.count(Setting(b'a', Some(b'1'))), 1);
}

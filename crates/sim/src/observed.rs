//! A bus between the driver and the real one: it tapes what passes, and is where bus mutants lie.

use std::collections::VecDeque;

use bytes::Bytes;
use jitney::bus::{
    AppendError, Bus, Capabilities, DeadLane, Durability, Event, Identity, KeyEntry, Known, ReadError,
    Record, Space, StoredJob, Ticket, Usage,
};
use jitney::clock::{Mono, Now};
use jitney::job::{IdempotencyKey, JobId};

use crate::mutants::{BusMutant, Sabotage};
use crate::tape::{Ended, Report, Restored, Seen, Tape, Written};

/// The bus that the driver sees.
pub(crate) struct ObservedBus {
    inner: Box<dyn Bus>,
    tape: Tape,
    sabotage: Sabotage,
    /// Events that a mutant made up, told next.
    early: VecDeque<Event>,
    /// How many events of the sabotaged kind have passed.
    passed: u64,
    /// Everything from before the start was told.
    ready: bool,
}

/// A mutant that forgets does so with every n-th.
const FORGETS_EACH: u64 = 7;

impl ObservedBus {
    pub(crate) fn new(inner: Box<dyn Bus>, tape: Tape, sabotage: Sabotage) -> Self {
        Self {
            inner,
            tape,
            sabotage,
            early: VecDeque::new(),
            passed: 0,
            ready: false,
        }
    }

    fn nth(&mut self) -> bool {
        self.passed += 1;
        self.passed.is_multiple_of(FORGETS_EACH)
    }

    /// What a mutant makes of an event; `None`: it is withheld.
    fn spoil(&mut self, event: Event) -> Option<Event> {
        self.ready |= matches!(event, Event::Ready);
        match (self.sabotage.bus(), &event) {
            (Some(BusMutant::NotifyBeforeDurable), Event::Written(ticket)) => {
                self.early.push_back(Event::Durable(*ticket));
            }
            (Some(BusMutant::NotifyBeforeDurable), Event::Durable(_)) => return None,
            (Some(BusMutant::ForgetOutcome), Event::Outcome(_)) if self.nth() => return None,
            (Some(BusMutant::ForgetArrival), Event::Arrived(_)) if self.nth() => return None,
            (Some(BusMutant::ForgetLeases), Event::Leased(_)) => return None,
            (Some(BusMutant::ForgetSettings), Event::Setting(_)) if !self.ready => return None,
            _ => {}
        }
        Some(event)
    }
}

impl Bus for ObservedBus {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn identity(&self) -> Identity {
        let mut identity = self.inner.identity();
        if self.sabotage.bus() == Some(BusMutant::ReuseEpoch) {
            identity.epoch = 1;
        }
        identity
    }

    fn append(
        &mut self,
        records: &[Record<'_>],
        space: Space,
        durability: Durability,
    ) -> Result<Ticket, AppendError> {
        let result = match self.sabotage.bus() {
            Some(BusMutant::DropReturns) if matches!(records, [Record::Return(_), ..]) => {
                let marks: Vec<Record<'_>> = Vec::new();
                self.inner.append(&marks, space, durability)
            }
            Some(BusMutant::DropChildren) => {
                let kept: Vec<Record<'_>> = records
                    .iter()
                    .filter(|record| !is_child(record))
                    .cloned()
                    .collect();
                self.inner.append(&kept, space, durability)
            }
            _ => self.inner.append(records, space, durability),
        };
        let records = records.iter().map(written).collect();
        self.tape.borrow_mut().push(Seen::Append {
            records,
            durability,
            result,
        });
        result
    }

    fn poll(&mut self, now: Now) -> Option<Event> {
        loop {
            if let Some(event) = self.early.pop_front() {
                return Some(event);
            }
            let event = self.inner.poll(now)?;
            self.tape.borrow_mut().push(Seen::Bus(report(&event)));
            if let Some(event) = self.spoil(event) {
                return Some(event);
            }
        }
    }

    fn next_timer(&self) -> Option<Mono> {
        self.inner.next_timer()
    }

    fn answered(&mut self) {
        self.inner.answered();
    }

    fn unread_max(&self) -> usize {
        self.inner.unread_max()
    }

    fn find(&self, id: JobId) -> Option<Known> {
        self.inner.find(id)
    }

    fn find_key(&self, key: IdempotencyKey) -> Option<KeyEntry> {
        if self.sabotage.bus() == Some(BusMutant::ForgetKeys) && key.hash.is_multiple_of(3) {
            return None;
        }
        self.inner.find_key(key)
    }

    fn read(&self, id: JobId) -> Result<Option<StoredJob>, ReadError> {
        self.inner.read(id)
    }

    fn dead(&self) -> Vec<DeadLane> {
        self.inner.dead()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

const fn is_child(record: &Record<'_>) -> bool {
    matches!(record, Record::Submit(submit) if submit.parent.is_some())
}

fn written(record: &Record<'_>) -> Written {
    match record {
        Record::Submit(submit) => Written::Submit {
            id: submit.id,
            parent: submit.parent.map(|(parent, _)| parent),
            sequence: submit.sequence,
            data: Bytes::copy_from_slice(submit.data),
        },
        Record::Dispatch(dispatch) => Written::Dispatch {
            token: dispatch.token,
            worker: dispatch.worker.to_owned(),
            request_id: dispatch.request_id.map(str::to_owned),
            in_process: dispatch.in_process,
            jobs: dispatch.jobs.clone(),
        },
        Record::Delivered(token) => Written::Delivered(*token),
        Record::Outcome(outcome) => Written::Outcome(Ended {
            id: outcome.id,
            end: outcome.end,
            reason: outcome.reason,
            token: outcome.token,
            attempts: outcome.attempts,
            crashes: outcome.crashes,
            result: Bytes::copy_from_slice(outcome.result),
            code: outcome.error.map(|error| error.code.to_owned()),
            children: outcome.children,
        }),
        Record::Setting(setting) => {
            Written::Setting(setting.name.to_owned(), setting.value.map(Bytes::copy_from_slice))
        }
        Record::Ended(_) | Record::Tries(_) | Record::Copied(_) => {
            unreachable!("only copies have them, and nobody appends those")
        }
        Record::Return(back) => Written::Return {
            id: back.id,
            cause: back.cause,
            token: back.token,
            alone: back.alone,
            attempts: back.attempts,
            crashes: back.crashes,
        },
    }
}

fn report(event: &Event) -> Report {
    match event {
        Event::Written(ticket) => Report::Written(*ticket),
        Event::Durable(ticket) => Report::Durable(*ticket),
        Event::Failed(ticket, failure) => Report::Failed(*ticket, *failure),
        Event::Arrived(arrival) => {
            let past = arrival.recovered.unwrap_or_default();
            Report::Arrived {
                id: arrival.id,
                attempts: past.attempts,
                crashes: past.crashes,
                fresh: arrival.recovered.is_none(),
                due: arrival.due.is_some(),
            }
        }
        Event::Gone(id) => Report::Gone(*id),
        Event::Outcome(id) => Report::Outcome(*id),
        Event::Leased(lease) => Report::Leased(Restored {
            token: lease.token,
            in_process: lease.in_process,
            delivered: lease.delivered,
            term: std::time::Duration::from_millis(lease.term_ms),
            jobs: lease.jobs.clone(),
        }),
        Event::Setting(setting) => Report::Setting(setting.name.to_string(), setting.value.clone()),
        Event::Ready => Report::Ready,
        Event::SpaceReturned => Report::SpaceReturned,
        Event::Closed => Report::Closed,
        Event::Broken => Report::Broken,
    }
}

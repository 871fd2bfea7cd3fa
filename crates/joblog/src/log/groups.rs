//! Appends, gathered into groups: the records of one group are one frame.

use super::effect::{Effect, What};
use super::{AppendError, Closing, Durability, Failure, Log, Progress, Space, Ticket};
use crate::frame;
use crate::record::{Record, Submit};
use crate::settings::Refused;
use crate::storage::Storage;

/// A frame that is being filled.
#[derive(Debug)]
pub(super) struct Group {
    /// Room for the frame's head, then records.
    pub(super) frame: Vec<u8>,
    pub(super) contents: Contents,
}

/// What the records of a frame are, in their order.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) appends: Vec<Append>,
    pub(super) effects: Vec<Effect>,
}

/// One append's part of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) ticket: Ticket,
    pub(super) space: Space,
    pub(super) durability: Durability,
    /// Where its records end in the frame; they start where the one before ends.
    pub(super) end: usize,
}

impl Group {
    fn new() -> Self {
        Self {
            frame: vec![0; frame::HEAD],
            contents: Contents::default(),
        }
    }

    /// Appends a record.
    fn push(&mut self, record: &Record<'_>) {
        let start = self.frame.len();
        record.encode(&mut self.frame);
        let effect = Effect::of(record, start..self.frame.len());
        self.contents.effects.extend(effect);
    }

    /// What it will take on disk.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.frame.len().next_multiple_of(frame::ALIGN)).unwrap_or(u64::MAX)
    }

    /// Who may take a spare for it: a group with new work in it is new work.
    pub(super) fn space(&self) -> Space {
        let submits = self
            .contents
            .appends
            .iter()
            .any(|append| append.space == Space::Submit);
        if submits { Space::Submit } else { Space::Settle }
    }

    /// Splits off the new work.
    fn split(self) -> (Self, Self) {
        let (mut submits, mut settles) = (Self::new(), Self::new());
        let mut start = frame::HEAD;
        let mut effects = self.contents.effects.into_iter().peekable();
        for append in self.contents.appends {
            let part = if append.space == Space::Submit {
                &mut submits
            } else {
                &mut settles
            };
            let moved = part.frame.len();
            part.frame.extend_from_slice(&self.frame[start..append.end]);
            while let Some(effect) = effects.next_if(|effect| effect.starts_before(append.end)) {
                part.contents.effects.push(effect.moved(start, moved));
            }
            start = append.end;
            part.contents.appends.push(Append {
                end: part.frame.len(),
                ..append
            });
        }
        (submits, settles)
    }
}

impl<S: Storage> Log<S> {
    /// Queues records that become durable together or not at all: they are in one frame.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was queued.
    pub fn append(
        &mut self,
        records: &[Record<'_>],
        space: Space,
        durability: Durability,
    ) -> Result<Ticket, AppendError> {
        if self.poisoned.is_some() || self.closing != Closing::Open {
            return Err(AppendError::Closed);
        }
        let bytes: usize = records.iter().map(Record::bytes_max).sum();
        if bytes > self.options.frame_bytes_max {
            let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            return Err(AppendError::TooLarge {
                bytes: count(bytes),
                limit: count(self.options.frame_bytes_max),
            });
        }
        let keys = submits(records).filter(|submit| submit.has_identity()).count();
        if keys > 0 && self.index.keys_full(keys) {
            return Err(AppendError::KeysFull);
        }
        self.settings.check(records).map_err(settings_error)?;
        let fits = self.fits_hot_segment(bytes);
        if self.spares.refuses(space, fits) {
            return Err(AppendError::DiskFull);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        for submit in submits(records) {
            self.index.submit_queued(submit, ticket);
            self.identity.last_sequence = self.identity.last_sequence.max(submit.sequence);
        }
        let numbered = self.number_settings(records);
        let group = self.group_for(bytes);
        for record in numbered.as_deref().unwrap_or(records) {
            group.push(record);
        }
        group.contents.appends.push(Append {
            ticket,
            space,
            durability,
            end: group.frame.len(),
        });
        Ok(ticket)
    }

    /// The records, settings with their versions; `None` where there is no setting.
    fn number_settings<'a>(&mut self, records: &[Record<'a>]) -> Option<Vec<Record<'a>>> {
        let is_setting = |record: &Record<'_>| matches!(record, Record::Setting(_));
        records.iter().any(is_setting).then(|| {
            let number = |record: &Record<'a>| match record {
                Record::Setting(setting) => Record::Setting(self.settings.queue(setting)),
                other => other.clone(),
            };
            records.iter().map(number).collect()
        })
    }

    /// The group that takes `bytes` more: the last one, or a new one.
    fn group_for(&mut self, bytes: usize) -> &mut Group {
        let limit = self.options.group_bytes_max;
        if self
            .queue
            .back()
            .is_none_or(|last| last.frame.len() + bytes > limit)
        {
            self.queue.push_back(Group::new());
        }
        self.queue
            .back_mut()
            .expect("a group was pushed if there was none")
    }

    /// Whether the hot segment can hold `bytes` behind all that is queued.
    fn fits_hot_segment(&self, bytes: usize) -> bool {
        let head = u64::try_from(bytes + 2 * frame::HEAD).unwrap_or(u64::MAX);
        !self.needs_switch(self.queued_bytes() + head)
    }

    /// Bytes of the frames that are not written and synced yet.
    pub(super) fn queued_bytes(&self) -> u64 {
        let queued: u64 = self.queue.iter().map(Group::bytes).sum();
        queued + self.in_flight.as_ref().map_or(0, |commit| commit.bytes())
    }

    /// The first group cannot have the segment that it needs: its new work fails, or all of it.
    pub(super) fn fail_first_group(&mut self, space: Space) {
        let Some(group) = self.queue.pop_front() else {
            return;
        };
        if space == Space::Submit {
            let (submits, settles) = group.split();
            self.fail(&submits, Failure::DiskFull);
            if !settles.contents.appends.is_empty() {
                self.queue.push_front(settles);
            }
        } else {
            self.fail(&group, Failure::DiskFull);
        }
        self.spares.group_failed(self.now);
    }

    pub(super) fn fail(&mut self, group: &Group, failure: Failure) {
        self.fail_appends(&group.frame, &group.contents, failure);
    }

    /// What the frame contains will not be durable.
    pub(super) fn fail_appends(&mut self, frame: &[u8], contents: &Contents, failure: Failure) {
        for effect in &contents.effects {
            match effect.what {
                What::Submit(id) => self.index.submit_failed(id),
                What::Outcome(_) => {}
                What::Record => match own(effect.record(frame)) {
                    Record::Submit(submit) => self.index.submit_failed(submit.id),
                    Record::Setting(setting) => self.settings.unqueue(&setting),
                    _ => {}
                },
            }
        }
        let failed = contents
            .appends
            .iter()
            .map(|append| Progress::Failed(append.ticket, failure));
        self.progress.extend(failed);
    }
}

/// A record that is still as it was encoded.
pub(super) fn own(bytes: &[u8]) -> Record<'_> {
    Record::decode_own(bytes).unwrap_or_else(|error| unreachable!("this log encoded the record: {error}"))
}

fn settings_error(refused: Refused) -> AppendError {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match refused {
        Refused::TooLarge { bytes, limit } => AppendError::TooLarge {
            bytes: count(bytes),
            limit: count(limit),
        },
        Refused::Full => AppendError::SettingsFull,
    }
}

fn submits<'r, 'a>(records: &'r [Record<'a>]) -> impl Iterator<Item = &'r Submit<'a>> {
    records.iter().filter_map(|record| match record {
        Record::Submit(submit) => Some(submit),
        _ => None,
    })
}

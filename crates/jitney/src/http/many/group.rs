//! Jobs that go to the driver together, and what became of them.

use std::pin::Pin;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Terms;
use crate::driver::port::{Answer, Command, Submit, SubmitMany, Taken};
use crate::http::error::{Code, Problem, Result};
use crate::http::parse::job::{self, LATER_FIELDS, ONE_OF_MANY_FIELDS, Shared};
use crate::http::parse::lines::Line;
use crate::http::parse::object::{self, At};
use crate::http::submit;
use crate::http::{App, Connection};
use crate::units::format_count;

/// Entries of a group at most: what one commit takes.
const GROUP_JOBS_MAX: usize = 1_000;

/// Bytes of a group at most, but for a single job that is larger.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// A group whose jobs are waited for has this part of the places at most.
const PLACES_DIVISOR: u64 = 4;

/// Room for the fields of an envelope beside its data: labels and keys, with everything in them escaped.
const ENVELOPE_ROOM: u64 = 64 << 10;

/// Reads envelopes one after the other.
#[derive(Debug)]
pub(super) struct Envelopes {
    terms: Terms,
    job_bytes_max: u64,
    /// Entries of a group at most.
    group_jobs_max: usize,
    /// Jobs wait for places to wait in, rather than be refused.
    patient: bool,
    /// Nothing was read yet.
    first: bool,
    shared: Shared,
}

/// Entries that are next to go.
#[derive(Debug, Default)]
pub(super) struct Group {
    jobs: Vec<Submit>,
    /// Whether each job may be sent again in any case.
    named: Vec<bool>,
    /// Envelopes that are wrong, by their place in the group.
    bad: Vec<(usize, Box<Problem>)>,
    bytes: usize,
}

/// A group on its way.
pub(super) struct Sent {
    call: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    named: Vec<bool>,
    bad: Vec<(usize, Box<Problem>)>,
}

/// What became of a group.
#[derive(Debug)]
pub(super) struct Settled {
    /// Per entry, in their order.
    pub(super) entries: Vec<std::result::Result<Taken, Box<Problem>>>,
    /// Why the driver took none of its jobs, if it refused them as a whole.
    pub(super) refused: Option<Box<Problem>>,
}

impl Envelopes {
    /// For jobs with so many bytes of data at most.
    pub(super) fn new(job_bytes_max: u64, terms: Terms) -> Self {
        Self {
            terms,
            job_bytes_max,
            group_jobs_max: GROUP_JOBS_MAX,
            patient: false,
            first: true,
            shared: Shared::default(),
        }
    }

    /// Jobs that are waited for wait for places, of which so many are theirs at most: a group takes a part of them, so
    /// that the next can be on its way.
    pub(super) fn patient(mut self, places: u64) -> Self {
        if self.terms.wait.is_some() {
            let part = usize::try_from(places / PLACES_DIVISOR).unwrap_or(usize::MAX);
            self.group_jobs_max = part.clamp(1, GROUP_JOBS_MAX);
            self.patient = true;
        }
        self
    }

    /// Whose jobs they are.
    pub(super) const fn here(&self) -> &Connection {
        &self.terms.here
    }

    /// Entries of a group at most.
    pub(super) const fn group_jobs_max(&self) -> usize {
        self.group_jobs_max
    }

    /// Whether a group is to go.
    pub(super) const fn is_full(&self, group: &Group) -> bool {
        group.len() >= self.group_jobs_max || group.bytes >= GROUP_BYTES_MAX
    }

    /// The longest line that can be an envelope: its data may be in base64, 4 bytes for 3.
    pub(super) fn line_bytes_max(&self) -> usize {
        let data = self.job_bytes_max.saturating_mul(4) / 3;
        usize::try_from(data.saturating_add(ENVELOPE_ROOM)).unwrap_or(usize::MAX)
    }

    /// Reads a line into a group.
    pub(super) fn line(&mut self, group: &mut Group, line: Line) {
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::TooLong => {
                let detail = format!(
                    "the line is longer than {} bytes, so that its data must be too large: `max_job_bytes` is {}",
                    format_count(u64::try_from(self.line_bytes_max()).unwrap_or(u64::MAX)),
                    format_count(self.job_bytes_max)
                );
                let problem = Problem::new(Code::JobTooLarge, detail).limit(self.job_bytes_max);
                return group.add(0, Err(problem));
            }
        };
        let first = std::mem::take(&mut self.first);
        let mut read = object::whole("the line", &bytes, ONE_OF_MANY_FIELDS, LATER_FIELDS)
            .and_then(|object| Ok(self.submit(&object, &bytes)?));
        if let Err(problem) = &mut read
            && first
            && bytes.trim_ascii_start().starts_with(b"[")
        {
            problem
                .detail
                .push_str("; is the body an array? It is taken as application/json");
        }
        group.add(bytes.len(), read);
    }

    /// Reads an item of an array into a group. `body` is what it lies in.
    pub(super) fn item(&mut self, group: &mut Group, raw: &RawValue, body: &Bytes) {
        let read = object::object(raw, At::Body, ONE_OF_MANY_FIELDS, LATER_FIELDS)
            .and_then(|object| self.submit(&object, body));
        group.add(raw.get().len(), read.map_err(Box::from));
    }

    fn submit(&mut self, object: &object::Object<'_, '_>, body: &Bytes) -> object::Result<Submit> {
        let traceparent = self.terms.traceparent.as_deref();
        job::one_of_many(object, body, self.job_bytes_max, &mut self.shared, traceparent)
    }

    /// Sends a group to the driver, at once; nothing is left in it.
    pub(super) fn send(&self, app: &App, group: &mut Group) -> Sent {
        let Group { jobs, named, bad, .. } = std::mem::take(group);
        let (wait, patient) = (self.terms.wait, self.patient);
        let call = (!jobs.is_empty()).then(|| {
            let command = Command::SubmitMany(Box::new(SubmitMany { jobs, wait, patient }));
            let reply = app.handle().begin_unless(command, self.terms.here.leaving());
            let answer: Pin<Box<dyn Future<Output = Answer> + Send>> =
                Box::pin(async move { reply.await.answer });
            answer
        });
        Sent { call, named, bad }
    }
}

impl Group {
    pub(super) const fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.bad.is_empty()
    }

    /// How many entries it has.
    pub(super) const fn len(&self) -> usize {
        self.jobs.len() + self.bad.len()
    }

    /// Its share of what may be in flight, in entries: many bytes count as many entries.
    pub(super) fn cost(&self) -> usize {
        self.len()
            .max(self.bytes.saturating_mul(GROUP_JOBS_MAX) / GROUP_BYTES_MAX)
    }

    /// What was read, entry by entry.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn into_entries(self) -> Vec<Result<Submit>> {
        let mut jobs = self.jobs.into_iter();
        let mut bad = self.bad.into_iter().peekable();
        let count = jobs.len() + bad.len();
        let entries = (0..count).map(|place| match bad.next_if(|(at, _)| *at == place) {
            Some((_, problem)) => Err(problem),
            None => Ok(jobs.next().expect("an entry is a job or a problem")),
        });
        entries.collect()
    }

    fn add(&mut self, bytes: usize, read: Result<Submit>) {
        self.bytes += bytes;
        match read {
            Ok(submit) => {
                self.named.push(submit.is_named());
                self.jobs.push(submit);
            }
            Err(problem) => self.bad.push((self.len(), problem)),
        }
    }
}

impl Sent {
    /// Waits for what became of it.
    pub(super) async fn settled(self) -> Settled {
        let Self { call, named, bad } = self;
        let (taken, refused) = match call {
            None => (Vec::new(), None),
            Some(call) => match call.await {
                Answer::SubmittedMany(taken) => (taken, None),
                Answer::Refused(refusal) => {
                    let problem = submit::refused(refusal.clone(), named.iter().all(|named| *named));
                    (vec![Err(refusal); named.len()], Some(problem))
                }
                other => (vec![Err(submit::foreign(&other)); named.len()], None),
            },
        };
        let mut entries = Vec::with_capacity(named.len() + bad.len());
        let mut bad = bad.into_iter().peekable();
        for (taken, named) in taken.into_iter().zip(named) {
            while let Some((_, problem)) = bad.next_if(|(place, _)| *place == entries.len()) {
                entries.push(Err(problem));
            }
            entries.push(taken.map_err(|refusal| submit::refused(refusal, named)));
        }
        entries.extend(bad.map(|(_, problem)| Err(problem)));
        Settled { entries, refused }
    }
}

impl Settled {
    /// Why nothing of it was taken, if that is so for one reason.
    pub(super) fn refused_whole(&self) -> Option<&Problem> {
        let none = self.entries.iter().all(std::result::Result::is_err);
        self.refused.as_deref().filter(|_| none)
    }
}

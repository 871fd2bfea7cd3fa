//! How the entries of an answer look: what became of each job.

use super::group::Settled;
use super::outbox::Outbox;
use crate::driver::port::{Answer, Command, Taken};
use crate::driver::refusal::Refusal;
use crate::http::error::Problem;
use crate::http::json::Json;
use crate::http::submit::foreign;
use crate::http::{App, view};
use crate::job::{JobId, JobView, Status};

/// An answer goes out in pieces of about this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Room that an entry takes, but for its job.
const ENTRY_ROOM: usize = 112;

/// Jobs that are asked for at once; the driver gives as many of them as an answer takes.
const JOBS_AT_ONCE: usize = 256;

/// Writes entries, one after the other.
#[derive(Debug)]
pub(super) struct Writer {
    json: Json,
    /// The number of the next entry.
    index: u64,
    /// Entries stand on lines of their own, not in a list.
    lines: bool,
}

impl Writer {
    pub(super) fn new(lines: bool) -> Self {
        Self {
            json: Json::default(),
            index: 0,
            lines,
        }
    }

    /// What is written but for entries goes here.
    pub(super) const fn json(&mut self) -> &mut Json {
        &mut self.json
    }

    /// Sends what is written.
    pub(super) async fn flush(&mut self, outbox: &Outbox) {
        outbox.push(self.json.take()).await;
    }

    /// Writes what became of a group; with `whole`, each job as it is now, with its result.
    pub(super) async fn group(&mut self, app: &App, outbox: &Outbox, settled: Settled, whole: bool) {
        let mut jobs = Jobs::default();
        if whole {
            jobs.ids = settled
                .entries
                .iter()
                .filter_map(|entry| Some(entry.as_ref().ok()?.id))
                .collect();
        } else {
            self.json.reserve(settled.entries.len() * ENTRY_ROOM);
        }
        for entry in settled.entries {
            match entry {
                Ok(taken) if whole => match jobs.next(app).await {
                    Ok(job) => self.job(&job, taken.replayed),
                    Err(refusal) => self.gone(taken, refusal),
                },
                Ok(taken) => self.taken(taken),
                Err(problem) => self.problem(&problem),
            }
            if self.json.len() >= PIECE_BYTES {
                self.flush(outbox).await;
            }
        }
        if self.lines {
            self.flush(outbox).await;
        }
    }

    /// Writes a line that belongs to no entry: why there are no more of them.
    pub(super) fn ending(&mut self, problem: &Problem) {
        self.json.open();
        self.json.key("error");
        problem.write(&mut self.json);
        self.json.close();
        self.json.end_line();
    }

    fn begin(&mut self) {
        self.json.open();
        self.json.key("index");
        self.json.number(self.index);
        self.index += 1;
    }

    fn end(&mut self, replayed: bool) {
        if replayed {
            self.json.key("replayed");
            self.json.boolean(true);
        }
        self.json.close();
        if self.lines {
            self.json.end_line();
        }
    }

    fn taken(&mut self, taken: Taken) {
        self.begin();
        self.fields(taken);
        self.end(taken.replayed);
    }

    fn fields(&mut self, taken: Taken) {
        self.json.key("id");
        self.json.plain(taken.id);
        self.json.key("status");
        self.json.plain(taken.status.name());
        self.json.key("state");
        self.json.plain(taken.state.name());
    }

    fn job(&mut self, job: &JobView, replayed: bool) {
        self.begin();
        view::job_fields(&mut self.json, job);
        self.end(replayed);
    }

    /// A job that cannot be shown whole: it ended, and its result had to give way; or why else.
    fn gone(&mut self, taken: Taken, refusal: Refusal) {
        self.begin();
        self.fields(taken);
        match (refusal, taken.status) {
            (Refusal::UnknownJob, Status::ProcessedOk | Status::ProcessedError | Status::BatchFailed) => {
                self.json.key("result_expired");
                self.json.boolean(true);
            }
            (refusal, _) => {
                self.json.key("error");
                Box::<Problem>::from(refusal).write(&mut self.json);
            }
        }
        self.end(taken.replayed);
    }

    fn problem(&mut self, problem: &Problem) {
        self.begin();
        self.json.key("error");
        problem.write(&mut self.json);
        self.end(false);
    }
}

/// Jobs as they are now, read a few at a time, so that their results are never all in memory.
#[derive(Default)]
struct Jobs {
    ids: Vec<JobId>,
    /// How many of them were given.
    given: usize,
    read: std::vec::IntoIter<Result<JobView, Refusal>>,
}

impl Jobs {
    async fn next(&mut self, app: &App) -> Result<JobView, Refusal> {
        if let Some(job) = self.read.next() {
            self.given += 1;
            return job;
        }
        let end = self.ids.len().min(self.given + JOBS_AT_ONCE);
        let ids = self.ids[self.given..end].to_vec();
        match app.handle().call(Command::GetMany(ids)).await.answer {
            Answer::Jobs(jobs) => self.read = jobs.into_iter(),
            Answer::Refused(refusal) => return self.failed(refusal),
            other => return self.failed(foreign(&other)),
        }
        match self.read.next() {
            Some(job) => {
                self.given += 1;
                job
            }
            None => self.failed(Refusal::UnknownJob),
        }
    }

    fn failed(&mut self, refusal: Refusal) -> Result<JobView, Refusal> {
        self.given += 1;
        Err(refusal)
    }
}

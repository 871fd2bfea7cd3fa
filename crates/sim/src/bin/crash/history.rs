//! What happened: one line per event, appended before a call and after its answer, a file per process.
//!
//! A line is one write to the file, so that what a killed process saw is there. Times are the machine's wall
//! clock, the same for all processes; the checker uses them only where a later call must see an earlier answer.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use jitney::client::Job;
use jitney::clock::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use crate::order::{LABEL, Plan};

/// One event of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds of the wall clock.
    pub(crate) at: u64,
    /// The process.
    pub(crate) by: String,
    pub(crate) event: Event,
}

/// What a process did, or was told. A `call` is unique in its process, and has at most one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A caller submits.
    Submit(Submit),
    /// A caller reads a job. `last`: after everything was drained.
    Read { call: u64, id: String, last: bool },
    /// A caller gets a job.
    Answer { call: u64, job: View },
    /// A caller of many hears that one of them is taken: which job it is, and whether it was submitted before.
    Taken { call: u64, id: String, replayed: bool },
    /// A caller's call failed. `effect`: it may have been carried out.
    Failed { call: u64, code: String, effect: bool },
    /// A worker asks.
    Poll { call: u64, request: String },
    /// A worker gets batches.
    Leased { call: u64, batches: Vec<Held> },
    /// A worker says what became of jobs; of none: that a batch failed as a whole, or that it goes on.
    Settle {
        call: u64,
        lease: String,
        said: Vec<Said>,
    },
    /// A worker hears what became of it.
    Settled { call: u64, verdicts: Vec<Verdict> },
    /// The power of the server's disk was cut by now: what was not synced may be gone.
    Cut,
    /// The operator pauses a lane, or lets it go on.
    Pause { call: u64, lane: Lane, paused: bool },
    /// It is done, durably.
    Paused { call: u64 },
    /// The operator looks which lanes are paused.
    Look { call: u64 },
    /// These are.
    Looked { call: u64, paused: Vec<Lane> },
    /// The one who runs it all: a kill, a start, a stop.
    Note { text: String },
}

/// The jobs of one processor at one priority.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Lane {
    pub(crate) processor: String,
    pub(crate) priority: String,
}

/// A submit, as far as the checker must know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Submit {
    pub(crate) call: u64,
    /// The job's number.
    pub(crate) n: u64,
    /// Of the data.
    pub(crate) hash: u64,
    pub(crate) plan: Plan,
    pub(crate) processor: String,
    pub(crate) name: Name,
    pub(crate) wait: bool,
    /// It has the name of another job: must be refused.
    pub(crate) clash: bool,
}

/// What makes a repeated submit the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Key(String),
    Id(String),
    None,
}

/// A job, as an answer showed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) id: String,
    /// The number in its label.
    pub(crate) n: Option<u64>,
    pub(crate) parent: Option<String>,
    /// `None` until it has ended.
    pub(crate) end: Option<End>,
}

/// A job's final outcome, as an answer showed it: must be the same in each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    /// The bytes of the result.
    pub(crate) result: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) children: u32,
    pub(crate) finished_at: Option<u64>,
}

/// A batch in a worker's hands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) lease: String,
    pub(crate) lane: Lane,
    /// Id, number, hash of the data, how often it was handed out.
    pub(crate) jobs: Vec<(String, u64, u64, u32)>,
}

/// What a worker says of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) id: String,
    pub(crate) of: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Ok,
    FinalError,
    RetryableError,
    Release,
}

/// What the server says to an outcome: the job, and the word of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) id: String,
    pub(crate) is: String,
}

impl View {
    pub(crate) fn of(job: &Job) -> Self {
        let n = job.labels.iter().find(|(name, _)| name == LABEL);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let end = End {
            status: job.status.name().to_owned(),
            reason: job
                .reason
                .map(|reason| jitney::job::reason_name(reason).to_owned()),
            result: job.result.as_ref().map(|result| text(&result.bytes)),
            code: job.error.as_ref().map(|error| error.code.clone()),
            message: job.error.as_ref().map(|error| error.message.clone()),
            children: job.children,
            finished_at: job.finished_at.map(|at| at.0),
        };
        Self {
            id: job.id.to_string(),
            n: n.and_then(|(_, value)| value.parse().ok()),
            parent: job.parent.map(|id| id.to_string()),
            end: job.has_ended().then_some(end),
        }
    }

    /// A job of which nothing is known but that it was accepted.
    pub(crate) const fn open(id: String) -> Self {
        Self {
            id,
            n: None,
            parent: None,
            end: None,
        }
    }
}

/// The file that a process appends to.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    by: String,
    clock: SystemClock,
    calls: AtomicU64,
}

impl Recorder {
    /// Appends to `DIRECTORY/BY.history`.
    pub(crate) fn open(directory: &Path, by: &str) -> Result<Self> {
        let path = directory.join(format!("{by}.history"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        Ok(Self {
            file,
            by: by.to_owned(),
            clock: SystemClock::new(),
            calls: AtomicU64::new(0),
        })
    }

    /// The number of the next call.
    pub(crate) fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Appends it, in one write.
    pub(crate) fn record(&self, event: Event) -> Result<()> {
        let line = Line {
            at: self.clock.now().wall.0,
            by: self.by.clone(),
            event,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        (&self.file)
            .write_all(&text)
            .context("cannot append to the history")
    }
}

/// Every line of every history in the directory, by time. A last line that a kill cut off is left out.
pub(crate) fn read_all(directory: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "history") {
            let text = fs::read_to_string(&path)?;
            lines.extend(parse(&text).with_context(|| format!("in `{}`", path.display()))?);
        }
    }
    lines.sort_by_key(|line: &Line| line.at);
    Ok(lines)
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_back_but_for_a_line_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(directory.path(), "w").unwrap();
        let event = Event::Poll {
            call: recorder.call(),
            request: "r".to_owned(),
        };
        recorder.record(event.clone()).unwrap();
        recorder
            .file
            .try_clone()
            .unwrap()
            .write_all(b"{\"at\":1")
            .unwrap();
        let lines = read_all(directory.path()).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].by.as_str(), &lines[0].event), ("w", &event));
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        assert!(parse("oops\n").is_err());
    }
}

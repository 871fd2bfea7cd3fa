//! The file of `jitney submit --ndjson --out`: what became of each line, an object a line.
//!
//! In: entries, each once it is known for good. Out: a file that is only ever appended to, so that a run that was
//! killed is gone on with: an entry that was cut off is taken away, and the lines that have one are known by their
//! keys. One process at a time writes it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::exit::Exit;
use super::failure::Failure;
use crate::client::{Job, Problem};
use crate::job::{JobId, Status};

/// The status of a line that the server did not take, or that is no JSON.
const REFUSED: &str = "refused";

/// What is known of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is a job; nobody waited for its end.
    Submitted,
    /// Its job has a result.
    Ok,
    /// Its job failed.
    Failed,
    /// It is no job.
    Refused,
}

/// The file, and what stood in it when it was opened.
#[derive(Debug)]
pub(super) struct Results {
    file: File,
    path: PathBuf,
    known: HashMap<String, Known>,
    /// Entries that are not written yet.
    pending: Vec<u8>,
}

/// What makes a line one of an input: its number, and its key.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) key: String,
}

/// An entry, as far as it is read again.
#[derive(Deserialize)]
struct Read<'a> {
    /// It is there in every entry.
    #[serde(rename = "line")]
    _line: u64,
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    status: Option<std::borrow::Cow<'a, str>>,
}

/// The part of a job's own answer that goes into its entry.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result_base64: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result_expired: Option<&'a RawValue>,
}

/// An entry, as it is written.
#[derive(Default, Serialize)]
struct Entry<'a> {
    line: u64,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_expired: Option<&'a RawValue>,
}

/// The error of a line that is no job.
#[derive(Serialize)]
struct Refusal<'a> {
    code: &'a str,
    message: &'a str,
}

impl Results {
    /// Opens the file, makes it if it is not there, and reads what it knows. `ends`: whether entries have the ends of
    /// their jobs, or their ids alone.
    pub(super) fn open(path: &Path, ends: bool) -> Result<Self, Failure> {
        let failed = |error| unusable(path, &error);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process writes results into `{}`", path.display());
                return Err(Failure::usage(message).hint("let it end, or name another file"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut results = Self {
            file,
            path: path.to_owned(),
            known: HashMap::new(),
            pending: Vec::new(),
        };
        results.read(ends)?;
        Ok(results)
    }

    /// What is known of the line with this key.
    pub(super) fn known(&self, key: &str) -> Option<Known> {
        self.known.get(key).copied()
    }

    /// A line is a job, and nobody waits for its end.
    pub(super) fn submitted(&mut self, line: &Line, id: JobId) {
        self.push(&Entry {
            id: Some(id.to_string()),
            ..Entry::of(line)
        });
    }

    /// The job of a line has ended.
    pub(super) fn ended(&mut self, line: &Line, job: &Job) -> Result<(), Failure> {
        let answer: Answer<'_> = serde_json::from_str(job.json()).map_err(|error| {
            let message = format!("the answer is not one of jitney's: {error}");
            Failure::new(Exit::Unreachable, message)
        })?;
        self.push(&Entry {
            id: Some(job.id.to_string()),
            status: Some(job.status.name()),
            reason: answer.reason,
            error: answer.error,
            result: answer.result,
            result_base64: answer.result_base64,
            content_type: answer.content_type,
            result_expired: answer.result_expired,
            ..Entry::of(line)
        });
        Ok(())
    }

    /// The server will not take a line.
    pub(super) fn refused(&mut self, line: &Line, problem: &Problem) {
        self.push_refusal(line, &problem.code, &problem.detail);
    }

    /// A line is no JSON.
    pub(super) fn no_json(&mut self, line: &Line, why: &str) {
        self.push_refusal(line, "invalid_json", why);
    }

    /// Writes what came since the last time.
    pub(super) fn write(&mut self) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.pending);
        let written = self.file.write_all(&pending);
        written.map_err(|error| unusable(&self.path, &error))
    }

    /// The name of the file, for people.
    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    fn push_refusal(&mut self, line: &Line, code: &str, message: &str) {
        let refusal = serde_json::value::to_raw_value(&Refusal { code, message });
        self.push(&Entry {
            status: Some(REFUSED),
            error: refusal.ok().as_deref(),
            ..Entry::of(line)
        });
    }

    fn push(&mut self, entry: &Entry<'_>) {
        serde_json::to_writer(&mut self.pending, entry).expect("an entry is JSON, and a Vec takes all");
        self.pending.push(b'\n');
    }

    fn read(&mut self, ends: bool) -> Result<(), Failure> {
        let failed = |error| unusable(&self.path, &error);
        let mut whole = 0_u64;
        let mut known = HashMap::new();
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let number = known.len() + 1;
            let Ok(entry) = serde_json::from_slice::<Read<'_>>(&line) else {
                return Err(self.foreign(number));
            };
            let status = status(entry.status.as_deref()).ok_or_else(|| self.foreign(number))?;
            if (status == Known::Submitted) == ends && status != Known::Refused {
                return Err(self.of_another_kind(ends));
            }
            known.insert(entry.key.into_owned(), status);
            whole += u64::try_from(read).unwrap_or(u64::MAX);
        }
        // What was cut off is the beginning of an entry, or somebody else's file.
        let begun = &line[..line.len().min(BEGIN.len())];
        if !BEGIN.starts_with(begun) {
            return Err(self.foreign(known.len() + 1));
        }
        if !line.is_empty() {
            self.file.set_len(whole).map_err(failed)?;
        }
        self.known = known;
        Ok(())
    }

    fn foreign(&self, number: usize) -> Failure {
        let path = self.path.display();
        Failure::usage(format!("line {number} of `{path}` is no entry of `--out`"))
            .hint("nothing was changed: name a file that is not there, or the one of an earlier run")
    }

    fn of_another_kind(&self, ends: bool) -> Failure {
        let path = self.path.display();
        let (has, wants) = match ends {
            true => (
                "ids alone, of a run without `--wait`",
                "another file for the results",
            ),
            false => (
                "results, of a run with `--wait`",
                "`--wait`, or another file for the ids",
            ),
        };
        Failure::usage(format!("`{path}` has {has}")).hint(format!("nothing was submitted: give it {wants}"))
    }
}

/// What every entry begins with.
const BEGIN: &[u8] = b"{\"line\":";

impl<'a> Entry<'a> {
    fn of(line: &'a Line) -> Self {
        Self {
            line: line.number,
            key: &line.key,
            ..Self::default()
        }
    }
}

fn status(name: Option<&str>) -> Option<Known> {
    match name {
        None => Some(Known::Submitted),
        Some(REFUSED) => Some(Known::Refused),
        Some(name) if name == Status::ProcessedOk.name() => Some(Known::Ok),
        Some(name) => [Status::ProcessedError, Status::BatchFailed]
            .iter()
            .any(|status| status.name() == name)
            .then_some(Known::Failed),
    }
}

/// Keeps `"result":null`, which is a result, apart from no `result`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Io,
        format!("cannot write results into `{}`: {error}", path.display()),
    )
    .hint("run it again once that is mended: it goes on where it stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Line {
        Line {
            number,
            key: format!("k-{number}"),
        }
    }

    #[test]
    fn an_entry_that_was_cut_off_is_taken_away_and_the_others_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.ndjson");
        let mut results = Results::open(&path, false).unwrap();
        results.submitted(&line(1), JobId([1; 16]));
        results.no_json(&line(2), "oops");
        results.write().unwrap();
        let busy = Results::open(&path, false).unwrap_err();
        assert!(
            busy.message.starts_with("another process writes"),
            "{}",
            busy.message
        );
        drop(results);
        let whole = std::fs::read_to_string(&path).unwrap();
        for cut in ["{", "{\"line\":3,\"ke"] {
            std::fs::write(&path, format!("{whole}{cut}")).unwrap();
            let results = Results::open(&path, false).unwrap();
            let known = [1, 2, 3].map(|number| results.known(&line(number).key));
            assert_eq!(known, [Some(Known::Submitted), Some(Known::Refused), None]);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_file_of_somebody_else_or_of_another_kind_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.ndjson");
        for (text, ends) in [
            ("notes", false),
            ("{\"a\":1}\n", false),
            ("{\"line\":1,\"key\":\"k\",\"status\":\"gone\"}\n", true),
            ("{\"line\":1,\"key\":\"k\",\"id\":\"x\"}\n", true),
            ("{\"line\":1,\"key\":\"k\",\"status\":\"processed_ok\"}\n", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                Results::open(&path, ends).unwrap_err().exit,
                Exit::Usage,
                "{text}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}

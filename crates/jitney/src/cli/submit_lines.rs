//! `jitney submit PROCESSOR --ndjson FILE|-`: a job for each line, and where it stopped it goes on when it is
//! called again.
//!
//! In: lines, each one job's data. Out: what became of them: counts, the lines that were refused, and with `--out` a
//! file of all of them. A line's idempotency key is made of the input's name, the line's number and its content, so
//! that a second run submits what the first did not, and nothing twice.

use std::hash::Hasher as _;
use std::io::BufRead;
use std::time::Duration;

use bytes::Bytes;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tokio::task::JoinSet;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::submit_results::{Known, Line, Results};
use crate::client::{Client, Error, Job, Problem, Retry, Submit, Taken};
use crate::job::Status;
use crate::units::format_count;

/// Lines that are submitted together.
const PART_LINES: usize = 1_000;

/// Bytes of lines that are submitted together, but for a single line that is longer.
const PART_BYTES: usize = 1 << 20;

/// Parts whose jobs are waited for at once: one that takes long does not hold the others up, and other callers find
/// waiters' places.
const PARTS_WAITED_FOR: usize = 4;

/// The longest line: far above any server's limit for a job, so that the server's own answer names it.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Refused lines that are shown; the rest is counted.
const SHOWN_MAX: u64 = 20;

/// What becomes of the lines, as far as it is known.
#[derive(Debug, Default)]
struct Counts {
    /// Lines that are not blank.
    lines: u64,
    /// Bytes that were read.
    bytes: u64,
    accepted: u64,
    /// Of these, submitted before.
    replayed: u64,
    rejected: u64,
    /// Of these, whose keys stand for jobs with other options.
    reused: u64,
    /// Of those accepted, how many are known to have a result.
    ok: u64,
    /// How many failed.
    failed: u64,
    /// How many had not ended when the wait was over.
    unfinished: u64,
}

/// A job for each line.
pub(super) struct Lines<'a> {
    pub(super) client: Client,
    /// Makes the job of a line's data.
    pub(super) job: &'a dyn Fn(Bytes) -> Submit,
    /// What the keys of its lines begin with; `None`: each line's key is made up, for this run alone.
    pub(super) name: Option<Vec<u8>>,
    /// How long the input is, if that is known.
    pub(super) length: Option<u64>,
    /// How long each job is waited for; not at all if it is not there.
    pub(super) wait: Option<Duration>,
    /// Where it is kept what became of each line. Then the lines have a name.
    pub(super) results: Option<Results>,
    pub(super) output: Output,
}

/// A part of the lines, and their jobs.
#[derive(Default)]
struct Part {
    lines: Vec<Line>,
    submits: Vec<Submit>,
    bytes: usize,
}

/// What the server says of a part's lines.
struct Sent {
    lines: Vec<Line>,
    said: Result<Vec<Said>, Error>,
}

/// What the server says of a line.
enum Said {
    /// It is a job.
    Taken(Taken),
    /// Its job has ended.
    Ended(Box<Job>),
    /// Its job has not ended yet.
    Unfinished,
    /// It is no job.
    Refused(Box<Problem>),
    /// Its job could not be asked for any more.
    Lost(Error),
}

impl Lines<'_> {
    /// Submits line after line.
    pub(super) async fn submit(mut self, mut input: impl BufRead) -> Result<Exit, Failure> {
        let mut counts = Counts::default();
        let done = self.submit_all(&mut input, &mut counts).await;
        self.output.no_progress();
        // What is known is kept, however it went on.
        let written = self.results.as_mut().map_or(Ok(()), Results::write);
        if let Err(failure) = done.and(written) {
            return Err(self.stopped(failure, &counts));
        }
        self.summary(&counts);
        Ok(match counts {
            Counts { unfinished: 1.., .. } => Exit::TimedOut,
            Counts {
                rejected: 0,
                failed: 0,
                ..
            } => Exit::Done,
            _ => Exit::JobFailed,
        })
    }

    async fn submit_all(&mut self, input: &mut impl BufRead, counts: &mut Counts) -> Result<(), Failure> {
        let at_once = if self.wait.is_some() { PARTS_WAITED_FOR } else { 1 };
        let mut sending = JoinSet::new();
        let mut part = Part::default();
        let mut number = 0_u64;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = read_line(input, &mut line)?;
            let ended = read == 0;
            number += u64::from(!ended);
            counts.bytes += u64::try_from(read).unwrap_or(u64::MAX);
            let data = line.trim_ascii();
            if !data.is_empty() {
                counts.lines += 1;
                self.take(number, data, &mut part, counts);
            }
            let full = part.submits.len() >= PART_LINES || part.bytes >= PART_BYTES;
            if (full || ended) && !part.submits.is_empty() {
                sending.spawn(send(self.client.clone(), std::mem::take(&mut part), self.wait));
            }
            let open = if ended { 0 } else { at_once - 1 };
            while sending.len() > open
                && let Some(sent) = sending.join_next().await
            {
                let sent = sent.map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
                self.settle(sent, counts)?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn take(&mut self, number: u64, data: &[u8], part: &mut Part, counts: &mut Counts) {
        let key = self.name.as_ref().map(|name| key(name, number, data));
        let line = Line {
            number,
            key: key.clone().unwrap_or_default(),
        };
        let known = self.results.as_ref().and_then(|results| results.known(&line.key));
        if let Some(known) = known {
            return counts.known(known);
        }
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(data) {
            let why = not_json(data, &error);
            if let Some(results) = &mut self.results {
                results.no_json(&line, &why);
            }
            return self.reject(number, &why, counts);
        }
        let mut submit = (self.job)(Bytes::copy_from_slice(data));
        if let Some(key) = &key {
            submit = submit.idempotency_key(key.as_str());
        }
        part.lines.push(line);
        part.bytes += data.len();
        part.submits.push(submit);
    }

    /// Counts and keeps what the server said. What a retry might change stops the whole: the next lines would fare no
    /// better.
    fn settle(&mut self, sent: Sent, counts: &mut Counts) -> Result<(), Failure> {
        let mut stop = None;
        for (line, said) in sent.lines.iter().zip(sent.said?) {
            match said {
                Said::Taken(taken) => {
                    counts.accepted += 1;
                    counts.replayed += u64::from(taken.replayed);
                    if let Some(results) = &mut self.results {
                        results.submitted(line, taken.id);
                    }
                }
                Said::Ended(job) => {
                    counts.accepted += 1;
                    match job.status {
                        Status::ProcessedOk => counts.ok += 1,
                        _ => counts.failed += 1,
                    }
                    if let Some(results) = &mut self.results {
                        results.ended(line, &job)?;
                    }
                }
                Said::Unfinished => {
                    counts.accepted += 1;
                    counts.unfinished += 1;
                }
                Said::Refused(problem) if problem.retry != Retry::No => stop = Some(Error::Refused(problem)),
                Said::Refused(problem) => {
                    counts.reused += u64::from(problem.code == "idempotency_key_reused");
                    if let Some(results) = &mut self.results {
                        results.refused(line, &problem);
                    }
                    self.reject(line.number, &problem.to_string(), counts);
                }
                Said::Lost(error) => {
                    counts.accepted += 1;
                    stop = Some(error);
                }
            }
        }
        if let Some(results) = &mut self.results {
            results.write()?;
        }
        if self.output.is_watched() {
            self.output.progress(&self.progress(counts));
        }
        stop.map_or(Ok(()), |error| Err(error.into()))
    }

    fn reject(&self, number: u64, why: &str, counts: &mut Counts) {
        counts.rejected += 1;
        if counts.rejected <= SHOWN_MAX {
            self.output.no_progress();
            self.output.note(&format!("line {number}: {why}"));
        }
    }

    fn progress(&self, counts: &Counts) -> String {
        let done = format_count(counts.accepted + counts.rejected);
        match self.length.filter(|length| *length > 0) {
            Some(length) => {
                let percent = counts.bytes.saturating_mul(100) / length;
                let bar = usize::try_from(percent.min(100) / 5).unwrap_or(0);
                format!("[{:<20}] {percent:>3} %  {done} lines", "#".repeat(bar))
            }
            None => format!("{done} lines"),
        }
    }

    fn summary(&self, counts: &Counts) {
        if counts.rejected > SHOWN_MAX {
            let more = format_count(counts.rejected - SHOWN_MAX);
            self.output.note(&format!("and {more} more lines"));
        }
        if counts.reused > 0 {
            self.output.note(&format!(
                "hint: {} of these lines were submitted before with another --group, --priority, --key or --label; \
                 --name NAME makes new jobs of them",
                format_count(counts.reused)
            ));
        }
        if self.output.json {
            let mut summary = serde_json::json!({"lines": counts.lines, "accepted": counts.accepted,
                "replayed": counts.replayed, "rejected": counts.rejected});
            if self.wait.is_some() {
                summary["ok"] = counts.ok.into();
                summary["failed"] = counts.failed.into();
                summary["unfinished"] = counts.unfinished.into();
            }
            self.output.line(&summary.to_string());
        } else {
            self.output.line(&said(counts, self.wait.is_some()));
        }
        if let Some(results) = &self.results {
            self.point_to(results, counts);
        }
    }

    /// How to find what somebody may look for now.
    fn point_to(&self, results: &Results, counts: &Counts) {
        let path = results.path();
        if counts.failed > 0 {
            self.output.note(&format!(
                "hint: the failed: jq -c 'select(.status | IN(\"processed_error\", \"batch_failed\"))' {path}"
            ));
        }
        if counts.rejected > 0 {
            self.output.note(&format!(
                "hint: the refused: jq -c 'select(.status == \"refused\")' {path}"
            ));
        }
        if counts.unfinished > 0 {
            self.output.note(&format!(
                "hint: {} jobs go on, and are not in {path} yet; run it again to wait for them",
                format_count(counts.unfinished)
            ));
        }
    }

    /// It did not come to the first line.
    pub(super) fn not_begun(&self, failure: Failure) -> Failure {
        self.stopped(failure, &Counts::default())
    }

    /// It did not come to the end: what is done, and how to go on.
    fn stopped(&self, failure: Failure, counts: &Counts) -> Failure {
        let done = said(counts, self.wait.is_some());
        let again = match self.name {
            Some(_) => "run it again: it goes on where it stopped, and submits nothing twice",
            None => "with --name a second run would go on where this one stopped",
        };
        Failure {
            message: format!("{} ({done} so far)", failure.message),
            hint: Some(again.to_owned()),
            ..failure
        }
    }
}

impl Counts {
    /// A line of which an earlier run kept what became of it.
    fn known(&mut self, known: Known) {
        if known == Known::Refused {
            self.rejected += 1;
            return;
        }
        self.accepted += 1;
        self.replayed += 1;
        match known {
            Known::Ok => self.ok += 1,
            Known::Failed => self.failed += 1,
            Known::Submitted | Known::Refused => {}
        }
    }
}

/// Submits a part, and waits for its jobs if that is wanted.
async fn send(client: Client, part: Part, wait: Option<Duration>) -> Sent {
    let Part { lines, submits, .. } = part;
    let said = match wait {
        None => client.submit_many(submits).await.map(|entries| {
            let entries = entries.into_iter();
            entries
                .map(|entry| entry.map_or_else(Said::Refused, Said::Taken))
                .collect()
        }),
        Some(wait) => client
            .submit_many_and_wait(submits, wait)
            .await
            .map(|ends| ends.into_iter().map(end).collect()),
    };
    Sent { lines, said }
}

fn end(end: Result<Job, Error>) -> Said {
    match end {
        Ok(job) => Said::Ended(Box::new(job)),
        Err(Error::TimedOut { .. }) => Said::Unfinished,
        Err(Error::Refused(problem)) => Said::Refused(problem),
        Err(error) => Said::Lost(error),
    }
}

fn said(counts: &Counts, waited: bool) -> String {
    let mut text = format!("{} submitted", format_count(counts.accepted));
    if counts.replayed > 0 {
        text.push_str(&format!(" ({} of them before)", format_count(counts.replayed)));
    }
    if counts.rejected > 0 {
        text.push_str(&format!(", {} refused", format_count(counts.rejected)));
    }
    if waited {
        text.push_str(&format!(
            "; {} went well, {} failed, {} not ended",
            format_count(counts.ok),
            format_count(counts.failed),
            format_count(counts.unfinished)
        ));
    }
    text
}

/// The key of a line: a hash, so that any name and any content make one that may stand in a request.
fn key(name: &[u8], number: u64, data: &[u8]) -> String {
    let mut hasher = SipHasher24::new_with_key(b"jitney ndjson v1");
    hasher.write(name);
    hasher.write(&[0]);
    hasher.write(&number.to_le_bytes());
    hasher.write(data);
    format!("{:032x}-{number}", hasher.finish128().as_u128())
}

/// Reads a line with its end. Says how many bytes that were.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> Result<usize, Failure> {
    let limit = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    let read = std::io::Read::take(&mut *input, limit)
        .read_until(b'\n', line)
        .map_err(|error| Failure::usage(format!("cannot read the lines: {error}")))?;
    if read > LINE_BYTES_MAX {
        return Err(Failure::usage("a line is longer than 64 MiB").hint("one line is one job's data"));
    }
    Ok(read)
}

/// Why a line is not JSON, and what is probably wrong with the whole file. The line's own number is said beside it.
fn not_json(data: &[u8], error: &serde_json::Error) -> String {
    if data.starts_with(b"\xef\xbb\xbf") || data.starts_with(b"\xff\xfe") || data.starts_with(b"\xfe\xff") {
        return "it begins with a byte-order mark, which no JSON has; write the file as UTF-8 without one"
            .to_owned();
    }
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    let column = error.column();
    match data.first() {
        Some(b'[') => format!(
            "not JSON: {what} at column {column}; is the file an array? It must have a job in each line"
        ),
        _ => format!("not JSON: {what} at column {column}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_json_hears_what_the_file_may_be() {
        let why = |data: &[u8]| {
            let error = serde_json::from_slice::<serde::de::IgnoredAny>(data).unwrap_err();
            not_json(data, &error)
        };
        assert_eq!(why(b"{} {}"), "not JSON: trailing characters at column 4");
        assert!(why(b"[{}, ").ends_with("is the file an array? It must have a job in each line"));
        assert!(why(b"\xef\xbb\xbf{}").starts_with("it begins with a byte-order mark"));
    }

    #[test]
    fn a_key_is_that_of_its_line_only() {
        let first = key(b"/orders.ndjson", 1, b"{}");
        assert_eq!(first, key(b"/orders.ndjson", 1, b"{}"));
        assert!(first.bytes().all(|byte| byte.is_ascii_graphic()));
        for other in [
            key(b"/orders.ndjson", 2, b"{}"),
            key(b"/orders.ndjson", 1, b"[]"),
            key(b"/other.ndjson", 1, b"{}"),
        ] {
            assert_ne!(first, other);
        }
    }
}

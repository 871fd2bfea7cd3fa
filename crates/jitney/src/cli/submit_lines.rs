//! `jitney submit PROCESSOR --ndjson FILE|-`: a job for each line, and where it stopped it goes on when it is
//! called again.
//!
//! In: lines, each one job's data. Out: what became of them: counts, and the lines that were refused. A line's
//! idempotency key is made of the input's name, the line's number and its content, so that a second run submits
//! what the first did not, and nothing twice.

use std::hash::Hasher as _;
use std::io::BufRead;

use bytes::Bytes;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::client::{Client, Problem, Retry, Submit};
use crate::units::format_count;

/// Lines that are submitted together.
const PART_LINES: usize = 1_000;

/// Bytes of lines that are submitted together, but for a single line that is longer.
const PART_BYTES: usize = 1 << 20;

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
    pub(super) output: Output,
}

/// A part of the lines: their numbers and their jobs.
#[derive(Default)]
struct Part {
    numbers: Vec<u64>,
    submits: Vec<Submit>,
    bytes: usize,
}

impl Lines<'_> {
    /// Submits line after line.
    pub(super) async fn submit(&self, mut input: impl BufRead) -> Result<Exit, Failure> {
        let mut counts = Counts::default();
        let mut part = Part::default();
        let mut number = 0_u64;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = read_line(&mut input, &mut line)?;
            let ended = read == 0;
            number += u64::from(!ended);
            counts.bytes += u64::try_from(read).unwrap_or(u64::MAX);
            let data = line.trim_ascii();
            if !data.is_empty() {
                counts.lines += 1;
                self.take(number, data, &mut part, &mut counts);
            }
            let full = part.submits.len() >= PART_LINES || part.bytes >= PART_BYTES;
            if (full || ended)
                && !part.submits.is_empty()
                && let Err(failure) = self.send(std::mem::take(&mut part), &mut counts).await
            {
                self.output.no_progress();
                return Err(self.stopped(failure, &counts));
            }
            if ended {
                self.output.no_progress();
                self.summary(&counts);
                return Ok(if counts.rejected == 0 {
                    Exit::Done
                } else {
                    Exit::JobFailed
                });
            }
        }
    }

    fn take(&self, number: u64, data: &[u8], part: &mut Part, counts: &mut Counts) {
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(data) {
            return self.reject(number, &format!("not JSON: {error}"), counts);
        }
        let mut submit = (self.job)(Bytes::copy_from_slice(data));
        if let Some(name) = &self.name {
            submit = submit.idempotency_key(key(name, number, data));
        }
        part.numbers.push(number);
        part.bytes += data.len();
        part.submits.push(submit);
    }

    async fn send(&self, part: Part, counts: &mut Counts) -> Result<(), Failure> {
        let entries = self.client.submit_many(part.submits).await?;
        let mut full = None;
        for (number, entry) in part.numbers.into_iter().zip(entries) {
            match entry {
                Ok(taken) => {
                    counts.accepted += 1;
                    counts.replayed += u64::from(taken.replayed);
                }
                // What a retry might change stops the whole: the next lines would fare no better.
                Err(problem) if problem.retry != Retry::No => full = Some(problem),
                Err(problem) => {
                    counts.reused += u64::from(problem.code == "idempotency_key_reused");
                    self.reject(number, &problem.to_string(), counts);
                }
            }
        }
        if self.output.is_watched() {
            self.output.progress(&self.progress(counts));
        }
        full.map_or(Ok(()), |problem: Box<Problem>| {
            Err(crate::client::Error::Refused(problem).into())
        })
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
            let summary = serde_json::json!({"lines": counts.lines, "accepted": counts.accepted,
                "replayed": counts.replayed, "rejected": counts.rejected});
            self.output.line(&summary.to_string());
        } else {
            self.output.line(&said(counts));
        }
    }

    /// It did not come to the first line.
    pub(super) fn not_begun(&self, failure: Failure) -> Failure {
        self.stopped(failure, &Counts::default())
    }

    /// It did not come to the end: what is done, and how to go on.
    fn stopped(&self, failure: Failure, counts: &Counts) -> Failure {
        let done = said(counts);
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

fn said(counts: &Counts) -> String {
    let mut text = format!("{} submitted", format_count(counts.accepted));
    if counts.replayed > 0 {
        text.push_str(&format!(" ({} of them before)", format_count(counts.replayed)));
    }
    if counts.rejected > 0 {
        text.push_str(&format!(", {} refused", format_count(counts.rejected)));
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

#[cfg(test)]
mod tests {
    use super::*;

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

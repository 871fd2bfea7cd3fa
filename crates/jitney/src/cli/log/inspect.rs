//! `jitney log inspect`: segments, frames, records, and the story of one job.

use std::collections::HashSet;

use clap::Args;
use joblog::dir::DirStorage;
use joblog::ids::{JobId, Token};
use joblog::inspect::{Seen, Segment, State, read, segments};
use joblog::record::Record;
use serde_json::{Value, json};

use super::{Directory, record};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::client::parse_id;
use crate::units::{format_count, rounded_size};

/// Show what is in the log: its segments, frames, records, or all about one job
///
/// Changes nothing, takes no lock, and works beside a running server, whose last frames may then be seen half; and on
/// a damaged log. Data of jobs, results and settings is not shown unless --show-data asks for it.
#[derive(Args, Debug)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    directory: Directory,
    /// Only the segment of this number.
    #[arg(long, value_name = "NUMBER")]
    segment: Option<u64>,
    /// Show every frame.
    #[arg(long, conflicts_with_all = ["records", "job"])]
    frames: bool,
    /// Show every record.
    #[arg(long, conflicts_with = "job")]
    records: bool,
    /// Show all records about this job, in order.
    #[arg(long, value_name = "ID", conflicts_with = "segment")]
    job: Option<String>,
    /// Show the data of jobs, results and errors too: it is private.
    #[arg(long)]
    show_data: bool,
}

pub(super) fn run(args: &InspectArgs, output: Output) -> Result<Exit, Failure> {
    let job = args.job.as_deref().map(job_id).transpose()?;
    let directory = args.directory.find(output)?;
    let storage = DirStorage::look(&directory.data)?;
    if let Some(pid) = storage.user() {
        output.note(&format!(
            "in use by the process with pid {pid}: what it writes meanwhile may be seen half"
        ));
    }
    let failed = |error: std::io::Error| Failure::new(Exit::Io, format!("cannot read the log: {error}"));
    let mut found = segments(&storage).map_err(failed)?;
    if found.is_empty() {
        return Err(directory.without_log());
    }
    if let Some(number) = args.segment {
        found.retain(|segment| segment.number == number);
        if found.is_empty() {
            return Err(Failure::usage(format!("there is no segment {number}")));
        }
    }
    let mut show = Show {
        args,
        output,
        story: job.map(Story::new),
        lines: 0,
    };
    read(&storage, &mut found, args.segment.is_none(), |number, seen| {
        show.seen(number, seen)
    })
    .map_err(failed)?;
    if let (Some(job), 0) = (job, show.lines) {
        return Err(Failure::usage(format!("the log has no record of job {job}")));
    }
    if !args.frames && !args.records && job.is_none() {
        summary(&found, output);
    }
    Ok(Exit::Done)
}

fn job_id(text: &str) -> Result<JobId, Failure> {
    parse_id(text).ok_or_else(|| Failure::usage(format!("`{text}` is not the id of a job")))
}

/// Prints what was asked for as it is read: a log may be larger than memory.
struct Show<'a> {
    args: &'a InspectArgs,
    output: Output,
    story: Option<Story>,
    lines: u64,
}

/// Which records are about a job.
struct Story {
    job: JobId,
    /// Leases that held it: their delivery is part of its story.
    leases: HashSet<Token>,
}

impl Story {
    fn new(job: JobId) -> Self {
        Self {
            job,
            leases: HashSet::new(),
        }
    }

    fn has(&mut self, record: &Record<'_>) -> bool {
        match record {
            Record::Submit(submit) => {
                submit.id == self.job || submit.parent.is_some_and(|(parent, _)| parent == self.job)
            }
            Record::Dispatch(dispatch) => {
                let held = dispatch.jobs.contains(&self.job);
                if held {
                    self.leases.insert(dispatch.token);
                }
                held
            }
            Record::Delivered(token) => self.leases.contains(token),
            Record::Outcome(outcome) => outcome.id == self.job,
            Record::Return(returned) => returned.id == self.job,
            Record::Ended(ended) => ended.id == self.job,
            Record::Tries(tries) => tries.id == self.job,
            Record::Setting(_) | Record::Copied(_) => false,
        }
    }
}

impl Show<'_> {
    fn seen(&mut self, segment: u64, seen: &Seen<'_>) {
        let every_record = self.args.records;
        match seen {
            Seen::Frame {
                offset,
                bytes,
                kind,
                lsn,
                durable_lsn,
            } if self.args.frames => {
                let text = format!(
                    "{segment:>6} {offset:>10}  frame {lsn} {kind}, {bytes} bytes, {durable_lsn} known synced"
                );
                let json = json!({ "segment": segment, "offset": offset, "frame": lsn, "kind": kind,
                    "bytes": bytes, "durable_lsn": durable_lsn });
                self.print(&text, json);
            }
            Seen::Record {
                offset,
                bytes,
                lsn,
                record,
            } if self
                .story
                .as_mut()
                .map_or(every_record, |story| story.has(record)) =>
            {
                let line = record::line(record, self.args.show_data);
                let mut json = record::fields(record, self.args.show_data);
                for (name, value) in [
                    ("segment", segment),
                    ("offset", *offset),
                    ("bytes", *bytes),
                    ("frame", *lsn),
                ] {
                    json.insert(name.to_owned(), value.into());
                }
                self.print(&format!("{segment:>6} {offset:>10}  {line}"), Value::Object(json));
            }
            Seen::Malformed { lsn, error } if every_record => {
                let text = format!("{segment:>6}             in frame {lsn}: {error}");
                self.print(
                    &text,
                    json!({ "segment": segment, "frame": lsn, "malformed": error.to_string() }),
                );
            }
            Seen::Gap { offset, bytes } if self.args.frames || every_record => {
                let text = format!("{segment:>6} {offset:>10}  {bytes} bytes are no frame: damaged");
                self.print(
                    &text,
                    json!({ "segment": segment, "offset": offset, "damaged_bytes": bytes }),
                );
            }
            Seen::Torn { offset, bytes } if self.args.frames || every_record => {
                let text = format!(
                    "{segment:>6} {offset:>10}  {bytes} bytes are no whole frame: torn, or being written"
                );
                self.print(
                    &text,
                    json!({ "segment": segment, "offset": offset, "torn_bytes": bytes }),
                );
            }
            _ => {}
        }
    }

    fn print(&mut self, text: &str, json: Value) {
        self.lines += 1;
        if self.output.json {
            self.output.line(&json.to_string());
        } else {
            self.output.line(text);
        }
    }
}

fn summary(segments: &[Segment], output: Output) {
    if output.json {
        for segment in segments {
            output.line(&in_json(segment).to_string());
        }
        return;
    }
    let header = [
        "SEGMENT",
        "STREAM",
        "STATE",
        "BOOT",
        "EPOCH",
        "FIRST LSN",
        "LAST LSN",
        "FRAMES",
        "RECORDS",
        "JOBS",
        "UNSETTLED",
        "NEEDED",
        "USED",
        "SIZE",
    ];
    output.table(&header, &segments.iter().map(row).collect::<Vec<_>>());
    for segment in segments {
        let content = &segment.content;
        if let State::Damaged(what) = &segment.state {
            output.line(&format!("`{}` is damaged: {what}", segment.name));
        }
        if content.damaged_bytes > 0 || content.malformed > 0 {
            output.line(&format!(
                "`{}` is damaged: {} bytes belong to no frame, {} records are malformed; `jitney log verify` says more",
                segment.name,
                format_count(content.damaged_bytes),
                content.malformed
            ));
        }
        if content.torn_bytes > 0 {
            output.line(&format!(
                "`{}` ends with {} that are no whole frame: torn, or being written",
                segment.name,
                rounded_size(content.torn_bytes)
            ));
        }
    }
}

fn row(segment: &Segment) -> Vec<String> {
    let content = &segment.content;
    let of_header = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let header = segment.header;
    vec![
        segment.number.to_string(),
        of_header(header.map(|header| header.stream.to_owned())),
        state(segment).to_owned(),
        of_header(header.map(|header| header.boot.to_string())),
        of_header(header.map(|header| format!("{:016x}", header.epoch))),
        of_header(header.map(|header| header.first_lsn.to_string())),
        content.last_lsn.to_string(),
        content.frames.to_string(),
        content.records.to_string(),
        content.submits.to_string(),
        of_header(content.unsettled.map(|jobs| jobs.to_string())),
        of_header(content.unsettled_bytes.map(rounded_size)),
        rounded_size(content.end),
        rounded_size(segment.bytes),
    ]
}

fn state(segment: &Segment) -> &'static str {
    match &segment.state {
        State::InUse if segment.content.sealed => "sealed",
        State::InUse => "open",
        State::Replaced => "replaced",
        State::NotBegun => "free",
        State::Damaged(_) => "damaged",
        State::Newer(_) => "newer",
    }
}

fn in_json(segment: &Segment) -> Value {
    let content = &segment.content;
    let header = segment.header;
    json!({
        "segment": segment.number,
        "file": segment.name,
        "state": state(segment),
        "stream": header.map(|header| header.stream),
        "boot": header.map(|header| header.boot),
        "epoch": header.map(|header| format!("{:016x}", header.epoch)),
        "node": header.map(|header| format!("{:016x}", header.node)),
        "first_lsn": header.map(|header| header.first_lsn),
        "last_lsn": content.last_lsn,
        "replaces": header.map(|header| header.replaces).filter(|number| *number != 0),
        "frames": content.frames,
        "records": content.records,
        "malformed": content.malformed,
        "submits": content.submits,
        "outcomes": content.outcomes,
        "unsettled": content.unsettled,
        "unsettled_bytes": content.unsettled_bytes,
        "used_bytes": content.end,
        "damaged_bytes": content.damaged_bytes,
        "torn_bytes": content.torn_bytes,
        "bytes": segment.bytes,
    })
}

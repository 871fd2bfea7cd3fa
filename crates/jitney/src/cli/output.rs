//! The one place that prints: data on standard output, all else on standard error.
//!
//! Whoever reads the data may stop reading (`| head`): what cannot be written any more is dropped, and the
//! command ends as it would have.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;

/// Prints what a command has to say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    /// Whether data is JSON, for programs.
    pub(crate) json: bool,
    /// Whether the log is, so that a failure on standard error is too.
    pub(crate) json_log: bool,
}

impl Output {
    /// A line of data.
    pub(crate) fn line(self, text: &str) {
        let mut stdout = io::stdout().lock();
        drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
    }

    /// Data as it came, byte for byte; a line break after it only where a person reads it.
    pub(crate) fn bytes(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let end: &[u8] = if stdout.is_terminal() { b"\n" } else { b"" };
        let written = stdout.write_all(bytes).and_then(|()| stdout.write_all(end));
        drop(written.and_then(|()| stdout.flush()));
    }

    /// A line that is overwritten by the next, where that is possible.
    pub(crate) fn live(self, text: &str) {
        let mut stdout = io::stdout().lock();
        drop(write!(stdout, "\r\x1b[2K{text}").and_then(|()| stdout.flush()));
    }

    /// Whether [`Output::live`] works.
    pub(crate) fn is_live(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether somebody reads standard error as it comes.
    pub(crate) fn is_watched(self) -> bool {
        io::stderr().is_terminal()
    }

    /// How far it is: a line on standard error that the next one overwrites.
    pub(crate) fn progress(self, text: &str) {
        let mut stderr = io::stderr().lock();
        drop(write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush()));
    }

    /// Takes the line of [`Output::progress`] away, if somebody saw one.
    pub(crate) fn no_progress(self) {
        if self.is_watched() {
            self.progress("");
        }
    }

    /// Something to know that is no data.
    pub(crate) fn note(self, text: &str) {
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Something to know that is no data, and stands in a log that is for programs.
    pub(crate) fn say(self, text: &str) {
        match self.json_log {
            true => tracing::info!("{text}"),
            false => self.note(text),
        }
    }

    /// Asks a person; only `yes` is one. `None` where there is none to ask.
    pub(crate) fn confirm(self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        drop(write!(io::stderr().lock(), "{question} Type yes to do it: "));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok()?;
        Some(answer.trim() == "yes")
    }

    /// A table: columns as wide as their widest cell, numbers to the right.
    pub(crate) fn table(self, header: &[&str], rows: &[Vec<String>]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.chain([header[column].len()]).max().unwrap_or(0)
        };
        let is_number = |column: usize| {
            let of_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit()) || cell == "-";
            rows.iter().all(|row| of_number(&row[column]))
        };
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<_> = cells
                .enumerate()
                .map(|(column, cell)| match is_number(column) {
                    true => format!("{cell:>0$}", width(column)),
                    false => format!("{cell:<0$}", width(column)),
                })
                .collect();
            self.line(padded.join("  ").trim_end());
        };
        line(&mut header.iter().copied());
        for row in rows {
            line(&mut row.iter().map(String::as_str));
        }
    }

    /// A failure, on standard error: text, or one JSON object.
    pub(crate) fn failure(self, failure: &Failure) {
        let text = if self.json || self.json_log {
            let problem = failure
                .problem
                .as_deref()
                .and_then(|json| serde_json::from_str(json).ok());
            let problem: Option<serde_json::Value> = problem;
            let error = json!({
                "message": failure.message,
                "hint": failure.hint,
                "exit": failure.exit.code(),
                "problem": problem,
            });
            json!({ "error": error }).to_string()
        } else {
            let hint = failure.hint.as_ref().map(|hint| format!("\n  hint: {hint}"));
            format!("error: {}{}", failure.message, hint.unwrap_or_default())
        };
        self.note(&text);
    }

    /// A panic: the message went to standard error where it happened.
    pub(crate) fn bug(self) {
        self.failure(
            &Failure::new(Exit::Bug, "this is a bug in jitney, not in what you asked for")
                .hint("report it with the lines above and what you ran; nothing that was accepted is lost"),
        );
    }
}

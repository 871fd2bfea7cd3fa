//! What a child says on its standard error: into the log, line by line, under the batch that it has; the last of it
//! is kept, for the log of its death.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncRead;
use tracing::info;

use super::child::Program;
use super::lines::{LineReader, TooLong};

/// A line; a longer one comes in pieces.
const LINE_BYTES_MAX: usize = 1 << 20;

/// So many of the last lines are kept: a traceback of a few calls.
const KEPT_LINES: usize = 20;

/// So much of each of them.
const KEPT_BYTES_MAX: usize = 400;

/// What is known beside the lines, shared between a child and the relay of its standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct LastWords(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    batch: Option<String>,
    lines: VecDeque<String>,
}

impl LastWords {
    /// From now on lines are of this batch. It stays so until the next: what a child has to say of a batch may come
    /// behind its last outcome.
    pub(super) fn begin(&self, batch: &str) {
        self.lock().batch = Some(batch.to_owned());
    }

    /// The last lines, with line ends between them.
    pub(super) fn text(&self) -> String {
        let kept = self.lock();
        let lines: Vec<&str> = kept.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    fn keep(&self, line: &str) {
        let mut kept = self.lock();
        if kept.lines.len() == KEPT_LINES {
            kept.lines.pop_front();
        }
        let end = line.floor_char_boundary(KEPT_BYTES_MAX);
        kept.lines.push_back(line[..end].to_owned());
    }

    fn batch(&self) -> Option<String> {
        self.lock().batch.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whole after each of its operations, so that a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Relays until the pipe ends.
pub(super) async fn relay(
    errors: impl AsyncRead + Unpin,
    program: Arc<Program>,
    number: usize,
    words: LastWords,
) {
    let mut lines = LineReader::new(errors, LINE_BYTES_MAX, TooLong::Split);
    while let Ok(Some(line)) = lines.next().await {
        let text = String::from_utf8_lossy(&line.bytes);
        let text = text.trim_end_matches('\r');
        words.keep(text);
        info!(
            worker = program.worker,
            child = number,
            batch = words.batch(),
            line = text,
            "stderr"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_and_each_is_bounded() {
        let program = Arc::new(Program {
            words: vec!["x".to_owned()],
            worker: "w-1".to_owned(),
        });
        let words = LastWords::default();
        let mut text: String = (0..30).map(|number| format!("line {number}\r\n")).collect();
        text.push_str(&"\u{e4}".repeat(1_000));
        relay(text.as_bytes(), program, 1, words.clone()).await;
        let kept = words.text();
        let lines: Vec<&str> = kept.lines().collect();
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!((lines[0], lines[18]), ("line 11", "line 29"));
        assert_eq!(lines[19], "\u{e4}".repeat(KEPT_BYTES_MAX / 2));
    }
}

//! Lines out of a pipe, whatever is in it, in bounded memory.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// What becomes of a line that is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLong {
    /// It comes in pieces.
    Split,
    /// Its beginning comes, the rest is dropped.
    Cut,
}

/// A line, without its LF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Whether it is only the beginning of one that is too long, or a piece of it.
    pub(super) partial: bool,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    reader: BufReader<R>,
    /// The line so far.
    line: Vec<u8>,
    bytes_max: usize,
    too_long: TooLong,
    /// The rest of the line is dropped.
    skipping: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(reader: R, bytes_max: usize, too_long: TooLong) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            line: Vec::new(),
            bytes_max,
            too_long,
            skipping: false,
        }
    }

    /// The next line, also a last one without LF; `None` at the end. Cancel-safe: what was read stays here.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                let last = !self.line.is_empty();
                return Ok(last.then(|| self.take(false)));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let text = &available[..end.unwrap_or(available.len())];
            let used = text.len() + usize::from(end.is_some());
            if self.skipping {
                self.skipping = end.is_none();
                self.reader.consume(used);
                continue;
            }
            let room = self.bytes_max - self.line.len();
            if text.len() > room {
                self.line.extend_from_slice(&text[..room]);
                self.reader.consume(room);
                self.skipping = self.too_long == TooLong::Cut;
                return Ok(Some(self.take(true)));
            }
            self.line.extend_from_slice(text);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(self.take(false)));
            }
        }
    }

    /// Whether a line has begun whose end was not read.
    pub(super) const fn is_mid_line(&self) -> bool {
        !self.line.is_empty()
    }

    fn take(&mut self, partial: bool) -> Line {
        Line {
            bytes: std::mem::take(&mut self.line),
            partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn all(input: &[u8], bytes_max: usize, too_long: TooLong) -> Vec<Line> {
        let mut reader = LineReader::new(input, bytes_max, too_long);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(line);
        }
        lines
    }

    fn line(bytes: &[u8], partial: bool) -> Line {
        Line {
            bytes: bytes.to_vec(),
            partial,
        }
    }

    #[tokio::test]
    async fn a_last_line_needs_no_end_and_an_empty_one_is_a_line() {
        let lines = all(b"one\n\ntwo", 10, TooLong::Split).await;
        assert_eq!(
            lines,
            [line(b"one", false), line(b"", false), line(b"two", false)]
        );
    }

    #[tokio::test]
    async fn a_line_over_the_limit_comes_in_pieces_or_is_cut() {
        let input = b"abcdefgh\nx\n";
        assert_eq!(
            all(input, 3, TooLong::Split).await,
            [
                line(b"abc", true),
                line(b"def", true),
                line(b"gh", false),
                line(b"x", false)
            ]
        );
        assert_eq!(
            all(input, 3, TooLong::Cut).await,
            [line(b"abc", true), line(b"x", false)]
        );
    }

    #[tokio::test]
    async fn a_line_of_exactly_the_limit_is_whole() {
        let mut input = vec![b'x'; 1 << 20];
        let whole = input.clone();
        input.extend_from_slice(b"\nnext");
        for too_long in [TooLong::Split, TooLong::Cut] {
            let lines = all(&input, 1 << 20, too_long).await;
            assert_eq!(lines, [line(&whole, false), line(b"next", false)]);
        }
    }

    proptest! {
        #[test]
        fn pieces_are_bounded_and_put_together_they_are_the_input(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            bytes_max in 1_usize..40,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let lines = runtime.block_on(all(&input, bytes_max, TooLong::Split));
            let mut together = Vec::new();
            for line in &lines {
                prop_assert!(line.bytes.len() <= bytes_max);
                together.extend_from_slice(&line.bytes);
                if !line.partial {
                    together.push(b'\n');
                }
            }
            if input.last().is_some_and(|byte| *byte != b'\n') {
                together.pop();
            }
            prop_assert_eq!(together, input);
        }
    }
}

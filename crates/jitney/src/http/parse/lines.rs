//! Cuts a body that comes in pieces into lines: a line that lies within a piece stays a slice of it.

use bytes::{Bytes, BytesMut};

/// Where in the body the next piece continues.
#[derive(Debug)]
pub(crate) struct Lines {
    /// What came of a line whose end did not.
    begun: BytesMut,
    /// The line that comes is too long; what comes of it is dropped.
    dropping: bool,
    line_bytes_max: usize,
}

/// A line that is not blank, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// All of it.
    Whole(Bytes),
    /// Its bytes are gone.
    TooLong,
}

impl Lines {
    /// Lines of so many bytes at most, and no memory for longer ones.
    pub(crate) fn new(line_bytes_max: usize) -> Self {
        Self {
            begun: BytesMut::new(),
            dropping: false,
            line_bytes_max,
        }
    }

    /// The next line of which `piece` has the end; takes it from there. `None` once the piece is used up.
    pub(crate) fn next(&mut self, piece: &mut Bytes) -> Option<Line> {
        while let Some(at) = memchr::memchr(b'\n', piece) {
            let end = piece.split_to(at + 1).slice(..at);
            let dropped = std::mem::take(&mut self.dropping);
            let too_long = self.begun.len() + end.len() > self.line_bytes_max;
            let line = if dropped || too_long {
                self.begun.clear();
                Line::TooLong
            } else {
                Line::Whole(self.complete(end))
            };
            if !line.is_blank() {
                return Some(line);
            }
        }
        self.dropping |= self.begun.len() + piece.len() > self.line_bytes_max;
        if self.dropping {
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(piece);
        }
        piece.clear();
        None
    }

    /// The last line, if it has no end of its own.
    pub(crate) fn last(&mut self) -> Option<Line> {
        let line = match std::mem::take(&mut self.dropping) {
            true => Line::TooLong,
            false => Line::Whole(self.complete(Bytes::new())),
        };
        (!line.is_blank()).then_some(line)
    }

    /// Bytes that are kept of a line whose end has not come.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.begun.len()
    }

    fn complete(&mut self, end: Bytes) -> Bytes {
        if self.begun.is_empty() {
            return end;
        }
        let mut begun = std::mem::take(&mut self.begun);
        begun.extend_from_slice(&end);
        begun.freeze()
    }
}

impl Line {
    fn is_blank(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.trim_ascii().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(body: &[u8], piece_bytes: usize, line_bytes_max: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(line_bytes_max);
        let mut found = Vec::new();
        for piece in body.chunks(piece_bytes) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(line) = lines.next(&mut piece) {
                found.push(line);
            }
            assert!(piece.is_empty());
            assert!(lines.begun.len() <= line_bytes_max);
        }
        found.extend(lines.last());
        found
            .into_iter()
            .map(|line| match line {
                Line::Whole(bytes) => Some(bytes.to_vec()),
                Line::TooLong => None,
            })
            .collect()
    }

    #[test]
    fn lines_are_the_same_however_the_body_comes() {
        let body = b"{\"a\":1}\n\n[2]\r\n   \nlonger than ten bytes\n{\"b\":2}\nlast";
        let expected = [
            Some(b"{\"a\":1}".to_vec()),
            Some(b"[2]\r".to_vec()),
            None,
            Some(b"{\"b\":2}".to_vec()),
            Some(b"last".to_vec()),
        ];
        for piece_bytes in 1..=body.len() {
            assert_eq!(cut(body, piece_bytes, 10), expected, "{piece_bytes}");
        }
        assert_eq!(cut(b"", 1, 10), []);
        assert_eq!(cut(b"\n \n", 1, 10), []);
        assert_eq!(cut(b"a line without an end", 4, 10), [None]);
    }

    #[test]
    fn a_line_within_its_piece_is_not_copied() {
        let body = Bytes::from_static(b"begun\nwhole\nrest");
        let mut piece = body.clone();
        let mut lines = Lines::new(10);
        lines.next(&mut piece);
        let Some(Line::Whole(line)) = lines.next(&mut piece) else {
            panic!("there is a second line");
        };
        assert_eq!(line.as_ptr(), body[6..].as_ptr());
    }
}

//! HTTP/1.1 with as little work as possible: the load shares the machine with what it measures.
//!
//! Requests are bytes that are ready to be sent; answers are read into one buffer, and only what is asked
//! of them is looked at. It speaks what jitney and the yardstick send, and nothing more.

use std::net::SocketAddr;

use memchr::{memchr, memmem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::Error;

/// Room that is read into at once, at least.
const READ_BYTES: usize = 16 << 10;

/// A connection that is kept alive.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The answer, as far as it came.
    buffer: Vec<u8>,
}

/// An answer, within the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    bytes: usize,
    body: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::io(format!("cannot connect to {address}"), source);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Sends a whole request and reads the whole answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>, Error> {
        let sent = self.stream.write_all(request).await;
        sent.map_err(|source| Error::io("cannot send a request", source))?;
        self.buffer.clear();
        let head = loop {
            if let Some(head) = read_head(&self.buffer)? {
                break head;
            }
            self.read().await?;
        };
        let body = match head.body {
            Length::Bytes(bytes) => {
                let end = head.bytes + bytes;
                self.buffer.reserve(end.saturating_sub(self.buffer.len()));
                while self.buffer.len() < end {
                    self.read().await?;
                }
                head.bytes..end
            }
            Length::Chunked => {
                let (mut body, mut at) = (head.bytes, head.bytes);
                while !take_chunks(&mut self.buffer, &mut body, &mut at)? {
                    self.read().await?;
                }
                head.bytes..body
            }
        };
        Ok(Answer {
            status: head.status,
            body: &self.buffer[body],
        })
    }

    async fn read(&mut self) -> Result<(), Error> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Error::Server(
                "the server closed a connection in the middle of an answer".to_owned(),
            )),
            Ok(_) => Ok(()),
            Err(source) => Err(Error::io("cannot read an answer", source)),
        }
    }
}

/// The head, once it is whole.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let strange = || Error::Server("the server answers what is no HTTP/1.1".to_owned());
    let head = &bytes[..end];
    let digits = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = digits
        .and_then(number)
        .and_then(|status| u16::try_from(status).ok());
    let status = status.ok_or_else(strange)?;
    let mut body = Length::Bytes(0);
    let mut rest = head;
    while let Some(at) = memchr(b'\n', rest) {
        rest = &rest[at + 1..];
        let line = &rest[..memchr(b'\r', rest).unwrap_or(rest.len())];
        if let Some(value) = field(line, b"content-length:") {
            body = Length::Bytes(number(value).ok_or_else(strange)?);
        } else if field(line, b"transfer-encoding:").is_some() {
            body = Length::Chunked;
        }
    }
    Ok(Some(Head {
        status,
        bytes: end + 4,
        body,
    }))
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (written, value) = line.split_at_checked(name.len())?;
    written.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Moves the content of the chunks that are whole together, from `at` on to `body`. Whether the last one was there.
fn take_chunks(buffer: &mut [u8], body: &mut usize, at: &mut usize) -> Result<bool, Error> {
    loop {
        let rest = &buffer[*at..];
        let Some(line) = memchr(b'\n', rest) else {
            return Ok(false);
        };
        let digits = std::str::from_utf8(&rest[..line]).unwrap_or_default().trim_end();
        let bytes = usize::from_str_radix(digits, 16)
            .map_err(|_| Error::Server(format!("the server sends a chunk of `{digits}` bytes")))?;
        let start = *at + line + 1;
        let end = start + bytes;
        if buffer.len() < end + 2 {
            return Ok(false);
        }
        buffer.copy_within(start..end, *body);
        *body += bytes;
        *at = end + 2;
        if bytes == 0 {
            return Ok(true);
        }
    }
}

/// A request that is made again and again: the head is written in front of the body once its length is known.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where the head begins; room in front of it is left.
    start: usize,
    line: String,
}

/// Room for a head.
const HEAD_BYTES: usize = 256;

impl Request {
    /// `POST` to a path.
    pub(super) fn post(path: &str, content_type: &str) -> Self {
        Self {
            bytes: vec![0; HEAD_BYTES],
            start: HEAD_BYTES,
            line: format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: "
            ),
        }
    }

    /// An empty body.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        self.bytes.truncate(HEAD_BYTES);
        &mut self.bytes
    }

    /// The whole request, with what is in the body now.
    pub(super) fn finish(&mut self) -> &[u8] {
        let length = self.bytes.len() - HEAD_BYTES;
        let head = format!("{}{length}\r\n\r\n", self.line);
        self.start = HEAD_BYTES.saturating_sub(head.len());
        let end = self.start + head.len();
        self.bytes[self.start..end].copy_from_slice(head.as_bytes());
        &self.bytes[self.start..]
    }

    /// The body again, to change bytes of it in place.
    pub(super) fn body(&mut self) -> &mut [u8] {
        &mut self.bytes[HEAD_BYTES..]
    }
}

/// `GET` of a path.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_status_and_length_whatever_its_case() {
        let head = b"HTTP/1.1 202 Accepted\r\nlocation: /v1\r\nContent-Length: 17\r\n\r\nrest";
        let read = read_head(head).unwrap().unwrap();
        assert_eq!(
            (read.status, read.bytes, read.body),
            (202, head.len() - 4, Length::Bytes(17))
        );
        assert_eq!(read_head(&head[..30]).unwrap(), None);
        let empty = read_head(b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((empty.status, empty.body), (204, Length::Bytes(0)));
        assert!(read_head(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_become_one_body_however_they_are_cut() {
        let whole = b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";
        let mut buffer = Vec::new();
        let (mut body, mut at) = (0, 0);
        let mut done = false;
        for byte in whole {
            assert!(!done);
            buffer.push(*byte);
            done = take_chunks(&mut buffer, &mut body, &mut at).unwrap();
        }
        assert!(done);
        assert_eq!(&buffer[..body], b"hello, world");
    }

    #[test]
    fn a_request_is_whole_each_time_it_is_made() {
        let mut request = Request::post("/x", "application/json");
        request.begin().extend_from_slice(b"{}");
        let expected = b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(request.finish(), expected);
        request.body()[0] = b'[';
        request.begin().extend_from_slice(b"[1]");
        assert!(request.finish().ends_with(b"content-length: 3\r\n\r\n[1]"));
    }
}

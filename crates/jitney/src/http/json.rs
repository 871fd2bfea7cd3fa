//! Writes JSON answers straight into bytes, so that stored JSON is spliced in as it came.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::clock::WallMs;

/// A value of so many bytes is shared where it may be: a copy of a smaller one costs less than a piece more.
pub(crate) const SHARED_BYTES_MIN: usize = 4 << 10;

/// A JSON text under construction. Its user opens, names and closes in the right order; commas come by
/// themselves.
#[derive(Debug, Default)]
pub(crate) struct Json {
    out: Vec<u8>,
    /// What comes before `out`: pieces of text, and values that are shared rather than copied.
    pieces: Vec<Bytes>,
    /// Whether large values are shared; the text is then taken as a body.
    shares: bool,
    /// Whether a comma goes before what comes next.
    comma: bool,
}

impl Json {
    /// A text that will need about this much room.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// A text that shares large values with whoever has them, and will need about this much room beside.
    pub(crate) fn sharing(bytes: usize) -> Self {
        Self {
            shares: true,
            ..Self::with_capacity(bytes)
        }
    }

    /// The text, in one piece.
    pub(crate) fn finish(self) -> Bytes {
        if self.pieces.is_empty() {
            return Bytes::from(self.out);
        }
        let mut all = self.pieces.concat();
        all.extend_from_slice(&self.out);
        Bytes::from(all)
    }

    /// The text as a body, piece by piece.
    pub(crate) fn into_body(mut self) -> Body {
        if self.pieces.is_empty() {
            return Body::from(self.out);
        }
        self.pieces.push(Bytes::from(self.out));
        Body::new(Pieces::new(self.pieces))
    }

    /// `{`
    pub(crate) fn open(&mut self) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
    }

    /// `}`
    pub(crate) fn close(&mut self) {
        self.out.push(b'}');
        self.comma = true;
    }

    /// `[`
    pub(crate) fn open_list(&mut self) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
    }

    /// `]`
    pub(crate) fn close_list(&mut self) {
        self.out.push(b']');
        self.comma = true;
    }

    /// A field's name, written in the source: nothing in it needs escaping.
    pub(crate) fn key(&mut self, name: &'static str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.comma = false;
    }

    /// The end of a line: what comes next is a text of its own.
    pub(crate) fn end_line(&mut self) {
        self.out.push(b'\n');
        self.comma = false;
    }

    /// Makes room for so many bytes more.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// How long the text is, but for what is shared.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// The text so far; what comes next continues it.
    pub(crate) fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.out))
    }

    /// A field's name that came from outside.
    pub(crate) fn name(&mut self, name: &str) {
        self.string(name);
        self.out.push(b':');
        self.comma = false;
    }

    /// A string, escaped.
    pub(crate) fn string(&mut self, text: &str) {
        self.separate();
        serde_json::to_writer(&mut self.out, text).expect("writing into a vector cannot fail");
        self.comma = true;
    }

    /// A string that needs no escaping: an id, a token, a time.
    pub(crate) fn plain(&mut self, text: impl fmt::Display) {
        self.separate();
        write!(self.out, "\"{text}\"").expect("writing into a vector cannot fail");
        self.comma = true;
    }

    /// A string or `null`.
    pub(crate) fn string_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.null(),
        }
    }

    /// A number.
    pub(crate) fn number(&mut self, number: u64) {
        self.separate();
        write!(self.out, "{number}").expect("writing into a vector cannot fail");
        self.comma = true;
    }

    /// A number with one decimal.
    pub(crate) fn tenths(&mut self, number: f64) {
        self.separate();
        write!(self.out, "{number:.1}").expect("writing into a vector cannot fail");
        self.comma = true;
    }

    /// A duration in whole milliseconds.
    pub(crate) fn millis(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, value: bool) {
        self.raw(if value { b"true" } else { b"false" });
    }

    /// `null`
    pub(crate) fn null(&mut self) {
        self.raw(b"null");
    }

    /// Bytes that are one JSON value.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.separate();
        self.out.extend_from_slice(value);
        self.comma = true;
    }

    /// Bytes that are one JSON value, shared if they are many.
    pub(crate) fn value(&mut self, value: &Bytes) {
        if !self.shares || value.len() < SHARED_BYTES_MIN {
            return self.raw(value);
        }
        self.separate();
        self.pieces.push(Bytes::from(std::mem::take(&mut self.out)));
        self.pieces.push(value.clone());
        self.comma = true;
    }

    /// Any bytes, as a string in base64.
    pub(crate) fn base64(&mut self, bytes: &[u8]) {
        self.separate();
        self.out.push(b'"');
        let start = self.out.len();
        let length = base64::encoded_len(bytes.len(), true).unwrap_or(0);
        self.out.resize(start + length, 0);
        let written = STANDARD
            .encode_slice(bytes, &mut self.out[start..])
            .unwrap_or_default();
        self.out.truncate(start + written);
        self.out.push(b'"');
        self.comma = true;
    }

    /// An instant: RFC 3339, UTC, milliseconds.
    pub(crate) fn time(&mut self, at: WallMs) {
        match timestamp(at) {
            Some(timestamp) => self.plain(format_args!("{timestamp:.3}")),
            None => self.null(),
        }
    }

    /// An instant or `null`.
    pub(crate) fn time_or_null(&mut self, at: Option<WallMs>) {
        match at {
            Some(at) => self.time(at),
            None => self.null(),
        }
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
    }
}

/// A body in pieces that are there already.
struct Pieces {
    left: VecDeque<Bytes>,
    bytes: u64,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        let left: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let bytes = left.iter().map(Bytes::len).sum::<usize>();
        Self {
            left,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.left.pop_front();
        if let Some(piece) = &piece {
            self.bytes -= u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

/// An instant as text: RFC 3339, UTC, milliseconds; empty where it has no date.
pub(crate) fn time_text(at: WallMs) -> String {
    timestamp(at).map_or_else(String::new, |timestamp| format!("{timestamp:.3}"))
}

/// `None` beyond the year 9999: a clock that wrong has no date.
fn timestamp(at: WallMs) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(i64::MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_large_value_is_shared_and_not_copied() {
        let value = Bytes::from(vec![b'7'; SHARED_BYTES_MIN]);
        let small = Bytes::from_static(b"1");
        let written = |mut json: Json| {
            json.open_list();
            json.value(&small);
            json.value(&value);
            json.value(&small);
            json.close_list();
            json
        };
        let copied = written(Json::default()).finish();
        assert_eq!(written(Json::sharing(0)).finish(), copied);
        let mut body = written(Json::sharing(0)).into_body();
        assert_eq!(
            body.size_hint().exact(),
            Some(u64::try_from(copied.len()).unwrap())
        );
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(pieces.concat(), copied);
        assert!(body.is_end_stream());
        assert_eq!(pieces[1].as_ptr(), value.as_ptr());
    }

    #[test]
    fn commas_stand_between_things_and_nowhere_else() {
        let mut json = Json::default();
        json.open();
        json.key("a");
        json.number(1);
        json.key("b");
        json.open_list();
        json.string("x\"\n");
        json.open();
        json.close();
        json.open();
        json.key("c");
        json.null();
        json.close();
        json.close_list();
        json.key("d");
        json.raw(b" { \"a\" : 1 } ");
        json.key("e");
        json.base64(&[0xff, 0x00]);
        json.key("f");
        json.time(WallMs(1_700_000_000_250));
        json.key("g");
        json.boolean(true);
        json.close();
        let text = String::from_utf8(json.finish().to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"a":1,"b":["x\"\n",{},{"c":null}],"d": { "a" : 1 } ,"e":"/wA=","f":"2023-11-14T22:13:20.250Z","g":true}"#
        );
    }
}

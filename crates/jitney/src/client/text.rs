//! The JSON text of a value: as it came, or written when it is asked for.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;

/// The text of a `T`, which is handed in where it is needed: what comes within the process has no text yet.
#[derive(Clone)]
pub(crate) struct Text<T> {
    json: OnceLock<Bytes>,
    /// Writes it; the bytes are JSON.
    write: fn(&T) -> Bytes,
}

impl<T> Text<T> {
    /// A text that came; the caller has read it as JSON.
    pub(super) fn came(json: Bytes) -> Self {
        Self {
            json: OnceLock::from(json),
            // Never called: the text is there.
            write: |_| Bytes::new(),
        }
    }

    /// A text that `write` makes at the first wish.
    pub(crate) fn made_by(write: fn(&T) -> Bytes) -> Self {
        Self {
            json: OnceLock::new(),
            write,
        }
    }

    /// The text of this value.
    pub(super) fn of(&self, value: &T) -> &str {
        let json = self.json.get_or_init(|| (self.write)(value));
        std::str::from_utf8(json).expect("the bytes are JSON, so they are UTF-8")
    }
}

impl<T> fmt::Debug for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.json.get() {
            Some(json) => fmt::Debug::fmt(json, f),
            None => f.write_str("(not written yet)"),
        }
    }
}

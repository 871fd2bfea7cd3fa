//! The names of things in the log: jobs, leases, instants, priorities.
//!
//! Each is a newtype, so that two bare integers never stand side by side.

use std::fmt;

/// A job's id: the 16 bytes of a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub [u8; 16]);

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallMs(pub u64);

/// Which of the three lanes of its processor a job belongs to. The order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Served first, in batches of one.
    Realtime,
    /// The default.
    Normal,
    /// Served when nothing above waits, or on its guaranteed share.
    Slow,
}

/// A lease's fencing token. No token ever repeats: the node id and the boot epoch are durable before the
/// first lease of a boot, and the sequence only grows within it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The log directory's own random number, made once.
    pub node: u64,
    /// One more at each start of the server on this directory.
    pub epoch: u32,
    /// Counts the leases of this boot from 1.
    pub sequence: u64,
}

impl Priority {
    /// All three, in the order of service.
    pub const ALL: [Self; 3] = [Self::Realtime, Self::Normal, Self::Slow];

    /// The priority's place in [`Priority::ALL`], which is also its code on disk.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Realtime => 0,
            Self::Normal => 1,
            Self::Slow => 2,
        }
    }

    /// The name that callers write: `REALTIME`, `NORMAL` or `SLOW`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Realtime => "REALTIME",
            Self::Normal => "NORMAL",
            Self::Slow => "SLOW",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (byte, place) in self.0.iter().zip(0_usize..) {
            at += usize::from(matches!(place, 4 | 6 | 8 | 10));
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 0x0f)];
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 40 hexadecimal digits: node, epoch, sequence.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}{:016x}", self.node, self.epoch, self.sequence)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Token {
    /// Reads a token as [`Token`]'s `Display` writes it; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 40
            || !text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return None;
        }
        Some(Self {
            node: u64::from_str_radix(&text[..16], 16).ok()?,
            epoch: u32::from_str_radix(&text[16..24], 16).ok()?,
            sequence: u64::from_str_radix(&text[24..], 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written_and_nothing_else_does() {
        let token = Token {
            node: 0xdead_beef,
            epoch: 7,
            sequence: u64::MAX,
        };
        assert_eq!(Token::parse(&token.to_string()), Some(token));
        for wrong in ["", "xyz", &"g".repeat(40), &"A".repeat(40), &"\u{e9}".repeat(20)] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }
}

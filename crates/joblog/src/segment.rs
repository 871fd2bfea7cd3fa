//! Segment files: their names and their header of one sector. docs/log_format.md sections 1 and 2.

use std::io;

use crate::frame::Reader;
use crate::storage::File;

/// Bytes of a header: one sector, so that it is written whole or not at all.
pub(crate) const HEADER: usize = 512;

/// Where the first frame starts.
pub(crate) const FRAMES_AT: u64 = 512;

/// Kept free at the end of a segment: the end frame, and the copy frames of a hundred starts in a row
/// that crash before they write anything else.
pub(crate) const RESERVE_BYTES: u64 = 4096;

/// No log gets so far: an LSN, a number or a sequence beyond it is damage, and one more than any of them never
/// overflows.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

/// The same for boot epochs.
pub(crate) const BOOT_MAX: u32 = 1 << 31;

const MAGIC: [u8; 8] = *b"JITNEYLG";
const VERSION: u16 = 1;
const CRC_AT: usize = 508;

/// Where the tagged fields of a header start.
const TAGS_AT: usize = 64;

/// The tag of [`Header::file_bytes`].
const FILE_BYTES_TAG: u8 = 1;

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// New records.
    Hot,
    /// Copies.
    Cold,
}

impl Stream {
    const fn code(self) -> u8 {
        match self {
            Self::Hot => 0,
            Self::Cold => 1,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Hot),
            1 => Some(Self::Cold),
            _ => None,
        }
    }
}

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) stream: Stream,
    pub(crate) boot: u32,
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: u64,
    pub(crate) replaces: u64,
    pub(crate) node: u64,
    pub(crate) sequence: u64,
    /// How long the file was when the segment was begun, synced with this header: it is never shorter again, whatever
    /// the power does. 0 where that is not known.
    pub(crate) file_bytes: u64,
}

/// What a file that has a segment's name turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Begun(Header),
    /// Renamed to this name, then the power went: free space.
    NotBegun,
    Newer(u16),
    Damaged(&'static str),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.stream.code();
        bytes[12..16].copy_from_slice(&self.boot.to_le_bytes());
        let words = [
            self.number,
            self.epoch,
            self.first_lsn,
            self.replaces,
            self.node,
            self.sequence,
        ];
        for (at, word) in words.into_iter().enumerate() {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        if self.file_bytes > 0 {
            bytes[TAGS_AT..TAGS_AT + 2].copy_from_slice(&[FILE_BYTES_TAG, 8]);
            bytes[TAGS_AT + 2..TAGS_AT + 10].copy_from_slice(&self.file_bytes.to_le_bytes());
        }
        seal(&mut bytes);
        bytes
    }

    /// Why a file of `bytes` bytes cannot be all of this segment, if it cannot.
    pub(crate) fn shortened(&self, bytes: u64) -> Option<String> {
        (bytes < self.file_bytes).then(|| {
            format!(
                "the file was shortened: it had {} bytes when the segment was begun, and has {bytes}",
                self.file_bytes
            )
        })
    }

    /// Whether a log can have come so far.
    fn is_possible(&self) -> bool {
        (1..=COUNT_MAX).contains(&self.first_lsn)
            && self.number <= COUNT_MAX
            && self.sequence <= COUNT_MAX
            && self.boot <= BOOT_MAX
    }

    fn decode(bytes: &[u8; HEADER], stream: Stream) -> Self {
        let word = |at: usize| {
            bytes[at..]
                .first_chunk()
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        Self {
            stream,
            boot: bytes[12..]
                .first_chunk()
                .map_or(0, |word| u32::from_le_bytes(*word)),
            number: word(16),
            epoch: word(24),
            first_lsn: word(32),
            replaces: word(40),
            node: word(48),
            sequence: word(56),
            file_bytes: file_bytes_at(bytes).map_or(0, word),
        }
    }
}

/// The same header, of a file that is at most `bytes` bytes long; all else that it says stays.
pub(crate) fn limit_file_bytes(sector: &mut [u8; HEADER], bytes: u64) {
    let Some(at) = file_bytes_at(sector) else {
        return;
    };
    let said = sector[at..]
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word));
    sector[at..at + 8].copy_from_slice(&said.min(bytes).to_le_bytes());
    seal(sector);
}

fn seal(sector: &mut [u8; HEADER]) {
    let crc = crc32c::crc32c(&sector[..CRC_AT]);
    sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// Where the header says how long its file is.
fn file_bytes_at(sector: &[u8; HEADER]) -> Option<usize> {
    let mut at = TAGS_AT;
    while let Some([tag, length]) = sector[..CRC_AT].get(at..).and_then(<[u8]>::first_chunk) {
        let (value_at, length) = (at + 2, usize::from(*length));
        if *tag == 0 || value_at + length > CRC_AT {
            return None;
        }
        if *tag == FILE_BYTES_TAG && length == 8 {
            return Some(value_at);
        }
        at = value_at + length;
    }
    None
}

/// Reads what the header of the file named segment `number` says.
pub(crate) fn examine<F: File>(file: &F, number: u64) -> io::Result<State> {
    if file.len()? < FRAMES_AT {
        // No file has a segment's name before its header is there and synced.
        return Ok(State::Damaged("the file is shorter than its header"));
    }
    let mut bytes = [0; HEADER];
    file.read_at(&mut bytes, 0)?;
    if bytes.iter().all(|byte| *byte == 0) {
        let mut reader = Reader::new(file)?;
        let used = reader.holds_a_frame()?;
        return Ok(if used {
            State::Damaged("the header is gone")
        } else {
            State::NotBegun
        });
    }
    let crc = bytes[CRC_AT..]
        .first_chunk()
        .map_or(0, |crc| u32::from_le_bytes(*crc));
    if bytes[..8] != MAGIC || crc != crc32c::crc32c(&bytes[..CRC_AT]) {
        return Ok(State::Damaged("the header's checksum does not fit"));
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    let stream = Stream::of(bytes[10]).filter(|_| version == VERSION);
    let Some(stream) = stream else {
        return Ok(State::Newer(version));
    };
    let header = Header::decode(&bytes, stream);
    Ok(if header.number != number {
        State::NotBegun
    } else if header.is_possible() {
        State::Begun(header)
    } else {
        State::Damaged("the header says what no log has reached")
    })
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("segment-{number:016}")
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:06}")
}

pub(crate) fn filling_name(number: u64) -> String {
    format!("filling-{number:06}")
}

pub(crate) fn cut_name(segment: u64, offset: u64) -> String {
    format!("cut-{segment:016}-{offset}")
}

/// The file that keeps damaged bytes of a segment, from this offset on.
pub(crate) fn damaged_name(segment: u64, offset: u64) -> String {
    format!("damaged-{segment:016}-{offset}")
}

/// A segment that is being mended. Means nothing to a start.
pub(crate) fn mending_name(number: u64) -> String {
    format!("mending-{number:016}")
}

/// What a name in the directory says its file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    Spare(u64),
    Filling(u64),
    Cut(u64, u64),
    Other,
}

pub(crate) fn parse_name(name: &str) -> Name {
    let number = |text: &str| -> Option<u64> {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok().filter(|number| *number <= COUNT_MAX))?
    };
    let parsed = match name.split_once('-') {
        Some(("segment", rest)) => number(rest).map(Name::Segment),
        Some(("spare", rest)) => number(rest).map(Name::Spare),
        Some(("filling", rest)) => number(rest).map(Name::Filling),
        Some(("cut", rest)) => rest
            .split_once('-')
            .and_then(|(a, b)| Some(Name::Cut(number(a)?, number(b)?))),
        _ => None,
    };
    parsed.unwrap_or(Name::Other)
}

//! Frames: one commit group, its LSN, and a checksum over all of it.
//!
//! In: records' bytes. Out: the bytes of a frame; and from a file, the frames that are valid. Whether the end
//! of the valid ones is the end of the log is decided in `recovery`. docs/log_format.md section 3.

use std::io;

use crate::segment::COUNT_MAX;
use crate::storage::File;

/// Bytes before the records.
pub(crate) const HEAD: usize = 40;

/// Frames start at multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: [u8; 4] = *b"JOBF";
const VERSION: u8 = 1;
const CRC_AT: usize = 36;

/// How much is read from a file at once.
const BLOCK_BYTES: usize = 1 << 20;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Holds the records of a commit group.
    Group,
    /// Empty: a witness for what is before it.
    Mark,
    /// Empty: its segment ends here.
    End,
    /// Empty: all before it in its segment is a complete copy.
    Copy,
}

/// The fields of a frame beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) epoch: u64,
    pub(crate) lsn: u64,
    pub(crate) durable_lsn: u64,
}

/// A valid frame, as read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    /// The records, without padding.
    pub(crate) records: &'a [u8],
    /// Bytes on disk, head and padding included.
    pub(crate) bytes: u64,
}

/// What stands where a frame is looked for.
#[derive(Debug)]
pub(crate) enum Slot<'a> {
    /// A valid frame of this epoch.
    Frame(Frame<'a>),
    /// A valid frame of a version that this program does not know.
    Newer(u8),
    /// Anything else.
    Nothing,
}

impl Head {
    /// Fills in the first [`HEAD`] bytes of `frame`, whose rest is records, and pads it.
    pub(crate) fn seal(self, frame: &mut Vec<u8>) {
        let length = u32::try_from(frame.len() - HEAD).expect("frame_bytes_max is below 4 GiB");
        frame.resize(frame.len().next_multiple_of(ALIGN), 0);
        frame[..4].copy_from_slice(&MAGIC);
        frame[4] = VERSION;
        frame[5] = self.kind.code();
        frame[6..8].fill(0);
        frame[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        frame[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        frame[24..32].copy_from_slice(&self.durable_lsn.to_le_bytes());
        frame[32..36].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(frame);
        frame[CRC_AT..HEAD].copy_from_slice(&crc.to_le_bytes());
    }

    /// A frame without records.
    pub(crate) fn empty_frame(self) -> Vec<u8> {
        let mut frame = vec![0; HEAD];
        self.seal(&mut frame);
        frame
    }
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Group => 0,
            Self::Mark => 1,
            Self::End => 2,
            Self::Copy => 3,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Group,
            1 => Self::Mark,
            2 => Self::End,
            3 => Self::Copy,
            _ => return None,
        })
    }
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[HEAD..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Bytes on disk of the frame whose head this is.
fn frame_bytes(head: &[u8]) -> u64 {
    u64::from(u32_at(head, 32)).next_multiple_of(8) + 40
}

/// Bytes on disk of a damaged frame, where its head says that it is the one of this epoch and LSN.
pub(crate) fn claimed(head: &[u8], epoch: u64, lsn: u64) -> Option<u64> {
    (head.len() >= HEAD && starts_frame(head, epoch) && u64_at(head, 16) == lsn).then(|| frame_bytes(head))
}

/// The LSN that the head of a damaged frame of this epoch claims.
pub(crate) fn claimed_lsn(head: &[u8], epoch: u64) -> Option<u64> {
    (head.len() >= HEAD && starts_frame(head, epoch)).then(|| u64_at(head, 16))
}

/// Whether a damaged head can be that of a frame with records.
pub(crate) fn may_be_group(head: &[u8]) -> bool {
    head.get(5)
        .and_then(|code| Kind::of(*code))
        .is_none_or(|kind| kind == Kind::Group)
}

/// Whether the frame that these bytes begin with has the checksum that its head says.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    if bytes.len() < HEAD || bytes[..4] != MAGIC {
        return false;
    }
    let length = usize::try_from(frame_bytes(bytes)).ok();
    let frame = length.and_then(|length| bytes.get(..length));
    frame.is_some_and(|frame| u32_at(frame, CRC_AT) == checksum(frame))
}

fn starts_frame(head: &[u8], epoch: u64) -> bool {
    head[..4] == MAGIC && u64_at(head, 8) == epoch
}

/// Reads a segment's frames through a window that moves forward in large blocks.
pub(crate) struct Reader<'f, F> {
    file: &'f F,
    file_bytes: u64,
    window: Vec<u8>,
    window_at: u64,
    /// How much is read at once.
    block_bytes: usize,
}

impl<'f, F: File> Reader<'f, F> {
    pub(crate) fn new(file: &'f F) -> io::Result<Self> {
        Self::with_block(file, BLOCK_BYTES)
    }

    /// One that reads no more than `block_bytes` at once where frames are no longer.
    pub(crate) fn with_block(file: &'f F, block_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            block_bytes,
            file,
            file_bytes: file.len()?,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// How long the file is.
    pub(crate) const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// `bytes` bytes from `offset` on, or `None` where the file ends before.
    pub(crate) fn bytes(&mut self, offset: u64, bytes: u64) -> io::Result<Option<&[u8]>> {
        if offset.saturating_add(bytes) > self.file_bytes {
            return Ok(None);
        }
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let inside = |at: u64, window: &[u8]| {
            let start = usize::try_from(offset.checked_sub(at)?).ok()?;
            (start.checked_add(length)? <= window.len()).then_some(start)
        };
        let start = if let Some(start) = inside(self.window_at, &self.window) {
            start
        } else {
            let rest = usize::try_from(self.file_bytes - offset).unwrap_or(usize::MAX);
            self.window.resize(length.max(self.block_bytes).min(rest), 0);
            self.window_at = offset;
            self.file.read_at(&mut self.window, offset)?;
            0
        };
        Ok(Some(&self.window[start..start + length]))
    }

    /// What stands at `offset`.
    pub(crate) fn frame(&mut self, offset: u64, epoch: u64) -> io::Result<Slot<'_>> {
        let Some(head) = self.bytes(offset, 40)? else {
            return Ok(Slot::Nothing);
        };
        if !starts_frame(head, epoch) {
            return Ok(Slot::Nothing);
        }
        let bytes = frame_bytes(head);
        let Some(frame) = self.bytes(offset, bytes)? else {
            return Ok(Slot::Nothing);
        };
        Ok(parse(frame, epoch))
    }

    /// The next multiple of 8 at or after `offset` where the head of a frame of `epoch` stands, valid or not.
    /// `None` as the epoch means any.
    pub(crate) fn find_head(&mut self, offset: u64, epoch: Option<u64>) -> io::Result<Option<u64>> {
        let mut offset = offset.next_multiple_of(8);
        loop {
            let left = self.file_bytes.saturating_sub(offset);
            if left < 40 {
                return Ok(None);
            }
            let block = left.min(1 << 20);
            let Some(bytes) = self.bytes(offset, block)? else {
                return Ok(None);
            };
            for (index, head) in bytes.windows(HEAD).enumerate().step_by(ALIGN) {
                if head[..4] == MAGIC && epoch.is_none_or(|epoch| u64_at(head, 8) == epoch) {
                    return Ok(Some(offset + u64::try_from(index).map_err(io::Error::other)?));
                }
            }
            // The last heads of this block overlap its end: the next block starts with them.
            let searched = (block - 40) / 8 * 8 + 8;
            offset += searched;
        }
    }

    /// The first valid frame of `epoch` at or after `offset` that `wanted` accepts, and where it stands.
    pub(crate) fn find_frame(
        &mut self,
        offset: u64,
        epoch: u64,
        wanted: impl Fn(&Head) -> bool,
    ) -> io::Result<Option<(u64, Head)>> {
        let mut from = offset;
        while let Some(at) = self.find_head(from, Some(epoch))? {
            if let Slot::Frame(frame) = self.frame(at, epoch)?
                && wanted(&frame.head)
            {
                return Ok(Some((at, frame.head)));
            }
            from = at + 8;
        }
        Ok(None)
    }

    /// Whether any valid frame of any epoch stands in the file.
    pub(crate) fn holds_a_frame(&mut self) -> io::Result<bool> {
        Ok(self.first_of_any_epoch(0)?.is_some())
    }

    /// The first valid frame at or after `offset`, whatever its epoch: where it stands, and its epoch.
    pub(crate) fn first_of_any_epoch(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let mut from = offset;
        while let Some(at) = self.find_head(from, None)? {
            let epoch = self.bytes(at, 40)?.map_or(0, |head| u64_at(head, 8));
            if !matches!(self.frame(at, epoch)?, Slot::Nothing) {
                return Ok(Some((at, epoch)));
            }
            from = at + 8;
        }
        Ok(None)
    }

    /// How far the bytes reach, from `offset` on, that show this epoch: the end of the last frame that
    /// begins there, whole or not. `offset` itself if there are none.
    pub(crate) fn reach(&mut self, offset: u64, epoch: u64) -> io::Result<u64> {
        let (mut from, mut reach) = (offset, offset);
        while let Some(at) = self.find_head(from, Some(epoch))? {
            let bytes = self.bytes(at, 40)?.map_or(0, frame_bytes);
            reach = reach.max(at.saturating_add(bytes).min(self.file_bytes));
            from = at + 8;
        }
        Ok(reach)
    }
}

/// `frame` is as long as its head says, and starts with the magic and `epoch`.
fn parse(frame: &[u8], epoch: u64) -> Slot<'_> {
    if u32_at(frame, CRC_AT) != checksum(frame) {
        return Slot::Nothing;
    }
    if frame[4] != VERSION {
        return Slot::Newer(frame[4]);
    }
    let Some(kind) = Kind::of(frame[5]) else {
        return Slot::Newer(frame[4]);
    };
    if !(1..=COUNT_MAX).contains(&u64_at(frame, 16)) {
        return Slot::Nothing;
    }
    let length = usize::try_from(u32_at(frame, 32)).unwrap_or(0);
    Slot::Frame(Frame {
        head: Head {
            kind,
            epoch,
            lsn: u64_at(frame, 16),
            durable_lsn: u64_at(frame, 24),
        },
        records: &frame[HEAD..HEAD + length],
        bytes: frame_bytes(frame),
    })
}

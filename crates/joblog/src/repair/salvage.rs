//! Records out of damaged bytes.
//!
//! In: the bytes of a frame that is not valid as a whole. Out: the records whose own checksum fits, byte for byte,
//! and what can be said of the others. A record is only taken where the lengths before it prove that one begins
//! there: a search at every byte would take a job's data for records.

use std::fmt;

use crate::ids::{JobId, Token};
use crate::record::{DecodeError, Record};

/// Bytes before the fixed fields of a record: docs/log_format.md section 4.
const HEAD: usize = 12;

/// The kind of a submit, and those of what ends a job.
const SUBMIT: u8 = 1;
const OUTCOME: u8 = 4;
const ENDED: u8 = 7;

/// Where a record's kind stands.
const KIND_AT: usize = 8;

/// A record that cannot be saved, as far as its damaged bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRecord {
    /// What it was.
    pub kind: LostKind,
    /// Whose job; `None` where the record names none, or its bytes are too few. It is read from damaged bytes: such a
    /// job may never have been.
    pub job: Option<JobId>,
    /// Whether it can have been a submit: it says so, or what it says is one bit away from that, or nothing that is
    /// known.
    pub(super) may_submit: bool,
    /// The same of an outcome or an end.
    pub(super) may_end: bool,
}

/// What a lost record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostKind {
    /// A job: it is gone.
    Submit,
    /// A dispatch or its delivery: the job counts one delivery less.
    Dispatch,
    /// An outcome: the job will be processed again.
    Outcome,
    /// The copy of an outcome without its result: the same, or a repeat is not recognised any more.
    End,
    /// A counted try: it is forgotten.
    Return,
    /// A setting: an older one of its name counts again.
    Setting,
    /// Anything else.
    Other,
}

/// What became of the records of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Salvaged {
    /// The records that are whole, one after another.
    pub(super) records: Vec<u8>,
    /// How many these are.
    pub(super) saved: u64,
    pub(super) lost: Vec<LostRecord>,
    /// Bytes in which no record can be told from another.
    pub(super) unknown_bytes: u64,
    /// How many of the saved ones are submits.
    pub(super) submits: u64,
    /// The sequences of the first and of the last of these.
    pub(super) sequences: Option<(u64, u64)>,
}

impl Salvaged {
    fn count(&mut self, record: &Record<'_>) {
        if let Record::Submit(submit) = record {
            let first = self.sequences.map_or(submit.sequence, |(first, _)| first);
            self.sequences = Some((first, submit.sequence));
            self.submits += 1;
        }
    }
}

impl LostKind {
    const fn of(code: u8) -> Self {
        match code {
            SUBMIT => Self::Submit,
            2 | 3 => Self::Dispatch,
            OUTCOME => Self::Outcome,
            5 | 8 => Self::Return,
            6 => Self::Setting,
            ENDED => Self::End,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for LostKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submit => "submit",
            Self::Dispatch => "dispatch",
            Self::Outcome => "outcome",
            Self::End => "end",
            Self::Return => "return",
            Self::Setting => "setting",
            Self::Other => "record",
        })
    }
}

/// Saves what can be saved of a frame's records. `padded`: up to 7 bytes follow the last record.
pub(super) fn salvage(bytes: &[u8], padded: bool) -> Result<Salvaged, DecodeError> {
    let (places, end) = lengths(bytes);
    let rest = &bytes[end..];
    // Nothing shorter than 8 bytes is a record: there it may be the padding itself that is damaged.
    let whole = rest.is_empty() || (padded && rest.len() < 8);
    let mut salvaged = Salvaged::default();
    for (start, length) in places {
        let record = &bytes[start..start + length];
        match Record::decode(record) {
            Ok(read) => {
                salvaged.count(&read);
                salvaged.records.extend_from_slice(record);
                salvaged.saved += 1;
            }
            // Its checksum fits: it is whole, and of a later format.
            Err(error @ DecodeError::Newer { .. }) => return Err(error),
            // Lengths that fill the frame exactly are right, and so is where the next record begins.
            Err(_) if whole => salvaged.lost.push(lost(record)),
            Err(_) => {
                salvaged.lost.push(lost(record));
                salvaged.unknown_bytes = bytes_from(bytes, start + record.len().min(HEAD));
                return Ok(salvaged);
            }
        }
    }
    if !whole {
        salvaged.unknown_bytes = bytes_from(bytes, end);
        // A record begins here, and does not end where it says; it may still say whose it is.
        let first = lost(rest);
        salvaged.lost.extend(first.job.map(|_| first));
    }
    Ok(salvaged)
}

/// Where records start and how long they say they are, one behind the other; and where that ends.
fn lengths(bytes: &[u8]) -> (Vec<(usize, usize)>, usize) {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes[at..]
        .first_chunk()
        .map(|length| u32::from_le_bytes(*length))
    {
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| (HEAD..=bytes.len() - at).contains(length))
        else {
            break;
        };
        places.push((at, length));
        at += length;
    }
    (places, at)
}

fn lost(record: &[u8]) -> LostRecord {
    let code = record.get(KIND_AT).copied();
    let kind = code.map_or(LostKind::Other, LostKind::of);
    let may_be = |wanted: &[u8]| {
        let near = |code: u8| wanted.iter().any(|kind| (code ^ kind).count_ones() <= 1);
        kind == LostKind::Other || code.is_none_or(near)
    };
    let names_job = matches!(
        kind,
        LostKind::Submit | LostKind::Outcome | LostKind::End | LostKind::Return
    );
    let id = record.get(HEAD..).and_then(<[u8]>::first_chunk);
    LostRecord {
        kind,
        job: id.filter(|_| names_job).map(|id| JobId(*id)),
        may_submit: may_be(&[SUBMIT]),
        may_end: may_be(&[OUTCOME, ENDED]),
    }
}

fn bytes_from(bytes: &[u8], at: usize) -> u64 {
    u64::try_from(bytes.len() - at).unwrap_or(u64::MAX)
}

/// The lease that a record tells of, if any: it names the directory and a boot.
pub(super) fn token(record: &Record<'_>) -> Option<Token> {
    match record {
        Record::Dispatch(dispatch) => Some(dispatch.token),
        Record::Delivered(token) => Some(*token),
        Record::Return(returned) => Some(returned.token),
        Record::Outcome(outcome) => outcome.token,
        _ => None,
    }
}

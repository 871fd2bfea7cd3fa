//! Bytes to records. Nothing is copied but lists; nothing panics, whatever the bytes are.

use std::fmt;

use super::format::{self, FLAG, HEAD, TAG_HEAD, VERSION, error, fixed, kind};
use super::{
    Cause, Copied, Dispatch, End, Ended, ErrorFields, IdempotencyKey, Outcome, Reason, Record, Return,
    Setting, Submit, Tries,
};
use crate::ids::{JobId, Priority, Token, WallMs};
use crate::segment::COUNT_MAX;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the record does, or go on after it.
    Length,
    /// The record's CRC is another.
    Checksum,
    /// A kind of record, or a version of it, that a newer jitney wrote.
    Newer {
        /// The kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// Another kind of record than was asked for.
    Kind(u8),
    /// A field is missing or holds what it cannot hold.
    Field(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("the record's length does not fit its bytes"),
            Self::Checksum => f.write_str("the record's checksum does not fit its bytes"),
            Self::Newer { kind, version } => {
                write!(f, "record kind {kind} version {version} is of a newer format")
            }
            Self::Kind(kind) => write!(f, "record kind {kind} is not the one that was asked for"),
            Self::Field(name) => write!(f, "the record's field `{name}` is missing or malformed"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Goes through the records of a frame: each item is a record's offset in `bytes` and its bytes.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    /// Over the records that follow one another in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let offset = self.offset;
        let record = Fields(rest)
            .number()
            .ok()
            .and_then(|length| usize::try_from(u32::from_le_bytes(length)).ok())
            .filter(|length| *length >= HEAD)
            .and_then(|length| rest.get(..length));
        if let Some(record) = record {
            self.offset += record.len();
            Some(Ok((offset, record)))
        } else {
            self.offset = self.bytes.len();
            Some(Err(DecodeError::Length))
        }
    }
}

impl<'a> Record<'a> {
    /// Reads one record; `bytes` are its own and no more.
    ///
    /// # Errors
    /// [`DecodeError`]; the bytes are damaged or of a newer format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self::fields(Open::new(bytes)?)
    }

    /// Reads a record that this process encoded and that never left its memory: its checksum is not looked at.
    pub(crate) fn decode_own(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self::fields(Open::unchecked(bytes)?)
    }

    fn fields(open: Open<'a>) -> Result<Self, DecodeError> {
        Ok(match open.kind {
            kind::SUBMIT => Self::Submit(submit(open)?),
            kind::DISPATCH => Self::Dispatch(dispatch(open)?),
            kind::DELIVERED => Self::Delivered(delivered(open)?),
            kind::OUTCOME => Self::Outcome(outcome(open)?),
            kind::RETURN => Self::Return(returned(open)?),
            kind::SETTING => Self::Setting(setting(open)?),
            kind::ENDED => Self::Ended(ended(open)?),
            kind::TRIES => Self::Tries(tries(open)?),
            kind::COPIED => Self::Copied(copied(open)?),
            other => {
                return Err(DecodeError::Newer {
                    kind: other,
                    version: open.version,
                });
            }
        })
    }
}

impl<'a> Submit<'a> {
    /// Reads one submit; `bytes` are its own and no more.
    ///
    /// # Errors
    /// [`DecodeError`]; the bytes are damaged, of a newer format, or another kind of record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Open::new(bytes)?.expect(kind::SUBMIT).and_then(submit)
    }
}

impl<'a> Outcome<'a> {
    /// Reads one outcome; `bytes` are its own and no more.
    ///
    /// # Errors
    /// [`DecodeError`]; the bytes are damaged, of a newer format, or another kind of record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Open::new(bytes)?.expect(kind::OUTCOME).and_then(outcome)
    }
}

/// A record whose length is right, and its CRC unless nobody looked.
struct Open<'a> {
    kind: u8,
    version: u8,
    fixed: Fields<'a>,
    tagged: Fields<'a>,
}

impl<'a> Open<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (_, crc) = Self::head(bytes)?;
        if crc != super::checksum(bytes) {
            return Err(DecodeError::Checksum);
        }
        Self::unchecked(bytes)
    }

    /// Behind the length, which is right: the rest, and the CRC.
    fn head(bytes: &'a [u8]) -> Result<(Fields<'a>, u32), DecodeError> {
        let mut head = Fields(bytes);
        let length = u32::from_le_bytes(head.number()?);
        if usize::try_from(length) != Ok(bytes.len()) || bytes.len() < HEAD {
            return Err(DecodeError::Length);
        }
        let crc = u32::from_le_bytes(head.number()?);
        Ok((head, crc))
    }

    fn unchecked(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut head, _) = Self::head(bytes)?;
        let [kind, version] = head.number()?;
        if version != VERSION {
            return Err(DecodeError::Newer { kind, version });
        }
        let fixed = usize::from(u16::from_le_bytes(head.number()?));
        let fixed = Fields(head.take(fixed)?);
        Ok(Self {
            kind,
            version,
            fixed,
            tagged: head,
        })
    }

    fn expect(self, kind: u8) -> Result<Self, DecodeError> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(DecodeError::Kind(self.kind))
        }
    }

    /// Fixed fields may grow in later versions, never shrink.
    fn check_fixed(&self, bytes: u16) -> Result<(), DecodeError> {
        if self.fixed.0.len() < usize::from(bytes) {
            Err(DecodeError::Length)
        } else {
            Ok(())
        }
    }
}

fn submit(mut open: Open<'_>) -> Result<Submit<'_>, DecodeError> {
    use format::submit as tags;
    open.check_fixed(fixed::SUBMIT)?;
    let id = JobId(open.fixed.number()?);
    let sequence = open.fixed.count("sequence")?;
    let accepted = WallMs(open.fixed.u64()?);
    let priority = priority(open.fixed.u8()?)?;
    let client_id = open.fixed.u8()? & FLAG != 0;
    let mut submit = Submit {
        id,
        processor: "",
        group: "",
        priority,
        data: &[],
        content_type: None,
        key: None,
        labels: Vec::new(),
        idempotency: None,
        fingerprint: 0,
        client_id,
        parent: None,
        traceparent: None,
        ttl_ms: None,
        deadline: None,
        run_at: None,
        sequence,
        accepted,
    };
    while let Some((tag, mut value)) = open.tagged.tag()? {
        match tag {
            tags::PROCESSOR => submit.processor = value.text("processor")?,
            tags::GROUP => submit.group = value.text("group")?,
            tags::DATA => submit.data = value.0,
            tags::CONTENT_TYPE => submit.content_type = Some(value.text("content type")?),
            tags::KEY => submit.key = Some(value.text("key")?),
            tags::LABEL => submit.labels.push(label(value)?),
            tags::IDEMPOTENCY => {
                submit.idempotency = Some(value.key()?);
            }
            tags::FINGERPRINT => submit.fingerprint = u128::from_le_bytes(value.number()?),
            tags::PARENT => {
                let parent = JobId(value.number()?);
                submit.parent = Some((parent, value.u32()?));
            }
            tags::TRACEPARENT => submit.traceparent = Some(value.text("traceparent")?),
            tags::TTL => submit.ttl_ms = Some(value.u64()?),
            tags::DEADLINE => submit.deadline = Some(WallMs(value.u64()?)),
            tags::RUN_AT => submit.run_at = Some(WallMs(value.u64()?)),
            _ => {}
        }
    }
    if submit.processor.is_empty() {
        return Err(DecodeError::Field("processor"));
    }
    if submit.group.is_empty() {
        return Err(DecodeError::Field("group"));
    }
    Ok(submit)
}

fn label(mut value: Fields<'_>) -> Result<(&str, &str), DecodeError> {
    let length = usize::try_from(value.u32()?).map_err(|_| DecodeError::Field("label"))?;
    let name = Fields(value.take(length)?).text("label")?;
    Ok((name, value.text("label")?))
}

fn dispatch(mut open: Open<'_>) -> Result<Dispatch<'_>, DecodeError> {
    use format::dispatch as tags;
    open.check_fixed(fixed::DISPATCH)?;
    let mut dispatch = Dispatch {
        token: open.fixed.token()?,
        term_ms: open.fixed.u64()?,
        granted: WallMs(open.fixed.u64()?),
        in_process: open.fixed.u8()? & FLAG != 0,
        worker: "",
        request_id: None,
        jobs: Vec::new(),
    };
    while let Some((tag, value)) = open.tagged.tag()? {
        match tag {
            tags::WORKER => dispatch.worker = value.text("worker")?,
            tags::REQUEST_ID => dispatch.request_id = Some(value.text("request id")?),
            tags::JOBS => {
                let (ids, rest) = value.0.as_chunks::<16>();
                if !rest.is_empty() {
                    return Err(DecodeError::Field("jobs"));
                }
                dispatch.jobs = ids.iter().map(|id| JobId(*id)).collect();
            }
            _ => {}
        }
    }
    Ok(dispatch)
}

fn delivered(mut open: Open<'_>) -> Result<Token, DecodeError> {
    open.check_fixed(fixed::DELIVERED)?;
    open.fixed.token()
}

fn outcome(mut open: Open<'_>) -> Result<Outcome<'_>, DecodeError> {
    use format::outcome as tags;
    open.check_fixed(fixed::OUTCOME)?;
    let mut outcome = Outcome {
        id: JobId(open.fixed.number()?),
        finished: WallMs(open.fixed.u64()?),
        end: end(open.fixed.u8()?)?,
        reason: reason(open.fixed.u8()?)?,
        attempts: open.fixed.u32()?,
        crashes: open.fixed.u32()?,
        children: open.fixed.u32()?,
        token: None,
        worker: None,
        started: None,
        result: &[],
        content_type: None,
        error: None,
        keep_ms: None,
    };
    let mut error = ErrorTags::default();
    while let Some((tag, mut value)) = open.tagged.tag()? {
        match tag {
            tags::RESULT => outcome.result = value.0,
            tags::CONTENT_TYPE => outcome.content_type = Some(value.text("content type")?),
            tags::TOKEN => outcome.token = Some(value.token()?),
            tags::WORKER => outcome.worker = Some(value.text("worker")?),
            tags::STARTED => outcome.started = Some(WallMs(value.u64()?)),
            tags::KEEP => outcome.keep_ms = Some(value.u64()?),
            _ => error.take(tag, value)?,
        }
    }
    outcome.error = error.fields()?;
    Ok(outcome)
}

fn returned(mut open: Open<'_>) -> Result<Return<'_>, DecodeError> {
    open.check_fixed(fixed::RETURN)?;
    let mut returned = Return {
        id: JobId(open.fixed.number()?),
        token: open.fixed.token()?,
        attempts: open.fixed.u32()?,
        crashes: open.fixed.u32()?,
        cause: cause(open.fixed.u8()?)?,
        alone: open.fixed.u8()? & FLAG != 0,
        due: None,
        written: None,
        error: None,
    };
    let mut error = ErrorTags::default();
    while let Some((tag, mut value)) = open.tagged.tag()? {
        match tag {
            format::returned::DUE => returned.due = Some(WallMs(value.u64()?)),
            format::returned::WRITTEN => returned.written = Some(WallMs(value.u64()?)),
            _ => error.take(tag, value)?,
        }
    }
    returned.error = error.fields()?;
    Ok(returned)
}

fn setting(mut open: Open<'_>) -> Result<Setting<'_>, DecodeError> {
    use format::setting as tags;
    open.check_fixed(fixed::SETTING)?;
    let version = open.fixed.count("version")?;
    let (mut name, mut value) = (None, None);
    while let Some((tag, field)) = open.tagged.tag()? {
        match tag {
            tags::NAME => name = Some(field.text("name")?),
            tags::VALUE => value = Some(field.0),
            _ => {}
        }
    }
    let name = name.ok_or(DecodeError::Field("name"))?;
    Ok(Setting { name, value, version })
}

fn ended(mut open: Open<'_>) -> Result<Ended, DecodeError> {
    use format::ended as tags;
    open.check_fixed(fixed::ENDED)?;
    let mut ended = Ended {
        id: JobId(open.fixed.number()?),
        finished: WallMs(open.fixed.u64()?),
        end: end(open.fixed.u8()?)?,
        reason: reason(open.fixed.u8()?)?,
        client_id: open.fixed.u8()? & FLAG != 0,
        idempotency: None,
        fingerprint: 0,
    };
    while let Some((tag, mut value)) = open.tagged.tag()? {
        match tag {
            tags::IDEMPOTENCY => ended.idempotency = Some(value.key()?),
            tags::FINGERPRINT => ended.fingerprint = u128::from_le_bytes(value.number()?),
            _ => {}
        }
    }
    Ok(ended)
}

fn tries(mut open: Open<'_>) -> Result<Tries, DecodeError> {
    use format::tries as tags;
    open.check_fixed(fixed::TRIES)?;
    let id = JobId(open.fixed.number()?);
    let token = open.fixed.token()?;
    let deliveries = open.fixed.u32()?;
    let counts = (open.fixed.u32()?, open.fixed.u32()?);
    let flags = open.fixed.u8()?;
    let mut tries = Tries {
        id,
        token,
        deliveries,
        counts: (flags & tags::RETURNED != 0).then_some(counts),
        alone: flags & FLAG != 0,
        held: flags & tags::HELD != 0,
        spent: flags & tags::SPENT != 0,
        started: None,
        due: None,
        written: None,
    };
    while let Some((tag, mut value)) = open.tagged.tag()? {
        match tag {
            tags::DUE => tries.due = Some(WallMs(value.u64()?)),
            tags::STARTED => tries.started = Some(WallMs(value.u64()?)),
            tags::WRITTEN => tries.written = Some(WallMs(value.u64()?)),
            _ => {}
        }
    }
    Ok(tries)
}

fn copied(mut open: Open<'_>) -> Result<Copied, DecodeError> {
    open.check_fixed(fixed::COPIED)?;
    Ok(Copied {
        source: open.fixed.u64()?,
        origin: open.fixed.u64()?,
    })
}

#[derive(Default)]
struct ErrorTags<'a> {
    code: Option<&'a str>,
    message: Option<&'a str>,
    data: Option<&'a [u8]>,
}

impl<'a> ErrorTags<'a> {
    fn take(&mut self, tag: u8, value: Fields<'a>) -> Result<(), DecodeError> {
        match tag {
            error::CODE => self.code = Some(value.text("error code")?),
            error::MESSAGE => self.message = Some(value.text("error message")?),
            error::DATA => self.data = Some(value.0),
            _ => {}
        }
        Ok(())
    }

    fn fields(self) -> Result<Option<ErrorFields<'a>>, DecodeError> {
        let Some(code) = self.code else { return Ok(None) };
        let message = self.message.ok_or(DecodeError::Field("error message"))?;
        Ok(Some(ErrorFields {
            code,
            message,
            data: self.data,
        }))
    }
}

/// Bytes that are taken from the front.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (front, rest) = self.0.split_at_checked(bytes).ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(front)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(*front)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.number()?;
        Ok(byte)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.number().map(u64::from_le_bytes)
    }

    /// What counts up by one, and gets nowhere near the end of its range.
    fn count(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let count = self.u64()?;
        let possible = count <= COUNT_MAX;
        possible.then_some(count).ok_or(DecodeError::Field(field))
    }

    fn token(&mut self) -> Result<Token, DecodeError> {
        Ok(Token {
            node: self.u64()?,
            epoch: self.u32()?,
            sequence: self.u64()?,
        })
    }

    fn key(&mut self) -> Result<IdempotencyKey, DecodeError> {
        Ok(IdempotencyKey {
            scope: self.u64()?,
            hash: u128::from_le_bytes(self.number()?),
        })
    }

    fn text(self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.0).map_err(|_| DecodeError::Field(field))
    }

    /// The next tagged field, or `None` at the end of the record.
    fn tag(&mut self) -> Result<Option<(u8, Self)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        if self.0.len() < TAG_HEAD {
            return Err(DecodeError::Length);
        }
        let tag = self.u8()?;
        let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Length)?;
        Ok(Some((tag, Self(self.take(length)?))))
    }
}

fn priority(code: u8) -> Result<Priority, DecodeError> {
    Priority::ALL
        .get(usize::from(code))
        .copied()
        .ok_or(DecodeError::Field("priority"))
}

const fn end(code: u8) -> Result<End, DecodeError> {
    Ok(match code {
        0 => End::Ok,
        1 => End::Error,
        2 => End::Failed,
        _ => return Err(DecodeError::Field("end")),
    })
}

const fn reason(code: u8) -> Result<Option<Reason>, DecodeError> {
    Ok(Some(match code {
        0 => return Ok(None),
        1 => Reason::Exhausted,
        2 => Reason::Expired,
        3 => Reason::Cancelled,
        4 => Reason::TimedOut,
        5 => Reason::Dead,
        _ => return Err(DecodeError::Field("reason")),
    }))
}

const fn cause(code: u8) -> Result<Cause, DecodeError> {
    Ok(match code {
        0 => Cause::Released,
        1 => Cause::Undelivered,
        2 => Cause::Expired,
        3 => Cause::Crashed,
        4 => Cause::BatchFailed,
        5 => Cause::Error,
        6 => Cause::MissingOutcome,
        _ => return Err(DecodeError::Field("cause")),
    })
}

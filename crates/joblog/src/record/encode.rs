//! Records to bytes: each byte of a payload is copied once, into the frame.

use super::format::{self, FLAG, HEAD, TAG_HEAD, VERSION, error, fixed, kind};
use super::{
    Cause, Copied, Dispatch, End, Ended, ErrorFields, IdempotencyKey, Outcome, Reason, Record, Return,
    Setting, Submit, Tries,
};
use crate::ids::{Priority, Token};

impl Record<'_> {
    /// Appends the record's bytes to `out`.
    ///
    /// # Panics
    /// If one field is 4 GiB or longer, which no limit of jitney lets in.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Submit(submit) => submit.encode(out),
            Self::Dispatch(dispatch) => dispatch.encode(out),
            Self::Delivered(token) => delivered(*token, out),
            Self::Outcome(outcome) => outcome.encode(out),
            Self::Return(returned) => returned.encode(out),
            Self::Setting(setting) => setting.encode(out),
            Self::Ended(ended) => ended.encode(out),
            Self::Tries(tries) => tries.encode(out),
            Self::Copied(copied) => copied.encode(out),
        }
    }

    /// No less than the bytes that [`Record::encode`] appends, at the price of a few additions.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        /// More than the head, the fixed fields, and every tag that holds a number.
        const REST: usize = 320;
        fn error_bytes(error: Option<ErrorFields<'_>>) -> usize {
            error.map_or(0, |e| {
                e.code.len() + e.message.len() + e.data.map_or(0, <[u8]>::len)
            })
        }
        let text = |text: Option<&str>| text.map_or(0, str::len);
        REST + match self {
            Self::Submit(s) => {
                let labels = s
                    .labels
                    .iter()
                    .map(|(name, value)| TAG_HEAD + 4 + name.len() + value.len());
                s.processor.len()
                    + s.group.len()
                    + s.data.len()
                    + text(s.content_type)
                    + text(s.key)
                    + text(s.traceparent)
                    + labels.sum::<usize>()
            }
            Self::Dispatch(d) => d.worker.len() + text(d.request_id) + d.jobs.len() * 16,
            Self::Delivered(_) | Self::Ended(_) | Self::Tries(_) | Self::Copied(_) => 0,
            Self::Outcome(o) => o.result.len() + text(o.content_type) + text(o.worker) + error_bytes(o.error),
            Self::Return(r) => error_bytes(r.error),
            Self::Setting(s) => s.name.len() + s.value.map_or(0, <[u8]>::len),
        }
    }
}

impl Submit<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        use format::submit as tags;
        let start = begin(out, kind::SUBMIT, fixed::SUBMIT);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.accepted.0.to_le_bytes());
        out.push(priority_code(self.priority));
        out.push(flag(self.client_id));
        tag(out, tags::PROCESSOR, self.processor.as_bytes());
        tag(out, tags::GROUP, self.group.as_bytes());
        if !self.data.is_empty() {
            tag(out, tags::DATA, self.data);
        }
        tag_text(out, tags::CONTENT_TYPE, self.content_type);
        tag_text(out, tags::KEY, self.key);
        for (name, value) in &self.labels {
            tag_head(out, tags::LABEL, 4 + name.len() + value.len());
            out.extend_from_slice(&length(name.len()).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        tag_identity(
            out,
            (tags::IDEMPOTENCY, self.idempotency),
            (tags::FINGERPRINT, self.fingerprint),
        );
        if let Some((parent, index)) = self.parent {
            tag_head(out, tags::PARENT, 20);
            out.extend_from_slice(&parent.0);
            out.extend_from_slice(&index.to_le_bytes());
        }
        tag_text(out, tags::TRACEPARENT, self.traceparent);
        tag_number(out, tags::TTL, self.ttl_ms);
        tag_number(out, tags::DEADLINE, self.deadline.map(|at| at.0));
        tag_number(out, tags::RUN_AT, self.run_at.map(|at| at.0));
        finish(out, start);
    }
}

impl Dispatch<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        use format::dispatch as tags;
        let start = begin(out, kind::DISPATCH, fixed::DISPATCH);
        token(out, self.token);
        out.extend_from_slice(&self.term_ms.to_le_bytes());
        out.extend_from_slice(&self.granted.0.to_le_bytes());
        out.push(flag(self.in_process));
        tag(out, tags::WORKER, self.worker.as_bytes());
        tag_text(out, tags::REQUEST_ID, self.request_id);
        tag_head(out, tags::JOBS, self.jobs.len() * 16);
        for job in &self.jobs {
            out.extend_from_slice(&job.0);
        }
        finish(out, start);
    }
}

fn delivered(lease: Token, out: &mut Vec<u8>) {
    let start = begin(out, kind::DELIVERED, fixed::DELIVERED);
    token(out, lease);
    finish(out, start);
}

impl Outcome<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        use format::outcome as tags;
        let start = begin(out, kind::OUTCOME, fixed::OUTCOME);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.finished.0.to_le_bytes());
        out.push(end_code(self.end));
        out.push(self.reason.map_or(0, reason_code));
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.extend_from_slice(&self.crashes.to_le_bytes());
        out.extend_from_slice(&self.children.to_le_bytes());
        if !self.result.is_empty() {
            tag(out, tags::RESULT, self.result);
        }
        tag_text(out, tags::CONTENT_TYPE, self.content_type);
        if let Some(lease) = self.token {
            tag_head(out, tags::TOKEN, 20);
            token(out, lease);
        }
        tag_text(out, tags::WORKER, self.worker);
        tag_number(out, tags::STARTED, self.started.map(|at| at.0));
        tag_error(out, self.error);
        tag_number(out, tags::KEEP, self.keep_ms);
        finish(out, start);
    }
}

impl Return<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, kind::RETURN, fixed::RETURN);
        out.extend_from_slice(&self.id.0);
        token(out, self.token);
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.extend_from_slice(&self.crashes.to_le_bytes());
        out.push(cause_code(self.cause));
        out.push(flag(self.alone));
        tag_number(out, format::returned::DUE, self.due.map(|at| at.0));
        tag_number(out, format::returned::WRITTEN, self.written.map(|at| at.0));
        tag_error(out, self.error);
        finish(out, start);
    }
}

impl Setting<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        use format::setting as tags;
        let start = begin(out, kind::SETTING, fixed::SETTING);
        out.extend_from_slice(&self.version.to_le_bytes());
        tag(out, tags::NAME, self.name.as_bytes());
        if let Some(value) = self.value {
            tag(out, tags::VALUE, value);
        }
        finish(out, start);
    }
}

impl Ended {
    fn encode(&self, out: &mut Vec<u8>) {
        use format::ended as tags;
        let start = begin(out, kind::ENDED, fixed::ENDED);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.finished.0.to_le_bytes());
        out.push(end_code(self.end));
        out.push(self.reason.map_or(0, reason_code));
        out.push(flag(self.client_id));
        tag_identity(
            out,
            (tags::IDEMPOTENCY, self.idempotency),
            (tags::FINGERPRINT, self.fingerprint),
        );
        finish(out, start);
    }
}

impl Tries {
    fn encode(&self, out: &mut Vec<u8>) {
        use format::tries as tags;
        let start = begin(out, kind::TRIES, fixed::TRIES);
        out.extend_from_slice(&self.id.0);
        token(out, self.token);
        let (attempts, crashes) = self.counts.unwrap_or_default();
        out.extend_from_slice(&self.deliveries.to_le_bytes());
        out.extend_from_slice(&attempts.to_le_bytes());
        out.extend_from_slice(&crashes.to_le_bytes());
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(self.alone)
                | bit(self.counts.is_some(), tags::RETURNED)
                | bit(self.held, tags::HELD)
                | bit(self.spent, tags::SPENT),
        );
        tag_number(out, tags::DUE, self.due.map(|at| at.0));
        tag_number(out, tags::STARTED, self.started.map(|at| at.0));
        tag_number(out, tags::WRITTEN, self.written.map(|at| at.0));
        finish(out, start);
    }
}

impl Copied {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, kind::COPIED, fixed::COPIED);
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(&self.origin.to_le_bytes());
        finish(out, start);
    }
}

/// Leaves room for length and CRC, which [`finish`] fills in.
fn begin(out: &mut Vec<u8>, kind: u8, fixed: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(kind);
    out.push(VERSION);
    out.extend_from_slice(&fixed.to_le_bytes());
    debug_assert_eq!(out.len() - start, HEAD, "the head has its documented size");
    start
}

fn finish(out: &mut [u8], start: usize) {
    let record = &mut out[start..];
    let bytes = length(record.len());
    record[..4].copy_from_slice(&bytes.to_le_bytes());
    let crc = super::checksum(record);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn tag_head(out: &mut Vec<u8>, tag: u8, bytes: usize) {
    out.push(tag);
    out.extend_from_slice(&length(bytes).to_le_bytes());
}

fn tag(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    tag_head(out, tag, value.len());
    out.extend_from_slice(value);
}

fn tag_text(out: &mut Vec<u8>, name: u8, value: Option<&str>) {
    if let Some(value) = value {
        tag(out, name, value.as_bytes());
    }
}

fn tag_number(out: &mut Vec<u8>, name: u8, value: Option<u64>) {
    if let Some(value) = value {
        tag(out, name, &value.to_le_bytes());
    }
}

fn tag_identity(
    out: &mut Vec<u8>,
    (key_tag, key): (u8, Option<IdempotencyKey>),
    (fingerprint_tag, fingerprint): (u8, u128),
) {
    if let Some(key) = key {
        tag_head(out, key_tag, 24);
        out.extend_from_slice(&key.scope.to_le_bytes());
        out.extend_from_slice(&key.hash.to_le_bytes());
    }
    if fingerprint != 0 {
        tag(out, fingerprint_tag, &fingerprint.to_le_bytes());
    }
}

fn tag_error(out: &mut Vec<u8>, value: Option<ErrorFields<'_>>) {
    if let Some(value) = value {
        tag(out, error::CODE, value.code.as_bytes());
        tag(out, error::MESSAGE, value.message.as_bytes());
        if let Some(data) = value.data {
            tag(out, error::DATA, data);
        }
    }
}

fn token(out: &mut Vec<u8>, token: Token) {
    out.extend_from_slice(&token.node.to_le_bytes());
    out.extend_from_slice(&token.epoch.to_le_bytes());
    out.extend_from_slice(&token.sequence.to_le_bytes());
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes)
        .expect("a record is far below 4 GiB: frame_bytes_max is checked before it is encoded")
}

const fn flag(set: bool) -> u8 {
    if set { FLAG } else { 0 }
}

const fn priority_code(priority: Priority) -> u8 {
    match priority {
        Priority::Realtime => 0,
        Priority::Normal => 1,
        Priority::Slow => 2,
    }
}

const fn end_code(end: End) -> u8 {
    match end {
        End::Ok => 0,
        End::Error => 1,
        End::Failed => 2,
    }
}

const fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::Exhausted => 1,
        Reason::Expired => 2,
        Reason::Cancelled => 3,
        Reason::TimedOut => 4,
        Reason::Dead => 5,
    }
}

const fn cause_code(cause: Cause) -> u8 {
    match cause {
        Cause::Released => 0,
        Cause::Undelivered => 1,
        Cause::Expired => 2,
        Cause::Crashed => 3,
        Cause::BatchFailed => 4,
        Cause::Error => 5,
        Cause::MissingOutcome => 6,
    }
}

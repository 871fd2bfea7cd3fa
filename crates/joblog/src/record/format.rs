//! The numbers of the record format, for the encoder and the decoder. docs/log_format.md section 4 shows them.

/// Length, CRC, kind, version, bytes of fixed fields.
pub(super) const HEAD: usize = 12;

/// The version of every record kind.
pub(super) const VERSION: u8 = 1;

/// Bytes of a tagged field before its value: tag and length.
pub(super) const TAG_HEAD: usize = 5;

pub(super) mod kind {
    pub(in crate::record) const SUBMIT: u8 = 1;
    pub(in crate::record) const DISPATCH: u8 = 2;
    pub(in crate::record) const DELIVERED: u8 = 3;
    pub(in crate::record) const OUTCOME: u8 = 4;
    pub(in crate::record) const RETURN: u8 = 5;
    pub(in crate::record) const SETTING: u8 = 6;
    pub(in crate::record) const ENDED: u8 = 7;
    pub(in crate::record) const TRIES: u8 = 8;
    pub(in crate::record) const COPIED: u8 = 9;
}

/// Bytes of fixed fields.
pub(super) mod fixed {
    pub(in crate::record) const SUBMIT: u16 = 34;
    pub(in crate::record) const DISPATCH: u16 = 37;
    pub(in crate::record) const DELIVERED: u16 = 20;
    pub(in crate::record) const OUTCOME: u16 = 38;
    pub(in crate::record) const RETURN: u16 = 46;
    pub(in crate::record) const SETTING: u16 = 8;
    pub(in crate::record) const ENDED: u16 = 27;
    pub(in crate::record) const TRIES: u16 = 49;
    pub(in crate::record) const COPIED: u16 = 16;
}

/// Bit 0 of a flags byte: `client_id` of a submit, `in_process` of a dispatch, `alone` of a return.
pub(super) const FLAG: u8 = 1;

pub(super) mod submit {
    pub(in crate::record) const PROCESSOR: u8 = 1;
    pub(in crate::record) const GROUP: u8 = 2;
    pub(in crate::record) const DATA: u8 = 3;
    pub(in crate::record) const CONTENT_TYPE: u8 = 4;
    pub(in crate::record) const KEY: u8 = 5;
    pub(in crate::record) const LABEL: u8 = 6;
    pub(in crate::record) const IDEMPOTENCY: u8 = 7;
    pub(in crate::record) const FINGERPRINT: u8 = 8;
    pub(in crate::record) const PARENT: u8 = 9;
    pub(in crate::record) const TRACEPARENT: u8 = 10;
    pub(in crate::record) const TTL: u8 = 11;
    pub(in crate::record) const DEADLINE: u8 = 12;
    pub(in crate::record) const RUN_AT: u8 = 13;
}

pub(super) mod dispatch {
    pub(in crate::record) const WORKER: u8 = 1;
    pub(in crate::record) const REQUEST_ID: u8 = 2;
    pub(in crate::record) const JOBS: u8 = 3;
}

pub(super) mod outcome {
    pub(in crate::record) const RESULT: u8 = 1;
    pub(in crate::record) const CONTENT_TYPE: u8 = 2;
    pub(in crate::record) const TOKEN: u8 = 3;
    pub(in crate::record) const WORKER: u8 = 4;
    pub(in crate::record) const STARTED: u8 = 5;
    pub(in crate::record) const KEEP: u8 = 9;
}

/// The tags of an error, the same in an outcome and in a return.
pub(super) mod error {
    pub(in crate::record) const CODE: u8 = 6;
    pub(in crate::record) const MESSAGE: u8 = 7;
    pub(in crate::record) const DATA: u8 = 8;
}

/// Further bits of the flags of a [`super::Tries`].
pub(super) mod tries {
    pub(in crate::record) const RETURNED: u8 = 2;
    pub(in crate::record) const HELD: u8 = 4;
    pub(in crate::record) const SPENT: u8 = 8;
    pub(in crate::record) const DUE: u8 = 1;
    pub(in crate::record) const STARTED: u8 = 2;
    pub(in crate::record) const WRITTEN: u8 = 3;
}

pub(super) mod ended {
    pub(in crate::record) const IDEMPOTENCY: u8 = 1;
    pub(in crate::record) const FINGERPRINT: u8 = 2;
}

pub(super) mod setting {
    pub(in crate::record) const NAME: u8 = 1;
    pub(in crate::record) const VALUE: u8 = 2;
}

pub(super) mod returned {
    pub(in crate::record) const DUE: u8 = 1;
    pub(in crate::record) const WRITTEN: u8 = 2;
}

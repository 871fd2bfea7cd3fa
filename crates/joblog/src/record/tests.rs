use proptest::prelude::*;

use super::*;
use crate::segment::COUNT_MAX;

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 _.-]{1,20}"
}

fn token() -> impl Strategy<Value = Token> {
    (any::<u64>(), any::<u32>(), 0..=COUNT_MAX).prop_map(|(node, epoch, sequence)| Token {
        node,
        epoch,
        sequence,
    })
}

/// Owned parts of every record, so that proptest can shrink them.
#[derive(Clone, Debug)]
struct Parts {
    id: [u8; 16],
    names: (String, String),
    data: Vec<u8>,
    optional_text: Option<String>,
    labels: Vec<(String, String)>,
    key: Option<(u64, u128)>,
    number: Option<u64>,
    counts: (u32, u32, u32),
    token: Token,
    flag: bool,
    code: usize,
    jobs: Vec<[u8; 16]>,
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        (
            any::<[u8; 16]>(),
            (text(), text()),
            prop::collection::vec(any::<u8>(), 0..200),
        ),
        (
            prop::option::of(text()),
            prop::collection::vec((text(), text()), 0..4),
        ),
        (
            any::<Option<(u64, u128)>>(),
            any::<Option<u64>>(),
            any::<(u32, u32, u32)>(),
        ),
        (
            token(),
            any::<bool>(),
            0..42_usize,
            prop::collection::vec(any::<[u8; 16]>(), 0..9),
        ),
    )
        .prop_map(
            |((id, names, data), (optional_text, labels), (key, number, counts), rest)| {
                let (token, flag, code, jobs) = rest;
                Parts {
                    id,
                    names,
                    data,
                    optional_text,
                    labels,
                    key,
                    number,
                    counts,
                    token,
                    flag,
                    code,
                    jobs,
                }
            },
        )
}

const REASONS: [Option<Reason>; 6] = [
    None,
    Some(Reason::Exhausted),
    Some(Reason::Expired),
    Some(Reason::Cancelled),
    Some(Reason::TimedOut),
    Some(Reason::Dead),
];
const CAUSES: [Cause; 7] = [
    Cause::Released,
    Cause::Undelivered,
    Cause::Expired,
    Cause::Crashed,
    Cause::BatchFailed,
    Cause::Error,
    Cause::MissingOutcome,
];

fn setting(p: &Parts) -> Record<'_> {
    Record::Setting(Setting {
        name: &p.names.0,
        value: p.flag.then_some(p.data.as_slice()),
        version: p.token.sequence,
    })
}

fn tries(p: &Parts) -> Record<'_> {
    Record::Tries(Tries {
        id: JobId(p.id),
        token: p.token,
        deliveries: p.counts.2,
        counts: p.flag.then_some((p.counts.0, p.counts.1)),
        alone: p.code.is_multiple_of(2),
        held: p.code.is_multiple_of(3),
        spent: p.code.is_multiple_of(5),
        started: p.number.map(WallMs),
        due: p.number.map(WallMs),
        written: p.number.map(|number| WallMs(number / 2)),
    })
}

fn ended(p: &Parts) -> Record<'_> {
    Record::Ended(Ended {
        id: JobId(p.id),
        finished: WallMs(p.token.node),
        end: End::Failed,
        reason: REASONS[p.code % 6],
        client_id: p.flag,
        idempotency: p.key.map(|(scope, hash)| IdempotencyKey { scope, hash }),
        fingerprint: p.key.map_or(0, |(_, hash)| hash),
    })
}

fn dispatch(p: &Parts) -> Dispatch<'_> {
    Dispatch {
        token: p.token,
        worker: &p.names.0,
        in_process: p.flag,
        request_id: p.optional_text.as_deref(),
        term_ms: p.token.sequence,
        granted: WallMs(p.token.node),
        jobs: p.jobs.iter().map(|id| JobId(*id)).collect(),
    }
}

fn copied(p: &Parts) -> Record<'_> {
    Record::Copied(Copied {
        source: p.token.node,
        origin: p.token.sequence,
    })
}

/// One record of every kind.
fn records(p: &Parts) -> Vec<Record<'_>> {
    let error = p.optional_text.as_deref().map(|code| ErrorFields {
        code,
        message: &p.names.0,
        data: p.flag.then_some(p.data.as_slice()),
    });
    let submit = Submit {
        id: JobId(p.id),
        processor: &p.names.0,
        group: &p.names.1,
        priority: Priority::ALL[p.code % 3],
        data: &p.data,
        content_type: p.optional_text.as_deref(),
        key: p.optional_text.as_deref(),
        labels: p.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
        idempotency: p.key.map(|(scope, hash)| IdempotencyKey { scope, hash }),
        fingerprint: p.key.map_or(0, |(_, hash)| hash),
        client_id: p.flag,
        parent: p.key.map(|_| (JobId(p.id), p.counts.0)),
        traceparent: p.optional_text.as_deref(),
        ttl_ms: p.number,
        deadline: p.number.map(WallMs),
        run_at: p.number.map(WallMs),
        sequence: p.token.sequence,
        accepted: WallMs(p.token.node),
    };
    let dispatch = dispatch(p);
    let outcome = Outcome {
        id: JobId(p.id),
        end: [End::Ok, End::Error, End::Failed][p.code % 3],
        reason: REASONS[p.code % 6],
        token: p.key.map(|_| p.token),
        worker: p.optional_text.as_deref(),
        started: p.number.map(WallMs),
        finished: WallMs(p.token.node),
        attempts: p.counts.0,
        crashes: p.counts.1,
        result: &p.data,
        content_type: p.optional_text.as_deref(),
        error,
        children: p.counts.2,
        keep_ms: p.number,
    };
    let returned = Return {
        id: JobId(p.id),
        cause: CAUSES[p.code % 7],
        token: p.token,
        due: p.number.map(WallMs),
        written: p.number.map(|number| WallMs(number / 2)),
        alone: p.flag,
        attempts: p.counts.0,
        crashes: p.counts.1,
        error,
    };
    vec![
        Record::Submit(submit),
        Record::Dispatch(dispatch),
        Record::Delivered(p.token),
        Record::Outcome(outcome),
        Record::Return(returned),
        setting(p),
        ended(p),
        tries(p),
        copied(p),
    ]
}

/// Gives changed bytes a CRC that fits, so that a test reaches what is behind the CRC.
fn reseal(record: &mut [u8]) {
    let length = u32::try_from(record.len()).unwrap();
    record[..4].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(record);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

proptest! {
    #[test]
    fn every_record_reads_back_as_it_was_written(parts in parts()) {
        let mut bytes = Vec::new();
        let records = records(&parts);
        for record in &records {
            let start = bytes.len();
            record.encode(&mut bytes);
            prop_assert!(bytes.len() - start <= record.bytes_max());
        }
        let read: Vec<_> =
            Records::new(&bytes).map(|item| Record::decode(item.unwrap().1).unwrap()).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn any_bytes_decode_or_fail_but_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Records::new(&bytes).count();
        let _ = Record::decode(&bytes);
        if bytes.len() >= 12 {
            bytes[8] = 1 + bytes[8] % 9;
            bytes[9] = 1;
            bytes[11] = 0;
            reseal(&mut bytes);
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn a_changed_record_with_a_right_checksum_never_panics(
        parts in parts(), at in 8_usize..400, value in any::<u8>(), cut in 0_usize..60,
    ) {
        for record in records(&parts) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
            bytes.truncate((bytes.len() - cut.min(bytes.len())).max(12));
            reseal(&mut bytes);
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn one_flipped_bit_is_noticed(parts in parts(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        for record in records(&parts) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Record::decode(&bytes).is_err());
        }
    }
}

#[test]
fn tags_and_fixed_bytes_that_a_reader_does_not_know_are_skipped() {
    let mut bytes = Vec::new();
    let token = Token {
        node: 1,
        epoch: 2,
        sequence: 3,
    };
    Record::Delivered(token).encode(&mut bytes);
    bytes.extend_from_slice(&[0xAA; 3]);
    bytes[10..12].copy_from_slice(&23_u16.to_le_bytes());
    bytes.extend_from_slice(&[200, 2, 0, 0, 0, 9, 9]);
    reseal(&mut bytes);
    assert_eq!(Record::decode(&bytes), Ok(Record::Delivered(token)));
}

#[test]
fn a_record_of_a_newer_format_says_so() {
    let mut bytes = Vec::new();
    Record::Delivered(Token {
        node: 1,
        epoch: 2,
        sequence: 3,
    })
    .encode(&mut bytes);
    let mut newer_version = bytes.clone();
    newer_version[9] = 2;
    reseal(&mut newer_version);
    assert_eq!(
        Record::decode(&newer_version),
        Err(DecodeError::Newer { kind: 3, version: 2 })
    );
    bytes[8] = 77;
    reseal(&mut bytes);
    assert_eq!(
        Record::decode(&bytes),
        Err(DecodeError::Newer { kind: 77, version: 1 })
    );
}

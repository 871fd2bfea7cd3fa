//! What the fuzz targets call; each function panics where a promise does not hold. No part of the interface.

use std::io;

use crate::frame::{self, Reader, Slot};
use crate::ids::WallMs;
use crate::record::{Record, Records};
use crate::recovery::OpenError;
use crate::repair::plan;
use crate::segment::{FRAMES_AT, HEADER, segment_name};
use crate::storage::File;
use crate::testing::{Random, SimDisk};
use crate::time::{Mono, Now};
use crate::verify::verify;
use crate::{Log, Options};

/// When the logs of [`recovery`] are opened.
const NOW: Now = Now {
    mono: Mono(5_000_000),
    wall: WallMs(1_000_000),
};

/// Segments of one input at most.
const SEGMENTS_MAX: usize = 8;

/// Repairs with more empty frames than this are planned and not carried out.
const FRAMES_UNKNOWN_MAX: u64 = 1_000;

/// Reads frames and records at every place where one may stand: what is read can be written again as it was.
///
/// # Panics
/// If it cannot.
pub fn frames(bytes: &[u8]) {
    let file = Held(bytes.to_vec());
    let mut reader = Reader::new(&file).expect("bytes in memory have a length");
    let mut at = 0;
    while let Some((offset, epoch)) = reader
        .first_of_any_epoch(at)
        .expect("bytes in memory can be read")
    {
        if let Slot::Frame(read) = reader.frame(offset, epoch).expect("bytes in memory can be read") {
            let mut again = vec![0; frame::HEAD];
            again.extend_from_slice(read.records);
            let length = read.bytes;
            read.head.seal(&mut again);
            records(read.records);
            let start = usize::try_from(offset).expect("it is in memory");
            let end = start + usize::try_from(length).expect("it is in memory");
            // Padding is covered by the checksum, and nothing else says what it must be.
            let padding = (end - start) - (frame::HEAD + read.records.len());
            assert!(padding < 8);
            if bytes[end - padding..end].iter().all(|byte| *byte == 0)
                && bytes[start + 6..start + 8] == [0, 0]
            {
                assert_eq!(again, &bytes[start..end], "a frame is written as it was read");
            }
        }
        at = offset + 8;
    }
}

/// A record that decodes can be encoded, and decodes to itself.
fn records(bytes: &[u8]) {
    for (_, bytes) in Records::new(bytes).flatten() {
        let Ok(record) = Record::decode(bytes) else {
            continue;
        };
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(Record::decode(&again).as_ref(), Ok(&record));
    }
}

/// Plants segments and starts from them: a directory opens if and only if `verify` finds no damage; a repair makes it
/// one that opens, and keeps as many jobs as it said.
///
/// The first byte says whether checksums are made to fit; then come segments: a byte for the number, two for the
/// length, and what is in it.
///
/// # Panics
/// If one of that does not hold.
pub fn recovery(bytes: &[u8]) {
    let Some(disk) = plant(bytes) else { return };
    let copy = plant(bytes).expect("it was planted before");
    let mended = plant(bytes).expect("it was planted before");
    let verdict = verify(&disk);
    match (&verdict, open(&copy)) {
        (Ok(verdict), Ok(_)) => assert_eq!(verdict.damages, [], "it opens, so nothing is damaged"),
        (Ok(verdict), Err(OpenError::Damaged(damage))) => {
            assert_eq!(
                verdict.damages.first(),
                Some(&damage),
                "both name the same damage first"
            );
        }
        (Err(OpenError::Newer { .. }), Err(_)) | (Ok(_), Err(OpenError::Newer { .. })) => return,
        (verdict, opened) => panic!("verify says {verdict:?}, a start {opened:?}"),
    }
    let mut random = Random(7);
    let Ok(plan) = plan(&mended, &mut || random.next()) else {
        return;
    };
    assert_eq!(
        plan.is_empty(),
        verdict.is_ok_and(|verdict| verdict.damages.is_empty())
    );
    // Millions of empty frames say no more than thousands, and take seconds.
    if plan.jobs.frames_unknown > FRAMES_UNKNOWN_MAX {
        return;
    }
    plan.carry_out(&mended).expect("the simulated disk has room");
    assert_eq!(
        verify(&mended).map(|verdict| verdict.damages).ok(),
        Some(Vec::new()),
        "{plan:?}"
    );
    let unsettled = open(&mended).expect("a repaired log opens");
    if !plan.is_empty() {
        assert_eq!(
            unsettled, plan.jobs.unsettled,
            "as many jobs stay as were said to"
        );
    }
}

fn open(disk: &SimDisk) -> Result<u64, OpenError> {
    let mut random = Random(9);
    let options = Options {
        segment_bytes: 32 << 10,
        group_bytes_max: 8 << 10,
        frame_bytes_max: 16 << 10,
        cache_bytes: 4 << 10,
        ..Options::default()
    };
    let source = Box::new(move || random.next());
    Log::open(disk.clone(), options, source, NOW).map(|opened| opened.report.unsettled)
}

fn plant(bytes: &[u8]) -> Option<SimDisk> {
    let (seals, mut rest) = bytes.split_first()?;
    let disk = SimDisk::new();
    for _ in 0..SEGMENTS_MAX {
        let Some(([number, length @ ..], content)) = rest.split_first_chunk::<3>() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes(*length)).min(content.len());
        let (content, behind) = content.split_at(length);
        rest = behind;
        let mut content = content.to_vec();
        if seals & 1 == 1 {
            seal(&mut content);
        }
        disk.plant(&segment_name(u64::from(*number)), &content);
    }
    Some(disk)
}

/// Makes the checksums of a segment fit: of the header, and of each frame and record that may be one. So that what
/// a fuzzer changes is read, and not only refused.
pub fn seal(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..HEADER) {
        let crc = crc32c::crc32c(&header[..HEADER - 4]);
        header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    let mut at = usize::try_from(FRAMES_AT).unwrap_or(HEADER);
    while at + frame::HEAD <= bytes.len() {
        let frame = &mut bytes[at..];
        let length = frame[32..]
            .first_chunk()
            .map_or(0, |length| u32::from_le_bytes(*length));
        let end = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(frame::HEAD)
            .next_multiple_of(8);
        if &frame[..4] != b"JOBF" || end > frame.len() {
            at += 8;
            continue;
        }
        seal_records(&mut frame[frame::HEAD..end]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..36]), &frame[frame::HEAD..end]);
        frame[36..40].copy_from_slice(&crc.to_le_bytes());
        at += end;
    }
}

fn seal_records(mut bytes: &mut [u8]) {
    while let Some(length) = bytes.first_chunk().map(|length| u32::from_le_bytes(*length)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < 12 || length > bytes.len() {
            return;
        }
        let (record, rest) = bytes.split_at_mut(length);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes = rest;
    }
}

/// A file of fixed bytes.
struct Held(Vec<u8>);

impl File for Held {
    fn len(&self) -> io::Result<u64> {
        u64::try_from(self.0.len()).map_err(io::Error::other)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| self.0.get(start..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input that is kept, the seeds and those that once failed.
    fn replay(target: &str, run: impl Fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/corpus")
            .join(target);
        let mut inputs: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(inputs.len() >= 2, "{target} has its seeds");
        for input in inputs {
            eprintln!("{}", input.display());
            run(&std::fs::read(input).unwrap());
        }
    }

    #[test]
    fn kept_inputs_of_frames_hold() {
        replay("frame", |bytes| {
            frames(bytes);
            let mut bytes = bytes.to_vec();
            seal(&mut bytes);
            frames(&bytes);
        });
    }

    #[test]
    fn kept_inputs_of_recovery_hold() {
        replay("recovery", recovery);
    }
}

//! Copying forward: what is live in a segment that holds little else goes to the cold stream, and the segment goes.
//!
//! One segment at a time, a piece at a time: a chore reads some frames; the log, which alone knows what is live, takes
//! what must stay out of them; the next chore writes and syncs that, and reads on. Only then do the index's places
//! move. When all is copied a closing frame is written and synced, and only then does the segment go.
//!
//! Until the segment is gone the copies do not count (see docs/log_format.md section 6), so a crash at any point leaves
//! each record once. A copy keeps its place in the order of the log, which is that of its hot segment; what is left out
//! changes nothing that a reader in that order concludes.

mod judge;
mod work;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) use work::CopyWork;

use judge::judge_record;
use work::{Chunk, ChunkEnd, Read, Write};

use super::tries::Fold;
use super::{Log, Segment, Spare};
use crate::frame::{self, Head, Kind};
use crate::hash::Seed;
use crate::ids::{JobId, Token};
use crate::index::Place;
use crate::mutants::{Mutant, active};
use crate::record::{Copied, Record, Records};
use crate::segment::{FRAMES_AT, Header, RESERVE_BYTES, Stream, segment_name};
use crate::storage::{File, Storage};
use crate::time::Mono;

/// How much is read, judged and written at once: a bound on what one turn of the log's owner takes.
const CHUNK_BYTES: usize = 256 << 10;

/// How many records are judged at once, for the same reason: small jobs come in many to a chunk.
const RECORDS_AT_ONCE: usize = 2_000;

/// How long after a write found no room the next try comes, microseconds.
const RETRY_US: u64 = 1_000_000;

/// The cold stream, and the copy that is under way.
pub(super) struct Copying<F> {
    next_lsn: u64,
    /// The highest LSN that every start will keep.
    kept_lsn: u64,
    tail: Option<ColdTail<F>>,
    run: Option<Run<F>>,
    /// A closing frame has no witness yet.
    mark_due: bool,
    retry_at: Option<Mono>,
}

struct ColdTail<F> {
    first_lsn: u64,
    slot: u32,
    file: Arc<F>,
    epoch: u64,
    offset: u64,
}

/// One segment on its way.
struct Run<F> {
    source: u32,
    number: u64,
    file: Arc<F>,
    epoch: u64,
    stream: Stream,
    /// Where the records that are being judged belong.
    origin: u64,
    /// Where the next chunk is read.
    offset: u64,
    chunk: Option<Chunk>,
    /// Frames to be written, in order.
    out: VecDeque<Out>,
    fold: Fold,
    /// The leases whose dispatch was seen.
    seen: HashSet<Token, Seed>,
    read_all: bool,
    folded: bool,
    /// A frame of it is written, or will be.
    wrote: bool,
    /// Its first frame is in the cold segment.
    begun: bool,
    closed: bool,
}

/// A frame that is being made.
pub(super) struct Out {
    frame: Vec<u8>,
    moves: Vec<Move>,
    /// Bytes and jobs of dispatches and returns.
    facts: (u64, u64),
}

/// A record's old place, and where it starts in the new frame.
struct Move {
    what: What,
    from: Place,
    at: usize,
    bytes: u32,
}

#[derive(Clone, Copy)]
enum What {
    Submit(JobId),
    Outcome(JobId),
    End(JobId),
    Setting,
}

/// What the answer to a chore of the copy is about.
pub(super) enum CopyDone<F> {
    Begun {
        spare: Spare<F>,
        name: String,
        number: u64,
        epoch: u64,
        sealed: bool,
    },
    Piece {
        wrote: Wrote,
        chunk: Option<Arc<Mutex<Option<Chunk>>>>,
    },
}

/// What is to be done, and what follows from it.
pub(super) type Due<F> = (CopyWork<F>, CopyDone<F>);

/// What a piece wrote.
pub(super) enum Wrote {
    Nothing,
    Frames(Vec<(u64, Out)>),
    Close,
    Mark,
}

impl<F> Copying<F> {
    pub(super) const fn new(next_lsn: u64) -> Self {
        Self {
            next_lsn,
            kept_lsn: next_lsn - 1,
            tail: None,
            run: None,
            mark_due: false,
            retry_at: None,
        }
    }

    /// The segment that copies go to.
    pub(super) fn tail_slot(&self) -> Option<u32> {
        self.tail.as_ref().map(|tail| tail.slot)
    }

    /// The segment is gone; if copies went to it, the next one begins another.
    pub(super) fn segment_gone(&mut self, slot: u32) {
        if self.tail_slot() == Some(slot) {
            self.tail = None;
            self.mark_due = false;
            self.kept_lsn = self.next_lsn - 1;
        }
    }

    /// Whether every start will keep the segment that copies go to.
    pub(super) fn tail_is_kept(&self) -> bool {
        self.tail
            .as_ref()
            .is_some_and(|tail| self.kept_lsn >= tail.first_lsn)
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.run.is_some()
    }

    /// When the next turn is due, if nothing of it is under way.
    pub(super) fn next_timer(&self, now: Mono) -> Option<Mono> {
        let judging = self.run.as_ref().is_some_and(|run| run.chunk.is_some());
        self.retry_at.or_else(|| judging.then_some(now))
    }

    /// The segment whose copy is closed: it may go.
    pub(super) fn copied(&self) -> Option<u32> {
        let run = self.run.as_ref()?;
        if active(Mutant::SourceGoesEarly) && run.begun {
            return Some(run.source);
        }
        (run.closed || (run.folded && run.out.is_empty() && !run.wrote)).then_some(run.source)
    }

    pub(super) fn found_full(&mut self, now: Mono) {
        self.retry_at = Some(Mono(now.0 + RETRY_US));
    }
}

impl<F> Run<F> {
    fn out(&mut self) -> &mut Out {
        if self
            .out
            .back()
            .is_none_or(|out| out.frame.len() >= CHUNK_BYTES || out.moves.len() >= RECORDS_AT_ONCE)
        {
            self.push_out();
        }
        self.out.back_mut().expect("a frame was pushed if there was none")
    }

    fn push_out(&mut self) {
        let mut frame = vec![0; frame::HEAD];
        Record::Copied(Copied {
            source: self.number,
            origin: self.origin,
        })
        .encode(&mut frame);
        self.out.push_back(Out {
            frame,
            moves: Vec::new(),
            facts: (0, 0),
        });
    }

    fn whole(&mut self, what: What, from: Place, bytes: &[u8]) {
        let out = self.out();
        let at = out.frame.len();
        out.frame.extend_from_slice(bytes);
        out.moves.push(Move {
            what,
            from,
            at,
            bytes: from.bytes,
        });
    }

    fn encoded(&mut self, what: What, from: Place, record: &Record<'_>) {
        let out = self.out();
        let at = out.frame.len();
        record.encode(&mut out.frame);
        let bytes = u32::try_from(out.frame.len() - at).expect("a copy is no longer than its original");
        out.moves.push(Move {
            what,
            from,
            at,
            bytes,
        });
    }

    fn fact(&mut self, bytes: &[u8], jobs: u64) {
        let out = self.out();
        out.frame.extend_from_slice(bytes);
        out.facts.0 += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        out.facts.1 += jobs;
    }
}

impl<S: Storage> Log<S> {
    /// Begins to copy a segment.
    pub(super) fn begin_copy(&mut self, source: u32) {
        let Some(segment) = self.segments.get(source) else {
            return;
        };
        let seed = Seed((self.random)());
        self.index.live.begin_copy(source);
        self.copying.run = Some(Run {
            source,
            number: segment.number,
            file: Arc::clone(&segment.file),
            epoch: segment.epoch,
            stream: segment.stream,
            origin: segment.first_lsn,
            offset: FRAMES_AT,
            chunk: None,
            out: VecDeque::new(),
            fold: Fold::new(seed),
            seen: HashSet::with_hasher(seed),
            read_all: false,
            folded: false,
            // A cold segment says that hot ones may be gone: the first copy makes it even if nothing must stay.
            wrote: self.copying.tail.is_none(),
            begun: false,
            closed: false,
        });
    }

    /// The next piece of work of the copy, if one is due.
    pub(super) fn copy_work(&mut self) -> Option<Due<S::File>> {
        if self.copying.retry_at.is_some_and(|at| at > self.now.mono) {
            return None;
        }
        self.copying.retry_at = None;
        if self.copying.run.is_none() {
            return self.mark_work();
        }
        self.judge();
        let run = self.copying.run.as_ref()?;
        if run.chunk.is_some() && run.out.is_empty() {
            // Nothing of so many records stays: the timer asks for the next turn.
            return None;
        }
        if run.closed || self.copying.copied().is_some() {
            return None;
        }
        if (!run.out.is_empty() || (run.wrote && run.folded)) && !self.has_cold_room() {
            return self.begin_cold();
        }
        self.piece()
    }

    /// The segment that was copied is gone.
    pub(super) fn copy_done(&mut self) {
        let wrote = self.copying.run.take().is_some_and(|run| run.wrote);
        self.copying.mark_due |= wrote;
        self.index.live.end_copy();
    }

    /// The answer to a chore of the copy.
    pub(super) fn copy_piece_done(&mut self, done: CopyDone<S::File>) {
        match done {
            CopyDone::Begun {
                spare,
                name,
                number,
                epoch,
                sealed,
            } => self.cold_begun(spare, name, number, epoch, sealed),
            CopyDone::Piece { wrote, chunk } => {
                match wrote {
                    Wrote::Nothing => {}
                    Wrote::Frames(frames) => self.frames_copied(frames),
                    Wrote::Close => {
                        self.cold_written(frame::HEAD + COPIED_BYTES);
                        self.copying.kept_lsn = self.copying.next_lsn - 1;
                        if let Some(run) = &mut self.copying.run {
                            run.closed = true;
                        }
                    }
                    Wrote::Mark => {
                        self.cold_written(frame::HEAD);
                        self.copying.kept_lsn = self.copying.next_lsn - 1;
                        self.copying.mark_due = false;
                    }
                }
                self.take_chunk(chunk);
            }
        }
    }

    /// A chore of the copy found no room: it is tried again later.
    pub(super) fn copy_found_full(&mut self, done: CopyDone<S::File>) {
        self.copying.found_full(self.now.mono);
        match done {
            CopyDone::Begun { spare, .. } => self.spares.put(spare),
            CopyDone::Piece { wrote, .. } => {
                if let (Wrote::Frames(frames), Some(run)) = (wrote, &mut self.copying.run) {
                    for (_, out) in frames.into_iter().rev() {
                        run.out.push_front(out);
                    }
                }
            }
        }
    }

    fn take_chunk(&mut self, chunk: Option<Arc<Mutex<Option<Chunk>>>>) {
        let chunk = chunk.and_then(|chunk| chunk.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (Some(chunk), Some(run)) = (chunk, &mut self.copying.run) else {
            return;
        };
        if chunk.end == ChunkEnd::Damage {
            let source = run.source;
            self.copying.run = None;
            self.index.live.end_copy();
            // What was copied of it does not count while it is there, and the next start names the damage.
            if let Some(segment) = self.segments.get_mut(source) {
                segment.stays = true;
            }
            return;
        }
        run.offset = chunk.next_offset;
        run.chunk = Some(chunk);
    }

    /// Takes out of the chunk what must stay.
    fn judge(&mut self) {
        let Some(run) = &mut self.copying.run else { return };
        let mut left = RECORDS_AT_ONCE;
        while let Some(chunk) = &mut run.chunk {
            let Some((records_at, records)) = chunk.frames.pop_front() else {
                run.read_all = chunk.end == ChunkEnd::End;
                run.chunk = None;
                break;
            };
            let start = std::mem::take(&mut chunk.judged);
            let mut at = start;
            for (offset, bytes) in Records::new(&records[start..]).flatten() {
                at = start + offset + bytes.len();
                let place = Place {
                    slot: run.source,
                    offset: u32::try_from(records_at).unwrap_or(u32::MAX)
                        + u32::try_from(start + offset).unwrap_or(u32::MAX),
                    bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                };
                judge_record(&self.index, &self.settings, run, place, bytes);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            if at < records.len() && left == 0 {
                let chunk = run.chunk.as_mut().expect("it was there a moment ago");
                chunk.judged = at;
                chunk.frames.push_front((records_at, records));
            }
            if left == 0 {
                break;
            }
        }
        if run.read_all && !run.folded {
            run.folded = true;
            let fold = std::mem::replace(&mut run.fold, Fold::new(Seed(0)));
            let facts = fold.finish();
            let mut jobs = facts.jobs;
            for (_, bytes) in Records::new(&facts.records).flatten() {
                run.fact(bytes, std::mem::take(&mut jobs));
            }
        }
        run.out.retain(|out| !out.moves.is_empty() || out.facts.0 > 0);
    }

    fn piece(&mut self) -> Option<Due<S::File>> {
        let run = self.copying.run.as_mut()?;
        let read = (!run.read_all && run.chunk.is_none()).then(|| Read {
            file: Arc::clone(&run.file),
            epoch: run.epoch,
            offset: run.offset,
            chunk: Arc::default(),
        });
        let chunk = read.as_ref().map(|read| Arc::clone(&read.chunk));
        if !run.out.is_empty() {
            let outs = std::mem::take(&mut run.out);
            (run.wrote, run.begun) = (true, true);
            let (write, frames) = self.seal(outs)?;
            let work = CopyWork::Piece {
                write: Some(write),
                read,
            };
            let wrote = Wrote::Frames(frames);
            return Some((work, CopyDone::Piece { wrote, chunk }));
        }
        if read.is_some() {
            let work = CopyWork::Piece { write: None, read };
            let wrote = Wrote::Nothing;
            return Some((work, CopyDone::Piece { wrote, chunk }));
        }
        if !run.folded {
            return None;
        }
        let source = run.number;
        let write = self.lone_frame(Kind::Copy, |frame| {
            Record::Copied(Copied { source, origin: 0 }).encode(frame);
        })?;
        let work = CopyWork::Piece {
            write: Some(write),
            read: None,
        };
        let (wrote, chunk) = (Wrote::Close, None);
        Some((work, CopyDone::Piece { wrote, chunk }))
    }

    /// The witness of the last closing frame.
    fn mark_work(&mut self) -> Option<Due<S::File>> {
        if !self.copying.mark_due {
            return None;
        }
        let write = self.lone_frame(Kind::Mark, |_| ())?;
        let work = CopyWork::Piece {
            write: Some(write),
            read: None,
        };
        let (wrote, chunk) = (Wrote::Mark, None);
        Some((work, CopyDone::Piece { wrote, chunk }))
    }

    fn lone_frame(&mut self, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> Option<Write<S::File>> {
        let tail = self.copying.tail.as_ref()?;
        let mut frame = vec![0; frame::HEAD];
        fill(&mut frame);
        Head {
            kind,
            epoch: tail.epoch,
            lsn: self.copying.next_lsn,
            durable_lsn: self.copying.kept_lsn,
        }
        .seal(&mut frame);
        Some(Write {
            file: Arc::clone(&tail.file),
            offset: tail.offset,
            bytes: Arc::new(frame),
        })
    }

    /// Makes one write of frames; each with its offset.
    #[expect(clippy::type_complexity, reason = "a write and what it is made of")]
    fn seal(&mut self, outs: VecDeque<Out>) -> Option<(Write<S::File>, Vec<(u64, Out)>)> {
        let tail = self.copying.tail.as_ref()?;
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        for (index, out) in (0..).zip(outs) {
            let at = tail.offset + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let start = bytes.len();
            let mut sealed = out.frame.clone();
            Head {
                kind: Kind::Group,
                epoch: tail.epoch,
                lsn: self.copying.next_lsn + index,
                // Nothing of this copy counts before it is closed, so nothing of it is a witness.
                durable_lsn: self.copying.kept_lsn,
            }
            .seal(&mut sealed);
            bytes.extend_from_slice(&sealed);
            debug_assert!(bytes.len() > start, "a frame has a head");
            frames.push((at, out));
        }
        let write = Write {
            file: Arc::clone(&tail.file),
            offset: tail.offset,
            bytes: Arc::new(bytes),
        };
        Some((write, frames))
    }

    /// Order is law: the copies are synced, then the places move.
    fn frames_copied(&mut self, frames: Vec<(u64, Out)>) {
        let Some(slot) = self.copying.tail_slot() else {
            return;
        };
        for (offset, out) in frames {
            let base = u32::try_from(offset).expect("segments are shorter than 4 GiB");
            for Move {
                what,
                from,
                at,
                bytes,
            } in &out.moves
            {
                let place = Place {
                    slot,
                    offset: base + u32::try_from(*at).expect("a frame is shorter than a segment"),
                    bytes: *bytes,
                };
                match what {
                    What::Submit(_) if active(Mutant::KeepOldPlace) => {}
                    What::Submit(id) => self.index.submit_copied(*id, *from, place),
                    What::Outcome(id) => self.index.outcome_copied(*id, *from, place),
                    What::End(id) => self.index.end_copied(*id, from.slot, slot),
                    What::Setting => {
                        let end = at + usize::try_from(*bytes).expect("a record is in memory");
                        if let Ok(Record::Setting(setting)) = Record::decode(&out.frame[*at..end]) {
                            self.settings.apply(&setting, slot, &mut self.index.live);
                        }
                    }
                }
            }
            let (fact_bytes, jobs) = out.facts;
            if fact_bytes > 0 {
                self.index.live.facts_copied(slot, fact_bytes, jobs);
            }
            let moved: u64 = out.moves.iter().map(|moved| u64::from(moved.bytes)).sum();
            if let Some(segment) = self.segments.get_mut(slot) {
                segment.copied = segment.copied.map(|bytes| bytes + moved + fact_bytes);
            }
            self.cold_written(out.frame.len());
        }
    }

    /// One more frame is in the cold segment.
    fn cold_written(&mut self, frame_bytes: usize) {
        self.copying.next_lsn += 1;
        let Some(tail) = &mut self.copying.tail else {
            return;
        };
        let bytes = frame_bytes.next_multiple_of(frame::ALIGN);
        tail.offset += u64::try_from(bytes).unwrap_or(u64::MAX);
        let (slot, offset) = (tail.slot, tail.offset);
        if let Some(segment) = self.segments.get_mut(slot) {
            segment.bytes = segment.bytes.max(offset);
        }
    }

    /// Whether the cold segment can take the rest of this copy. A copy lies in one segment, which grows if what it
    /// takes was judged too low.
    fn has_cold_room(&self) -> bool {
        let (Some(tail), Some(run)) = (&self.copying.tail, &self.copying.run) else {
            return false;
        };
        if run.begun {
            return true;
        }
        let queued: usize = run.out.iter().map(|out| out.frame.len()).sum();
        let queued = u64::try_from(queued).unwrap_or(u64::MAX);
        let live = self.index.live.bytes(run.source);
        let needed = (live + live / 8).max(queued) + RESERVE_BYTES;
        tail.offset == FRAMES_AT || tail.offset + needed <= self.options.segment_bytes
    }

    /// Seals the cold segment and begins another, in whatever spare there is: what is copied gives one back.
    fn begin_cold(&mut self) -> Option<Due<S::File>> {
        let spare = self.spares.take()?;
        let end = self.copying.tail.as_ref().map(|tail| {
            let head = Head {
                kind: Kind::End,
                epoch: tail.epoch,
                lsn: self.copying.next_lsn,
                durable_lsn: self.copying.next_lsn - 1,
            };
            Write {
                file: Arc::clone(&tail.file),
                offset: tail.offset,
                bytes: Arc::new(head.empty_frame()),
            }
        });
        let number = self.identity.next_number;
        self.identity.next_number += 1;
        let epoch = (self.random)();
        let sealed = end.is_some();
        let header = Header {
            stream: Stream::Cold,
            boot: self.identity.boot,
            number,
            epoch,
            first_lsn: self.copying.next_lsn + u64::from(sealed),
            replaces: 0,
            node: self.identity.node,
            sequence: self.identity.last_sequence,
            file_bytes: spare.file.len().unwrap_or(0),
        };
        let name = segment_name(number);
        let work = CopyWork::Begin {
            end,
            file: Arc::clone(&spare.file),
            from: spare.name.clone(),
            to: name.clone(),
            header: Box::new(header.encode()),
        };
        let done = CopyDone::Begun {
            spare,
            name,
            number,
            epoch,
            sealed,
        };
        Some((work, done))
    }

    fn cold_begun(&mut self, spare: Spare<S::File>, name: String, number: u64, epoch: u64, sealed: bool) {
        self.copying.next_lsn += u64::from(sealed);
        if sealed {
            self.copying.kept_lsn = self.copying.next_lsn - 1;
            self.copying.mark_due = false;
        }
        let bytes = spare.file.len().unwrap_or(self.options.segment_bytes);
        let slot = self.segments.push(Segment {
            name,
            number,
            epoch,
            stream: Stream::Cold,
            first_lsn: self.copying.next_lsn,
            file: Arc::clone(&spare.file),
            bytes,
            copied: Some(0),
            stays: false,
        });
        self.index.live.add_segment();
        self.copying.tail = Some(ColdTail {
            first_lsn: self.copying.next_lsn,
            slot,
            file: spare.file,
            epoch,
            offset: FRAMES_AT,
        });
    }
}

/// A [`Copied`] record.
const COPIED_BYTES: usize = 12 + 16;

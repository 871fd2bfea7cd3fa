//! One child process: its pipes, its signals, its end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::line;
use super::lines::{Line, LineReader, TooLong};
use super::orphans;
use super::stderr::{self, LastWords};
use crate::client::{Batch, LeasedJob};
use crate::job::JobId;
use crate::worker::engine::Stop;

/// An outcome line: a result of `max_body_bytes` (16 MiB) with its children, in base64, and something over.
const OUTCOME_BYTES_MAX: usize = 24 << 20;

/// So much is encoded ahead of the pipe: what one write takes.
const AHEAD_BYTES: usize = 64 << 10;

/// A protocol error shows so much of its line.
const SHOWN_BYTES_MAX: usize = 1024;

/// Between SIGTERM and SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// After a child's end its pipes may be held open by children of its own: so long is read on.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to run, and under which name.
#[derive(Debug)]
pub(super) struct Program {
    /// The program and its arguments; never empty.
    pub(super) words: Vec<String>,
    /// The worker's name, for the log.
    pub(super) worker: String,
}

impl Program {
    /// The program, as it was written.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// For the callers of a batch: how its child ended, and where to look for more.
    pub(super) fn died(&self, how: &str, batch: &str) -> String {
        format!("{how} (worker `{}`, batch `{batch}`)", self.worker)
    }
}

/// How much a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Batch after batch.
    Long,
    /// One batch: its standard input ends after it.
    OneBatch,
}

/// A running program.
#[derive(Debug)]
pub(super) struct Child {
    program: Arc<Program>,
    /// Which of the worker's children it is, from 1.
    number: usize,
    process: tokio::process::Child,
    pid: Option<u32>,
    /// `None`: closed.
    input: Option<ChildStdin>,
    /// The child's end of standard input, where that closes before its death: what is unread can then be counted
    /// here only.
    witness: Option<OwnedFd>,
    feed: Feed,
    /// Bytes of its batch that were written.
    given: u64,
    /// It ended, or read no more, with all of them unread.
    untouched: bool,
    started: Instant,
    /// Standard input closes as soon as the feed is empty.
    closing: bool,
    output: LineReader<ChildStdout>,
    /// Relays standard error.
    relay: JoinSet<()>,
    words: LastWords,
    exit: Option<ExitStatus>,
    /// Standard output ended.
    output_ended: bool,
    /// When force, or more of it, is used.
    force_at: Option<(Instant, Signal)>,
    /// When the last words are over.
    silent_at: Option<Instant>,
}

/// What a child did next.
#[derive(Debug)]
pub(super) enum Next {
    /// It wrote a line.
    Line(Line),
    /// It read the last of what it was given, or reads no more.
    Fed,
    /// It ended, and all that it wrote has been read.
    Ended,
}

/// Lines on their way to a child.
#[derive(Debug, Default)]
struct Feed {
    /// Encoded, whole lines.
    buffer: Vec<u8>,
    /// How much of it is written.
    written: usize,
    waiting: VecDeque<LeasedJob>,
}

impl Child {
    /// Starts the program.
    pub(super) fn start(program: &Arc<Program>, number: usize, life: Life) -> io::Result<Self> {
        let (first, arguments) = program
            .words
            .split_first()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let (reader, writer) = io::pipe()?;
        // Held for a long life it would hide from a writer that nobody reads any more.
        let witness = match life {
            Life::OneBatch => Some(OwnedFd::from(reader.try_clone()?)),
            Life::Long => None,
        };
        let mut command = Command::new(first);
        command
            .args(arguments)
            .stdin(Stdio::from(reader))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C in a terminal reaches jitney alone, and a signal reaches its children too.
            .process_group(0)
            .kill_on_drop(true);
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            // Into a pipe Python writes its outcomes once it has 8 KiB of them; nobody may be waiting that long.
            command.env("PYTHONUNBUFFERED", "1");
        }
        let mut process = orphans::spawn(&mut command)?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let output = process.stdout.take().ok_or_else(missing)?;
        let errors = process.stderr.take().ok_or_else(missing)?;
        let input = ChildStdin::from_std(OwnedFd::from(writer).into())?;
        let words = LastWords::default();
        let mut relay = JoinSet::new();
        relay.spawn(stderr::relay(errors, Arc::clone(program), number, words.clone()));
        info!(
            worker = program.worker,
            child = number,
            pid = process.id(),
            program = first,
            "child started"
        );
        Ok(Self {
            program: Arc::clone(program),
            number,
            pid: process.id(),
            process,
            input: Some(input),
            witness,
            feed: Feed::default(),
            given: 0,
            untouched: false,
            started: Instant::now(),
            closing: false,
            output: LineReader::new(output, OUTCOME_BYTES_MAX, TooLong::Cut),
            relay,
            words,
            exit: None,
            output_ended: false,
            force_at: None,
            silent_at: None,
        })
    }

    /// Whether it lives, reads, and has read all that it was given.
    pub(super) fn is_ready(&mut self) -> bool {
        let lives = self.exit.is_none() && matches!(self.process.try_wait(), Ok(None));
        lives && self.input.is_some() && self.feed.is_empty() && !self.output_ended
    }

    /// Whether it has not been given all of its lines.
    pub(super) fn is_behind(&self) -> bool {
        self.input.is_some() && !self.feed.is_empty()
    }

    /// Whether it has begun a line and not ended it, as far as was read.
    pub(super) const fn is_mid_line(&self) -> bool {
        self.output.is_mid_line()
    }

    /// Begins to write a batch.
    pub(super) fn give(&mut self, batch: &mut Batch) {
        self.words.begin(&batch.batch);
        (self.given, self.untouched) = (0, false);
        line::write_header(batch, &mut self.feed.buffer);
        self.feed.waiting = std::mem::take(&mut batch.jobs).into();
    }

    /// Writes no further line, and closes standard input once the line that is begun is through.
    pub(super) fn end_input(&mut self) {
        self.feed.stop();
        self.closing = true;
        if self.feed.is_empty() {
            self.input = None;
        }
    }

    /// Closes standard input once all that it was given is through.
    pub(super) fn end_input_after_batch(&mut self) {
        self.closing = true;
    }

    /// The code that it exited with; `None` if it did not, or a signal killed it.
    pub(super) fn exit_code(&self) -> Option<i32> {
        self.exit.and_then(|exit| exit.code())
    }

    /// Whether it ended before it read a byte of its batch: none of these jobs can have killed it.
    pub(super) const fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// How long ago it was started.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks it to end, and makes it end if it does not.
    pub(super) fn terminate(&mut self) {
        if self.force_at.is_none_or(|(_, signal)| signal != Signal::KILL) {
            self.signal(Signal::TERM);
            self.force_at = Some((Instant::now() + KILL_AFTER, Signal::KILL));
        }
    }

    /// What it does next; meanwhile writes what it is given. Cancel-safe: all that is begun stays here.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if self.exit.is_some() && self.output_ended {
                return Next::Ended;
            }
            self.feed.encode();
            let force_at = self.force_at.map(|(at, _)| at);
            tokio::select! {
                line = self.output.next(), if !self.output_ended => match line {
                    Ok(Some(line)) => return Next::Line(line),
                    Ok(None) | Err(_) => {
                        self.output_ended = true;
                        // One that says no more is as good as dead; most are.
                        self.force_at.get_or_insert((Instant::now() + LAST_WORDS, Signal::TERM));
                    }
                },
                written = write(&mut self.input, &self.feed) => {
                    self.wrote(written);
                    if !self.is_behind() {
                        return Next::Fed;
                    }
                }
                exit = self.process.wait(), if self.exit.is_none() => {
                    // It fails only for a process that somebody else waited for.
                    self.exit = Some(exit.unwrap_or_default());
                    orphans::waited_for(self.pid);
                    self.close_input();
                    self.force_at = None;
                    self.silent_at = Some(Instant::now() + LAST_WORDS);
                },
                () = until(force_at) => self.force(),
                () = until(self.silent_at) => self.output_ended = true,
            }
        }
    }

    fn wrote(&mut self, written: io::Result<usize>) {
        match written {
            Ok(bytes) if bytes > 0 => {
                self.feed.advance(bytes);
                self.given += u64::try_from(bytes).unwrap_or(u64::MAX);
            }
            // It reads no more; what it still says counts.
            _ => self.close_input(),
        }
        if self.closing && self.feed.is_empty() {
            self.input = None;
        }
    }

    /// Nobody reads any more: what is unread now stays so. A pipe is read in its order, and the batch is the last that
    /// was written: it was not touched if as much is left as it has.
    fn close_input(&mut self) {
        let pipe: Option<BorrowedFd<'_>> = match (&self.witness, &self.input) {
            (Some(witness), _) => Some(witness.as_fd()),
            (None, input) => input.as_ref().map(AsFd::as_fd),
        };
        if let Some(pipe) = pipe {
            // Where a system cannot count it, the batch passes for read.
            self.untouched = ioctl_fionread(pipe).is_ok_and(|unread| unread >= self.given);
        }
        self.input = None;
    }

    fn force(&mut self) {
        let Some((_, signal)) = self.force_at.take() else {
            return;
        };
        if signal == Signal::TERM {
            self.terminate();
        } else {
            warn!(worker = self.program.worker, child = self.number, "child killed");
            self.signal(Signal::KILL);
        }
    }

    /// To the child and the processes of its group. Only while the child is not waited for, so that the
    /// number is still its own.
    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It fails only if all of them are gone.
            kill_process_group(pid, signal).ok();
        }
    }

    /// How it ended, for people.
    pub(super) fn epitaph(&self) -> String {
        let program = self.program.name();
        match self.exit.map(|exit| (exit.code(), exit.signal())) {
            Some((Some(code), _)) => format!("`{program}` exited with code {code}"),
            Some((None, Some(signal))) => format!("`{program}` was killed by signal {signal}"),
            _ => format!("`{program}` ended"),
        }
    }

    /// The same for the callers of this batch, with where to look for more.
    pub(super) fn died(&self, batch: &str) -> String {
        self.program.died(&self.epitaph(), batch)
    }

    /// Logs a line that says nothing that the protocol knows.
    pub(super) fn protocol_error(&self, line: &Line, reason: &dyn std::fmt::Display) {
        let shown = &line.bytes[..line.bytes.len().min(SHOWN_BYTES_MAX)];
        warn!(
            worker = self.program.worker,
            child = self.number,
            %reason,
            line = %String::from_utf8_lossy(shown),
            bytes = line.bytes.len(),
            "protocol error"
        );
    }

    /// Logs that it has said nothing of its batch for long.
    pub(super) fn silent(&self, batch: &str, open_jobs: usize, other_lines: u64) {
        warn!(
            worker = self.program.worker,
            child = self.number,
            batch,
            open_jobs,
            other_lines,
            "no outcome from the child for 30 s: does it flush its output after each line?"
        );
    }

    /// Logs that an error is sent otherwise than the child wrote it.
    pub(super) fn mended(&self, batch: &str, job: Option<JobId>, wrong: Option<String>) {
        if let Some(wrong) = wrong {
            warn!(
                worker = self.program.worker,
                child = self.number,
                batch,
                job = job.map(tracing::field::display),
                wrong,
                "an error was mended"
            );
        }
    }

    /// Lets it end by itself until `stop` aborts, then makes it.
    pub(super) async fn end(mut self, stop: &Stop) {
        self.end_input();
        let mut aborted = false;
        loop {
            tokio::select! {
                next = self.next() => match next {
                    Next::Line(line) => self.unexpected(&line),
                    Next::Fed => {}
                    Next::Ended => break,
                },
                () = stop.abort.cancelled(), if !aborted => {
                    aborted = true;
                    self.terminate();
                }
            }
        }
        self.bury().await;
    }

    /// A line where no batch is open.
    pub(super) fn unexpected(&self, line: &Line) {
        match line::read(&line.bytes) {
            Ok(line::Said::Nothing | line::Said::Done(_)) => {}
            Ok(_) => self.protocol_error(line, &"no batch is open"),
            Err(error) => self.protocol_error(line, &error),
        }
    }

    /// After its end: lets the last of its standard error be relayed, and gives its last lines.
    pub(super) async fn bury(mut self) -> String {
        info!(
            worker = self.program.worker,
            child = self.number,
            how = self.epitaph(),
            "child ended"
        );
        drop(timeout(LAST_WORDS, self.relay.join_next()).await);
        self.words.text()
    }
}

impl Feed {
    fn is_empty(&self) -> bool {
        self.written == self.buffer.len() && self.waiting.is_empty()
    }

    /// Fills the buffer with the next lines.
    fn encode(&mut self) {
        if self.written == self.buffer.len() {
            self.buffer.clear();
            self.written = 0;
        }
        while self.buffer.len() < AHEAD_BYTES {
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            line::write_job(job.json(), &mut self.buffer);
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.written += bytes;
    }

    /// Drops all lines but the one that is begun.
    fn stop(&mut self) {
        self.waiting.clear();
        let rest = &self.buffer[self.written..];
        let begun = self.written > 0 && self.buffer[self.written - 1] != b'\n';
        let keep = if begun {
            rest.iter()
                .position(|byte| *byte == b'\n')
                .map_or(rest.len(), |end| end + 1)
        } else {
            0
        };
        self.buffer.truncate(self.written + keep);
    }
}

/// Writes what the pipe takes; never ready if there is nothing to write.
async fn write(input: &mut Option<ChildStdin>, feed: &Feed) -> io::Result<usize> {
    match input {
        Some(input) if feed.written < feed.buffer.len() => input.write(&feed.buffer[feed.written..]).await,
        _ => std::future::pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

//! NDJSON: one envelope a line, read and answered as it comes, in bounded memory.
//!
//! ```text
//!   body -> lines -> group --call--> driver        entries -> outbox -> client
//!           |            `-- sent, in order --> settled --^
//!           reads on while groups are in flight
//! ```
//!
//! A group goes when it is full, when the body ends, or when no more of it comes for a moment. Reading stops
//! while too much is in flight, and while the client leaves too many answers unread. A body that breaks off has
//! submitted the lines that came whole.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;
use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

use super::entries::Writer;
use super::group::{Envelopes, Group, Sent};
use super::outbox::Outbox;
use super::terms;
use crate::http::App;
use crate::http::body::{Bound, Pieces, no_room};
use crate::http::budget::Share;
use crate::http::error::{Code, Result};
use crate::http::headers::{self, NDJSON_TYPES};
use crate::http::parse::lines::Lines;

/// How long a group waits for more lines: a body that comes in a few packets is one group, and a line that
/// comes alone is soon answered.
const LINGER: Duration = Duration::from_millis(10);

/// Groups in flight: while one is synced the next is read.
const GROUPS_MAX: usize = 8;

/// The same where callers wait for outcomes: lines beyond wait for earlier ones, unread. Those that were read wait in the
/// driver for places.
const GROUPS_WAITING_MAX: usize = 32;

/// A group on its way, and its share of what may be.
struct InFlight {
    sent: Sent,
    _share: OwnedSemaphorePermit,
}

/// Takes the jobs of an NDJSON body.
pub(in crate::http) async fn ndjson(app: App, parts: Parts, body: Body) -> Result<Response<Body>> {
    headers::check_accept_ndjson(&parts.headers)?;
    let terms = terms(&app, &parts)?;
    let whole = terms.wait.is_some();
    let pieces = Pieces::new(&app, &parts, body, Bound::lines(app.limits()))?;
    let outbox = Outbox::new(app.answers());
    let limits = app.limits();
    let envelopes = Envelopes::new(limits.job_bytes_max, terms).patient(limits.patient_waiters_max());
    let work = work(app, envelopes, pieces, Arc::clone(&outbox), whole);
    super::answer(&parts, NDJSON_TYPES[0], outbox, work).await
}

/// Reads to the end and answers to the end. What goes wrong on the way is the answer if there is none yet, else
/// its last line.
async fn work(
    app: App,
    envelopes: Envelopes,
    mut pieces: Pieces,
    outbox: Arc<Outbox>,
    whole: bool,
) -> Result<()> {
    let groups_max = if whole { GROUPS_WAITING_MAX } else { GROUPS_MAX };
    let entries_max = groups_max * envelopes.group_jobs_max();
    // What is in it is bounded by its shares.
    let (sender, receiver) = mpsc::channel(entries_max);
    let mut reader = Reader {
        app: &app,
        lines: Lines::new(envelopes.line_bytes_max()),
        envelopes,
        group: Group::default(),
        begun: None,
        shares: Arc::new(Semaphore::new(entries_max)),
        shares_max: entries_max,
        sender,
    };
    let mut writer = Writer::new(true);
    let read = async {
        let read = reader.read(&mut pieces).await;
        // The lines that came whole before the body broke off count.
        reader.send().await;
        drop(reader);
        Ok(read)
    };
    let ended = match tokio::try_join!(read, write(&app, &mut writer, &outbox, receiver, whole)) {
        Ok((read, ())) => read,
        Err(problem) => Err(problem),
    };
    let Err(problem) = ended else {
        return Ok(());
    };
    pieces.leave();
    if !outbox.has_begun() {
        return Err(problem);
    }
    writer.ending(&problem);
    writer.flush(&outbox).await;
    Ok(())
}

struct Reader<'a> {
    app: &'a App,
    lines: Lines,
    envelopes: Envelopes,
    group: Group,
    /// The room of a line whose end has not come.
    begun: Option<Share>,
    shares: Arc<Semaphore>,
    shares_max: usize,
    sender: mpsc::Sender<InFlight>,
}

impl Reader<'_> {
    async fn read(&mut self, pieces: &mut Pieces) -> Result<()> {
        // A body may take as long as it likes, but not a line of it.
        let mut line_ends = pin!(sleep(pieces.time_max()));
        loop {
            let linger = (!self.group.is_empty()).then_some(LINGER);
            let piece = tokio::select! {
                biased;
                piece = pieces.next(linger) => piece?,
                () = &mut line_ends => return Err(pieces.too_slow()),
            };
            match piece {
                Some(piece) => {
                    if self.cut(piece).await? {
                        line_ends.set(sleep(pieces.time_max()));
                    }
                }
                None if pieces.ended() => break,
                None => {
                    self.send().await;
                    line_ends.set(sleep(pieces.time_max()));
                }
            }
        }
        if let Some(line) = self.lines.last() {
            self.envelopes.line(&mut self.group, line);
        }
        Ok(())
    }

    /// Takes the lines that end in a piece. Says whether there were any.
    async fn cut(&mut self, piece: Bytes) -> Result<bool> {
        let mut any = false;
        // It keeps its room until the last job in it is on disk.
        let mut piece = self.room_for(piece.len())?.keep(piece);
        while let Some(line) = self.lines.next(&mut piece) {
            any = true;
            self.envelopes.line(&mut self.group, line);
            if self.envelopes.is_full(&self.group) {
                self.send().await;
            }
        }
        self.begun = None;
        self.begun = Some(self.room_for(self.lines.begun_bytes())?);
        Ok(any)
    }

    fn room_for(&self, bytes: usize) -> Result<Share> {
        let mut share = self.app.bodies().share(false);
        match share.grow(bytes) {
            true => Ok(share),
            false => Err(no_room(share.limit())),
        }
    }

    /// A share of what may be in flight. The body is left unread meanwhile, perhaps for as long as jobs are waited for.
    async fn share(&self, cost: u32) -> std::result::Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(share) = Arc::clone(&self.shares).try_acquire_many_owned(cost) {
            return Ok(share);
        }
        let link = self.envelopes.here().link();
        link.pause_body(true);
        let share = Arc::clone(&self.shares).acquire_many_owned(cost).await;
        link.pause_body(false);
        share
    }

    /// Sends the group, once its share of what may be in flight is free.
    async fn send(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let cost = self.group.cost().min(self.shares_max);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let Ok(share) = self.share(cost).await else {
            return;
        };
        let sent = self.envelopes.send(self.app, &mut self.group);
        // There is a place for each share. A writer that has ended has said why.
        drop(self.sender.send(InFlight { sent, _share: share }).await);
    }
}

/// Answers group after group. Fails once the driver takes no more, or if it took nothing at all.
async fn write(
    app: &App,
    writer: &mut Writer,
    outbox: &Outbox,
    mut receiver: mpsc::Receiver<InFlight>,
    whole: bool,
) -> Result<()> {
    while let Some(InFlight { sent, _share }) = receiver.recv().await {
        let settled = sent.settled().await;
        let refused = settled.refused.clone();
        if let Some(problem) = settled.refused_whole()
            && !outbox.has_begun()
        {
            return Err(Box::new(problem.clone()));
        }
        writer.group(app, outbox, settled, whole).await;
        if let Some(problem) = refused
            && matches!(
                problem.code,
                Code::Draining | Code::Recovering | Code::OutcomeUnknown
            )
        {
            return Err(problem);
        }
    }
    Ok(())
}

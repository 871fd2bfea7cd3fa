//! Accepts connections and serves each until it ends, is idle for too long, or the server stops.
//!
//! In: a listener and the door. Out: answers, and word of what was delivered. Every connection is a task of
//! one set, which is awaited at the end, so that nothing outlives [`serve`].

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::delivery::{Answer, Asked, Link, Phase};
use super::error::{Code, Problem, raw_response};
use super::socket::{self, Ear, End};
use super::{App, Connection, Door};
use crate::units::format_count;

/// The largest head of a request: room for cookies that have no business here.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
const HEADERS_MAX: usize = 100;
/// What one connection reads ahead and holds back at most, bytes; larger than a head, so that one that is too large is
/// told so.
const BUFFER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// Looks within the slow-client timeout while a client owes something.
const SLOW_LOOKS: u32 = 2;
/// The pause between looks while it owes nothing, in slow-client timeouts.
const SELDOM: u32 = 2;
/// Such looks at an idle connection until it is closed: after 8 to 10 timeouts.
const IDLE_LOOKS: u32 = 4;
/// An answer may wait for its reader this many frequent looks in a row: 30 timeouts, as a body may take.
const STALLED_LOOKS_MAX: u32 = 60;
/// How long answers in progress may take once the server stops.
const STOP_MAX: Duration = Duration::from_millis(1_500);
/// Connections that are told at once that there are too many; beyond these they are just closed.
const REFUSALS_MAX: usize = 64;
/// How long telling one of them may take.
const REFUSAL_MAX: Duration = Duration::from_secs(1);
/// A pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets the answers in progress end, within bounds.
pub(crate) async fn serve(listener: TcpListener, door: Door, stop: impl Future<Output = ()>) {
    let app = door.app();
    let stopping = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        // Every branch is cancel-safe: an accepted socket is returned or not accepted, a joined task likewise.
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = connections.join_next() => { ended_well(ended); continue; }
            Some(ended) = refusals.join_next() => { ended_well(ended); continue; }
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let open = u64::try_from(connections.len()).unwrap_or(u64::MAX);
        if open >= app.limits().connections_max {
            app.metrics().connection_refused();
            if refusals.len() < REFUSALS_MAX {
                refusals.spawn(refuse(socket, app.limits().connections_max));
            }
            continue;
        }
        connections.spawn(connection(socket, app.clone(), door.clone(), stopping.clone()));
    }
    drop(listener);
    stopping.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_MAX, all_ended).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "closing connections whose answers did not end in time"
        );
    }
    connections.shutdown().await;
    refusals.shutdown().await;
}

fn ended_well(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

/// Answers 503 to whatever the client asks, and closes.
async fn refuse(mut socket: TcpStream, limit: u64) {
    let problem = Problem::new(
        Code::TooManyConnections,
        format!(
            "{} connections are open, which is `connections_max`",
            format_count(limit)
        ),
    )
    .limit(limit);
    let told = async {
        // The request is read first: closing with unread bytes would reset the connection, and the client
        // might never see the answer.
        let mut head = [0; 4096];
        let _ = socket.read(&mut head).await?;
        socket.write_all(&raw_response(&problem)).await?;
        socket.shutdown().await?;
        while socket.read(&mut head).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that does not listen is not told.
    let _ = timeout(REFUSAL_MAX, told).await;
}

/// Serves one connection until it ends.
async fn connection(stream: TcpStream, app: App, door: Door, stopping: CancellationToken) {
    let _open = Open::new(&app);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let here = Connection::new(stopping.clone());
    let _ending = Ending(here.clone());
    let link = Arc::clone(here.link());
    let (socket, ear) = socket::socket(stream, Arc::clone(&link), app.clone());
    let service = hyper::service::service_fn(|request| answer(request, &door, here.clone()));
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The watch below tells a slow head from an idle connection; hyper does not.
            .header_read_timeout(None)
            // An end of input is no end of the request that came before it: the ear hears both.
            .half_close(true)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(socket), service)
    );
    let mut watch = Watch::new(app.slow_client_timeout());
    let mut stop = pin!(stopping.cancelled());
    let mut stopped = false;
    let ended = poll_fn(|cx| {
        if !stopped && stop.as_mut().poll(cx).is_ready() {
            stopped = true;
            served.as_mut().graceful_shutdown();
        }
        // Before hyper, so that no batch goes to a worker that is gone; and after it, when a request may have begun.
        if listen(&link, &ear, cx) == Some(End::Reset) {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        // After hyper: what it just read is used, or dropped, at once.
        here.work().poll(cx);
        here.rest().poll(cx);
        match listen(&link, &ear, cx) {
            None => {}
            // After hyper, which knows by now if the body is not whole.
            Some(End::Input) => here.input_ended(),
            Some(End::Reset) => return Poll::Ready(Ok(())),
        }
        watch.poll(&link, cx).map(Ok)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Ends what goes on beside the answers of a connection, however that ends: the work knows its connection, and would
/// else keep it, and itself.
struct Ending(Connection);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.work().stop();
        self.0.rest().stop();
    }
}

/// How the client's side ended, if it has while a request of it is served. At other times hyper reads.
fn listen(link: &Link, ear: &Ear, cx: &mut Context<'_>) -> Option<End> {
    match link.progress().1 {
        Phase::Busy => ear.listen(cx),
        Phase::Head | Phase::Idle => None,
    }
}

async fn answer(
    request: Request<Incoming>,
    door: &Door,
    here: Connection,
) -> Result<Response<Answer>, Infallible> {
    let link = Arc::clone(here.link());
    let (app, router) = door.served();
    let mut request = request.map(|body| Body::new(Asked::new(body, Arc::clone(&link))));
    request.extensions_mut().insert(here);
    let response = super::answer(app, router, request).await;
    Ok(response.map(|body| Answer::new(body, link)))
}

/// Counts an open connection.
struct Open(App);

impl Open {
    fn new(app: &App) -> Self {
        app.metrics().connection_opened();
        Self(app.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics().connection_closed();
    }
}

/// Ends connections whose client is slow or gone.
///
/// It looks from time to time at the beat of what passes, so that a request costs no timer: often while a client
/// owes something, seldom while a request is served or none is there.
struct Watch {
    /// The next look.
    timer: Pin<Box<Sleep>>,
    /// Whether it is one of the frequent ones.
    often: bool,
    slow_client_timeout: Duration,
    /// The beat at the last look.
    beat: u32,
    /// Looks since the beat changed.
    same: u32,
    /// Frequent looks in a row that found an answer waiting for its reader.
    stalled: u32,
}

impl Watch {
    fn new(slow_client_timeout: Duration) -> Self {
        Self {
            timer: Box::pin(sleep(slow_client_timeout / SLOW_LOOKS)),
            often: true,
            slow_client_timeout,
            beat: 0,
            same: 0,
            stalled: 0,
        }
    }

    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<()> {
        let (beat, phase, stalled) = link.progress();
        let owes = stalled || phase == Phase::Head;
        if owes && !self.often {
            self.beat = beat;
            self.same = 0;
            self.next_look(true);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if beat == self.beat {
                self.same += 1;
            } else {
                self.beat = beat;
                self.same = 0;
            }
            self.stalled = if stalled { self.stalled + 1 } else { 0 };
            let patience = match (owes, phase) {
                (true, _) => SLOW_LOOKS,
                (false, Phase::Idle) => IDLE_LOOKS,
                // The handler has bounds of its own.
                (false, _) => u32::MAX,
            };
            if self.same >= patience || self.stalled >= STALLED_LOOKS_MAX {
                return Poll::Ready(());
            }
            if owes != self.often {
                self.same = 0;
            }
            self.next_look(owes);
        }
        Poll::Pending
    }

    fn next_look(&mut self, often: bool) {
        let pause = match often {
            true => self.slow_client_timeout / SLOW_LOOKS,
            false => self.slow_client_timeout.saturating_mul(SELDOM),
        };
        self.often = often;
        self.timer.as_mut().set(sleep(pause));
    }
}

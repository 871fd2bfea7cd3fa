//! A connection's socket: as hyper reads and writes it, and as the connection listens to it beside hyper.
//!
//! In: bytes of the client, answers of hyper. Out: the same, word of what passes to the [`Link`], and how the client's
//! side ended. Between a request's body and its answer hyper does not read, and would see neither end; so [`Ear`] reads
//! ahead, a little, and what it reads hyper gets first. Where unread bytes hide the end it asks what the system has said.
//! An end of input is no end of the connection: a client may have sent all that it had to say, and wait for its answer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::App;
use super::connection::HEAD_BYTES_MAX;
use super::delivery::{Link, Phase};
use super::error::{raw_response, unreadable_head};

/// What is read ahead while a request is served.
const AHEAD_BYTES: usize = 1 << 10;

/// How the client's side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It sends no more. It may wait for an answer, or be gone.
    Input,
    /// It is gone.
    Reset,
}

/// A socket that tells the connection's state what passes through it.
pub(super) struct Socket {
    incoming: Arc<Mutex<Incoming>>,
    outgoing: OwnedWriteHalf,
    link: Arc<Link>,
    app: App,
    /// What is written in place of hyper's bare refusal of a head, and how much of it has been.
    refusal: Option<(Vec<u8>, usize)>,
}

/// Listens to a socket while hyper does not read it.
pub(super) struct Ear(Arc<Mutex<Incoming>>);

/// The side on which bytes come.
struct Incoming {
    stream: OwnedReadHalf,
    link: Arc<Link>,
    /// What came while a request was served; hyper has not read it yet.
    ahead: Bytes,
    end: Option<End>,
}

impl Incoming {
    fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &read {
            Ok(()) if buffer.filled().len() > before => self.link.bytes_came(),
            Ok(()) => {
                self.end = Some(End::Input);
                self.link.input_ended();
            }
            Err(_) => self.end = Some(End::Reset),
        }
        Poll::Ready(read)
    }

    /// The end that the system has told of, though bytes before it may be unread. Costs no system call, and wakes nobody.
    fn told(&self, cx: &mut Context<'_>) -> Option<End> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match pin!(self.stream.ready(both)).poll(cx) {
            Poll::Ready(Ok(ready)) if ready.is_write_closed() => Some(End::Reset),
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => Some(End::Input),
            _ => None,
        }
    }

    /// What hyper reads: what is there, then what comes.
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let size = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..size]);
            self.ahead.advance(size);
            return Poll::Ready(Ok(()));
        }
        match self.end {
            None => self.poll(cx, buffer),
            Some(End::Input) => Poll::Ready(Ok(())),
            Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

/// A panic while it was held leaves nothing half done in it.
fn lock(incoming: &Mutex<Incoming>) -> MutexGuard<'_, Incoming> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What hyper gets of a connection, and what listens beside it.
pub(super) fn socket(stream: TcpStream, link: Arc<Link>, app: App) -> (Socket, Ear) {
    let (stream, outgoing) = stream.into_split();
    let incoming = Arc::new(Mutex::new(Incoming {
        stream,
        link: Arc::clone(&link),
        ahead: Bytes::new(),
        end: None,
    }));
    let socket = Socket {
        incoming: Arc::clone(&incoming),
        outgoing,
        link,
        app,
        refusal: None,
    };
    (socket, Ear(incoming))
}

impl Ear {
    /// How the client's side ended, if it has. Wakes the task when there is something to know. Costs no system call
    /// while nothing comes.
    pub(super) fn listen(&self, cx: &mut Context<'_>) -> Option<End> {
        let mut incoming = lock(&self.0);
        if incoming.end.is_some() {
            return incoming.end;
        }
        if !incoming.link.is_body_over() || !incoming.ahead.is_empty() {
            let told = incoming.told(cx);
            return told.filter(|end| *end == End::Reset || incoming.link.is_unread_for_long());
        }
        let mut room = [MaybeUninit::uninit(); AHEAD_BYTES];
        let mut buffer = ReadBuf::uninit(&mut room);
        if incoming.poll(cx, &mut buffer).is_ready() {
            incoming.ahead = Bytes::copy_from_slice(buffer.filled());
            // Hyper may have found nothing a moment ago, and would not be asked again.
            cx.waker().wake_by_ref();
        }
        incoming.end
    }
}

impl Socket {
    /// Hyper refuses a head that it cannot read by itself, without a word: while no request is served, whatever it
    /// writes is that. The problem goes out in its place, all of it, before hyper hears that its own was written.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            if self.link.progress().1 == Phase::Busy {
                return None;
            }
            let limit = u64::try_from(HEAD_BYTES_MAX).unwrap_or(u64::MAX);
            let problem = unreadable_head(bytes, limit)?;
            self.app.refused_head(&problem);
            self.refusal = Some((raw_response(&problem), 0));
        }
        let (refusal, written) = self.refusal.as_mut()?;
        while *written < refusal.len() {
            match Pin::new(&mut self.outgoing).poll_write(cx, &refusal[*written..]) {
                Poll::Ready(Ok(more)) if more > 0 => *written += more,
                Poll::Ready(Ok(_)) => return Some(Poll::Ready(Ok(0))),
                other => return Some(other),
            }
        }
        Some(Poll::Ready(Ok(bytes.len())))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.incoming).read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match self.poll_refusal(cx, bytes) {
            Some(polled) => polled,
            None => Pin::new(&mut self.outgoing).poll_write(cx, bytes),
        };
        self.link.stalled(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        let polled = match first.and_then(|first| self.poll_refusal(cx, first)) {
            Some(polled) => polled,
            None => Pin::new(&mut self.outgoing).poll_write_vectored(cx, slices),
        };
        self.link.stalled(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.outgoing.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.outgoing).poll_flush(cx);
        // Hyper flushes only once all that it holds was written.
        if let Poll::Ready(Ok(())) = polled {
            self.link.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outgoing).poll_shutdown(cx)
    }
}

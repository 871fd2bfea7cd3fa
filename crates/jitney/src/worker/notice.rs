//! The word to the server that the program of this worker cannot start, said for as long as that is so.
//!
//! In: slots that get into trouble and out of it. Out: a poll that takes no batch, held by the server, and made
//! again when it ends. The server shows the worker as not ready while it holds one.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::engine::{EMPTY_POLL_MIN, EngineOptions, POLL_WAIT, wait_allowed};
use crate::client::{Client, Error, LeaseRequest, Retry};
use crate::entropy::jittered;

/// The server takes a reason of at most so many bytes.
const REASON_BYTES_MAX: usize = 256;

/// The pause after a call that failed, and after one that came back at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Says that slots cannot start.
pub(super) struct Notice {
    client: Client,
    processor: String,
    worker: String,
    /// Slots that cannot start.
    troubled: usize,
    /// Why, as the last of them said.
    reason: String,
    /// How long the server holds it.
    wait: Duration,
    call: Option<Pin<Box<dyn Future<Output = Told> + Send>>>,
    /// There is nobody to tell: a server that does not know the word, or the end.
    over: bool,
}

/// What came of telling.
enum Told {
    /// It is to be told again.
    Held,
    /// The server holds a poll for no longer than this.
    NoLonger(Duration),
    /// The server does not take it.
    NotTaken,
}

impl Notice {
    pub(super) fn new(options: &EngineOptions) -> Self {
        Self {
            client: options.client.clone(),
            processor: options.processor.clone(),
            worker: options.worker.clone(),
            troubled: 0,
            reason: String::new(),
            wait: POLL_WAIT,
            call: None,
            over: false,
        }
    }

    /// One slot more cannot start.
    pub(super) fn raise(&mut self, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        self.troubled += 1;
        self.reason = reason;
    }

    /// One slot less.
    pub(super) const fn lower(&mut self) {
        self.troubled -= 1;
    }

    /// Says nothing more.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.call = None;
    }

    /// Says what there is to say; never ready. Cancel-safe: a call in flight stays here.
    pub(super) async fn say(&mut self) {
        loop {
            if self.troubled == 0 || self.over {
                // The connection closes, and with it the poll.
                self.call = None;
                return std::future::pending().await;
            }
            let request = LeaseRequest {
                wait: self.wait,
                not_ready: Some(self.reason.clone()),
                ..LeaseRequest::new(&self.worker)
            };
            let (client, processor) = (&self.client, &self.processor);
            let call = self
                .call
                .get_or_insert_with(|| Box::pin(tell(client.clone(), processor.clone(), request)));
            let told = call.await;
            self.call = None;
            match told {
                Told::Held => {}
                Told::NoLonger(wait) => self.wait = wait,
                Told::NotTaken => self.over = true,
            }
        }
    }
}

async fn tell(client: Client, processor: String, request: LeaseRequest) -> Told {
    let asked = Instant::now();
    let pause = match client.lease(&processor, &request).await {
        Ok(answer) => match answer.retry_after {
            Some(after) => after,
            None if asked.elapsed() < EMPTY_POLL_MIN => PAUSE,
            None => return Told::Held,
        },
        Err(error) if let Some(wait) = wait_allowed(&error, request.wait) => return Told::NoLonger(wait),
        Err(Error::Refused(problem)) if problem.retry == Retry::No => {
            debug!(%problem, "the server does not show which workers cannot start");
            return Told::NotTaken;
        }
        Err(_) if client.is_over() => return Told::NotTaken,
        // The poll for batches, or the next start, says what is wrong with the server.
        Err(_) => PAUSE,
    };
    sleep(jittered(pause)).await;
    Told::Held
}

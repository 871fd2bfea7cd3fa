//! The loop around a worker's slots: polls for batches, gives each to a free slot, settles what comes of it.
//!
//! In: batches from the server, the wish to stop. Out: settles, riding with the next poll where one is due.
//! The engine owns the slots and the poll; each batch runs in a task of its own and gives its slot back.
//! A poll has a `request_id`: until its answer is here, the same poll is repeated, so that no batch is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::lease::HeldLease;
use super::notice::Notice;
use super::settle::{Ending, Outbox, Settler};
use crate::client::{
    Batch, Client, Error, LeaseAnswer, LeaseRequest, Outcome, Retries, Retry, Settle, SettleBody,
};
use crate::entropy::{jittered, random_name};
use crate::job::{JobId, Priority};

/// How long a poll is held by the server: long, so that idle workers are quiet, and below the idle timeouts
/// of proxies.
pub(super) const POLL_WAIT: Duration = Duration::from_secs(30);

/// A poll that comes back empty sooner than this is followed by a pause of this length.
pub(super) const EMPTY_POLL_MIN: Duration = Duration::from_millis(50);

/// A poll that has waited for so long while slots got free is replaced by one that asks for these too: the server may
/// keep the slots that it asked for (`realtime_reserve`). Not at once: most polls are answered sooner.
const WIDEN_AFTER: Duration = Duration::from_millis(50);

/// After the grace: so long for slots to end by force and for what is settled last.
const FORCED_END: Duration = Duration::from_secs(5);

/// How long a stopping worker tries to learn whether its last poll was given batches.
const RECALL: Duration = Duration::from_secs(2);

/// The server gives no more batches to one poll.
const SLOTS_MAX: u32 = 1_000;

/// So many settles ride with one poll at most: with the bound on each, well below `max_body_bytes`.
const RIDES_MAX: usize = 8;

/// What a worker is.
#[derive(Clone, Debug)]
pub(crate) struct EngineOptions {
    /// Of the server.
    pub(crate) client: Client,
    /// Whose jobs.
    pub(crate) processor: String,
    /// The worker's name.
    pub(crate) worker: String,
    /// Most jobs in a batch.
    pub(crate) max_jobs: Option<u32>,
    /// Which lanes; empty means all.
    pub(crate) priorities: Vec<Priority>,
    /// How long running batches may go on after the wish to stop.
    pub(crate) grace: Duration,
}

/// One place where a batch runs.
pub(crate) trait Slot: Send + 'static {
    /// Whether it can take a batch now.
    fn is_ready(&mut self) -> bool;

    /// Does one thing so that it can: a pause, a start. It is asked again whether it is ready, and prepared again.
    fn prepare(&mut self) -> impl Future<Output = ()> + Send;

    /// Why its program cannot start, while that is why it is not ready.
    fn trouble(&self) -> Option<&str> {
        None
    }

    /// Runs a batch. Must end soon after `stop.abort`.
    fn run(&mut self, batch: Running) -> impl Future<Output = Ending> + Send;

    /// Ends the slot. Must end soon after `stop.abort`.
    fn close(self, stop: Stop) -> impl Future<Output = ()> + Send;
}

/// A batch and what it needs to run.
#[derive(Debug)]
pub(crate) struct Running {
    /// The batch.
    pub(crate) batch: Batch,
    /// Where its outcomes go.
    pub(crate) outbox: Outbox,
    /// What is lost of it.
    pub(crate) lost: Arc<super::lease::Lost>,
    /// The wish to stop.
    pub(crate) stop: Stop,
}

/// The wish to stop, in two steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Finish the job at hand, begin no other.
    pub(crate) finish: CancellationToken,
    /// The grace is over: end now.
    pub(crate) abort: CancellationToken,
}

/// Runs batches until `stop` is ready, then ends as gently as the grace allows.
///
/// # Errors
/// The server refuses the poll for good.
pub(crate) async fn run<S: Slot>(
    options: EngineOptions,
    slots: Vec<S>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut engine = Engine {
        notice: Notice::new(&options),
        options,
        free: slots,
        tasks: JoinSet::new(),
        rides: Vec::new(),
        poll: None,
        poll_at: Instant::now(),
        polled: None,
        poll_wait: POLL_WAIT,
        answered: false,
        stop: Stop::default(),
        give_up: CancellationToken::new(),
    };
    let mut stop = std::pin::pin!(stop);
    let ended = engine.work(stop.as_mut()).await;
    engine.wind_down().await;
    ended
}

struct Engine<S> {
    options: EngineOptions,
    /// Ready for a batch.
    free: Vec<S>,
    tasks: JoinSet<Done<S>>,
    /// Settles that the next poll, or the one in flight, carries.
    rides: Vec<Ride>,
    /// The poll in flight.
    poll: Option<Poll>,
    /// No poll before this instant.
    poll_at: Instant,
    /// When the poll in flight began.
    polled: Option<Instant>,
    /// How long a poll is held: [`POLL_WAIT`], or what this server allows at most.
    poll_wait: Duration,
    /// Whether the server ever answered a poll.
    answered: bool,
    /// What the server hears of slots that cannot start.
    notice: Notice,
    stop: Stop,
    /// The end of all patience.
    give_up: CancellationToken,
}

struct Poll {
    request: Arc<LeaseRequest>,
    answer: Pin<Box<dyn Future<Output = Result<LeaseAnswer, Error>> + Send>>,
}

/// A last settle on its way with a poll.
struct Ride {
    body: SettleBody,
    settler: Settler,
    held: HeldLease,
}

/// How a task ended.
enum Done<S> {
    /// A batch.
    Batch(Box<Ended<S>>),
    /// A slot's preparation. With `troubled` the server heard that it could not start.
    Prepared { slot: S, troubled: bool },
    /// A settle, or the end of a slot.
    Nothing,
}

struct Ended<S> {
    slot: S,
    ending: Ending,
    rest: Vec<Outcome>,
    settler: Settler,
    held: HeldLease,
}

impl<S: Slot> Engine<S> {
    async fn work(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<(), Error> {
        loop {
            // Whatever else has ended goes with the same poll.
            while let Some(done) = self.tasks.try_join_next() {
                self.take(done);
            }
            self.start_poll();
            let (is_narrow, widen_at) = (self.is_narrow(), self.widen_at());
            // Every branch is cancel-safe: the polls stay in `self`, the tasks stay in their set.
            tokio::select! {
                biased;
                () = stop.as_mut() => return Ok(()),
                answer = poll_in_flight(&mut self.poll) => self.answered(answer)?,
                Some(done) = self.tasks.join_next() => self.take(done),
                () = sleep_until(self.poll_at), if self.waits_to_poll() => {}
                () = sleep_until(widen_at), if is_narrow => self.widen_poll(),
                () = self.notice.say() => {}
            }
        }
    }

    fn waits_to_poll(&self) -> bool {
        self.poll.is_none() && !self.free.is_empty() && self.poll_at > Instant::now()
    }

    fn can_poll(&self) -> bool {
        self.poll.is_none() && !self.free.is_empty() && self.poll_at <= Instant::now()
    }

    fn start_poll(&mut self) {
        if !self.can_poll() {
            return;
        }
        let settle = self.rides.iter().map(|ride| Settle {
            lease: ride.settler.lease().to_owned(),
            body: ride.body.clone(),
        });
        self.ask(LeaseRequest {
            worker: self.options.worker.clone(),
            slots: self.free_slots(),
            max_jobs: self.options.max_jobs,
            max_bytes: None,
            wait: self.poll_wait,
            priorities: self.options.priorities.clone(),
            request_id: Some(random_name()),
            not_ready: None,
            settle: settle.collect(),
        });
    }

    fn free_slots(&self) -> u32 {
        u32::try_from(self.free.len()).map_or(SLOTS_MAX, |free| free.min(SLOTS_MAX))
    }

    /// Whether the poll in flight asks for fewer slots than are free.
    fn is_narrow(&self) -> bool {
        let asked = self.poll.as_ref().map(|poll| poll.request.slots);
        asked.is_some_and(|asked| asked < self.free_slots())
    }

    fn widen_at(&self) -> Instant {
        self.polled.unwrap_or_else(Instant::now) + WIDEN_AFTER
    }

    /// Replaces the poll in flight. What it was given on the way its repeat is given again, and its settles are
    /// duplicates, as with any poll whose answer was lost.
    fn widen_poll(&mut self) {
        if let Some(poll) = self.poll.take() {
            self.ask(LeaseRequest {
                slots: self.free_slots(),
                ..LeaseRequest::clone(&poll.request)
            });
        }
    }

    fn ask(&mut self, request: LeaseRequest) {
        let request = Arc::new(request);
        self.polled = Some(Instant::now());
        self.poll = Some(Poll {
            answer: Box::pin(poll(
                self.options.client.clone(),
                self.options.processor.clone(),
                Arc::clone(&request),
                self.answered,
            )),
            request,
        });
    }

    /// The answer to the poll in flight.
    fn answered(&mut self, answer: Result<LeaseAnswer, Error>) -> Result<(), Error> {
        self.poll = None;
        let answer = match answer {
            Ok(answer) => answer,
            // Nothing of the poll was done, what rides with it neither: the next one carries it.
            Err(error) if let Some(wait) = wait_allowed(&error, self.poll_wait) => {
                self.poll_wait = wait;
                return Ok(());
            }
            Err(error) if !self.rides.is_empty() => {
                // One of the settles may be what the server refuses: without them the next poll will tell.
                warn!(error = error.told(), "poll refused, settling apart from it");
                self.settle_rides();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.answered = true;
        let mut settled = answer.settled.iter();
        for ride in std::mem::take(&mut self.rides) {
            if !settled.next().is_some_and(|answer| ride.settler.accepts(answer)) {
                self.settle_alone(ride);
            }
        }
        let nothing = answer.batches.is_empty() && answer.settled.is_empty();
        let asked = self.polled.take().map_or(Duration::MAX, |at| at.elapsed());
        if let Some(after) = answer.retry_after {
            self.poll_at = Instant::now() + after;
        } else if nothing && asked < EMPTY_POLL_MIN {
            self.poll_at = Instant::now() + jittered(2 * EMPTY_POLL_MIN);
        }
        for batch in answer.batches {
            match self.free.pop() {
                Some(slot) => self.start_batch(slot, batch),
                None => self.release(batch),
            }
        }
        Ok(())
    }

    fn start_batch(&mut self, mut slot: S, batch: Batch) {
        debug!(batch = %batch.batch, jobs = batch.jobs.len(), priority = %batch.priority, "batch begins");
        let (held, settler) = self.hold(&batch);
        let stop = self.stop.clone();
        let lost = Arc::clone(held.lost());
        self.tasks.spawn(async move {
            let (outbox, settling) = settler.open();
            // A task of its own: a handler that blocks its thread does not hold its own outcomes back. It
            // ends when the batch has dropped the outbox.
            let settling = tokio::spawn(settling);
            let running = Running {
                batch,
                outbox,
                lost,
                stop,
            };
            let ending = slot.run(running).await;
            let (settler, rest) = settling
                .await
                .expect("the settler does not panic and nobody aborts it");
            Done::Batch(Box::new(Ended {
                slot,
                ending,
                rest,
                settler,
                held,
            }))
        });
    }

    fn hold(&self, batch: &Batch) -> (HeldLease, Settler) {
        let lease: Arc<str> = batch.lease.as_str().into();
        let term = Duration::from_millis(batch.expires_in_ms);
        let held = HeldLease::hold(self.options.client.clone(), Arc::clone(&lease), term);
        let settler = Settler::new(
            self.options.client.clone(),
            lease,
            Arc::clone(held.lost()),
            self.give_up.clone(),
        );
        (held, settler)
    }

    /// A task ended.
    fn take(&mut self, done: Result<Done<S>, JoinError>) {
        match done {
            Ok(Done::Batch(ended)) => {
                let Ended {
                    slot,
                    ending,
                    rest,
                    mut settler,
                    held,
                } = *ended;
                self.back(slot);
                if !self.can_poll() || self.rides.len() >= RIDES_MAX {
                    self.finish(settler, held, rest, ending);
                    return;
                }
                match settler.ride(rest, ending) {
                    Ok(body) => self.rides.push(Ride { body, settler, held }),
                    Err((rest, ending)) => self.finish(settler, held, rest, ending),
                }
            }
            Ok(Done::Prepared { slot, troubled }) => {
                if troubled {
                    self.notice.lower();
                }
                self.back(slot);
            }
            Ok(Done::Nothing) => {}
            Err(error) => error!(%error, "a worker's task failed, its slot is gone"),
        }
    }

    fn back(&mut self, mut slot: S) {
        if self.stop.finish.is_cancelled() {
            self.close(slot);
        } else if slot.is_ready() {
            self.free.push(slot);
        } else {
            let trouble = slot.trouble().map(str::to_owned);
            let troubled = trouble.is_some();
            if let Some(reason) = trouble {
                self.notice.raise(reason);
            }
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                // Preparing is pausing and starting; either may be dropped.
                stop.finish.run_until_cancelled(slot.prepare()).await;
                Done::Prepared { slot, troubled }
            });
        }
    }

    fn finish(&mut self, settler: Settler, held: HeldLease, rest: Vec<Outcome>, ending: Ending) {
        self.tasks.spawn(async move {
            settler.finish(rest, ending).await;
            // The heartbeat ends after the last settle, not before.
            drop(held);
            Done::Nothing
        });
    }

    fn settle_alone(&mut self, ride: Ride) {
        self.tasks.spawn(async move {
            ride.settler.finish_with(ride.body).await;
            drop(ride.held);
            Done::Nothing
        });
    }

    fn settle_rides(&mut self) {
        for ride in std::mem::take(&mut self.rides) {
            self.settle_alone(ride);
        }
    }

    /// Gives back a batch for which there is no slot.
    fn release(&mut self, batch: Batch) {
        let (held, settler) = self.hold(&batch);
        self.finish(settler, held, Vec::new(), Ending::Released(ids(&batch)));
    }

    fn close(&mut self, slot: S) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            slot.close(stop).await;
            Done::Nothing
        });
    }

    /// Takes no more, lets what runs finish, gives the rest back.
    async fn wind_down(&mut self) {
        self.stop.finish.cancel();
        self.notice.end();
        let recalled = self.recall().await;
        for batch in recalled {
            self.release(batch);
        }
        self.settle_rides();
        for slot in std::mem::take(&mut self.free) {
            self.close(slot);
        }
        let grace = self.options.grace;
        if timeout(grace, self.join()).await.is_ok() {
            return;
        }
        warn!(?grace, "grace is over, ending what still runs");
        self.stop.abort.cancel();
        if timeout(FORCED_END, self.join()).await.is_ok() {
            return;
        }
        self.give_up.cancel();
        if timeout(RECALL, self.join()).await.is_err() {
            error!("a handler blocks its thread and is left behind");
        }
        self.tasks.abort_all();
    }

    async fn join(&mut self) {
        while let Some(done) = self.tasks.join_next().await {
            self.take(done);
        }
    }

    /// Ends the poll in flight, and asks under its own id which batches it was given on the way.
    async fn recall(&mut self) -> Vec<Batch> {
        let Some(poll) = self.poll.take() else {
            return Vec::new();
        };
        let request = LeaseRequest {
            wait: Duration::ZERO,
            settle: Vec::new(),
            ..(*poll.request).clone()
        };
        // The connection closes, and with it the poll.
        drop(poll);
        let asked = self.options.client.lease(&self.options.processor, &request);
        match timeout(RECALL, asked).await {
            Ok(Ok(answer)) => answer.batches,
            Ok(Err(error)) => {
                info!(
                    error = error.told(),
                    "cannot ask for the batches of the last poll"
                );
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

/// The wait that the server allows, where it refused a poll for asking for a longer one.
pub(super) fn wait_allowed(error: &Error, asked: Duration) -> Option<Duration> {
    #[derive(serde::Deserialize)]
    struct Refused {
        pointer: String,
        limit: u64,
    }
    let Error::Refused(problem) = error else {
        return None;
    };
    let refused: Refused = serde_json::from_str(problem.json()).ok()?;
    let allowed = Duration::from_millis(refused.limit);
    (refused.pointer == "/wait" && allowed < asked).then_some(allowed)
}

/// The ids of a batch's jobs.
pub(crate) fn ids(batch: &Batch) -> Vec<JobId> {
    batch.jobs.iter().map(|job| job.id).collect()
}

/// The answer to the poll in flight; never ready if there is none.
async fn poll_in_flight(poll: &mut Option<Poll>) -> Result<LeaseAnswer, Error> {
    match poll {
        Some(poll) => poll.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Repeats a poll until it is answered, or refused for good.
async fn poll(
    client: Client,
    processor: String,
    request: Arc<LeaseRequest>,
    answered: bool,
) -> Result<LeaseAnswer, Error> {
    let retries = Retries::default();
    let mut attempt = 0;
    loop {
        let error = match client.lease(&processor, &request).await {
            Ok(answer) => {
                if attempt > 0 {
                    info!(attempt, "the server answers again");
                }
                return Ok(answer);
            }
            Err(error) if client.is_over() => return Err(error),
            Err(error) => error,
        };
        let after = match &error {
            Error::Refused(problem) if problem.retry != Retry::No => problem.retry_after,
            Error::Unreachable { .. } => None,
            // What answered before is the right server; a proxy before it may say anything for a while.
            Error::Protocol { server_fault, .. } if *server_fault || answered => None,
            _ => return Err(error),
        };
        attempt += 1;
        if attempt == 1 {
            warn!(error = error.told(), "poll failed, trying on");
        }
        sleep(jittered(retries.backoff(attempt)).max(after.unwrap_or_default())).await;
    }
}

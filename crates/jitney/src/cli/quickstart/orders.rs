//! The orders of the quickstart: who executes them, and who asks for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::client::{Client, Submit};
use crate::clock::{Clock as _, SystemClock, between};
use crate::job::JobId;
use crate::worker::{HandlerError, Job, Outcomes, Worker};

/// Whose jobs they are.
pub(super) const PROCESSOR: &str = "orders";

/// What the market takes for a batch of orders, however many are in it: this is why batches pay.
const MARKET_DELAY: Duration = Duration::from_millis(5);

/// The longest that a caller waits. Nothing here takes a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a caller sends.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Order {
    pub(super) order: u32,
    pub(super) price: u32,
}

/// What it gets back.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Executed {
    order: u32,
    price: u32,
    status: String,
}

/// What one caller sent and got.
#[derive(Clone, Debug)]
pub(super) struct Example {
    pub(super) id: JobId,
    pub(super) sent: String,
    pub(super) got: String,
}

/// What all callers saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// From the first submit to the last result.
    pub(super) took: Duration,
    /// From submit to the caller's own result, microseconds.
    pub(super) latency: Histogram<u64>,
    /// One of them.
    pub(super) example: Example,
}

/// A worker that executes orders, a batch at a time, and reports how many came together.
pub(super) fn executor(client: Client, batches: Sender<usize>) -> Worker {
    Worker::new(client, PROCESSOR)
        .name("quickstart")
        .max_jobs(16)
        .on_batch("default", move |jobs: Vec<Job<Order>>| {
            let batches = batches.clone();
            async move {
                // Nobody looks on any more: the orders are executed all the same.
                _ = batches.try_send(jobs.len());
                Ok::<_, HandlerError>(execute(jobs).await)
            }
        })
}

async fn execute(jobs: Vec<Job<Order>>) -> Outcomes<Executed> {
    tokio::time::sleep(MARKET_DELAY).await;
    let executed = |job: Job<Order>| {
        let Order { order, price } = job.data;
        let status = "approved".to_owned();
        (job.id, Ok(Executed { order, price, status }))
    };
    jobs.into_iter().map(executed).collect()
}

/// Submits `orders` orders from `callers` callers at once, each waiting for its own result before its next
/// order. `done` counts them.
pub(super) async fn submit_all(
    client: &Client,
    orders: u32,
    callers: u32,
    done: Arc<AtomicU32>,
) -> Result<Seen, Failure> {
    let clock = SystemClock::new();
    let next = Arc::new(AtomicU32::new(1));
    let start = clock.now().mono;
    let mut tasks = JoinSet::new();
    for _ in 0..callers.min(orders) {
        let caller = Caller {
            client: client.clone(),
            clock,
            next: Arc::clone(&next),
            last: orders,
            done: Arc::clone(&done),
        };
        tasks.spawn(caller.run());
    }
    let mut latency = histogram();
    let mut example = None;
    while let Some(joined) = tasks.join_next().await {
        let (own, last) =
            joined.map_err(|error| Failure::new(Exit::Bug, format!("a caller failed: {error}")))??;
        latency
            .add(own)
            .expect("all histograms are made by one function, so that their ranges are the same");
        example = last.or(example);
    }
    let example = example.ok_or_else(|| Failure::new(Exit::Bug, "no caller had an order"))?;
    Ok(Seen {
        took: between(start, clock.now().mono),
        latency,
        example,
    })
}

struct Caller {
    client: Client,
    clock: SystemClock,
    /// The next order's number, over all callers.
    next: Arc<AtomicU32>,
    last: u32,
    done: Arc<AtomicU32>,
}

impl Caller {
    async fn run(self) -> Result<(Histogram<u64>, Option<Example>), Failure> {
        let mut latency = histogram();
        let mut example = None;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number > self.last {
                return Ok((latency, example));
            }
            let order = Order {
                order: number,
                price: 1_000 + number * 7 % 990,
            };
            let start = self.clock.now().mono;
            let submit = Submit::json(PROCESSOR, &order)?;
            let job = self.client.submit_and_wait(submit, PATIENCE).await?;
            let took = between(start, self.clock.now().mono);
            latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            let executed: Executed = job.result_as().map_err(|error| {
                Failure::new(Exit::JobFailed, format!("job {} has no result: {error}", job.id))
            })?;
            if executed.order != order.order || executed.price != order.price {
                let message = format!("order {number} got the result of order {}", executed.order);
                return Err(Failure::new(Exit::Bug, message));
            }
            self.done.fetch_add(1, Ordering::Relaxed);
            example = Some(Example {
                id: job.id,
                sent: json(&order),
                got: json(&executed),
            });
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and texts can be written as JSON")
}

/// Microseconds, up to the longest wait, to three digits.
fn histogram() -> Histogram<u64> {
    let most = u64::try_from(PATIENCE.as_micros()).expect("half a minute fits in 64 bits of microseconds");
    Histogram::new_with_bounds(1, most, 3).expect("the bounds are constants that the histogram takes")
}

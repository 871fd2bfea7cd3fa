//! A shop that turns its orders into invoices and letters, with jitney inside: kill it at any moment, start it
//! again, and no order is lost and none is invoiced twice.
//!
//! ```text
//! cargo run --release --example embedded -- examples/embedded/orders.csv
//! order 1: accepted
//! ...
//! order 1: invoice over 12.50
//! ```
//!
//! There is no server: the shop opens a directory, submits each order as a job, and its own handlers, in this
//! process, do the work. README.md beside this file says what to try.

#![expect(clippy::print_stdout, reason = "the shop speaks to whoever runs it")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jitney::Jitney;
use jitney::client::{Client, Submit};
use jitney::units::parse_duration;
use jitney::worker::{HandlerError, Job, Outcomes, service};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;
use tower::ServiceBuilder;

/// Longer than any order takes; shorter than a lease, whose end is never waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Turns orders into invoices and letters.
#[derive(Parser)]
struct Arguments {
    /// A line per order: its number, the customer, the amount in cents.
    orders: PathBuf,
    /// Where jobs, invoices and letters are kept.
    #[arg(long, default_value = "./embedded-data")]
    data: PathBuf,
    /// How long drawing up an invoice takes.
    #[arg(long, default_value = "200ms", value_parser = parse_duration)]
    drawing: Duration,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Order {
    number: u32,
    customer: String,
    cents: u64,
}

/// What is on paper.
struct Desk {
    invoices: PathBuf,
    letters: PathBuf,
    drawing: Duration,
    /// A letter went out.
    posted: Notify,
}

impl Desk {
    /// Draws up the invoice of one order. The letter that goes with it is a job of its own: both become durable
    /// together, or neither does.
    async fn invoice(&self, job: Job<Order>) -> Result<u64, HandlerError> {
        let order = &job.data;
        if order.cents == 0 {
            return Err(HandlerError::last("free", "there is nothing to pay"));
        }
        sleep(self.drawing).await;
        let text = format!("{} owes {}\n", order.customer, money(order.cents));
        // The job may come twice; the second time writes the same file again.
        write(&self.invoices, order.number, &text)?;
        job.submit_child(Submit::json("post", order)?.group("letter"));
        Ok(order.cents)
    }

    /// Takes all letters that are ready to the post at once.
    async fn post(&self, jobs: Vec<Job<Order>>) -> Result<Outcomes<()>, HandlerError> {
        let outcomes = jobs.iter().map(|job| {
            let text = format!(
                "Dear {}, see your invoice {}.\n",
                job.data.customer, job.data.number
            );
            match write(&self.letters, job.data.number, &text) {
                Ok(()) => job.ok(()),
                Err(error) => job.error(HandlerError::retryable("paper", error)),
            }
        });
        let outcomes = outcomes.collect();
        self.posted.notify_one();
        Ok(outcomes)
    }

    fn has_posted(&self, number: u32) -> bool {
        self.letters.join(format!("{number}.txt")).exists()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let orders = read(&arguments.orders)?;
    let desk = Arc::new(Desk {
        invoices: arguments.data.join("invoices"),
        letters: arguments.data.join("letters"),
        drawing: arguments.drawing,
        posted: Notify::new(),
    });
    std::fs::create_dir_all(&desk.invoices)?;
    std::fs::create_dir_all(&desk.letters)?;

    let jitney = Jitney::open(arguments.data.join("jobs")).await?;
    start_workers(&jitney, &desk);
    run(&jitney.client(), &desk, &orders).await?;
    jitney.close().await?;
    println!("{} orders, all done", orders.len());
    Ok(())
}

/// What was pending from an earlier run begins here, before the first order of this one.
fn start_workers(jitney: &Jitney, desk: &Arc<Desk>) {
    let drawing = Arc::clone(desk);
    let invoice = ServiceBuilder::new()
        // An invoice that takes longer is tried again.
        .timeout(Duration::from_secs(30))
        .service(service(move |job| {
            let desk = Arc::clone(&drawing);
            async move { desk.invoice(job).await }
        }));
    jitney.spawn(jitney.worker("shop").slots(4).on_service("invoice", invoice));
    let posting = Arc::clone(desk);
    let post = move |jobs| {
        let desk = Arc::clone(&posting);
        async move { desk.post(jobs).await }
    };
    jitney.spawn(jitney.worker("post").max_jobs(64).on_batch("letter", post));
}

/// Submits all orders, then waits until each has its invoice and its letter.
async fn run(client: &Client, desk: &Desk, orders: &[Order]) -> Result<(), Box<dyn Error>> {
    let mut jobs = Vec::with_capacity(orders.len());
    for order in orders {
        // The same order is the same job, also in another run of this program.
        let key = format!("order-{}", order.number);
        let job = Submit::json("shop", order)?
            .group("invoice")
            .idempotency_key(&key);
        let submitted = client.submit(job).await?;
        // From here on it is on disk, whatever happens to this process.
        let before = if submitted.replayed { " before" } else { "" };
        println!("order {}: accepted{before}", order.number);
        jobs.push((order, submitted.job.id));
    }
    for (order, id) in jobs {
        let job = client.get_and_wait(id, PATIENCE).await?;
        if let Some(error) = &job.error {
            println!("order {}: {}", order.number, error.message);
            continue;
        }
        let cents: u64 = job.result_as()?;
        println!("order {}: invoice over {}", order.number, money(cents));
        while !desk.has_posted(order.number) {
            desk.posted.notified().await;
        }
    }
    Ok(())
}

fn read(orders: &Path) -> Result<Vec<Order>, Box<dyn Error>> {
    let text = std::fs::read_to_string(orders)?;
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let [number, customer, cents] = fields[..] else {
                return Err(format!("`{line}` is not a number, a customer and an amount").into());
            };
            Ok(Order {
                number: number.parse()?,
                customer: customer.to_owned(),
                cents: cents.parse()?,
            })
        })
        .collect()
}

/// Writes a paper whole: a reader never sees half of it.
fn write(directory: &Path, number: u32, text: &str) -> std::io::Result<()> {
    let draft = directory.join(format!("{number}.draft"));
    std::fs::write(&draft, text)?;
    std::fs::rename(draft, directory.join(format!("{number}.txt")))
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

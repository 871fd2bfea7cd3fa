//! Orders come in over HTTP one at a time, travel to an executor process in batches of `--batch-size`, and
//! each caller gets its own executed order in the very response to its request.
//!
//! ```text
//! cargo run --release --example batches_sender -- --batch-size 16
//! curl 127.0.0.1:8080/orders -d '{"price":1990,"order":"a chair"}'
//! {"price":1990,"order":"a chair","status":"approved"}
//! ```
//!
//! jitney is used as a library here: a server with one route, and the worker that feeds the executor. The
//! executor is this same program, started with `--executor`. With `--strict` a batch waits for exactly
//! `--batch-size` orders or `--delay`, whichever comes first.

mod executor;

use std::error::Error;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use jitney::client::Client;
use jitney::config;
use jitney::exec::{self, ExecOptions};
use jitney::job::{Group, Priority, Processor};
use jitney::policy::{PolicyPatch, ProcessorPolicy};
use jitney::server::options::{BusOptions, Options, Route};
use jitney::units::parse_duration;
use jitney::worker::GRACE;
use jitney::{server, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Sends orders in batches to an executor.
#[derive(Parser)]
struct Arguments {
    /// The most orders in a batch; with --strict exactly so many.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch_size: u32,
    /// Wait for exactly --batch-size orders or --delay, whichever comes first.
    #[arg(long)]
    strict: bool,
    /// How long the oldest order waits for others.
    #[arg(long, default_value = "50ms", value_parser = parse_duration)]
    delay: Duration,
    /// Where to take orders; port 0 takes a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where orders are kept until they are executed.
    #[arg(long, default_value = "./batches-sender-data")]
    data: PathBuf,
    /// Run as the executor process.
    #[arg(long, hide = true)]
    executor: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.executor {
        return Ok(executor::run()?);
    }
    telemetry::init(tracing::Level::INFO, false);
    tokio::runtime::Runtime::new()?.block_on(serve(&arguments))
}

async fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stop = stop_signal()?;
    let options = options(arguments)?;
    let grace = options.grace;
    let running = server::start(options).await?;
    let address = running.address();
    writeln!(
        std::io::stdout(),
        "taking orders at http://{address}/orders, in batches of {}",
        arguments.batch_size
    )?;

    let (stop_worker, worker_stopped) = oneshot::channel::<()>();
    let worker = exec::run(
        ExecOptions {
            client: Client::new(&format!("http://{address}"))?,
            processor: "orders".to_owned(),
            command: vec![
                std::env::current_exe()?.display().to_string(),
                "--executor".to_owned(),
            ],
            concurrency: 1,
            worker: "executor".to_owned(),
            max_jobs: None,
            priorities: Vec::new(),
            grace: GRACE,
            once: false,
        },
        async { drop(worker_stopped.await) },
    );
    tokio::pin!(worker);
    tokio::select! {
        // It ends by itself only if the executor cannot be started.
        ended = &mut worker => ended?,
        () = stop => {
            drop(stop_worker);
            worker.await?;
        }
    }
    running.stop(grace).await;
    Ok(())
}

/// The server: the defaults, a policy for orders, and a route in front of them.
fn options(arguments: &Arguments) -> Result<Options, Box<dyn Error>> {
    let mut options = config::defaults().options;
    options.listen = arguments.listen;
    if let BusOptions::Log { data, .. } = &mut options.bus {
        data.clone_from(&arguments.data);
    }
    let orders = Processor::parse("orders").ok_or("`orders` is a good name")?;
    let mut policy = PolicyPatch {
        max_jobs: Some(arguments.batch_size),
        max_delay: Some(arguments.delay),
        ..PolicyPatch::default()
    };
    if arguments.strict {
        policy.min_jobs = Some(arguments.batch_size);
        policy.idle_flush = Some(false);
    }
    let policy = ProcessorPolicy {
        base: policy,
        ..ProcessorPolicy::default()
    };
    options.policies.processors.insert(orders.clone(), policy);
    options.routes.push(Route {
        method: "POST".to_owned(),
        path: "/orders".to_owned(),
        processor: orders,
        group: Group::default(),
        priority: Priority::Normal,
        wait: Some(Duration::from_secs(30)),
        schema: Some(serde_json::from_str(include_str!("order.schema.json"))?),
        status: [].into(),
    });
    Ok(options)
}

/// Waits for Ctrl-C or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

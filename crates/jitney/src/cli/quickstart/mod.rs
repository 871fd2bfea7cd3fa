//! `jitney quickstart`: a server, a worker and a few hundred orders, to see how it works.

mod figures;
mod live;
mod orders;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use clap::Args;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::signals::{Signals, exit_at_once};
use super::{block_on, init_log, serve};
use crate::client::{Client, Error};
use crate::config::{self, LogLevel};
use crate::server::options::{BusOptions, Options};
use crate::server::{self, Running, StartError};
use figures::{Figures, Usage};
use live::Live;
use orders::Example;

/// What it runs with beside the defaults; users may copy it.
const CONFIG: &str = include_str!("quickstart.toml");

/// Batch sizes on their way to the screen; a screen that is behind misses some.
const SIZES_MAX: usize = 4096;

/// See it work: a server, a worker with batches of up to 16, and a few hundred orders.
#[derive(Args, Debug)]
pub(super) struct QuickstartArgs {
    /// Directory of the log; a later run finds what is in it.
    #[arg(long, default_value = "./jitney-data", value_name = "DIRECTORY")]
    data: PathBuf,
    /// Address and port. Default 127.0.0.1:8080, or a free port if that is taken.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How many orders.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders: u32,
    /// How many callers at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    callers: u32,
    /// End after the figures, instead of staying up.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(args: QuickstartArgs, output: Output) -> Result<Exit, Failure> {
    init_log(LogLevel::Warn, None)?;
    block_on(quickstart(args, output))
}

async fn quickstart(args: QuickstartArgs, output: Output) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let options = options(&args)?;
    let grace = options.grace;
    say(output, "Starting a server ...");
    let running = tokio::select! {
        running = start(options, args.listen.is_none(), output) => running?,
        () = signals.next() => return Ok(Exit::Done),
    };
    let client = Client::new(&format!("http://{}", running.address()))?;
    let mut executor = Executor::start(&client);
    let shown = tokio::select! {
        shown = show(&args, &client, &mut executor.sizes, output) => shown.map(Some),
        () = signals.next() => Ok(None),
        ended = running.ended() => return serve::finish(&ended),
    };
    if let Ok(Some(example)) = &shown
        && !args.once
    {
        invite(&running, example, output);
        tokio::select! {
            () = signals.next() => say(output, "\nStopping ..."),
            ended = running.ended() => return serve::finish(&ended),
        }
    }
    let stop = async {
        executor.stop().await?;
        serve::finish(&running.stop(grace).await)
    };
    let stopped = tokio::select! {
        stopped = stop => stopped,
        () = signals.next() => exit_at_once(),
    };
    shown?;
    stopped
}

fn options(args: &QuickstartArgs) -> Result<Options, Failure> {
    let mut options = config::parse(CONFIG, Path::new("quickstart.toml"))?.options;
    if let BusOptions::Log { data, .. } = &mut options.bus {
        data.clone_from(&args.data);
    }
    if let Some(listen) = args.listen {
        options.listen = listen;
    }
    if !options.listen.ip().is_loopback() {
        return Err(
            Failure::usage(format!("{} can be reached by other machines", options.listen))
                .hint("quickstart stays on this machine; `jitney serve --no-auth` does not"),
        );
    }
    Ok(options)
}

/// Starts the server; if its port is taken and nobody asked for that one, on a free port.
async fn start(mut options: Options, any_port: bool, output: Output) -> Result<Running, Failure> {
    match server::start(options.clone()).await {
        Err(StartError::Listen { address, source }) if any_port && source.kind() == ErrorKind::AddrInUse => {
            say(
                output,
                &format!("Port {} is taken, so it gets a free one.", address.port()),
            );
            options.listen.set_port(0);
            Ok(server::start(options).await?)
        }
        started => Ok(started?),
    }
}

/// The worker, on a task of its own.
struct Executor {
    /// The size of each batch.
    sizes: Receiver<usize>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Executor {
    fn start(client: &Client) -> Self {
        let (sender, sizes) = channel(SIZES_MAX);
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = orders::executor(client.clone(), sender);
        // A sender that is dropped asks to stop as well.
        let task = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        Self { sizes, stop, task }
    }

    async fn stop(self) -> Result<(), Failure> {
        // A worker that has ended needs no word.
        _ = self.stop.send(());
        let ended = self.task.await;
        Ok(ended.map_err(|error| Failure::new(Exit::Bug, format!("the worker failed: {error}")))??)
    }
}

async fn show(
    args: &QuickstartArgs,
    client: &Client,
    sizes: &mut Receiver<usize>,
    output: Output,
) -> Result<Example, Failure> {
    let before = Usage::of(client).await?;
    let data = args.data.display();
    say(output, "");
    say(
        output,
        &format!("  server   {}, with its log in {data}", client.url()),
    );
    if before.results + before.jobs > 0 {
        say(
            output,
            &format!(
                "           {} finished jobs of an earlier run are still there, and {} to be done",
                before.results, before.jobs
            ),
        );
    }
    say(
        output,
        "  worker   takes batches of up to 16 orders, 5 ms each, however many are in it",
    );
    say(
        output,
        &format!(
            "  callers  {}, submitting {} orders one at a time",
            args.callers, args.orders
        ),
    );
    say(output, "");
    let done = Arc::new(AtomicU32::new(0));
    let live = Live::new(output, args.orders, Arc::clone(&done));
    let run = orders::submit_all(client, args.orders, args.callers, done);
    let (seen, batches) = live.during(run, sizes).await;
    let seen = seen?;
    let example = seen.example.clone();
    let after = Usage::of(client).await?;
    Figures::new(args.orders, seen, batches, before, after).print(output);
    Ok(example)
}

/// What to try next, ready to be copied.
fn invite(running: &Running, example: &Example, output: Output) {
    let url = format!("http://{}", running.address());
    say(output, "");
    say(output, "It is still running. Try, in another terminal:");
    say(output, "");
    say(
        output,
        &format!("  curl {url}/orders -d '{{\"order\":1001,\"price\":1990}}'"),
    );
    say(output, &format!("  curl {url}/v1/jobs/{}", example.id));
    say(output, &format!("  curl {url}/v1/lanes"));
    say(output, "");
    say(output, "Ctrl-C ends it.");
}

/// A line for people; programs get the figures alone.
fn say(output: Output, text: &str) {
    if !output.json {
        output.line(text);
    }
}

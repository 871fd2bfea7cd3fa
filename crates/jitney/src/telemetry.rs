//! The log of the process: one line per event on standard error, for people or for programs.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

/// Our own crates, whose events the level is for. Libraries below speak up from `warn`.
const OURS: [&str; 2] = ["jitney", "joblog"];

/// Changes what the running log shows.
static FILTER: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

/// Starts the log of this process; a second call changes nothing. `json`: one object a line.
pub fn init(level: Level, json: bool) {
    // A log that nobody can read any more (a terminal that closed, a pipe whose reader ended) ends nothing: told of
    // an event that cannot be written, the layer would write that, and panic.
    let base = fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let layer = if json {
        base.json().flatten_event(true).boxed()
    } else {
        base.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    let (filter, handle) = reload::Layer::new(targets(level));
    let started = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
    // Only a test starts it twice.
    if started.is_ok() {
        drop(FILTER.set(handle));
    }
}

/// Shows events from this level on, in a log that was started.
pub fn set_level(level: Level) {
    if let Some(filter) = FILTER.get() {
        // It fails only if the log is gone.
        drop(filter.reload(targets(level)));
    }
}

fn targets(level: Level) -> Targets {
    let ours = LevelFilter::from_level(level);
    let others = ours.min(LevelFilter::WARN);
    Targets::new()
        .with_targets(OURS.map(|target| (target, ours)))
        .with_default(others)
}

//! The log of the process: one line per event on standard error, for people or for programs.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Our own crates, whose events the level is for. Libraries below speak up from `warn`.
const OURS: [&str; 2] = ["jitney", "joblog"];

/// Starts the log of this process; a second call changes nothing. `json`: one object a line.
pub fn init(level: Level, json: bool) {
    let ours = LevelFilter::from_level(level);
    let others = ours.min(LevelFilter::WARN);
    let targets = Targets::new()
        .with_targets(OURS.map(|target| (target, ours)))
        .with_default(others);
    let base = fmt::layer().with_writer(std::io::stderr);
    let layer = if json {
        base.json().flatten_event(true).boxed()
    } else {
        base.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    let started = tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init();
    // Only a test starts it twice.
    drop(started);
}

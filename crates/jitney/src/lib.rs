//! jitney: a durable micro-batching job dispatcher.

pub mod bus;
pub mod client;
pub mod dispatcher;
pub mod driver;
pub mod embed;
pub mod exec;
pub mod http;
pub mod server;
pub mod worker;

pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod entropy;
pub mod fingerprint;
pub mod job;
pub mod limits;
pub mod metrics;
pub mod mutants;
pub mod near;
pub mod policy;
pub mod telemetry;
pub mod units;
mod written;

pub use embed::Jitney;

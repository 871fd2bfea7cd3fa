//! jitney: a durable micro-batching job dispatcher.

pub mod bus;
pub mod client;
pub mod dispatcher;
pub mod driver;
pub mod server;

pub mod clock;
pub mod config;
pub mod entropy;
pub mod job;
pub mod limits;
pub mod policy;
pub mod units;

//! jitney: a durable micro-batching job dispatcher.

pub mod bus;
pub mod clock;
pub mod job;

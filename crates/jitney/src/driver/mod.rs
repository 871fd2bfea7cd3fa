//! The driver carries the dispatcher's decisions out: one synchronous loop over bus, clock and port.

pub mod port;
pub mod refusal;

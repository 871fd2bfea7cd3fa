//! The dispatcher decides: which jobs form the next batch, for whom, and when; leases and retries.

pub mod event;

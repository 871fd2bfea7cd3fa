//! A durable, segmented, append-only log of jobs and their outcomes.

pub mod ids;
pub mod record;
pub mod storage;
pub mod time;

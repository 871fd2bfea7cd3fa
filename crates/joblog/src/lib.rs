//! A durable, segmented, append-only log of jobs and their outcomes.
//!
//! Synchronous, without threads, clocks or randomness of its own: all of that comes in from outside, so that a
//! simulation can repeat every run. docs/log_format.md describes the bytes. In the order of the data's path:
//! [`record`] (what is remembered) goes through [`log`] (groups, commits, index) to [`storage`] (files);
//! [`recovery`] brings it back; [`verify`] looks without touching; [`repair`] mends.

pub mod dir;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod inspect;
pub mod log;
#[doc(hidden)]
pub mod mutants;
pub mod record;
pub mod recovery;
pub mod repair;
pub mod replay;
pub mod settings;
pub mod storage;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod time;
pub mod verify;

mod cache;
mod dead;
mod frame;
mod hash;
mod index;
mod live;
mod retention;
mod segment;

pub use log::{Log, Options};

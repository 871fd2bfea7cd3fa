//! jitney takes jobs that arrive one at a time, keeps them safe on disk, carries them in batches to the code that
//! processes them, and brings every caller its own result.
//!
//! As a library it is two things: a jitney inside your program, and the two ends of one that runs elsewhere. Both
//! have the same [`Client`](client::Client) and [`Worker`](worker::Worker).
//!
//! ```
//! use std::time::Duration;
//! use jitney::Jitney;
//! use jitney::client::Submit;
//! use jitney::worker::{HandlerError, Job};
//!
//! async fn double(job: Job<i64>) -> Result<i64, HandlerError> {
//!     Ok(2 * job.data)
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let jitney = Jitney::open(directory.path()).await?;
//! jitney.spawn(jitney.worker("numbers").slots(4).on_group("double", double));
//!
//! let job = Submit::json("numbers", &21)?.group("double");
//! let job = jitney.client().submit_and_wait(job, Duration::from_secs(10)).await?;
//! assert_eq!(job.result_as::<i64>()?, 42);
//! # jitney.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | you want | look at |
//! | --- | --- |
//! | durable jobs inside this program | [`Jitney`], [`embed`] |
//! | to submit jobs, and wait for their results | [`client`] |
//! | to process jobs: one at a time, in batches, with tower layers | [`worker`] |
//! | to feed jobs to a program in another language | [`exec`] |
//! | to say how jobs gather, lease and retry | [`policy`] |
//! | to bound what is kept | [`limits`] |
//! | to start a whole server from a program | [`server`] |
//! | the words: ids, priorities, states, results | [`job`] |
//!
//! The command line, HTTP and the formats are in the repository's `docs/`; how it is built, in `ARCHITECTURE.md`.
//!
//! What is public but not shown here is for the simulator, the tests and the benches of the repository. It changes
//! without notice.

pub mod client;
pub mod embed;
pub mod exec;
pub mod job;
pub mod limits;
pub mod policy;
pub mod server;
pub mod units;
pub mod worker;

#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
pub mod bus;
#[doc(hidden)]
pub mod cli;
pub mod clock;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod dispatcher;
#[doc(hidden)]
pub mod driver;
#[doc(hidden)]
pub mod entropy;
#[doc(hidden)]
pub mod fingerprint;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod mutants;
#[doc(hidden)]
pub mod near;
#[doc(hidden)]
pub mod telemetry;
mod written;

pub use embed::Jitney;

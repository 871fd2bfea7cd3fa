//! Deterministic simulation of jitney: the real driver, dispatcher and log in a virtual world.
//!
//! A run follows from one seed: a `plan` is drawn, a `world` of callers, workers, a disk and two clocks
//! lives through it around the real driver, the `tape` records what passes the driver's doors, and the
//! `checker` says whether a promise was broken. `mutants` are deliberate bugs that prove the checker.

mod checker;
mod clock;
mod disk;
mod mutants;
mod observed;
mod orders;
mod plan;
mod port;
mod random;
mod report;
mod runner;
mod tape;
mod trace;
mod world;

pub use checker::Violation;
pub use mutants::{BusMutant, DiskMutant, Mutant, PortMutant};
pub use runner::{Arguments, main_with, run_seed};
pub use world::Run;

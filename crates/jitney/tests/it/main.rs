//! What jitney promises, seen from outside: one file per promise.

mod canned;
mod cli;

//! What jitney promises, seen from outside: one file per promise.

#![cfg(test)]

mod batches_sender;
mod canned;
mod cli;
mod http;
mod process;

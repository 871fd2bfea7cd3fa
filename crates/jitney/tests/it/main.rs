//! What jitney promises, seen from outside: one file per promise.

#![cfg(test)]

mod batches_sender;
mod bench;
mod canned;
mod cli;
mod control;
mod docs;
mod embed;
mod embedded;
mod exec;
mod first_service;
mod http;
mod log_tools;
mod logs;
mod metrics;
mod process;
mod quickstart;
mod serve;
mod submit_lines;
mod work;
mod worker;

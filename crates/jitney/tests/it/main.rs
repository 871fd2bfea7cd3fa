//! What jitney promises, seen from outside: one file per promise.

#![cfg(test)]

mod canned;
mod cli;
mod http;

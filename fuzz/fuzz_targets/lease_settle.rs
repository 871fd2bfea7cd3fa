//! A poll and a settle that are taken keep every bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| jitney::fuzzing::lease_and_settle(bytes));

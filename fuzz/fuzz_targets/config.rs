//! A configuration is good or named wrong, and the same text is always the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| jitney::fuzzing::config(bytes));

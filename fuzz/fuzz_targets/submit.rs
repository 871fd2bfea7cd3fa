//! A submit that is taken, alone or as a line, says the same when it is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| jitney::fuzzing::submit(bytes));

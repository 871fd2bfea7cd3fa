//! What a child writes is an outcome, an end, or a protocol error; what it reads is one line per job.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| jitney::fuzzing::exec_line(bytes));

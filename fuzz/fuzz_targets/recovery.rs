//! A directory opens if and only if `verify` finds no damage; a repair makes it one that does, and loses no job
//! that a start would have found.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| joblog::fuzzing::recovery(bytes));

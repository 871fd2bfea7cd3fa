//! A frame that is read can be written again as it was, and so can its records.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    joblog::fuzzing::frames(bytes);
    let mut bytes = bytes.to_vec();
    joblog::fuzzing::seal(&mut bytes);
    joblog::fuzzing::frames(&bytes);
});

//! The `jitney` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    jitney::cli::main()
}

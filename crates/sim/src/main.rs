//! `cargo xtask sim`: runs seeds of the simulation, or its mutants. See docs/simulation.md.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = sim::Arguments::parse(std::env::args().skip(1))?;
    Ok(if sim::main_with(&arguments) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

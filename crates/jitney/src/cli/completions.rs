//! `jitney completions`: what a shell needs to complete our arguments.

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;

/// Print the completions for a shell; docs/cli.md has the line that installs them
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, command: &mut Command, output: Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "jitney", &mut script);
    output.bytes(&script);
    Ok(Exit::Done)
}

//! `jitney man`: a page for each command, made of the same description that parses the arguments.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;

/// Print the man page of `jitney`, or write those of all its commands
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory, which is made if it is not there.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: ManArgs, command: Command, output: Output) -> Result<Exit, Failure> {
    let mut command = without_help(command);
    // Names of subcommands are whole only after this.
    command.build();
    let Some(directory) = args.out else {
        let page = page(&command).map_err(|error| failed("make the page", Path::new("jitney.1"), &error))?;
        output.bytes(&page);
        return Ok(Exit::Done);
    };
    fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, &error))?;
    let mut commands = vec![&command];
    let mut written = 0_usize;
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
        let path = directory.join(format!("{}.1", name(command)));
        page(command)
            .and_then(|page| fs::write(&path, page))
            .map_err(|error| failed("write", &path, &error))?;
        written += 1;
    }
    output.note(&format!("{written} pages in {}", directory.display()));
    Ok(Exit::Done)
}

/// The same commands, none of which has one that prints help: its page would say what all others say.
fn without_help(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .mut_subcommands(without_help)
}

/// The name of a command's page.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).manual("jitney").render(&mut page)?;
    Ok(page)
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Io, format!("cannot {verb} `{}`: {error}", path.display()))
}

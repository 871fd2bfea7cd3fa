//! The tasks of this repository. `cargo xtask` without arguments lists them.

mod ci;
mod container;
mod crash;
mod dist;
mod e2e;
mod figures;
mod fuzz;
mod idle;
mod powerloss;
mod step;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
cargo xtask test    builds and runs every fast test: the one command to begin with
cargo xtask tidy    checks what the compiler cannot: sizes, dependency directions, bans, links
cargo xtask ci      everything that a change must pass, in the order of .ci/run
cargo xtask sim     runs the simulator with the arguments that follow
cargo xtask crash   kills the real server and workers under load and checks what was promised: --rounds N, --seed S;
                    then a program with jitney inside: --embedded N
cargo xtask powerloss  the same rounds, but the power of the disk is cut: --rounds N, --seed S, --control N; needs root, else skipped
cargo xtask soak    one server under mixed load, and what it takes of the machine: --minutes N, --rate N, --backlog N, --seed S
cargo xtask e2e     sends a live server what its OpenAPI document allows and what it does not: --examples N, --seed S, --jitney PATH
cargo xtask figures runs every bench that has a target, in release, and prints the table of docs/performance.md: --runs N,
                    and the scenarios if not all; nothing else should run meanwhile
cargo xtask container  builds what the Dockerfile says and starts it in an empty root, without a container engine
cargo xtask dist    builds the release binary, with its symbols and line tables in a file of their own
cargo xtask idle    measures a server that has nothing to do, alone and with 10,000 connections
cargo xtask fuzz    runs the fuzz targets, or the ones named, for a while each: --seconds N, TARGET; needs nightly Rust";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            step::say(&format!("xtask: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whether the task passed; an error means that it could not run.
fn run(arguments: &[String]) -> Result<bool> {
    let root = root()?;
    let Some((task, rest)) = arguments.split_first() else {
        step::say(USAGE);
        return Ok(true);
    };
    match task.as_str() {
        "tidy" => no_more(rest).and_then(|()| tidy::run(&root)),
        "test" => no_more(rest).and_then(|()| ci::test(&root)),
        "ci" => no_more(rest).and_then(|()| ci::run(&root)),
        "sim" => ci::sim(&root, rest),
        "crash" => crash::run(&root, rest),
        "soak" => crash::soak(&root, rest),
        "powerloss" => powerloss::run(&root, rest),
        "e2e" => e2e::run(&root, rest),
        "figures" => figures::run(&root, rest),
        "idle" => idle::run(&root, rest),
        "container" => no_more(rest).and_then(|()| container::run(&root)),
        "dist" => no_more(rest).and_then(|()| dist::run(&root)),
        "fuzz" => fuzz::run(&root, rest),
        "help" | "--help" | "-h" => {
            step::say(USAGE);
            Ok(true)
        }
        other => bail!("no task is named `{other}`\n{USAGE}"),
    }
}

fn no_more(rest: &[String]) -> Result<()> {
    match rest.first() {
        Some(argument) => bail!("unexpected argument `{argument}`\n{USAGE}"),
        None => Ok(()),
    }
}

/// The root of the workspace, whatever the working directory is.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parent = here.parent().context("xtask lies in no workspace")?;
    Ok(parent.to_owned())
}

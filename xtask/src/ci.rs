//! What a change must pass, and the one command that runs the tests.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::step::{Steps, cargo, say, succeeds};
use crate::{crash, e2e, tidy};

/// Any newer cargo-deny reads our deny.toml too; this one is installed where there is none.
const CARGO_DENY: &str = "0.20.2";

/// Every check, each timed. A failed step does not hide the next ones.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let mut steps = Steps::default();
    steps.run("fmt", || succeeds(&mut cargo(root, &["fmt", "--all", "--check"])));
    steps.run("tidy", || tidy::run(root));
    steps.run("clippy", || {
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        succeeds(&mut cargo(root, &arguments))
    });
    steps.run("doc", || {
        let arguments = [
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
        ];
        succeeds(cargo(root, &arguments).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.run("deny", || deny(root));
    test_steps(root, &mut steps);
    steps.run("sim", || bounded_sim(root));
    steps.run("crash", || crash::bounded(root));
    steps.run("e2e", || e2e::bounded(root));
    Ok(steps.finish())
}

/// Builds and runs every fast test.
pub(crate) fn test(root: &Path) -> Result<bool> {
    let mut steps = Steps::default();
    test_steps(root, &mut steps);
    Ok(steps.finish())
}

/// The simulator, with its own arguments.
pub(crate) fn sim(root: &Path, arguments: &[String]) -> Result<bool> {
    let mut command = cargo(root, &["run", "--release", "--locked", "--package", "sim"]);
    // The bugs inside jitney are compiled in only where they are asked for.
    if arguments.iter().any(|argument| argument.starts_with("--mutant")) {
        command.args(["--features", "mutants"]);
    }
    succeeds(command.arg("--").args(arguments))
}

/// Fresh seeds and every mutant, as many as CI has time for. Not optimised: it runs for less time than it
/// would take to build.
fn bounded_sim(root: &Path) -> Result<bool> {
    let run = |features: &[&str], arguments: &[&str]| {
        let mut command = cargo(root, &["run", "--locked", "--package", "sim"]);
        succeeds(command.args(features).arg("--").args(arguments))
    };
    Ok(run(&[], &["--fresh", "--seeds", "1000"])? && run(&["--features", "mutants"], &["--mutants"])?)
}

fn test_steps(root: &Path, steps: &mut Steps) {
    let built = steps.run("build tests", || {
        linker()?;
        say("the first build takes some minutes");
        succeeds(&mut cargo(root, &["test", "--workspace", "--locked", "--no-run"]))
    });
    if built {
        steps.run("test", || {
            let mut command = cargo(root, &["test", "--workspace", "--locked"]);
            if !present(Command::new("python3").arg("--version")) {
                say(
                    "python3 is not installed: the tests of programs behind `jitney work --exec` (exec::) \
                     are left out; install it to run them",
                );
                command.args(["--", "--skip", "exec::"]);
            }
            succeeds(&mut command)
        });
    }
}

/// Rust links through the C compiler; without one cargo fails late and at length.
fn linker() -> Result<()> {
    if cfg!(unix) && !present(Command::new("cc").arg("--version")) {
        bail!(
            "there is no C compiler named `cc`, and Rust links through it: install gcc or clang \
             (Debian: apt-get install build-essential; Fedora: dnf install gcc; macOS: xcode-select --install)"
        );
    }
    Ok(())
}

fn deny(root: &Path) -> Result<bool> {
    if !present(&mut cargo(root, &["deny", "--version"])) {
        say(&format!("cargo-deny is not installed; installing {CARGO_DENY}"));
        // The dev profile: it runs for a second, optimizing it takes minutes.
        let arguments = [
            "install",
            "cargo-deny",
            "--version",
            CARGO_DENY,
            "--locked",
            "--profile",
            "dev",
        ];
        if !succeeds(&mut cargo(root, &arguments)).context("installing cargo-deny")? {
            bail!(
                "cargo-deny could not be installed; try `cargo install cargo-deny --version {CARGO_DENY} --locked`"
            );
        }
    }
    succeeds(&mut cargo(
        root,
        &["deny", "--locked", "check", "bans", "licenses", "sources"],
    ))
}

/// Whether the command runs and succeeds; its output is of no interest.
fn present(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

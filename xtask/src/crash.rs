//! The crash test and the soak: build the real binary in release, then run it under a program that checks it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::step::{cargo, succeeds};

/// Rounds among everything else that a change must pass: each kind of blow once; and as many of the embedded engine.
const CI_ROUNDS: &str = "7";

/// The crash test, with the arguments that follow the task's name.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    program(root, &[], arguments)
}

/// The soak, with the arguments that follow the task's name.
pub(crate) fn soak(root: &Path, arguments: &[String]) -> Result<bool> {
    program(root, &["soak"], arguments)
}

fn program(root: &Path, mode: &[&str], arguments: &[String]) -> Result<bool> {
    if !release_binaries(root)? {
        return Ok(false);
    }
    let release = target()?.join("release");
    let mut command = Command::new(release.join("crash"));
    command
        .args(mode)
        .arg("--jitney")
        .arg(release.join("jitney"))
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null());
    succeeds(&mut command)
}

/// A bounded run, with a fresh seed.
pub(crate) fn bounded(root: &Path) -> Result<bool> {
    run(root, &["--rounds".to_owned(), CI_ROUNDS.to_owned()])
}

/// Builds what runs as real processes, with one set of features for all who need it.
pub(crate) fn release_binaries(root: &Path) -> Result<bool> {
    let packages = ["--package", "jitney", "--package", "sim"];
    let mut build = cargo(root, &["build", "--release", "--locked", "--bins"]);
    succeeds(build.args(packages))
}

/// Cargo's target directory, wherever it was put: this program lies in a profile's folder of it.
pub(crate) fn target() -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find this program")?;
    let target = here.parent().and_then(Path::parent);
    Ok(target.context("this program was not built by cargo")?.to_owned())
}

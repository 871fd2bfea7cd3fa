//! The fuzz targets: each runs for a bounded time, from the seeds in fuzz/corpus.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::step::{Steps, say, succeeds};

/// The one that is installed where there is none; targets and flags are the same in any newer one.
const CARGO_FUZZ: &str = "0.13.2";

/// What libFuzzer's instrumentation needs.
const TOOLCHAIN: &str = "+nightly";

/// Every target. Each is a file of fuzz/fuzz_targets.
const TARGETS: &[&str] = &[
    "frame",
    "recovery",
    "submit",
    "lease_settle",
    "config",
    "exec_line",
];

/// Those that need nothing but the log, and build in a fraction of the time.
const LOG_TARGETS: &[&str] = &["frame", "recovery"];

/// Seconds per target where nobody says: enough to find what is near the seeds.
const SECONDS: &str = "60";

/// No input of any target is more sensible when it is longer.
const LENGTH_MAX: &str = "-max_len=65536";

/// Runs the targets named in `arguments`, or all of them.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    let mut seconds = SECONDS.to_owned();
    let mut targets = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seconds" {
            let number = rest.next().context("`--seconds` needs a number")?;
            number
                .parse::<u32>()
                .with_context(|| format!("`{number}` is no number of seconds"))?;
            seconds.clone_from(number);
        } else if let Some(target) = TARGETS.iter().find(|target| *target == argument) {
            targets.push(*target);
        } else {
            bail!(
                "no fuzz target is named `{argument}`; there are {}",
                TARGETS.join(", ")
            );
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    check_toolchain()?;
    let cargo_fuzz = cargo_fuzz()?;
    let mut steps = Steps::default();
    for target in targets {
        steps.run(target, || fuzz(root, &cargo_fuzz, target, &seconds));
    }
    Ok(steps.finish())
}

fn fuzz(root: &Path, cargo_fuzz: &Path, target: &str, seconds: &str) -> Result<bool> {
    let seeds = root.join("fuzz/corpus").join(target);
    // What the run itself finds interesting stays out of the repository.
    let found = target_directory()?.join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut command = Command::new(cargo_fuzz);
    command.args(["fuzz", "run", target]);
    if LOG_TARGETS.contains(&target) {
        command.arg("--no-default-features");
    }
    command
        .args([found.as_path(), seeds.as_path()])
        .args([
            "--",
            &format!("-max_total_time={seconds}"),
            LENGTH_MAX,
            "-print_final_stats=1",
        ])
        .env("RUSTUP_TOOLCHAIN", &TOOLCHAIN[1..])
        .env("CARGO_TARGET_DIR", target_directory()?.join("fuzz"))
        .current_dir(root)
        .stdin(Stdio::null());
    succeeds(&mut command)
}

fn check_toolchain() -> Result<()> {
    let mut probe = Command::new("cargo");
    probe
        .args([TOOLCHAIN, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!("fuzzing needs the nightly toolchain, which is not here: `rustup toolchain install nightly`")
}

/// Where cargo-fuzz is: among the programs that can be called, or in a folder of ours, where it is installed.
fn cargo_fuzz() -> Result<PathBuf> {
    let mut probe = Command::new("cargo-fuzz");
    probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Ok(PathBuf::from("cargo-fuzz"));
    }
    let tools = target_directory()?.join("tools");
    let program = tools.join("bin/cargo-fuzz");
    if program.is_file() {
        return Ok(program);
    }
    say(&format!(
        "there is no cargo-fuzz; installing {CARGO_FUZZ} into {}",
        tools.display()
    ));
    let mut install = Command::new("cargo");
    install
        .args([
            "install",
            "--locked",
            "--version",
            CARGO_FUZZ,
            "cargo-fuzz",
            "--root",
        ])
        .arg(&tools)
        .stdin(Stdio::null());
    if succeeds(&mut install)? {
        Ok(program)
    } else {
        bail!(
            "cargo-fuzz cannot be installed; is there a network? `cargo install cargo-fuzz` does it by hand"
        )
    }
}

/// Cargo's target directory, wherever it was put: this program lies in a profile's folder of it.
fn target_directory() -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find this program")?;
    let target = here.parent().and_then(Path::parent);
    Ok(target.context("this program was not built by cargo")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_file_and_its_seeds() {
        let root = crate::root().unwrap();
        let files = std::fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap();
        let mut named: Vec<String> = files
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        named.sort();
        let mut targets = TARGETS.to_vec();
        targets.sort_unstable();
        assert_eq!(named, targets);
        for target in targets {
            let seeds = std::fs::read_dir(root.join("fuzz/corpus").join(target)).unwrap();
            assert!(seeds.count() >= 2, "{target}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_before_anything_runs() {
        let root = crate::root().unwrap();
        for wrong in [&["frames"][..], &["--seconds"], &["--seconds", "long"]] {
            let arguments: Vec<String> = wrong.iter().map(|word| (*word).to_owned()).collect();
            assert!(run(&root, &arguments).is_err(), "{wrong:?}");
        }
    }
}

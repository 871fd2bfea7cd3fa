//! The release binary, and what tells where its addresses are in a file of its own: `jitney` and `jitney.debug`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::crash::target;
use crate::step::{Steps, cargo, say, succeeds};

pub(crate) fn run(root: &Path) -> Result<bool> {
    let out = target()?.join("dist");
    let mut steps = Steps::default();
    let done = steps.run("build", || {
        let arguments = [
            "build",
            "--profile",
            "dist",
            "--locked",
            "--package",
            "jitney",
            "--bin",
            "jitney",
        ];
        succeeds(&mut cargo(root, &arguments))
    }) && steps.run("split", || split(&out));
    Ok(steps.finish() && done)
}

/// Takes the symbols and line tables out of the binary, into a file that it names.
fn split(out: &Path) -> Result<bool> {
    let (whole, binary, debug) = (
        out.join("jitney"),
        out.join("bin/jitney"),
        out.join("bin/jitney.debug"),
    );
    fs::create_dir_all(out.join("bin"))?;
    fs::copy(&whole, &binary).context("the build left no `jitney`")?;
    let objcopy = |arguments: &[&str], files: &[&PathBuf]| {
        let mut command = Command::new("objcopy");
        if !succeeds(command.args(arguments).args(files))
            .context("`objcopy` is in binutils, which gcc comes with")?
        {
            bail!("objcopy {arguments:?} failed");
        }
        Ok(())
    };
    objcopy(&["--only-keep-debug"], &[&whole, &debug])?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    objcopy(&["--strip-all", &link], &[&binary])?;
    for file in [&binary, &debug] {
        say(&format!(
            "{:>6} KiB  {}",
            fs::metadata(file)?.len() >> 10,
            file.display()
        ));
    }
    succeeds(Command::new(&binary).arg("--version"))
}

//! The power-loss test: the crash test's rounds, with the data on ext4 over a loop device that loses its power.
//!
//! It needs Linux, root, loop devices and mkfs.ext4. Where one of them is missing it is skipped, and says which.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::crash;
use crate::step::{say, succeeds};

/// Does once what the test does many times. In a mount namespace of its own, as the test.
const TRIAL: &str = "\
set -e
mkdir device
truncate -s 64M image
mkfs.ext4 -q -F image
mount -t ext4 -o loop image device
grep -q ' ext4 ' /proc/self/mounts
umount device
cp image copy";

/// With the arguments that follow the task's name.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    if let Err(missing) = trial() {
        say(&format!(
            "powerloss: skipped: it needs Linux, root, loop devices and mkfs.ext4, and here: {missing:#}"
        ));
        return Ok(true);
    }
    if !crash::release_binaries(root)? {
        return Ok(false);
    }
    let release = crash::target()?.join("release");
    let mut command = in_namespace();
    command
        .arg(release.join("crash"))
        .args(["--power", "on", "--jitney"])
        .arg(release.join("jitney"))
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null());
    succeeds(&mut command)
}

/// Whether a filesystem can be made and mounted here; the error says what is missing.
fn trial() -> Result<()> {
    let directory = crash::target()?.join("powerloss-trial");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir(&directory)?;
    let mut command = in_namespace();
    command.args(["sh", "-c", TRIAL]).current_dir(&directory);
    let output = command.stdin(Stdio::null()).output();
    std::fs::remove_dir_all(&directory)?;
    let output = output.context("there is no `unshare` (util-linux)")?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A command whose mounts are its own, and go with its last process. Debian's PATH of users lacks the tools of root.
fn in_namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

//! The control of the power-loss test: the same program, but the kernel answers each sync with success and does
//! nothing. A test that does not find the loss then would not find a missing sync either.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The argument that makes a process of this binary become another program, without syncs.
pub(crate) const UNSYNCED: &str = "unsynced";

/// Becomes the program with its arguments. Returns only if it cannot.
pub(crate) fn become_program(arguments: &[String]) -> Result<()> {
    let (program, arguments) = arguments.split_first().context("which program?")?;
    ignore_syncs()?;
    let error = Command::new(program).args(arguments).exec();
    bail!("cannot become `{program}`: {error}")
}

#[cfg(target_os = "linux")]
fn ignore_syncs() -> Result<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    // An error number of 0 is success.
    let done = SeccompAction::Errno(0);
    let syncs = [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_sync_file_range,
        libc::SYS_syncfs,
        libc::SYS_sync,
        libc::SYS_msync,
    ];
    let rules = syncs.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into()?;
    let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, done, arch)?.try_into()?;
    Ok(apply_filter(&filter)?)
}

#[cfg(not(target_os = "linux"))]
fn ignore_syncs() -> Result<()> {
    bail!("only Linux can leave out the syncs of a program")
}

//! A disk that can lose its power: ext4 on a loop device over a file. What the file has is what reached the device;
//! what only the kernel's memory has is lost with a cut. Linux, root, and a mount namespace of our own
//! (`cargo xtask powerloss` sees to them), so that no mount outlives this process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::server::signal;

/// Copies of an image to which the kernel still wrote, until one is given up on: each takes long enough for the
/// writes of a server that stands still to come to an end.
const COPIES: u32 = 100;

/// A mounted device. Dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Device {
    directory: PathBuf,
    image: PathBuf,
    /// How many images there were.
    images: u32,
    /// How many times the power went.
    pub(crate) cuts: u32,
}

impl Device {
    /// The folder in a run's directory where the device is mounted.
    pub(crate) const MOUNT: &str = "device";

    /// Makes a filesystem of so many bytes, which take room only once they are written, and mounts it.
    pub(crate) async fn create(directory: &Path, bytes: u64) -> Result<Self> {
        let device = Self {
            directory: directory.to_owned(),
            image: directory.join("image-0"),
            images: 1,
            cuts: 0,
        };
        File::create(&device.image)?.set_len(bytes)?;
        fs::create_dir(device.mount_point())?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&device.image))
        .await?;
        device.mount().await?;
        Ok(device)
    }

    /// Cuts the power of a running server: what did not reach the device by now is gone, and so is the process.
    ///
    /// The process stands still while the image is copied, and the copy counts only if the kernel wrote nothing
    /// meanwhile: so it is the device as it was at one moment.
    pub(crate) async fn cut(&mut self, mut child: Child) -> Result<()> {
        signal(&child, Signal::STOP)?;
        let left = self.directory.join(format!("image-{}", self.images));
        self.copy(&left).await?;
        child.kill().await.context("cannot kill the server")?;
        // What unmounting still writes goes into the image that nobody reads any more.
        run(Command::new("umount").arg(self.mount_point())).await?;
        fs::remove_file(&self.image)?;
        self.image = left;
        self.images += 1;
        self.cuts += 1;
        // The kernel replays the filesystem's own journal.
        self.mount().await
    }

    /// Takes all the room that is left, durably.
    pub(crate) fn fill(&self) -> Result<()> {
        let file = File::create(self.ballast())?;
        let (mut bytes, mut step) = (0, 64 << 20);
        // Blocks of small devices are of 1 KiB.
        while step >= 1024 {
            match fallocate(&file, FallocateFlags::empty(), bytes, step) {
                Ok(()) => bytes += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("cannot fill the device"),
            }
        }
        Ok(file.sync_all()?)
    }

    /// Gives back what [`Device::fill`] took.
    pub(crate) fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.mount_point().join("ballast")
    }

    fn mount_point(&self) -> PathBuf {
        self.directory.join(Self::MOUNT)
    }

    async fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]);
        run(mount.arg(&self.image).arg(self.mount_point())).await
    }

    async fn copy(&self, to: &Path) -> Result<()> {
        let written = self.written()?;
        for _ in 0..COPIES {
            let before = fs::read_to_string(&written)?;
            run(Command::new("cp").arg(&self.image).arg(to)).await?;
            if is_quiet(&before, &fs::read_to_string(&written)?)? {
                return Ok(());
            }
        }
        bail!("the kernel still writes to the device of a server that stands still")
    }

    /// Where the kernel counts what it writes to the device.
    fn written(&self) -> Result<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let device = device_at(&mounts, &self.mount_point()).context("the device is not mounted")?;
        Ok(Path::new("/sys/block").join(device).join("stat"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        // Whoever still has a file open there is being killed; the mount goes with the last of them.
        if let Err(error) = unmount.arg("--lazy").arg(self.mount_point()).status() {
            crate::say(&format!("cannot unmount the device: {error}"));
        }
    }
}

/// The name of the block device that is mounted there.
fn device_at<'a>(mounts: &'a str, mount_point: &Path) -> Option<&'a str> {
    let mounted = mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let device = words.next()?;
        (Path::new(words.next()?) == mount_point).then_some(device)
    });
    mounted?.strip_prefix("/dev/")
}

/// Whether nothing was written between the two readings of a device's counters, nor under way at the second.
fn is_quiet(before: &str, after: &str) -> Result<bool> {
    /// As Documentation/block/stat.rst of the kernel counts: writes done, sectors written.
    const WRITES: [usize; 2] = [4, 6];
    const UNDER_WAY: usize = 8;
    let counters = |text: &str| -> Result<Vec<u64>> {
        let counters: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        let counters = counters.context("a counter of the device is no number")?;
        ensure!(counters.len() > UNDER_WAY, "the device has too few counters");
        Ok(counters)
    };
    let (before, after) = (counters(before)?, counters(after)?);
    Ok(after[UNDER_WAY] == 0 && WRITES.iter().all(|index| before[*index] == after[*index]))
}

/// Runs a tool to its end.
async fn run(command: &mut Command) -> Result<()> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot run `{name}`"))?;
    ensure!(
        output.status.success(),
        "`{name}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_mount_is_the_last_one_mounted_there() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\n/dev/loop1 /a/device ext4 rw 0 0\n/dev/loop4 /a/device ext4 rw 0 0\n";
        assert_eq!(device_at(mounts, Path::new("/a/device")), Some("loop4"));
        assert_eq!(device_at(mounts, Path::new("/b/device")), None);
    }

    #[test]
    fn a_device_is_quiet_if_nothing_was_written_and_nothing_is_under_way() {
        let stat = |writes: u64, sectors: u64, under_way: u64| {
            format!(" 5 0 40 1 {writes} 0 {sectors} 9 {under_way} 7 7 0 0 0 0\n")
        };
        assert!(is_quiet(&stat(3, 80, 1), &stat(3, 80, 0)).unwrap());
        for (writes, sectors, under_way) in [(4, 80, 0), (3, 88, 0), (3, 80, 1)] {
            assert!(!is_quiet(&stat(3, 80, 0), &stat(writes, sectors, under_way)).unwrap());
        }
        assert!(is_quiet("1 2", "1 2").is_err());
    }
}

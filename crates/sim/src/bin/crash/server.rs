//! The server under test: the real binary as a child process, started, killed and stopped.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jitney::clock::{Clock, SystemClock, between};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::device::Device;
use crate::unsynced::UNSYNCED;

/// Small segments, so that the log moves through many; short leases, so that dead workers are noticed
/// within a round; a cache that most jobs fall out of; bodies that hold as many of the largest jobs as a caller sends.
pub(crate) const CONFIG: &str = r#"
[server]
max_job_bytes = "16KiB"
max_body_bytes = "1MiB"
segment_bytes = "5MiB"
cache_bytes = "64KiB"
grace = "2s"

[processor.steady]
max_jobs = 16
lease = "2s"
max_attempts = 1000
max_crashes = 1000
backoff = "20ms"
backoff_max = "200ms"

[processor.brittle]
max_jobs = 8
lease = "2s"
max_attempts = 2
max_crashes = 2
backoff = "20ms"
"#;

/// A server that is not ready by then hangs.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The grace of the configuration, what a stop may take beyond it, and what a busy machine takes.
const STOP_WITHIN: Duration = Duration::from_secs(2 + 2 + 6);
/// What "at once" takes on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Where everything of a run lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// The binary under test.
    pub(crate) jitney: PathBuf,
    /// The data directory, relative to the directory of the run.
    pub(crate) data: PathBuf,
    /// What `jitney.toml` says.
    pub(crate) config: &'static str,
    /// Whether the kernel does what a sync asks for.
    pub(crate) syncs: bool,
}

/// A server that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    /// From the start of the process until it was ready.
    pub(crate) took: Duration,
}

impl Place {
    /// Writes the configuration.
    pub(crate) fn prepare(&self) -> Result<()> {
        Ok(fs::write(self.directory.join("jitney.toml"), self.config)?)
    }

    /// Where a server writes its address.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.directory.join("ready")
    }

    /// What the servers logged, the last of it.
    pub(crate) fn log_end(&self) -> String {
        const LINES: usize = 20;
        let log = fs::read_to_string(self.directory.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Starts a process, which need not become ready.
    pub(crate) fn spawn(&self) -> Result<Child> {
        // What an earlier server left would send workers to a port that is someone else's by now.
        drop(fs::remove_file(self.ready_file()));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("server.log"))?;
        let mut command = if self.syncs {
            Command::new(&self.jitney)
        } else {
            let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
            command.arg(UNSYNCED).arg(&self.jitney);
            command
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&self.data)
            .args(["--config", "jitney.toml", "--ready-file", "ready"])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start `{}`", self.jitney.display()))
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(&self) -> Result<Server> {
        let clock = SystemClock::new();
        let start = clock.now().mono;
        let mut child = self.spawn()?;
        let stdout = child.stdout.take().context("the child's output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(READY_WITHIN, lines.next_line()).await;
        let took = between(start, clock.now().mono);
        match line {
            Ok(Ok(Some(_))) => {}
            Ok(_) => {
                let status = child.wait().await?;
                bail!(
                    "the server ended before it was ready ({status}); its log ends:\n{}",
                    self.log_end()
                );
            }
            Err(_) => bail!(
                "the server is not ready after {READY_WITHIN:?}; its log ends:\n{}",
                self.log_end()
            ),
        }
        let url =
            read_url(&self.ready_file()).context("the server is ready, but its ready file is not there")?;
        Ok(Server { child, url, took })
    }
}

impl Server {
    /// The process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.alive()?;
        self.child.kill().await.context("cannot kill the server")
    }

    /// SIGTERM, and waits until it has stopped by itself.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.terminate()?;
        match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
            Ok(status) => bail!("a graceful stop ended with {}", status?),
            Err(_) => bail!("a graceful stop took longer than {STOP_WITHIN:?}"),
        }
    }

    /// SIGTERM, and after a pause again: it gives up its grace, with whatever status.
    pub(crate) async fn stop_at_once(mut self, pause: Duration) -> Result<()> {
        self.terminate()?;
        if timeout(pause, self.child.wait()).await.is_err() {
            // It may have ended just now.
            drop(self.terminate());
        }
        let ended = timeout(AT_ONCE, self.child.wait()).await;
        ended.with_context(|| format!("it runs {AT_ONCE:?} after a second signal"))??;
        Ok(())
    }

    /// The power of the device that it writes to goes, and comes back.
    pub(crate) async fn cut(mut self, device: &mut Device) -> Result<()> {
        self.alive()?;
        device.cut(self.child).await
    }

    fn terminate(&mut self) -> Result<()> {
        self.alive()?;
        signal(&self.child, Signal::TERM)
    }

    /// A server that ended by itself is a failure of its own.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the server ended by itself ({status})"),
            None => Ok(()),
        }
    }
}

/// Sends a signal to a child that was not waited for yet.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid
        .and_then(Pid::from_raw)
        .context("a child that runs has a pid")?;
    Ok(kill_process(pid, signal)?)
}

/// The URL of the server that runs now, if one does.
pub(crate) fn read_url(ready_file: &Path) -> Option<String> {
    let address = fs::read_to_string(ready_file).ok()?;
    Some(format!("http://{}", address.trim()))
}

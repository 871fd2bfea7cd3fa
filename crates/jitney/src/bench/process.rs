//! The process under test: this program again, as a server or as a yardstick.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::error::Error;
use super::machine::{self, Cores, Used};
use super::scrape::Scrape;
use super::wire::{self, Connection};
use crate::clock::{Clock as _, Mono, SystemClock};

/// How a process is started.
#[derive(Clone, Debug)]
pub(super) struct Launch<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Where it runs; no file of the user's lies there.
    pub(super) directory: PathBuf,
    /// Where it and the load run.
    pub(super) cores: Option<Cores>,
}

/// A process that listens. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    /// `None`: it was there before, and is not ours to end.
    child: Option<Child>,
    /// Kept open, so that what it prints has somewhere to go.
    _stdout: Option<BufReader<ChildStdout>>,
    pid: Option<u32>,
    pub(super) address: SocketAddr,
}

/// What a process had done at an instant.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Mono,
    pub(super) used: Option<Used>,
    /// What this process, the load, has used.
    pub(super) load: Option<Used>,
    pub(super) counts: Scrape,
}

impl Process {
    /// Starts a process and waits until it says where it listens.
    pub(super) async fn start(launch: &Launch<'_>) -> Result<Self, Error> {
        let mut child = spawn(launch)?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Error::Server("a child without output".to_owned()))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line).await;
        read.map_err(|source| Error::io("cannot read what the server prints", source))?;
        let address = line
            .trim_end()
            .rsplit_once("http://")
            .and_then(|(_, address)| address.parse().ok());
        let Some(address) = address else {
            let status = child
                .wait()
                .await
                .map_err(|source| Error::io("cannot wait for the server", source))?;
            return Err(Error::Server(format!("the server did not start: {status}")));
        };
        Ok(Self {
            pid: child.id(),
            child: Some(child),
            _stdout: Some(stdout),
            address,
        })
    }

    /// A server that runs already; what it uses is not known.
    pub(super) const fn running(address: SocketAddr) -> Self {
        Self {
            child: None,
            _stdout: None,
            pid: None,
            address,
        }
    }

    /// What it has used so far.
    pub(super) fn used(&self) -> Option<Used> {
        machine::used(self.pid?)
    }

    /// What it has done so far. A yardstick counts nothing.
    pub(super) async fn sample(&self, clock: &SystemClock) -> Result<Sample, Error> {
        let mut connection = Connection::open(self.address).await?;
        let answer = connection.exchange(&wire::get("/metrics")).await?;
        let counts = Scrape::parse(&String::from_utf8_lossy(answer.body));
        Ok(Sample {
            at: clock.now().mono,
            used: self.used(),
            load: machine::used(std::process::id()),
            counts,
        })
    }

    /// Ends it without a chance to do anything about it, and waits until it is gone.
    pub(super) async fn kill(mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            let killed = child.kill().await;
            killed.map_err(|source| Error::io("cannot kill the server", source))?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        // Its directory is removed next, and nobody may write into it any more. One that cannot be killed
        // must not hold the bench for ever.
        drop(child.start_kill());
        for _ in 0..2_000 {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn spawn(launch: &Launch<'_>) -> Result<Child, Error> {
    let mut command = Command::new(launch.program);
    // A configuration of the user's would change what is measured; Ctrl-C is the bench's to answer.
    command
        .args(&launch.arguments)
        .env_clear()
        .env("JITNEY_LOG", "warn")
        .current_dir(&launch.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .kill_on_drop(true);
    let pin = |core| machine::pin(core).map_err(|source| Error::io("cannot choose a core", source));
    // A child runs where the thread that starts it does.
    if let Some(cores) = launch.cores {
        pin(cores.server)?;
    }
    let child = command.spawn();
    if let Some(cores) = launch.cores {
        pin(cores.load)?;
    }
    child.map_err(|source| Error::io(format!("cannot start `{}`", launch.program.display()), source))
}

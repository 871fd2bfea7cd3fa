//! The workers as their keeper sees them: child processes of this same binary.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use crate::rng::Rng;
use crate::server::Place;

/// The argument that makes a process of this binary a worker.
pub(crate) const WORKER: &str = "worker";
/// The manners of a worker that does everything a worker may do.
pub(crate) const WILD: &str = "wild";
/// The manners of one that ends every job as its plan says.
pub(crate) const GOOD: &str = "good";

/// Worker processes. Dropping it kills them; they also end when their standard input does.
#[derive(Debug)]
pub(crate) struct Workers {
    place: Place,
    running: Vec<Child>,
    started: u32,
    rng: Rng,
}

impl Workers {
    pub(crate) fn new(place: Place, rng: Rng) -> Self {
        Self {
            place,
            running: Vec::new(),
            started: 0,
            rng,
        }
    }

    /// Starts as many as are missing.
    pub(crate) fn fill(&mut self, count: usize, manners: &str) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this program")?;
        while self.running.len() < count {
            self.started += 1;
            let child = Command::new(&program)
                .args([WORKER, &format!("w{}", self.started), manners])
                .arg(self.rng.next().to_string())
                .current_dir(&self.place.directory)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .context("cannot start a worker")?;
            self.running.push(child);
        }
        Ok(())
    }

    /// Kills one, if there is one.
    pub(crate) async fn kill_one(&mut self) -> Result<()> {
        if !self.running.is_empty() {
            let index = self.rng.index(self.running.len());
            let mut child = self.running.swap_remove(index);
            child.kill().await.context("cannot kill a worker")?;
        }
        Ok(())
    }

    pub(crate) async fn kill_all(&mut self) -> Result<()> {
        while !self.running.is_empty() {
            self.kill_one().await?;
        }
        Ok(())
    }

    /// A worker that ended by itself has found something wrong.
    pub(crate) fn all_alive(&mut self) -> Result<()> {
        for child in &mut self.running {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("a worker ended by itself ({status}); it says why above");
            }
        }
        Ok(())
    }
}

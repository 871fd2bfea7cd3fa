//! What the server takes of the machine at one moment: memory, threads, open files, disk. From /proc, so Linux only.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jitney::client::Client;

use super::load::Shared;
use crate::server::{Place, Server};

/// One moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) rss_kib: u64,
    pub(super) threads: u64,
    pub(super) files: u64,
    /// The files of the data directory, bytes.
    pub(super) disk: u64,
    /// What of it the server says is live.
    pub(super) live: u64,
    /// Jobs without outcome.
    pub(super) jobs: u64,
    /// The 99th percentile since the sample before, microseconds: until a submit was durable.
    pub(super) durable_us: u64,
    /// Until a caller had the result.
    pub(super) waited_us: u64,
}

impl Sample {
    pub(super) fn line(&self) -> String {
        format!(
            "{} MiB, {} threads, {} files open, {} MiB on disk of which {} live, {} jobs; p99 {:.1} ms durable, {:.1} ms result",
            self.rss_kib >> 10,
            self.threads,
            self.files,
            self.disk >> 20,
            self.live >> 20,
            self.jobs,
            millis(self.durable_us),
            millis(self.waited_us),
        )
    }
}

/// Microseconds as milliseconds, to be read.
pub(super) fn millis(micros: u64) -> f64 {
    u32::try_from(micros).map_or(f64::INFINITY, |micros| f64::from(micros) / 1_000.0)
}

pub(super) async fn sample(server: &Server, place: &Place, shared: &Shared) -> Result<Sample> {
    let process = Path::new("/proc").join(server.pid().context("the server runs")?.to_string());
    let status = fs::read_to_string(process.join("status"))?;
    let window = shared.window();
    let info = info(&shared.client()).await?;
    let usage = |name: &str| {
        info["usage"][name]
            .as_u64()
            .context("the server says what it uses")
    };
    Ok(Sample {
        rss_kib: field(&status, "VmRSS:")?,
        threads: field(&status, "Threads:")?,
        files: u64::try_from(fs::read_dir(process.join("fd"))?.count())?,
        live: usage("live_bytes")?,
        jobs: usage("jobs")?,
        // After what it is measured by: what is let go meanwhile is not there any more.
        disk: bytes(&place.directory.join(&place.data))?,
        durable_us: p99(&window.durable),
        waited_us: p99(&window.waited),
    })
}

/// Jobs without outcome, now.
pub(super) async fn unsettled(client: &Client) -> Result<u64> {
    let info = info(client).await?;
    info["usage"]["jobs"].as_u64().context("the server says how many")
}

async fn info(client: &Client) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(client.info().await?.json())?)
}

fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("/proc says nothing of `{name}`"))
}

/// A file that goes while they are counted counts nothing.
fn bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}

/// Of times in order.
pub(super) fn p99(times: &[u64]) -> u64 {
    let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or(0)
}

//! The figures at the end: how fast, how full the batches were, how many syncs it took.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::live::Batches;
use super::orders::Seen;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::client::Client;

/// The widest bar of the batch sizes.
const BAR_MAX: u64 = 40;

/// The part of `/v1/info` that is shown.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Usage {
    /// Finished jobs that can still be read.
    pub(super) results: u64,
    /// Jobs that are not done.
    pub(super) jobs: u64,
    syncs: u64,
}

#[derive(Deserialize)]
struct Info {
    usage: Usage,
}

/// What it came to.
#[derive(Debug)]
pub(super) struct Figures {
    orders: u32,
    seen: Seen,
    batches: Batches,
    syncs: u64,
}

impl Usage {
    pub(super) async fn of(client: &Client) -> Result<Self, Failure> {
        let info = client.info().await?;
        let info: Info = serde_json::from_str(info.json())
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot read the server's usage: {error}")))?;
        Ok(info.usage)
    }
}

impl Figures {
    pub(super) fn new(orders: u32, seen: Seen, batches: Batches, before: Usage, after: Usage) -> Self {
        Self {
            orders,
            seen,
            batches,
            syncs: after.syncs.saturating_sub(before.syncs),
        }
    }

    pub(super) fn print(&self, output: Output) {
        let latency = |quantile| Duration::from_micros(self.seen.latency.value_at_quantile(quantile));
        let (p50, p99) = (latency(0.50), latency(0.99));
        let orders = f64::from(self.orders);
        let rate = orders / self.seen.took.as_secs_f64().max(f64::EPSILON);
        let mean = orders / ratio(self.batches.count().max(1));
        let syncs = ratio(self.syncs) / orders;
        if output.json {
            let figures = json!({
                "orders": self.orders,
                "seconds": self.seen.took.as_secs_f64(),
                "jobs_per_second": rate,
                "p50_ms": p50.as_secs_f64() * 1e3,
                "p99_ms": p99.as_secs_f64() * 1e3,
                "batches": self.batches.count(),
                "batch_sizes": self.batches.sizes,
                "fsyncs_per_job": syncs,
                "job": self.seen.example.id.to_string(),
            });
            return output.line(&figures.to_string());
        }
        let example = &self.seen.example;
        output.line("");
        output.line(&format!("  One caller sent   {}", example.sent));
        output.line(&format!("  and got           {}", example.got));
        output.line("  Every caller got its own order back.");
        output.line("");
        output.line(&format!(
            "  speed    {rate:.0} jobs/s: {} orders in {:.2} s",
            self.orders,
            self.seen.took.as_secs_f64()
        ));
        output.line(&format!(
            "  latency  p50 {}, p99 {}, from submit to the caller's own result",
            millis(p50),
            millis(p99)
        ));
        output.line(&format!(
            "  disk     {syncs:.2} fsyncs per job ({} in all), though each order and each result is on disk before anyone hears of it",
            self.syncs
        ));
        output.line(&format!(
            "  batches  {} of {mean:.1} orders on average; how many of which size:",
            self.batches.count()
        ));
        self.print_sizes(output);
    }

    fn print_sizes(&self, output: Output) {
        let most = self.batches.sizes.values().copied().max().unwrap_or(1);
        for (size, count) in &self.batches.sizes {
            let width = (count * BAR_MAX).div_ceil(most);
            let bar = "#".repeat(usize::try_from(width).unwrap_or(0));
            output.line(&format!("           {size:>3}  {bar} {count}"));
        }
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// A count as a number to divide with; beyond 32 bits it would only be a figure's last digits.
fn ratio(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

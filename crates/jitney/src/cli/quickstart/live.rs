//! What is seen while the orders run: how they gather into batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::output::Output;

/// How often the line is drawn again.
const FRAME: Duration = Duration::from_millis(50);

/// Where there is no terminal: one plain line each time so many more of ten parts are done.
const PARTS: u32 = 10;

/// The batches so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    /// How many of each size.
    pub(super) sizes: BTreeMap<usize, u64>,
    /// The size of the last.
    last: usize,
}

impl Batches {
    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.sizes.values().sum()
    }

    fn add(&mut self, size: usize) {
        *self.sizes.entry(size).or_default() += 1;
        self.last = size;
    }
}

/// Draws until all `orders` are done and counted. Dropping it stops the drawing.
pub(super) struct Live {
    output: Output,
    orders: u32,
    done: Arc<AtomicU32>,
    batches: Batches,
    /// Lines printed where there is no terminal.
    parts_shown: u32,
}

impl Live {
    pub(super) fn new(output: Output, orders: u32, done: Arc<AtomicU32>) -> Self {
        Self {
            output,
            orders,
            done,
            batches: Batches::default(),
            parts_shown: 0,
        }
    }

    /// Draws while `run` runs, and gives back its result with the batches that it made.
    pub(super) async fn during<T>(
        mut self,
        run: impl Future<Output = T>,
        sizes: &mut Receiver<usize>,
    ) -> (T, Batches) {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(run);
        let ran = loop {
            tokio::select! {
                ran = &mut run => break ran,
                // Cancel-safe: a size that is not taken stays in the channel.
                Some(size) = sizes.recv() => self.batches.add(size),
                _ = frames.tick() => self.draw(),
            }
        };
        while let Ok(size) = sizes.try_recv() {
            self.batches.add(size);
        }
        self.draw();
        if self.output.is_live() && !self.output.json {
            self.output.live("");
        }
        (ran, self.batches)
    }

    fn draw(&mut self) {
        if self.output.json {
            return;
        }
        let done = self.done.load(Ordering::Relaxed);
        let (orders, batches, last) = (self.orders, self.batches.count(), self.batches.last);
        if self.output.is_live() {
            let bar = "#".repeat(last);
            self.output.live(&format!(
                "  {done:>6} of {orders} orders back   {batches:>4} batches   the last: {bar:<16} {last:>2}"
            ));
            return;
        }
        let part =
            u32::try_from(u64::from(done) * u64::from(PARTS) / u64::from(orders.max(1))).unwrap_or(PARTS);
        if part > self.parts_shown {
            self.parts_shown = part;
            self.output.line(&format!(
                "  {done} of {orders} orders back, in {batches} batches, the last of {last}"
            ));
        }
    }
}

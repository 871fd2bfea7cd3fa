//! What one job costs the dispatcher: enqueue, lease and settle, with 1k, 1M and 10M others pending.

use divan::Bencher;
use divan::counter::ItemsCount;
use jitney::bench::dispatcher::Steps;

fn main() {
    divan::main();
}

/// 64 jobs per iteration; the number of pending jobs stays as it is.
#[divan::bench(args = [1_000, 1_000_000, 10_000_000], sample_count = 200, sample_size = 20)]
fn step(bencher: Bencher<'_, '_>, pending: u64) {
    let mut steps = Steps::new(pending);
    bencher
        .counter(ItemsCount::new(64_u32))
        .bench_local(|| steps.cycle());
}

//! Whether anything grew: the samples in, one verdict per promise out.

use std::sync::atomic::Ordering;

use super::load::Shared;
use super::watch::{Sample, millis};
use super::{Backlog, CACHE_BYTES, SEGMENT_BYTES};

/// Memory that may come and go with the load of the moment, KiB.
const RSS_SLACK_KIB: u64 = 16 << 10;
/// Threads, and open files beside connections, that may come and go.
const COUNT_SLACK: u64 = 8;
/// Latency that a busy machine may add, microseconds.
const LATENCY_SLACK_US: u64 = 10_000;
/// What a waiting job may take in memory beside the cache of payloads, bytes.
const JOB_BYTES: u64 = 200;
/// Of a hundred samples, how many may be taken while the copying has yet to catch up.
const BEHIND_PERCENT: usize = 5;

/// One of the figures of a sample.
type Figure = fn(&Sample) -> u64;

/// One promise.
pub(super) struct Verdict {
    pub(super) passed: bool,
    text: String,
}

impl Verdict {
    fn new(passed: bool, text: String) -> Self {
        Self { passed, text }
    }

    pub(super) fn line(&self) -> String {
        format!("{:<8}{}", if self.passed { "ok" } else { "FAILED" }, self.text)
    }
}

pub(super) fn of(samples: &[Sample], backlog: Backlog, shared: &Shared) -> Vec<Verdict> {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (wrong, some) = shared.findings();
    let mut verdicts = vec![Verdict::new(
        wrong == 0,
        format!(
            "{} jobs were accepted and worked off, {} results came to their callers, {wrong} calls went wrong {some:?}",
            count(&shared.accepted),
            count(&shared.results)
        ),
    )];
    verdicts.extend(grown(samples));
    verdicts.push(within_bound(samples));
    verdicts.push(backlog_fits(backlog));
    verdicts
}

/// The last third of the samples beside the first, by their medians: a moment in which the machine stood still is no
/// growth.
fn grown(samples: &[Sample]) -> Vec<Verdict> {
    let third = samples.len() / 3;
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let middle = |of: &[Sample], what: Figure| {
        let mut values: Vec<u64> = of.iter().map(what).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let mut verdicts = Vec::new();
    let rss = |sample: &Sample| sample.rss_kib;
    let (before, after) = (middle(first, rss), middle(last, rss));
    verdicts.push(Verdict::new(
        after <= before + before / 10 + RSS_SLACK_KIB,
        format!("memory: {} MiB, then {} MiB", before >> 10, after >> 10),
    ));
    let counts: [(&str, Figure); 2] = [
        ("threads", |sample| sample.threads),
        ("open files", |sample| sample.files),
    ];
    for (name, what) in counts {
        let (before, after) = (middle(first, what), middle(last, what));
        verdicts.push(Verdict::new(
            after <= before + COUNT_SLACK,
            format!("{name}: {before}, then {after}"),
        ));
    }
    let latencies: [(&str, Figure); 2] = [
        ("p99 until a submit is durable", |sample| sample.durable_us),
        ("p99 until a result is there", |sample| sample.waited_us),
    ];
    for (name, what) in latencies {
        let (before, after) = (middle(first, what), middle(last, what));
        verdicts.push(Verdict::new(
            after <= before * 2 + LATENCY_SLACK_US,
            format!("{name}: {:.1} ms, then {:.1} ms", millis(before), millis(after)),
        ));
    }
    verdicts
}

/// Three times what is live, and six segments, once the copying has caught up.
fn within_bound(samples: &[Sample]) -> Verdict {
    let bound = |sample: &Sample| 3 * sample.live + 6 * SEGMENT_BYTES;
    let behind = samples
        .iter()
        .filter(|sample| sample.disk > bound(sample))
        .count();
    let worst = samples
        .iter()
        .map(|sample| sample.disk * 100 / bound(sample))
        .max();
    Verdict::new(
        behind * 100 <= samples.len() * BEHIND_PERCENT,
        format!(
            "disk: beyond 3 x live + 6 segments in {behind} of {} samples, at most {} % of it",
            samples.len(),
            worst.unwrap_or(0)
        ),
    )
}

fn backlog_fits(backlog: Backlog) -> Verdict {
    let more = backlog.after_kib.saturating_sub(backlog.before_kib) << 10;
    let limit = backlog.jobs * JOB_BYTES + CACHE_BYTES + (RSS_SLACK_KIB << 10);
    Verdict::new(
        more <= limit,
        format!(
            "a backlog of {} jobs: {} MiB more, at most {} MiB",
            backlog.jobs,
            more >> 20,
            limit >> 20
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady() -> Vec<Sample> {
        let sample = |n: u64| Sample {
            rss_kib: 50_000 + n % 3 * 1_000,
            threads: 6,
            files: 40 + n % 4,
            disk: 18 << 20,
            live: 3 << 20,
            jobs: n % 7,
            durable_us: 1_500 + n % 5 * 100,
            waited_us: 4_000 + n % 5 * 100,
        };
        (0..60).map(sample).collect()
    }

    fn failed(samples: &[Sample]) -> usize {
        let all = grown(samples).into_iter().chain([within_bound(samples)]);
        all.filter(|verdict| !verdict.passed).count()
    }

    #[test]
    fn what_stays_where_it_is_passes_and_what_grows_does_not() {
        assert_eq!(failed(&steady()), 0);
        let spoils: [fn(&mut Sample, u64); 6] = [
            |sample, n| sample.rss_kib += n * 1_000,
            |sample, n| sample.threads += n / 4,
            |sample, n| sample.files += n,
            |sample, n| sample.durable_us += n * 500,
            |sample, n| sample.waited_us += n * 1_000,
            |sample, _| sample.disk += 4 << 20,
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let mut samples = steady();
            for (n, sample) in (0..).zip(&mut samples) {
                spoil(sample, n);
            }
            assert_eq!(failed(&samples), 1, "spoiled as {at}");
        }
    }

    #[test]
    fn a_backlog_may_take_its_index_and_no_more() {
        let backlog = |after_kib| Backlog {
            jobs: 1_000_000,
            before_kib: 50_000,
            after_kib,
        };
        assert!(backlog_fits(backlog(50_000 + 190_000)).passed);
        assert!(!backlog_fits(backlog(50_000 + 300_000)).passed);
    }

    #[test]
    fn the_99th_percentile_leaves_out_one_in_a_hundred() {
        let times: Vec<u64> = (1..=200).collect();
        assert_eq!(super::super::watch::p99(&times), 199);
        assert_eq!(super::super::watch::p99(&[7]), 7);
        assert_eq!(super::super::watch::p99(&[]), 0);
    }
}

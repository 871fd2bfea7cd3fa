//! How fast jobs end: an average that forgets, for the wait that a caller is told.

use std::time::Duration;

use crate::clock::{Mono, between};

/// After this long an old end weighs 1/e of a new one.
const MEMORY: Duration = Duration::from_secs(30);

/// Jobs ended per second, recent ones weighing more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    weight: f64,
    first: Option<Mono>,
    last: Mono,
}

impl Rate {
    /// One job ended.
    pub(super) fn count(&mut self, now: Mono) {
        self.weight = self.weight * decay(between(self.last, now)) + 1.0;
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// How long `jobs` take at the rate of the last end; `None` if none ended yet.
    pub(super) fn time_for(&self, jobs: u64) -> Option<Duration> {
        let seen = between(self.first?, self.last).max(Duration::from_secs(1));
        let per_second = self.weight / (MEMORY.as_secs_f64() * (1.0 - decay(seen)));
        let jobs = f64::from(u32::try_from(jobs).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(jobs / per_second).ok()
    }
}

fn decay(time: Duration) -> f64 {
    (-time.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_predicts_the_wait() {
        let mut rate = Rate::default();
        assert_eq!(rate.time_for(1), None);
        for n in 0..6000_u64 {
            rate.count(Mono(n * 10_000));
        }
        let wait = rate.time_for(1000).unwrap().as_secs_f64();
        assert!((9.5..10.5).contains(&wait), "{wait}");
    }
}

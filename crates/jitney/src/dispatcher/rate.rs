//! How fast jobs come and go: an average that forgets, for the wait that a caller is told.

use std::time::Duration;

use crate::clock::{Mono, between};

/// After this long an old end weighs 1/e of a new one.
const MEMORY: Duration = Duration::from_secs(30);

/// Jobs per second, recent ones weighing more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    weight: f64,
    first: Option<Mono>,
    last: Mono,
}

impl Rate {
    /// Nothing happened yet.
    pub(super) const NONE: Self = Self {
        weight: 0.0,
        first: None,
        last: Mono(0),
    };

    /// One job came, or went.
    pub(super) fn count(&mut self, now: Mono) {
        if now != self.last {
            self.weight *= decay(between(self.last, now));
        }
        self.weight += 1.0;
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// Jobs per second as of `now`.
    pub(super) fn per_second(&self, now: Mono) -> f64 {
        self.first.map_or(0.0, |first| {
            self.rate(first, now) * decay(between(self.last, now))
        })
    }

    /// How long `jobs` take at the rate of the last one; `None` if there was none yet.
    pub(super) fn time_for(&self, jobs: u64) -> Option<Duration> {
        let per_second = self.rate(self.first?, self.last);
        let jobs = f64::from(u32::try_from(jobs).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(jobs / per_second).ok()
    }

    /// The weight of what was counted from `first` to `until`, over the weight of that time.
    fn rate(&self, first: Mono, until: Mono) -> f64 {
        let seen = between(first, until).max(Duration::from_secs(1));
        self.weight / (MEMORY.as_secs_f64() * (1.0 - decay(seen)))
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
        let at_once = rate.per_second(Mono(60_000_000));
        assert!((95.0..105.0).contains(&at_once), "{at_once}");
        let later = rate.per_second(Mono(360_000_000));
        assert!((0.0..0.1).contains(&later), "{later}");
    }
}

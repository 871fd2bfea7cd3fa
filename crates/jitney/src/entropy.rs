//! Randomness from the operating system: comes in here and nowhere else.
//!
//! For ids, keys and jitter at the edge. The dispatcher, the driver and the simulator never call it.

use std::time::Duration;

/// 64 random bits.
///
/// # Panics
/// If the operating system has no random source, which no supported system is without.
#[must_use]
pub fn random_u64() -> u64 {
    getrandom::u64().expect("every supported operating system has a random source once it is booted")
}

/// 128 random bits as 32 hexadecimal digits: an idempotency key, the id of a poll.
///
/// # Panics
/// As [`random_u64`].
#[must_use]
pub fn random_name() -> String {
    format!("{:016x}{:016x}", random_u64(), random_u64())
}

/// A random duration of at least half of `full` and less than all of it, so that many who failed together
/// do not come back together.
///
/// # Panics
/// As [`random_u64`].
#[must_use]
pub fn jittered(full: Duration) -> Duration {
    let half = full / 2;
    // 16 bits are plenty to spread callers.
    let [low, high, ..] = random_u64().to_le_bytes();
    let fraction = u32::from(u16::from_le_bytes([low, high]));
    half + half.saturating_mul(fraction) / (1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_differ() {
        assert_ne!(random_name(), random_name());
        assert_eq!(random_name().len(), 32);
    }

    #[test]
    fn jitter_stays_between_half_and_full() {
        let full = Duration::from_secs(8);
        for _ in 0..100 {
            let jittered = jittered(full);
            assert!(jittered >= full / 2 && jittered < full, "{jittered:?}");
        }
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}

//! Numbers for made-up ids: the same in every run, so that runs compare.

/// A xorshift generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Numbers from a seed.
    #[must_use]
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// The next one.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A letter or digit.
    pub(super) fn byte(&mut self) -> u8 {
        const BYTES: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
        let at = self.next() >> 58;
        BYTES[usize::try_from(at).unwrap_or(0)]
    }
}

//! The share of a lower lane: how many jobs of the lanes above may still go before it is owed a batch.

use crate::mutants::{Mutant, active};
use crate::policy::LaneShare;

/// One lane's countdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Jobs from above per job of this lane; `None`: strict order.
    above: Option<u32>,
    /// Jobs from above until it is owed.
    left: u64,
    /// Since which dispatch it is owed.
    owed: Option<u64>,
}

impl Share {
    pub(super) fn new(share: LaneShare) -> Self {
        let mut new = Self {
            above: share.above.map(|above| above.max(1)),
            left: 0,
            owed: None,
        };
        new.reset();
        new
    }

    /// Takes over a changed share; the count starts again only if it changed.
    pub(super) fn set(&mut self, new: Self) {
        if self.above != new.above {
            *self = new;
        }
    }

    /// Since which dispatch the lane is owed.
    pub(super) const fn owed(&self) -> Option<u64> {
        self.owed
    }

    /// `jobs` of a lane above went while this one waited.
    pub(super) fn passed(&mut self, jobs: u64, dispatch: u64) {
        if self.above.is_some() && self.owed.is_none() && !active(Mutant::ForgetShare) {
            self.left = self.left.saturating_sub(jobs);
            if self.left == 0 {
                self.owed = Some(dispatch);
            }
        }
    }

    /// `jobs` of this lane went on its share.
    pub(super) fn served(&mut self, jobs: u64) {
        self.owed = None;
        self.left = u64::from(self.above.unwrap_or(0)).saturating_mul(jobs);
    }

    /// Nothing of this lane waits: what it was owed is forgotten.
    pub(super) fn reset(&mut self) {
        self.owed = None;
        self.left = u64::from(self.above.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_from_above_owe_one_and_n_served_cost_fifteen_n() {
        let mut share = Share::new(LaneShare { above: Some(15) });
        share.passed(14, 1);
        assert_eq!(share.owed(), None);
        share.passed(64, 2);
        assert_eq!(share.owed(), Some(2));
        share.passed(64, 3);
        assert_eq!(share.owed(), Some(2));
        share.served(16);
        share.passed(239, 4);
        assert_eq!(share.owed(), None);
        share.passed(1, 5);
        assert_eq!(share.owed(), Some(5));
        share.reset();
        share.passed(14, 6);
        assert_eq!(share.owed(), None);
    }

    #[test]
    fn strict_is_never_owed() {
        let mut share = Share::new(LaneShare { above: None });
        share.passed(u64::MAX, 1);
        assert_eq!(share.owed(), None);
    }
}

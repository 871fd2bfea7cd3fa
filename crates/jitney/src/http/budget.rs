//! Bounds the memory that request bodies take, over all connections.
//!
//! In: how much of a body came. Out: whether there is room for it. What was taken is given back when the last
//! piece of the body is dropped: when its jobs or outcomes are on disk, or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// A body that is no larger came in the first buffer of its connection, and is not counted: `connections_max`
/// bounds these.
const FREE_BYTES: u64 = 8 << 10;

/// The part of the limit that workers may use beyond it: what they bring lets the queue empty.
const WORK_DIVISOR: u64 = 4;

/// The bytes of bodies that there may be.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes that are held now; changed by every [`Share`].
    held: AtomicU64,
    /// `bodies_bytes_max`.
    limit: u64,
}

/// What one body holds.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// What the body may take the whole to.
    limit: u64,
    /// Bytes that came.
    came: u64,
    /// Bytes of them that count.
    held: u64,
}

impl Budget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            held: AtomicU64::new(0),
            limit,
        }
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Begins a body, of a worker or of a caller.
    pub(crate) fn share(self: &Arc<Self>, of_worker: bool) -> Share {
        let more = if of_worker { self.limit / WORK_DIVISOR } else { 0 };
        Share {
            budget: Arc::clone(self),
            limit: self.limit.saturating_add(more),
            came: 0,
            held: 0,
        }
    }
}

impl Share {
    /// Takes room for so much more of the body. Says whether there is room.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.came = self.came.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.came <= FREE_BYTES {
            return true;
        }
        let more = self.came - self.held;
        let before = self.budget.held.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.limit {
            self.budget.held.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.held = self.came;
        true
    }

    /// What it may take the whole to.
    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// The body, which gives its room back once nothing of it is left.
    pub(crate) fn keep(self, body: Bytes) -> Bytes {
        match self.held {
            0 => body,
            _ => Bytes::from_owner(Kept { body, _share: self }),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// A body and its room.
struct Kept {
    body: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn a_body_holds_its_room_until_its_last_piece_is_gone() {
        let budget = Arc::new(Budget::new(100 << 10));
        let mut share = budget.share(false);
        assert!(share.grow(8 * KIB));
        assert_eq!(budget.held(), 0);
        assert!(share.grow(KIB));
        assert_eq!(budget.held(), 9 << 10);
        let body = share.keep(Bytes::from(vec![7; 9 * KIB]));
        let piece = body.slice_ref(&body[5..6]);
        drop(body);
        assert_eq!(budget.held(), 9 << 10);
        drop(piece);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn beyond_the_limit_only_workers_find_room_and_they_not_without_end() {
        let budget = Arc::new(Budget::new(100 << 10));
        let mut first = budget.share(false);
        assert!(first.grow(100 * KIB));
        let mut second = budget.share(false);
        assert!(!second.grow(9 * KIB));
        assert_eq!(budget.held(), 100 << 10);
        let mut worker = budget.share(true);
        assert!(worker.grow(25 * KIB));
        assert!(!worker.grow(1));
        drop((first, second, worker));
        assert_eq!(budget.held(), 0);
    }
}

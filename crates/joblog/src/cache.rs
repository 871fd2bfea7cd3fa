//! The frames that were written last, so that reading a recent record copies nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::index::Place;
use crate::log::Slice;

/// A frame's buffer, and where it was written.
struct Entry {
    slot: u32,
    offset: u32,
    frame: Arc<Vec<u8>>,
}

/// First in, first out; bounded in bytes.
pub(crate) struct Cache {
    /// In the order of the log, so that a search can halve it.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn put(&mut self, slot: u32, offset: u32, frame: Arc<Vec<u8>>) {
        self.bytes += frame.capacity();
        self.entries.push_back(Entry { slot, offset, frame });
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.frame.capacity();
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<Slice> {
        let wanted = (place.slot, place.offset);
        let behind = self
            .entries
            .partition_point(|entry| (entry.slot, entry.offset) <= wanted);
        let entry = self
            .entries
            .get(behind.checked_sub(1)?)
            .filter(|entry| entry.slot == place.slot)?;
        let start = usize::try_from(place.offset - entry.offset).ok()?;
        let end = start.checked_add(usize::try_from(place.bytes).ok()?)?;
        (end <= entry.frame.len()).then(|| Slice::new(Arc::clone(&entry.frame), start..end))
    }
}

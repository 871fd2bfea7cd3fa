//! The segments that are there, by slot: a number that this process gives, in the order in which it met them.

use std::collections::VecDeque;

use super::Segment;

pub(crate) struct Segments<F> {
    slots: VecDeque<Option<Segment<F>>>,
    first: u32,
}

impl<F> Segments<F> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
        }
    }

    /// Gives the slot that the segment got.
    pub(crate) fn push(&mut self, segment: Segment<F>) -> u32 {
        let slot = self.next_slot();
        self.slots.push_back(Some(segment));
        slot
    }

    /// The slot that the next segment gets.
    pub(crate) fn next_slot(&self) -> u32 {
        let count = u32::try_from(self.slots.len()).expect("segments are counted in 32 bits");
        self.first + count
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Segment<F>> {
        self.slots.get(self.at(slot)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Segment<F>> {
        let at = self.at(slot)?;
        self.slots.get_mut(at)?.as_mut()
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Segment<F>> {
        let at = self.at(slot)?;
        let segment = self.slots.get_mut(at)?.take();
        while self.slots.pop_front_if(|slot| slot.is_none()).is_some() {
            self.first += 1;
        }
        segment
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Segment<F>)> {
        let slots = (self.first..).zip(&self.slots);
        slots.filter_map(|(slot, segment)| Some((slot, segment.as_ref()?)))
    }

    fn at(&self, slot: u32) -> Option<usize> {
        usize::try_from(slot.checked_sub(self.first)?).ok()
    }
}

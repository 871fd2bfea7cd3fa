//! Two virtual clocks: `mono` only goes where the world moves it, `wall` follows with an offset that jumps.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use jitney::clock::{Clock, Mono, Now, WallMs};

/// The world's clocks; clones show the same time.
#[derive(Clone, Debug)]
pub(crate) struct SimClock {
    mono: Rc<Cell<u64>>,
    /// Wall milliseconds at mono zero.
    offset: Rc<Cell<u64>>,
}

/// 2025-01-01: any date will do.
const WALL_START: u64 = 1_735_689_600_000;

impl SimClock {
    pub(crate) fn new() -> Self {
        Self {
            mono: Rc::new(Cell::new(0)),
            offset: Rc::new(Cell::new(WALL_START)),
        }
    }

    pub(crate) fn micros(&self) -> u64 {
        self.mono.get()
    }

    pub(crate) fn advance_to(&self, micros: u64) {
        self.mono.set(self.mono.get().max(micros));
    }

    /// Moves the wall clock forwards or backwards; `mono` does not notice.
    pub(crate) fn jump(&self, forwards: bool, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let offset = self.offset.get();
        self.offset.set(if forwards {
            offset.saturating_add(by)
        } else {
            offset.saturating_sub(by)
        });
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let mono = self.mono.get();
        Now {
            mono: Mono(mono),
            wall: WallMs(self.offset.get() + mono / 1_000),
        }
    }
}

//! What goes wrong with the server and the machine, and the peace at the end.

use std::time::Duration;

use jitney::driver::port::Inbound;

use super::{Happening, SECOND, World};
use crate::plan::draw_policies;

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.below(2 * self.plan.fault_gap) + 1;
        self.after(next, Happening::Fault);
        let faults = self.plan.faults;
        let kind = self.rng.below(12);
        self.armed |= matches!(kind, 5..=7);
        match kind {
            0 | 1 if faults.kill => self.crash(false),
            2 | 3 if faults.power => self.crash(true),
            4 if faults.disk_full => self.fill_disk(),
            5 if faults.failed_sync => self.disk.fail_next_sync(),
            6 if faults.failed_write => {
                if self.rng.permille(700) {
                    let bytes = self.rng.index(600);
                    self.checker.disk_was_full();
                    self.disk.fail_next_write_full(bytes);
                } else {
                    self.disk.fail_next_write();
                }
            }
            7 if faults.failed_sync => self.disk.fail_next_dir_sync(),
            8 | 9 if faults.wall_jumps => self.jump(),
            10 if faults.stops => {
                let grace = self.rng.millis(0, 15_000);
                self.tell(Inbound::Stop { grace });
            }
            11 if faults.policy_changes => {
                let policies = draw_policies(&self.plan.processors, &mut self.rng);
                self.tell(Inbound::Policies(policies));
            }
            _ => {}
        }
    }

    fn fill_disk(&mut self) {
        let room = self.rng.below(4) * self.plan.segment_bytes / 2;
        self.disk.set_capacity(Some(self.disk.used() + room));
        self.checker.disk_was_full();
        self.disk_full = true;
        let later = self.rng.range(SECOND / 10, 60 * SECOND);
        self.after(later, Happening::Room);
    }

    pub(super) fn room_returns(&mut self) {
        self.disk.set_capacity(None);
        self.disk_full = false;
    }

    fn jump(&mut self) {
        let forwards = self.rng.permille(500);
        let by = Duration::from_secs(self.rng.range(1, 7_200));
        self.clock.jump(forwards, by);
        if forwards {
            self.checker.jumped(by);
        }
    }

    fn tell(&mut self, inbound: Inbound) {
        if let Some(server) = &self.server {
            let boot = server.boot;
            self.after(0, Happening::Inbound(boot, inbound));
        }
    }

    /// The faults are over: there is room, workers behave, and the server comes back.
    pub(super) fn begin_calm(&mut self) {
        self.room_returns();
        if self.server.is_none() && !self.reopening {
            self.schedule_open();
        }
        self.wake_workers();
    }

    /// Cuts the power once more and looks whether everything that was promised is there.
    pub(super) fn last_rites(&mut self) {
        if self.plan.memory {
            return self.audit();
        }
        self.crash(true);
        while self.server.is_none() && self.failed.is_none() && self.step() {}
        self.audit();
    }
}

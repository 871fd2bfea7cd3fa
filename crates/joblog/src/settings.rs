//! Settings: names and values that outlive a restart, the newest of each name.
//!
//! In: setting records as they become durable, or as recovery reads them. Out: the value of each name, and which
//! segments hold something that must stay. The log owns it.
//!
//! Versions only grow, so the newest copy of a name wins wherever its copies stand. A removal is remembered as
//! long as a segment holds an older copy of its name: forgotten earlier, the next start would bring that back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::live::Live;
use crate::record::{Record, Setting};

/// The longest name, bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// How many names there may be: all of them are in memory.
pub const SETTINGS_MAX: usize = 10_000;

/// How long all names and values together may be, bytes: all of them are in memory.
pub const SETTINGS_BYTES_MAX: usize = 16 << 20;

const _: () = assert!(NAME_BYTES_MAX + VALUE_BYTES_MAX <= SETTINGS_BYTES_MAX);

/// Why a setting is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The name, or the value, is longer than it may be.
    TooLarge { bytes: usize, limit: usize },
    /// There are too many.
    Full,
}

#[derive(Default)]
pub(crate) struct Settings {
    entries: BTreeMap<Box<str>, Entry>,
    /// The highest version so far, queued records included.
    newest: u64,
    /// Names and values in `entries`, bytes.
    bytes: usize,
    /// Queued records: how many, and their names and values.
    queued: (usize, usize),
}

#[derive(Default)]
struct Entry {
    version: u64,
    /// `None`: removed.
    value: Option<Arc<[u8]>>,
    /// The segment that holds this version.
    slot: u32,
    /// The segments that hold a copy of any version, this one included.
    slots: Vec<u32>,
    /// What is counted as live for it, and where.
    counted: Option<(u32, u64)>,
}

impl Settings {
    /// A record is queued; gives it its version.
    pub(crate) fn queue<'a>(&mut self, setting: &Setting<'a>) -> Setting<'a> {
        self.newest += 1;
        let (count, bytes) = self.queued;
        self.queued = (count + 1, bytes + weight(setting.name, setting.value));
        Setting {
            version: self.newest,
            ..*setting
        }
    }

    /// Whether records may be queued. Those that wait count as if each brought a new name.
    pub(crate) fn check<'r, 'a: 'r>(&self, records: &'r [Record<'a>]) -> Result<(), Refused> {
        let (mut count, mut bytes) = self.queued;
        let mut any = false;
        for record in records {
            let Record::Setting(Setting { name, value, .. }) = record else {
                continue;
            };
            any = true;
            for (length, limit) in [
                (name.len(), NAME_BYTES_MAX),
                (value.map_or(0, <[u8]>::len), VALUE_BYTES_MAX),
            ] {
                if length > limit {
                    return Err(Refused::TooLarge { bytes: length, limit });
                }
            }
            let known = self.entries.get(*name);
            count += usize::from(known.is_none());
            let before = known.map_or(0, |entry| weight(name, entry.value.as_deref()));
            bytes += weight(name, *value).saturating_sub(before);
        }
        if any && (self.entries.len() + count > SETTINGS_MAX || self.bytes + bytes > SETTINGS_BYTES_MAX) {
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// A queued record failed, or became durable.
    pub(crate) fn unqueue(&mut self, setting: &Setting<'_>) {
        let (count, bytes) = self.queued;
        self.queued = (
            count.saturating_sub(1),
            bytes.saturating_sub(weight(setting.name, setting.value)),
        );
    }

    /// A record is durable in this segment.
    pub(crate) fn apply(&mut self, setting: &Setting<'_>, slot: u32, live: &mut Live) {
        self.newest = self.newest.max(setting.version);
        if !self.entries.contains_key(setting.name) {
            self.bytes += setting.name.len();
            self.entries.insert(Box::from(setting.name), Entry::default());
        }
        let Some(entry) = self.entries.get_mut(setting.name) else {
            return;
        };
        if !entry.slots.contains(&slot) {
            entry.slots.push(slot);
        }
        // A copy of the same version takes its place: the original's segment may go.
        if setting.version >= entry.version {
            self.bytes -= weight(setting.name, entry.value.as_deref());
            self.bytes += weight(setting.name, setting.value);
            entry.version = setting.version;
            entry.value = setting.value.map(Arc::from);
            entry.slot = slot;
        }
        entry.count(setting.name, live);
    }

    /// A segment is gone.
    pub(crate) fn segment_gone(&mut self, slot: u32, live: &mut Live) {
        let bytes = &mut self.bytes;
        self.entries.retain(|name, entry| {
            let before = entry.slots.len();
            entry.slots.retain(|other| *other != slot);
            let stays = !entry.slots.is_empty();
            if !stays {
                *bytes -= weight(name, entry.value.as_deref());
            } else if entry.slots.len() < before {
                entry.count(name, live);
            }
            stays
        });
    }

    /// The version of a record that must be copied when its segment goes: the newest, if it says more than that there
    /// is nothing.
    pub(crate) fn is_live(&self, setting: &Setting<'_>, slot: u32) -> bool {
        self.entries.get(setting.name).is_some_and(|entry| {
            entry.version == setting.version && entry.slot == slot && entry.counted.is_some()
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.entries.get(name)?.value.as_ref()
    }

    /// Every name that has a value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.entries
            .iter()
            .filter_map(|(name, entry)| Some((&**name, entry.value.as_ref()?)))
    }
}

impl Entry {
    /// A value is live; a removal is as long as an older copy is in another segment.
    fn count(&mut self, name: &str, live: &mut Live) {
        let matters = self.value.is_some() || self.slots.iter().any(|slot| *slot != self.slot);
        let bytes = u64::try_from(RECORD_BYTES + weight(name, self.value.as_deref())).unwrap_or(u64::MAX);
        let now = matters.then_some((self.slot, bytes));
        if let Some((slot, bytes)) = self.counted {
            live.sub(slot, bytes);
        }
        if let Some((slot, bytes)) = now {
            live.add(slot, bytes);
        }
        self.counted = now;
    }
}

/// What a record takes beside name and value, about.
const RECORD_BYTES: usize = 32;

fn weight(name: &str, value: Option<&[u8]>) -> usize {
    name.len() + value.map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting<'a>(name: &'a str, value: Option<&'a [u8]>, version: u64) -> Setting<'a> {
        Setting { name, value, version }
    }

    fn live() -> Live {
        let mut live = Live::new(crate::hash::Seed(1));
        for _ in 0..10 {
            live.add_segment();
        }
        live
    }

    #[test]
    fn the_newest_wins_in_whatever_order_copies_are_read() {
        let (mut settings, mut live) = (Settings::default(), live());
        settings.apply(&setting("a", Some(b"2"), 2), 5, &mut live);
        settings.apply(&setting("a", Some(b"1"), 1), 6, &mut live);
        assert_eq!(settings.get("a").map(|value| &value[..]), Some(&b"2"[..]));
        assert!(live.bytes(5) > 0 && live.bytes(6) == 0);
        settings.apply(&setting("a", None, 3), 7, &mut live);
        assert_eq!((settings.get("a"), settings.iter().count()), (None, 0));
        assert!(live.bytes(5) == 0 && live.bytes(7) > 0);
    }

    #[test]
    fn a_removal_is_live_as_long_as_an_older_copy_can_come_back() {
        let (mut settings, mut live) = (Settings::default(), live());
        settings.apply(&setting("a", Some(b"1"), 1), 1, &mut live);
        settings.apply(&setting("a", None, 2), 2, &mut live);
        assert!(live.bytes(2) > 0);
        settings.segment_gone(1, &mut live);
        assert_eq!((settings.entries.len(), live.bytes(2)), (1, 0));
        settings.segment_gone(2, &mut live);
        assert_eq!((settings.entries.len(), settings.bytes), (0, 0));
    }

    #[test]
    fn settings_are_bounded_in_number_and_in_bytes() {
        let mut settings = Settings::default();
        let value = vec![0; VALUE_BYTES_MAX];
        let check = |settings: &Settings, name: &str, value: &[u8]| {
            settings.check(&[Record::Setting(setting(name, Some(value), 0))])
        };
        assert!(check(&settings, &"n".repeat(NAME_BYTES_MAX), &value).is_ok());
        let long = Refused::TooLarge {
            bytes: 256,
            limit: NAME_BYTES_MAX,
        };
        assert_eq!(check(&settings, &"n".repeat(256), b""), Err(long));
        let mut count = 0;
        while check(&settings, &count.to_string(), &value).is_ok() {
            let name = count.to_string();
            let queued = settings.queue(&setting(&name, Some(&value), 0));
            if count % 2 == 0 {
                settings.unqueue(&queued);
                settings.apply(&queued, 1, &mut live());
            }
            count += 1;
        }
        assert!(count * VALUE_BYTES_MAX <= SETTINGS_BYTES_MAX && count > 200);
        assert!(check(&settings, "0", b"").is_ok(), "less than before always fits");
    }
}

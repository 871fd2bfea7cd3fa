//! The keys of a policy: how each is read, shown and taken away. One row per key, wherever it is written.

use std::fmt;
use std::time::Duration;

use super::{GroupBy, LaneShare, Policy, PolicyPatch};
use crate::units::{format_duration, format_size};
use crate::written::{Key, Value, Wrong};

/// A key's value, as it is shown. Its text reads back to the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A count.
    Number(u64),
    /// A yes or no.
    Switch(bool),
    /// A duration, a size, a share.
    Text(String),
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

macro_rules! keys {
    ($($field:ident: $read:ident, $show:ident;)*) => {
        /// Every key of a policy.
        pub(crate) const KEYS: &[Key<PolicyPatch>] = &[
            $(Key {
                name: stringify!($field),
                set: |patch, value| {
                    patch.$field = Some(value.$read()?);
                    Ok(())
                },
            },)*
        ];

        impl PolicyPatch {
            /// Takes over whatever `narrower` says.
            pub fn lay(&mut self, narrower: &Self) {
                $(if narrower.$field.is_some() {
                    self.$field = narrower.$field;
                })*
            }

            /// Every key, in the order of the reference, with what is said of it.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, Option<Shown>)> {
                vec![$((stringify!($field), self.$field.map($show))),*]
            }

            /// Says nothing of this key any more.
            pub fn clear(&mut self, key: &str) {
                match key {
                    $(stringify!($field) => self.$field = None,)*
                    _ => {}
                }
            }
        }
    };
}

keys! {
    max_jobs: small_count, number;
    max_bytes: size, size;
    min_jobs: small_count, number;
    max_delay: duration, duration;
    idle_flush: switch, Switch;
    group_by: grouping, grouping;
    lower_lane_share: share, share;
    realtime_reserve: any_count, number;
    lease: span, duration;
    heartbeat: span, duration;
    batch_timeout: span, duration;
    max_attempts: small_count, number;
    backoff: duration, duration;
    backoff_max: duration, duration;
    max_crashes: small_count, number;
    result_ttl: span, duration;
}

use Shown::Switch;

/// Keys that the specification has and this version does not.
pub(crate) const LATER_KEYS: &[&str] = &[
    "dead_letter_final",
    "max_in_flight",
    "max_in_flight_per_key",
    "rate",
    "record",
];

impl PolicyPatch {
    /// Sets one key, or says what is wrong with it.
    pub(crate) fn set(&mut self, key: &str, value: &Value<'_>) -> Result<(), Wrong> {
        match KEYS.iter().find(|known| known.name == key) {
            Some(known) => (known.set)(self, value),
            None => Err(Wrong::new(format!("there is no key `{key}`"))),
        }
    }

    /// Sets one key from its text.
    ///
    /// # Errors
    /// What is wrong with the key or the value, in words.
    pub fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
        self.set(key, &Value::Text(text)).map_err(|wrong| wrong.message)
    }

    /// Whether it says something of this key.
    #[must_use]
    pub fn says(&self, key: &str) -> bool {
        let mut values = self.values().into_iter();
        values.any(|(known, value)| known == key && value.is_some())
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Policy {
    /// Every key with its value; `None` where the server's own value holds.
    #[must_use]
    pub fn values(&self) -> Vec<(&'static str, Option<Shown>)> {
        let all = PolicyPatch {
            max_jobs: Some(self.max_jobs),
            max_bytes: Some(self.max_bytes),
            min_jobs: Some(self.min_jobs),
            max_delay: Some(self.max_delay),
            idle_flush: Some(self.idle_flush),
            group_by: Some(self.group_by),
            lower_lane_share: Some(self.lower_lane_share),
            realtime_reserve: Some(self.realtime_reserve),
            lease: Some(self.lease),
            heartbeat: Some(self.heartbeat),
            batch_timeout: Some(self.batch_timeout),
            max_attempts: Some(self.max_attempts),
            backoff: Some(self.backoff),
            backoff_max: Some(self.backoff_max),
            max_crashes: Some(self.max_crashes),
            result_ttl: self.result_ttl,
        };
        all.values()
    }
}

impl Value<'_> {
    /// What keeps a batch homogeneous.
    fn grouping(&self) -> Result<GroupBy, Wrong> {
        match self.text()? {
            "none" => Ok(GroupBy::None),
            "group" => Ok(GroupBy::Group),
            "key" => Ok(GroupBy::Key),
            other => Err(Wrong::new(format!("`{other}` is nothing to group by"))
                .hint("write \"group\", \"key\", or \"none\"")),
        }
    }

    /// A whole number of 0 to `u32::MAX`.
    fn any_count(&self) -> Result<u32, Wrong> {
        let number = self.count(0)?;
        u32::try_from(number)
            .map_err(|_| Wrong::new(format!("{number} is above the most possible, {}", u32::MAX)))
    }

    /// A share of the jobs dispatched: `"1/16"`, or 0 for none.
    fn share(&self) -> Result<LaneShare, Wrong> {
        let text = match *self {
            Self::Integer { digits, .. } => digits,
            Self::String(text) | Self::Text(text) => text,
            _ => return Err(self.mistyped("a share", "\"1/16\"")),
        };
        if text == "0" {
            return Ok(LaneShare { above: None });
        }
        let parts: Option<u32> = text.strip_prefix("1/").and_then(|parts| parts.parse().ok());
        match parts {
            Some(parts @ 2..) => Ok(LaneShare {
                above: Some(parts - 1),
            }),
            _ => Err(Wrong::new(format!("`{text}` is not a share"))
                .hint("write \"1/N\" with N of at least 2, such as \"1/16\", or 0 for strict priority")),
        }
    }
}

fn number(count: u32) -> Shown {
    Shown::Number(u64::from(count))
}

fn grouping(by: GroupBy) -> Shown {
    let name = match by {
        GroupBy::None => "none",
        GroupBy::Group => "group",
        GroupBy::Key => "key",
    };
    Shown::Text(name.to_owned())
}

fn size(bytes: u64) -> Shown {
    Shown::Text(format_size(bytes))
}

fn duration(duration: Duration) -> Shown {
    Shown::Text(format_duration(duration))
}

fn share(share: LaneShare) -> Shown {
    Shown::Text(match share.above {
        None => "0".to_owned(),
        Some(above) => format!("1/{}", u64::from(above) + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Priority;

    #[test]
    fn what_is_shown_reads_back() {
        let written = PolicyPatch {
            max_bytes: Some((1 << 20) + 1),
            max_delay: Some(Duration::from_millis(1_500)),
            lower_lane_share: Some(LaneShare { above: Some(3) }),
            result_ttl: Some(Duration::from_hours(1)),
            idle_flush: Some(false),
            group_by: Some(GroupBy::Key),
            realtime_reserve: Some(2),
            ..PolicyPatch::default()
        };
        let policy = written.over_defaults(Priority::Normal);
        let mut read = PolicyPatch::default();
        for (key, shown) in policy.values() {
            read.set_text(key, &shown.unwrap().to_string()).unwrap();
        }
        assert_eq!(read.over_defaults(Priority::Normal), policy);
        for (key, _) in written.values() {
            read.clear(key);
        }
        assert!(read.is_empty());
    }

    #[test]
    fn a_text_that_is_no_value_says_why() {
        let mut patch = PolicyPatch::default();
        assert_eq!(
            patch.set_text("max_jobs", "many").unwrap_err(),
            "`many` is not a whole number"
        );
        assert_eq!(patch.set_text("rate", "1").unwrap_err(), "there is no key `rate`");
        assert!(patch.is_empty());
    }
}

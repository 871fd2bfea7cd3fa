//! A value as somebody wrote it, with a type (a file, a JSON body) or as plain text (a variable, a flag), and
//! its reading.
//!
//! One grammar and one set of messages, wherever a value is written. Where it is written is its reader's affair.

use std::fmt;
use std::time::Duration;

use crate::units::{parse_duration, parse_size};

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// A whole number, its sign included.
    Integer {
        /// As written, without a prefix.
        digits: &'a str,
        /// The base of the digits.
        radix: u32,
    },
    /// In quotes.
    String(&'a str),
    /// `true` or `false`.
    Boolean(bool),
    /// Of another type, by its name.
    Other(&'static str),
    /// Without a type: in the environment, a flag, a setting.
    Text(&'a str),
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// One key of a table, and what it sets.
pub(crate) struct Key<T> {
    /// As it is written.
    pub(crate) name: &'static str,
    /// Sets it, or says what is wrong with the value.
    pub(crate) set: fn(&mut T, &Value<'_>) -> Result<(), Wrong>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer { digits, radix: 16 } => write!(f, "0x{digits}"),
            Self::Integer { digits, radix: 8 } => write!(f, "0o{digits}"),
            Self::Integer { digits, radix: 2 } => write!(f, "0b{digits}"),
            Self::Integer { digits: text, .. } | Self::String(text) | Self::Text(text) => f.write_str(text),
            Self::Boolean(on) => write!(f, "{on}"),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

impl Value<'_> {
    /// A whole number of at least `min`.
    pub(crate) fn count(&self, min: u64) -> Result<u64, Wrong> {
        let number = match *self {
            Self::Integer { digits, radix } => whole(digits, radix)?,
            Self::Text(text) => text
                .parse()
                .map_err(|_| Wrong::new(format!("`{text}` is not a whole number")))?,
            _ => return Err(self.mistyped("a whole number", "64")),
        };
        if number < min {
            return Err(Wrong::new(format!("{number} is below the least possible, {min}")));
        }
        Ok(number)
    }

    /// A whole number of 1 to `u32::MAX`.
    pub(crate) fn small_count(&self) -> Result<u32, Wrong> {
        let number = self.count(1)?;
        u32::try_from(number)
            .map_err(|_| Wrong::new(format!("{number} is above the most possible, {}", u32::MAX)))
    }

    /// A size of at least one byte.
    pub(crate) fn size(&self) -> Result<u64, Wrong> {
        let bytes = match *self {
            Self::Integer { digits, radix } => whole(digits, radix)?,
            Self::String(text) | Self::Text(text) => {
                parse_size(text).map_err(|error| Wrong::new(error.to_string()))?
            }
            _ => return Err(self.mistyped("a size", "\"1MiB\"")),
        };
        if bytes == 0 {
            return Err(Wrong::new("a size of 0 lets nothing through"));
        }
        Ok(bytes)
    }

    /// A duration, 0 included.
    pub(crate) fn duration(&self) -> Result<Duration, Wrong> {
        match *self {
            Self::String(text) | Self::Text(text) => {
                parse_duration(text).map_err(|error| Wrong::new(error.to_string()))
            }
            Self::Integer { digits: "0", .. } => Ok(Duration::ZERO),
            _ => Err(self.mistyped("a duration", "\"250ms\", \"30s\", \"5m\"")),
        }
    }

    /// A duration above 0.
    pub(crate) fn span(&self) -> Result<Duration, Wrong> {
        let duration = self.duration()?;
        if duration.is_zero() {
            return Err(Wrong::new("must be above 0"));
        }
        Ok(duration)
    }

    /// A yes or no.
    pub(crate) fn switch(&self) -> Result<bool, Wrong> {
        match *self {
            Self::Boolean(on) => Ok(on),
            Self::Text("true" | "1" | "yes" | "on") => Ok(true),
            Self::Text("false" | "0" | "no" | "off") => Ok(false),
            Self::Text(text) => Err(Wrong::new(format!("`{text}` is neither true nor false"))),
            _ => Err(self.mistyped("true or false", "true")),
        }
    }

    /// A text that is not empty.
    pub(crate) fn text(&self) -> Result<&str, Wrong> {
        let text = match *self {
            Self::String(text) | Self::Text(text) => text,
            _ => return Err(self.mistyped("a text", "\"orders\"")),
        };
        if text.is_empty() {
            return Err(Wrong::new("must not be empty"));
        }
        Ok(text)
    }

    /// It is of another type than it must be.
    pub(crate) fn mistyped(&self, wanted: &str, example: &str) -> Wrong {
        let found = match self {
            Self::Integer { .. } => "integer",
            Self::String(_) | Self::Text(_) => "string",
            Self::Boolean(_) => "boolean",
            Self::Other(name) => name,
        };
        Wrong::new(format!("must be {wanted}, and this is of type {found}"))
            .hint(format!("write for example {example}"))
    }
}

fn whole(digits: &str, radix: u32) -> Result<u64, Wrong> {
    u64::from_str_radix(digits, radix)
        .map_err(|_| Wrong::new(format!("{digits} is not a whole number from 0 up")))
}

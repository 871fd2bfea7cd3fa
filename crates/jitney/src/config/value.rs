//! A value as it was written, in the file with a type or elsewhere as text, and its reading.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use crate::policy::LaneShare;
use crate::units::{parse_duration, parse_size};

/// A value as it was written.
pub(super) enum Value<'a> {
    /// In the file: it has a type.
    Toml(&'a DeValue<'a>),
    /// In the environment or a flag.
    Text(&'a str),
}

/// What is wrong with a value.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Value<'_> {
    /// A whole number of at least `min`.
    pub(super) fn count(&self, min: u64) -> Result<u64, Wrong> {
        let number = match self {
            Self::Toml(DeValue::Integer(number)) => whole(number)?,
            Self::Text(text) => text
                .parse()
                .map_err(|_| Wrong::new(format!("`{text}` is not a whole number")))?,
            Self::Toml(other) => return Err(mistyped(other, "a whole number", "64")),
        };
        if number < min {
            return Err(Wrong::new(format!("{number} is below the least possible, {min}")));
        }
        Ok(number)
    }

    /// A whole number of 1 to `u32::MAX`.
    pub(super) fn small_count(&self) -> Result<u32, Wrong> {
        let number = self.count(1)?;
        u32::try_from(number)
            .map_err(|_| Wrong::new(format!("{number} is above the most possible, {}", u32::MAX)))
    }

    /// A size of at least one byte.
    pub(super) fn size(&self) -> Result<u64, Wrong> {
        let bytes = match self {
            Self::Toml(DeValue::Integer(number)) => whole(number)?,
            Self::Toml(DeValue::String(text)) => size(text)?,
            Self::Text(text) => size(text)?,
            Self::Toml(other) => return Err(mistyped(other, "a size", "\"1MiB\"")),
        };
        if bytes == 0 {
            return Err(Wrong::new("a size of 0 lets nothing through"));
        }
        Ok(bytes)
    }

    /// A duration, 0 included.
    pub(super) fn duration(&self) -> Result<Duration, Wrong> {
        match self {
            Self::Toml(DeValue::String(text)) => duration(text),
            Self::Text(text) => duration(text),
            Self::Toml(DeValue::Integer(number)) if number.as_str() == "0" => Ok(Duration::ZERO),
            Self::Toml(other) => Err(mistyped(other, "a duration", "\"250ms\", \"30s\", \"5m\"")),
        }
    }

    /// A duration above 0.
    pub(super) fn span(&self) -> Result<Duration, Wrong> {
        let duration = self.duration()?;
        if duration.is_zero() {
            return Err(Wrong::new("must be above 0"));
        }
        Ok(duration)
    }

    /// A yes or no.
    pub(super) fn switch(&self) -> Result<bool, Wrong> {
        match self {
            Self::Toml(DeValue::Boolean(on)) => Ok(*on),
            Self::Text("true" | "1" | "yes" | "on") => Ok(true),
            Self::Text("false" | "0" | "no" | "off") => Ok(false),
            Self::Text(text) => Err(Wrong::new(format!("`{text}` is neither true nor false"))),
            Self::Toml(other) => Err(mistyped(other, "true or false", "true")),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Result<&str, Wrong> {
        let text = match self {
            Self::Toml(DeValue::String(text)) => text.as_ref(),
            Self::Text(text) => text,
            Self::Toml(other) => return Err(mistyped(other, "a text", "\"orders\"")),
        };
        if text.is_empty() {
            return Err(Wrong::new("must not be empty"));
        }
        Ok(text)
    }

    /// A path; it need not be there.
    pub(super) fn path(&self) -> Result<PathBuf, Wrong> {
        self.text().map(PathBuf::from)
    }

    /// An address with a port.
    pub(super) fn address(&self) -> Result<SocketAddr, Wrong> {
        let example = "write for example \"127.0.0.1:8080\", or \"127.0.0.1:0\" for a free port";
        let text = self.text().map_err(|wrong| wrong.hint(example))?;
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        if let Some(port) = local {
            return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        }
        text.parse()
            .map_err(|_| Wrong::new(format!("`{text}` is not an address with a port")).hint(example))
    }

    /// A share of the jobs dispatched: `"1/16"`, or 0 for none.
    pub(super) fn share(&self) -> Result<LaneShare, Wrong> {
        let text = match self {
            Self::Toml(DeValue::Integer(number)) => number.as_str(),
            Self::Toml(DeValue::String(text)) => text.as_ref(),
            Self::Text(text) => text,
            Self::Toml(other) => return Err(mistyped(other, "a share", "\"1/16\"")),
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

fn whole(number: &DeInteger<'_>) -> Result<u64, Wrong> {
    let digits = number.as_str();
    u64::from_str_radix(digits, number.radix())
        .map_err(|_| Wrong::new(format!("{digits} is not a whole number from 0 up")))
}

fn size(text: &str) -> Result<u64, Wrong> {
    parse_size(text).map_err(|error| Wrong::new(error.to_string()))
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    parse_duration(text).map_err(|error| Wrong::new(error.to_string()))
}

fn mistyped(found: &DeValue<'_>, wanted: &str, example: &str) -> Wrong {
    let found = found.type_str();
    Wrong::new(format!("must be {wanted}, and this is of type {found}"))
        .hint(format!("write for example {example}"))
}

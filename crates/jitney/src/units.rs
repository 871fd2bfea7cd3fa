//! Durations and sizes as people write them: `"250ms"`, `"30s"`, `"90d"`, `"64KiB"`, `1048576`.
//!
//! One grammar for HTTP, configuration and command line: a whole number and a unit, no space between. What
//! [`format_duration`] and [`format_size`] write, the parsers read back.

use std::time::Duration;

/// The units of a duration, milliseconds each, the largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The units of a size, bytes each, the largest first.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A text that is no duration or no size. The caller can fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not start with a whole number.
    #[error("`{text}` does not start with a whole number; write for example `{example}`")]
    NoNumber {
        /// What was written.
        text: String,
        /// What would be right.
        example: &'static str,
    },
    /// A duration without its unit.
    #[error("`{text}` has no unit; write `{text}s` for seconds, or one of ms, s, m, h, d")]
    NoUnit {
        /// What was written.
        text: String,
    },
    /// A unit that nobody knows.
    #[error("`{unit}` in `{text}` is not a unit; use one of {known}")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// Its unit.
        unit: String,
        /// The units there are.
        known: &'static str,
    },
    /// More than fits.
    #[error("`{text}` is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`. A bare `0` needs no unit.
///
/// # Errors
/// [`UnitError`] says what is wrong and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, "30s")?;
    if unit.is_empty() {
        return match number {
            0 => Ok(Duration::ZERO),
            _ => Err(UnitError::NoUnit {
                text: text.to_owned(),
            }),
        };
    }
    let factor = factor(&DURATION_UNITS, text, unit, "ms, s, m, h, d")?;
    let millis = number.checked_mul(factor).ok_or_else(|| UnitError::TooLarge {
        text: text.to_owned(),
    })?;
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: a whole number, alone or with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
///
/// # Errors
/// [`UnitError`] says what is wrong and how to write it.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, "1MiB")?;
    if unit.is_empty() {
        return Ok(number);
    }
    let factor = factor(&SIZE_UNITS, text, unit, "B, KiB, MiB, GiB, TiB")?;
    number.checked_mul(factor).ok_or_else(|| UnitError::TooLarge {
        text: text.to_owned(),
    })
}

/// Writes a duration with the largest unit that gives a whole number. What is below a millisecond is cut.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    format(&DURATION_UNITS, millis)
}

/// Writes a size with the largest unit that gives a whole number.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    format(&SIZE_UNITS, bytes)
}

/// Writes an age as people read it: its two largest units, what is below them cut. It is not read back.
#[must_use]
pub(crate) fn rounded_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let Some(at) = DURATION_UNITS.iter().position(|(_, factor)| millis >= *factor) else {
        return "0s".to_owned();
    };
    let (name, factor) = DURATION_UNITS[at];
    let mut text = format!("{}{name}", millis / factor);
    match DURATION_UNITS.get(at + 1) {
        Some((name, smaller)) if *smaller > 1 && millis % factor >= *smaller => {
            text.push_str(&format!("{}{name}", millis % factor / smaller));
        }
        _ => {}
    }
    text
}

/// Writes a size as people read it: one digit after the point, what is below it cut. It is not read back.
#[must_use]
pub(crate) fn rounded_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((name, factor)) if !bytes.is_multiple_of(*factor) => {
            format!("{}.{}{name}", bytes / factor, bytes % factor * 10 / factor)
        }
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => "0B".to_owned(),
    }
}

/// Writes a count with a comma between each three digits, as error texts show it.
#[must_use]
pub fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The number at the start, and what follows it.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(u64, &'a str), UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::NoNumber {
            text: text.to_owned(),
            example,
        });
    }
    let number = digits.parse().map_err(|_| UnitError::TooLarge {
        text: text.to_owned(),
    })?;
    Ok((number, unit))
}

fn factor(units: &[(&str, u64)], text: &str, unit: &str, known: &'static str) -> Result<u64, UnitError> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
        .ok_or_else(|| UnitError::UnknownUnit {
            text: text.to_owned(),
            unit: unit.to_owned(),
            known,
        })
}

/// `amount` is not zero; the last unit is one, so that a unit is always found.
fn format(units: &[(&str, u64)], amount: u64) -> String {
    units
        .iter()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .map_or_else(String::new, |(name, factor)| format!("{}{name}", amount / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("90d", 7_776_000_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_duration_error_says_how_to_write_it() {
        let said = |text| parse_duration(text).unwrap_err().to_string();
        assert_eq!(
            said("10"),
            "`10` has no unit; write `10s` for seconds, or one of ms, s, m, h, d"
        );
        assert_eq!(
            said("soon"),
            "`soon` does not start with a whole number; write for example `30s`"
        );
        assert_eq!(
            said("1.5s"),
            "`.5s` in `1.5s` is not a unit; use one of ms, s, m, h, d"
        );
        assert_eq!(
            said("10 s"),
            "` s` in `10 s` is not a unit; use one of ms, s, m, h, d"
        );
        assert_eq!(
            said("99999999999999999999s"),
            "`99999999999999999999s` is too large"
        );
        assert_eq!(
            said("9999999999999999999d"),
            "`9999999999999999999d` is too large"
        );
        assert_eq!(
            said("-1s"),
            "`-1s` does not start with a whole number; write for example `30s`"
        );
        assert_eq!(
            said(""),
            "`` does not start with a whole number; write for example `30s`"
        );
    }

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64KiB", 1 << 16),
            ("1MiB", 1 << 20),
            ("8GiB", 8 << 30),
            ("2TiB", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(
            parse_size("1MB").unwrap_err().to_string(),
            "`MB` in `1MB` is not a unit; use one of B, KiB, MiB, GiB, TiB"
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        for millis in [0, 1, 999, 1000, 1500, 60_000, 90_000, 86_400_000, u64::MAX] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1 << 10, 3 << 20, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_size(1 << 20), "1MiB");
    }

    #[test]
    fn what_people_read_is_short() {
        for (millis, text) in [
            (0, "0s"),
            (999, "999ms"),
            (1_500, "1s"),
            (60_000, "1m"),
            (625_898, "10m25s"),
            (7_200_001, "2h"),
            (100 * 3_600_000, "4d4h"),
        ] {
            assert_eq!(rounded_duration(Duration::from_millis(millis)), text, "{millis}");
        }
        for (bytes, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1 << 20, "1MiB"),
            (6_553_601, "6.2MiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(rounded_size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!(format_count(0), "0");
        assert_eq!(format_count(999), "999");
        assert_eq!(format_count(2_310_004), "2,310,004");
        assert_eq!(format_count(100_000), "100,000");
    }
}

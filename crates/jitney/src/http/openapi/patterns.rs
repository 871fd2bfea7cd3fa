//! Durations and sizes as regular expressions, so that a client can check them before it sends them.

use std::time::Duration;

/// The units of a duration and their milliseconds.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// The units of a size and how many digits stand before each at most, so that it fits 64 bits.
const SIZE_UNITS: [(&str, usize); 5] = [("B?", 18), ("KiB", 16), ("MiB", 13), ("GiB", 10), ("TiB", 7)];

/// Durations of at most `max`.
pub(super) fn duration(max: Duration) -> String {
    let millis = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    let units = DURATION_UNITS.map(|(unit, factor)| format!("0*{}{unit}", at_most(millis / factor)));
    format!("^(0+|{})$", units.join("|"))
}

/// Sizes of at least one byte.
pub(super) fn size() -> String {
    let units = SIZE_UNITS.map(|(unit, digits)| format!("[0-9]{{0,{}}}{unit}", digits - 1));
    format!("^0*[1-9]({})$", units.join("|"))
}

/// Whole numbers of at most `max`, at least one digit, zeros before them not counted.
fn at_most(max: u64) -> String {
    let digits = max.to_string();
    let mut forms = Vec::new();
    if digits.len() > 1 {
        forms.push(format!("[0-9]{}", times(1, digits.len() - 1)));
    }
    // The first digits of `max`, a smaller digit, and then any.
    for (at, digit) in digits.bytes().enumerate() {
        let rest = digits.len() - at - 1;
        if digit > b'0' {
            let smaller = class(digit - 1);
            forms.push(format!("{}{smaller}{}", &digits[..at], any(rest)));
        }
    }
    forms.push(digits);
    format!("({})", forms.join("|"))
}

fn class(last: u8) -> String {
    match last {
        b'0' => "0".to_owned(),
        last => format!("[0-{}]", char::from(last)),
    }
}

fn any(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        count => format!("[0-9]{{{count}}}"),
    }
}

fn times(min: usize, max: usize) -> String {
    match min == max {
        true => String::new(),
        false => format!("{{{min},{max}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use serde_json::json;

    use crate::units::{parse_duration, parse_size};

    fn fits(pattern: &str, text: &str) -> bool {
        jsonschema::is_valid(&json!({"pattern": pattern}), &json!(text))
    }

    #[test]
    fn a_limit_of_five_minutes_reads_well() {
        assert_eq!(
            duration(Duration::from_mins(5)),
            "^(0+|0*([0-9]{1,5}|[0-2][0-9]{5}|300000)ms|0*([0-9]{1,2}|[0-2][0-9]{2}|300)s|0*([0-4]|5)m|0*(0)h|0*(0)d)$"
        );
    }

    #[test]
    fn what_is_no_duration_or_size_does_not_fit() {
        let duration = duration(Duration::from_mins(5));
        for wrong in [
            "", "5", "s", "5 s", "-1s", "1.5s", "5S", "301s", "6m", "1h", "5m\n",
        ] {
            assert!(!fits(&duration, wrong), "{wrong:?}");
        }
        for wrong in ["", "0", "0B", "-1", "1MB", "1 MiB", "MiB"] {
            assert!(!fits(&size(), wrong), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn the_pattern_of_a_duration_takes_what_the_parser_takes(
            max in 0_u64..100_000_000, zeros in 0..3_usize, number in 0_u64..2_000_000, unit in 0..6_usize
        ) {
            let unit = ["ms", "s", "m", "h", "d", ""][unit];
            let text = format!("{}{number}{unit}", "0".repeat(zeros));
            let max = Duration::from_millis(max);
            let taken = parse_duration(&text).is_ok_and(|duration| duration <= max);
            prop_assert_eq!(fits(&duration(max), &text), taken, "{} {:?}", text, max);
        }

        #[test]
        fn the_pattern_of_a_size_takes_only_what_the_parser_takes(
            digits in "[0-9]{1,19}", unit in "(B|KiB|MiB|GiB|TiB)?"
        ) {
            let text = format!("{digits}{unit}");
            if fits(&size(), &text) {
                prop_assert!(parse_size(&text).is_ok_and(|size| size > 0), "{}", text);
            }
        }
    }
}

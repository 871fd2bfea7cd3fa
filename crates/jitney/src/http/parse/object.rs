//! A JSON object as names and raw values, and the typed reading of its fields.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{shown, unknown_name};
use crate::driver::refusal::Refusal;
use crate::http::error::{Code, Problem};
use crate::units::{format_count, parse_duration, parse_size};

/// The longest pause that is a number, seconds.
const PAUSE_SECONDS_MAX: f64 = 9_999_999_999.0;

/// More fields than any object of the contract has; the rest is not even collected.
const FIELDS_MAX: usize = 64;

/// What reading a field gives.
pub(crate) type Result<T> = std::result::Result<T, Refusal>;

/// Where in the body a value stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At<'p> {
    /// The body itself.
    Body,
    /// A field of an object.
    Field(&'p At<'p>, &'p str),
    /// An item of a list.
    Item(&'p At<'p>, usize),
}

impl fmt::Display for At<'_> {
    /// Writes the JSON pointer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Field(parent, name) => {
                write!(f, "{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
            }
            Self::Item(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

impl At<'_> {
    /// A value here is wrong.
    pub(crate) fn invalid(&self, detail: impl Into<String>) -> Refusal {
        Refusal::InvalidValue {
            detail: detail.into(),
            pointer: self.to_string(),
        }
    }
}

/// An object whose fields are not read yet.
#[derive(Debug)]
pub(crate) struct Object<'a, 'p> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    at: At<'p>,
}

/// Reads a request's body as one object with these fields. `later` are fields of later versions.
pub(crate) fn body<'a>(
    bytes: &'a [u8],
    known: &[&str],
    later: &[&str],
) -> crate::http::error::Result<Object<'a, 'static>> {
    whole("the body", bytes, known, later)
}

/// Reads bytes as one object with these fields; `what` they are, for errors.
pub(crate) fn whole<'a>(
    what: &str,
    bytes: &'a [u8],
    known: &[&str],
    later: &[&str],
) -> crate::http::error::Result<Object<'a, 'static>> {
    let fields =
        serde_json::from_slice::<Fields<'a>>(bytes).map_err(|error| not_an_object(what, bytes, &error))?;
    let object = Object::checked(fields, At::Body)?;
    object.only(known, later)?;
    Ok(object)
}

/// Reads a value as an object with these fields.
pub(crate) fn object<'a, 'p>(
    raw: &'a RawValue,
    at: At<'p>,
    known: &[&str],
    later: &[&str],
) -> Result<Object<'a, 'p>> {
    let object = open(raw, at)?;
    object.only(known, later)?;
    Ok(object)
}

/// Reads a value as an object with any fields.
pub(crate) fn open<'a, 'p>(raw: &'a RawValue, at: At<'p>) -> Result<Object<'a, 'p>> {
    let fields = serde_json::from_str::<Fields<'a>>(raw.get())
        .map_err(|_| at.invalid(format!("expected an object, found {}", kind(raw))))?;
    Object::checked(fields, at)
}

/// Reads a value as a list.
pub(crate) fn list<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Vec<&'a RawValue>> {
    serde_json::from_str(raw.get()).map_err(|_| at.invalid(format!("expected a list, found {}", kind(raw))))
}

/// Reads a value as a string.
pub(crate) fn text<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Cow<'a, str>> {
    serde_json::from_str::<Text<'a>>(raw.get())
        .map(|text| text.0)
        .map_err(|_| {
            let found = kind(raw);
            at.invalid(match found {
                // A string that is none: half a surrogate pair.
                "a string" => "the string has an escape that is no character".to_owned(),
                _ => format!("expected a string, found {found}"),
            })
        })
}

impl<'a, 'p> Object<'a, 'p> {
    fn checked(fields: Fields<'a>, at: At<'p>) -> Result<Self> {
        if let Some(name) = fields.twice {
            return Err(At::Field(&at, &name).invalid(format!("`{}` is given twice", shown(&name))));
        }
        if fields.too_many {
            return Err(at.invalid(format!("an object here has at most {FIELDS_MAX} fields")));
        }
        Ok(Self {
            fields: fields.list,
            at,
        })
    }

    /// Where the object stands.
    pub(crate) const fn at(&self) -> At<'p> {
        self.at
    }

    /// All fields, as they came.
    pub(crate) fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &'a RawValue)> {
        self.fields.iter().map(|(name, raw)| (name.as_ref(), *raw))
    }

    /// Fails if there is a field that is not known.
    pub(crate) fn only(&self, known: &[&str], later: &[&str]) -> Result<()> {
        for (name, raw) in &self.fields {
            // A field of a later version that says nothing, `null`, is as good as absent.
            let absent = raw.get() == "null" && later.contains(&name.as_ref());
            if !known.contains(&name.as_ref()) && !absent {
                return Err(Refusal::UnknownField {
                    detail: shown_unknown(name, known, later),
                    pointer: At::Field(&self.at, name).to_string(),
                });
            }
        }
        Ok(())
    }

    /// The field as it came, `null` too.
    pub(crate) fn written(&self, name: &str) -> Option<&'a RawValue> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, raw)| *raw)
    }

    /// The field; `null` counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.written(name).filter(|raw| raw.get() != "null")
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&'a RawValue> {
        self.get(name).ok_or_else(|| Refusal::MissingField {
            detail: format!("`{name}` is missing"),
            pointer: At::Field(&self.at, name).to_string(),
        })
    }

    /// A string.
    pub(crate) fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>> {
        self.get(name)
            .map(|raw| text(raw, At::Field(&self.at, name)))
            .transpose()
    }

    /// A string of so many bytes.
    pub(crate) fn bounded_text(
        &self,
        name: &str,
        bytes: RangeInclusive<usize>,
    ) -> Result<Option<Cow<'a, str>>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        if !bytes.contains(&text.len()) {
            return Err(At::Field(&self.at, name).invalid(format!(
                "`{name}` is {} bytes; it must be {} to {}",
                format_count(u64::try_from(text.len()).unwrap_or(u64::MAX)),
                bytes.start(),
                bytes.end()
            )));
        }
        Ok(Some(text))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.get(name)
            .map(|raw| {
                serde_json::from_str(raw.get()).map_err(|_| self.wrong(name, raw, "must be true or false"))
            })
            .transpose()
    }

    /// A whole number in a range.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        match whole_number(raw).and_then(|number| u32::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(
                name,
                raw,
                &format!(
                    "must be a whole number from {} to {}",
                    format_count(u64::from(*range.start())),
                    format_count(u64::from(*range.end()))
                ),
            )),
        }
    }

    /// A duration with its unit.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        if kind(raw) == "a number" && raw.get() != "0" {
            let detail = format!("must be a string with a unit, like `\"{}s\"`", shown(raw.get()));
            return Err(self.wrong(name, raw, &detail));
        }
        let text = match kind(raw) {
            "a number" => Cow::Borrowed("0"),
            _ => text(raw, At::Field(&self.at, name))?,
        };
        parse_duration(&text)
            .map(Some)
            .map_err(|error| At::Field(&self.at, name).invalid(format!("`{name}`: {error}")))
    }

    /// A pause: a duration with its unit, or a number of seconds, as `Retry-After` has it.
    pub(crate) fn pause(&self, name: &str) -> Result<Option<Duration>> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        if kind(raw) == "a string" {
            return self.duration(name);
        }
        let seconds: Option<f64> = serde_json::from_str(raw.get()).ok();
        match seconds.filter(|seconds| (0.0..=PAUSE_SECONDS_MAX).contains(seconds)) {
            Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
            None => Err(self.wrong(
                name,
                raw,
                "must be a number of seconds from 0 to 9,999,999,999, or a string with a unit, like `\"2s\"`",
            )),
        }
    }

    /// A size: a number of bytes, or a string with a unit.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        if kind(raw) == "a number" {
            return whole_number(raw)
                .map(Some)
                .ok_or_else(|| self.wrong(name, raw, "must be a whole number of bytes, or like `\"1MiB\"`"));
        }
        let text = text(raw, At::Field(&self.at, name))?;
        parse_size(&text)
            .map(Some)
            .map_err(|error| At::Field(&self.at, name).invalid(format!("`{name}`: {error}")))
    }

    fn wrong(&self, name: &str, raw: &RawValue, must: &str) -> Refusal {
        At::Field(&self.at, name).invalid(format!("`{name}` {must}; found {}", found(raw)))
    }
}

/// An unknown name may be of any length.
fn shown_unknown(name: &str, known: &[&str], later: &[&str]) -> String {
    // Of all objects only the envelope of a job has both; how long to wait is no part of the job.
    if name == "wait" && known.contains(&"processor") && known.contains(&"id") {
        return "`wait` is no field but a query parameter: `/v1/jobs?wait=10s`".to_owned();
    }
    unknown_name("field", &shown(name), known, later)
}

/// A whole number, however it is written: to JSON Schema, and to languages whose numbers are all alike, `64.0` is 64.
fn whole_number(raw: &RawValue) -> Option<u64> {
    serde_json::from_str(raw.get()).ok().or_else(|| {
        let number: f64 = serde_json::from_str(raw.get()).ok()?;
        (number.fract() == 0.0).then(|| format!("{number:.0}").parse().ok())?
    })
}

/// The kind of a value, with its article.
pub(crate) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The value itself if it is small, else its kind.
fn found(raw: &RawValue) -> String {
    match kind(raw) {
        "an object" => "an object".to_owned(),
        "a list" => "a list".to_owned(),
        _ => format!("`{}`", shown(raw.get())),
    }
}

/// Why the bytes are not an object: they are not JSON, or another value.
fn not_an_object(what: &str, bytes: &[u8], error: &serde_json::Error) -> Box<Problem> {
    match error.classify() {
        Category::Data => match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(raw) => Problem::invalid("", format!("{what} must be an object; it is {}", kind(raw))),
            Err(error) => malformed(what, bytes, &error),
        },
        Category::Io | Category::Syntax | Category::Eof => malformed(what, bytes, error),
    }
}

/// What some editors put before a text.
fn byte_order_mark(bytes: &[u8]) -> Option<&'static str> {
    [
        (&b"\xef\xbb\xbf"[..], "UTF-8"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ]
    .iter()
    .find_map(|(mark, name)| bytes.starts_with(mark).then_some(*name))
}

/// The bytes, of which `what` says what they are, are not JSON.
pub(crate) fn malformed(what: &str, bytes: &[u8], error: &serde_json::Error) -> Box<Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Problem::new(Code::MalformedJson, format!("{what} is empty; it must be JSON"));
    }
    if let Some(mark) = byte_order_mark(bytes) {
        let detail = format!(
            "{what} begins with a byte-order mark ({mark}), which no JSON has; write it as UTF-8 without one"
        );
        return Problem::new(Code::MalformedJson, detail);
    }
    Problem::new(Code::MalformedJson, format!("{what} is not JSON: {error}"))
}

/// The fields of an object as they came, and what is wrong with them as a whole.
struct Fields<'a> {
    list: Vec<(Cow<'a, str>, &'a RawValue)>,
    twice: Option<String>,
    too_many: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Self::Value, M::Error> {
                let mut fields = Fields {
                    list: Vec::with_capacity(8),
                    twice: None,
                    too_many: false,
                };
                while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                    if fields.list.len() == FIELDS_MAX {
                        fields.too_many = true;
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let value = map.next_value::<&'de RawValue>()?;
                    if fields.list.iter().any(|(known, _)| *known == name) {
                        fields.twice.get_or_insert_with(|| name.clone().into_owned());
                    }
                    fields.list.push((name, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A string, borrowed if nothing in it is escaped.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: serde::de::Error>(
                self,
                text: &'de str,
            ) -> std::result::Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> std::result::Result<Self::Value, E> {
                Err(E::custom("not a string"))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A poll with `"slots":151.0`, which its schema allows, was refused.
    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, number) in [
            ("64", Some(64)),
            ("151.0", Some(151)),
            ("1e3", Some(1_000)),
            ("0.0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("1.5", None),
            ("-1", None),
            ("-1.0", None),
            ("1e300", None),
            ("\"1\"", None),
            ("null", None),
        ] {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            assert_eq!(whole_number(&raw), number, "{text}");
        }
    }
}

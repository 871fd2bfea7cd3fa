//! Query parameters: decoded, each known, each once.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::Uri;

use super::{shown, unknown_name};
use crate::http::error::{Code, Problem, Result};
use crate::units::parse_duration;

/// More parameters than any endpoint has.
const PARAMETERS_MAX: usize = 64;

/// The parameters of one request.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    list: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads them. `known` ends with `.` for a prefix that any name may follow; `later` are parameters of later
    /// versions.
    pub(crate) fn parse(uri: &'a Uri, known: &[&str], later: &[&str]) -> Result<Self> {
        let mut list: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            if !known.iter().any(|known| is(known, &name)) {
                let detail = unknown_name("query parameter", &shown(&name), known, later);
                let mut problem = Problem::new(Code::UnknownField, detail);
                problem.pointer = Some(shown(&name));
                return Err(problem);
            }
            if list.iter().any(|(other, _)| *other == name) || list.len() == PARAMETERS_MAX {
                return Err(Problem::invalid(
                    shown(&name),
                    format!("query parameter `{}` is given twice", shown(&name)),
                ));
            }
            let value = decode(value)?;
            list.push((name, value));
        }
        Ok(Self { list })
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.list
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_ref())
    }

    /// A duration.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>> {
        self.get(name)
            .map(|text| {
                parse_duration(text).map_err(|error| Problem::invalid(name, format!("`{name}`: {error}")))
            })
            .transpose()
    }

    /// All parameters whose name starts with this, and what follows it.
    pub(crate) fn prefixed(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.list
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_ref())))
    }
}

fn is(known: &str, name: &str) -> bool {
    match known.ends_with('.') {
        true => name.starts_with(known),
        false => name == known,
    }
}

/// Undoes `%41` and `+`.
fn decode(text: &str) -> Result<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match (rest.next().and_then(hex), rest.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(undecodable(text)),
            },
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| undecodable(text))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn undecodable(text: &str) -> Box<Problem> {
    Problem::invalid(
        "",
        format!("`{}` in the query is not percent-encoded UTF-8", shown(text)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Vec<(String, String)>> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        let query = Query::parse(&uri, &["group", "wait", "label."], &["ttl"])?;
        Ok(query
            .list
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect())
    }

    #[test]
    fn values_are_decoded() {
        let pairs = parse("group=a%2Fb+c&label.x%20y=%C3%A9&&wait").unwrap();
        assert_eq!(
            pairs,
            [
                ("group".to_owned(), "a/b c".to_owned()),
                ("label.x y".to_owned(), "\u{e9}".to_owned()),
                ("wait".to_owned(), String::new()),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |query| {
            let problem = parse(query).unwrap_err();
            (problem.code, problem.detail)
        };
        assert_eq!(
            said("gruop=a"),
            (
                Code::UnknownField,
                "there is no query parameter `gruop`; did you mean `group`?".to_owned()
            )
        );
        assert_eq!(
            said("ttl=3s"),
            (
                Code::UnknownField,
                "query parameter `ttl` is not in jitney 0.1".to_owned()
            )
        );
        assert_eq!(
            said("group=a&group=a"),
            (
                Code::InvalidValue,
                "query parameter `group` is given twice".to_owned()
            )
        );
        for broken in ["group=%", "group=%f", "group=%zz", "group=%ff"] {
            assert_eq!(said(broken).0, Code::InvalidValue, "{broken}");
        }
    }
}

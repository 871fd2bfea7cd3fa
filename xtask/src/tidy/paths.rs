//! The paths that Rust code names, with `use` trees written out and imported names followed.

use super::rust::identifier;

/// A path of at least two segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CodePath {
    /// Where its last segment starts.
    pub(super) at: usize,
    pub(super) segments: Vec<String>,
}

impl CodePath {
    /// Whether these segments stand somewhere in the path, one after the other.
    pub(super) fn contains(&self, wanted: &str) -> bool {
        let wanted: Vec<&str> = wanted.split("::").collect();
        self.segments.windows(wanted.len()).any(|window| window == wanted)
    }

    /// Whether the path begins with these segments.
    pub(super) fn starts_with(&self, wanted: &str) -> bool {
        let mut segments = self.segments.iter();
        wanted
            .split("::")
            .all(|wanted| segments.next().is_some_and(|segment| segment == wanted))
    }
}

/// All paths in code whose comments and literals are blanked.
pub(super) fn paths(code: &str) -> Vec<CodePath> {
    let mut found = Vec::new();
    let mut imports: Vec<Vec<String>> = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let word = identifier(&code[at..]);
        if word.is_empty() {
            at += code[at..].chars().next().map_or(1, char::len_utf8);
            // A number's suffix is no path.
            if code.as_bytes()[at - 1].is_ascii_digit() {
                at += identifier_tail(&code[at..]);
            }
        } else {
            let imported = found.len();
            let is_use = word == "use";
            at = path(
                code,
                if is_use { skip_space(code, at + 3) } else { at },
                &[],
                &mut found,
            );
            if is_use {
                imports.extend(found[imported..].iter().map(|path| path.segments.clone()));
            }
        }
    }
    for path in &mut found {
        follow(path, &imports);
    }
    found
}

/// `Instant::now` becomes `tokio::time::Instant::now` where that is what the file imports.
fn follow(path: &mut CodePath, imports: &[Vec<String>]) {
    let first = &path.segments[0];
    let import = imports
        .iter()
        .find(|import| import.last() == Some(first) && import[0] != *first);
    if let Some(import) = import {
        path.segments.splice(..1, import.iter().cloned());
    }
}

fn identifier_tail(code: &str) -> usize {
    code.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(code.len())
}

/// Reads the path at `from`, below `prefix`; returns where it ends.
fn path(code: &str, from: usize, prefix: &[String], found: &mut Vec<CodePath>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = from;
    let mut last = from;
    loop {
        let word = identifier(&code[at..]);
        if !word.is_empty() {
            last = at;
            if word != "self" || segments.is_empty() {
                segments.push(word.to_owned());
            }
            at += word.len();
        } else if code[at..].starts_with('*') && !segments.is_empty() {
            last = at;
            segments.push("*".to_owned());
            at += 1;
        } else if code[at..].starts_with('{') && !segments.is_empty() {
            return tree(code, at + 1, &segments, found);
        }
        let next = skip_space(code, at);
        if !code[next..].starts_with("::") {
            break;
        }
        at = skip_space(code, next + 2);
        // A turbofish ends the path.
        if code[at..].starts_with('<') {
            break;
        }
    }
    if segments.len() > 1 {
        found.push(CodePath { at: last, segments });
    }
    at
}

/// Reads the members of a brace, from just after it; returns where it ends.
fn tree(code: &str, from: usize, prefix: &[String], found: &mut Vec<CodePath>) -> usize {
    let mut at = skip_space(code, from);
    while at < code.len() && !code[at..].starts_with('}') {
        let end = path(code, at, prefix, found);
        // Past the member and what follows it (`as name`, a comma); never stuck on a byte of no meaning.
        let stop = code[end..]
            .find([',', '}'])
            .map_or(code.len(), |length| end + length);
        at = if code[stop..].starts_with(',') {
            skip_space(code, stop + 1)
        } else {
            stop
        };
    }
    (at + 1).min(code.len())
}

fn skip_space(code: &str, from: usize) -> usize {
    from + (code[from..].len() - code[from..].trim_start().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(code: &str) -> Vec<String> {
        paths(code).iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_written_out() {
        assert_eq!(
            names("use crate::bus::{self, Arrival as A, log::{Log, open}, *};\nuse std::{\n fs, io,\n};"),
            [
                "crate::bus",
                "crate::bus::Arrival",
                "crate::bus::log::Log",
                "crate::bus::log::open",
                "crate::bus::*",
                "std::fs",
                "std::io"
            ]
        );
    }

    #[test]
    fn paths_in_expressions_are_found() {
        assert_eq!(
            names("let x = std::fs::read(Vec::<u8>::new(), 1u8, y) as u8; match a::B { c => d::E {} }"),
            ["std::fs::read", "a::B", "d::E"]
        );
        assert_eq!(
            names("fn f(self: &Self, x: u8) -> u8 { self.x }"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_imported_name_is_followed() {
        assert_eq!(
            names(
                "use tokio::time::{self, Instant}; fn f() { Instant::now(); time::sleep(x); Other::now() }"
            ),
            [
                "tokio::time",
                "tokio::time::Instant",
                "tokio::time::Instant::now",
                "tokio::time::sleep",
                "Other::now"
            ]
        );
    }

    #[test]
    fn broken_code_ends() {
        for code in [
            "use a::{b",
            "a::",
            "a::{",
            "use a::{{}}",
            "use {a::b, c::d};",
            "::a::b",
        ] {
            drop(paths(code));
        }
        assert_eq!(names("::a::b"), ["a::b"]);
    }

    #[test]
    fn a_path_is_matched_by_whole_segments() {
        let path = &paths("tokio::time::Instant::now()")[0];
        assert!(path.contains("Instant::now") && path.starts_with("tokio::time"));
        assert!(!path.contains("Instant::no") && !path.starts_with("tok") && !path.contains("now::x"));
    }
}

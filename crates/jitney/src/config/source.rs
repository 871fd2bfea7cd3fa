//! A configuration file's text with its places, and the reading of a table of keys from it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::FILE_BYTES_MAX;
use super::report::{Complaint, Complaints, FilePlace, Place, suggestion};
use super::value::{Value, typed};
use crate::policy::LATER_KEYS;
pub(super) use crate::written::Key;

/// Keys that the specification has and this version does not, beside those of a policy.
const LATER: &[&str] = &["ledger_lag_max"];

/// A file that was read.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

/// What is being filled in, and where each key was last set.
pub(super) struct Keys<T> {
    pub(super) draft: T,
    /// Names that the table also has, and that are read elsewhere.
    also: &'static [&'static str],
    places: BTreeMap<&'static str, Place>,
}

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// Reads a file that is not too long and is UTF-8.
    pub(super) fn read(path: &Path) -> Result<Self, Complaint> {
        Ok(Self::new(path, read_text(path)?))
    }

    /// The same; `None` if it is not there, or may not be read.
    pub(super) fn read_if_readable(path: &Path) -> Result<Option<Self>, Complaint> {
        match std::fs::File::open(path) {
            Ok(_) => Self::read(path).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The directory that other files are named relative to.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, Complaint> {
        DeTable::parse(&self.text).map_err(|error| {
            if let Some(twice) = error.span().and_then(|span| self.twice(&error, span)) {
                return twice;
            }
            let place = self.place(error.span().unwrap_or(0..0));
            Complaint::new(format!("this is not TOML: {}", error.message()), place)
                .hint("texts, durations and sizes stand in quotes; numbers, true and false do not")
        })
    }

    /// What TOML calls a duplicate key: a table or a key that is there twice. The first is named too.
    fn twice(&self, error: &toml::de::Error, span: Range<usize>) -> Option<Complaint> {
        if error.message() != "duplicate key" {
            return None;
        }
        let at = floor_boundary(&self.text, span.start);
        let line = self.text[..at].matches('\n').count();
        let (what, first) = first_of_two(&self.text, line)?;
        let message = match what {
            Twice::Table(heading) => format!("{heading} is there twice: the first is in line {}", first + 1),
            Twice::Key(key) => format!("`{key}` is there twice: the first is in line {}", first + 1),
        };
        let hint = match what {
            Twice::Table(_) => "put the keys of both into one",
            Twice::Key(_) => "take one of them out",
        };
        Some(Complaint::new(message, self.place(span)).hint(hint))
    }

    /// The place of a range of bytes.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let start = floor_boundary(&self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |at| start + at);
        let end = floor_boundary(&self.text, span.end.min(line_end)).max(start);
        Place::File(FilePlace {
            path: self.path.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: self.text[line_start..line_end].trim_end().to_owned(),
            width: self.text[start..end].chars().count(),
        })
    }

    /// The table that a value must be.
    pub(super) fn table<'a, 'i>(
        &self,
        value: &'a Spanned<DeValue<'i>>,
        name: &str,
        complaints: &mut Complaints,
    ) -> Option<&'a DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let found = value.get_ref().type_str();
            let message = format!("{name} must be a table, and this is of type {found}");
            complaints.push(Complaint::new(message, self.place(value.span())));
        }
        table
    }

    /// An unknown key, with the nearest known one.
    pub(super) fn unknown<'a>(
        &self,
        written: &str,
        span: Range<usize>,
        table: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Complaint {
        let place = self.place(span);
        if LATER.contains(&written) || LATER_KEYS.contains(&written) {
            return Complaint::new(format!("`{written}` is not in jitney {}", version()), place)
                .hint("take it out; a later version will have it");
        }
        Complaint {
            message: format!("unknown key `{written}` {table}"),
            place: Some(place),
            hint: suggestion(written, known),
        }
    }
}

impl<T> Keys<T> {
    pub(super) fn new(draft: T) -> Self {
        Self {
            draft,
            also: &[],
            places: BTreeMap::new(),
        }
    }

    /// The same, suggesting these names too.
    pub(super) fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }

    /// Where a key was set; `None` if it has its default.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        self.places.get(key).cloned()
    }

    /// Where the first of these that was written is.
    pub(super) fn first_place(&self, keys: &[&str]) -> Option<Place> {
        keys.iter().find_map(|key| self.place(key))
    }

    /// Sets every key of a table. Keys that `keys` does not have are complained about.
    pub(super) fn set_table(
        &mut self,
        keys: &[Key<T>],
        table: &DeTable<'_>,
        name: &str,
        source: &Source,
        complaints: &mut Complaints,
    ) {
        complaints.next_table();
        for (key, value) in table {
            let written = key.get_ref().as_ref();
            match keys.iter().find(|known| known.name == written) {
                Some(known) => {
                    let place = source.place(value.span());
                    self.set(known, &typed(value.get_ref()), name, place, complaints);
                }
                None => complaints.push(
                    source.unknown(
                        written,
                        key.span(),
                        &format!("in {name}"),
                        keys.iter()
                            .map(|known| known.name)
                            .chain(self.also.iter().copied()),
                    ),
                ),
            }
        }
    }

    /// Sets one key of `[server]` from text. The key is known.
    pub(super) fn set_text(
        &mut self,
        keys: &[Key<T>],
        name: &str,
        value: &str,
        place: Place,
        complaints: &mut Complaints,
    ) {
        if let Some(known) = keys.iter().find(|known| known.name == name) {
            self.set(known, &Value::Text(value), "[server]", place, complaints);
        }
    }

    fn set(
        &mut self,
        key: &Key<T>,
        value: &Value<'_>,
        title: &str,
        place: Place,
        complaints: &mut Complaints,
    ) {
        match (key.set)(&mut self.draft, value) {
            Ok(()) => {
                complaints.set(title, key.name, value.to_string(), place.clone());
                self.places.insert(key.name, place);
            }
            Err(wrong) => complaints.push(Complaint {
                message: format!("`{}`: {}", key.name, wrong.message),
                place: Some(place),
                hint: wrong.hint,
            }),
        }
    }
}

/// What is in a file twice.
#[derive(Debug, PartialEq, Eq)]
enum Twice<'a> {
    /// A table with this heading.
    Table(&'a str),
    /// A key of a table.
    Key(&'a str),
}

/// What the line with this index has a second time, and the index of the line that has it first. Of what is written
/// in several ways, such as inline tables, nothing is known.
fn first_of_two(text: &str, second: usize) -> Option<(Twice<'_>, usize)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let line = *lines.get(second)?;
    let before = &lines[..second];
    if let Some(table) = heading(line) {
        let first = before.iter().position(|other| heading(other) == Some(table))?;
        return Some((Twice::Table(table), first));
    }
    let written = key(line)?;
    let table = before.iter().rposition(|other| other.starts_with('['));
    let from = table.map_or(0, |at| at + 1);
    let first = before[from..]
        .iter()
        .position(|other| key(other) == Some(written))?;
    Some((Twice::Key(written), from + first))
}

/// The heading that a line is.
fn heading(line: &str) -> Option<&str> {
    let end = line.find(']').filter(|_| line.starts_with('['))?;
    line.get(..=end)
}

/// The key that a line sets.
fn key(line: &str) -> Option<&str> {
    line.split_once('=').map(|(key, _)| key.trim_end())
}

/// The version that errors name: major and minor.
pub(crate) fn version() -> &'static str {
    concat!(
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    )
}

/// The text of a file that is not too long and is UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, Complaint> {
    use std::io::Read as _;

    let named = path.display();
    let failed = |error: std::io::Error| Complaint::new(format!("cannot read `{named}`: {error}"), None);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(Complaint::new(format!("`{named}` is larger than 1 MiB"), None));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Complaint::new(format!("`{named}` is not UTF-8 at byte {at}"), None)
    })
}

/// The nearest place at or before `at` where a character starts.
fn floor_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

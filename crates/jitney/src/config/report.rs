//! What is wrong with a configuration, where, and what to do about it, as people read it.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use crate::near::meant;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A place in a file.
    File(FilePlace),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, as it is written.
    Flag(&'static str),
}

/// A place in a file, with the line that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
    /// The text of that line.
    pub text: String,
    /// How many characters of it are meant.
    pub width: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong, with the names and numbers in it.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What to do.
    pub hint: Option<String>,
}

/// All that is wrong with a configuration. Only the one who wrote it can fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one, in the order they were found.
    pub complaints: Vec<Complaint>,
}

/// A key that was set, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Which table of all that were read, from 1: two `[[route]]` are two.
    pub table: usize,
    /// As it is written: `[processor.orders]`.
    pub title: String,
    /// The key.
    pub key: String,
    /// The value, as it is written.
    pub value: String,
    /// Where.
    pub place: Place,
}

/// The mistakes so far, and what was set beside them.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    mistakes: Vec<Complaint>,
    written: Vec<Written>,
    tables: usize,
}

impl Complaint {
    /// A mistake at a place.
    #[must_use]
    pub fn new(message: impl Into<String>, place: impl Into<Option<Place>>) -> Self {
        Self {
            message: message.into(),
            place: place.into(),
            hint: None,
        }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Complaints {
    pub(super) fn push(&mut self, complaint: Complaint) {
        self.mistakes.push(complaint);
    }

    /// What is set from here on is of another table.
    pub(super) fn next_table(&mut self) {
        self.tables += 1;
    }

    /// A key was set.
    pub(super) fn set(&mut self, title: &str, key: &str, value: String, place: Place) {
        self.written.push(Written {
            table: self.tables,
            title: title.to_owned(),
            key: key.to_owned(),
            value,
            place,
        });
    }

    /// All keys that were set so far, in order: of two for one key the later counts.
    pub(super) fn take_written(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.written)
    }

    /// The value, unless there is something to complain about. Mistakes of a file come in its order.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, ConfigError> {
        if self.mistakes.is_empty() {
            return Ok(value);
        }
        self.mistakes.sort_by_key(|complaint| match &complaint.place {
            Some(Place::File(place)) => (0, place.path.clone(), place.line, place.column),
            _ => (1, PathBuf::new(), 0, 0),
        });
        Err(ConfigError {
            complaints: self.mistakes,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => write!(f, "{}:{}:{}", place.path.display(), place.line, place.column),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Flag(name) => write!(f, "the flag {name}"),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.place {
            Some(Place::File(place)) => place.draw(f)?,
            Some(place) => write!(f, "\n  in {place}")?,
            None => {}
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl FilePlace {
    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let mut marks = String::new();
        for character in self.text.chars().take(self.column - 1) {
            // A tab keeps its width, whatever the terminal makes of it.
            marks.push(if character == '\t' { '\t' } else { ' ' });
        }
        marks.push_str(&"^".repeat(self.width.max(1)));
        let mut drawn = String::new();
        let path = self.path.display();
        write!(drawn, "\n {gutter}--> {path}:{}:{}", self.line, self.column)?;
        write!(
            drawn,
            "\n {gutter} |\n {number} | {}\n {gutter} | {marks}",
            self.text
        )?;
        f.write_str(&drawn)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, complaint) in self.complaints.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            complaint.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// How many names an error lists when none is near.
const LISTED_MAX: usize = 12;

/// "did you mean", or what there is.
pub(super) fn suggestion<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(name) = meant(written, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<_> = known.into_iter().map(|name| format!("`{name}`")).collect();
    (names.len() <= LISTED_MAX).then(|| format!("known here: {}", names.join(", ")))
}

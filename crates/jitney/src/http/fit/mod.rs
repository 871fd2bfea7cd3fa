//! Whether a body fits the schema of its route, and where it does not: within bounds of time and memory.
//!
//! In: a body that is JSON. Out: nothing, or a problem with its violations. Validity comes first, by the validator,
//! which remembers what it has checked. A body that does not fit is gone through by [`violations`], which counts its
//! steps: the validator's own list of errors holds every error of every alternative, and each of these those of the
//! next level, so that a small body can take gigabytes. What may take long is done on threads of its own, a few at a
//! time, so that no other request waits for it.

mod branching;
mod violations;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jsonschema::{PatternOptions, Registry, Validator};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::error::{Problem, Result};
use super::parse::payload;
use crate::driver::refusal::Refusal;

/// Bodies up to this size are checked where they are read, bytes: a few microseconds each.
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// Bodies that are checked aside at a time.
const ASIDE_MAX: usize = 2;

/// Steps back of a pattern that needs them (with a lookaround or a backreference) within one text; then the text does
/// not fit. Other patterns need none.
const BACKTRACKS_MAX: usize = 20_000;

/// Validators of parts that are kept for a schema: a part is only asked about where alternatives failed.
const PARTS_MAX: usize = 128;

/// Where the schema stands for its parts.
const URI: &str = "urn:jitney:schema";

/// The schema of a body.
pub(super) struct Schema {
    validator: Validator,
    /// As it was written, for the document.
    pub(super) written: Value,
    /// Where alternatives lead back to themselves, so that checking may take long.
    pub(super) branches: Option<String>,
    /// What says whether a value fits a part, and what only looks at the value itself; made when they are needed.
    parts: Mutex<Parts>,
}

/// Validators of parts, by what they look at and where the part stands; nothing where none can be made.
type Parts = HashMap<(Part, String), Option<Arc<Validator>>>;

/// What a validator of a part looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// The whole part.
    Whole,
    /// What it says of the value itself, not of what is in it.
    Shell,
}

/// Threads' worth of checking that may be under way.
#[derive(Clone, Debug)]
pub(super) struct Checks(Arc<Semaphore>);

impl Default for Checks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ASIDE_MAX)))
    }
}

impl Schema {
    /// Reads a schema.
    pub(super) fn new(written: &Value) -> std::result::Result<Self, String> {
        let validator = jsonschema::options()
            .with_pattern_options(patterns())
            .build(written)
            .map_err(|error| format!("its schema: {error}"))?;
        Ok(Self {
            validator,
            branches: branching::place(written),
            written: written.clone(),
            parts: Mutex::default(),
        })
    }

    /// Fails if a body does not fit, with the places where it does not.
    pub(super) async fn check(self: &Arc<Self>, checks: &Checks, bytes: &Bytes) -> Result<()> {
        payload::check(bytes)?;
        if bytes.len() <= AT_ONCE_BYTES_MAX
            && self.branches.is_none()
            && self.validator.is_valid(&tree(bytes)?)
        {
            return Ok(());
        }
        // Never closed.
        let permit = Arc::clone(&checks.0).acquire_owned().await;
        let (schema, bytes) = (Arc::clone(self), bytes.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            schema.verdict(&bytes)
        });
        match checked.await {
            Ok(verdict) => verdict,
            Err(error) => Err(Refusal::Internal(format!("checking the body failed: {error}")).into()),
        }
    }

    fn verdict(&self, bytes: &[u8]) -> Result<()> {
        let body = tree(bytes)?;
        if self.validator.is_valid(&body) {
            return Ok(());
        }
        let found = violations::find(self, &body);
        let mut problem = Problem::invalid("", "the body does not fit its schema");
        if let Some(first) = found.violations.first() {
            problem.pointer = Some(first.pointer.clone());
            problem.detail = format!("{}: {}", problem.detail, first.detail);
        }
        if found.more {
            problem.detail.push_str("; more may be wrong");
        }
        problem.violations = found.violations;
        Err(problem)
    }

    /// What validates a part; nothing if it cannot be had.
    fn part(&self, part: Part, pointer: &str, shell: impl FnOnce() -> Value) -> Option<Arc<Validator>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (part, pointer.to_owned());
        if let Some(known) = parts.get(&key) {
            return known.clone();
        }
        let made = match part {
            Part::Whole => self.whole(pointer),
            Part::Shell => self.options().build(&shell()).ok(),
        };
        let made = made.map(Arc::new);
        if parts.len() < PARTS_MAX {
            parts.insert(key, made.clone());
        }
        made
    }

    fn whole(&self, pointer: &str) -> Option<Validator> {
        let registry = Registry::new().draft(self.validator.draft());
        let registry = registry.add(URI, self.written.clone()).ok()?.prepare().ok()?;
        let part = json!({"$ref": format!("{URI}#{pointer}")});
        self.options().with_registry(&registry).build(&part).ok()
    }

    fn options<'a>(&self) -> jsonschema::ValidationOptions<'a> {
        jsonschema::options()
            .with_draft(self.validator.draft())
            .with_pattern_options(patterns())
    }
}

fn patterns() -> PatternOptions<jsonschema::FancyRegex> {
    PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS_MAX)
}

/// The body as a tree.
fn tree(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|error| {
        // JSON that nests deeper than a tree may: nothing that a schema describes.
        Problem::invalid(
            "",
            format!("the body cannot be checked against the schema: {error}"),
        )
    })
}

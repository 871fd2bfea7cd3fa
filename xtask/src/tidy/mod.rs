//! What the compiler cannot check: sizes, dependency directions, bans that depend on the module, links.
//!
//! In: the files that git knows or would add. Out: one line per finding, `path:line: what; what to do`.
//! Every list of exceptions names its reason, and an exception that nothing needs any more is a finding.

mod bans;
mod layers;
mod links;
mod paths;
mod rust;
mod size;
mod tree;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::step::say;
use tree::Tree;

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// From the root, with `/`.
    path: String,
    /// Counted from 1.
    line: usize,
    /// What is wrong; what to do.
    text: String,
}

/// An exception to a rule, with its reason.
struct Exception {
    /// A file, or a folder with a `/` at its end.
    path: &'static str,
    /// Why the rule is not for it. Read by people only.
    _reason: &'static str,
}

/// Checks the tree under `root` and prints what it finds. Whether there is nothing.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let tree = Tree::read(root)?;
    let findings = check(&tree);
    for finding in &findings {
        say(&finding.to_string());
    }
    let found = match findings.len() {
        0 => "nothing to find fault with".to_owned(),
        n => format!("{n} findings"),
    };
    say(&format!("tidy: {} files, {found}", tree.files.len()));
    Ok(findings.is_empty())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    size::check(tree, &mut findings);
    layers::check(tree, &mut findings);
    bans::check(tree, &mut findings);
    links::check(tree, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

impl Exception {
    const fn new(path: &'static str, reason: &'static str) -> Self {
        Self {
            path,
            _reason: reason,
        }
    }

    fn covers(&self, path: &str) -> bool {
        if self.path.ends_with('/') {
            path.starts_with(self.path)
        } else {
            path == self.path
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_an_editor_can_follow() {
        let finding = Finding::new("a/b.rs", 7, "wrong; put it right");
        assert_eq!(finding.to_string(), "a/b.rs:7: wrong; put it right");
    }

    #[test]
    fn every_kind_of_rule_reports_through_the_one_check() {
        let long = "// x\n".repeat(size::FILE_LINES_MAX + 1);
        let tree = Tree::of(&[
            ("crates/jitney/src/long.rs", &long),
            ("crates/jitney/src/job.rs", "use crate::server::Handle;\n"),
            ("crates/jitney/src/http/mod.rs", "fn f() { x.unwrap(); }\n"),
            ("README.md", "[gone](docs/gone.md)\n"),
        ]);
        let paths: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        for path in tree.files.iter().map(|file| &file.path) {
            assert!(paths.contains(path), "{path} has no finding in {paths:?}");
        }
    }
}

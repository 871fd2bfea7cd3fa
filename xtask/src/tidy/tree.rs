//! The files that tidy looks at.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::rust::Rust;

/// The text files of the repository, sorted by path.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    /// Every path, also of files that are no text.
    pub(super) paths: BTreeSet<String>,
}

/// A text file.
pub(super) struct File {
    /// From the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Present where the file is Rust.
    pub(super) rust: Option<Rust>,
}

impl Tree {
    /// Everything that git has or would add, as it is on disk now.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .stdin(Stdio::null())
            .output()
            .context("cannot run `git`: tidy asks it which files there are")?;
        if !output.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut files = Vec::new();
        let mut paths = BTreeSet::new();
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let path = root.join(name);
            // A file that is removed on disk but not yet in the index is no longer ours.
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {name}"))?;
            paths.insert(name.to_owned());
            if let Ok(text) = String::from_utf8(bytes) {
                files.push((name.to_owned(), text));
            }
        }
        Ok(Self::new(files, paths))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        let paths = files.iter().map(|(path, _)| path.clone()).collect();
        Self::new(files, paths)
    }

    fn new(files: Vec<(String, String)>, paths: BTreeSet<String>) -> Self {
        let mut files: Vec<File> = files
            .into_iter()
            .map(|(path, text)| File::new(path, text))
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        mark_test_modules(&mut files);
        Self { files, paths }
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&File, &Rust)> {
        self.files
            .iter()
            .filter_map(|file| file.rust.as_ref().map(|rust| (file, rust)))
    }
}

impl File {
    fn new(path: String, text: String) -> Self {
        let rust = path.ends_with(".rs").then(|| {
            let mut rust = Rust::new(&text);
            rust.all_tests |= path.contains("/tests/") || path.contains("/benches/");
            rust
        });
        Self { path, text, rust }
    }
}

/// A module that is declared for tests only is a test file, and so is all below it.
fn mark_test_modules(files: &mut [File]) {
    let mut stems: Vec<String> = Vec::new();
    for file in files.iter() {
        let Some(rust) = &file.rust else { continue };
        let folder = module_folder(&file.path);
        stems.extend(rust.test_modules.iter().map(|name| format!("{folder}{name}")));
    }
    for file in files {
        let Some(rust) = &mut file.rust else { continue };
        rust.all_tests |= stems.iter().any(|stem| {
            let rest = file.path.strip_prefix(stem.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
    }
}

/// Where the child modules of a file lie: the folder, with its `/`.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "mod.rs" | "lib.rs" | "main.rs" => format!("{folder}/"),
        _ => format!("{folder}/{}/", name.trim_end_matches(".rs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_makes_its_files_tests_and_no_others() {
        let tree = Tree::of(&[
            (
                "crates/a/src/bus/mod.rs",
                "#[cfg(test)]\nmod conformance;\nmod log;\n",
            ),
            ("crates/a/src/bus/conformance.rs", ""),
            ("crates/a/src/bus/conformance/restart.rs", ""),
            (
                "crates/a/src/bus/log.rs",
                "#[cfg(any(test, feature = \"test-util\"))]\npub mod faults;\n",
            ),
            ("crates/a/src/bus/log/faults.rs", ""),
            ("crates/a/tests/it.rs", ""),
        ]);
        let tests: Vec<&str> = tree
            .rust()
            .filter(|(_, rust)| rust.all_tests)
            .map(|(file, _)| file.path.as_str())
            .collect();
        assert_eq!(
            tests,
            [
                "crates/a/src/bus/conformance.rs",
                "crates/a/src/bus/conformance/restart.rs",
                "crates/a/src/bus/log/faults.rs",
                "crates/a/tests/it.rs"
            ]
        );
    }
}

//! The bench's own directory, gone when the bench is.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::entropy::random_u64;

/// A directory that is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new directory inside `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self, Error> {
        let path = parent.join(format!("jitney-bench-{:016x}", random_u64()));
        fs::create_dir(&path)
            .map_err(|source| Error::io(format!("cannot make `{}`", path.display()), source))?;
        // The server that uses it has another working directory.
        match path.canonicalize() {
            Ok(path) => Ok(Self(path)),
            Err(source) => Err(Error::io(format!("cannot find `{}`", path.display()), source)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a small file into it.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.0.join(name);
        fs::write(&path, text)
            .map_err(|source| Error::io(format!("cannot write `{}`", path.display()), source))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays, under a name that says whose it is.
        drop(fs::remove_dir_all(&self.0));
    }
}

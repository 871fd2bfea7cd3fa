//! `--ready-file`: tells whoever started the server that it is ready, and where.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::failure::Failure;

/// A file that is there, whole, once the server is ready.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Takes away what an earlier run left, so that nobody takes it for this one's.
    pub(super) fn new(path: PathBuf) -> Result<Self, Failure> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(Self { path }),
        }
    }

    /// Writes the address. Who looks sees no file, or the whole of it.
    pub(super) fn write(&self, address: SocketAddr) -> Result<(), Failure> {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let unfinished = self.path.with_file_name(name);
        fs::write(&unfinished, address.to_string())
            .and_then(|()| fs::rename(&unfinished, &self.path))
            .map_err(|error| failed("write", &self.path, &error))
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::Io,
        format!("cannot {verb} the ready file `{}`: {error}", path.display()),
    )
}

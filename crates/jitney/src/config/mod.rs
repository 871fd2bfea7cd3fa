//! The configuration: defaults, then the file, then the environment, then flags; the later wins.
//!
//! In: a TOML file, `JITNEY_*` variables, flags. Out: a [`Config`], checked and resolved, or a
//! [`ConfigError`] that names every mistake with its place and what to do about it. Each key is one row of
//! a table (`server::KEYS`, `policy::KEYS`, `route::KEYS`), which the file, the environment, the
//! suggestions and the reference (`default.toml`) are all checked against.

mod environment;
mod fixed;
mod policy;
mod report;
mod route;
mod server;
mod show;
mod source;
mod value;
mod whereabouts;

use std::path::{Path, PathBuf};

pub use report::{Complaint, ConfigError, Place, Written};
pub use server::{LogFormat, LogLevel, LogOptions};
pub use show::{Shown, show};
pub use whereabouts::{data, listen};

use crate::policy::{FileLine, Places};
use crate::server::options::Options;
use report::Complaints;
use server::Server;
pub(crate) use source::version;
use source::{Keys, Source};

/// The reference: every key with what it is, its unit, its default and when to change it.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The file that is read where none is named, if it is there.
pub const DEFAULT_PATH: &str = "jitney.toml";

/// The environment variable that names the file.
pub const PATH_VARIABLE: &str = "JITNEY_CONFIG";

/// The largest configuration or schema file, bytes: people write these.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the server is started with.
    pub options: Options,
    /// How it logs.
    pub log: LogOptions,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Every key that was set, in the order of the sources: of two for one key the later counts.
    pub written: Vec<Written>,
}

/// What a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that was asked for; it must be there.
    pub file: Option<PathBuf>,
    /// The environment, name and value.
    pub environment: Vec<(String, String)>,
    /// Keys of `[server]` that were given as flags: the flag, the key, the value.
    pub flags: Vec<Flag>,
}

/// A key of `[server]` given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user wrote it: `--listen`.
    pub name: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

/// A value that one of the sources says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where it is said.
    pub place: Place,
}

impl Sources {
    /// The environment of this process, and no more.
    #[must_use]
    pub fn from_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            environment,
            ..Self::default()
        }
    }

    /// The file to read: the one asked for, by flag or environment, or the default one if it is there.
    fn path(&self) -> Option<PathBuf> {
        if let Some(path) = &self.file {
            return Some(path.clone());
        }
        // An empty variable is how compose files and shells say that there is none.
        let named = self
            .environment
            .iter()
            .find(|(name, path)| name == PATH_VARIABLE && !path.is_empty());
        match named {
            Some((_, path)) => Some(PathBuf::from(path)),
            None => Path::new(DEFAULT_PATH)
                .exists()
                .then(|| PathBuf::from(DEFAULT_PATH)),
        }
    }
}

/// Loads the configuration.
///
/// # Errors
/// [`ConfigError`] holds every mistake that was found, in the order of the sources.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut complaints = Complaints::default();
    let path = sources.path();
    let source = path.as_deref().and_then(|path| match Source::read(path) {
        Ok(source) => Some(source),
        Err(complaint) => {
            complaints.push(complaint.hint(
                "`--config` or JITNEY_CONFIG names the file; without them ./jitney.toml is read if it is there",
            ));
            None
        }
    });
    let mut config = build(source.as_ref(), sources, &mut complaints);
    config.file = path;
    complaints.or(config)
}

/// The configuration of an empty file: what default.toml says.
#[must_use]
pub fn defaults() -> Config {
    build(None, &Sources::default(), &mut Complaints::default())
}

/// Loads a configuration from text, with nothing else over it. `path` is what errors call it, and what
/// schema paths are relative to.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let mut complaints = Complaints::default();
    let source = Source::new(path, text.to_owned());
    let config = build(Some(&source), &Sources::default(), &mut complaints);
    complaints.or(config)
}

fn build(source: Option<&Source>, sources: &Sources, complaints: &mut Complaints) -> Config {
    let mut server = Keys::new(Server::default());
    let mut policies = crate::policy::PolicyBook::default();
    let mut routes = Vec::new();
    if let Some(source) = source {
        read_file(source, &mut server, &mut policies, &mut routes, complaints);
    }
    environment::read(&sources.environment, &mut server, complaints);
    for flag in &sources.flags {
        server.set_text(
            server::KEYS,
            flag.key,
            &flag.value,
            Place::Flag(flag.name),
            complaints,
        );
    }
    server::check(&server, complaints);
    route::check(&routes, server.draft.wait_max(), complaints);
    let routes = routes.into_iter().map(|written| written.route).collect();
    let written = complaints.take_written();
    policies.places = places(&written);
    let (options, log) = server.draft.into_options(policies, routes);
    Config {
        options,
        log,
        file: None,
        written,
    }
}

/// Where each key of a policy stands.
fn places(written: &[Written]) -> Places {
    let in_file = |written: &Written| match &written.place {
        Place::File(place) if written.title.starts_with("[processor.") => {
            let at = FileLine {
                path: place.path.clone(),
                line: place.line,
            };
            Some((written.title.clone(), written.key.clone(), at))
        }
        _ => None,
    };
    Places::new(written.iter().filter_map(in_file))
}

fn read_file(
    source: &Source,
    server: &mut Keys<Server>,
    policies: &mut crate::policy::PolicyBook,
    routes: &mut Vec<route::Written>,
    complaints: &mut Complaints,
) {
    let table = match source.parse() {
        Ok(table) => table,
        Err(complaint) => return complaints.push(complaint),
    };
    for (key, value) in table.get_ref() {
        match key.get_ref().as_ref() {
            "server" => {
                if let Some(table) = source.table(value, "[server]", complaints) {
                    server.set_table(server::KEYS, table, "[server]", source, complaints);
                }
            }
            "processor" => policy::read(value, source, policies, complaints),
            "route" => route::read(value, source, routes, complaints),
            other => complaints.push(source.unknown(
                other,
                key.span(),
                "at the top of the file",
                ["server", "processor", "route"],
            )),
        }
    }
}

#[cfg(test)]
mod tests;

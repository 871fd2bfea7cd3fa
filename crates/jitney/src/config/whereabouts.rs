//! Where a server is, for those who want to speak to it or look at its log: the keys of `[server]` that say so.
//!
//! Nothing else of the configuration is looked at: a mistake elsewhere is no reason not to ask a server how it is.
//! What cannot be read where it matters is an error, because the default would be another server.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::report::{Complaint, ConfigError, Place};
use super::source::Source;
use super::value::{Value, Wrong, typed};
use super::{Found, Sources};

/// Where the server listens, as the environment or the file says; `None` if neither does.
///
/// # Errors
/// [`ConfigError`] if what is there cannot be read.
pub fn listen(sources: &Sources) -> Result<Option<Found<SocketAddr>>, ConfigError> {
    find(sources, "listen", |value| value.address())
}

/// Where the server keeps its log, as the environment or the file says; `None` if neither does.
///
/// # Errors
/// [`ConfigError`] if what is there cannot be read.
pub fn data(sources: &Sources) -> Result<Option<Found<PathBuf>>, ConfigError> {
    find(sources, "data", |value| value.path())
}

fn find<T>(
    sources: &Sources,
    key: &str,
    read: fn(&Value<'_>) -> Result<T, Wrong>,
) -> Result<Option<Found<T>>, ConfigError> {
    let found = |value: &Value<'_>, place: Place| match read(value) {
        Ok(value) => Ok(Some(Found { value, place })),
        Err(wrong) => Err(alone(Complaint {
            message: format!("`{key}`: {}", wrong.message),
            place: Some(place),
            hint: wrong.hint,
        })),
    };
    // As for the server the long name wins. An empty variable says nothing.
    for prefix in ["JITNEY_SERVER_", "JITNEY_"] {
        let variable = format!("{prefix}{}", key.to_ascii_uppercase());
        let mut environment = sources.environment.iter();
        let written = environment.find(|(name, text)| *name == variable && !text.is_empty());
        if let Some((_, text)) = written {
            return found(&Value::Text(text), Place::Environment(variable));
        }
    }
    let Some(path) = sources.path() else {
        return Ok(None);
    };
    // The server's file need not be one that everybody may read.
    let Some(source) = Source::read_if_readable(&path).map_err(alone)? else {
        return Ok(None);
    };
    let file = source.parse().map_err(alone)?;
    let server = file.get_ref().get("server");
    let server = server.and_then(|server| server.get_ref().as_table());
    match server.and_then(|server| server.get(key)) {
        Some(value) => found(&typed(value.get_ref()), source.place(value.span())),
        None => Ok(None),
    }
}

fn alone(complaint: Complaint) -> ConfigError {
    ConfigError {
        complaints: vec![complaint],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_the_file_and_a_mistake_elsewhere_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jitney.toml");
        let text = "[server]\nlisten = '127.0.0.1:9'\noops = 3\n[processor.orders]\nmax_job = 3\n";
        std::fs::write(&path, text).unwrap();
        let sources = |pairs: &[(&str, &str)]| Sources {
            file: Some(path.clone()),
            environment: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            flags: Vec::new(),
        };
        let port = |pairs: &[(&str, &str)]| {
            let found = listen(&sources(pairs)).unwrap().unwrap();
            (found.value.port(), found.place.to_string())
        };
        assert_eq!(port(&[]), (9, format!("{}:2:10", path.display())));
        assert_eq!(port(&[("JITNEY_LISTEN", "")]).0, 9);
        let short = ("JITNEY_LISTEN", "127.0.0.1:1");
        let long = ("JITNEY_SERVER_LISTEN", "127.0.0.1:2");
        assert_eq!(port(&[short]).0, 1);
        assert_eq!(
            port(&[short, long]),
            (2, "the environment variable JITNEY_SERVER_LISTEN".to_owned())
        );
        assert_eq!(data(&sources(&[])).unwrap(), None);
        let named = data(&sources(&[("JITNEY_DATA", "/jobs")])).unwrap().unwrap();
        assert_eq!(named.value, PathBuf::from("/jobs"));
    }

    #[test]
    fn what_cannot_be_read_where_it_matters_is_no_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jitney.toml");
        let sources = Sources {
            file: Some(path.clone()),
            ..Sources::default()
        };
        assert_eq!(listen(&sources).unwrap(), None, "there is no file");
        for text in ["[server]\nlisten = 9000\n", "[server\n"] {
            std::fs::write(&path, text).unwrap();
            let error = listen(&sources).unwrap_err().to_string();
            assert!(error.contains("jitney.toml:"), "{error}");
        }
    }
}

//! Values of a TOML file, and the readings that only a configuration has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeValue;

use crate::server::options::AllowedHost;
pub(super) use crate::written::{Value, Wrong};

/// A value of a file, with its type.
pub(super) fn typed<'a>(value: &'a DeValue<'_>) -> Value<'a> {
    match value {
        DeValue::Integer(number) => Value::Integer {
            digits: number.as_str(),
            radix: number.radix(),
        },
        DeValue::String(text) => Value::String(text),
        DeValue::Boolean(on) => Value::Boolean(*on),
        other => Value::Other(other.type_str()),
    }
}

impl Value<'_> {
    /// A path; it need not be there.
    pub(super) fn path(&self) -> Result<PathBuf, Wrong> {
        self.text().map(PathBuf::from)
    }

    /// Names of hosts, with commas between them.
    pub(super) fn hosts(&self) -> Result<Vec<AllowedHost>, Wrong> {
        let (Self::String(text) | Self::Text(text)) = *self else {
            return Err(self.mistyped(
                "names with commas between them",
                "\"jobs.example, *.cluster.local\"",
            ));
        };
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| {
                AllowedHost::parse(name).ok_or_else(|| {
                    Wrong::new(format!("`{name}` is no name of a host")).hint(
                        "write names without scheme and port: \"jobs.example\", \"*.jobs.example\" for all below \
                         it, or \"*\" for any",
                    )
                })
            })
            .collect()
    }

    /// An address with a port.
    pub(super) fn address(&self) -> Result<SocketAddr, Wrong> {
        let example = "write for example \"127.0.0.1:8080\", or \"127.0.0.1:0\" for a free port";
        let text = self.text().map_err(|wrong| wrong.hint(example))?;
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        if let Some(port) = local {
            return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        }
        text.parse()
            .map_err(|_| Wrong::new(format!("`{text}` is not an address with a port")).hint(example))
    }
}

//! Keys of `[server]` from the environment: `JITNEY_JOBS_MAX`, or `JITNEY_SERVER_JOBS_MAX`, sets `jobs_max`.

use super::report::{Complaint, Complaints, Place, suggestion};
use super::server::{self, Server};
use super::source::Keys;

/// What every such variable begins with.
const PREFIX: &str = "JITNEY_";

/// What may follow it, to say that the key is of `[server]`.
const SECTION: &str = "SERVER_";

/// Variables that are named unlike their key.
const RENAMED: &[(&str, &str)] = &[("log", "log_level")];

/// Variables of the command line, which are no keys.
const NO_KEYS: &[&str] = &["config", "url"];

/// Sets what the environment says. Where both names of a key are there, the long one wins.
pub(super) fn read(environment: &[(String, String)], server: &mut Keys<Server>, complaints: &mut Complaints) {
    let is_long = |name: &str| {
        name.strip_prefix(PREFIX)
            .is_some_and(|rest| rest.starts_with(SECTION))
    };
    let (long, short): (Vec<_>, Vec<_>) = environment.iter().partition(|(name, _)| is_long(name));
    for (name, value) in short.into_iter().chain(long) {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let written = rest.strip_prefix(SECTION).unwrap_or(rest).to_ascii_lowercase();
        if NO_KEYS.contains(&written.as_str()) || is_service_link(&written) {
            continue;
        }
        let renamed = RENAMED.iter().find(|(short, _)| *short == written);
        let key = renamed.map_or(written.as_str(), |(_, key)| key);
        let place = Place::Environment(name.clone());
        if server::KEYS.iter().any(|known| known.name == key) {
            server.set_text(server::KEYS, key, value, place, complaints);
        } else {
            let names: Vec<_> = server::KEYS.iter().map(|known| known.name).collect();
            complaints.push(Complaint {
                message: format!("`{key}` is not a key of [server]"),
                place: Some(place),
                hint: suggestion(key, names),
            });
        }
    }
}

/// Kubernetes sets these in every container beside a service called `jitney` or `jitney-server`.
fn is_service_link(key: &str) -> bool {
    key.starts_with("service_") || key == "port" || key.starts_with("port_")
}

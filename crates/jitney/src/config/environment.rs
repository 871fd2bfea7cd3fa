//! Keys of `[server]` from the environment: `JITNEY_SERVER_JOBS_MAX` sets `jobs_max`.

use super::report::{Complaint, Complaints, Place, suggestion};
use super::server::{self, Server};
use super::source::Keys;

/// What every such variable begins with.
const PREFIX: &str = "JITNEY_SERVER_";

/// Shorter names for the keys that are set most.
const SHORT: &[(&str, &str)] = &[
    ("JITNEY_BUS", "bus"),
    ("JITNEY_DATA", "data"),
    ("JITNEY_LISTEN", "listen"),
    ("JITNEY_LOG", "log_level"),
    ("JITNEY_LOG_FORMAT", "log_format"),
    ("JITNEY_NO_AUTH", "no_auth"),
];

/// Sets what the environment says. Where both names of a key are there, the long one wins.
pub(super) fn read(environment: &[(String, String)], server: &mut Keys<Server>, complaints: &mut Complaints) {
    for (name, key) in SHORT {
        if let Some((_, value)) = environment.iter().find(|(known, _)| known == name) {
            let place = Place::Environment((*name).to_owned());
            server.set_text(server::KEYS, key, value, place, complaints);
        }
    }
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let place = Place::Environment(name.clone());
        let key = key.to_ascii_lowercase();
        if server::KEYS.iter().any(|known| known.name == key) {
            server.set_text(server::KEYS, &key, value, place, complaints);
        } else if !is_service_link(&key) {
            let names: Vec<_> = server::KEYS.iter().map(|known| known.name).collect();
            complaints.push(Complaint {
                message: format!("`{key}` is not a key of [server]"),
                place: Some(place),
                hint: suggestion(&key, names),
            });
        }
    }
}

/// Kubernetes sets these in every container beside a service called `jitney-server`.
fn is_service_link(key: &str) -> bool {
    key.starts_with("service_") || key == "port" || key.starts_with("port_")
}

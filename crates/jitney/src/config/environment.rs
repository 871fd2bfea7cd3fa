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

/// What to do about variables that nobody set by hand.
const SERVICE_LINKS: &str = "Kubernetes sets such variables for services whose names begin with `jitney-`: say \
    `enableServiceLinks: false` in the pod, or call the service otherwise";

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
        if NO_KEYS.contains(&written.as_str()) || is_service_link(&written, value) {
            continue;
        }
        let renamed = RENAMED.iter().find(|(short, _)| *short == written);
        let key = renamed.map_or(written.as_str(), |(_, key)| key);
        let place = Place::Environment(name.clone());
        if server::KEYS.iter().any(|known| known.name == key) {
            server.set_text(server::KEYS, key, value, place, complaints);
        } else {
            let names: Vec<_> = server::KEYS.iter().map(|known| known.name).collect();
            let hint = match is_link_of_another(&written, value) {
                true => Some(SERVICE_LINKS.to_owned()),
                false => suggestion(key, names),
            };
            complaints.push(Complaint {
                message: format!("`{key}` is not a key of [server]"),
                place: Some(place),
                hint,
            });
        }
    }
}

/// Whether it looks as what Kubernetes sets beside a service called `jitney-web` or the like: `web_service_host`,
/// `web_service_port`, `web_port_80_tcp_addr`, and `web_port`, whose value is an address.
fn is_link_of_another(key: &str, value: &str) -> bool {
    let transport = |value: &str| {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|begin| value.starts_with(begin))
    };
    key.ends_with("_service_host")
        || key.contains("_service_port")
        || (key.contains("_port") && transport(value))
        || ["_tcp", "_udp", "_sctp"]
            .iter()
            .any(|kind| key.contains("_port_") && key.contains(kind))
}

/// Kubernetes sets these in every container beside a service called `jitney` or `jitney-server`: its `port` is a URL.
fn is_service_link(key: &str, value: &str) -> bool {
    let is_url = || value.contains("://");
    key.starts_with("service_") || key.starts_with("port_") || (key == "port" && is_url())
}

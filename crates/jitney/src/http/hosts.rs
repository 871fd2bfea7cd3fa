//! Which names this server goes by: the `Host` and the `Origin` of a request, checked.
//!
//! A page of anyone can have its own name lead to this server's address (DNS rebinding); to its browser the two
//! are then of one origin. So a name in `Host` must be ours: `localhost`, or one that the operator wrote down. An
//! IP address is fine whoever's it is, because no page can come to a browser under an address of ours but from us.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Version};

use super::error::{Code, Problem, Result};
use super::parse::shown;
use crate::server::options::AllowedHost;

/// The longest name of a host, bytes, says RFC 1035.
const NAME_BYTES_MAX: usize = 253;

/// The names of this server.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    allowed: Vec<AllowedHost>,
}

impl Hosts {
    pub(super) const fn new(allowed: Vec<AllowedHost>) -> Self {
        Self { allowed }
    }

    /// Fails if the request calls the server by a name that is not its own, or comes from a page of another
    /// origin.
    pub(super) fn check(&self, parts: &Parts) -> Result<()> {
        let host = requested(parts)?;
        if let Some(host) = host
            && !self.is_own(host)
        {
            let detail = format!(
                "the request's host is `{}`, which is no name of this server; if it should be one, add it to \
                 `allowed_hosts` (JITNEY_ALLOWED_HOSTS), or call the server by its IP address",
                shown(host)
            );
            return Err(Problem::new(Code::Forbidden, detail));
        }
        self.check_origin(&parts.headers, host)
    }

    fn is_own(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else {
            return false;
        };
        is_address(&host)
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.allowed.contains(&AllowedHost::Any)
            || self.is_listed(&host)
    }

    fn is_listed(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.names(host))
    }

    /// Fails if a browser says that a page of another origin sends this. Its own origin is the host that it asks,
    /// or a listed name: a proxy in front may have changed the host.
    fn check_origin(&self, headers: &HeaderMap, host: Option<&str>) -> Result<()> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(());
        };
        if origins.next().is_some() {
            return Err(Problem::invalid("Origin", "`Origin` is given twice"));
        }
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(scheme, authority)| self.is_own_origin(scheme, authority, host));
        if own {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            "the request's `Origin` is not this server; pages of other origins may not call it",
        ))
    }

    fn is_own_origin(&self, scheme: &str, authority: &str, host: Option<&str>) -> bool {
        let port = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => ":80",
            _ if scheme.eq_ignore_ascii_case("https") => ":443",
            _ => return false,
        };
        let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        let origin = bare(authority);
        host_of(&origin).is_some()
            && (host.is_some_and(|host| bare(host) == origin) || self.is_listed(&origin))
    }
}

/// Whom the request is for, with the port. HTTP/1.0 need not say; no browser speaks that.
fn requested(parts: &Parts) -> Result<Option<&str>> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let visible = |_| Problem::invalid("Host", "`Host` is not visible ASCII");
            Some(host.to_str().map_err(visible)?)
        }
        (None, _) if parts.version < Version::HTTP_11 => None,
        (None, _) => return Err(Problem::invalid("Host", "`Host` is missing")),
        (Some(_), Some(_)) => return Err(Problem::invalid("Host", "`Host` is given twice")),
    };
    // A target with a host of its own stands above the header, says RFC 9112.
    Ok(parts
        .uri
        .authority()
        .map(|authority| authority.as_str())
        .or(header))
}

/// The host of an authority, in lower case, without port and final dot: a name, or an IP address. Nothing if it is
/// neither.
fn host_of(authority: &str) -> Option<String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<Ipv6Addr>().ok()?;
            (inside, after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => {
            let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
            let host = host.strip_suffix('.').unwrap_or(host);
            is_name(host).then_some((host, Some(port)))?
        }
    };
    let is_port = |port: &str| port.is_empty() || (is_digits(port) && port.parse::<u16>().is_ok());
    port.is_some_and(is_port).then(|| host.to_ascii_lowercase())
}

/// Whether it is labels of letters, digits, hyphens and underscores with dots between them: nothing that some program
/// on the way may read as an end of the name.
fn is_name(host: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    host.len() <= NAME_BYTES_MAX
        && host
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(fine))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_address(host: &str) -> bool {
    host.parse::<Ipv4Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::http::Request;

    fn parts(version: Version, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn hosts(allowed: &[&str]) -> Hosts {
        let parsed = allowed.iter().map(|text| AllowedHost::parse(text).unwrap());
        Hosts::new(parsed.collect())
    }

    #[test]
    fn a_name_must_be_this_servers_and_an_address_need_not() {
        let listed = hosts(&["jobs.example", "*.cluster.local"]);
        for (host, own) in [
            ("127.0.0.1:8080", true),
            ("10.1.2.3", true),
            ("[::1]:8080", true),
            ("[2001:db8::7]", true),
            ("localhost", true),
            ("LOCALHOST:9", true),
            ("localhost.:9", true),
            ("jitney.localhost:8080", true),
            ("Jobs.Example:443", true),
            ("jitney.default.svc.cluster.local:8080", true),
            ("cluster.local", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("evilcluster.local", false),
            ("evil.example@127.0.0.1", false),
            ("127.0.0.1:80:80", false),
            ("[::1]evil.example", false),
            ("[evil.example]", false),
            ("localhost:x", false),
            ("localhost:65536", false),
            ("localhost:+80", false),
            ("localhost:", true),
            ("", false),
            // These passed for names under `localhost`.
            ("evil.com/.localhost", false),
            ("evil.com#.localhost", false),
            ("evil.com?.localhost", false),
            ("evil.com\\.localhost", false),
            ("evil.com, x.localhost", false),
            ("evil com.localhost", false),
            ("evil@x.localhost", false),
            ("[evil.localhost]", false),
            (".localhost", false),
            ("a..localhost", false),
            ("evil.com/.cluster.local", false),
            ("a_b.cluster.local", true),
        ] {
            let request = parts(Version::HTTP_11, "/v1/jobs", &[("host", host)]);
            assert_eq!(listed.check(&request).is_ok(), own, "{host}");
        }
        let anyone = parts(Version::HTTP_11, "/", &[("host", "evil.example")]);
        assert!(hosts(&["*"]).check(&anyone).is_ok());
        let none = parts(Version::HTTP_11, "/", &[("host", "evil.example/")]);
        assert!(hosts(&["*"]).check(&none).is_err());
    }

    #[test]
    fn the_host_is_said_once_and_a_target_stands_above_it() {
        let ours = hosts(&[]);
        assert!(ours.check(&parts(Version::HTTP_10, "/", &[])).is_ok());
        for (version, target, headers, detail) in [
            (Version::HTTP_11, "/", &[][..], "`Host` is missing"),
            (
                Version::HTTP_11,
                "/",
                &[("host", "localhost"), ("host", "localhost")],
                "`Host` is given twice",
            ),
            (
                Version::HTTP_11,
                "http://localhost/",
                &[("host", "localhost"), ("host", "evil.example")],
                "`Host` is given twice",
            ),
            (
                Version::HTTP_11,
                "/",
                &[
                    ("host", "localhost"),
                    ("origin", "http://localhost"),
                    ("origin", "http://evil.example"),
                ],
                "`Origin` is given twice",
            ),
        ] {
            let problem = ours.check(&parts(version, target, headers)).unwrap_err();
            assert_eq!(
                (problem.code, problem.detail.as_str()),
                (Code::InvalidValue, detail)
            );
        }
        let whole = parts(Version::HTTP_11, "http://evil.example/", &[("host", "localhost")]);
        let problem = ours.check(&whole).unwrap_err();
        assert_eq!(problem.code, Code::Forbidden);
        assert!(problem.detail.contains("`evil.example`"), "{}", problem.detail);
    }

    #[test]
    fn only_this_server_is_its_own_origin() {
        for (allowed, origin, host, own) in [
            ("*", "http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("*", "http://LOCALHOST:8080", "localhost:8080", true),
            ("*", "https://jobs.example", "jobs.example:443", true),
            ("*", "http://jobs.example:80", "jobs.example", true),
            ("*", "http://evil.example", "127.0.0.1:8080", false),
            ("*", "http://127.0.0.1:9090", "127.0.0.1:8080", false),
            ("*", "null", "127.0.0.1:8080", false),
            // Behind a proxy that sends another host on.
            ("jobs.example", "https://jobs.example", "127.0.0.1:8080", true),
            ("jobs.example", "https://jobs.example:9", "127.0.0.1:8080", false),
            ("jobs.example", "https://evil.example", "jobs.example", false),
            ("*", "x://localhost", "localhost", false),
            ("*", "HTTP://localhost", "localhost", true),
            ("*", "http://localhost/", "localhost", false),
            ("*", "http://localhost http://evil.example", "localhost", false),
            (
                "*.jobs.example",
                "https://evil.com/.jobs.example",
                "127.0.0.1",
                false,
            ),
            ("*.jobs.example", "https://a.jobs.example", "127.0.0.1", true),
        ] {
            let request = parts(Version::HTTP_11, "/", &[("origin", origin), ("host", host)]);
            assert_eq!(
                hosts(&[allowed]).check(&request).is_ok(),
                own,
                "{allowed} {origin} {host}"
            );
        }
    }
}

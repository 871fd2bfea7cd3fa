//! One request and its answer over HTTP; what failed is told apart by whether it can have arrived.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, Url};

use super::error::{Error, Problem};

/// The pool of connections to one server.
#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    base: Url,
    answer_bytes_max: usize,
}

/// A request, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    url: Url,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Bytes>,
    pub(super) idempotency_key: Option<String>,
    /// For the whole exchange, the asked-for wait included.
    pub(super) timeout: Duration,
}

/// An answer that is no refusal.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) body: Bytes,
    /// `Idempotency-Replayed: true`.
    pub(super) replayed: bool,
    /// `Retry-After`: a draining server says when to ask again.
    pub(super) retry_after: Option<Duration>,
}

impl Transport {
    pub(super) fn new(
        url: &str,
        connect_timeout: Duration,
        idle_connections_max: usize,
        answer_bytes_max: usize,
    ) -> Result<Self, Error> {
        let base = parse_base(url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(idle_connections_max)
            .tcp_nodelay(true)
            // A server of one's own, often on this machine: a proxy for the web has no part in it.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("jitney/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Invalid {
                detail: format!("cannot set up an http client: {error}"),
            })?;
        Ok(Self {
            http,
            base,
            answer_bytes_max,
        })
    }

    pub(super) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to the path made of these segments, each escaped as far as it needs.
    pub(super) fn call(
        &self,
        method: &'static str,
        segments: &[&str],
        timeout: Duration,
    ) -> Result<Call, Error> {
        // A segment of dots would be taken for a step in the path.
        if let Some(wrong) = segments
            .iter()
            .find(|s| s.is_empty() || **s == "." || **s == "..")
        {
            return Err(Error::Invalid {
                detail: format!("`{wrong}` cannot be part of a URL"),
            });
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("`parse_base` lets only `http` URLs in, which have a path")
            .pop_if_empty()
            .extend(segments);
        Ok(Call {
            method: Method::from_bytes(method.as_bytes())
                .expect("methods are written in this module's callers"),
            url,
            query: Vec::new(),
            body: None,
            idempotency_key: None,
            timeout,
        })
    }

    /// Sends it once.
    pub(super) async fn send(&self, call: &Call) -> Result<Reply, Error> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url.clone())
            .timeout(call.timeout);
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = &call.body {
            request = request
                .header("content-type", "application/json")
                .body(body.clone());
        }
        let response = request.send().await.map_err(|error| self.failed(error))?;
        self.receive(response).await
    }

    async fn receive(&self, mut response: reqwest::Response) -> Result<Reply, Error> {
        let status = response.status();
        let retry_after = header(&response, "retry-after")
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs);
        let replayed = header(&response, "idempotency-replayed").is_some_and(|value| value == "true");
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len() + chunk.len() > self.answer_bytes_max {
                return Err(strange(
                    format!("more than {} bytes", self.answer_bytes_max),
                    false,
                ));
            }
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        if status.is_success() {
            return Ok(Reply {
                body,
                replayed,
                retry_after,
            });
        }
        match Problem::decode(&body, status.as_u16(), retry_after) {
            Some(problem) => Err(Error::Refused(Box::new(problem))),
            None => Err(strange(
                format!("`{status}` without a reason"),
                status.is_server_error(),
            )),
        }
    }

    fn failed(&self, error: reqwest::Error) -> Error {
        if error.is_builder() {
            return Error::Invalid {
                detail: format!("cannot make the request: {error}"),
            };
        }
        Error::Unreachable {
            url: self.url().to_owned(),
            // Whatever failed before there was a connection was not sent.
            sent: !error.is_connect(),
            source: Box::new(error.without_url()),
        }
    }
}

fn strange(detail: String, server_fault: bool) -> Error {
    Error::Protocol { detail, server_fault }
}

fn header<'a>(response: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn parse_base(text: &str) -> Result<Url, Error> {
    let invalid = |why: &str| Error::Invalid {
        detail: format!("`{text}` is not the URL of a server: {why}"),
    };
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|error| invalid(&error.to_string()))?;
    if url.scheme() != "http" {
        return Err(invalid("only `http://` is spoken in this version"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it ends with a query or a fragment"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(url: &str) -> Result<Transport, Error> {
        Transport::new(url, Duration::from_secs(1), 1, 1024)
    }

    #[test]
    fn a_url_may_leave_out_the_scheme_and_keep_a_path() {
        for (given, expected) in [
            ("localhost:8080", "http://localhost:8080/v1/jobs"),
            ("http://localhost:8080/", "http://localhost:8080/v1/jobs"),
            ("http://proxy/jitney", "http://proxy/jitney/v1/jobs"),
        ] {
            let call = transport(given)
                .unwrap()
                .call("GET", &["v1", "jobs"], Duration::ZERO)
                .unwrap();
            assert_eq!(call.url.as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_server_is_said_so() {
        for wrong in ["https://localhost", "ftp://x", "http://", "http://x?y=z", "a b"] {
            assert!(matches!(transport(wrong), Err(Error::Invalid { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        let transport = transport("localhost").unwrap();
        let call = transport.call("GET", &["v1", "a/b?c"], Duration::ZERO).unwrap();
        assert_eq!(call.url.as_str(), "http://localhost/v1/a%2Fb%3Fc");
        assert!(transport.call("GET", &["v1", ".."], Duration::ZERO).is_err());
    }
}

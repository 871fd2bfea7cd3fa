//! The server behind a URL: one request and its answer over HTTP. What failed is told apart by whether it can
//! have arrived.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, Url};

use super::control::{Policy, PolicyChange, PolicyScope};
use super::error::{Error, Problem};
use super::job::{Info, Job, Lanes};
use super::many::{self, AllHeld};
use super::submit::{Submit, Submitted};
use super::transport::{Answer, Transport};
use super::wire;
use super::work::{self, Extended, LeaseAnswer, LeaseRequest, Settle, SettleAnswer};
use crate::job::{JobId, Priority};
use crate::units::format_duration;

/// The pool of connections to one server.
#[derive(Debug)]
pub(super) struct Http {
    http: reqwest::Client,
    base: Url,
    answer_bytes_max: usize,
    /// How long an answer may take, beyond the wait that was asked for.
    request_timeout: Duration,
}

/// A request, ready to be sent any number of times.
#[derive(Clone, Debug)]
struct Call {
    method: Method,
    url: Url,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    content_type: &'static str,
    idempotency_key: Option<String>,
    traceparent: Option<String>,
    /// For the whole exchange, the asked-for wait included.
    timeout: Duration,
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

/// How to reach a server.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) url: String,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) idle_connections_max: usize,
    pub(super) answer_bytes_max: usize,
}

impl Transport for Http {
    fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn submit<'a>(&'a self, submit: &'a Submit, wait: Option<Duration>) -> Answer<'a, Submitted> {
        Box::pin(async move {
            let mut call = self.call("POST", &["v1", "jobs"])?;
            call.body = Some(submit.encode()?);
            call.idempotency_key.clone_from(&submit.idempotency_key);
            call.traceparent.clone_from(&submit.traceparent);
            set_wait(&mut call, wait);
            Submitted::decode(&self.send(&call).await?)
        })
    }

    fn submit_many<'a>(&'a self, submits: &'a [&'a Submit], wait: Option<Duration>) -> Answer<'a, AllHeld> {
        Box::pin(async move {
            let lines = submits.iter().map(|submit| submit.encode_line());
            let lines: Vec<Bytes> = lines.collect::<Result<_, _>>()?;
            let mut entries = Vec::with_capacity(lines.len());
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let (part, after) = rest.split_at(many::part(rest));
                rest = after;
                let mut call = self.call("POST", &["v1", "jobs"])?;
                call.body = Some(many::body(part.iter()));
                call.content_type = "application/x-ndjson";
                // Who waited for the earlier ones would keep the later ones from being submitted.
                set_wait(&mut call, wait.filter(|_| rest.is_empty()));
                entries.extend(many::decode(&self.send(&call).await?.body, part.len())?);
            }
            Ok(entries)
        })
    }

    fn get(&self, id: JobId, wait: Option<Duration>) -> Answer<'_, Job> {
        Box::pin(async move {
            let mut call = self.call("GET", &["v1", "jobs", &id.to_string()])?;
            set_wait(&mut call, wait);
            Job::decode(self.send(&call).await?.body)
        })
    }

    fn lanes(&self) -> Answer<'_, Lanes> {
        Box::pin(async move { Ok(Lanes::new(self.read_text(&["v1", "lanes"]).await?)) })
    }

    fn set_paused<'a>(&'a self, processor: &'a str, priority: Priority, paused: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let what = if paused { "pause" } else { "resume" };
            let call = self.call("POST", &["v1", "lanes", processor, priority.name(), what])?;
            self.send(&call).await.map(|_| ())
        })
    }

    fn policy<'a>(
        &'a self,
        processor: &'a str,
        scope: &'a PolicyScope,
        change: PolicyChange<'a>,
    ) -> Answer<'a, Policy> {
        Box::pin(async move {
            let method = match change {
                PolicyChange::None => "GET",
                PolicyChange::Set(_) => "PUT",
                PolicyChange::Clear => "DELETE",
            };
            let mut call = self.call(method, &["v1", "processors", processor, "policy"])?;
            let group = scope.group.as_ref().map(|group| ("group", group.clone()));
            let priority = scope
                .priority
                .map(|priority| ("priority", priority.name().to_owned()));
            call.query.extend(group.into_iter().chain(priority));
            if let PolicyChange::Set(values) = change {
                call.body = Some(Bytes::copy_from_slice(values.as_bytes()));
            }
            let body = self.send(&call).await?.body;
            wire::check(&body)?;
            Ok(Policy::new(body))
        })
    }

    fn info(&self) -> Answer<'_, Info> {
        Box::pin(async move { Ok(Info::new(self.read_text(&["v1", "info"]).await?)) })
    }

    fn health(&self, ready: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let path = if ready { "readyz" } else { "healthz" };
            let call = self.call("GET", &[path])?;
            self.send(&call).await.map(drop)
        })
    }

    fn lease<'a>(&'a self, processor: &'a str, request: &'a LeaseRequest) -> Answer<'a, LeaseAnswer> {
        Box::pin(async move {
            let mut call = self.call("POST", &["v1", "processors", processor, "lease"])?;
            call.body = Some(work::encode_lease(request)?);
            call.timeout += request.wait;
            LeaseAnswer::decode(&self.send(&call).await?)
        })
    }

    fn settle<'a>(&'a self, settle: &'a Settle) -> Answer<'a, SettleAnswer> {
        Box::pin(async move {
            let mut call = self.call("POST", &["v1", "leases", &settle.lease, "settle"])?;
            call.body = Some(work::encode_settle(settle)?);
            match self.send(&call).await {
                Ok(reply) => wire::read(&reply.body),
                // The problem of a lost lease carries the same results.
                Err(Error::Refused(problem)) if problem.code == "lease_lost" => {
                    wire::read(problem.json().as_bytes()).or(Err(Error::Refused(problem)))
                }
                Err(error) => Err(error),
            }
        })
    }

    fn extend<'a>(&'a self, lease: &'a str) -> Answer<'a, Extended> {
        Box::pin(async move {
            let mut call = self.call("POST", &["v1", "leases", lease, "extend"])?;
            call.body = Some(Bytes::from_static(b"{}"));
            wire::read(&self.send(&call).await?.body)
        })
    }
}

impl Http {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let base = parse_base(&options.url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.idle_connections_max)
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
            answer_bytes_max: options.answer_bytes_max,
            request_timeout: options.request_timeout,
        })
    }

    /// A request to the path made of these segments, each escaped as far as it needs.
    fn call(&self, method: &'static str, segments: &[&str]) -> Result<Call, Error> {
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
            content_type: "application/json",
            idempotency_key: None,
            traceparent: None,
            timeout: self.request_timeout,
        })
    }

    async fn read_text(&self, path: &[&str]) -> Result<Bytes, Error> {
        let body = self.send(&self.call("GET", path)?).await?.body;
        wire::check(&body)?;
        Ok(body)
    }

    /// Sends it once.
    async fn send(&self, call: &Call) -> Result<Reply, Error> {
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
        if let Some(traceparent) = &call.traceparent {
            request = request.header("traceparent", traceparent);
        }
        if let Some(body) = &call.body {
            request = request
                .header("content-type", call.content_type)
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
            url: self.address().to_owned(),
            // Whatever failed before there was a connection was not sent.
            sent: !error.is_connect(),
            source: Box::new(error.without_url()),
        }
    }
}

fn set_wait(call: &mut Call, wait: Option<Duration>) {
    if let Some(wait) = wait {
        call.query.push(("wait", format_duration(wait)));
        call.timeout += wait;
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

    fn http(url: &str) -> Result<Http, Error> {
        Http::new(&Options {
            url: url.to_owned(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            idle_connections_max: 1,
            answer_bytes_max: 1024,
        })
    }

    #[test]
    fn a_url_may_leave_out_the_scheme_and_keep_a_path() {
        for (given, expected) in [
            ("localhost:8080", "http://localhost:8080/v1/jobs"),
            ("http://localhost:8080/", "http://localhost:8080/v1/jobs"),
            ("http://proxy/jitney", "http://proxy/jitney/v1/jobs"),
        ] {
            let call = http(given).unwrap().call("GET", &["v1", "jobs"]).unwrap();
            assert_eq!(call.url.as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_server_is_said_so() {
        for wrong in ["https://localhost", "ftp://x", "http://", "http://x?y=z", "a b"] {
            assert!(matches!(http(wrong), Err(Error::Invalid { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        let http = http("localhost").unwrap();
        let call = http.call("GET", &["v1", "a/b?c"]).unwrap();
        assert_eq!(call.url.as_str(), "http://localhost/v1/a%2Fb%3Fc");
        assert!(http.call("GET", &["v1", ".."]).is_err());
    }
}

//! The front door: HTTP in, commands to the driver out, and the answers back.
//!
//! In: requests of callers and workers, checked and bounded here, so that the driver sees only what is valid.
//! Out: what docs/http_api.md says. The state is the driver's; the edge holds a [`Handle`], and per connection
//! the duty to report what was delivered. Invariants: an error's status is chosen in `error` only; `data` and
//! results are never copied on the way in, nor parsed into a tree; every body, wait and connection is bounded.

mod body;
mod budget;
mod connection;
pub(crate) mod control;
mod counts;
mod delivery;
mod docs;
mod door;
pub(crate) mod error;
mod figures;
mod fit;
pub(crate) mod headers;
mod hosts;
mod jobs;
pub(crate) mod json;
pub(crate) mod lease;
pub(crate) mod many;
mod openapi;
pub(crate) mod ops;
pub(crate) mod parse;
mod route_table;
mod routes;
pub(crate) mod settle;
mod socket;
pub(crate) mod submit;
pub(crate) mod view;

pub use door::Door;
pub use route_table::RouteError;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{Response, Uri};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use body::Rest;
use budget::Budget;
use counts::RequestCounts;
use delivery::Link;
use docs::{DOCS_PATH, ERRORS_PATH, OPENAPI_PATH, Pages};
use error::{Code, Problem};
use hosts::Hosts;
use parse::VERSION;
use route_table::RouteTable;

use crate::clock::{Clock as _, Mono, SystemClock, between};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::server::handle::Handle;
use crate::server::options::{Options, Route};

/// The paths of the contract.
const PATHS: [&str; 14] = [
    "/v1/jobs",
    "/v1/jobs/{id}",
    "/v1/processors/{processor}/jobs",
    "/v1/processors/{processor}/lease",
    "/v1/processors/{processor}/policy",
    "/v1/leases/{lease}/settle",
    "/v1/leases/{lease}/extend",
    "/v1/lanes",
    "/v1/lanes/{processor}/{priority}/pause",
    "/v1/lanes/{processor}/{priority}/resume",
    "/v1/info",
    "/healthz",
    "/readyz",
    "/metrics",
];

/// Paths of the contract that a later version serves, as prefixes or suffixes.
const LATER_PREFIXES: [&str; 3] = ["/v1/dead", "/dashboard", "/events"];
const LATER_SUFFIXES: [&str; 2] = ["/history", "/explain"];

/// How long an outcome is waited for on behalf of a client that sends no more. Most of these are gone; the others,
/// old programs that shut down their sending side, want to hear where their job is.
const LEFT_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the edge works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    handle: Handle,
    limits: Limits,
    metrics: Arc<Metrics>,
    hosts: Hosts,
    bodies: Arc<Budget>,
    routes: RouteTable,
    pages: Pages,
    slow_client_timeout: Duration,
    requests: RequestCounts,
    answers: many::Pool,
    checks: fit::Checks,
}

impl App {
    /// Checks the routes and puts everything together.
    ///
    /// # Errors
    /// [`RouteError`] if a route cannot be served: its path, its schema, or another route in its place.
    pub fn new(handle: Handle, options: &Options, metrics: Arc<Metrics>) -> Result<Self, RouteError> {
        let routes = RouteTable::new(&options.routes, &options.limits)?;
        let pages = Pages::new(&options.limits, &routes);
        let requests = RequestCounts::new(own_paths(), routes.templates());
        Ok(Self {
            shared: Arc::new(Shared {
                handle,
                hosts: Hosts::new(options.allowed_hosts.clone()),
                bodies: Arc::new(Budget::new(options.limits.bodies_bytes_max)),
                limits: options.limits.clone(),
                metrics,
                routes,
                pages,
                slow_client_timeout: options.slow_client_timeout,
                requests,
                answers: many::Pool::default(),
                checks: fit::Checks::default(),
            }),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.shared.handle
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Counts a request whose head could not be read.
    fn refused_head(&self, problem: &Problem) {
        self.shared.requests.count_unmatched(problem);
    }

    fn bodies(&self) -> &Arc<Budget> {
        &self.shared.bodies
    }

    /// The OpenAPI document, as `/openapi.json` has it.
    #[must_use]
    pub fn openapi(&self) -> &[u8] {
        self.pages().openapi()
    }

    /// The same, with these routes in the place of its own. It counts on where this one counts.
    fn with_routes(&self, routes: &[Route]) -> Result<Self, RouteError> {
        let before = &self.shared;
        let routes = RouteTable::new(routes, &before.limits)?;
        Ok(Self {
            shared: Arc::new(Shared {
                handle: before.handle.clone(),
                hosts: before.hosts.clone(),
                bodies: Arc::clone(&before.bodies),
                answers: before.answers.clone(),
                checks: before.checks.clone(),
                limits: before.limits.clone(),
                metrics: Arc::clone(&before.metrics),
                pages: Pages::new(&before.limits, &routes),
                slow_client_timeout: before.slow_client_timeout,
                requests: before.requests.with(own_paths(), routes.templates()),
                routes,
            }),
        })
    }

    fn pages(&self) -> &Pages {
        &self.shared.pages
    }

    /// The memory for answers to many jobs that their clients have not read yet.
    fn answers(&self) -> &many::Pool {
        &self.shared.answers
    }

    fn slow_client_timeout(&self) -> Duration {
        self.shared.slow_client_timeout
    }
}

/// Serves until `stop`, then lets the answers in progress end, for at most a second and a half.
///
/// While a server drains it goes on serving: settles must get through. `stop` is for when the driver has ended.
pub async fn serve(listener: TcpListener, door: impl Into<Door>, stop: impl Future<Output = ()>) {
    connection::serve(listener, door.into(), stop).await;
}

/// The state of the connection that a request came on. A request without one (in a test) delivers nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<ConnectionState>);

#[derive(Debug, Default)]
struct ConnectionState {
    link: Arc<Link>,
    rest: Rest,
    work: many::Work,
    /// Cancelled once the server has stopped but for the answers in progress.
    stopping: CancellationToken,
    /// Cancelled once the client sends no more.
    leaving: CancellationToken,
    /// How long outcomes are waited for from then on.
    held_until: OnceLock<Instant>,
}

impl Connection {
    fn new(stopping: CancellationToken) -> Self {
        Self(Arc::new(ConnectionState {
            stopping,
            ..ConnectionState::default()
        }))
    }

    fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    fn rest(&self) -> &Rest {
        &self.0.rest
    }

    fn work(&self) -> &many::Work {
        &self.0.work
    }

    fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// The client sends no more: it waits for its answer, or is gone.
    fn input_ended(&self) {
        self.hold_for(LEFT_WAIT_MAX);
    }

    /// The client broke off in the middle of a body: it is gone.
    fn broke_off(&self) {
        self.hold_for(Duration::ZERO);
    }

    fn hold_for(&self, at_most: Duration) {
        self.0.held_until.get_or_init(|| Instant::now() + at_most);
        self.0.leaving.cancel();
    }

    /// Comes once the client sends no more: how much longer an outcome is waited for on its behalf.
    fn leaving(&self) -> impl Future<Output = Duration> + Send + use<> {
        let state = Arc::clone(&self.0);
        async move {
            state.leaving.cancelled().await;
            let until = state.held_until.get().copied();
            until.map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(Instant::now())
            })
        }
    }
}

/// The one parameter of a path, decoded.
struct Segment(String);

/// All parameters of a path, decoded, in their order.
struct Segments(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Box<Problem>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> error::Result<Self> {
        let Segments(values) = Segments::from_request_parts(parts, state).await?;
        Ok(Self(values.into_iter().next().unwrap_or_default()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Box<Problem>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> error::Result<Self> {
        let undecodable = |_| Problem::invalid("", "the path is not percent-encoded UTF-8");
        let values = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(undecodable)?;
        Ok(Self(values.iter().map(|(_, value)| value.to_owned()).collect()))
    }
}

/// Every path that is jitney's own.
fn own_paths() -> impl Iterator<Item = &'static str> {
    let pages = [OPENAPI_PATH, DOCS_PATH, ERRORS_PATH];
    PATHS.into_iter().chain(pages).chain(docs::asset_paths())
}

fn router(app: &App) -> Router {
    let [
        jobs,
        job,
        submit,
        lease,
        policy,
        settle,
        extend,
        lanes,
        pause,
        resume,
        info,
        healthz,
        readyz,
        metrics,
    ] = PATHS;
    let own = Router::new()
        .route(jobs, post(submit::envelope))
        .route(job, get(jobs::read))
        .route(submit, post(submit::plain))
        .route(lease, post(lease::poll))
        .route(
            policy,
            get(control::policy)
                .put(control::set_policy)
                .delete(control::clear_policy),
        )
        .route(settle, post(settle::settle))
        .route(extend, post(settle::extend))
        .route(lanes, get(ops::lanes))
        .route(pause, post(control::pause))
        .route(resume, post(control::resume))
        .route(info, get(ops::info))
        .route(healthz, get(ops::healthz))
        .route(readyz, get(ops::readyz))
        .route(metrics, get(ops::metrics));
    routes::add(docs::add(own), &app.shared.routes)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app.clone())
}

/// Answers a request, once its host and origin are checked, and counts the answer.
async fn answer(app: App, mut router: Router, request: Request) -> Response<Body> {
    let clock = SystemClock::new();
    let (parts, body) = request.into_parts();
    let shared = &app.shared;
    let counted = shared.requests.of(parts.uri.path());
    let checked = shared
        .hosts
        .check(&parts)
        .and_then(|()| headers::check_coding(&parts.headers));
    let request = Request::from_parts(parts, body);
    let response = match checked {
        Ok(()) => match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(problem) => refuse_unread(request, problem),
    };
    let took = between(Mono(0), clock.now().mono);
    shared.requests.count(counted, response.status(), took);
    response
}

async fn not_found(request: Request) -> Response<Body> {
    let path = request.uri().path();
    let later = LATER_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        || (path.starts_with("/v1/") && LATER_SUFFIXES.iter().any(|suffix| path.ends_with(suffix)));
    let path = parse::shown(path);
    let detail = match later {
        true => format!("`{path}` is not in {VERSION}"),
        false if path == "/" => format!("nothing is at `/`; `{DOCS_PATH}` describes the API"),
        false => format!("nothing is at `{path}`"),
    };
    refuse_unread(request, Problem::new(Code::NotFound, detail))
}

/// The router adds the `Allow` header.
async fn method_not_allowed(uri: Uri, request: Request) -> Response<Body> {
    let method = request.method();
    let path = parse::shown(uri.path());
    let later = match method.as_str() {
        "DELETE" => path.starts_with("/v1/jobs/"),
        "GET" | "HEAD" => path == "/v1/jobs",
        _ => false,
    };
    let detail = match later {
        true => format!("`{method} {path}` is not in {VERSION}"),
        false => format!("`{path}` does not take {method}"),
    };
    refuse_unread(request, Problem::new(Code::MethodNotAllowed, detail))
}

/// Refuses a request without looking at its body, which is dropped as it comes.
fn refuse_unread(request: Request, problem: Box<Problem>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    Connection::of(&parts).rest().leave(body);
    problem.into_response()
}

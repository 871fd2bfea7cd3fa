//! Handlers as tower services, so that layers can stand around them: timeouts, concurrency limits, tracing.
//!
//! In: a service over a job or over the jobs of a batch. Out: a handler like any other. A clone of the service
//! is taken for each call, as HTTP servers do it: what a layer shares between calls it shares between clones.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tower_service::Service;

use super::handler::HandlerError;

/// What layers make of errors.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A handler as a [`Service`]: over `Job<T>`, or over `Vec<Job<T>>`. Made by [`service()`].
#[derive(Clone, Copy, Debug)]
pub struct HandlerService<F> {
    handler: F,
}

/// A [`HandlerError`] on its way through layers. [`HandlerError`] itself takes in any error with `?`, so it
/// cannot be one.
#[derive(Clone, Debug)]
pub struct Failure(pub HandlerError);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.code)
    }
}

impl std::error::Error for Failure {}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        Self(error)
    }
}

/// Makes a service of a handler, for layers to stand around.
///
/// ```
/// use std::time::Duration;
/// use jitney::Jitney;
/// use jitney::client::Submit;
/// use jitney::worker::{HandlerError, Job, service};
/// use tower::ServiceBuilder;
///
/// async fn resize(job: Job<u32>) -> Result<u32, HandlerError> {
///     Ok(job.data / 2)
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let jitney = Jitney::in_memory().open().await?;
/// let resize = ServiceBuilder::new()
///     .concurrency_limit(2)
///     .timeout(Duration::from_secs(30))
///     .service(service(resize));
/// jitney.spawn(jitney.worker("images").slots(8).on_service("resize", resize));
///
/// let image = Submit::json("images", &640)?.group("resize");
/// let job = jitney.client().submit_and_wait(image, Duration::from_secs(10)).await?;
/// assert_eq!(job.result_as::<u32>()?, 320);
/// # jitney.close().await?;
/// # Ok(())
/// # }
/// ```
pub fn service<F>(handler: F) -> HandlerService<F> {
    HandlerService { handler }
}

impl<F, Request, R, Fut> Service<Request> for HandlerService<F>
where
    F: Fn(Request) -> Fut,
    Fut: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    type Response = R;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<R, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let called = (self.handler)(request);
        Box::pin(async move { called.await.map_err(Failure) })
    }
}

/// A handler of a service.
pub(super) fn called<Request, R, S>(
    service: S,
) -> impl Fn(Request) -> Pin<Box<dyn Future<Output = Result<R, HandlerError>> + Send>> + Send + Sync + 'static
where
    Request: Send + 'static,
    S: Service<Request, Response = R> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    // A service need not be `Sync`; it is held for as long as a clone takes.
    let service = Mutex::new(service);
    move |request| {
        let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let failed = |error: S::Error| of_layers(&*error.into());
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            service.call(request).await.map_err(failed)
        })
    }
}

/// The handler's own error, wherever layers have put it; else that of a layer, which another try may pass.
fn of_layers(error: &(dyn std::error::Error + 'static)) -> HandlerError {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<Failure>())
        .map_or_else(
            || HandlerError::retryable("error", error),
            |Failure(own)| own.clone(),
        )
}

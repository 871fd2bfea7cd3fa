//! Takes many jobs in one request: a JSON array, or NDJSON.
//!
//! In: envelopes, each read and refused on its own. Out: an entry for each, in their order. They go to the
//! driver in groups, a call for each group, and `data` stays a slice of what came. Nothing here holds a whole
//! NDJSON body or all of its answers: groups in flight are bounded, and so is what a client leaves unread
//! ([`outbox`]).

mod array;
mod entries;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod group;
mod ndjson;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;

pub(super) use outbox::{Pool, Work};

use super::error::{Problem, Result};
use super::{App, Connection, headers, submit};
use outbox::Outbox;

pub(super) use array::{ITEMS_MAX, array};
pub(super) use ndjson::ndjson;

/// What holds for all jobs of a request.
#[derive(Debug)]
struct Terms {
    wait: Option<Duration>,
    traceparent: Option<String>,
    /// Whose jobs they are.
    here: Connection,
}

/// Reads what holds for all jobs, and refuses what can only hold for one.
fn terms(app: &App, parts: &Parts) -> Result<Terms> {
    if headers::idempotency_key(&parts.headers)?.is_some() {
        return Err(Problem::invalid(
            "Idempotency-Key",
            "the header is for one job; many have an `idempotency_key` each",
        ));
    }
    Ok(Terms {
        wait: submit::envelope_wait(app, parts)?,
        traceparent: headers::traceparent(&parts.headers),
        here: Connection::of(parts),
    })
}

/// Answers with what `work` puts into the outbox: whole if it ends soon, else as it comes, while the
/// connection carries the rest of the work on.
async fn answer(
    parts: &Parts,
    content_type: &'static str,
    outbox: Arc<Outbox>,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<Response<Body>> {
    let mut work = Box::pin(work);
    let ended = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        std::task::Poll::Ready(ended) => std::task::Poll::Ready(Some(ended)),
        std::task::Poll::Pending if outbox.holds_any() => std::task::Poll::Ready(None),
        std::task::Poll::Pending => std::task::Poll::Pending,
    })
    .await;
    let body = match ended {
        Some(ended) => {
            ended?;
            Body::from(outbox.take_all())
        }
        None => {
            let answers = outbox::Answers::new(Arc::clone(&outbox));
            Connection::of(parts).work().carry_on(async move {
                // What went wrong after the answer began stands in its last line.
                drop(work.await);
                outbox.finish();
            });
            Body::new(answers.boxed_unsync())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

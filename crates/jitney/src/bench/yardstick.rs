//! What an HTTP server costs without jitney in it: axum reads and parses the same body, and answers.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// The envelope of a submit, as far as the load fills it.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    processor: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Answers every submit with 202 until it is killed.
///
/// # Errors
/// If the socket fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let app = Router::new().route("/v1/jobs", post(submit));
    axum::serve(listener, app).await
}

async fn submit(body: Bytes) -> StatusCode {
    match serde_json::from_slice::<Envelope<'_>>(&body) {
        Ok(envelope) if !envelope.processor.is_empty() && !envelope.data.get().is_empty() => {
            StatusCode::ACCEPTED
        }
        // The load counts it as refused, and the bench fails.
        _ => StatusCode::NO_CONTENT,
    }
}

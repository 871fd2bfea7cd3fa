//! Takes outcomes, and extends leases.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use bytes::Bytes;

use super::body::{self, Bound};
use super::error::{Problem, Result, lease_lost};
use super::json::Json;
use super::parse::object;
use super::parse::outcome::{Read, Reader, SETTLE_FIELDS};
use super::parse::query::Query;
use super::{App, Segment, headers, submit, view};
use crate::driver::port::{Answer, Command, Settle, SettleIs, SettleResult};
use crate::driver::refusal::Refusal;
use crate::job::Token;

/// `POST /v1/leases/{lease}/settle`
pub(super) async fn settle(
    State(app): State<App>,
    Segment(lease): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let bytes = read(&app, request).await?;
    let object = object::body(&bytes, SETTLE_FIELDS, &[])?;
    let reader = Reader {
        body: &bytes,
        limits: app.limits(),
    };
    let Read { body, strangers } = reader.settle(&object)?;
    let token = token(&lease)?;
    let results = match app
        .handle()
        .call(Command::Settle(Settle { token, body }))
        .await
        .answer
    {
        Answer::Settled(answer) => answer.results,
        Answer::Refused(refusal) => Err(refusal),
        other => Err(submit::foreign(&other)),
    };
    match results {
        Ok(results) => Ok(answer(&results, &strangers)),
        Err(refusal) => Err(whole_problem(refusal)),
    }
}

/// `POST /v1/leases/{lease}/extend`
pub(super) async fn extend(
    State(app): State<App>,
    Segment(lease): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let bytes = read(&app, request).await?;
    if !bytes.is_empty() {
        object::body(&bytes, &[], &[])?;
    }
    let token = token(&lease)?;
    match app.handle().call(Command::Extend { token }).await.answer {
        Answer::Extended { expires_in, lost } => {
            let mut json = Json::with_capacity(128);
            json.open();
            json.key("expires_in_ms");
            json.millis(expires_in);
            // Cancelling is not in this version.
            json.key("cancelled");
            json.open_list();
            json.close_list();
            json.key("lost");
            json.open_list();
            for id in lost {
                json.plain(id);
            }
            json.close_list();
            json.close();
            Ok(view::json_response(StatusCode::OK, json))
        }
        Answer::Refused(refusal) => Err(whole_problem(refusal)),
        other => Err(submit::foreign(&other).into()),
    }
}

async fn read(app: &App, request: Request) -> Result<Bytes> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(app, &parts, body, Bound::work(app.limits())).await?;
    headers::check_accept(&parts.headers)?;
    headers::check_json_type(&parts.headers)?;
    Query::parse(&parts.uri, &[], &[])?;
    Ok(bytes)
}

/// What is no token was never made by this server either.
fn token(text: &str) -> Result<Token> {
    Token::parse(text).ok_or_else(|| Refusal::UnknownLease.into())
}

/// Why a whole settle is refused. Settling again is always safe: the token fences.
pub(crate) fn whole_problem(refusal: Refusal) -> Box<Problem> {
    Box::<Problem>::from(refusal).repeatable()
}

fn answer(results: &[SettleResult], strangers: &[(usize, String)]) -> Response<Body> {
    let is_late = |result: &SettleResult| matches!(result.is, SettleIs::Late);
    if !results.is_empty() && results.iter().all(is_late) && strangers.is_empty() {
        return lease_lost(|json| view::settle_results(json, results, &[]));
    }
    let mut json = Json::with_capacity(64 + 96 * (results.len() + strangers.len()));
    json.open();
    view::settle_results(&mut json, results, strangers);
    json.close();
    view::json_response(StatusCode::OK, json)
}

//! Serves routes: a plain URL in front of a job. The result is the answer.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{MethodFilter, on};

use super::body::{self, Bound};
use super::error::{Code, JobProblem, Problem, Result, job_problem, with_header};
use super::parse::job::{self, JobFields};
use super::parse::payload;
use super::route_table::{RESERVED, Ready, RouteTable};
use super::{App, Connection, Segments, headers, submit, view};
use crate::driver::port::Submitted;
use crate::job::{JobView, Payload, Status, reason_name};

/// Adds the routes to the router.
pub(super) fn add(mut router: Router<App>, table: &RouteTable) -> Router<App> {
    for (at, route) in table.routes.iter().enumerate() {
        let filter = MethodFilter::try_from(route.method.clone())
            .expect("the table admits only methods that have one");
        let serve =
            move |state: State<App>, labels: Segments, request: Request| serve(state, at, labels, request);
        router = router.route(&route.path, on(filter, serve));
    }
    router
}

async fn serve(
    State(app): State<App>,
    at: usize,
    Segments(values): Segments,
    request: Request,
) -> Result<Response<Body>> {
    let route = &app.shared.routes.routes[at];
    let (parts, body) = request.into_parts();
    // A parameter in the first segment must not catch what is jitney's own, and none catches nothing.
    let first = parts.uri.path().split('/').nth(1).unwrap_or_default();
    if RESERVED.contains(&first) || values.iter().any(String::is_empty) {
        Connection::of(&parts).rest().leave(body);
        let detail = format!("nothing is at `{}`", super::parse::shown(parts.uri.path()));
        return Err(Problem::new(Code::NotFound, detail));
    }
    let bytes = body::read(&app, &parts, body, Bound::data(app.limits())).await?;
    let payload = match &route.schema {
        Some(schema) => {
            schema
                .check(&app.shared.checks, &bytes)
                .await
                .map_err(|problem| in_parts(problem, &parts))?;
            Payload {
                content_type: None,
                bytes,
            }
        }
        None => payload::data(payload::content_type(&parts.headers)?, bytes)?,
    };
    let fields = JobFields {
        processor: route.processor.clone(),
        group: route.group.clone(),
        priority: route.priority,
        payload,
        key: None,
        labels: route_labels(route, values)?,
    };
    let submitted = submit::accept(&app, &parts, fields, None, route.wait).await?;
    let response = answer(route, &submitted)?;
    Ok(match submitted.replayed {
        true => submit::replayed(response),
        false => response,
    })
}

/// Says of a body that is no JSON that it came in parts, if it did.
fn in_parts(mut problem: Box<Problem>, parts: &Parts) -> Box<Problem> {
    let content_type = payload::content_type(&parts.headers).ok().flatten();
    if problem.code == Code::MalformedJson && payload::is_multipart(content_type) {
        problem
            .detail
            .push_str("; it came as `multipart/form-data` (`curl -F`): send the JSON itself");
    }
    problem
}

fn route_labels(route: &Ready, values: Vec<String>) -> Result<Vec<(String, String)>> {
    route
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| {
            job::check_label(name, &value).map_err(|detail| Problem::invalid(name.as_str(), detail))?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn answer(route: &Ready, submitted: &Submitted) -> Result<Response<Body>> {
    let job = &submitted.job;
    let response = if !view::is_done(job) {
        let mut json = view::room_for(job);
        json.open();
        view::job_fields(&mut json, job);
        json.close();
        submit::located(view::json_response(StatusCode::ACCEPTED, json), job)
    } else if job.status == Status::ProcessedOk {
        match &job.result {
            Some(result) => result_response(result),
            None => result_expired(job),
        }
    } else {
        failed(route, submitted)
    };
    let id = HeaderValue::try_from(job.id.to_string()).expect("an id is visible ASCII");
    Ok(with_header(response, headers::JITNEY_JOB_ID, id))
}

/// The result itself.
fn result_response(result: &Payload) -> Response<Body> {
    let content_type = match &result.content_type {
        None => HeaderValue::from_static("application/json"),
        // A content type is checked when it comes in.
        Some(content_type) => HeaderValue::try_from(content_type.as_ref())
            .unwrap_or_else(|_| HeaderValue::from_static(payload::OCTETS)),
    };
    let response = Response::new(Body::from(result.bytes.clone()));
    with_header(response, header::CONTENT_TYPE, content_type)
}

fn result_expired(job: &JobView) -> Response<Body> {
    use axum::response::IntoResponse as _;
    let detail = format!("job {} ended well before, and its result had to give way", job.id);
    Problem::new(Code::ResultExpired, detail).into_response()
}

/// The handler's error, or what jitney says in its place. A repeat hears that it is one: nothing ran for it.
fn failed(route: &Ready, submitted: &Submitted) -> Response<Body> {
    let job = &submitted.job;
    let reason = job.reason.map(reason_name);
    let (code, message, data) = match &job.error {
        Some(error) => (error.code.as_str(), error.message.as_str(), error.data.as_deref()),
        None => {
            let code = reason.unwrap_or(job.status.name());
            (code, "the job ended without an outcome", None)
        }
    };
    job_problem(&JobProblem {
        status: route.status_of(job.status, job.reason, job.error.as_ref()),
        code,
        message,
        data,
        reason,
        replayed: submitted.replayed,
    })
}

//! Shows jobs.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};

use super::error::{Code, Problem, Result};
use super::parse::query::Query;
use super::{App, Connection, Segment, headers, parse, submit, view};
use crate::driver::port::{Answer, Command};

/// `GET /v1/jobs/{id}`
pub(super) async fn read(
    State(app): State<App>,
    Segment(id): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let (parts, _) = request.into_parts();
    headers::check_accept(&parts.headers)?;
    let query = Query::parse(&parts.uri, &["wait"], &[])?;
    let wait = headers::wait(&query, &parts.headers, app.limits().wait_max)?;
    let Some(id) = parse::job_id(&id) else {
        let detail = format!("`{}` is no job id (a UUID)", parse::shown(&id));
        return Err(Problem::new(Code::UnknownJob, detail));
    };
    let command = Command::Get { id, wait };
    let reply = match wait {
        Some(_) => {
            let leaving = Connection::of(&parts).leaving();
            app.handle().begin_unless(command, leaving).await
        }
        None => app.handle().call(command).await,
    };
    match reply.answer {
        Answer::Job(job) => {
            let mut json = view::room_for(&job);
            json.open();
            view::job_fields(&mut json, &job);
            json.close();
            Ok(view::json_response(StatusCode::OK, json))
        }
        Answer::Refused(refusal) => Err(Box::<Problem>::from(refusal).repeatable()),
        other => Err(submit::foreign(&other).into()),
    }
}

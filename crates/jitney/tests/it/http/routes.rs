//! A route is a plain URL in front of a job: the body is its data, its result is the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jitney::driver::port::{Answer, Command, Submit, json as json_payload};
use jitney::http::App;
use jitney::job::{Group, JobError, Payload, Priority, Processor, Reason, State, Status};
use jitney::metrics::Metrics;
use jitney::server::options::{Options, Route};
use jitney::server::port::port;
use serde_json::json;

use super::{Does, ID_TEXT, Setup, TestEdge, job, refused, submitted};

fn orders() -> Route {
    Route {
        method: "POST".to_owned(),
        path: "/shops/{shop}/orders".to_owned(),
        processor: Processor::parse("orders").unwrap(),
        group: Group::parse("order").unwrap(),
        priority: Priority::Normal,
        wait: Some(Duration::from_secs(10)),
        schema: Some(json!({"type": "object", "required": ["price"],
            "properties": {"price": {"type": "integer", "minimum": 1}, "name": {"type": "string"}}})),
        status: BTreeMap::from([("error.card_declined".to_owned(), 402)]),
    }
}

/// An edge with the route `orders`, whose jobs end as the script says.
async fn edge(end: impl Fn(&Submit) -> Answer + Send + 'static) -> TestEdge {
    let setup = Setup {
        routes: vec![orders()],
        ..Setup::default()
    };
    TestEdge::start(setup, move |command| match command {
        Command::Submit(submit) => Does::Says(end(&submit)),
        other => panic!("{other:?}"),
    })
    .await
}

fn ended(submit: &Submit, status: Status, reason: Option<Reason>, error: Option<(&str, &str)>) -> Answer {
    let mut job = job(submit);
    job.status = status;
    job.state = State::Done;
    job.reason = reason;
    job.error = error.map(|(code, data)| JobError {
        code: code.to_owned(),
        message: "it did not work".to_owned(),
        data: Some(data.to_owned().into()),
    });
    submitted(job)
}

const PATH: &str = "/shops/north%20sea/orders?ignored=1";
const ORDER: &str = r#"{"price": 3}"#;

#[tokio::test]
async fn the_result_itself_is_the_answer() {
    let edge = edge(|submit| {
        assert_eq!(submit.processor.as_str(), "orders");
        assert_eq!(submit.group.as_str(), "order");
        assert_eq!(submit.labels, [("shop".to_owned(), "north sea".to_owned())]);
        assert_eq!(submit.wait, Some(Duration::from_secs(10)));
        assert_eq!(submit.payload, json_payload(ORDER));
        assert!(submit.idempotency.is_some());
        let mut job = job(submit);
        job.status = Status::ProcessedOk;
        job.state = State::Done;
        job.result = Some(json_payload(r#"{"price":3,  "status":"approved"}"#));
        submitted(job)
    })
    .await;
    let response = edge
        .post(PATH)
        .header("idempotency-key", "k")
        .header("content-type", "text/plain")
        .body(ORDER)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["jitney-job-id"], ID_TEXT);
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"price":3,  "status":"approved"}"#
    );
}

#[tokio::test]
async fn a_result_of_another_type_keeps_it() {
    let edge = edge(|submit| {
        let mut job = job(submit);
        job.status = Status::ProcessedOk;
        job.state = State::Done;
        job.result = Some(Payload {
            content_type: Some("image/png".into()),
            bytes: (&b"\xff\x00"[..]).into(),
        });
        submitted(job)
    })
    .await;
    let response = edge.post(PATH).body(ORDER).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "image/png");
    assert_eq!(&response.bytes().await.unwrap()[..], b"\xff\x00");
}

#[tokio::test]
async fn an_error_is_a_problem_with_the_status_of_the_route() {
    for (status, reason, code, expected) in [
        (Status::ProcessedError, None, "card_declined", 402),
        (Status::ProcessedError, None, "other", 422),
        (Status::ProcessedError, Some(Reason::Exhausted), "other", 502),
        (Status::BatchFailed, Some(Reason::Dead), "crashed", 502),
    ] {
        let edge = edge(move |submit| ended(submit, status, reason, Some((code, r#"{"why": 1}"#)))).await;
        let response = edge.post(PATH).body(ORDER).send().await.unwrap();
        assert_eq!(response.headers()["jitney-job-id"], ID_TEXT);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let (got, problem) = super::json(response).await;
        assert_eq!(got, expected);
        let mut whole = json!({"type": "/docs/errors#job_failed", "title": "The job failed", "status": expected,
            "code": code, "detail": "it did not work", "retry": "no", "data": {"why": 1}});
        if let Some(reason) = reason {
            whole["reason"] = jitney::job::reason_name(reason).into();
        }
        assert_eq!(problem, whole);
    }
}

/// A caller that sent its key again took the failure of the day before for a new one.
#[tokio::test]
async fn a_replayed_failure_says_that_it_is_one() {
    let edge = edge(|submit| {
        let reason = Some(Reason::Exhausted);
        match ended(submit, Status::ProcessedError, reason, Some(("declined", "null"))) {
            Answer::Submitted(mut submitted) => {
                submitted.replayed = true;
                Answer::Submitted(submitted)
            }
            other => other,
        }
    })
    .await;
    let request = edge.post(PATH).header("idempotency-key", "k").body(ORDER);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["idempotency-replayed"], "true");
    let (_, problem) = super::json(response).await;
    assert_eq!(
        (&problem["replayed"], &problem["reason"]),
        (&json!(true), &json!("exhausted"))
    );
}

#[tokio::test]
async fn a_wait_that_ends_is_202_with_the_job() {
    let edge = edge(|submit| submitted(job(submit))).await;
    let response = edge.post(PATH).body(ORDER).send().await.unwrap();
    assert_eq!(response.headers()["jitney-job-id"], ID_TEXT);
    assert_eq!(response.headers()["location"], format!("/v1/jobs/{ID_TEXT}"));
    let (status, body) = super::json(response).await;
    assert_eq!((status, &body["status"]), (202, &json!("submitted")));
}

#[tokio::test]
async fn a_result_that_had_to_give_way_is_410() {
    let edge = edge(|submit| {
        let mut job = job(submit);
        job.status = Status::ProcessedOk;
        job.state = State::Done;
        job.result_expired = true;
        submitted(job)
    })
    .await;
    refused(edge.post(PATH).body(ORDER), 410, "result_expired", "no").await;
}

#[tokio::test]
async fn a_body_that_does_not_fit_hears_every_violation_and_is_not_submitted() {
    let edge = edge(|submit| panic!("{submit:?}")).await;
    let request = edge.post(PATH).body(r#"{"price":0,"name":7}"#);
    let problem = refused(request, 400, "invalid_value", "no").await;
    let mut violations: Vec<_> = problem["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| violation["pointer"].as_str().unwrap())
        .collect();
    violations.sort_unstable();
    assert_eq!(violations, ["/name", "/price"]);
    let request = edge.post(PATH).body("{}");
    let problem = refused(request, 400, "invalid_value", "no").await;
    assert_eq!(
        problem["violations"],
        json!([{"pointer": "", "detail": "\"price\" is a required property"}])
    );
    let parts = edge
        .post(PATH)
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x--");
    let problem = refused(parts, 400, "malformed_json", "no").await;
    assert!(
        problem["detail"].as_str().unwrap().contains("`curl -F`"),
        "{problem}"
    );
    for body in ["price=3", ""] {
        refused(edge.post(PATH).body(body), 400, "malformed_json", "no").await;
    }
    let deep = "[".repeat(1_000) + &"]".repeat(1_000);
    refused(edge.post(PATH).body(deep), 400, "invalid_value", "no").await;
}

#[tokio::test]
async fn a_parameter_never_catches_what_is_jitneys_own() {
    let mut route = orders();
    route.path = "/{first}/{second}".to_owned();
    let setup = Setup {
        routes: vec![route],
        ..Setup::default()
    };
    let edge = TestEdge::start(setup, |command| panic!("{command:?}")).await;
    refused(edge.post("/v1/dead"), 404, "not_found", "no").await;
    refused(edge.post("/docs/x"), 404, "not_found", "no").await;
    refused(edge.get("/x/y"), 405, "method_not_allowed", "no").await;
}

#[tokio::test]
async fn a_parameter_is_never_empty() {
    let edge = edge(|submit| panic!("{submit:?}")).await;
    refused(edge.post("/shops//orders").body(ORDER), 404, "not_found", "no").await;
}

#[tokio::test]
async fn a_route_that_cannot_be_is_an_error_at_start() {
    let (handle, _port) = port(1);
    let mut route = orders();
    route.schema = Some(json!({"type": "objekt"}));
    let metrics = Arc::new(Metrics::default());
    let options = Options {
        routes: vec![route],
        ..Options::default()
    };
    let error = App::new(handle, &options, metrics).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("route `POST /shops/{shop}/orders`: its schema: "),
        "{said}"
    );
}

/// A body of 700 bytes took five seconds and six gigabytes, on the threads that serve others.
#[tokio::test]
async fn a_body_that_fits_no_alternative_on_any_level_hears_so_at_once() {
    let node = |kind: &str| {
        json!({
            "type": "object",
            "required": ["kind", "left", "right"],
            "properties": {
                "kind": {"const": kind},
                "left": {"$ref": "#/$defs/expression"},
                "right": {"$ref": "#/$defs/expression"},
            },
        })
    };
    let expression = json!({"anyOf": [node("sum"), node("product"), {"type": "number"}]});
    let mut route = orders();
    route.schema = Some(json!({"$defs": {"expression": expression}, "$ref": "#/$defs/expression"}));
    let edge = TestEdge::start(
        Setup {
            routes: vec![route],
            ..Setup::default()
        },
        |command| panic!("{command:?}"),
    )
    .await;
    let body = (0..20).fold("\"x\"".to_owned(), |inner, _| {
        format!("{{\"kind\":\"sum\",\"left\":{inner},\"right\":1}}")
    });
    let problem = refused(edge.post(PATH).body(body), 400, "invalid_value", "no").await;
    assert_eq!(
        problem["violations"],
        json!([{"pointer": "/left".repeat(20), "detail": "it fits none of the 3 schemas of `anyOf`"}])
    );
    // Larger bodies are looked at aside, and as far as that goes soon.
    let items = vec!["1"; 20_000].join(",");
    let body = format!("{{\"kind\":\"sum\",\"left\":[{items}],\"right\":1}}");
    let problem = refused(edge.post(PATH).body(body), 400, "invalid_value", "no").await;
    assert_eq!(problem["pointer"], "/left");
}

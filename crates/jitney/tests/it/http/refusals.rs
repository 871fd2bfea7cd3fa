//! Bad input is refused with its own code, says what is wrong and what would be right, and never reaches the
//! driver.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use jitney::driver::differs::Differs;
use jitney::driver::port::{Answer, Command};
use jitney::driver::refusal::Refusal;
use jitney::limits::Limits;
use serde_json::{Value, json};

use super::{Does, ID_TEXT, Setup, TestEdge, refused};

/// An edge whose driver must not be called.
async fn edge() -> TestEdge {
    TestEdge::start(Setup::default(), |command| panic!("{command:?}")).await
}

/// Sends an envelope and checks the detail and pointer of the 400 that answers it.
async fn envelope(edge: &TestEdge, body: &str, code: &str, pointer: &str, detail: &str) {
    let problem = refused(edge.post("/v1/jobs").body(body.to_owned()), 400, code, "no").await;
    assert_eq!(problem["detail"], detail, "{body}");
    assert_eq!(problem["pointer"], pointer, "{body}");
}

#[tokio::test]
async fn json_that_is_none_is_malformed() {
    let edge = edge().await;
    for (body, detail) in [
        (
            r#"{"processor":"p""#,
            "the body is not JSON: EOF while parsing an object at line 1 column 16",
        ),
        (
            r#"{"processor":"p"} x"#,
            "the body is not JSON: trailing characters at line 1 column 19",
        ),
        (
            "[1,",
            "the body is not JSON: EOF while parsing a value at line 1 column 3",
        ),
        (
            "amount=1",
            "the body is not JSON: expected value at line 1 column 1",
        ),
        (" \n", "the body is empty; it must be JSON"),
        (
            "{\"processor\":\"p\"}\n{\"processor\":\"p\"}\n",
            "the body is not JSON: trailing characters at line 2 column 1; many jobs, one a line, need \
             `Content-Type: application/x-ndjson` (curl: `--data-binary @FILE`, as `-d` takes the ends of the lines away, \
             and `-H 'content-type: application/x-ndjson'`)",
        ),
        // What `curl -d @FILE` makes of it.
        (
            "{\"processor\":\"p\"}{\"processor\":\"p\"}",
            "the body is not JSON: trailing characters at line 1 column 18; many jobs, one a line, need \
             `Content-Type: application/x-ndjson` (curl: `--data-binary @FILE`, as `-d` takes the ends of the lines away, \
             and `-H 'content-type: application/x-ndjson'`)",
        ),
        (
            "\u{feff}{\"processor\":\"p\"}",
            "the body begins with a byte-order mark (UTF-8), which no JSON has; write it as UTF-8 without one",
        ),
    ] {
        let request = edge.post("/v1/jobs").body(body);
        let problem = refused(request, 400, "malformed_json", "no").await;
        assert_eq!(problem["detail"], detail, "{body}");
    }
    let not_text = b"{\"processor\":\"p\",\"data\":\"\xff\"}".to_vec();
    refused(edge.post("/v1/jobs").body(not_text), 400, "malformed_json", "no").await;
    let declared = edge
        .post("/v1/processors/p/jobs")
        .header("content-type", "application/json")
        .body("{");
    refused(declared, 400, "malformed_json", "no").await;
}

/// Body, code, pointer and detail.
type Refused = (&'static str, &'static str, &'static str, &'static str);

const WRONG_ENVELOPES: &[Refused] = &[
    (
        r#"{"processor":"p","proirity":"SLOW"}"#,
        "unknown_field",
        "/proirity",
        "there is no field `proirity`; did you mean `priority`?",
    ),
    (
        r#"{"processor":"p","ttl":"3s"}"#,
        "unknown_field",
        "/ttl",
        "field `ttl` is not in jitney 0.1",
    ),
    (
        r#"{"processor":"p","wait":"10s"}"#,
        "unknown_field",
        "/wait",
        "`wait` is no field but a query parameter: `/v1/jobs?wait=10s`",
    ),
    (
        r#"{"data":1}"#,
        "missing_field",
        "/processor",
        "`processor` is missing",
    ),
    (
        r#"{"processor":null}"#,
        "missing_field",
        "/processor",
        "`processor` is missing",
    ),
    (
        r#"{"processor":7}"#,
        "invalid_value",
        "/processor",
        "expected a string, found a number",
    ),
    (
        r#"{"processor":"p q"}"#,
        "invalid_value",
        "/processor",
        "`p q` is no processor name: 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit",
    ),
    (
        r#"{"processor":"p","priority":"normal"}"#,
        "invalid_value",
        "/priority",
        "`normal` is no priority; did you mean `NORMAL`?",
    ),
    (
        r#"{"processor":"p","group":"a","group":"b"}"#,
        "invalid_value",
        "/group",
        "`group` is given twice",
    ),
    (
        r#"{"processor":"p","labels":{"a/b":1}}"#,
        "invalid_value",
        "/labels/a~1b",
        "expected a string, found a number",
    ),
    (
        r#"{"processor":"p","labels":[]}"#,
        "invalid_value",
        "/labels",
        "expected an object, found a list",
    ),
    (
        r#"{"processor":"p","id":"7"}"#,
        "invalid_value",
        "/id",
        "`7` is no id: a UUID like 0199a3c4-0000-7000-8000-00000000002a",
    ),
    (
        r#"{"processor":"p","data":1,"data_base64":"AA=="}"#,
        "invalid_value",
        "/data_base64",
        "`data` and `data_base64` exclude each other",
    ),
    (
        r#"{"processor":"p","data":1,"content_type":"text/plain"}"#,
        "invalid_value",
        "/content_type",
        "`data` is JSON; bytes of another type come as `data_base64`",
    ),
    (
        r#"{"processor":"p","idempotency_key":"k"}"#,
        "unknown_field",
        "/idempotency_key",
        "field `idempotency_key` stands among many jobs; one job takes the header `Idempotency-Key`",
    ),
    (
        r#""p""#,
        "invalid_value",
        "",
        "the body must be an object; it is a string",
    ),
];

#[tokio::test]
async fn fields_are_named_when_they_are_unknown_missing_or_wrong() {
    let edge = edge().await;
    for (body, code, pointer, detail) in WRONG_ENVELOPES {
        envelope(&edge, body, code, pointer, detail).await;
    }
    let base64 = r#"{"processor":"p","data_base64":"A"}"#;
    let problem = refused(edge.post("/v1/jobs").body(base64), 400, "invalid_value", "no").await;
    assert_eq!(problem["pointer"], "/data_base64");
}

#[tokio::test]
async fn names_that_are_too_long_or_too_many_are_refused() {
    let edge = edge().await;
    let long = |bytes: usize| "x".repeat(bytes);
    let labels: serde_json::Map<String, Value> = (0..17).map(|at| (at.to_string(), json!("v"))).collect();
    let many: serde_json::Map<String, Value> = (0..70).map(|at| (at.to_string(), json!("v"))).collect();
    for (body, pointer) in [
        (json!({"processor": long(65)}), "/processor".to_owned()),
        (json!({"processor": "p", "group": long(65)}), "/group".to_owned()),
        (json!({"processor": "p", "key": long(256)}), "/key".to_owned()),
        (json!({"processor": "p", "key": ""}), "/key".to_owned()),
        (json!({"processor": "p", "labels": labels}), "/labels".to_owned()),
        (json!({"processor": "p", "labels": many}), "/labels".to_owned()),
        (
            json!({"processor": "p", "labels": {long(65): "v"}}),
            format!("/labels/{}", long(65)),
        ),
        (
            json!({"processor": "p", "labels": {"l": long(257)}}),
            "/labels/l".to_owned(),
        ),
    ] {
        let problem = refused(edge.post("/v1/jobs").json(&body), 400, "invalid_value", "no").await;
        assert_eq!(problem["pointer"], pointer);
    }
}

#[tokio::test]
async fn query_parameters_are_checked_like_fields() {
    let edge = edge().await;
    for (query, code, pointer, detail) in [
        (
            "gruop=a",
            "unknown_field",
            "gruop",
            "there is no query parameter `gruop`; did you mean `group`?",
        ),
        (
            "delay=3s",
            "unknown_field",
            "delay",
            "query parameter `delay` is not in jitney 0.1",
        ),
        (
            "priority=HIGH",
            "invalid_value",
            "priority",
            "`HIGH` is no priority; use one of REALTIME, NORMAL, SLOW",
        ),
        (
            "wait=10",
            "invalid_value",
            "wait",
            "`wait`: `10` has no unit; write `10s` for seconds, or one of ms, s, m, h, d",
        ),
        (
            "wait=1s&wait=1s",
            "invalid_value",
            "wait",
            "query parameter `wait` is given twice",
        ),
        (
            "group=",
            "invalid_value",
            "group",
            "`` is no group name: 1 to 64 of A-Z a-z 0-9 _ - ., starting with a letter or digit",
        ),
    ] {
        let request = edge.post(&format!("/v1/processors/p/jobs?{query}"));
        let problem = refused(request, 400, code, "no").await;
        assert_eq!(problem["detail"], detail, "{query}");
        assert_eq!(problem["pointer"], pointer, "{query}");
    }
    let request = edge.post("/v1/processors/p%20q/jobs");
    let problem = refused(request, 400, "invalid_value", "no").await;
    assert_eq!(problem["pointer"], "processor");
}

#[tokio::test]
async fn a_wait_over_the_limit_names_the_limit() {
    let edge = edge().await;
    let read = format!("/v1/jobs/{ID_TEXT}?wait=6m");
    for request in [
        edge.post("/v1/processors/p/jobs?wait=6m"),
        edge.post("/v1/processors/p/jobs").header("prefer", "wait=360"),
        edge.post("/v1/jobs?wait=6m").body(r#"{"processor":"p"}"#),
        edge.get(&read),
        edge.post("/v1/processors/p/lease")
            .body(r#"{"worker":"w","wait":"6m"}"#),
    ] {
        let problem = refused(request, 400, "invalid_value", "no").await;
        assert_eq!(problem["detail"], "`wait` is 6m; `wait_max` is 5m");
        assert_eq!(problem["limit"], 300_000);
    }
}

#[tokio::test]
async fn a_key_is_visible_ascii_and_excludes_an_id() {
    let edge = edge().await;
    let submit = || edge.post("/v1/processors/p/jobs");
    for request in [
        submit().header("idempotency-key", ""),
        submit().header("idempotency-key", "a b"),
        submit().header("idempotency-key", "\u{e9}"),
        submit().header("idempotency-key", "x".repeat(256)),
        submit()
            .header("idempotency-key", "a")
            .header("idempotency-key", "b"),
        edge.post(&format!("/v1/processors/p/jobs?id={ID_TEXT}"))
            .header("idempotency-key", "a"),
    ] {
        let problem = refused(request, 400, "invalid_value", "no").await;
        assert_eq!(problem["pointer"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn data_over_its_limit_is_refused_and_the_answer_is_seen() {
    let edge = edge().await;
    // More than the sockets hold: the client is still sending when the answer comes.
    let large = vec![b'x'; 6 << 20];
    let request = edge.post("/v1/processors/p/jobs").body(large.clone());
    let problem = refused(request, 413, "job_too_large", "no").await;
    assert_eq!(
        problem["detail"],
        "data is 6,291,456 bytes; `max_job_bytes` is 1,048,576"
    );
    assert_eq!(problem["limit"], 1 << 20);
    // A body of unknown length.
    let pieces = reqwest::Body::wrap(Pieces(Bytes::from(large)));
    let request = edge.post("/v1/processors/p/jobs").body(pieces);
    let problem = refused(request, 413, "job_too_large", "no").await;
    assert_eq!(
        problem["detail"],
        "`max_job_bytes` is 1,048,576; data is larger than that"
    );
    let data = "x".repeat((1 << 20) + 1);
    let envelope = json!({"processor": "p", "data": data});
    let problem = refused(edge.post("/v1/jobs").json(&envelope), 413, "job_too_large", "no").await;
    // Two more for the quotes.
    assert_eq!(
        problem["detail"],
        "data is 1,048,579 bytes; `max_job_bytes` is 1,048,576"
    );
    let whole = vec![b' '; (16 << 20) + 1];
    let problem = refused(edge.post("/v1/jobs").body(whole), 413, "body_too_large", "no").await;
    assert_eq!(problem["limit"], 16 << 20);
    // A client that sends all of it before it looks still sees the answer, in either form.
    let data = edge.post("/v1/processors/p/jobs").body(vec![b'1'; 17 << 20]);
    refused(data, 413, "body_too_large", "no").await;
}

#[tokio::test]
async fn null_is_as_good_as_absent_also_where_the_field_is_of_a_later_version() {
    let full = |_| Does::Says(Answer::Refused(Refusal::DiskFull));
    let reaches = TestEdge::start(Setup::default(), full).await;
    let later =
        r#"{"processor":"p","ttl":null,"deadline":null,"delay":null,"run_at":null,"callback_url":null}"#;
    refused(reaches.post("/v1/jobs").body(later), 503, "disk_full", "after").await;
    let unknown = reaches
        .post("/v1/jobs")
        .body(r#"{"processor":"p","colour":null}"#);
    refused(unknown, 400, "unknown_field", "no").await;
}

/// A body in pieces of 64 KiB, whose length nobody is told.
struct Pieces(Bytes);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let end = self.0.len().min(64 << 10);
        let piece = self.0.split_to(end);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn a_type_that_is_not_json_is_refused_where_json_is_read() {
    let edge = edge().await;
    let settle = format!("/v1/leases/{}/settle", "0".repeat(40));
    let extend = format!("/v1/leases/{}/extend", "0".repeat(40));
    for path in [
        "/v1/jobs",
        "/v1/processors/p/lease",
        settle.as_str(),
        extend.as_str(),
    ] {
        let request = edge.post(path).header("content-type", "text/plain").body("{}");
        let problem = refused(request, 415, "unsupported_media_type", "no").await;
        assert_eq!(
            problem["detail"],
            "`text/plain` is not JSON; send application/json, or no content type"
        );
    }
    let parts = edge
        .post("/v1/jobs")
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x--");
    let problem = refused(parts, 415, "unsupported_media_type", "no").await;
    assert!(
        problem["detail"].as_str().unwrap().contains("`curl -F`"),
        "{problem}"
    );
    let request = edge
        .post("/v1/processors/p/lease")
        .header("content-type", "application/x-ndjson")
        .body("{}\n{}\n");
    let problem = refused(request, 415, "unsupported_media_type", "no").await;
    assert_eq!(
        problem["detail"],
        "`application/x-ndjson` is for many jobs at `/v1/jobs`; send application/json here"
    );
}

#[tokio::test]
async fn pages_of_other_origins_may_not_call() {
    let edge = edge().await;
    for origin in ["http://evil.example", "null"] {
        let request = edge.post("/v1/processors/p/jobs").header("origin", origin);
        refused(request, 403, "forbidden", "no").await;
        let request = edge.get("/healthz").header("origin", origin);
        refused(request, 403, "forbidden", "no").await;
    }
    let own = edge.get("/healthz").header("origin", edge.url(""));
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_that_is_not_accepted_is_not_made() {
    let edge = edge().await;
    let request = edge.post("/v1/processors/p/jobs").header("accept", "text/html");
    refused(request, 406, "not_acceptable", "no").await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_say_so() {
    let edge = edge().await;
    let history = format!("/v1/jobs/{ID_TEXT}/history");
    for (path, detail) in [
        ("/", "nothing is at `/`; `/docs` describes the API".to_owned()),
        ("/nothing", "nothing is at `/nothing`".to_owned()),
        ("/v1/jobs/", "nothing is at `/v1/jobs/`".to_owned()),
        ("/v1/dead", "`/v1/dead` is not in jitney 0.1".to_owned()),
        ("/docs/x", "nothing is at `/docs/x`".to_owned()),
        ("/events", "`/events` is not in jitney 0.1".to_owned()),
        (history.as_str(), format!("`{history}` is not in jitney 0.1")),
    ] {
        let problem = refused(edge.get(path), 404, "not_found", "no").await;
        assert_eq!(problem["detail"], detail);
    }
    let job = format!("/v1/jobs/{ID_TEXT}");
    for (method, path, allow, detail) in [
        (
            "GET",
            "/v1/jobs",
            "POST",
            "`GET /v1/jobs` is not in jitney 0.1".to_owned(),
        ),
        (
            "DELETE",
            &job,
            "GET,HEAD",
            format!("`DELETE {job}` is not in jitney 0.1"),
        ),
        (
            "PUT",
            "/v1/lanes",
            "GET,HEAD",
            "`/v1/lanes` does not take PUT".to_owned(),
        ),
    ] {
        let request = || edge.client.request(method.parse().unwrap(), edge.url(path));
        let response = request().send().await.unwrap();
        assert_eq!(response.headers()["allow"], allow);
        let problem = refused(request(), 405, "method_not_allowed", "no").await;
        assert_eq!(problem["detail"], detail);
    }
}

#[tokio::test]
async fn ids_and_tokens_that_are_none_are_unknown() {
    let edge = edge().await;
    for id in ["7", "0199a3c4", "%20"] {
        refused(edge.get(&format!("/v1/jobs/{id}")), 404, "unknown_job", "no").await;
    }
    for lease in ["x", &"z".repeat(40)] {
        let settle = edge.post(&format!("/v1/leases/{lease}/settle"));
        refused(settle.body(r#"{"outcomes":[]}"#), 404, "unknown_lease", "no").await;
        let extend = edge.post(&format!("/v1/leases/{lease}/extend"));
        refused(extend, 404, "unknown_lease", "no").await;
    }
    let broken = edge.get("/v1/jobs/%ff");
    refused(broken, 400, "invalid_value", "no").await;
}

const WRONG_POLLS: &[Refused] = &[
    (r"{}", "missing_field", "/worker", "`worker` is missing"),
    (
        r#"{"worker":"w","slot":1}"#,
        "unknown_field",
        "/slot",
        "there is no field `slot`; did you mean `slots`?",
    ),
    (
        r#"{"worker":"w","slots":0}"#,
        "invalid_value",
        "/slots",
        "`slots` must be a whole number from 1 to 1,000; found `0`",
    ),
    (
        r#"{"worker":"w","slots":1.5}"#,
        "invalid_value",
        "/slots",
        "`slots` must be a whole number from 1 to 1,000; found `1.5`",
    ),
    (
        r#"{"worker":"w","max_bytes":"1MB"}"#,
        "invalid_value",
        "/max_bytes",
        "`max_bytes`: `MB` in `1MB` is not a unit; use one of B, KiB, MiB, GiB, TiB",
    ),
    (
        r#"{"worker":"w","wait":30}"#,
        "invalid_value",
        "/wait",
        "`wait` must be a string with a unit, like `\"30s\"`; found `30`",
    ),
    (
        r#"{"worker":"w","priorities":["NORMAL","low"]}"#,
        "invalid_value",
        "/priorities/1",
        "`low` is no priority; did you mean `SLOW`?",
    ),
    (
        r#"{"worker":"w","priorities":[]}"#,
        "invalid_value",
        "/priorities",
        "`priorities` names no lane",
    ),
    (
        r#"{"worker":"w","settle":[{"outcomes":[]}]}"#,
        "missing_field",
        "/settle/0/lease",
        "`lease` is missing",
    ),
    (
        r#"{"worker":"w","settle":[{"lease":"x","outcomes":[{"ok":1}]}]}"#,
        "missing_field",
        "/settle/0/outcomes/0/id",
        "`id` is missing",
    ),
    (
        r#"{"worker":""}"#,
        "invalid_value",
        "/worker",
        "`worker` is 0 bytes; it must be 1 to 128",
    ),
];

#[tokio::test]
async fn a_poll_is_checked() {
    let edge = edge().await;
    for (body, code, pointer, detail) in WRONG_POLLS {
        let request = edge.post("/v1/processors/p/lease").body(*body);
        let problem = refused(request, 400, code, "no").await;
        assert_eq!(problem["detail"], *detail, "{body}");
        assert_eq!(problem["pointer"], *pointer, "{body}");
    }
}

#[tokio::test]
async fn what_the_driver_refuses_has_its_code_limit_and_retry() {
    let refusals = [
        (
            Refusal::QueueFull {
                what: "jobs_max",
                limit: 10,
                retry_after: Duration::from_secs(2),
            },
            (429, "queue_full", "after"),
            Some(10),
        ),
        (
            Refusal::KeysFull { limit: 4 },
            (429, "keys_full", "after"),
            Some(4),
        ),
        (
            Refusal::TooManyWaiters { limit: 5 },
            (429, "too_many_waiters", "after"),
            Some(5),
        ),
        (
            Refusal::TooManyProcessors { limit: 6 },
            (429, "too_many_processors", "no"),
            Some(6),
        ),
        (Refusal::DiskFull, (503, "disk_full", "after"), None),
        (Refusal::Draining, (503, "draining", "after"), None),
        (Refusal::Recovering, (503, "recovering", "after"), None),
        (
            Refusal::OutcomeUnknown,
            (503, "outcome_unknown", "only_with_idempotency_key"),
            None,
        ),
        (
            Refusal::IdReused(Differs::default()),
            (422, "id_reused", "no"),
            None,
        ),
        (
            Refusal::IdempotencyKeyReused(Differs::default()),
            (422, "idempotency_key_reused", "no"),
            None,
        ),
    ];
    for (refusal, (status, code, retry), limit) in refusals {
        let edge = TestEdge::start(Setup::default(), move |_| {
            Does::Says(Answer::Refused(refusal.clone()))
        })
        .await;
        let request = edge.post("/v1/processors/p/jobs");
        let problem = refused(request, status, code, retry).await;
        assert_eq!(problem.get("limit").and_then(Value::as_u64), limit);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_safe_to_repeat_with_a_key_or_an_id() {
    let edge = TestEdge::start(Setup::default(), |_| {
        Does::Says(Answer::Refused(Refusal::OutcomeUnknown))
    })
    .await;
    for request in [
        edge.post("/v1/processors/p/jobs").header("idempotency-key", "a"),
        edge.post(&format!("/v1/processors/p/jobs?id={ID_TEXT}")),
        edge.get(&format!("/v1/jobs/{ID_TEXT}")),
    ] {
        refused(request, 503, "outcome_unknown", "safe").await;
    }
}

#[tokio::test]
async fn limits_are_those_of_the_server() {
    let limits = Limits {
        job_bytes_max: 10,
        wait_max: Duration::from_secs(1),
        ..Limits::default()
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let edge = TestEdge::start(setup, |command| match command {
        Command::Submit(_) => Does::Says(super::accept(command)),
        other => panic!("{other:?}"),
    })
    .await;
    let fits = edge.post("/v1/processors/p/jobs?wait=1s").body("0123456789");
    assert_eq!(fits.send().await.unwrap().status(), 202);
    let large = edge.post("/v1/processors/p/jobs").body("0123456789a");
    refused(large, 413, "job_too_large", "no").await;
    let long = edge.post("/v1/processors/p/jobs?wait=1001ms");
    refused(long, 400, "invalid_value", "no").await;
}

#[tokio::test]
async fn a_host_that_is_no_name_of_this_server_is_forbidden() {
    let edge = edge().await;
    let request = edge.post("/v1/processors/p/jobs").header("host", "evil.example");
    let problem = refused(request.body("1"), 403, "forbidden", "no").await;
    assert_eq!(
        problem["detail"],
        "the request's host is `evil.example`, which is no name of this server; if it should be one, add it to \
         `allowed_hosts` (JITNEY_ALLOWED_HOSTS), or call the server by its IP address"
    );
    let answer = edge
        .raw(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("`Host` is missing"), "{answer}");
    let answer = edge.raw(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}

/// Such hosts passed for names under `localhost`, a second `Origin` was not looked at, and what had been encoded was
/// taken as it came.
#[tokio::test]
async fn a_head_that_two_programs_may_read_in_two_ways_is_refused() {
    let edge = edge().await;
    for (head, status, detail) in [
        ("host: evil.com/.localhost", 403, "no name of this server"),
        ("host: evil.com#.localhost", 403, "no name of this server"),
        ("host: localhost\r\norigin: x://localhost", 403, "`Origin`"),
        (
            "host: localhost\r\norigin: http://localhost\r\norigin: http://evil.example",
            400,
            "`Origin` is given twice",
        ),
        (
            "host: localhost\r\ntransfer-encoding: gzip, chunked",
            400,
            "the body's transfer coding is `gzip, chunked`",
        ),
        (
            "host: localhost\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked",
            400,
            "the body's transfer coding is `gzip`",
        ),
        (
            "host: localhost\r\ncontent-type: application/json\r\ncontent-type: text/plain",
            400,
            "`Content-Type` is given twice",
        ),
        (
            "host: localhost\r\ncontent-length: 3\r\ncontent-length: 4",
            400,
            "cannot be read as HTTP/1.1",
        ),
    ] {
        let body = match head.contains("chunked") {
            true => "3\r\nabc\r\n0\r\n\r\n",
            false => "",
        };
        let request =
            format!("POST /v1/processors/p/jobs HTTP/1.1\r\nconnection: close\r\n{head}\r\n\r\n{body}");
        let answer = edge.raw(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}: {answer}"
        );
        assert!(answer.contains(detail), "{head}: {answer}");
    }
}

#[tokio::test]
async fn an_encoded_body_is_not_taken_for_what_it_is_not() {
    let edge = edge().await;
    for path in ["/v1/processors/p/jobs", "/v1/jobs"] {
        let request = edge.post(path).header("content-encoding", "gzip");
        let problem = refused(request.body("x"), 415, "unsupported_media_type", "no").await;
        assert_eq!(
            problem["detail"],
            "the body is encoded (`Content-Encoding: gzip`), which jitney does not undo; send it as it is"
        );
    }
}

//! Many jobs in one request: each is read, refused and answered on its own, in order, in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use jitney::driver::port::{Answer, Command, Inbound, Submit, SubmitMany, Taken};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, Priority, State, Status};
use jitney::limits::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

use super::{Does, ID_TEXT, PATIENCE, Setup, TestEdge, read_head, refused};

const NDJSON: &str = "application/x-ndjson";

/// What a driver with room for everything says.
fn take_all(command: Command) -> Answer {
    match command {
        Command::SubmitMany(many) => {
            Answer::SubmittedMany(many.jobs.iter().map(|submit| Ok(taken(submit))).collect())
        }
        Command::GetMany(ids) => Answer::Jobs(vec![Err(Refusal::UnknownJob); ids.len()]),
        other => panic!("{other:?}"),
    }
}

fn taken(submit: &Submit) -> Taken {
    Taken {
        id: submit.id.unwrap_or(super::ID),
        status: Status::Submitted,
        state: State::Queued,
        replayed: false,
    }
}

/// An edge that takes every job, and what reached its driver.
async fn recording() -> (TestEdge, Receiver<SubmitMany>) {
    let (sender, calls) = sync_channel(1_000);
    let edge = TestEdge::start(Setup::default(), move |command| {
        if let Command::SubmitMany(many) = &command {
            sender.try_send((**many).clone()).unwrap();
        }
        Does::Says(take_all(command))
    })
    .await;
    (edge, calls)
}

fn post(edge: &TestEdge, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    edge.post("/v1/jobs").header("content-type", NDJSON).body(body)
}

/// The lines of an answer.
async fn lines(request: reqwest::RequestBuilder) -> Vec<Value> {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], NDJSON);
    let text = response.text().await.unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn queued(index: usize) -> Value {
    json!({"index": index, "id": ID_TEXT, "status": "submitted", "state": "queued"})
}

/// The index and the code of an entry.
fn code(entry: &Value) -> (u64, &str) {
    let code = entry["error"]["code"].as_str().unwrap_or_default();
    (entry["index"].as_u64().unwrap(), code)
}

const MIXED: &str = "{\"processor\":\"p\",\"data\":1}\n\n  \r\nnonsense\n{\"processor\":\"p\",\"gruop\":1}\n[1]\n{\"group\":\"g\"}\n{\"processor\":\"p\"}";

#[tokio::test]
async fn lines_are_answered_in_their_order_and_bad_ones_named() {
    for content_type in [
        "application/x-ndjson",
        "application/ndjson; charset=utf-8",
        "application/jsonl",
        "application/x-jsonlines",
    ] {
        let (edge, calls) = recording().await;
        let request = edge
            .post("/v1/jobs")
            .header("content-type", content_type)
            .body(MIXED);
        let entries = lines(request).await;
        assert_eq!(entries[0], queued(0));
        assert_eq!(entries[5], queued(5));
        let codes: Vec<_> = entries[1..5].iter().map(code).collect();
        assert_eq!(
            codes,
            [
                (1, "malformed_json"),
                (2, "unknown_field"),
                (3, "invalid_value"),
                (4, "missing_field")
            ]
        );
        let error = &entries[2]["error"];
        assert_eq!(
            (&error["pointer"], &error["retry"]),
            (&json!("/gruop"), &json!("no"))
        );
        assert_eq!(
            error["detail"],
            "there is no field `gruop`; did you mean `group`?"
        );
        assert_eq!(
            entries[3]["error"]["detail"],
            "the line must be an object; it is a list"
        );
        // One body, one call.
        assert_eq!(calls.try_recv().unwrap().jobs.len(), 2);
        assert!(calls.try_recv().is_err());
    }
}

/// Whoever sent an array as lines, or lines from an editor that marks them, was told where a parser stopped.
#[tokio::test]
async fn lines_that_are_something_else_hear_what_they_look_like() {
    let (edge, _calls) = recording().await;
    let send = |body: &'static str| {
        let request = edge
            .post("/v1/jobs")
            .header("content-type", "application/x-ndjson");
        lines(request.body(body))
    };
    let said = |entry: &Value| entry["error"]["detail"].as_str().unwrap().to_owned();
    let question = "; is the body an array? It is taken as application/json";
    for body in [
        "[\n{\"processor\":\"p\"},\n{\"processor\":\"p\"}]\n",
        "[{\"processor\":\"p\"}]\n[1]",
    ] {
        let entries = send(body).await;
        assert!(said(&entries[0]).ends_with(question), "{entries:?}");
        assert!(!said(entries.last().unwrap()).contains("array?"), "{entries:?}");
    }
    let entries = send("\u{feff}{\"processor\":\"p\"}\n{\"processor\":\"p\"}\n").await;
    assert!(
        said(&entries[0]).contains("begins with a byte-order mark"),
        "{entries:?}"
    );
    assert_eq!(entries[1], queued(1));
}

#[tokio::test]
async fn an_array_is_answered_with_counts_and_entries() {
    let (edge, _calls) = recording().await;
    let body = r#" [{"processor":"p","data":1}, 7, {"processor":"p","id":"x"},{"processor":"p"}]"#;
    let (status, answer) = super::json(edge.post("/v1/jobs").body(body).send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(2)));
    let entries = answer["jobs"].as_array().unwrap();
    assert_eq!((&entries[0], &entries[3]), (&queued(0), &queued(3)));
    assert_eq!(code(&entries[1]), (1, "invalid_value"));
    assert_eq!(
        entries[1]["error"]["detail"],
        "expected an object, found a number"
    );
    assert_eq!(entries[2]["error"]["pointer"], "/id");

    let (status, answer) = super::json(edge.post("/v1/jobs").body("[]").send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(answer, json!({"accepted": 0, "rejected": 0, "jobs": []}));
    let response = post(&edge, "").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.text().await.unwrap()),
        (200, String::new())
    );

    refused(edge.post("/v1/jobs").body("[{}"), 400, "malformed_json", "no").await;
    let many = format!("[{}1]", "1,".repeat(100_000));
    let problem = refused(edge.post("/v1/jobs").body(many), 400, "invalid_value", "no").await;
    assert_eq!(problem["limit"], 100_000);
}

#[tokio::test]
async fn options_of_each_job_reach_the_driver() {
    let (edge, calls) = recording().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let first = format!(
        r#"{{"processor":"p","group":"g","priority":"SLOW","data": {{"b":1, "b":1.0}} ,"key":"t","labels":{{"a":"b"}},"id":"{ID_TEXT}"}}"#
    );
    let second = r#"{"processor":"p","idempotency_key":"once","data_base64":"AAE="}"#;
    for (path, content_type, body) in [
        ("/v1/jobs?wait=10s", NDJSON, format!("{first}\n{second}\n")),
        (
            "/v1/jobs?wait=10s",
            "application/json",
            format!("[{first},{second}]"),
        ),
    ] {
        let request = edge.post(path).header("content-type", content_type);
        let request = request.header("traceparent", trace).body(body);
        assert_eq!(request.send().await.unwrap().status(), 200);
        let many = calls.try_recv().unwrap();
        assert_eq!(many.wait, Some(Duration::from_secs(10)));
        let [first, second] = &many.jobs[..] else {
            panic!("{many:?}");
        };
        assert_eq!(first.group.as_str(), "g");
        assert_eq!(first.priority, Priority::Slow);
        assert_eq!(&first.payload.bytes[..], br#"{"b":1, "b":1.0}"#);
        assert_eq!(first.key.as_deref(), Some("t"));
        assert_eq!(first.labels, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(first.id, Some(super::ID));
        assert_eq!(first.traceparent.as_deref(), Some(trace));
        assert_ne!(first.fingerprint, 0);
        assert_eq!(&second.payload.bytes[..], [0, 1]);
        assert_eq!((second.id, second.idempotency.is_some()), (None, true));
        assert_ne!(second.fingerprint, 0);
    }
}

#[tokio::test]
async fn what_holds_for_one_job_only_is_refused_for_many() {
    let (edge, calls) = recording().await;
    for (content_type, body) in [(NDJSON, "{}\n"), ("application/json", "[{}]")] {
        let request = || edge.post("/v1/jobs").header("content-type", content_type);
        let keyed = request().header("idempotency-key", "k").body(body);
        let problem = refused(keyed, 400, "invalid_value", "no").await;
        assert_eq!(problem["pointer"], "Idempotency-Key");
    }
    let both = format!(r#"{{"processor":"p","id":"{ID_TEXT}","idempotency_key":"k"}}"#);
    let entries = lines(post(
        &edge,
        format!("{both}\n{{\"processor\":\"p\",\"idempotency_key\":\"\"}}"),
    ))
    .await;
    for entry in entries {
        assert_eq!(entry["error"]["code"], "invalid_value");
        assert_eq!(entry["error"]["pointer"], "/idempotency_key");
    }
    let query = edge
        .post("/v1/jobs?group=g")
        .header("content-type", NDJSON)
        .body("{}");
    refused(query, 400, "unknown_field", "no").await;
    let accept = post(&edge, "{}").header("accept", "text/html");
    refused(accept, 406, "not_acceptable", "no").await;
    for accept in [NDJSON, "application/json", "*/*"] {
        let response = post(&edge, "").header("accept", accept).send().await.unwrap();
        assert_eq!(response.status(), 200, "{accept}");
    }
    assert!(calls.try_recv().is_err());
}

#[tokio::test]
async fn a_driver_that_takes_nothing_refuses_the_whole() {
    for (refusal, status, code, retry) in [
        (Refusal::Draining, 503, "draining", "after"),
        (
            Refusal::OutcomeUnknown,
            503,
            "outcome_unknown",
            "only_with_idempotency_key",
        ),
        (
            Refusal::TooManyWaiters { limit: 7 },
            429,
            "too_many_waiters",
            "after",
        ),
    ] {
        let edge = TestEdge::start(Setup::default(), move |_| {
            Does::Says(Answer::Refused(refusal.clone()))
        })
        .await;
        let line = r#"{"processor":"p"}"#;
        refused(post(&edge, format!("{line}\nx\n")), status, code, retry).await;
        refused(
            edge.post("/v1/jobs").body(format!("[{line},1]")),
            status,
            code,
            retry,
        )
        .await;
        // Sent again under its name a job is there once.
        let named = r#"{"processor":"p","idempotency_key":"k"}"#;
        let retry = if retry == "after" { retry } else { "safe" };
        refused(post(&edge, named), status, code, retry).await;
    }
}

#[tokio::test]
async fn jobs_that_the_driver_refuses_are_entries() {
    let full = || Refusal::QueueFull {
        what: "jobs_max",
        limit: 5,
        retry_after: Duration::from_millis(1_500),
    };
    let edge = TestEdge::start(Setup::default(), move |command| {
        let Answer::SubmittedMany(mut entries) = take_all(command) else {
            panic!("not to many");
        };
        entries[1] = Err(full());
        entries[2] = entries[2].clone().map(|_| Taken {
            id: JobId([7; 16]),
            status: Status::ProcessedOk,
            state: State::Done,
            replayed: true,
        });
        Does::Says(Answer::SubmittedMany(entries))
    })
    .await;
    let line = "{\"processor\":\"p\"}\n";
    let entries = lines(post(&edge, format!("{line}{line}x\n{line}"))).await;
    assert_eq!(entries[0], queued(0));
    let error = &entries[1]["error"];
    assert_eq!(
        (&error["code"], &error["retry_after_ms"]),
        (&json!("queue_full"), &json!(1_500))
    );
    assert_eq!(code(&entries[2]), (2, "malformed_json"));
    assert_eq!(
        entries[3],
        json!({"index": 3, "id": "07070707-0707-0707-0707-070707070707", "status": "processed_ok",
            "state": "done", "replayed": true})
    );
}

#[tokio::test]
async fn a_job_that_is_too_large_is_an_entry_and_the_rest_goes_on() {
    let setup = Setup {
        limits: Limits {
            job_bytes_max: 100,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let edge = TestEdge::start(setup, |command| Does::Says(take_all(command))).await;
    let job = |bytes: usize| format!("{{\"processor\":\"p\",\"data\":\"{}\"}}\n", "x".repeat(bytes));
    let body = [job(98), job(99), job(200_000), job(1)].concat();
    let entries = lines(post(&edge, body)).await;
    let codes: Vec<_> = entries.iter().map(code).collect();
    assert_eq!(
        codes,
        [(0, ""), (1, "job_too_large"), (2, "job_too_large"), (3, "")]
    );
    assert_eq!(
        entries[1]["error"]["detail"],
        "data is 101 bytes; `max_job_bytes` is 100"
    );
    assert_eq!(entries[2]["error"]["limit"], 100);
}

/// A request's head, and how its body comes.
fn head(body: &str) -> String {
    format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NDJSON}\r\nconnection: close\r\n{body}\r\n\r\n"
    )
}

/// A line of a kilobyte and a little more.
fn kilobyte() -> String {
    format!("{{\"processor\":\"p\",\"data\":\"{}\"}}\n", "x".repeat(1_000))
}

/// An edge for bodies of any length, with little memory for them.
async fn tight(script: impl FnMut(Command) -> Does + Send + 'static) -> TestEdge {
    let setup = Setup {
        limits: Limits {
            body_bytes_max: 1 << 30,
            bodies_bytes_max: 12 << 20,
            ..Limits::default()
        },
        ..Setup::default()
    };
    TestEdge::start(setup, script).await
}

/// The content of a body that came in chunks.
fn dechunked(mut body: &str) -> String {
    let mut content = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        content.push_str(&rest[..size]);
        body = &rest[size + 2..];
        if size == 0 {
            assert!(body.is_empty());
            return content;
        }
    }
    panic!("the body ends without its end: {body:?}");
}

/// Sends a body of 64 MiB, and reads the answer only when all of it is sent.
#[tokio::test]
async fn a_client_may_send_everything_before_it_reads_anything() {
    const LINES: usize = 64 << 10;
    let edge = tight(|command| Does::Says(take_all(command))).await;
    let line = kilobyte();
    let mut socket = edge.connect().await;
    let length = format!("content-length: {}", LINES * line.len());
    socket.write_all(head(&length).as_bytes()).await.unwrap();
    let block = line.repeat(1 << 10);
    for _ in 0..LINES >> 10 {
        tokio::time::timeout(PATIENCE, socket.write_all(block.as_bytes()))
            .await
            .unwrap()
            .unwrap();
    }
    let answer = super::read_to_end(&mut socket).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let body = dechunked(body);
    assert_eq!(body.lines().count(), LINES);
    for (index, line) in body.lines().enumerate() {
        assert!(
            line.starts_with(&format!("{{\"index\":{index},\"id\":")),
            "{line}"
        );
    }
}

/// While the driver answers nothing only so much is read, however much is sent.
#[tokio::test]
async fn what_is_in_flight_is_bounded_and_ends_with_the_server() {
    let jobs = Arc::new(AtomicU64::new(0));
    let (sender, mut enough) = mpsc::channel(100);
    let seen = Arc::clone(&jobs);
    let mut edge = tight(move |command| {
        let Command::SubmitMany(many) = command else {
            panic!("{command:?}");
        };
        let more = u64::try_from(many.jobs.len()).unwrap();
        if seen.fetch_add(more, Ordering::Relaxed) + more >= 8_000 {
            sender.try_send(()).unwrap();
        }
        Does::Nothing
    })
    .await;
    let mut socket = edge.connect().await;
    let sending = tokio::spawn(async move {
        let length = format!("content-length: {}", 1 << 30);
        socket.write_all(head(&length).as_bytes()).await.unwrap();
        let block = kilobyte().repeat(1 << 10);
        while socket.write_all(block.as_bytes()).await.is_ok() {}
    });
    tokio::time::timeout(PATIENCE, enough.recv())
        .await
        .unwrap()
        .unwrap();
    edge.stop().await;
    sending.await.unwrap();
    for _ in 0..8 {
        assert!(matches!(edge.notice().await, Inbound::Gone(_)));
    }
    assert_eq!(jobs.load(Ordering::Relaxed), 8_000);
}

#[tokio::test]
async fn a_line_is_answered_while_the_body_goes_on() {
    let (edge, calls) = recording().await;
    let mut socket = edge.connect().await;
    socket
        .write_all(head("transfer-encoding: chunked").as_bytes())
        .await
        .unwrap();
    let chunk = |line: &str| format!("{:x}\r\n{line}\r\n", line.len());
    let line = "{\"processor\":\"p\"}\n";
    socket.write_all(chunk(line).as_bytes()).await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
    let mut answers = BufReader::new(socket);
    for index in 0..3 {
        let mut text = String::new();
        while !text.ends_with("}\n") {
            text.clear();
            let read = answers.read_line(&mut text);
            tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        }
        let entry: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(entry, queued(index));
        assert_eq!(calls.try_recv().unwrap().jobs.len(), 1);
        answers.write_all(chunk(line).as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_has_submitted_its_whole_lines_and_says_so() {
    let line = "{\"processor\":\"p\"}\n";
    let setup = || Setup {
        limits: Limits {
            body_bytes_max: 400,
            ..Limits::default()
        },
        slow_client_timeout: Duration::from_millis(100),
        ..Setup::default()
    };
    let too_long = format!("{:x}\r\n{}\r\n", 1_000, line.repeat(200).split_at(1_000).0);
    for (rest, lines, code) in [
        // It pauses, and it never ends.
        (String::new(), 2, "slow_body"),
        // It is longer than it may be, which nobody could know before.
        (too_long, 2, "body_too_large"),
        // It is not what HTTP says.
        ("nonsense\r\n".to_owned(), 2, "invalid_value"),
    ] {
        let edge = TestEdge::start(setup(), |command| Does::Says(take_all(command))).await;
        let mut socket = edge.connect().await;
        let begun = format!("{line}{line}{{\"proc");
        let begun = format!("{:x}\r\n{begun}\r\n", begun.len());
        let request = format!("{}{begun}{rest}", head("transfer-encoding: chunked"));
        socket.write_all(request.as_bytes()).await.unwrap();
        let answer = super::read_to_end(&mut socket).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{code}: {answer}");
        let body = match head.contains("content-length") {
            true => body.to_owned(),
            false => dechunked(body),
        };
        let entries: Vec<Value> = body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(entries.len(), lines + 1, "{code}: {body}");
        let last = entries.last().unwrap();
        assert_eq!(
            (&last["error"]["code"], &last["index"]),
            (&json!(code), &Value::Null)
        );
    }
    // With nothing submitted it is the answer.
    let edge = TestEdge::start(setup(), |command| panic!("{command:?}")).await;
    let long = post(&edge, "x".repeat(401));
    refused(long, 413, "body_too_large", "no").await;
}

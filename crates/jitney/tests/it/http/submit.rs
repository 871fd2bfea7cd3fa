//! A job reaches the driver as it was sent, in either form, and its caller hears what became of it.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use jitney::driver::port::{Answer, Command, Submit};
use jitney::job::{Payload, Priority, State, Status};
use serde_json::{Value, json};

use super::{Does, ID_TEXT, Setup, TestEdge, accept, job, submitted};

/// An edge that takes every job, and the submits that reached its driver.
async fn recording() -> (TestEdge, Receiver<Submit>) {
    let (sender, submits) = sync_channel(100);
    let edge = TestEdge::start(Setup::default(), move |command| {
        if let Command::Submit(submit) = &command {
            sender.try_send((**submit).clone()).unwrap();
        }
        Does::Says(accept(command))
    })
    .await;
    (edge, submits)
}

/// A job that ended well with this result.
fn done(submit: &Submit, result: Payload) -> Answer {
    let mut job = job(submit);
    job.status = Status::ProcessedOk;
    job.state = State::Done;
    job.attempts = 1;
    job.result = Some(result);
    submitted(job)
}

#[tokio::test]
async fn a_body_is_the_data_and_parameters_are_its_options() {
    let (edge, submits) = recording().await;
    let response = edge
        .post("/v1/processors/payments/jobs?group=payment-submit&priority=REALTIME&key=tenant-7&label.order=A-17&wait=10s")
        .body(r#"{"amount":1990}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["location"], format!("/v1/jobs/{ID_TEXT}"));
    let (status, body) = super::json(response).await;
    assert_eq!(status, 202);
    assert_eq!(
        body,
        json!({"id": ID_TEXT, "processor": "payments", "group": "payment-submit", "priority": "REALTIME",
            "status": "submitted", "state": "queued", "reason": null, "attempts": 0, "crashes": 0,
            "started": false, "parent": null, "children": 0, "submitted_at": "2023-11-14T22:13:20.250Z",
            "started_at": null, "finished_at": null, "result": null, "error": null, "key": "tenant-7",
            "labels": {"order": "A-17"}, "workers": 0})
    );
    let submit = submits.try_recv().unwrap();
    assert_eq!(submit.processor.as_str(), "payments");
    assert_eq!(submit.group.as_str(), "payment-submit");
    assert_eq!(submit.priority, Priority::Realtime);
    assert_eq!(submit.payload.content_type, None);
    assert_eq!(&submit.payload.bytes[..], br#"{"amount":1990}"#);
    assert_eq!(submit.key.as_deref(), Some("tenant-7"));
    assert_eq!(submit.labels, [("order".to_owned(), "A-17".to_owned())]);
    assert_eq!(submit.wait, Some(Duration::from_secs(10)));
    assert_eq!((submit.fingerprint, submit.idempotency), (0, None));
}

#[tokio::test]
async fn an_envelope_is_the_same_job_as_its_plain_form() {
    let (edge, submits) = recording().await;
    let envelope = r#"{"processor":"payments", "group":null, "data": {"b":1,"b" : 1.00, "n":123456789012345678901234567890} ,
        "key":"t\u0065nant-7","labels":{"order":"A-17","shop":null},"id":null}"#;
    for (path, body) in [
        ("/v1/jobs", envelope),
        (
            "/v1/processors/payments/jobs?key=tenant-7&label.order=A-17",
            r#"{"b":1,"b" : 1.00, "n":123456789012345678901234567890}"#,
        ),
    ] {
        let request = edge.post(path).header("idempotency-key", "once").body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202, "{path}");
    }
    let (first, second) = (submits.try_recv().unwrap(), submits.try_recv().unwrap());
    assert_eq!(first.payload, second.payload);
    assert_eq!(first.key.as_deref(), Some("tenant-7"));
    assert_eq!(first.labels, second.labels);
    assert_ne!(first.fingerprint, 0);
    assert_eq!(first.fingerprint, second.fingerprint);
    assert!(first.idempotency.is_some());
    assert_eq!(first.idempotency, second.idempotency);
}

#[tokio::test]
async fn bytes_come_in_as_they_are() {
    let (edge, submits) = recording().await;
    let odd = b"\x00\xff{\"a\" :1}\r\n".to_vec();
    let cases: [(Option<&str>, Vec<u8>, Option<&str>); 6] = [
        (Some("image/png"), odd.clone(), Some("image/png")),
        (None, odd.clone(), Some("application/octet-stream")),
        (None, Vec::new(), Some("application/octet-stream")),
        (Some("application/json"), b" {\"a\" :1}\n".to_vec(), None),
        (
            Some("application/x-www-form-urlencoded"),
            b"a=1".to_vec(),
            Some("application/x-www-form-urlencoded"),
        ),
        (
            Some("application/vnd.x+json"),
            b"[1]".to_vec(),
            Some("application/vnd.x+json"),
        ),
    ];
    for (content_type, body, kept) in cases {
        let mut request = edge.post("/v1/processors/p/jobs").body(body.clone());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        assert_eq!(request.send().await.unwrap().status(), 202, "{content_type:?}");
        let submit = submits.try_recv().unwrap();
        assert_eq!(submit.payload.bytes, body, "{content_type:?}");
        assert_eq!(submit.payload.content_type.as_deref(), kept);
    }
    let envelope = json!({"processor": "p", "data_base64": "AP97", "content_type": "image/png"});
    let response = edge.post("/v1/jobs").json(&envelope).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let submit = submits.try_recv().unwrap();
    assert_eq!(&submit.payload.bytes[..], b"\x00\xff{");
    assert_eq!(submit.payload.content_type.as_deref(), Some("image/png"));
    let response = edge.post("/v1/jobs").body(r#"{"processor":"p"}"#).send().await;
    assert_eq!(response.unwrap().status(), 202);
    assert_eq!(&submits.try_recv().unwrap().payload.bytes[..], b"null");
}

#[tokio::test]
async fn a_result_comes_back_byte_for_byte() {
    let json = r#"{"big":123456789012345678901234567890,"a":1,"a":2,  "x":1.10}"#;
    let edge = TestEdge::start(Setup::default(), move |command| {
        let Command::Submit(submit) = command else {
            panic!("{command:?}");
        };
        let content_type = match submit.group.as_str() {
            "bytes" => Some("image/png".into()),
            _ => None,
        };
        let bytes = match submit.group.as_str() {
            "bytes" => b"\xff\x00".to_vec().into(),
            _ => json.into(),
        };
        Does::Says(done(&submit, Payload { content_type, bytes }))
    })
    .await;
    let response = edge.post("/v1/processors/p/jobs?wait=1s").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    assert!(
        text.contains(&format!(r#""result":{json},"error":null"#)),
        "{text}"
    );
    let request = edge.post("/v1/processors/p/jobs?wait=1s&group=bytes");
    let (_, body) = super::json(request.send().await.unwrap()).await;
    assert_eq!(body["result_base64"], "/wA=");
    assert_eq!(body["content_type"], "image/png");
    assert_eq!(body.get("result"), None);
}

#[tokio::test]
async fn prefer_waits_and_the_parameter_wins() {
    let (edge, submits) = recording().await;
    for (path, prefer, wait) in [
        ("/v1/processors/p/jobs", "wait=7", Some(7)),
        ("/v1/processors/p/jobs?wait=3s", "wait=7", Some(3)),
        ("/v1/processors/p/jobs?wait=0s", "wait=7", None),
        ("/v1/processors/p/jobs", "respond-async", None),
    ] {
        let request = edge.post(path).header("prefer", prefer);
        assert_eq!(request.send().await.unwrap().status(), 202);
        assert_eq!(submits.try_recv().unwrap().wait, wait.map(Duration::from_secs));
    }
}

#[tokio::test]
async fn a_trace_context_travels_with_the_job() {
    let (edge, submits) = recording().await;
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (sent, kept) in [(context, Some(context)), ("nonsense", None)] {
        let request = edge.post("/v1/processors/p/jobs").header("traceparent", sent);
        assert_eq!(request.send().await.unwrap().status(), 202);
        assert_eq!(submits.try_recv().unwrap().traceparent.as_deref(), kept);
    }
}

#[tokio::test]
async fn a_replay_says_so() {
    let edge = TestEdge::start(Setup::default(), |command| {
        let Command::Submit(submit) = command else {
            panic!("{command:?}");
        };
        let Answer::Submitted(mut answer) = done(&submit, jitney::driver::port::json("1")) else {
            unreachable!()
        };
        answer.replayed = true;
        answer.job.result = None;
        answer.job.result_expired = true;
        answer.workers = 3;
        answer.did_you_mean = Some("payments".to_owned());
        Does::Says(Answer::Submitted(answer))
    })
    .await;
    let request = edge
        .post("/v1/processors/payment/jobs")
        .header("idempotency-key", "a");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["idempotency-replayed"], "true");
    let (status, body) = super::json(response).await;
    assert_eq!(status, 200);
    assert_eq!(body["result_expired"], true);
    // What went with the result is not made up.
    for unknown in [
        "attempts",
        "crashes",
        "started",
        "started_at",
        "finished_at",
        "submitted_at",
        "children",
    ] {
        assert_eq!(body.get(unknown), None, "{unknown}");
    }
    assert_eq!(body["status"], "processed_ok");
    assert_eq!(body["workers"], 3);
    assert_eq!(body["did_you_mean"], "payments");
}

#[tokio::test]
async fn a_job_is_read_and_waited_for() {
    let edge = TestEdge::start(Setup::default(), |command| {
        let Command::Get { id, wait } = command else {
            panic!("{command:?}");
        };
        assert_eq!(id, super::ID);
        assert_eq!(wait, Some(Duration::from_secs(30)));
        let mut submit = minimal();
        submit.id = Some(id);
        let Answer::Submitted(answer) = done(&submit, jitney::driver::port::json("[1,  2]")) else {
            unreachable!()
        };
        Does::Says(Answer::Job(Box::new(answer.job)))
    })
    .await;
    let response = edge
        .get(&format!("/v1/jobs/{ID_TEXT}?wait=30s"))
        .send()
        .await
        .unwrap();
    let text = response.text().await.unwrap();
    assert!(text.contains(r#""result":[1,  2],"#), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap().get("workers"), None);
}

fn minimal() -> Submit {
    Submit {
        processor: jitney::job::Processor::parse("p").unwrap(),
        group: jitney::job::Group::default(),
        priority: Priority::Normal,
        payload: jitney::driver::port::json("null"),
        id: None,
        key: None,
        labels: Vec::new(),
        idempotency: None,
        fingerprint: 0,
        traceparent: None,
        wait: None,
    }
}

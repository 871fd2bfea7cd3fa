//! Workers take batches, settle and extend them; the driver hears exactly what they said.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use jitney::clock::WallMs;
use jitney::driver::port::{
    Answer, Batch, BatchJob, Command, JobOutcome, Lease, Leased, Said, Settle, SettleAnswer, SettleBody,
    SettleIs, SettleResult, json as json_payload,
};
use jitney::driver::refusal::Refusal;
use jitney::job::{Group, JobError, JobId, Payload, Priority, Token};
use jitney::limits::Limits;
use serde_json::json;

use super::{Does, ID, ID_TEXT, Setup, TestEdge, refused};

pub(super) const TOKEN: Token = Token {
    node: 1,
    epoch: 2,
    sequence: 3,
};

const OTHER: JobId = JobId([7; 16]);

/// A batch of one job with this data.
pub(super) fn batch(payload: Payload) -> Batch {
    Batch {
        token: TOKEN,
        priority: Priority::Normal,
        expires_at: WallMs(1_700_000_030_000),
        expires_in: Duration::from_secs(30),
        jobs: vec![BatchJob {
            id: ID,
            group: Group::default(),
            attempt: 1,
            delivery: 2,
            payload,
            key: Some("tenant-7".to_owned()),
            submitted_at: WallMs(1_700_000_000_000),
            labels: vec![("order".to_owned(), "A-17".to_owned())],
            traceparent: None,
        }],
    }
}

pub(super) fn leased(batches: Vec<Batch>) -> Answer {
    Answer::Leased(Leased {
        settled: Vec::new(),
        batches,
        draining: false,
    })
}

fn results(list: &[(JobId, SettleIs)]) -> SettleAnswer {
    SettleAnswer {
        token: TOKEN,
        results: Ok(list
            .iter()
            .map(|(id, is)| SettleResult {
                id: *id,
                is: is.clone(),
            })
            .collect()),
    }
}

#[tokio::test]
async fn a_poll_says_what_it_wants_and_gets_its_batches() {
    let (sender, polls) = sync_channel::<Lease>(1);
    let edge = TestEdge::start(Setup::default(), move |command| {
        let Command::Lease(lease) = command else {
            panic!("{command:?}");
        };
        sender.try_send(*lease).unwrap();
        Does::Says(leased(vec![batch(json_payload(r#"{"a": 1, "a":2}"#))]))
    })
    .await;
    let poll = json!({"worker": "w-1", "slots": 4, "max_jobs": 16, "max_bytes": "64KiB", "wait": "30s",
        "priorities": ["REALTIME", "SLOW"], "request_id": "r-1", "settle": null});
    let response = edge
        .post("/v1/processors/payments/lease")
        .json(&poll)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.text().await.unwrap(),
        format!(
            concat!(
                r#"{{"settled":[],"batches":[{{"lease":"{token}","batch":"{token}","priority":"NORMAL","#,
                r#""expires_at":"2023-11-14T22:13:50.000Z","expires_in_ms":30000,"jobs":[{{"id":"{id}","#,
                r#""group":"default","attempt":1,"delivery":2,"data":{{"a": 1, "a":2}},"key":"tenant-7","#,
                r#""submitted_at":"2023-11-14T22:13:20.000Z","deadline":null,"labels":{{"order":"A-17"}},"#,
                r#""traceparent":null}}]}}]}}"#
            ),
            token = TOKEN,
            id = ID_TEXT
        )
    );
    let lease = polls.try_recv().unwrap();
    assert_eq!(lease.processor.as_str(), "payments");
    assert_eq!(&*lease.worker, "w-1");
    assert!(!lease.in_process);
    assert_eq!(
        (lease.slots, lease.max_jobs, lease.max_bytes),
        (4, Some(16), Some(65_536))
    );
    assert_eq!(lease.wait, Duration::from_secs(30));
    assert_eq!(lease.priorities, [true, false, true]);
    assert_eq!(lease.request_id.as_deref(), Some("r-1"));
    assert_eq!(lease.not_ready, None);
}

#[tokio::test]
async fn a_poll_says_that_its_worker_cannot_start_in_a_bounded_line() {
    let (sender, polls) = sync_channel::<Lease>(1);
    let edge = TestEdge::start(Setup::default(), move |command| {
        let Command::Lease(lease) = command else {
            panic!("{command:?}");
        };
        sender.try_send(*lease).unwrap();
        Does::Says(leased(Vec::new()))
    })
    .await;
    let poll = |why: &str| {
        edge.post("/v1/processors/payments/lease")
            .json(&json!({"worker": "w-1", "not_ready": why}))
    };
    let longest = "x".repeat(256);
    assert_eq!(poll(&longest).send().await.unwrap().status(), 204);
    assert_eq!(polls.try_recv().unwrap().not_ready.as_deref(), Some(&*longest));
    for wrong in [String::new(), "x".repeat(257)] {
        let problem = refused(poll(&wrong), 400, "invalid_value", "no").await;
        assert_eq!(problem["pointer"], "/not_ready");
    }
}

#[tokio::test]
async fn bytes_that_are_not_json_reach_the_worker_as_base64() {
    let edge = TestEdge::start(Setup::default(), |_| {
        let of = |content_type: &str, bytes: &'static [u8]| {
            batch(Payload {
                content_type: Some(content_type.into()),
                bytes: bytes.into(),
            })
        };
        Does::Says(leased(vec![
            of("image/png", b"\xff\x00"),
            of("application/vnd.x+json", b"[1]"),
        ]))
    })
    .await;
    let request = edge.post("/v1/processors/p/lease").body(r#"{"worker":"w"}"#);
    let (_, body) = super::json(request.send().await.unwrap()).await;
    let bytes = &body["batches"][0]["jobs"][0];
    assert_eq!(bytes["data_base64"], "/wA=");
    assert_eq!(bytes["content_type"], "image/png");
    assert_eq!(bytes.get("data"), None);
    let own = &body["batches"][1]["jobs"][0];
    assert_eq!(own["data"], json!([1]));
    assert_eq!(own["content_type"], "application/vnd.x+json");
}

#[tokio::test]
async fn a_poll_without_batches_is_204_and_one_of_a_draining_server_says_when_to_come_back() {
    for draining in [false, true] {
        let edge = TestEdge::start(Setup::default(), move |_| {
            Does::Says(Answer::Leased(Leased {
                settled: Vec::new(),
                batches: Vec::new(),
                draining,
            }))
        })
        .await;
        let request = edge.post("/v1/processors/p/lease").body(r#"{"worker":"w"}"#);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 204);
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("retry-after"), draining.then_some("1"));
        assert_eq!(header("connection"), draining.then_some("close"));
    }
}

#[tokio::test]
async fn a_poll_settles_first_and_hears_of_each() {
    let (sender, polls) = sync_channel::<Lease>(1);
    let edge = TestEdge::start(Setup::default(), move |command| {
        let Command::Lease(lease) = command else {
            panic!("{command:?}");
        };
        sender.try_send(*lease).unwrap();
        let unknown = SettleAnswer {
            token: Token { sequence: 9, ..TOKEN },
            results: Err(Refusal::UnknownLease),
        };
        Does::Says(Answer::Leased(Leased {
            settled: vec![
                results(&[(
                    ID,
                    SettleIs::Applied {
                        children: vec![OTHER],
                    },
                )]),
                unknown,
            ],
            batches: Vec::new(),
            draining: false,
        }))
    })
    .await;
    let foreign = Token { sequence: 9, ..TOKEN }.to_string();
    let poll = json!({"worker": "w", "settle": [
        {"lease": "no token", "outcomes": []},
        {"lease": TOKEN.to_string(), "outcomes": [{"id": ID_TEXT, "ok": null}], "final": false},
        {"lease": foreign, "failed": {"code": "c", "message": "m"}, "crashed": true}]});
    let (status, body) = super::json(
        edge.post("/v1/processors/p/lease")
            .json(&poll)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, 200);
    let settled = &body["settled"];
    assert_eq!(settled[0]["lease"], "no token");
    assert_eq!(settled[0]["error"]["code"], "unknown_lease");
    assert_eq!(
        settled[1],
        json!({"lease": TOKEN.to_string(),
            "results": [{"id": ID_TEXT, "is": "applied", "children": [OTHER.to_string()]}]})
    );
    assert_eq!(settled[2]["error"]["code"], "unknown_lease");
    assert_eq!(body["batches"], json!([]));
    let lease = polls.try_recv().unwrap();
    assert_eq!(lease.settle.len(), 2);
    assert!(matches!(
        &lease.settle[1].body,
        SettleBody::Failed { error, crashed: true } if error.code == "c" && error.message == "m"
    ));
}

/// An edge that answers a settle with these results, and the settles that came.
async fn settling(setup: Setup, list: Vec<(JobId, SettleIs)>) -> (TestEdge, Receiver<Settle>) {
    let (sender, settles) = sync_channel(10);
    let edge = TestEdge::start(setup, move |command| {
        let Command::Settle(settle) = command else {
            panic!("{command:?}");
        };
        sender.try_send(settle).unwrap();
        Does::Says(Answer::Settled(results(&list)))
    })
    .await;
    (edge, settles)
}

fn settle_path() -> String {
    format!("/v1/leases/{TOKEN}/settle")
}

fn outcomes(settle: Settle) -> Vec<JobOutcome> {
    assert_eq!(settle.token, TOKEN);
    match settle.body {
        SettleBody::Outcomes { outcomes, last: true } => outcomes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn outcomes_reach_the_driver_as_they_were_written() {
    let (edge, settles) = settling(Setup::default(), vec![(ID, SettleIs::Released)]).await;
    let body = format!(
        r#"{{"outcomes":[
            {{"id":"{ID_TEXT}","ok":{{"n":1.0, "n":2}} ,"jobs":[{{"processor":"mail","data":[ 1 ],"labels":{{"a":"b"}}}}]}},
            {{"id":"{ID_TEXT}","ok":null}},
            {{"id":"{ID_TEXT}","ok_base64":"/wA=","content_type":"image/png"}},
            {{"id":"{ID_TEXT}","ok":null,"error":{{"code":"c","message":"m","retryable":true,"data":{{ }},"retry_after":"2s"}}}},
            {{"id":"{ID_TEXT}","release":true}}]}}"#
    );
    let response = edge.post(&settle_path()).body(body).send().await.unwrap();
    assert_eq!(
        super::json(response).await,
        (200, json!({"results": [{"id": ID_TEXT, "is": "released"}]}))
    );
    let mut said = outcomes(settles.try_recv().unwrap())
        .into_iter()
        .map(|outcome| outcome.said.unwrap());
    let Some(Said::Ok { result, children }) = said.next() else {
        panic!()
    };
    assert_eq!(result, json_payload(r#"{"n":1.0, "n":2}"#));
    assert_eq!(children.len(), 1);
    assert_eq!(children[0].processor.as_str(), "mail");
    assert_eq!(children[0].payload, json_payload("[ 1 ]"));
    assert_eq!(children[0].labels, [("a".to_owned(), "b".to_owned())]);
    assert!(matches!(said.next(), Some(Said::Ok { result, .. }) if result == json_payload("null")));
    assert!(matches!(said.next(), Some(Said::Ok { result, .. })
        if &result.bytes[..] == b"\xff\x00" && result.content_type.as_deref() == Some("image/png")));
    let Some(Said::Error {
        error,
        retryable,
        retry_after,
    }) = said.next()
    else {
        panic!()
    };
    assert_eq!(
        error,
        JobError {
            code: "c".to_owned(),
            message: "m".to_owned(),
            data: Some("{ }".into())
        }
    );
    assert!(retryable);
    assert_eq!(retry_after, Some(Duration::from_secs(2)));
    assert!(matches!(said.next(), Some(Said::Release)));
}

/// The fields of an outcome beside its id, and why it is refused.
const WRONG_OUTCOMES: &[(&str, &str)] = &[
    (
        r#""realease":true"#,
        "there is no field `realease`; did you mean `release`?",
    ),
    (
        r#""ok":1,"release":true"#,
        "an outcome is one of `ok`, `error` and `release`",
    ),
    (
        r#""x":1"#,
        "there is no field `x`; known are id, ok, ok_base64, content_type, jobs, error, release",
    ),
    (
        r#""content_type":"text/plain""#,
        "an outcome needs `ok`, `error` or `release`",
    ),
    (
        r#""ok":"0123456789""#,
        "result is 12 bytes; `max_job_bytes` is 10",
    ),
    (r#""error":{"code":"c"}"#, "`message` is missing"),
    (
        r#""error":{"code":"","message":""}"#,
        "`code` is 0 bytes; it must be 1 to 64",
    ),
    (
        r#""error":{"code":"c","message":"","retry_after":"1s"}"#,
        "`retry_after` goes with `retryable` only",
    ),
    (r#""release":true,"jobs":[]"#, "`jobs` goes with `ok` only"),
    (
        r#""ok":1,"jobs":[{"processor":"p"},{"processor":"p"}]"#,
        "an outcome has at most 1 child jobs (`children_max`); these are 2",
    ),
    (r#""ok":1,"jobs":[{}]"#, "`processor` is missing"),
    (
        r#""ok":1,"jobs":[{"processor":"p","id":"x"}]"#,
        "there is no field `id`; known are processor, group, priority, data, data_base64, content_type, key, labels",
    ),
    (
        r#""ok":1,"jobs":[{"processor":"p","delay":"1s"}]"#,
        "field `delay` is not in jitney 0.1",
    ),
];

#[tokio::test]
async fn an_outcome_that_is_wrong_is_refused_alone() {
    let limits = Limits {
        job_bytes_max: 10,
        children_max: 1,
        ..Limits::default()
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let (edge, settles) = settling(setup, vec![(ID, SettleIs::Released)]).await;
    let list: Vec<_> = WRONG_OUTCOMES
        .iter()
        .map(|(fields, _)| format!(r#"{{"id":"{ID_TEXT}",{fields}}}"#))
        .chain([format!(r#"{{"id":"{ID_TEXT}","ok":1}}"#)])
        .collect();
    let body = format!(r#"{{"outcomes":[{}]}}"#, list.join(","));
    let response = edge.post(&settle_path()).body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut said = outcomes(settles.try_recv().unwrap()).into_iter();
    for (fields, detail) in WRONG_OUTCOMES {
        let refusal = said.next().unwrap().said.unwrap_err();
        assert_eq!(refusal.to_string(), *detail, "{fields}");
    }
    assert!(said.next().unwrap().said.is_ok());
}

#[tokio::test]
async fn a_settle_whose_shape_is_wrong_is_refused_as_a_whole() {
    let edge = TestEdge::start(Setup::default(), |command| panic!("{command:?}")).await;
    for (body, code, pointer) in [
        ("{}", "missing_field", "/outcomes"),
        (r#"{"outcome":[]}"#, "unknown_field", "/outcome"),
        (r#"{"outcomes":{}}"#, "invalid_value", "/outcomes"),
        (
            r#"{"outcomes":[{"id":7,"ok":1}]}"#,
            "invalid_value",
            "/outcomes/0/id",
        ),
        (r#"{"outcomes":[],"final":1}"#, "invalid_value", "/final"),
        (
            r#"{"outcomes":[],"failed":{"code":"c","message":"m"}}"#,
            "invalid_value",
            "/failed",
        ),
        (r#"{"outcomes":[],"crashed":true}"#, "invalid_value", "/crashed"),
        (
            r#"{"failed":{"code":"c","message":"m"},"final":false}"#,
            "invalid_value",
            "/final",
        ),
        (r#"{"failed":{"code":"c"}}"#, "missing_field", "/failed/message"),
    ] {
        let problem = refused(edge.post(&settle_path()).body(body), 400, code, "no").await;
        assert_eq!(problem["pointer"], pointer, "{body}");
    }
    let cut = edge.post(&settle_path()).body(r#"{"outcomes":["#);
    refused(cut, 400, "malformed_json", "no").await;
}

#[tokio::test]
async fn each_outcome_hears_what_became_of_it() {
    let full = Refusal::QueueFull {
        what: "jobs_max",
        limit: 3,
        retry_after: Duration::from_millis(1_500),
    };
    let list = vec![
        (ID, SettleIs::Applied { children: Vec::new() }),
        (ID, SettleIs::Duplicate),
        (ID, SettleIs::Late),
        (ID, SettleIs::Unknown),
        (ID, SettleIs::Refused(full)),
    ];
    let (edge, _settles) = settling(Setup::default(), list).await;
    let request = edge.post(&settle_path()).body(r#"{"outcomes":[]}"#);
    let (status, body) = super::json(request.send().await.unwrap()).await;
    assert_eq!(status, 200);
    let is: Vec<_> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["is"].as_str().unwrap())
        .collect();
    assert_eq!(is, ["applied", "duplicate", "late", "unknown", "refused"]);
    assert_eq!(body["results"][0].get("children"), None);
    let error = &body["results"][4]["error"];
    assert_eq!(error["code"], "queue_full");
    assert_eq!(error["retry_after_ms"], 1_500);
}

/// One outcome with an id that is no UUID refused the whole settle, and its good neighbours with it.
#[tokio::test]
async fn an_outcome_whose_id_is_none_is_unknown_and_the_others_count() {
    let applied = SettleIs::Applied { children: Vec::new() };
    let list = vec![(ID, applied.clone()), (OTHER, applied)];
    let (edge, settles) = settling(Setup::default(), list).await;
    let body = json!({"outcomes": [{"id": "x", "ok": 1}, {"id": ID_TEXT, "ok": 1}, {"id": "", "release": true},
        {"id": OTHER.to_string(), "ok": 2}, {"id": "y/\"z", "error": 7}]});
    let request = edge.post(&settle_path()).json(&body);
    let (status, body) = super::json(request.send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(
        body["results"],
        json!([{"id": "x", "is": "unknown"}, {"id": ID_TEXT, "is": "applied"}, {"id": "", "is": "unknown"},
            {"id": OTHER.to_string(), "is": "applied"}, {"id": "y/\"z", "is": "unknown"}])
    );
    let told: Vec<_> = outcomes(settles.try_recv().unwrap())
        .into_iter()
        .map(|outcome| outcome.id)
        .collect();
    assert_eq!(told, [ID, OTHER]);
}

#[tokio::test]
async fn a_settle_that_came_too_late_is_a_lost_lease() {
    let (edge, _settles) = settling(
        Setup::default(),
        vec![(ID, SettleIs::Late), (OTHER, SettleIs::Late)],
    )
    .await;
    let request = edge.post(&settle_path()).body(r#"{"outcomes":[]}"#);
    let problem = refused(request, 409, "lease_lost", "no").await;
    assert_eq!(
        problem["results"],
        json!([{"id": ID_TEXT, "is": "late"}, {"id": OTHER.to_string(), "is": "late"}])
    );
}

#[tokio::test]
async fn a_lease_is_extended_or_lost_or_unknown() {
    for (answer, status) in [
        (
            Answer::Extended {
                expires_in: Duration::from_secs(30),
                lost: vec![OTHER],
            },
            200,
        ),
        (Answer::Refused(Refusal::LeaseLost), 409),
        (Answer::Refused(Refusal::UnknownLease), 404),
    ] {
        let mut answer = Some(answer);
        let edge = TestEdge::start(Setup::default(), move |command| {
            assert!(matches!(command, Command::Extend { token: TOKEN }), "{command:?}");
            answer.take().map_or(Does::Nothing, Does::Says)
        })
        .await;
        let request = edge.post(&format!("/v1/leases/{TOKEN}/extend")).body("{}");
        match status {
            200 => assert_eq!(
                super::json(request.send().await.unwrap()).await,
                (
                    200,
                    json!({"expires_in_ms": 30_000, "cancelled": [], "lost": [OTHER.to_string()]})
                )
            ),
            409 => drop(refused(request, 409, "lease_lost", "no").await),
            _ => drop(refused(request, 404, "unknown_lease", "no").await),
        }
    }
}

//! The client against a scripted server.

use std::time::Duration;

use super::scripted::{Said, ScriptedServer};
use super::*;
use crate::job::Status;

const ID: &str = "0199b7a0-0000-7000-8000-000000000001";

fn job(status: &str) -> String {
    format!(
        r#"{{"id":"{ID}","processor":"orders","group":"default","priority":"NORMAL","status":"{status}","state":"{}",
            "submitted_at":"2026-01-05T10:00:00.000Z","result":null,"workers":0,"did_you_mean":"order"}}"#,
        if status == "submitted" { "queued" } else { "done" }
    )
}

fn ok(status: &str) -> Said {
    Some((200, "", job(status)))
}

fn problem(code: &str, retry: &str, headers: &'static str) -> Said {
    Some((
        503,
        headers,
        format!(r#"{{"code":"{code}","detail":"no","retry":"{retry}"}}"#),
    ))
}

fn order() -> Submit {
    Submit::json("orders", &serde_json::json!({"price": 10})).unwrap()
}

fn quick(server: &ScriptedServer) -> Builder {
    let retries = Retries {
        first_pause: Duration::from_millis(2),
        ..Retries::default()
    };
    Client::builder(&server.url).retries(retries).own_keys(true)
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let replayed = Some((200, "idempotency-replayed: true\r\n", job("submitted")));
    let server = ScriptedServer::answering(vec![None, None, replayed]).await;
    let submitted = quick(&server).build().unwrap().submit(order()).await.unwrap();
    assert!(submitted.replayed);
    assert_eq!(submitted.workers, Some(0));
    assert_eq!(submitted.did_you_mean.as_deref(), Some("order"));
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    let keys: Vec<_> = asked
        .iter()
        .map(|asked| asked.header("idempotency-key"))
        .collect();
    assert!(keys[0].is_some_and(|key| key.len() == 32));
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(asked[0].line, "POST /v1/jobs HTTP/1.1");
    assert_eq!(asked[0].body, r#"{"processor":"orders","data":{"price":10}}"#);
}

#[tokio::test]
async fn two_submits_have_two_keys_and_an_id_needs_none() {
    let server = ScriptedServer::start(|_| async { ok("submitted") }).await;
    let client = quick(&server).build().unwrap();
    client.submit(order()).await.unwrap();
    client.submit(order()).await.unwrap();
    client.submit(order().id(parse_id(ID).unwrap())).await.unwrap();
    client.submit(order().idempotency_key("mine")).await.unwrap();
    let asked = server.asked();
    assert_ne!(
        asked[0].header("idempotency-key"),
        asked[1].header("idempotency-key")
    );
    assert_eq!(asked[2].header("idempotency-key"), None);
    assert_eq!(asked[3].header("idempotency-key"), Some("mine"));
}

/// A server that stopped answered a waiting caller early; the next read found nobody, and the error said that
/// nothing had happened. A caller that believed it submitted a second job.
#[tokio::test]
async fn a_wait_that_breaks_off_after_the_job_was_accepted_says_so() {
    let server = ScriptedServer::answering(vec![ok("submitted"), problem("unknown_job", "no", "")]).await;
    let client = quick(&server).build().unwrap();
    let error = client.submit_and_wait(order(), Duration::from_secs(5)).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, Error::Accepted { id, .. } if id.to_string() == ID),
        "{error:?}"
    );
    assert!(!error.took_no_effect());
}

#[tokio::test]
async fn an_unknown_outcome_is_unknown_also_where_trying_again_is_safe() {
    let server = ScriptedServer::start(|_| async { problem("outcome_unknown", "safe", "") }).await;
    let client = Client::builder(&server.url)
        .retries(Retries::none())
        .build()
        .unwrap();
    let error = client.submit(order().idempotency_key("k")).await.unwrap_err();
    assert!(!error.took_no_effect(), "{error:?}");
}

#[tokio::test]
async fn without_a_key_a_lost_answer_is_the_callers_affair() {
    let server = ScriptedServer::answering(vec![None, ok("submitted")]).await;
    let client = Client::new(&server.url).unwrap();
    let error = client.submit(order()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { sent: true, .. }),
        "{error:?}"
    );
    assert!(!error.took_no_effect());
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_retried_as_it_says_and_a_final_one_is_handed_on() {
    let server = ScriptedServer::answering(vec![
        problem("queue_full", "after", "retry-after: 0\r\n"),
        problem("outcome_unknown", "only_with_idempotency_key", ""),
        Some((502, "", "<html>".to_owned())),
        problem("job_too_large", "no", ""),
    ])
    .await;
    let error = quick(&server).build().unwrap().submit(order()).await.unwrap_err();
    let Error::Refused(problem) = error else {
        panic!("{error:?}");
    };
    assert_eq!((problem.code.as_str(), problem.status), ("job_too_large", 503));
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_nothing_was_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder(&url).retries(Retries::none()).build().unwrap();
    let error = client.submit(order()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { sent: false, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn waiting_goes_on_by_reading_until_the_job_has_ended() {
    let server =
        ScriptedServer::answering(vec![ok("submitted"), None, ok("submitted"), ok("processed_ok")]).await;
    let client = quick(&server).build().unwrap();
    let job = client
        .submit_and_wait(order(), Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(job.status, Status::ProcessedOk);
    assert_eq!(job.result_as::<Option<u32>>().unwrap(), None);
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /v1/jobs?wait=30s HTTP/1.1");
    assert!(
        asked[3].line.starts_with(&format!("GET /v1/jobs/{ID}?wait=")),
        "{}",
        asked[3].line
    );
}

#[tokio::test]
async fn a_wait_that_ends_first_names_the_job_that_goes_on() {
    let server = ScriptedServer::start(|_| async { ok("submitted") }).await;
    let client = quick(&server).build().unwrap();
    let error = client
        .submit_and_wait(order(), Duration::from_millis(5))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::TimedOut { id, .. } if id.to_string() == ID),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_lost_lease_still_says_what_became_of_each_outcome() {
    let body = format!(r#"{{"code":"lease_lost","results":[{{"id":"{ID}","is":"late"}}]}}"#);
    let server = ScriptedServer::answering(vec![Some((409, "", body))]).await;
    let settle = Settle {
        lease: "t".to_owned(),
        body: SettleBody::Outcomes {
            outcomes: vec![Outcome::release(parse_id(ID).unwrap())],
            last: true,
        },
    };
    let answer = Client::new(&server.url).unwrap().settle(&settle).await.unwrap();
    assert_eq!(answer.results[0].is, SettleIs::Late);
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /v1/leases/t/settle HTTP/1.1");
    assert_eq!(
        asked[0].body,
        format!(r#"{{"outcomes":[{{"id":"{ID}","release":true}}],"final":true}}"#)
    );
}

#[tokio::test]
async fn a_poll_that_gets_nothing_says_when_to_come_back() {
    let server = ScriptedServer::answering(vec![Some((204, "retry-after: 1\r\n", String::new()))]).await;
    let request = LeaseRequest::new("w-1");
    let answer = Client::new(&server.url)
        .unwrap()
        .lease("orders", &request)
        .await
        .unwrap();
    assert!(answer.batches.is_empty());
    assert_eq!(answer.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(
        server.asked()[0].body,
        r#"{"worker":"w-1","slots":1,"wait":"0s"}"#
    );
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read() {
    let server = ScriptedServer::start(|_| async { Some((200, "", "x".repeat(2000))) }).await;
    let client = Client::builder(&server.url)
        .answer_bytes_max(1000)
        .build()
        .unwrap();
    assert!(matches!(client.info().await, Err(Error::Protocol { .. })));
}

#[tokio::test]
async fn of_many_only_those_are_sent_again_that_may_be_taken_then() {
    let full = r#"{"status":429,"code":"queue_full","detail":"d","retry":"after","retry_after_ms":1}"#;
    let wrong = r#"{"status":400,"code":"invalid_value","detail":"d","retry":"no"}"#;
    let taken = |index: u64| format!("{{\"index\":{index},\"id\":\"{ID}\"}}\n");
    let error = |index: u64, problem: &str| format!("{{\"index\":{index},\"error\":{problem}}}\n");
    let first = format!("{}{}{}", taken(0), error(1, full), error(2, wrong));
    let answers = vec![
        Some((200, "", first)),
        problem("draining", "after", ""),
        Some((200, "", taken(0))),
    ];
    let server = ScriptedServer::answering(answers).await;
    let client = quick(&server).build().unwrap();
    let jobs = ["a", "b", "c"].map(|key| order().idempotency_key(key));
    let entries = client.submit_many(jobs.to_vec()).await.unwrap();
    assert!(entries[0].is_ok() && entries[1].is_ok());
    assert_eq!(entries[2].as_ref().unwrap_err().code, "invalid_value");
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].body.lines().count(), 3);
    assert_eq!(asked[0].header("content-type"), Some("application/x-ndjson"));
    assert_eq!(asked[0].header("idempotency-key"), None);
    for again in &asked[1..] {
        assert_eq!(
            again.body,
            "{\"processor\":\"orders\",\"data\":{\"price\":10},\"idempotency_key\":\"b\"}\n"
        );
    }
}

#[tokio::test]
async fn many_that_are_waited_for_share_one_request_and_each_has_its_own_end() {
    let full = r#"{"status":429,"code":"too_many_waiters","detail":"d","retry":"no"}"#;
    let whole = |index: u64, status: &str, more: &str| {
        format!(
            "{{\"index\":{index},\"id\":\"{ID}\",\"processor\":\"orders\",\"group\":\"g\",\"priority\":\"NORMAL\",\
             \"status\":\"{status}\",\"state\":\"done\"{more}}}\n"
        )
    };
    let failed = r#","error":{"code":"card_declined","message":"no"}"#;
    let answer = [
        whole(0, "processed_ok", ",\"result\":{\"paid\": 1}"),
        whole(1, "processed_error", failed),
        format!("{{\"index\":2,\"error\":{full}}}\n"),
        whole(3, "submitted", ""),
        // Its result had to give way.
        format!(
            "{{\"index\":4,\"id\":\"{ID}\",\"status\":\"processed_ok\",\"state\":\"done\",\"result_expired\":true}}\n"
        ),
    ];
    let answers = vec![
        Some((200, "", answer.concat())),
        Some((200, "", whole(0, "processed_ok", ",\"result\":2"))),
        problem("result_expired", "no", ""),
    ];
    let server = ScriptedServer::answering(answers).await;
    let client = quick(&server).build().unwrap();
    let wait = Duration::from_secs(10);
    let ends = client.submit_many_and_wait(vec![order(); 5], wait).await.unwrap();
    let results = |end: &Result<Job, Error>| end.as_ref().unwrap().result.clone().unwrap().bytes;
    assert_eq!(&results(&ends[0])[..], br#"{"paid": 1}"#);
    let error = ends[1].as_ref().unwrap().error.clone().unwrap();
    assert_eq!(error.code, "card_declined");
    assert!(matches!(&ends[2], Err(Error::Refused(problem)) if problem.code == "too_many_waiters"));
    assert_eq!(&results(&ends[3])[..], b"2");
    assert!(matches!(&ends[4], Err(Error::Accepted { .. })), "{:?}", ends[4]);
    let asked = server.asked();
    let lines: Vec<_> = asked.iter().map(|asked| asked.line.clone()).collect();
    let one = format!("GET /v1/jobs/{ID} HTTP/1.1");
    assert_eq!(lines, ["POST /v1/jobs?wait=10s HTTP/1.1", &one, &one]);
    assert_eq!(asked[0].body.lines().count(), 5);
}

/// `jitney submit --ndjson` gave up after six tries, within seconds, though a server needs longer to start again.
#[tokio::test]
async fn tries_without_a_bound_go_on_until_the_time_is_over() {
    let taken = (200, "", format!("{{\"index\":0,\"id\":\"{ID}\"}}\n"));
    let mut answers = vec![None; 20];
    answers.push(Some(taken));
    let server = ScriptedServer::answering(answers).await;
    let retries = Retries {
        attempts_max: u32::MAX,
        first_pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(2),
        ..Retries::default()
    };
    let client = quick(&server).retries(retries).build().unwrap();
    let entries = client.submit_many(vec![order()]).await.unwrap();
    assert!(entries[0].is_ok());
    assert_eq!(server.asked().len(), 21);
}

//! A client that shuts its sending side down still hears its answer; one that is gone holds nothing.
//!
//! `nc -N` and some old HTTP clients send a request and shut their sending side down. Their jobs were stored and never
//! answered: hyper takes an end of input for the end of the connection, or sees neither.

use std::time::Duration;

use jitney::driver::port::{Answer, Command, Inbound, Taken, json as json_payload};
use jitney::driver::refusal::Refusal;
use jitney::job::{State, Status};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::lease::{TOKEN, batch, leased};
use super::{Does, ID, ID_TEXT, Setup, TestEdge, accept, job, read_head, read_to_end, submitted};

/// How long an outcome is waited for on behalf of a client that sends no more.
const LEFT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Ends the connection as the death of a client with unread answers does.
pub(super) fn reset(socket: TcpStream) {
    socket.set_zero_linger().unwrap();
    drop(socket);
}

fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn ndjson(target: &str, framing: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n{framing}\r\n\r\n"
    )
}

/// Sends all of it, and nothing more.
async fn say(edge: &TestEdge, request: &str) -> TcpStream {
    let mut socket = edge.connect().await;
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    socket
}

/// The answer to a client that sends this and then shuts its sending side down.
async fn answer(edge: &TestEdge, request: &str) -> String {
    read_to_end(&mut say(edge, request).await).await
}

async fn hurried(edge: &mut TestEdge) -> Duration {
    match edge.notice().await {
        Inbound::Hurry { hold_max, .. } => hold_max,
        other => panic!("{other:?}"),
    }
}

fn taken(jobs: usize) -> Answer {
    let one = Taken {
        id: ID,
        status: Status::Submitted,
        state: State::Queued,
        replayed: false,
    };
    Answer::SubmittedMany(vec![Ok(one); jobs])
}

#[tokio::test]
async fn a_submit_is_answered_though_its_client_sends_no_more() {
    let edge = TestEdge::accepting().await;
    let submit = request("POST", "/v1/processors/p/jobs", "{}");
    // Once would be luck: the end may come before, with or after the request.
    for _ in 0..30 {
        let answer = answer(&edge, &submit).await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        assert!(answer.contains(ID_TEXT), "{answer}");
    }
}

#[tokio::test]
async fn a_wait_goes_on_for_a_moment_and_is_answered() {
    let mut edge = TestEdge::start(Setup::default(), |command| {
        Does::SaysWhenLeaving(match command {
            Command::Submit(submit) => submitted(job(&submit)),
            Command::Get { .. } => Answer::Refused(Refusal::UnknownJob),
            other => panic!("{other:?}"),
        })
    })
    .await;
    let get = format!("/v1/jobs/{ID_TEXT}?wait=1m");
    for (request, status) in [
        (request("POST", "/v1/processors/p/jobs?wait=1m", "{}"), "202"),
        (
            request("POST", "/v1/jobs?wait=1m", "{\"processor\":\"p\"}"),
            "202",
        ),
        (request("GET", &get, ""), "404"),
    ] {
        let mut socket = say(&edge, &request).await;
        let hold_max = hurried(&mut edge).await;
        assert!(hold_max <= LEFT_WAIT_MAX, "{hold_max:?}");
        assert!(hold_max > LEFT_WAIT_MAX / 2, "{hold_max:?}");
        let answer = read_to_end(&mut socket).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn a_poll_is_answered_empty_at_once_and_takes_no_job() {
    let poll = request("POST", "/v1/processors/p/lease", r#"{"worker":"w","wait":"1m"}"#);
    let mut edge = TestEdge::start(Setup::default(), |_| Does::SaysWhenLeaving(leased(Vec::new()))).await;
    let mut socket = say(&edge, &poll).await;
    assert_eq!(hurried(&mut edge).await, Duration::ZERO);
    let answer = read_to_end(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");

    // The batch was on its way already: it returns.
    let script = |_| Does::SaysWhenLeaving(leased(vec![batch(json_payload("1"))]));
    let mut edge = TestEdge::start(Setup::default(), script).await;
    let mut socket = say(&edge, &poll).await;
    assert_eq!(hurried(&mut edge).await, Duration::ZERO);
    let answer = read_to_end(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    match edge.notice().await {
        Inbound::Undelivered(tokens) => assert_eq!(tokens, [TOKEN]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reset_ends_the_call() {
    let (sender, mut called) = tokio::sync::mpsc::channel(1);
    let mut edge = TestEdge::start(Setup::default(), move |_| {
        sender.try_send(()).unwrap();
        Does::Nothing
    })
    .await;
    let line = "{\"processor\":\"p\"}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for request in [
        request("POST", "/v1/processors/p/jobs?wait=1m", "{}"),
        request("GET", &format!("/v1/jobs/{ID_TEXT}?wait=1m"), ""),
        request("POST", "/v1/processors/p/lease", r#"{"worker":"w","wait":"1m"}"#),
        format!(
            "{}{chunk}",
            ndjson("/v1/jobs?wait=1m", "transfer-encoding: chunked")
        ),
    ] {
        let mut socket = edge.connect().await;
        socket.write_all(request.as_bytes()).await.unwrap();
        called.recv().await.unwrap();
        reset(socket);
        match edge.notice().await {
            Inbound::Gone(_) => {}
            other => panic!("{request}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_submits_nothing() {
    let mut edge = TestEdge::start(Setup::default(), |command| panic!("{command:?}")).await;
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        let head =
            format!("POST /v1/processors/p/jobs?wait=1m HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n");
        let answer = answer(&edge, &format!("{head}5\r\nab")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("the body ended early"), "{answer}");
    }
    assert!(edge.notices.try_recv().is_err());
}

#[tokio::test]
async fn lines_are_answered_though_their_client_sends_no_more() {
    let edge = TestEdge::start(Setup::default(), |command| match command {
        Command::SubmitMany(many) => Does::Says(taken(many.jobs.len())),
        other => panic!("{other:?}"),
    })
    .await;
    let lines = "{\"processor\":\"p\"}\n".repeat(3_000);
    let head = ndjson("/v1/jobs", &format!("content-length: {}", lines.len()));
    let answer = answer(&edge, &format!("{head}{lines}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(answer.matches(ID_TEXT).count(), 3_000);
}

/// Lines that wait for earlier ones are unread, and hide that their client is gone.
#[tokio::test]
async fn an_end_behind_unread_lines_is_seen() {
    const LINES: usize = 33_500;
    let setup = Setup {
        slow_client_timeout: Duration::from_millis(100),
        ..Setup::default()
    };
    let mut edge = TestEdge::start(setup, |command| match command {
        Command::SubmitMany(many) => Does::SaysWhenLeaving(taken(many.jobs.len())),
        Command::GetMany(ids) => Does::Says(Answer::Jobs(vec![Err(Refusal::UnknownJob); ids.len()])),
        other => panic!("{other:?}"),
    })
    .await;
    let lines = "{\"processor\":\"p\"}\n".repeat(LINES);
    let head = ndjson("/v1/jobs?wait=5m", &format!("content-length: {}", lines.len()));
    let mut socket = say(&edge, &format!("{head}{lines}")).await;
    assert!(hurried(&mut edge).await > LEFT_WAIT_MAX / 2);
    let answer = read_to_end(&mut socket).await;
    assert_eq!(answer.matches(ID_TEXT).count(), LINES);
}

/// A body that is read in pieces stays whole, whatever listens beside.
#[tokio::test]
async fn a_large_body_is_read_as_it_comes() {
    let edge = TestEdge::start(Setup::default(), |command| match command {
        Command::Submit(submit) => {
            assert_eq!(submit.payload.bytes.len(), 1_000_000);
            let numbers = submit.payload.bytes.chunks(4);
            for (at, number) in numbers.enumerate() {
                assert_eq!(number, u32::try_from(at).unwrap().to_le_bytes());
            }
            Does::Says(submitted(job(&submit)))
        }
        other => panic!("{other:?}"),
    })
    .await;
    let body: Vec<u8> = (0..250_000_u32).flat_map(u32::to_le_bytes).collect();
    let length = body.len();
    let head = format!(
        "POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: x/y\r\n\
         content-length: {length}\r\n\r\n"
    );
    for _ in 0..3 {
        let mut socket = edge.connect().await;
        socket.write_all(head.as_bytes()).await.unwrap();
        for part in body.chunks(70_001) {
            socket.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = read_to_end(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
}

/// Its waiter stayed for the whole wait, and so did its connection.
#[tokio::test]
async fn lines_that_break_off_are_waited_for_no_longer() {
    let mut edge = TestEdge::start(Setup::default(), |command| match command {
        Command::SubmitMany(many) => Does::SaysWhenLeaving(taken(many.jobs.len())),
        Command::GetMany(ids) => Does::Says(Answer::Jobs(vec![Err(Refusal::UnknownJob); ids.len()])),
        other => panic!("{other:?}"),
    })
    .await;
    let line = "{\"processor\":\"p\"}\n";
    let head = ndjson("/v1/jobs?wait=5m", "transfer-encoding: chunked");
    let mut socket = say(&edge, &format!("{head}{:x}\r\n{line}\r\n", line.len())).await;
    assert_eq!(hurried(&mut edge).await, Duration::ZERO);
    let answer = read_to_end(&mut socket).await;
    assert!(answer.contains(ID_TEXT), "{answer}");
    assert!(answer.contains("the body ended early"), "{answer}");
}

#[tokio::test]
async fn a_connection_serves_on_until_its_client_sends_no_more() {
    let edge = TestEdge::start(Setup::default(), |command| Does::Says(accept(command))).await;
    let submit = request("POST", "/v1/processors/p/jobs", "{}");
    let mut socket = edge.connect().await;
    // The second comes while the first is served, and is read ahead; the third is larger than what is read ahead.
    let large = request("POST", "/v1/processors/p/jobs", &"x".repeat(100_000));
    let all = format!("{submit}{submit}{large}{submit}");
    socket.write_all(all.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let answers = read_to_end(&mut socket).await;
    assert_eq!(answers.matches("HTTP/1.1 202 ").count(), 4, "{answers}");
    let mut socket = say(&edge, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
}

/// The answer had begun when the client died: the work beside it and its connection held each other, for ever, with
/// waiters' places and the memory of the body.
#[tokio::test]
async fn work_beside_an_answer_ends_with_its_connection() {
    let (calls, mut called) = tokio::sync::mpsc::channel(8);
    let mut edge = TestEdge::start(Setup::default(), move |command| match command {
        Command::SubmitMany(many) if calls.try_send(()).is_ok() && many.jobs.len() == 1 => {
            Does::Says(taken(many.jobs.len()))
        }
        Command::SubmitMany(_) => Does::Nothing,
        Command::GetMany(ids) => Does::Says(Answer::Jobs(vec![Err(Refusal::UnknownJob); ids.len()])),
        other => panic!("{other:?}"),
    })
    .await;
    let line = "{\"processor\":\"p\"}\n";
    let chunk = |lines: usize| format!("{:x}\r\n{}\r\n", line.len() * lines, line.repeat(lines));
    let head = ndjson("/v1/jobs?wait=5m", "transfer-encoding: chunked");
    let mut socket = edge.connect().await;
    socket
        .write_all(format!("{head}{}", chunk(1)).as_bytes())
        .await
        .unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
    socket.write_all(chunk(2).as_bytes()).await.unwrap();
    // The first is answered, the other two are waited for.
    for _ in 0..2 {
        called.recv().await.unwrap();
    }
    reset(socket);
    while !matches!(edge.notice().await, Inbound::Gone(_)) {}
}

//! Connections are bounded in number and in time, and a stop lets answers in progress end.

use std::time::Duration;

use jitney::driver::port::{Answer, Inbound};
use jitney::driver::refusal::Refusal;
use jitney::limits::Limits;
use tokio::io::AsyncWriteExt as _;

use super::{Does, Setup, TestEdge, accept, read_head, read_to_end};

/// An edge with little patience for slow clients.
async fn impatient() -> TestEdge {
    let setup = Setup {
        slow_client_timeout: Duration::from_millis(100),
        ..Setup::default()
    };
    TestEdge::start(setup, |command| Does::Says(accept(command))).await
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let edge = TestEdge::start(setup, |command| Does::Says(accept(command))).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut socket = edge.connect().await;
        socket
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
        open.push(socket);
    }
    let answer = edge
        .raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    assert!(head.contains("retry-after: 1"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], "too_many_connections");
    assert_eq!(problem["limit"], 2);
    assert_eq!(problem["retry"], "after");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_closed() {
    let edge = impatient().await;
    assert_eq!(edge.raw(b"GET /healthz HTTP/1.1\r\nhost").await, "");
    // One that never begins, too.
    assert_eq!(edge.raw(b"").await, "");
}

#[tokio::test]
async fn a_body_that_pauses_is_408() {
    let edge = impatient().await;
    let answer = edge
        .raw(b"POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n01234")
        .await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains(r#""code":"slow_body""#), "{answer}");
    assert!(answer.contains(r#""retry":"safe""#), "{answer}");
    assert!(
        answer.contains("the body paused for longer than 100ms"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_idle_connection_outlives_the_patience_with_slow_heads() {
    let edge = impatient().await;
    let mut socket = edge.connect().await;
    for _ in 0..2 {
        socket
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut socket).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut body = [0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut body)
            .await
            .unwrap();
        // A request on a second connection that is cut off for its slow head: so much time has passed.
        assert_eq!(edge.raw(b"G").await, "");
    }
    // In the end it is closed.
    assert_eq!(read_to_end(&mut socket).await, "");
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_and_cut() {
    let edge = TestEdge::accepting().await;
    let mut socket = edge.connect().await;
    socket
        .write_all(
            b"POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await
        .unwrap();
    let (mut read, mut write) = socket.into_split();
    let endless = async {
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        // Ends when the server closes.
        while write.write_all(&chunk).await.is_ok() {}
    };
    let answered = async {
        let mut answer = vec![0; 13];
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer)
            .await
            .unwrap();
        answer
    };
    let both = async { tokio::join!(endless, answered) };
    let ((), answer) = tokio::time::timeout(super::PATIENCE, both).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413 ");
}

#[tokio::test]
async fn a_body_that_was_refused_leaves_its_connection_usable() {
    let edge = TestEdge::accepting().await;
    let mut socket = edge.connect().await;
    let body = vec![b'x'; 2 << 20];
    let head = format!(
        "POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&body).await.unwrap();
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let answers = read_to_end(&mut socket).await;
    assert!(answers.starts_with("HTTP/1.1 413 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
}

#[tokio::test]
async fn a_client_that_asks_before_sending_need_not_send() {
    let edge = TestEdge::accepting().await;
    let answer = edge
        .raw(b"POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000\r\nexpect: 100-continue\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// The problem in a raw answer.
fn problem(answer: &str) -> serde_json::Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_head_over_its_limits_is_refused() {
    let edge = TestEdge::accepting().await;
    let many: String = (0..101).map(|at| format!("h{at}: x\r\n")).collect();
    let answer = edge
        .raw(format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(problem(&answer)["code"], "head_too_large");
    let large = "x".repeat(70 << 10);
    let mut socket = edge.connect().await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nlarge: {large}\r\n\r\n");
    // The server may close before all of it is sent.
    drop(socket.write_all(request.as_bytes()).await);
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_head_that_is_none_hears_what_is_wrong() {
    let edge = TestEdge::start(Setup::default(), |_| {
        Does::Says(Answer::Refused(Refusal::Recovering))
    })
    .await;
    for bytes in [
        &b"x\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ] {
        let answer = edge.raw(bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let problem = problem(&answer);
        assert_eq!(problem["code"], "invalid_value", "{problem}");
        assert_eq!(problem["detail"], "the request's head cannot be read as HTTP/1.1");
    }
    // Also after a good one on the same connection.
    let answer = edge
        .raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nx y z\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
    let metrics = edge.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = "jitney_http_requests_total{route=\"other\",status=\"400\"} 4";
    assert!(metrics.lines().any(|have| have == line), "{metrics}");
}

/// A client that asks for much and reads nothing must not hold the answer's memory for ever.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let edge = impatient().await;
    let mut socket = edge.connect().await;
    let ask = b"GET /docs/errors HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1_000);
    // The server stops reading when its answers are not read, and closes in the end.
    let sent = async { while socket.write_all(&ask).await.is_ok() {} };
    tokio::time::timeout(super::PATIENCE, sent).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_idle_connections_at_once_and_busy_ones_in_time() {
    let (sender, mut called) = tokio::sync::mpsc::channel(1);
    let mut edge = TestEdge::start(Setup::default(), move |_| {
        sender.try_send(()).unwrap();
        Does::Nothing
    })
    .await;
    let mut idle = edge.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(read_head(&mut idle).await.starts_with("HTTP/1.1 200 "));
    let mut busy = edge.connect().await;
    busy.write_all(b"POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    called.recv().await.unwrap();
    // The stop is bounded although the driver never answers; what waited is taken back.
    edge.stop().await;
    assert!(read_to_end(&mut idle).await.ends_with("ok\n"));
    assert_eq!(read_to_end(&mut busy).await, "");
    assert!(matches!(edge.notice().await, Inbound::Gone(_)));
    assert!(tokio::net::TcpStream::connect(&edge.address).await.is_err());
}

/// They were cut off without a word when the time for answers in progress was over.
#[tokio::test]
async fn a_stop_answers_requests_whose_bodies_have_not_come() {
    let mut edge = TestEdge::start(Setup::default(), |_| Does::Nothing).await;
    let plain = "POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10";
    let lines = "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                 transfer-encoding: chunked";
    let mut open = Vec::new();
    for (head, part) in [(plain, "abc"), (lines, "3\r\n{\"p\r\n")] {
        let mut socket = edge.connect().await;
        let head = format!("{head}\r\nexpect: 100-continue\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        // It asks for the body: the request is being read.
        assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 100 "));
        socket.write_all(part.as_bytes()).await.unwrap();
        open.push(socket);
    }
    edge.stop().await;
    let plain = read_to_end(&mut open[0]).await;
    assert!(plain.starts_with("HTTP/1.1 503 "), "{plain}");
    assert!(
        plain.contains("retry-after: 1") && plain.contains("draining"),
        "{plain}"
    );
    let lines = read_to_end(&mut open[1]).await;
    assert!(lines.contains("draining"), "{lines}");
}

#[tokio::test]
async fn a_stop_lets_an_answer_in_progress_end() {
    let (sender, mut called) = tokio::sync::mpsc::channel(1);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let mut edge = TestEdge::start(Setup::default(), move |command| {
        sender.try_send(()).unwrap();
        released.recv_timeout(super::PATIENCE).unwrap();
        Does::Says(accept(command))
    })
    .await;
    let mut busy = edge.connect().await;
    busy.write_all(b"POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    called.recv().await.unwrap();
    drop(edge.stop.take());
    // The listener closes first: nobody new is served.
    while tokio::net::TcpStream::connect(&edge.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.try_send(()).unwrap();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    edge.stop().await;
}

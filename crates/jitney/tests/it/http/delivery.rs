//! The driver hears whether a batch reached its worker's connection, and that a poll's connection is gone.

use std::time::Duration;

use jitney::driver::port::{Inbound, json as json_payload};
use tokio::io::AsyncWriteExt as _;

use super::lease::{TOKEN, batch, leased};
use super::{Does, Setup, TestEdge, read_head};

const POLL: &[u8] =
    b"POST /v1/processors/p/lease HTTP/1.1\r\nhost: localhost\r\ncontent-length: 14\r\n\r\n{\"worker\":\"w\"}";

fn tokens(notice: Inbound) -> (&'static str, usize) {
    let (what, tokens) = match notice {
        Inbound::Delivered(tokens) => ("delivered", tokens),
        Inbound::Undelivered(tokens) => ("undelivered", tokens),
        other => panic!("{other:?}"),
    };
    assert!(tokens.iter().all(|token| *token == TOKEN));
    (what, tokens.len())
}

#[tokio::test]
async fn a_batch_that_was_written_is_delivered() {
    let mut edge = TestEdge::start(Setup::default(), |_| {
        Does::Says(leased(vec![batch(json_payload("1")), batch(json_payload("2"))]))
    })
    .await;
    let mut socket = edge.connect().await;
    // Twice over one connection: each answer has a duty of its own.
    for _ in 0..2 {
        socket.write_all(POLL).await.unwrap();
        assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
        assert_eq!(tokens(edge.notice().await), ("delivered", 2));
        let mut body = vec![0; 1];
        while body.iter().filter(|byte| **byte == b'{').count()
            != body.iter().filter(|byte| **byte == b'}').count()
            || body.len() < 10
        {
            body.push(tokio::io::AsyncReadExt::read_u8(&mut socket).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_poll_whose_connection_is_gone_is_taken_back() {
    let mut edge = TestEdge::start(Setup::default(), |_| {
        Does::SaysWhenGone(leased(vec![batch(json_payload("1"))]))
    })
    .await;
    let mut socket = edge.connect().await;
    socket.write_all(POLL).await.unwrap();
    super::leaving::reset(socket);
    assert!(matches!(edge.notice().await, Inbound::Gone(_)));
    // The driver had formed the batch before it heard: it comes back.
    assert_eq!(tokens(edge.notice().await), ("undelivered", 1));
}

#[tokio::test]
async fn a_batch_that_was_written_in_part_is_not_delivered() {
    // More than the sockets of both sides hold.
    let data = format!("\"{}\"", "x".repeat(64 << 20));
    let mut edge = TestEdge::start(Setup::default(), move |_| {
        Does::Says(leased(vec![batch(json_payload(data.clone()))]))
    })
    .await;
    let mut socket = edge.connect().await;
    socket.write_all(POLL).await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
    drop(socket);
    assert_eq!(tokens(edge.notice().await), ("undelivered", 1));
}

#[tokio::test]
async fn a_worker_that_does_not_read_its_answer_loses_it() {
    let data = format!("\"{}\"", "x".repeat(64 << 20));
    let setup = Setup {
        slow_client_timeout: Duration::from_millis(100),
        ..Setup::default()
    };
    let mut edge = TestEdge::start(setup, move |_| {
        Does::Says(leased(vec![batch(json_payload(data.clone()))]))
    })
    .await;
    let mut socket = edge.connect().await;
    socket.write_all(POLL).await.unwrap();
    // The connection stays open on this side.
    assert_eq!(tokens(edge.notice().await), ("undelivered", 1));
    drop(socket);
}

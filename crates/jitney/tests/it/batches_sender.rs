//! The batches_sender example, run as its users do: every caller gets its own executed order, and an order
//! that is not valid disturbs no one.

use std::path::Path;
use std::process::Command;

use reqwest::Client;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::process::{ServerProcess, example, url_in};

/// Starts it; gives back where orders go.
fn start(directory: &Path, arguments: &[&str]) -> (ServerProcess, String) {
    let mut command = Command::new(example("batches_sender"));
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .env_clear()
        .current_dir(directory);
    let mut process = ServerProcess::start(&mut command);
    let url = url_in(&process.line_with("taking orders at"));
    (process, url)
}

/// Stops it; gives back how many orders each batch had.
fn stop(process: ServerProcess) -> Vec<usize> {
    process.signal(Signal::TERM);
    let (status, log) = process.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let size = |line: &str| {
        let (_, rest) = line.split_once("executed a batch of ")?;
        rest.split_once(" orders")?.0.parse().ok()
    };
    log.lines().filter_map(size).collect()
}

/// Sends an order; gives back the status and the body.
async fn send(client: &Client, url: &str, order: &str) -> (u16, String) {
    let answer = client.post(url).body(order.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// So many callers at once, each with an order of its own; every answer is checked.
async fn send_all(client: &Client, url: &str, callers: usize) {
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (client, url) = (client.clone(), url.to_owned());
        tasks.spawn(async move {
            let order = format!(r#"{{"price":{}.50,"order":"number {caller}"}}"#, caller + 1);
            let (status, body) = send(&client, &url, &order).await;
            let executed = order.replace('}', r#","status":"approved"}"#);
            assert_eq!((status, body), (200, executed));
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap();
    }
}

/// An order that is not valid is refused with what is wrong with it.
async fn send_invalid(client: &Client, url: &str, order: &str, code: &str, said: &str) {
    let (status, body) = send(client, url, order).await;
    assert_eq!(status, 400, "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["code"], code, "{body}");
    assert!(body.contains(said), "{body}");
}

#[tokio::test]
async fn each_of_200_callers_gets_its_own_order_back() {
    let directory = tempfile::tempdir().unwrap();
    let (process, url) = start(directory.path(), &["--batch-size", "16"]);
    let client = Client::new();
    tokio::join!(
        send_all(&client, &url, 200),
        send_invalid(&client, &url, r#"{"order":"no price"}"#, "invalid_value", "price"),
        send_invalid(
            &client,
            &url,
            r#"{"price":-1,"order":1}"#,
            "invalid_value",
            "/price"
        ),
        send_invalid(
            &client,
            &url,
            r#"{"price":1,"order":1,"x":2}"#,
            "invalid_value",
            "x"
        ),
        send_invalid(&client, &url, "{oops", "malformed_json", "JSON"),
    );
    let sizes = stop(process);
    assert_eq!(sizes.iter().sum::<usize>(), 200, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 16), "{sizes:?}");
    assert!(sizes.iter().any(|size| *size > 1), "{sizes:?}");
}

#[tokio::test]
async fn strict_batches_have_exactly_so_many_orders() {
    let directory = tempfile::tempdir().unwrap();
    // The delay is out of reach: whatever is answered went in a full batch.
    let arguments = ["--batch-size", "50", "--strict", "--delay", "5m"];
    let (process, url) = start(directory.path(), &arguments);
    let client = Client::new();
    tokio::join!(
        send_all(&client, &url, 200),
        send_invalid(&client, &url, "[]", "invalid_value", "object"),
    );
    assert_eq!(stop(process), [50, 50, 50, 50]);
}

#[tokio::test]
async fn strict_batches_go_when_the_delay_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--batch-size", "1000", "--strict", "--delay", "100ms"];
    let (process, url) = start(directory.path(), &arguments);
    send_all(&Client::new(), &url, 7).await;
    let sizes = stop(process);
    assert_eq!(sizes.iter().sum::<usize>(), 7, "{sizes:?}");
}

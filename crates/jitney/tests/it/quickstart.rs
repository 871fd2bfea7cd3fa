//! `jitney quickstart`: what a new user sees first works, twice, and what it says to try works too.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{ServerProcess, url_in};

fn quickstart(directory: &Path, arguments: &[&str]) -> ServerProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command
        .args(["quickstart", "--listen", "127.0.0.1:0", "--orders", "200"])
        .args(arguments)
        .env_clear()
        .current_dir(directory);
    ServerProcess::start(&mut command)
}

#[test]
fn it_shows_the_figures_and_a_second_run_finds_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = quickstart(directory.path(), &["--once"]);
    let shown = first.rest();
    let (status, log) = first.wait();
    assert!(status.success(), "{shown}\n{log}");
    assert_eq!(log, "");
    assert!(!shown.contains("earlier run"), "{shown}");
    for expected in [
        "  200 of 200 orders back, in ",
        "\"status\":\"approved\"",
        " jobs/s: 200 orders in ",
        "  latency  p50 ",
        " fsyncs per job",
        "  batches  ",
    ] {
        assert!(shown.contains(expected), "`{expected}` is not in\n{shown}");
    }

    let mut second = quickstart(directory.path(), &["--once"]);
    let shown = second.rest();
    let (status, log) = second.wait();
    assert!(status.success(), "{shown}\n{log}");
    assert!(
        shown.contains("200 finished jobs of an earlier run are still there, and 0 to be done"),
        "{shown}"
    );
}

#[test]
fn its_figures_for_programs_add_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = quickstart(directory.path(), &["--once", "--json", "--callers", "64"]);
    let shown = process.rest();
    let (status, log) = process.wait();
    assert!(status.success(), "{shown}\n{log}");
    let figures: Value = serde_json::from_str(&shown).unwrap();
    let sizes = figures["batch_sizes"].as_object().unwrap();
    let count = |pair: (&String, &Value)| (pair.0.parse::<u64>().unwrap(), pair.1.as_u64().unwrap());
    let (orders, batches) = sizes
        .iter()
        .map(count)
        .fold((0, 0), |(orders, batches), (size, count)| {
            assert!(size <= 16, "a batch of {size}");
            (orders + size * count, batches + count)
        });
    assert_eq!((orders, Some(batches)), (200, figures["batches"].as_u64()));
    // 64 callers at once gather: far fewer batches than orders, far fewer syncs than acknowledgements.
    assert!(batches <= 100, "{shown}");
    assert!(figures["fsyncs_per_job"].as_f64().unwrap() < 2.0, "{shown}");
    assert!(figures["fsyncs_per_job"].as_f64().unwrap() > 0.0, "{shown}");
}

#[tokio::test]
async fn what_it_says_to_try_works_and_ctrl_c_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = quickstart(directory.path(), &[]);
    process.line_with("It is still running");
    let order = process.line_with("curl ");
    let job = process.line_with("curl ");
    let lanes = process.line_with("curl ");
    process.line_with("Ctrl-C ends it");

    let client = reqwest::Client::new();
    let data = order.split('\'').nth(1).unwrap().to_owned();
    let mut request = client.post(url_in(&order)).body(data);
    // What `curl -d` says.
    request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(
        answer.text().await.unwrap(),
        r#"{"order":1001,"price":1990,"status":"approved"}"#
    );

    let answer = client.get(url_in(&job)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let job: Value = answer.json().await.unwrap();
    assert_eq!(job["status"], "processed_ok");

    let answer = client.get(url_in(&lanes)).send().await.unwrap();
    let lanes: Value = answer.json().await.unwrap();
    assert_eq!(lanes["lanes"][0]["processor"], "orders");

    process.signal(Signal::INT);
    let rest = process.rest();
    let (status, log) = process.wait();
    assert_eq!(status.code(), Some(0), "{rest}\n{log}");
}

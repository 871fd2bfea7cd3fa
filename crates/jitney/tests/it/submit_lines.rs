//! `jitney submit --ndjson`: a job for each line, however often it is called.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use jitney::client::Client;
use jitney::limits::Limits;
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
use jitney::worker::{HandlerError, Job, Worker};
use serde_json::{Value, json};

/// A server over the memory bus.
async fn server() -> Running {
    start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        bus: BusOptions::Memory,
        limits: Limits::default(),
        ..Options::default()
    })
    .await
    .unwrap()
}

/// Runs `jitney submit orders` with these arguments in a directory, and gives it `input`.
async fn submit(server: SocketAddr, directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command
        .args(["submit", "orders", "--url", &format!("http://{server}")])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn shown(output: &Output) -> (Option<i32>, &str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Jobs that the server has.
async fn jobs(server: SocketAddr) -> u64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let info = client
        .get(format!("http://{server}/v1/info"))
        .send()
        .await
        .unwrap();
    let info: Value = serde_json::from_slice(&info.bytes().await.unwrap()).unwrap();
    info["usage"]["jobs"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_submitted_again_submits_only_what_is_new() {
    let server = server().await;
    let address = server.address();
    let directory = tempfile::tempdir().unwrap();
    let lines: String = (0..2_500).map(|n| format!("{{\"n\":{n}}}\r\n")).collect();
    let file = directory.path().join("orders.ndjson");
    std::fs::write(&file, format!("{lines}\n{{oops\n")).unwrap();
    let run = |more: &'static [&str]| {
        let arguments = [&["--ndjson", "orders.ndjson", "--label", "shop=7"], more].concat();
        let directory = directory.path().to_owned();
        async move { submit(address, &directory, &arguments, "").await }
    };
    let output = run(&[]).await;
    let (code, text, errors) = shown(&output);
    assert_eq!(
        (code, text),
        (Some(1), "2,500 submitted, 1 refused\n"),
        "{errors}"
    );
    assert!(errors.starts_with("line 2502: not JSON: "), "{errors}");
    assert_eq!(jobs(address).await, 2_500);

    // A line was mended, and others were added.
    std::fs::write(&file, format!("{lines}\n{{}}\n[1]\n[2]")).unwrap();
    let output = run(&["--json"]).await;
    let (code, text, errors) = shown(&output);
    assert_eq!((code, errors), (Some(0), ""));
    let summary: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        summary,
        json!({"lines": 2_503, "accepted": 2_503, "replayed": 2_500, "rejected": 0})
    );
    assert_eq!(jobs(address).await, 2_503);
    server.stop(std::time::Duration::ZERO).await;
}

/// Equal lines of `monday/orders.ndjson` and `tuesday/orders.ndjson` were one job: the keys had only the last part of
/// the path in them.
#[tokio::test(flavor = "multi_thread")]
async fn equal_lines_of_two_files_of_one_name_are_two_jobs() {
    let server = server().await;
    let (address, directory) = (server.address(), tempfile::tempdir().unwrap());
    for day in ["monday", "tuesday"] {
        let day = directory.path().join(day);
        std::fs::create_dir(&day).unwrap();
        std::fs::write(day.join("orders.ndjson"), "{}\n{}\n").unwrap();
    }
    let monday = directory.path().join("monday");
    for (directory, file, more, jobs_then) in [
        (directory.path(), "monday/orders.ndjson", &[][..], 2),
        (directory.path(), "tuesday/orders.ndjson", &[], 4),
        // However the path is written, it is the same file.
        (&monday, "orders.ndjson", &[], 4),
        (&monday, "../tuesday/../tuesday/orders.ndjson", &[], 4),
        (&monday, "orders.ndjson", &["--name", "again"], 6),
    ] {
        let arguments = [&["--ndjson", file], more].concat();
        let output = submit(address, directory, &arguments, "").await;
        let (code, _, errors) = shown(&output);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(jobs(address).await, jobs_then, "{file}");
    }
    server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_submitted_again_with_other_options_says_what_makes_new_jobs() {
    let server = server().await;
    let (address, directory) = (server.address(), tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("orders.ndjson"), "1\n2\n").unwrap();
    let file = &["--ndjson", "orders.ndjson"];
    let output = submit(address, directory.path(), file, "").await;
    assert_eq!(shown(&output).0, Some(0));
    let other = [&file[..], &["--group", "other"]].concat();
    let output = submit(address, directory.path(), &other, "").await;
    let (code, text, errors) = shown(&output);
    assert_eq!((code, text), (Some(1), "0 submitted, 2 refused\n"), "{errors}");
    assert!(errors.contains("hint: 2 of these lines were"), "{errors}");
    assert!(errors.contains("--name NAME makes new jobs"), "{errors}");
    server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_known_by_the_name_that_it_is_given() {
    let server = server().await;
    let (address, directory) = (server.address(), tempfile::tempdir().unwrap());
    let named = ["--ndjson", "-", "--name", "today"];
    for (arguments, jobs_then) in [
        (&named[..], 2),
        (&named[..], 2),
        (&named[..2], 4),
        (&named[..2], 6),
    ] {
        let output = submit(address, directory.path(), arguments, "1\n2\n").await;
        let (code, text, errors) = shown(&output);
        assert_eq!(code, Some(0), "{errors}");
        assert!(text.starts_with("2 submitted"), "{text}");
        assert_eq!(jobs(address).await, jobs_then);
    }
    server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_a_file_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let directory = tempfile::tempdir().unwrap();
    let output = submit(
        address,
        directory.path(),
        &["--ndjson", "-", "--name", "n"],
        "1\n",
    )
    .await;
    let (code, _, errors) = shown(&output);
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains("0 submitted so far"), "{errors}");
    assert!(errors.contains("run it again"), "{errors}");
    let output = submit(address, directory.path(), &["--ndjson", "none"], "").await;
    assert_eq!(shown(&output).0, Some(2));
    for wrong in [
        &["--ndjson", "-", "--wait", "1s"][..],
        &["--ndjson", "-", "--out", "results.ndjson"],
        &["1", "--out", "results.ndjson"],
    ] {
        let output = submit(address, directory.path(), wrong, "").await;
        assert_eq!(shown(&output).0, Some(2), "{wrong:?}");
    }
}

/// The entries of a file of results, by line.
fn entries(file: &Path) -> BTreeMap<u64, Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let entry = |line: &str| -> (u64, Value) {
        let entry: Value = serde_json::from_str(line).unwrap();
        (entry["line"].as_u64().unwrap(), entry)
    };
    let all: Vec<_> = text.lines().map(entry).collect();
    let entries: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(entries.len(), all.len(), "a line is there twice");
    entries
}

/// Doubles numbers, and fails the odd ones.
fn doubling(server: SocketAddr) -> tokio::task::JoinHandle<()> {
    let client = Client::new(&server.to_string()).unwrap();
    let worker = Worker::new(client, "orders")
        .slots(4)
        .on_group("default", async |job: Job<u64>| match job.data % 2 {
            0 => Ok(2 * job.data),
            _ => Err(HandlerError::last("odd", "it is odd")),
        });
    tokio::spawn(async move { drop(worker.run_until(std::future::pending()).await) })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_all_lines_are_kept_and_a_run_that_was_killed_is_gone_on_with() {
    let server = server().await;
    let address = server.address();
    let worker = doubling(address);
    let directory = tempfile::tempdir().unwrap();
    let lines: String = (1..=2_400).map(|n| format!("{n}\n")).collect();
    std::fs::write(directory.path().join("orders.ndjson"), format!("{lines}oops\n")).unwrap();
    let out = directory.path().join("results.ndjson");
    let arguments = [
        "--ndjson",
        "orders.ndjson",
        "--out",
        "results.ndjson",
        "--wait",
        "60s",
    ];
    let said = "2,400 submitted, 1 refused; 1,200 went well, 1,200 failed, 0 not ended\n";
    let output = submit(address, directory.path(), &arguments, "").await;
    let (code, text, errors) = shown(&output);
    assert_eq!((code, text), (Some(1), said), "{errors}");
    let failed = r#"jq -c 'select(.status | IN("processed_error", "batch_failed"))' results.ndjson"#;
    assert!(errors.contains(failed), "{errors}");
    let whole = entries(&out);
    assert_eq!(whole.len(), 2_401);
    let ended = |line: u64| {
        let entry = &whole[&line];
        (
            entry["status"].clone(),
            entry["result"].clone(),
            entry["error"]["code"].clone(),
        )
    };
    assert_eq!(ended(8), (json!("processed_ok"), json!(16), Value::Null));
    assert_eq!(ended(7), (json!("processed_error"), Value::Null, json!("odd")));
    assert_eq!(
        ended(2_401),
        (json!("refused"), Value::Null, json!("invalid_json"))
    );

    // It was killed while it wrote an entry.
    let bytes = std::fs::read(&out).unwrap();
    std::fs::write(&out, &bytes[..bytes.len() / 2]).unwrap();
    let output = submit(address, directory.path(), &arguments, "").await;
    let (code, text, errors) = shown(&output);
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        text.starts_with("2,400 submitted (")
            && text.ends_with("1,200 went well, 1,200 failed, 0 not ended\n"),
        "{text}"
    );
    assert_eq!(entries(&out), whole);
    assert_eq!(
        jobs(address).await,
        0,
        "nothing was submitted twice, and all is done"
    );

    // And once more: nothing is left to do.
    let bytes = std::fs::read(&out).unwrap();
    let json = [&arguments[..], &["--json"]].concat();
    let output = submit(address, directory.path(), &json, "").await;
    assert_eq!(
        serde_json::from_str::<Value>(shown(&output).1).unwrap(),
        json!({"lines": 2_401, "accepted": 2_400, "replayed": 2_400, "rejected": 1, "ok": 1_200, "failed": 1_200,
            "unfinished": 0})
    );
    assert_eq!(std::fs::read(&out).unwrap(), bytes);
    worker.abort();
    server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_have_not_ended_are_waited_for_by_the_next_run_and_ids_are_kept_without_waiting() {
    let server = server().await;
    let (address, directory) = (server.address(), tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("orders.ndjson"), "2\n4\n").unwrap();
    let ids = ["--ndjson", "orders.ndjson", "--out", "ids.ndjson"];
    for said in ["2 submitted\n", "2 submitted (2 of them before)\n"] {
        let output = submit(address, directory.path(), &ids, "").await;
        assert_eq!(shown(&output), (Some(0), said, ""));
    }
    let ids = entries(&directory.path().join("ids.ndjson"));
    let results = |wait: &'static str, out: &'static str| {
        let arguments = ["--ndjson", "orders.ndjson", "--out", out, "--wait", wait];
        let directory = directory.path().to_owned();
        async move { submit(address, &directory, &arguments, "").await }
    };
    let output = results("1s", "ids.ndjson").await;
    assert_eq!(shown(&output).0, Some(2), "it has ids alone");

    let output = results("10ms", "results.ndjson").await;
    let (code, text, errors) = shown(&output);
    assert_eq!(
        (code, text),
        (Some(4), "2 submitted; 0 went well, 0 failed, 2 not ended\n"),
        "{errors}"
    );
    assert!(errors.contains("run it again to wait for them"), "{errors}");
    let worker = doubling(address);
    let output = results("60s", "results.ndjson").await;
    let (code, text, errors) = shown(&output);
    assert_eq!(
        (code, text),
        (Some(0), "2 submitted; 2 went well, 0 failed, 0 not ended\n"),
        "{errors}"
    );
    let ended = entries(&directory.path().join("results.ndjson"));
    for line in [1, 2] {
        assert_eq!(ended[&line]["id"], ids[&line]["id"]);
        assert_eq!(ended[&line]["result"], 4 * line);
    }
    worker.abort();
    server.stop(std::time::Duration::ZERO).await;
}

//! `jitney submit --ndjson`: a job for each line, however often it is called.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use jitney::limits::Limits;
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
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
    let output = submit(address, directory.path(), &["--ndjson", "-", "--wait", "1s"], "").await;
    assert_eq!(shown(&output).0, Some(2));
}

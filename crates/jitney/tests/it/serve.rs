//! `jitney serve` from its start to its end, and the commands that speak to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::process::{ServerProcess, url_in};

pub(crate) fn jitney(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command.args(arguments).env_clear().current_dir(directory);
    command
}

pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Output {
    jitney(directory, arguments).output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub(crate) const FREE_PORT: &[&str] = &["serve", "--listen", "127.0.0.1:0"];

#[test]
fn a_server_says_where_it_is_serves_and_stops_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    fs::write(&ready, "what an earlier run left").unwrap();
    let arguments = [FREE_PORT, &["--ready-file", "ready"]].concat();
    let mut server = ServerProcess::start(&mut jitney(directory.path(), &arguments));
    let url = url_in(&server.line_with("listening on"));

    let submitted = run(
        directory.path(),
        &["submit", "orders", "{\"price\":1}", "--url", &url],
    );
    assert_eq!(code(&submitted), 0, "{}", text(&submitted.stderr));
    let id = text(&submitted.stdout).trim();
    // The file is written before anyone is told on standard output.
    assert_eq!(format!("http://{}", fs::read_to_string(&ready).unwrap()), url);

    let job = run(directory.path(), &["job", "get", id, "--url", &url]);
    assert!(
        text(&job.stdout).contains("submitted (queued)"),
        "{}",
        text(&job.stdout)
    );
    let waited = run(
        directory.path(),
        &["job", "get", id, "--wait", "50ms", "--url", &url],
    );
    assert_eq!(code(&waited), 4, "{}", text(&waited.stderr));
    let lanes = run(directory.path(), &["lane", "ls", "--url", &url]);
    assert!(text(&lanes.stdout).contains("orders"), "{}", text(&lanes.stdout));
    let unknown = run(
        directory.path(),
        &[
            "job",
            "get",
            "00000000-0000-7000-8000-000000000000",
            "--url",
            &url,
        ],
    );
    assert_eq!(code(&unknown), 2, "{}", text(&unknown.stderr));
    assert!(
        text(&unknown.stderr).contains("(unknown_job)"),
        "{}",
        text(&unknown.stderr)
    );

    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");

    let verified = run(directory.path(), &["log", "verify"]);
    assert_eq!(code(&verified), 0, "{}", text(&verified.stderr));
    let verdict = text(&verified.stdout);
    assert!(
        verdict.starts_with("./jitney-data: good, cleanly stopped\n1 jobs"),
        "{verdict}"
    );
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    let submitted = run(directory.path(), &["submit", "orders", "1", "--url", &url]);
    let id = text(&submitted.stdout).trim();
    // A leased job holds a stop for the grace of 10 s.
    let lease = reqwest::Client::new()
        .post(format!("{url}/v1/processors/orders/lease"))
        .body(r#"{"worker":"w"}"#);
    assert_eq!(lease.send().await.unwrap().status().as_u16(), 200);
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(130), "{log}");

    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    let job = run(directory.path(), &["job", "get", id, "--url", &url]);
    assert_eq!(code(&job), 0, "{}", text(&job.stderr));
    assert!(text(&job.stdout).contains("submitted"), "{}", text(&job.stdout));
}

#[test]
fn a_directory_in_use_is_refused_with_the_pid() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    server.line_with("listening on");
    let pid = server.pid().to_string();
    for arguments in [FREE_PORT, &["log", "verify"]] {
        let second = run(directory.path(), arguments);
        assert_eq!(code(&second), 74, "{arguments:?}: {}", text(&second.stderr));
        assert_eq!(text(&second.stdout), "");
        let error = text(&second.stderr);
        assert!(
            error.contains(&format!("in use by the process with pid {pid}")),
            "{error}"
        );
        assert!(
            error.contains("hint: stop the server that uses it first"),
            "{error}"
        );
    }
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(directory.path(), &["serve", "--listen", &address]);
    // Not 2, after which systemd does not try again: the other program may end.
    assert_eq!(code(&output), 74, "{}", text(&output.stderr));
    let error = text(&output.stderr);
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn what_is_not_built_or_not_safe_is_refused_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (
            &["serve", "--bus", "kafka://localhost:9092"][..],
            "the kafka bus is not in jitney 0.1",
        ),
        (
            &["serve", "--bus", "sqs://queue"],
            "the sqs bus is not in jitney 0.1",
        ),
        (&["serve", "--bus", "memry"], "did you mean `memory`?"),
        (&["serve", "--listen", "0.0.0.0:0"], "--no-auth"),
        (&["serve", "--listen", "8080"], "is not an address with a port"),
        (
            &["serve", "--config", "missing.toml"],
            "cannot read `missing.toml`",
        ),
    ] {
        let output = run(directory.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains(said),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert_eq!(text(&output.stdout), "");
    }
    assert!(!directory.path().join("jitney-data").exists());
}

#[test]
fn a_directory_without_a_log_is_not_a_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let verified = run(directory.path(), &["log", "verify", "--data", "."]);
    assert_eq!(code(&verified), 74);
    assert_eq!(text(&verified.stdout), "");
    assert!(
        text(&verified.stderr).contains("there is no log in `.`"),
        "{}",
        text(&verified.stderr)
    );
}

#[test]
fn a_damaged_log_is_named_and_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    for _ in 0..3 {
        let submitted = run(
            directory.path(),
            &["submit", "orders", "\"a needle in the log\"", "--url", &url],
        );
        assert_eq!(code(&submitted), 0, "{}", text(&submitted.stderr));
    }
    server.signal(Signal::INT);
    assert!(server.wait().0.success());

    let file = damage(&directory.path().join("jitney-data"), b"a needle in the log");
    let verified = run(directory.path(), &["log", "verify"]);
    assert_eq!(code(&verified), 74);
    assert!(
        text(&verified.stdout).contains(&format!("`{file}` is damaged at byte")),
        "{}",
        text(&verified.stdout)
    );
    let verified = run(directory.path(), &["log", "verify", "--json"]);
    let verdict: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verdict["ok"], false);
    assert_eq!(verdict["damages"][0]["file"], file);

    let refused = run(directory.path(), FREE_PORT);
    assert_eq!(code(&refused), 74, "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains(&format!("`{file}` is damaged at byte")),
        "{}",
        text(&refused.stderr)
    );
    assert!(
        text(&refused.stderr).contains("jitney log verify"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn a_log_of_a_newer_format_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    server.line_with("listening on");
    server.signal(Signal::TERM);
    assert!(server.wait().0.success());

    let data = directory.path().join("jitney-data");
    let names = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &Path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("segment-")
    };
    let newest = names.filter(|path| is_segment(path)).max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    // The header's version, and its checksum (docs/log_format.md).
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    fs::write(&newest, bytes).unwrap();

    let refused = run(directory.path(), FREE_PORT);
    assert_eq!(code(&refused), 74, "{}", text(&refused.stderr));
    let error = text(&refused.stderr);
    assert!(error.contains("is of a newer format"), "{error}");
    assert!(error.contains("hint: use the jitney that wrote it"), "{error}");
}

/// Flips one bit of the first place where a file of the directory has these bytes; gives back the file.
pub(crate) fn damage(directory: &Path, needle: &[u8]) -> String {
    let (path, at) = place_of(directory, needle);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The first file that has these bytes, and where.
pub(crate) fn place_of(directory: &Path, needle: &[u8]) -> (PathBuf, usize) {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            return (path, at);
        }
    }
    panic!("no file has the bytes that were submitted");
}

//! The log of the process as JSON: one object a line, whoever speaks, and never a payload.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{ServerProcess, url_in};
use crate::serve::{FREE_PORT, code, jitney, run, text};

const SECRET: &str = "payloads are private";

/// The lines of a log, each an object with what every line has.
fn objects(log: &str) -> Vec<Value> {
    let read = |line: &str| -> Value {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(object[field].is_string(), "no `{field}`: {line}");
        }
        object
    };
    log.lines().map(read).collect()
}

fn message<'a>(objects: &'a [Value], message: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["message"] == message);
    found
        .next()
        .unwrap_or_else(|| panic!("no `{message}` in {objects:?}"))
}

/// What happens to a job and to its batch.
fn tells_of_job_and_batch(server: &[Value]) {
    let accepted = message(server, "job accepted");
    assert_eq!(
        (&accepted["level"], &accepted["processor"]),
        (&"TRACE".into(), &"orders".into())
    );
    let batch = message(server, "batch handed out");
    assert_eq!((&batch["level"], &batch["jobs"]), (&"DEBUG".into(), &1.into()));
    assert_eq!(message(server, "job handed out")["lease"], batch["lease"]);
    assert_eq!(message(server, "outcomes settled")["level"], "DEBUG");
    assert_eq!(message(server, "job ended")["job"], accepted["job"]);
}

#[test]
fn every_line_of_server_worker_and_child_is_an_object_and_none_has_a_payload() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [FREE_PORT, &["--log-format", "json"]].concat();
    let mut serve = jitney(directory.path(), &arguments);
    let mut server = ServerProcess::start(serve.env("JITNEY_LOG", "trace"));
    let url = url_in(&server.line_with("listening on"));

    // Says something on standard error, and then each job's id and result.
    std::fs::write(
        directory.path().join("worker.sh"),
        "read -r _\necho 'hello from the script' >&2\nwhile IFS= read -r job; do\n  id=${job#*'\"id\":\"'}\n  \
         echo \"{\\\"id\\\":\\\"${id:0:36}\\\",\\\"ok\\\":\\\"payloads are private\\\"}\"\ndone\n",
    )
    .unwrap();
    let mut work = Command::new(env!("CARGO_BIN_EXE_jitney"));
    work.args([
        "work",
        "orders",
        "--exec",
        "bash worker.sh",
        "--once",
        "--worker",
        "w-7",
        "--url",
        &url,
    ])
    .env("JITNEY_LOG", "trace")
    .env("JITNEY_LOG_FORMAT", "json")
    .current_dir(directory.path())
    .stdin(Stdio::null());
    let worker = ServerProcess::start(&mut work);

    let data = format!("\"{SECRET}\"");
    let done = run(
        directory.path(),
        &["submit", "orders", &data, "--wait", "20s", "--url", &url],
    );
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout), data);

    worker.signal(Signal::TERM);
    let (_, worker_log) = worker.wait();
    server.signal(Signal::TERM);
    let (_, server_log) = server.wait();
    for log in [&server_log, &worker_log] {
        assert!(!log.contains(SECRET), "{log}");
    }
    let worker = objects(&worker_log);
    let said = message(&worker, "stderr");
    assert_eq!(
        (&said["worker"], &said["line"]),
        (&"w-7".into(), &"hello from the script".into())
    );
    assert_eq!(said["batch"], message(&worker, "batch begins")["batch"]);
    let server = objects(&server_log);
    assert_eq!(message(&server, "ready")["level"], "INFO");
    assert_eq!(message(&server, "stopped")["level"], "INFO");
    tells_of_job_and_batch(&server);
}

#[test]
fn a_form_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["serve", "--log-format", "jsn"]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("did you mean `json`?"),
        "{}",
        text(&output.stderr)
    );
    let mut lanes = jitney(directory.path(), &["lane", "ls"]);
    let output = lanes.env("JITNEY_LOG_FORMAT", "jsn").output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("JITNEY_LOG_FORMAT is `jsn`"),
        "{}",
        text(&output.stderr)
    );
}

//! `jitney work`: a program of the user's gets batches, its outcomes reach the callers, and it stops in order.

use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::process::example;
use crate::process::{ServerProcess, url_in};

fn jitney(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command.args(arguments).env_clear().current_dir(directory);
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    jitney(directory, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_program_gets_jobs_and_its_results_reach_the_callers() {
    let directory = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--bus", "memory"];
    let mut server = ServerProcess::start(&mut jitney(directory.path(), &serve));
    let url = url_in(&server.line_with("listening on"));
    let program = format!("'{}' --executor", example("batches_sender").display());
    let work = [
        "work",
        "orders",
        "--exec",
        &program,
        "--concurrency",
        "2",
        "--url",
        &url,
    ];
    let worker = ServerProcess::start(&mut jitney(directory.path(), &work));

    let submit = |data: &str| {
        run(
            directory.path(),
            &["submit", "orders", data, "--wait", "30s", "--url", &url],
        )
    };
    let done = submit(r#"{"price":1.50,"order":"a chair"}"#);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(
        text(&done.stdout),
        r#"{"price":1.50,"order":"a chair","status":"approved"}"#
    );
    let failed = submit(r#"{"price":1.50}"#);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert!(
        text(&failed.stderr).contains("(invalid_order)"),
        "{}",
        text(&failed.stderr)
    );

    worker.signal(Signal::TERM);
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("executed a batch of 1 orders"), "{log}");
}

#[test]
fn a_command_that_cannot_be_started_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (command, said) in [
        ("./no-such-program", "cannot start `./no-such-program`"),
        ("'an open quote", "has an open quote"),
        ("", "`--exec` is empty"),
    ] {
        let output = run(directory.path(), &["work", "orders", "--exec", command]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{command}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stderr).contains(said),
            "{command}: {}",
            text(&output.stderr)
        );
    }
}

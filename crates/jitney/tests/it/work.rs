//! `jitney work`: a program of the user's gets batches, its outcomes reach the callers, and it stops in order.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
#[cfg(target_os = "linux")]
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

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

/// A server, and where it is.
fn server(directory: &Path) -> (ServerProcess, String) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--bus", "memory"];
    let mut server = ServerProcess::start(&mut jitney(directory, &serve));
    let url = url_in(&server.line_with("listening on"));
    (server, url)
}

/// What a child says that reads a job, and waits for the end of its input before it is done with it.
const SLOW: &str = r#"sh -c 'read -r header; read -r job; id=$(echo "$job" | cut -d "\"" -f 4); echo begun >&2
    cat >/dev/null; echo "{\"id\":\"$id\",\"ok\":1}"'"#;

/// Its terminal closed, and it died at once, with the job that it was at.
#[test]
fn a_hangup_stops_a_worker_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, url) = server(directory.path());
    let work = ["work", "orders", "--exec", SLOW, "--url", &url];
    let mut worker = jitney(directory.path(), &work);
    let mut worker = worker
        .env("PATH", "/usr/bin:/bin")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let submit = ["submit", "orders", "{}", "--wait", "30s", "--url", &url];
    let submit = jitney(directory.path(), &submit)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(worker.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended");
    }
    // Nobody reads its log any more, as when a terminal is gone; and the shell says what the system said.
    drop(log);
    signal(&worker, Signal::HUP);
    signal(&worker, Signal::HUP);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    assert_eq!(text(&submit.wait_with_output().unwrap().stdout), "1");
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, url) = server(directory.path());
    let program = format!("'{}' --executor", example("batches_sender").display());
    let mut worker = Command::new("sh");
    worker
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_jitney"),
        ])
        .args(["work", "orders", "--exec", &program, "--url", &url]);
    let worker = ServerProcess::start(&mut worker);
    let order = r#"{"price":1,"order":"a"}"#;
    let submit = ["submit", "orders", order, "--wait", "30s", "--url", &url];
    assert_eq!(run(directory.path(), &submit).status.code(), Some(0));
    worker.signal(Signal::HUP);
    assert_eq!(run(directory.path(), &submit).status.code(), Some(0));
    worker.signal(Signal::TERM);
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// A child that reads one job, leaves a process behind, and dies.
#[cfg(target_os = "linux")]
const LEAVES_ORPHANS: &str = "sh -c 'read -r header; read -r job; (sleep 0.02 &); exit 3'";

/// Each process that a child left behind stayed a zombie where nobody else waits for it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn orphans_of_children_are_waited_for_and_the_children_keep_their_status() {
    let subreaper = "import ctypes, os, sys\n\
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    leave_orphans(&["python3", "-c", subreaper], |pid| pid).await;
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
    let is_possible = Command::new(namespace[0])
        .args(&namespace[1..])
        .arg("true")
        .status();
    if is_possible.is_ok_and(|status| status.success()) {
        leave_orphans(&namespace, |unshare| children(unshare)[0]).await;
    } else {
        eprintln!("no process 1: this user cannot make PID namespaces; only a subreaper was tested");
    }
}

/// Runs a worker by this launcher; `of` finds its process by the launcher's.
#[cfg(target_os = "linux")]
async fn leave_orphans(launcher: &[&str], of: impl Fn(u32) -> u32) {
    let directory = tempfile::tempdir().unwrap();
    let (_server, url) = server(directory.path());
    let mut worker = Command::new(launcher[0]);
    worker
        .args(&launcher[1..])
        .arg(env!("CARGO_BIN_EXE_jitney"))
        .args(["work", "orders", "--exec", LEAVES_ORPHANS, "--url", &url]);
    let worker = ServerProcess::start(&mut worker);
    let submit = ["submit", "orders", "{}", "--wait", "30s", "--url", &url];
    let failed = run(directory.path(), &submit);
    let said = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("`sh` exited with code 3 (worker"), "{said}");

    let pid = of(worker.pid());
    let gone = async {
        while children(pid).into_iter().any(is_orphan) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), gone).await;
    waited.unwrap_or_else(|_| panic!("zombies stay: {:?}", children(pid)));
    let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(process, Signal::TERM).unwrap();
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[cfg(target_os = "linux")]
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
    let lists: Vec<String> = tasks.filter_map(|task| of_task(task.ok()?)).collect();
    let pids = lists.iter().flat_map(|list| list.split_whitespace());
    pids.map(|pid| pid.parse().unwrap()).collect()
}

#[cfg(target_os = "linux")]
fn is_orphan(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
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
    std::fs::write(directory.path().join("noexec.py"), "print(1)\n").unwrap();
    for (command, said) in [
        ("./no-such-program", "cannot start `./no-such-program`"),
        ("./bin/x.py", "hint: there is no `./bin` in "),
        ("./noexec.py", "`chmod +x ./noexec.py`"),
        ("noexec.py", "the file that is here is `./noexec.py`"),
        ("cat | x", "`|` in `--exec` is for a shell, and no shell runs"),
        ("cat | x", "--exec \"sh -c 'cat | x'\""),
        ("'an open quote", "has an open quote"),
        ("", "`--exec` is empty"),
    ] {
        for once in [&[][..], &["--once"]] {
            let work = [&["work", "orders", "--exec", command], once].concat();
            let output = run(directory.path(), &work);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
            assert!(stderr.contains(said), "{command}: {stderr}");
        }
    }
}

/// Lines of a log between which plain text stood, which no program could read.
#[test]
fn with_a_json_log_everything_on_standard_error_is_json() {
    let directory = tempfile::tempdir().unwrap();
    let objects = |stderr: &str| -> Vec<serde_json::Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        stderr.lines().map(read).collect()
    };
    let refused = ["work", "orders", "--exec", "./none", "--log-format", "json"];
    let output = run(directory.path(), &refused);
    assert_eq!(output.status.code(), Some(2));
    let said = objects(text(&output.stderr));
    let message = said.last().unwrap()["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("cannot start `./none`"), "{message}");

    // Nobody listens there: the address is taken and given back.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let work = [
        "work",
        "orders",
        "--exec",
        "cat",
        "--log-format",
        "json",
        "--url",
        &url,
    ];
    let mut worker = jitney(directory.path(), &work);
    worker.env("PATH", "/usr/bin:/bin").stderr(Stdio::piped());
    let mut worker = worker.spawn().unwrap();
    let mut log = BufReader::new(worker.stderr.take().unwrap());
    let mut all = String::new();
    while !all.contains("poll failed, trying on") {
        assert!(log.read_line(&mut all).unwrap() > 0, "{all}");
    }
    signal(&worker, Signal::TERM);
    log.read_to_string(&mut all).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0), "{all}");
    let said = objects(&all);
    let failed = said
        .iter()
        .find(|event| event["message"] == "poll failed, trying on");
    let error = failed.unwrap()["error"].as_str().unwrap();
    assert!(error.contains(&url) && error.contains("refused"), "{error}");
    assert!(
        said.iter()
            .any(|event| event["message"].as_str().unwrap().starts_with("stopping: "))
    );
}

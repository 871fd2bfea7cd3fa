//! The command line: what it prints where, and what it ends with.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::canned::CannedServer;

/// A job as a server shows it, in this status and state.
fn job(status: &str, state: &str, rest: &str) -> String {
    format!(
        r#"{{"id":"0199b7a0-0000-7000-8000-000000000001","processor":"orders","group":"default","priority":"NORMAL","status":"{status}","state":"{state}","reason":null,"attempts":0,"crashes":0,"started":true,"parent":null,"children":0,"submitted_at":"2026-01-05T10:00:00.000Z","started_at":null,"finished_at":null,"key":null,"labels":{{}}{rest}}}"#
    )
}

/// Runs the binary, with nothing of this process's environment but what it takes to run.
fn jitney(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    jitney(arguments).output().unwrap()
}

fn run_in(directory: &Path, arguments: &[&str]) -> Output {
    jitney(arguments).current_dir(directory).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// What a person reads is as it was reviewed.
macro_rules! assert_shows {
    ($text:expr) => {{
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!($text));
    }};
}

#[test]
fn wrong_usage_exits_2_and_says_what_was_near() {
    let output = run(&["submt"]);
    assert_eq!(code(&output), 2);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("'submit'"), "{}", stderr(&output));

    let output = run(&["submit", "orders", "--prioritty", "SLOW"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("'--priority'"), "{}", stderr(&output));

    // As the API has it: it refuses it with the right spelling.
    let output = run(&["submit", "orders", "1", "--priority", "normal"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("'normal' for '--priority <PRIORITY>': did you mean `NORMAL`?"),
        "{}",
        stderr(&output)
    );

    for arguments in [
        &["submit"][..],
        &["submit", "orders", "1", "--priority", "FAST"],
        &["submit", "b d", "1"],
        &["submit", "b d", "--ndjson", "no-such-file"],
        &["submit", "orders", "1", "--wait", "10"],
        &["submit", "orders", "1", "--label", "novalue"],
        &["submit", "orders", "1", "--label", "a=b", "--label", "a=c"],
        &["submit", "orders", "1", "--name", "today"],
        &["submit", "orders", "--name", "today"],
        &[
            "submit",
            "orders",
            "1",
            "--id",
            "0199b7a0-0000-7000-8000-000000000001",
            "--idempotency-key",
            "k",
        ],
        &["submit", "orders", "{oops"],
        &["submit", "orders", "{oops", "--content-type", "application/json"],
        &[
            "submit",
            "orders",
            "{oops",
            "--content-type",
            "A/B+JSON; charset=utf-8",
        ],
        &["submit", "orders", "@no-such-file"],
        &["job", "get", "not-an-id"],
        &["lane", "ls", "--url", "ftp://127.0.0.1"],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert_ne!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn commands_of_later_versions_are_named_as_such() {
    for command in [
        &["job", "ls"][..],
        &["job", "cancel", "x"],
        &["dead", "ls"],
        &["new"],
    ] {
        let output = run(command);
        assert_eq!(code(&output), 2);
        assert!(
            stderr(&output).ends_with("is not in jitney 0.1\n"),
            "{}",
            stderr(&output)
        );
    }
    let output = run(&["lane", "cancel"]);
    assert!(stderr(&output).contains("unrecognized"), "{}", stderr(&output));
}

#[test]
fn help_is_a_command_too() {
    let output = run(&["help", "job", "get"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), stdout(&run(&["job", "get", "--help"])));
}

#[test]
fn wrong_usage_is_an_object_for_programs() {
    for (arguments, message, hint) in [
        (
            &["submt"][..],
            "unrecognized subcommand 'submt'",
            Some("a similar subcommand exists: 'submit'"),
        ),
        (
            &["submit", "b d", "--ndjson", "no-such-file"],
            "invalid value 'b d' for '<PROCESSOR>': 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit",
            None,
        ),
        (&[], "a command is missing", Some("--help lists them")),
    ] {
        let output = run(&[arguments, &["--json"]].concat());
        assert_eq!((code(&output), stdout(&output)), (2, ""));
        let error: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
        let expected =
            serde_json::json!({"error": {"message": message, "hint": hint, "exit": 2, "problem": null}});
        assert_eq!(error, expected);
    }
    let output = run(&["--json", "--help"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
}

#[test]
fn a_server_that_is_not_there_exits_3() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = run(&["lane", "ls", "--url", &url]);
    assert_eq!(code(&output), 3);
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).starts_with(&format!("error: cannot reach `{url}`")),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("\n  hint: is it running?"),
        "{}",
        stderr(&output)
    );

    let output = jitney(&["--json", "lane", "ls"])
        .env("JITNEY_URL", &url)
        .output()
        .unwrap();
    assert_eq!(code(&output), 3);
    let error: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
    assert_eq!(error["error"]["exit"], 3);

    for command in [&["lane", "ls"][..], &["health"]] {
        let output = jitney(command).env("JITNEY_URL", "").output().unwrap();
        assert_eq!(code(&output), 2);
        assert!(
            stderr(&output).starts_with("error: `JITNEY_URL` is empty"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_server_of_another_kind_exits_3() {
    let server = CannedServer::new("200 OK", "<html>");
    let output = run(&["lane", "ls", "--url", &server.url()]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}

#[test]
fn a_wait_that_ends_first_exits_4_and_says_how_to_look_again() {
    let server = CannedServer::new("202 Accepted", &job("submitted", "queued", ""));
    let output = run(&["submit", "orders", "1", "--wait", "10ms", "--url", &server.url()]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("jitney job get 0199b7a0-0000-7000-8000-000000000001 --wait"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_refusal_exits_5_at_a_limit_or_if_a_later_try_may_fare_better_and_2_if_not() {
    let problem = |status: u16, code: &str, retry: &str| {
        format!(
            r#"{{"type":"about:blank","title":"T","status":{status},"code":"{code}","detail":"the detail","retry":"{retry}"}}"#
        )
    };
    let server = CannedServer::new("413 Payload Too Large", &problem(413, "job_too_large", "no"));
    let output = run(&["submit", "orders", "1", "--url", &server.url()]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    assert_eq!(stderr(&output), "error: the detail (job_too_large)\n");

    let output = run(&["--json", "submit", "orders", "1", "--url", &server.url()]);
    let error: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
    assert_eq!(error["error"]["problem"]["code"], "job_too_large");

    let server = CannedServer::new("404 Not Found", &problem(404, "unknown_job", "no"));
    let id = "0199b7a0-0000-7000-8000-000000000001";
    let output = run(&["job", "get", id, "--url", &server.url()]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));

    let full = problem(503, "outcome_unknown", "only_with_idempotency_key");
    let server = CannedServer::new("503 Service Unavailable", &full);
    let output = run(&["submit", "orders", "1", "--url", &server.url()]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
}

#[test]
fn a_failed_job_exits_1_and_a_good_one_prints_its_result_alone() {
    let failed = job(
        "processed_error",
        "done",
        r#","error":{"code":"card_declined","message":"no funds","data":null}"#,
    );
    let server = CannedServer::new("200 OK", &failed);
    let output = run(&["submit", "orders", "1", "--wait", "10s", "--url", &server.url()]);
    assert_eq!(code(&output), 1);
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("no funds (card_declined)"),
        "{}",
        stderr(&output)
    );

    let done = job("processed_ok", "done", r#","result":{"b":1.0,  "a":2}"#);
    let server = CannedServer::new("200 OK", &done);
    let output = run(&["submit", "orders", "1", "--wait", "10s", "--url", &server.url()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), r#"{"b":1.0,  "a":2}"#);

    let output = run(&[
        "--json",
        "job",
        "get",
        "0199b7a0-0000-7000-8000-000000000001",
        "--url",
        &server.url(),
    ]);
    assert_eq!(code(&output), 0);
    assert_eq!(stdout(&output), format!("{done}\n"));

    let output = run(&[
        "job",
        "get",
        "0199b7a0-0000-7000-8000-000000000001",
        "--url",
        &server.url(),
    ]);
    assert_shows!(stdout(&output));

    // One that went well was said to have failures: its attempt.
    let tried = done.replace(r#""attempts":0,"crashes":0"#, r#""attempts":2,"crashes":1"#);
    let server = CannedServer::new("200 OK", &tried);
    let id = "0199b7a0-0000-7000-8000-000000000001";
    let output = run(&["job", "get", id, "--url", &server.url()]);
    let shown = stdout(&output);
    assert!(
        shown.contains("\ntries      2\ncrashes    1\n") && !shown.contains("failures"),
        "{shown}"
    );
}

#[test]
fn a_submit_sends_its_options_and_prints_the_id() {
    let submitted = job("submitted", "queued", r#","workers":0,"did_you_mean":"orders2""#);
    let server = CannedServer::new("202 Accepted", &submitted);
    let options = "--group order --priority SLOW --key tenant --label a=b=c --idempotency-key once --url";
    let mut arguments = vec!["submit", "orders", r#"{"price":1.50}"#];
    arguments.extend(options.split(' '));
    let url = server.url();
    arguments.push(&url);

    let output = run(&arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "0199b7a0-0000-7000-8000-000000000001\n");
    let note = stderr(&output);
    assert!(note.contains("no worker has asked for `orders` yet"), "{note}");
    assert!(note.contains("did you mean `orders2`?"), "{note}");
    let request = &server.requests()[0];
    let body = r#"{"processor":"orders","group":"order","priority":"SLOW","data":{"price":1.50},"key":"tenant","labels":{"a":"b=c"}}"#;
    assert!(request.ends_with(body), "{request}");
    let head = request.to_ascii_lowercase();
    assert!(head.contains("\r\nidempotency-key: once\r\n"), "{request}");
}

#[test]
fn data_comes_from_the_arguments_a_file_or_a_pipe() {
    let server = CannedServer::new("202 Accepted", &job("submitted", "queued", ""));
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("order.json"), r#"{"from":"file"}"#).unwrap();
    let sent = |data: &[&str], piped: &str| {
        let url = server.url();
        let arguments = [&["submit", "orders", "--url", &url], data].concat();
        let mut child = jitney(&arguments)
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(piped.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let request = server.requests().pop().unwrap();
        request.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    assert_eq!(
        sent(&["@order.json"], ""),
        r#"{"processor":"orders","data":{"from":"file"}}"#
    );
    assert_eq!(
        sent(&["-"], r#"{"from":"pipe"}"#),
        r#"{"processor":"orders","data":{"from":"pipe"}}"#
    );
    assert_eq!(sent(&[], ""), r#"{"processor":"orders","data":null}"#);
    assert_eq!(
        sent(&["hello", "--content-type", "text/plain"], ""),
        r#"{"processor":"orders","data_base64":"aGVsbG8=","content_type":"text/plain"}"#
    );
}

#[test]
fn lanes_are_a_table_for_people_and_the_answer_for_programs() {
    let lanes = r#"{"lanes":[{"processor":"orders","priority":"NORMAL","queued":3,"scheduled":0,"running":16,"retrying":0,"dead":0,"oldest_age_ms":1500,"workers":2,"arrived":1019,"dispatched":1016,"ended":1000,"processed_ok":990,"processed_error":7,"batch_failed":3},{"processor":"mail","priority":"SLOW","queued":0,"scheduled":0,"running":0,"retrying":0,"dead":0,"oldest_age_ms":null,"workers":0,"arrived":0,"dispatched":0,"ended":0,"processed_ok":0,"processed_error":0,"batch_failed":0}]}"#;
    let server = CannedServer::new("200 OK", lanes);
    let output = run(&["lane", "ls", "--url", &server.url()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_shows!(stdout(&output));
    let output = run(&["lane", "ls", "--json", "--url", &server.url()]);
    assert_eq!(stdout(&output), format!("{lanes}\n"));
}

#[test]
fn config_check_names_the_place_of_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_in(directory.path(), &["config", "check"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));

    fs::write(directory.path().join("jitney.toml"), "[server]\njob_max = 3\n").unwrap();
    let output = run_in(directory.path(), &["config", "check"]);
    assert_eq!(code(&output), 2);
    assert_eq!(stdout(&output), "");
    assert_shows!(stderr(&output));
    let output = run_in(directory.path(), &["config", "check", "--json"]);
    let error: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
    assert_eq!(error["error"]["hint"], "did you mean `jobs_max`?");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("unknown key `job_max`") && !message.contains("hint"),
        "{message}"
    );

    fs::write(
        directory.path().join("good.toml"),
        "[server]\nlisten = '127.0.0.1:9'\n[processor.orders]\nmax_jobs = 16\n[[route]]\npath = '/orders'\nprocessor = 'orders'\n",
    )
    .unwrap();
    let output = run_in(directory.path(), &["config", "check", "--config", "good.toml"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "good.toml: good (listens on 127.0.0.1:9, 1 processors, 1 routes)\n"
    );
}

#[test]
fn every_shell_gets_completions_with_the_commands_in_them() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        for word in ["quickstart", "idempotency-key", "verify"] {
            assert!(stdout(&output).contains(word), "{shell} does not know `{word}`");
        }
    }
    // The one shell that is everywhere takes them as they are.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jitney.bash");
    fs::write(&path, &run(&["completions", "bash"]).stdout).unwrap();
    for (words, at, word, before, expected) in [
        ("qu", 1, "qu", "jitney", "quickstart\n"),
        ("submit p --priority S", 4, "S", "--priority", "SLOW\n"),
    ] {
        let script = format!(
            "source '{}' && COMP_WORDS=(jitney {words}) COMP_CWORD={at} && _jitney jitney {word} {before} && echo \"${{COMPREPLY[@]}}\"",
            path.display()
        );
        let completed = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(stdout(&completed), expected, "{}", stderr(&completed));
    }
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_in(directory.path(), &["man", "--out", "man/man1"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for page in [
        "jitney",
        "jitney-serve",
        "jitney-job-get",
        "jitney-log-verify",
        "jitney-man",
    ] {
        let text = fs::read_to_string(directory.path().join(format!("man/man1/{page}.1"))).unwrap();
        assert!(
            text.contains(".SH SYNOPSIS") && text.contains("json"),
            "{page}: {text}"
        );
    }
    for page in ["jitney-bench-yardstick", "jitney-help", "jitney-job-help"] {
        assert!(
            !directory.path().join(format!("man/man1/{page}.1")).exists(),
            "{page}"
        );
    }
    let main = run(&["man"]);
    assert_eq!(
        main.stdout,
        fs::read(directory.path().join("man/man1/jitney.1")).unwrap()
    );
    let output = run_in(directory.path(), &["man", "--out", "man/man1/jitney.1"]);
    assert_eq!(code(&output), 74, "{}", stderr(&output));
}

#[test]
fn health_says_whether_a_server_is_alive_or_ready() {
    let alive = CannedServer::new("200 OK", "ok\n");
    let output = run(&["health", "--url", &alive.url()]);
    assert_eq!(
        (code(&output), stdout(&output)),
        (0, "alive\n"),
        "{}",
        stderr(&output)
    );
    assert!(
        alive.requests()[0].starts_with("GET /healthz "),
        "{:?}",
        alive.requests()
    );
    let url = alive.url();
    let (_, port) = url.rsplit_once(':').unwrap();
    let output = jitney(&["health", "--ready"])
        .env("JITNEY_LISTEN", format!("0.0.0.0:{port}"))
        .output()
        .unwrap();
    assert_eq!(
        (code(&output), stdout(&output)),
        (0, "ready\n"),
        "{}",
        stderr(&output)
    );
    assert!(
        alive.requests()[1].starts_with("GET /readyz "),
        "{:?}",
        alive.requests()
    );

    let draining = r#"{"code":"draining","detail":"the server is stopping","retry":"after"}"#;
    let draining = CannedServer::new("503 Service Unavailable", draining);
    let output = run(&["health", "--ready", "--url", &draining.url()]);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    // One try: whoever asks, asks again.
    assert_eq!(draining.requests().len(), 1);

    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let output = run(&["health", "--url", &gone]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}

/// They asked port 8080, and looked at ./jitney-data.
#[test]
fn clients_find_the_server_and_its_log_by_the_file_that_it_reads_here() {
    let lanes = CannedServer::new("200 OK", r#"{"lanes":[]}"#);
    let other = CannedServer::new("200 OK", r#"{"lanes":[]}"#);
    let directory = tempfile::tempdir().unwrap();
    let url = lanes.url();
    let address = url.strip_prefix("http://").unwrap();
    // What else is wrong with it is no matter of theirs.
    let file = format!("[server]\nlisten = '{address}'\ndata = 'jobs'\nnonsense = 1\n");
    fs::write(directory.path().join("jitney.toml"), file).unwrap();
    let run = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = jitney(arguments);
        command.current_dir(directory.path()).envs(variable);
        command.output().unwrap()
    };
    let output = run(&["lane", "ls", "--json", "--verbose"], None);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output), format!("server: {url} (jitney.toml:2)\n"));
    let output = run(&["lane", "ls", "--json"], None);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    let output = run(&["health"], None);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!((lanes.requests().len(), other.requests().len()), (3, 0));

    let other_url = other.url();
    let flag = run(&["lane", "ls", "--json", "--verbose", "--url", &other_url], None);
    let variable = run(
        &["lane", "ls", "--json", "--verbose"],
        Some(("JITNEY_URL", &other_url)),
    );
    for output in [flag, variable] {
        let expected = format!("server: {other_url} (--url or JITNEY_URL)\n");
        assert_eq!((code(&output), stderr(&output)), (0, &*expected));
    }
    let listen = other_url.strip_prefix("http://").unwrap();
    let output = run(&["lane", "ls", "--json"], Some(("JITNEY_LISTEN", listen)));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!((lanes.requests().len(), other.requests().len()), (3, 3));

    for (variable, data, who) in [
        (None, "jobs", "jitney.toml:3"),
        (
            Some(("JITNEY_DATA", "elsewhere")),
            "elsewhere",
            "--data or JITNEY_DATA",
        ),
    ] {
        let output = run(&["log", "verify", "--verbose"], variable);
        let error = stderr(&output);
        assert!(error.starts_with(&format!("log: {data} ({who})\n")), "{error}");
        assert!(error.contains(&format!("`{data}`")), "{error}");
    }
    fs::write(directory.path().join("jitney.toml"), "[server]\nlisten = 8080\n").unwrap();
    let output = run(&["lane", "ls"], None);
    assert_eq!(code(&output), 2, "the default would be another server");
    assert!(
        stderr(&output).contains("--> jitney.toml:2:10"),
        "{}",
        stderr(&output)
    );
}

/// Table, key, value and origin, in the configuration of the next test.
const SHOWN: [(&str, &str, &str); 20] = [
    ("[server]", "listen", "127.0.0.1:9 --listen"),
    ("[server]", "jobs_max", "77 jitney.toml:2"),
    ("[server]", "grace", "4s JITNEY_GRACE"),
    ("[server]", "waiters_max", "6 JITNEY_SERVER_WAITERS_MAX"),
    ("[server]", "max_job_bytes", "1MiB default"),
    ("[server]", "log_level", "info default"),
    ("[processor.orders] NORMAL", "max_jobs", "16 jitney.toml:6"),
    ("[processor.orders] SLOW", "max_jobs", "9 jitney.toml:8"),
    ("[processor.orders] SLOW", "max_delay", "250ms default"),
    (
        "[processor.orders.group.a.b] NORMAL",
        "lease",
        "5s jitney.toml:10",
    ),
    ("[processor.orders.group.a.b] SLOW", "max_jobs", "9 jitney.toml:8"),
    ("[processor.\"*\"] NORMAL", "max_jobs", "64 default"),
    (
        "[processor.\"*\"] NORMAL",
        "result_ttl",
        "as [server] has it, 1h default",
    ),
    ("[processor.orders] NORMAL", "max_attempts", "7 jitney.toml:20"),
    ("[processor.orders] SLOW", "backoff", "2s jitney.toml:22"),
    ("[processor.\"*\"] NORMAL", "max_attempts", "7 jitney.toml:20"),
    ("[processor.\"*\"] SLOW", "backoff", "2s jitney.toml:22"),
    ("[[route]] /one", "priority", "NORMAL default"),
    ("[[route]] /two", "priority", "SLOW jitney.toml:17"),
    ("[[route]] /two", "status.error", "409 jitney.toml:18"),
];

#[test]
fn config_show_has_every_value_with_its_origin_and_the_narrower_wins() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("jitney.toml"),
        "[server]\njobs_max = 77\ngrace = '3s'\nwaiters_max = 5\n[processor.orders]\nmax_jobs = 16\n[processor.orders.priority.SLOW]\nmax_jobs = 9\n[processor.orders.group.'a.b']\nlease = '5s'\n[[route]]\npath = '/one'\nprocessor = 'orders'\n[[route]]\npath = '/two'\nprocessor = 'orders'\npriority = 'SLOW'\nstatus = { error = 409 }\n[processor.'*']\nmax_attempts = 7\n[processor.'*'.priority.SLOW]\nbackoff = '2s'\n",
    )
    .unwrap();
    let output = jitney(&["--json", "config", "show", "--listen", "127.0.0.1:9"])
        .current_dir(directory.path())
        .env("JITNEY_GRACE", "4s")
        .env("JITNEY_SERVER_WAITERS_MAX", "6")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let entries: Vec<serde_json::Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |table: &str, key: &str| {
        let mut found = entries
            .iter()
            .filter(|entry| entry["table"] == table && entry["key"] == key);
        let entry = found.next().unwrap_or_else(|| panic!("{table} {key}"));
        assert!(found.next().is_none(), "{table} {key} is there twice");
        let line = entry["line"]
            .as_u64()
            .map_or(String::new(), |line| format!(":{line}"));
        format!(
            "{} {}{line}",
            entry["value"].as_str().unwrap(),
            entry["origin"].as_str().unwrap()
        )
    };
    for (table, key, expected) in SHOWN {
        assert_eq!(of(table, key), expected, "{table} {key}");
    }
    for line in include_str!("../../src/config/default.toml")
        .split("[processor.orders]")
        .next()
        .unwrap()
        .lines()
    {
        if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
            of("[server]", key);
        }
    }
    let text = run_in(directory.path(), &["config", "show"]);
    assert!(stdout(&text).contains("jobs_max = 77"), "{}", stdout(&text));
    fs::write(directory.path().join("jitney.toml"), "[server]\njob_max = 3\n").unwrap();
    assert_eq!(code(&run_in(directory.path(), &["config", "show"])), 2);
}

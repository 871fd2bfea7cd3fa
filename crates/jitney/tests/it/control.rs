//! Control of a running server: paused lanes and policies are durable, in force at once, and found again after a
//! restart; the configuration file wins.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jitney::config;
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{ServerProcess, url_in};

const PATIENCE: Duration = Duration::from_secs(25);

/// A server over a log in a directory, and a client for it.
struct Server {
    running: Running,
    client: reqwest::Client,
}

impl Server {
    async fn start(directory: &Path, config: &str) -> Self {
        let config = config::parse(config, Path::new("jitney.toml")).unwrap();
        let running = start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bus: BusOptions::Log {
                data: directory.to_owned(),
                segment_bytes: 1 << 20,
                cache_bytes: 1 << 20,
            },
            limits: jitney::limits::Limits {
                body_bytes_max: 256 << 10,
                processors_max: 3,
                ..jitney::limits::Limits::default()
            },
            ..config.options
        })
        .await
        .unwrap();
        Self {
            running,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// An answer's status, and its body.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.running.address());
        let mut request = self.client.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = tokio::time::timeout(PATIENCE, request.send())
            .await
            .unwrap()
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        self.ask("POST", path, &Value::Null).await
    }

    async fn submit(&self, query: &str) -> (u16, Value) {
        self.ask("POST", &format!("/v1/processors/orders/jobs{query}"), &json!(1))
            .await
    }

    /// The jobs of one poll that does not wait.
    async fn poll(&self) -> Vec<Value> {
        let (status, body) = self
            .ask("POST", "/v1/processors/orders/lease", &json!({"worker": "w"}))
            .await;
        match status {
            204 => Vec::new(),
            _ => body["batches"][0]["jobs"].as_array().unwrap().clone(),
        }
    }

    async fn lane(&self, priority: &str) -> Value {
        let (_, body) = self.ask("GET", "/v1/lanes", &Value::Null).await;
        let lanes = body["lanes"].as_array().unwrap();
        let lane = |lane: &&Value| lane["processor"] == "orders" && lane["priority"] == priority;
        lanes.iter().find(lane).unwrap().clone()
    }

    async fn policy(&self, query: &str) -> Value {
        let path = format!("/v1/processors/orders/policy{query}");
        let (status, body) = self.ask("GET", &path, &Value::Null).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn put(&self, query: &str, body: &Value) -> (u16, Value) {
        self.ask("PUT", &format!("/v1/processors/orders/policy{query}"), body)
            .await
    }

    async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.running.stop(Duration::ZERO))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_paused_lane_takes_jobs_hands_none_out_and_stays_paused_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), "").await;
    let paused = json!({"processor": "orders", "priority": "NORMAL", "paused": true});
    for _ in 0..2 {
        let answer = server.post("/v1/lanes/orders/NORMAL/pause").await;
        assert_eq!(answer, (200, paused.clone()), "pausing twice is pausing once");
    }
    let (status, job) = server.submit("?wait=50ms").await;
    assert_eq!((status, &job["state"]), (202, &json!("queued")));
    assert_eq!(server.poll().await, Vec::<Value>::new());
    let lane = server.lane("NORMAL").await;
    assert_eq!((&lane["paused"], &lane["queued"]), (&json!(true), &json!(1)));
    assert_eq!(server.lane("SLOW").await["paused"], false);
    server.stop().await;

    let server = Server::start(directory.path(), "").await;
    assert_eq!(server.lane("NORMAL").await["paused"], true);
    assert_eq!(server.poll().await, Vec::<Value>::new());
    let (status, lane) = server.post("/v1/lanes/orders/NORMAL/resume").await;
    assert_eq!((status, &lane["paused"]), (200, &json!(false)));
    assert_eq!(server.poll().await[0]["id"], job["id"]);
    server.stop().await;

    let server = Server::start(directory.path(), "").await;
    assert_eq!(server.lane("NORMAL").await["paused"], false);
    server.stop().await;
}

#[tokio::test]
async fn a_lane_that_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), "").await;
    for (path, pointer) in [
        ("/v1/lanes/orders/normal/pause", "priority"),
        ("/v1/lanes/-/NORMAL/resume", "processor"),
    ] {
        let (status, problem) = server.post(path).await;
        assert_eq!(
            (status, &problem["code"], &problem["pointer"]),
            (400, &json!("invalid_value"), &json!(pointer)),
            "{problem}"
        );
    }
    let (status, problem) = server
        .ask("POST", "/v1/lanes/orders/NORMAL/pause", &json!({"for": "1h"}))
        .await;
    assert_eq!((status, &problem["code"]), (400, &json!("unknown_field")));
    // Resuming what nobody named makes no processor; pausing does, as a job would.
    for processor in ["a", "b", "c"] {
        let (status, _) = server
            .post(&format!("/v1/lanes/x{processor}/NORMAL/resume"))
            .await;
        assert_eq!(status, 200);
        let (status, _) = server.post(&format!("/v1/lanes/{processor}/NORMAL/pause")).await;
        assert_eq!(status, 200);
    }
    let (status, problem) = server.post("/v1/lanes/d/NORMAL/pause").await;
    assert_eq!((status, &problem["code"]), (429, &json!("too_many_processors")));
    server.stop().await;
}

#[tokio::test]
async fn a_policy_set_over_the_api_is_in_force_at_once_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), "").await;
    assert_eq!(server.policy("").await["policy"]["max_jobs"], 64);
    let (status, set) = server.put("", &json!({"max_jobs": 2, "lease": "5s"})).await;
    assert_eq!(status, 200, "{set}");
    assert_eq!(
        set["origin"]["max_jobs"],
        json!({"from": "api", "table": "[processor.orders]"})
    );
    assert_eq!(set["origin"]["heartbeat"], json!({"from": "default"}));
    assert_eq!(
        set["set"],
        json!({"[processor.orders]": {"max_jobs": 2, "lease": "5s"}})
    );
    assert_eq!(set["warnings"], json!([]));
    for _ in 0..3 {
        server.submit("").await;
    }
    assert_eq!(server.poll().await.len(), 2);
    let (status, narrower) = server.put("?group=order", &json!({"max_jobs": 3})).await;
    assert_eq!((status, &narrower["group"]), (200, &json!("order")));
    assert_eq!(narrower["policy"]["lease"], "5s");
    server.put("?priority=SLOW", &json!({"max_delay": "1s"})).await;
    server.stop().await;

    let server = Server::start(directory.path(), "").await;
    assert_eq!(server.policy("").await["policy"]["max_jobs"], 2);
    assert_eq!(server.policy("?group=order").await["policy"]["max_jobs"], 3);
    let both = server.policy("?group=order&priority=SLOW").await;
    assert_eq!(both["policy"]["max_delay"], "1s");
    assert_eq!(
        both["origin"]["max_delay"]["table"],
        "[processor.orders.priority.SLOW]"
    );
    // `null` takes a value away, DELETE all of a table.
    let (_, set) = server.put("", &json!({"lease": null, "backoff": "1s"})).await;
    assert_eq!(
        (&set["policy"]["lease"], &set["policy"]["max_jobs"]),
        (&json!("30s"), &json!(2))
    );
    let path = "/v1/processors/orders/policy";
    let (status, cleared) = server.ask("DELETE", path, &Value::Null).await;
    assert_eq!((status, &cleared["policy"]["max_jobs"]), (200, &json!(64)));
    let left = cleared["set"].as_object().unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    server.stop().await;

    let server = Server::start(directory.path(), "").await;
    assert_eq!(server.policy("").await["policy"]["max_jobs"], 64);
    assert_eq!(server.policy("?group=order").await["policy"]["max_jobs"], 3);
    server.stop().await;
}

#[tokio::test]
async fn the_configuration_file_wins_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[processor.orders]\nmax_jobs = 4\n";
    let server = Server::start(directory.path(), file).await;
    let (status, set) = server.put("", &json!({"max_jobs": 3, "backoff": "1s"})).await;
    assert_eq!((status, &set["policy"]["max_jobs"]), (200, &json!(4)));
    assert_eq!(set["policy"]["backoff"], "1s");
    assert_eq!(
        set["warnings"],
        json!([
            "`max_jobs` of [processor.orders] was set to 3 over the API; the configuration file says 4 (jitney.toml:2), and wins"
        ])
    );
    // What contradicts the file is refused, with its words.
    let (status, problem) = server.put("", &json!({"min_jobs": 5})).await;
    assert_eq!(
        (status, &problem["code"], &problem["pointer"]),
        (400, &json!("invalid_value"), &json!("/min_jobs")),
        "{problem}"
    );
    server.stop().await;

    // Without the file's word, what was set is in force; against a file that contradicts it, nothing of it is.
    let server = Server::start(directory.path(), "").await;
    assert_eq!(server.policy("").await["policy"]["max_jobs"], 3);
    server.put("", &json!({"min_jobs": 3, "max_jobs": null})).await;
    server.stop().await;
    let server = Server::start(directory.path(), "[processor.orders]\nmax_jobs = 2\n").await;
    let policy = server.policy("").await;
    assert_eq!(
        (&policy["policy"]["max_jobs"], &policy["policy"]["backoff"]),
        (&json!(2), &json!("200ms"))
    );
    let warning = policy["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("nothing that was set over the API for `orders` is in force"),
        "{warning}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_is_refused_with_the_words_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), "").await;
    for (query, body, code, pointer, detail) in [
        (
            "",
            json!({"max_job": 3}),
            "unknown_field",
            "/max_job",
            "there is no field `max_job`; did you mean `max_jobs`?",
        ),
        (
            "",
            json!({"rate": "100/s"}),
            "unknown_field",
            "/rate",
            "field `rate` is not in jitney 0.1",
        ),
        (
            "",
            json!({"max_jobs": "3"}),
            "invalid_value",
            "/max_jobs",
            "`max_jobs`: must be a whole number, and this is of type string; write for example 64",
        ),
        (
            "",
            json!({"max_delay": 2.5}),
            "invalid_value",
            "/max_delay",
            "`max_delay`: must be a duration, and this is of type float; write for example \"250ms\", \"30s\", \"5m\"",
        ),
        (
            "",
            json!({"lease": "0s"}),
            "invalid_value",
            "/lease",
            "`lease`: must be above 0",
        ),
        (
            "?group=order&priority=SLOW",
            json!({}),
            "invalid_value",
            "priority",
            "a policy is set for a group or for a priority, not for both",
        ),
        (
            "?priority=REALTIME",
            json!({"max_jobs": 3}),
            "invalid_value",
            "/max_jobs",
            "processor `orders`: `max_jobs` has no use for REALTIME, whose jobs travel alone and at once; \
             set it for NORMAL or SLOW, or for the processor",
        ),
    ] {
        let (status, problem) = server.put(query, &body).await;
        assert_eq!(
            (status, problem["code"].as_str(), problem["pointer"].as_str()),
            (400, Some(code), Some(pointer)),
            "{problem}"
        );
        assert_eq!(problem["detail"], detail);
    }
    assert_eq!(server.policy("").await["set"], json!({}));
    server.stop().await;
}

fn jitney(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command.args(arguments).env_clear().current_dir(directory);
    command
}

/// A worker takes a job of this processor.
fn lease_one(url: &str, processor: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let post = async |what: &str, body: Value| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{url}/v1/processors/{processor}/{what}");
        let answer = client.post(url).json(&body).send().await.unwrap();
        answer.status().as_u16()
    };
    runtime.block_on(async {
        assert_eq!(post("jobs", json!(1)).await, 202);
        assert_eq!(post("lease", json!({"worker": "w"})).await, 200);
    });
}

/// What a command prints, which must go well.
fn said(directory: &Path, url: &str, arguments: &[&str]) -> String {
    let output = jitney(directory, &[arguments, &["--url", url]].concat())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap() + &error
}

/// A misspelt lane was said to be paused, and that was all.
#[test]
fn a_name_that_nobody_works_on_is_told_with_the_one_that_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&mut jitney(
        directory.path(),
        &["serve", "--listen", "127.0.0.1:0", "--bus", "memory"],
    ));
    let url = url_in(&server.line_with("listening on"));
    let run = |arguments: &[&str]| said(directory.path(), &url, arguments);
    lease_one(&url, "payments");
    assert_eq!(
        run(&["lane", "pause", "paymens", "SLOW"]),
        "paymens SLOW is paused\nnote: no worker has asked for `paymens` yet; it stays paused for those who come; did \
         you mean `payments`? `jitney lane resume paymens` takes it back\n"
    );
    assert_eq!(
        run(&["lane", "resume", "paymens", "SLOW"]),
        "paymens SLOW goes on\n"
    );
    assert_eq!(
        run(&["lane", "resume", "paymentz", "SLOW"]),
        "paymentz SLOW goes on\nnote: `paymentz` has no lanes, so none was paused; did you mean `payments`?\n"
    );
    let waited = ["submit", "paymentz", "1", "--wait", "300ms", "--url", &url];
    let waited = jitney(directory.path(), &waited).output().unwrap();
    assert_eq!(waited.status.code(), Some(4));
    let error = String::from_utf8(waited.stderr).unwrap();
    assert!(
        error.starts_with(
            "note: no worker has asked for `paymentz` yet; the job waits for one; did you mean `payments`?\n"
        ),
        "{error}"
    );
}

#[test]
fn lanes_and_policies_are_controlled_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&mut jitney(
        directory.path(),
        &["serve", "--listen", "127.0.0.1:0", "--bus", "memory"],
    ));
    let url = url_in(&server.line_with("listening on"));
    let run = |arguments: &[&str]| said(directory.path(), &url, arguments);
    assert_eq!(
        run(&["lane", "pause", "orders"]),
        "orders REALTIME is paused\norders NORMAL is paused\norders SLOW is paused\nnote: no worker has asked for \
         `orders` yet; it stays paused for those who come\n"
    );
    assert_eq!(
        run(&["lane", "resume", "orders", "SLOW"]),
        "orders SLOW goes on\n"
    );
    let lanes = run(&["lane", "ls"]);
    let paused: Vec<_> = lanes.lines().filter(|line| line.ends_with("paused")).collect();
    assert_eq!(paused.len(), 2, "{lanes}");
    let policy = run(&[
        "policy",
        "set",
        "orders",
        "max_jobs=20",
        "lease=5s",
        "--group",
        "order",
    ]);
    let row = |policy: &str, key: &str| -> String {
        let line = policy.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        row(&policy, "max_jobs"),
        "max_jobs 20 set, [processor.orders.group.order]"
    );
    assert_eq!(row(&policy, "backoff "), "backoff 200ms default");
    let policy = run(&["policy", "unset", "orders", "lease", "--group", "order"]);
    assert_eq!(row(&policy, "lease"), "lease 30s default");
    run(&["policy", "unset", "orders", "--group", "order"]);
    let policy = run(&["policy", "show", "orders", "--group", "order"]);
    assert_eq!(row(&policy, "max_jobs"), "max_jobs 64 default");
    let wrong = jitney(
        directory.path(),
        &["policy", "set", "orders", "max_job=2", "--url", &url],
    )
    .output()
    .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.contains("did you mean `max_jobs`?"), "{error}");
}

/// It ended with 0, kept the values, and changed nothing.
#[test]
fn what_the_file_names_cannot_be_set_and_the_place_is_named() {
    let file = "[processor.orders]\nmax_jobs = 3\nlease = '7s'\n[processor.orders.priority.SLOW]\nmax_delay = '1s'\n";
    let reloaded = Reloaded::start(file);
    let set = |arguments: &[&str]| {
        let arguments = [&["policy", "set", "orders"], arguments, &["--url", &reloaded.url]].concat();
        let output = jitney(reloaded.directory.path(), &arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let refused = "error: nothing was set: `max_jobs` is 3 in jitney.toml:2, [processor.orders], and the configuration \
                   file wins\n  hint: edit it, then send the server a SIGHUP\n";
    assert_eq!(
        set(&["max_jobs=10", "backoff=1s"]),
        (Some(1), String::new(), refused.to_owned())
    );
    let (code, _, error) = set(&["max_delay=2s", "--priority", "SLOW"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("`max_delay` is 1s in jitney.toml:5, [processor.orders.priority.SLOW]"),
        "{error}"
    );
    let show = |arguments: &[&str]| {
        let arguments = [&["policy", "show", "orders"], arguments].concat();
        said(reloaded.directory.path(), &reloaded.url, &arguments)
    };
    let shown = show(&[]);
    assert!(shown.starts_with("[processor.orders] NORMAL\n"), "{shown}");
    let row = |shown: &str, key: &str| -> Option<String> {
        let line = shown.lines().find(|line| line.starts_with(key))?;
        Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(
        row(&shown, "max_jobs").unwrap(),
        "max_jobs 3 jitney.toml:2, [processor.orders]"
    );
    assert_eq!(row(&shown, "backoff ").unwrap(), "backoff 200ms default");
    // A table that does not name the key takes it.
    let (code, shown, error) = set(&["max_jobs=10", "--priority", "SLOW"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(shown.starts_with("[processor.orders] SLOW\n"), "{shown}");
    let (code, ..) = set(&["max_jobs=10", "--group", "order"]);
    assert_eq!(code, Some(0));
    let shown = show(&["--group", "order", "--priority", "SLOW"]);
    assert!(
        shown.starts_with("[processor.orders.group.order] SLOW\n"),
        "{shown}"
    );
    reloaded.stop();
}

/// A server with a configuration file, for hangups.
struct Reloaded {
    directory: tempfile::TempDir,
    server: ServerProcess,
    url: String,
}

impl Reloaded {
    fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("jitney.toml"), config).unwrap();
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--bus", "memory"];
        let mut server = ServerProcess::start(&mut jitney(directory.path(), &arguments));
        let url = url_in(&server.line_with("listening on"));
        Self {
            directory,
            server,
            url,
        }
    }

    fn hang_up(&self, config: &str) {
        std::fs::write(self.directory.path().join("jitney.toml"), config).unwrap();
        self.server.signal(Signal::HUP);
    }

    async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        answer.text().await.unwrap()
    }

    /// Asks until the answer has this in it: nothing else tells of a reload that is done.
    async fn until(&self, path: &str, what: &str) {
        let asking = async { while !self.get(path).await.contains(what) {} };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("{path} never had {what}"));
    }

    fn stop(self) -> String {
        self.server.signal(Signal::TERM);
        let (status, log) = self.server.wait();
        assert!(status.success(), "{log}");
        log
    }
}

#[tokio::test]
async fn a_hangup_reloads_policies_and_routes_and_names_what_needs_a_restart() {
    let reloaded =
        Reloaded::start("[processor.orders]\nmax_jobs = 3\n[[route]]\npath = '/old'\nprocessor = 'orders'\n");
    let client = reqwest::Client::new();
    let post = async |path: &str| {
        let request = client.post(format!("{}{path}", reloaded.url)).body("1");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((post("/old").await, post("/new/7").await), (202, 404));
    reloaded.hang_up(
        "[server]\nlog_level = 'debug'\njobs_max = 5\n[processor.orders]\nmax_jobs = 4\n\
         [[route]]\npath = '/new/{shop}'\nprocessor = 'orders'\n",
    );
    reloaded
        .until("/v1/processors/orders/policy", "\"max_jobs\":4")
        .await;
    assert_eq!((post("/old").await, post("/new/7").await), (404, 202));
    let document = reloaded.get("/openapi.json").await;
    assert!(document.contains("/new/{shop}") && !document.contains("\"/old\""));
    assert!(reloaded.get("/v1/info").await.contains("\"jobs_max\":10000000"));
    let metrics = reloaded.get("/metrics").await;
    for route in ["/old", "/new/{shop}"] {
        let count = format!("jitney_http_requests_total{{route=\"{route}\",status=\"202\"}} 1");
        assert!(metrics.contains(&count), "{metrics}");
    }
    let log = reloaded.stop();
    let warned = log.lines().filter(|line| line.contains("keeps its old value"));
    assert_eq!(warned.clone().count(), 1, "{log}");
    assert!(warned.clone().all(|line| line.contains("jobs_max")), "{log}");
}

#[tokio::test]
async fn a_hangup_reloads_what_is_written_for_all_processors() {
    let reloaded = Reloaded::start("[processor.'*']\nmax_jobs = 3\n");
    let path = "/v1/processors/orders/policy";
    let place = |line: u32| {
        format!(
            "\"max_jobs\":{{\"from\":\"config\",\"table\":\"[processor.\\\"*\\\"]\",\"file\":\"jitney.toml\",\"line\":{line}}}"
        )
    };
    let before = reloaded.get(path).await;
    assert!(
        before.contains("\"max_jobs\":3,") && before.contains(&place(2)),
        "{before}"
    );
    reloaded.hang_up("\n[processor.'*']\nmax_jobs = 4\n[processor.mail]\nmax_jobs = 5\n");
    reloaded.until(path, "\"max_jobs\":4,").await;
    assert!(reloaded.get(path).await.contains(&place(3)));
    let mail = reloaded.get("/v1/processors/mail/policy").await;
    assert!(mail.contains("\"max_jobs\":5,"), "{mail}");
    reloaded.hang_up("[processor.mail]\nmax_jobs = 5\n");
    reloaded.until(path, "\"max_jobs\":64,").await;
    reloaded.stop();
}

#[tokio::test]
async fn a_hangup_with_a_mistake_changes_nothing_and_says_where_it_is() {
    let reloaded = Reloaded::start("[processor.orders]\nmax_jobs = 3\n");
    reloaded.hang_up("[processor.orders]\nmax_jobs = 4\nmin_job = 2\n");
    let refused = "jitney_config_reloads_total{result=\"refused\"} 1";
    reloaded.until("/metrics", refused).await;
    assert!(
        reloaded
            .get("/v1/processors/orders/policy")
            .await
            .contains("\"max_jobs\":3")
    );
    reloaded.hang_up("[processor.orders]\nmax_jobs = 5\n");
    reloaded
        .until("/v1/processors/orders/policy", "\"max_jobs\":5")
        .await;
    let log = reloaded.stop();
    for part in [
        "the configuration was not reloaded, and nothing has changed",
        "unknown key `min_job` in [processor.orders]",
        "jitney.toml:3:1",
        "did you mean `min_jobs`?",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

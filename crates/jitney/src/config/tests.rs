//! The reference against the code, the order of the sources, and every mistake with its text.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::*;
use crate::job::{Group, Priority, Processor};
use crate::limits::Limits;
use crate::policy::PolicyPatch;
use crate::server::options::{AllowedHost, BusOptions};

fn parsed(text: &str) -> Config {
    parse(text, Path::new("jitney.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// The text of every mistake in a file.
fn mistakes(text: &str) -> String {
    match parse(text, Path::new("jitney.toml")) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
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

/// The reference with its examples taken out of their comments.
fn uncommented() -> String {
    let uncomment = |line: &'static str| match line.strip_prefix('#') {
        Some(example) if !example.is_empty() && !example.starts_with(' ') => example,
        _ => line,
    };
    DEFAULT_TOML.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_says_what_the_code_has() {
    let said = |config: Config| format!("{:?} {:?}", config.options, config.log);
    let reference = said(parsed(DEFAULT_TOML));
    assert_eq!(reference, said(parsed("")));
    assert_eq!(reference, said(defaults()));
}

#[test]
fn the_reference_has_every_key_once() {
    let sections = uncommented();
    let table: toml::Table = toml::from_str(&sections).unwrap();
    let keys = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
    let known = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();

    assert_eq!(
        keys(table["server"].as_table().unwrap()),
        known(server::KEYS.iter().map(|key| key.name).collect())
    );
    assert_eq!(
        keys(table["processor"]["orders"].as_table().unwrap()),
        known(policy::KEYS.iter().map(|key| key.name).collect())
    );
    let mut route = known(route::KEYS.iter().map(|key| key.name).collect());
    route.insert("status".to_owned());
    assert_eq!(keys(table["route"][0].as_table().unwrap()), route);
}

#[test]
fn the_examples_of_the_reference_are_the_defaults_of_normal() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("order.schema.json"), "{}").unwrap();
    let config = parse(&uncommented(), &directory.path().join("jitney.toml")).unwrap();
    let written = config.options.policies.resolve(
        &Processor::parse("orders").unwrap(),
        &Group::default(),
        Priority::Normal,
    );
    let mut default = PolicyPatch::default().over_defaults(Priority::Normal);
    default.result_ttl = Some(Limits::default().result_ttl);
    assert_eq!(written, default);
    assert_eq!(config.options.routes.len(), 1);
}

const EVERY_FIELD: &str = "[server]\nlisten = 'localhost:1'\nallowed_hosts = 'Jobs.example, *.x,*'\nbodies_bytes_max = 19\nqueued_bytes_max = 20\ndata = 'd'\nsegment_bytes = '2MiB'\ncache_bytes = 2\njobs_max = 3\n\
         log_bytes_max = '4GiB'\nmax_job_bytes = 5\nmax_body_bytes = 6\nwaiters_max = 7\nconnections_max = 8\n\
         processors_max = 9\nchildren_max = 10\nwait_max = '11s'\nkeys_max = 12\nresults_max = 13\n\
         result_bytes_max = 14\nresult_ttl = '15s'\nkey_ttl = '16s'\ngrace = '17s'\nslow_client_timeout = '18s'\n\
         log_format = 'json'\nlog_level = 'trace'\n";

#[test]
fn what_a_running_server_cannot_change_is_named() {
    let (before, now) = (parsed(""), parsed(EVERY_FIELD));
    assert!(
        before
            .fixed_keys_changed(&parsed("[processor.a]\nmax_jobs = 3\n"))
            .is_empty()
    );
    let changed: BTreeSet<_> = now.fixed_keys_changed(&before).into_iter().collect();
    // Whether an address needs to be asked for is no change of its own, and the level does change.
    let free = ["no_auth", "log_level", "bus"];
    let all = server::KEYS.iter().map(|key| key.name);
    assert_eq!(changed, all.filter(|key| !free.contains(key)).collect());
    let memory = parsed("[server]\nbus = 'memory'\n");
    assert_eq!(memory.fixed_keys_changed(&before), ["bus"]);
    let kept = now.with_fixed_keys_of(before.clone());
    assert!(kept.fixed_keys_changed(&before).is_empty());
    assert_eq!(kept.log.level, LogLevel::Trace);
}

#[test]
fn every_field_of_the_server_can_be_set() {
    let config = parsed(EVERY_FIELD);
    let limits = Limits {
        jobs_max: 3,
        job_bytes_max: 5,
        body_bytes_max: 6,
        bodies_bytes_max: 19,
        queued_bytes_max: 20,
        waiters_max: 7,
        connections_max: 8,
        processors_max: 9,
        children_max: 10,
        wait_max: Duration::from_secs(11),
        log_bytes_max: Some(4 << 30),
        keys_max: 12,
        results_max: 13,
        result_bytes_max: 14,
        result_ttl: Duration::from_secs(15),
        key_ttl: Duration::from_secs(16),
    };
    assert_eq!(config.options.limits, limits);
    assert_eq!(config.options.listen, "127.0.0.1:1".parse().unwrap());
    assert!(mistakes("[server]\nallowed_hosts = ['x']\n").contains("names with commas"));
    assert!(mistakes("[server]\nallowed_hosts = 'http://x'\n").contains("`http://x` is no name of a host"));
    assert_eq!(
        config.options.allowed_hosts,
        [
            AllowedHost::Exactly("jobs.example".to_owned()),
            AllowedHost::Below("x".to_owned()),
            AllowedHost::Any
        ]
    );
    assert_eq!(config.options.grace, Duration::from_secs(17));
    assert_eq!(config.options.slow_client_timeout, Duration::from_secs(18));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, LogLevel::Trace);
    match config.options.bus {
        BusOptions::Log {
            data,
            segment_bytes,
            cache_bytes,
        } => assert_eq!(
            (data.as_path(), segment_bytes, cache_bytes),
            (Path::new("d"), 2 << 20, 2)
        ),
        BusOptions::Memory => panic!("the default bus is the log"),
    }
}

#[test]
fn every_address_but_the_loopback_must_be_asked_for() {
    for (listen, open) in [
        ("127.0.0.1:0", false),
        ("127.8.9.1:0", false),
        ("[::1]:0", false),
        ("localhost:0", false),
        ("0.0.0.0:0", true),
        ("[::]:0", true),
        ("10.1.2.3:0", true),
        ("[::ffff:10.1.2.3]:0", true),
    ] {
        let server = format!("[server]\nlisten = '{listen}'\n");
        let refused = parse(&server, Path::new("jitney.toml")).err();
        assert_eq!(refused.is_some(), open, "{listen}");
        if let Some(refused) = refused {
            assert!(refused.to_string().contains("--no-auth"), "{refused}");
        }
        parsed(&format!("{server}no_auth = true\n"));
    }
    let named = mistakes("[server]\nlisten = 'jobs.example:8080'\n");
    assert!(
        named.contains("`jobs.example:8080` is not an address with a port"),
        "{named}"
    );
}

#[test]
fn an_empty_name_of_a_file_is_none() {
    let sources = Sources {
        environment: variables(&[(PATH_VARIABLE, "")]),
        ..Sources::default()
    };
    assert_eq!(load(&sources).unwrap().file, None);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jitney.toml");
    fs::write(
        &path,
        "[server]\njobs_max = 1\nkeys_max = 1\nresults_max = 1\nbus = 'memory'\n",
    )
    .unwrap();
    let sources = Sources {
        file: None,
        environment: variables(&[
            (PATH_VARIABLE, path.to_str().unwrap()),
            ("JITNEY_SERVER_JOBS_MAX", "2"),
            ("JITNEY_SERVER_KEYS_MAX", "2"),
            ("JITNEY_LISTEN", "127.0.0.1:2"),
            ("JITNEY_SERVER_LISTEN", "127.0.0.1:3"),
            // What Kubernetes sets beside a service of that name is no key of ours.
            ("JITNEY_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("JITNEY_SERVER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ]),
        flags: vec![Flag {
            name: "--jobs-max",
            key: "jobs_max",
            value: "3".to_owned(),
        }],
    };
    let config = load(&sources).unwrap();
    let limits = &config.options.limits;
    assert_eq!((limits.jobs_max, limits.keys_max, limits.results_max), (3, 2, 1));
    assert_eq!(config.options.listen.port(), 3);
    assert!(matches!(config.options.bus, BusOptions::Memory));
    assert_eq!(config.file, Some(path));
}

#[test]
fn a_variable_that_kubernetes_set_is_named_as_such() {
    let hint = |name: &str, value: &str| {
        let sources = Sources {
            file: None,
            environment: variables(&[(name, value)]),
            flags: Vec::new(),
        };
        let error = load(&sources).unwrap_err();
        error.complaints[0].hint.clone().unwrap_or_default()
    };
    for (name, value) in [
        ("JITNEY_WEB_SERVICE_HOST", "10.0.0.1"),
        ("JITNEY_WEB_SERVICE_PORT_HTTP", "80"),
        ("JITNEY_WEB_PORT", "tcp://10.0.0.1:80"),
        ("JITNEY_WEB_PORT_80_TCP_PROTO", "tcp"),
    ] {
        let said = hint(name, value);
        assert!(said.contains("enableServiceLinks: false"), "{name}: {said}");
    }
    for (name, value) in [("JITNEY_JOB_MAX", "1"), ("JITNEY_LISTEN_PORT", "8080")] {
        let said = hint(name, value);
        assert!(!said.contains("Kubernetes"), "{name}: {said}");
    }
}

#[test]
fn the_narrower_table_wins() {
    let config = parsed(
        "[processor.orders]\nmax_jobs = 20\nmin_jobs = 2\nlease = '60s'\n\
         [processor.orders.priority.SLOW]\nmax_jobs = 30\nlower_lane_share = '1/4'\n\
         [processor.orders.group.order]\nmax_jobs = 40\nlower_lane_share = 0\n",
    );
    let orders = Processor::parse("orders").unwrap();
    let resolve = |group: &str, priority| {
        let group = Group::parse(group).unwrap();
        config.options.policies.resolve(&orders, &group, priority)
    };
    assert_eq!(resolve("other", Priority::Normal).max_jobs, 20);
    assert_eq!(resolve("other", Priority::Slow).max_jobs, 30);
    assert_eq!(resolve("other", Priority::Slow).lower_lane_share.above, Some(3));
    assert_eq!(resolve("order", Priority::Slow).max_jobs, 40);
    assert_eq!(resolve("order", Priority::Slow).lower_lane_share.above, None);
    assert_eq!(resolve("order", Priority::Slow).min_jobs, 2);
    assert_eq!(
        resolve("order", Priority::Normal).heartbeat,
        Duration::from_secs(20)
    );
}

#[test]
fn what_is_written_for_all_processors_is_below_what_is_written_for_one() {
    let config = parsed(
        "[processor.orders]\nmax_jobs = 20\n[processor.'*']\nmax_jobs = 30\nmax_attempts = 7\nbackoff = '1s'\n\
         [processor.'*'.priority.SLOW]\nmax_jobs = 90\nbackoff = '2s'\n",
    );
    let policies = &config.options.policies;
    let of = |name: &str, priority| {
        let policy = policies.resolve_lane(&Processor::parse(name).unwrap(), priority);
        (
            policy.max_jobs,
            policy.max_attempts,
            policy.backoff.as_millis(),
            policy.max_crashes,
        )
    };
    assert_eq!(of("orders", Priority::Normal), (20, 7, 1_000, 3));
    assert_eq!(of("orders", Priority::Slow), (20, 7, 2_000, 3));
    assert_eq!(of("other", Priority::Normal), (30, 7, 1_000, 3));
    assert_eq!(of("other", Priority::Slow), (90, 7, 2_000, 3));
    assert_eq!(of("other", Priority::Realtime), (1, 7, 1_000, 3));
    let at = policies.places.of("[processor.\"*\"]", "max_attempts").unwrap();
    assert_eq!(at.to_string(), "jitney.toml:5");
}

#[test]
fn mistakes_in_what_is_written_for_all_are_named_once_and_those_of_both_in_the_narrower() {
    assert_shows!(mistakes(
        "[processor.'*']\nmax_job = 3\nmin_jobs = 10\nlease = '4s'\nheartbeat = '3s'\n\
         [processor.'*'.priority.REALTIME]\nmax_jobs = 2\n[processor.'*'.group.x]\nlease = '1s'\n\
         [processor.a]\nmax_jobs = 4\n[processor.b]\nmax_attempts = 2\n[processor.'**']\n"
    ));
}

#[test]
fn a_route_is_read_with_its_schema() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("order.json"), r#"{"type":"object"}"#).unwrap();
    let text = "[[route]]\npath = '/orders/{kind}'\nprocessor = 'orders'\ngroup = 'order'\npriority = 'SLOW'\n\
                wait = '10s'\nschema = 'order.json'\nstatus = { error = 409, 'error.card_declined' = 402 }\n\
                [[route]]\npath = '/'\nmethod = 'PUT'\nprocessor = 'root'\n";
    let config = parse(text, &directory.path().join("jitney.toml")).unwrap();
    let [first, second] = &config.options.routes[..] else {
        panic!("two routes were written");
    };
    assert_eq!(
        (first.method.as_str(), first.path.as_str()),
        ("POST", "/orders/{kind}")
    );
    assert_eq!(first.schema, Some(serde_json::json!({"type": "object"})));
    assert_eq!(first.wait, Some(Duration::from_secs(10)));
    assert_eq!(first.priority, Priority::Slow);
    assert_eq!(first.status["error"], 409);
    assert_eq!(first.status["error.card_declined"], 402);
    assert_eq!(
        (second.method.as_str(), second.group.as_str()),
        ("PUT", "default")
    );
    assert_eq!(second.wait, None);
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    assert_shows!(mistakes(
        "[server]\nlissten = '127.0.0.1:1'\nqwertyuiop = 1\n\n[sever]\n\n[processor.orders]\nmax_job = 16\n\
         rate = '5/s'\n[processor.orders.priority.SLOW]\nmax_in_flight = 1\nmaxdelay = '1s'\n\
         [[route]]\npath = '/orders'\nprocessor = 'orders'\nprio = 'SLOW'\nstatus = { eror = 400, wrong = 402 }\n"
    ));
}

#[test]
fn what_others_call_a_key_and_what_is_there_twice_are_told_by_name_and_line() {
    for (text, parts) in [
        (
            "[server]\nport = 9000\n",
            ["unknown key `port` in [server]", "did you mean `listen`?"],
        ),
        (
            "[server]\ntimeout = '5s'\n",
            ["unknown key `timeout`", "did you mean `slow_client_timeout`?"],
        ),
        (
            "[processor.a]\nbatch_size = 20\n",
            ["unknown key `batch_size`", "did you mean `max_jobs`?"],
        ),
        (
            "[processor.a.priority.SLOW]\nretries = 2\n",
            ["unknown key `retries`", "did you mean `max_attempts`?"],
        ),
        (
            "[processor.a]\ntimeout = '5s'\n",
            ["unknown key `timeout`", "did you mean `batch_timeout`?"],
        ),
        (
            "[[route]]\npath = '/a'\nprocessor = 'a'\ntimeout = '5s'\n",
            ["unknown key `timeout`", "did you mean `wait`?"],
        ),
        (
            "[server]\njobs_max = 3\n[processor.a]\nmax_jobs = 3\n[server] # again\nkeys_max = 4\n",
            [
                "[server] is there twice: the first is in line 1\n  --> jitney.toml:5:2",
                "put the keys of both into one",
            ],
        ),
        (
            "[processor.b]\nmax_jobs = 3\n[processor.a]\nmax_jobs = 3\nlease = '5s'\nmax_jobs=4\n",
            [
                "`max_jobs` is there twice: the first is in line 4\n  --> jitney.toml:6:1",
                "take one of them out",
            ],
        ),
        (
            "[processor.a.group.x]\nlease = '5s'\n[processor.a.group.x]\n",
            [
                "[processor.a.group.x] is there twice: the first is in line 1",
                "put the keys",
            ],
        ),
        (
            "route = { path = '/a', path = '/b' }\n",
            ["this is not TOML: duplicate key", "jitney.toml:1:24"],
        ),
    ] {
        let told = mistakes(text);
        assert!(parts.iter().all(|part| told.contains(part)), "{text}{told}");
    }
    let port = |value: &str| {
        load(&Sources {
            environment: variables(&[(PATH_VARIABLE, ""), ("JITNEY_PORT", value)]),
            ..Sources::default()
        })
    };
    assert!(port("tcp://10.0.0.1:8080").is_ok(), "Kubernetes sets it");
    let told = port("9000").unwrap_err().to_string();
    assert!(told.contains("did you mean `listen`?"), "{told}");
}

#[test]
fn wrong_types_and_values_are_named_with_an_example() {
    assert_shows!(mistakes(
        "[server]\nlisten = 8080\nno_auth = 'yes'\njobs_max = '10'\nmax_job_bytes = 1.5\nmax_body_bytes = '1MB'\n\
         wait_max = 30\ngrace = '10'\nkeys_max = 0\nwaiters_max = -1\nbus = 'kafka://localhost'\n\
         log_level = 'warning'\nlog_format = 'xml'\ndata = ''\nprocessors_max = 0x10000000000000000\n\
         segment_bytes = '4GiB'\ncache_bytes = 0\n\
         [processor.'or ders']\n[processor.orders]\nmax_jobs = 0\nlower_lane_share = 0.5\nlease = '0s'\n\
         [processor.orders.priority.slow]\n[processor.orders.group.'-']\n[processor]\nmail = 3\n"
    ));
}

#[test]
fn contradictions_are_named_once_where_they_are_written() {
    assert_shows!(mistakes(
        "[server]\nlisten = '0.0.0.0:8080'\nmax_job_bytes = '32MiB'\nsegment_bytes = '16MiB'\n\
         [processor.a]\nmax_jobs = 4\nmin_jobs = 8\n[processor.b]\nmin_jobs = 100\n\
         [processor.c]\nlease = '4s'\nheartbeat = '3s'\n[processor.c.priority.SLOW]\nbatch_timeout = '2s'\n\
         [processor.d.group.x]\nbackoff = '90s'\n[processor.d.priority.REALTIME]\nmax_jobs = 16\n\
         [processor.e]\nlease = '50ms'\nmax_jobs = 20000\npriority.SLOW.realtime_reserve = 1\n\
         [[route]]\npath = '/orders'\nprocessor = 'e'\nwait = '10m'\n"
    ));
}

#[test]
fn routes_that_cannot_be_are_named() {
    assert_shows!(mistakes(
        "[[route]]\npath = 'orders'\nprocessor = 'orders'\n[[route]]\npath = '/v1/orders'\nprocessor = 'orders'\n\
         [[route]]\npath = '/a b'\nprocessor = 'orders'\n[[route]]\npath = '/x/{a}/{a}'\nprocessor = 'orders'\n\
         [[route]]\npath = '/x/y{a}'\nprocessor = 'orders'\n[[route]]\npath = '/x//y'\nprocessor = 'orders'\n\
         [[route]]\nmethod = 'post'\npriority = 'FAST'\nwait = '0s'\n\
         [[route]]\npath = '/ok/{a}'\nprocessor = 'orders'\n[[route]]\npath = '/ok/{b}'\nprocessor = 'other'\n\
         [[route]]\npath = '/s'\nprocessor = 'orders'\nstatus = { error = 200, exhausted = 'x' }\n"
    ));
    assert_shows!(mistakes("[route]\npath = '/orders'\n"));
}

#[test]
fn a_file_that_is_not_toml_is_shown_where_it_breaks() {
    assert_shows!(mistakes("[server]\nlisten = 127.0.0.1:8080\n"));
}

#[test]
fn a_schema_that_cannot_be_used_is_named_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let said = |name: &str, schema: Option<&str>| {
        if let Some(schema) = schema {
            fs::write(directory.path().join(name), schema).unwrap();
        }
        let text = format!("[[route]]\npath = '/orders'\nprocessor = 'orders'\nschema = '{name}'\n");
        let error = parse(&text, &directory.path().join("jitney.toml")).unwrap_err();
        let path = directory.path().to_str().unwrap();
        error.to_string().replace(path, "DIR")
    };
    assert_shows!(
        [
            said("missing.json", None),
            said("broken.json", Some("{\n  \"type\": \"object\",\n  oops\n}")),
            said(
                "wrong.json",
                Some(r#"{"properties":{"price":{"type":"nummber"}}}"#)
            ),
            said(
                "elsewhere.json",
                Some(r#"{"$ref":"https://example.com/order.json"}"#)
            ),
            said("list.json", Some("[]")),
            said("meta.json", Some(r#"{"$schema":"https://example.com/unknown"}"#)),
        ]
        .join("\n\n")
    );
    let marked = said("marked.json", Some("\u{feff}{}"));
    assert!(marked.contains("begins with a byte-order mark"), "{marked}");
}

#[test]
fn the_environment_is_checked_like_the_file() {
    let sources = Sources {
        file: Some(PathBuf::from("does-not-exist.toml")),
        environment: variables(&[
            ("JITNEY_SERVER_JOB_MAX", "2"),
            ("JITNEY_LISTEN", "8080"),
            ("JITNEY_JOBZ_MAX", "3"),
        ]),
        flags: vec![Flag {
            name: "--bus",
            key: "bus",
            value: "sqs://queue".to_owned(),
        }],
    };
    assert_shows!(load(&sources).unwrap_err());
}

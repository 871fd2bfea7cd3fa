//! What operators and their tools look at: lanes, info, health, readiness, metrics, the page of errors.

use std::time::Duration;

use jitney::bus::{Capabilities, Usage};
use jitney::dispatcher::event::{Ended, LaneStats};
use jitney::driver::port::{Answer, Command, Info, Readiness};
use jitney::driver::refusal::Refusal;
use jitney::job::{Priority, Processor};
use serde_json::json;

use super::{Does, Setup, TestEdge, refused};

fn info(readiness: Readiness) -> Answer {
    Answer::Info(Box::new(Info {
        capabilities: Capabilities {
            name: "memory",
            durable: false,
            follow: false,
            atomic_children: true,
            durable_keys: false,
            point_reads: true,
        },
        usage: Usage {
            unsettled: 5,
            syncs: 7,
            ..Usage::default()
        },
        readiness,
        waiters: 2,
        processors: 3,
    }))
}

async fn edge(readiness: Readiness) -> TestEdge {
    TestEdge::start(Setup::default(), move |command| match command {
        Command::Info => Does::Says(info(readiness)),
        Command::Lanes => Does::Says(Answer::Lanes(vec![LaneStats {
            paused: false,
            processor: Processor::parse("orders").unwrap(),
            priority: Priority::Slow,
            queued: 3,
            running: 2,
            retrying: 1,
            dead: 7,
            oldest_age: Some(Duration::from_millis(1_500)),
            workers: 4,
            workers_not_ready: 1,
            not_ready: Some(("w-9".into(), "gone".into())),
            dispatched: 10,
            arrived: 12,
            ended: Ended {
                ok: 5,
                error: 2,
                failed: 1,
            },
            rate_in: 2.04,
            rate_out: 1.0,
            predicted_wait: Some(Duration::from_secs(4)),
        }])),
        other => panic!("{other:?}"),
    })
    .await
}

#[tokio::test]
async fn lanes_are_counted() {
    let edge = edge(Readiness::Ready).await;
    assert_eq!(
        super::json(edge.get("/v1/lanes").send().await.unwrap()).await,
        (
            200,
            json!({"lanes": [{"processor": "orders", "priority": "SLOW", "paused": false, "queued": 3, "scheduled": 0,
                "running": 2, "retrying": 1, "dead": 7, "oldest_age_ms": 1500, "workers": 4,
                "workers_not_ready": 1, "not_ready": {"worker": "w-9", "why": "gone"}, "arrived": 12,
                "dispatched": 10, "ended": 8, "processed_ok": 5, "processed_error": 2, "batch_failed": 1, "rate_in": 2.0, "rate_out": 1.0, "predicted_wait_ms": 4000}]})
        )
    );
    refused(edge.get("/v1/lanes?processor=x"), 400, "unknown_field", "no").await;
}

#[tokio::test]
async fn info_shows_version_bus_features_limits_and_usage() {
    let edge = edge(Readiness::Ready).await;
    let (status, body) = super::json(edge.get("/v1/info").send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["bus"], "memory");
    assert_eq!(body["state"], "ready");
    assert!(
        body["features"]
            .as_array()
            .unwrap()
            .contains(&json!("idempotency_key"))
    );
    assert_eq!(body["limits"]["max_job_bytes"], 1 << 20);
    assert_eq!(body["limits"]["wait_max"], "5m");
    assert_eq!(body["usage"]["jobs"], 5);
    assert_eq!(body["usage"]["syncs"], 7);
    assert_eq!(body["usage"]["waiters"], 2);
    assert_eq!(body["usage"]["processors"], 3);
    assert_eq!(body["usage"]["connections"], 1);
    assert_eq!(body["usage"]["bodies_bytes"], 0);
    let limits = body["limits"].as_object().unwrap();
    let mut names: Vec<_> = limits.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "bodies_bytes_max",
            "children_max",
            "connections_max",
            "jobs_max",
            "key_ttl",
            "keys_max",
            "log_bytes_max",
            "max_body_bytes",
            "max_job_bytes",
            "processors_max",
            "queued_bytes_max",
            "result_bytes_max",
            "result_ttl",
            "results_max",
            "wait_max",
            "waiters_max",
        ]
    );
}

#[tokio::test]
async fn readiness_says_why_not_and_health_stays() {
    for (readiness, refusal) in [
        (Readiness::Ready, None),
        (Readiness::Recovering, Some(("recovering", "after"))),
        (Readiness::Draining, Some(("draining", "after"))),
        (Readiness::DiskFull, Some(("disk_full", "after"))),
        (Readiness::LogTooSmall, Some(("disk_full", "after"))),
        (Readiness::Poisoned, Some(("outcome_unknown", "safe"))),
    ] {
        let edge = edge(readiness).await;
        match refusal {
            None => assert_eq!(edge.get("/readyz").send().await.unwrap().status(), 200),
            Some((code, retry)) => drop(refused(edge.get("/readyz"), 503, code, retry).await),
        }
        assert_eq!(edge.get("/healthz").send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn metrics_count_answers_by_route_and_status() {
    let edge = edge(Readiness::Ready).await;
    for _ in 0..2 {
        refused(edge.get("/v1/jobs/7"), 404, "unknown_job", "no").await;
    }
    refused(edge.get("/nothing"), 404, "not_found", "no").await;
    let response = edge.get("/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    for line in [
        r#"jitney_http_requests_total{route="/v1/jobs/{id}",status="404"} 2"#,
        r#"jitney_http_requests_total{route="other",status="404"} 1"#,
        r#"jitney_lane_queued_jobs{processor="orders",priority="SLOW"} 3"#,
        "jitney_log_syncs_total 7",
        "jitney_ready 1",
        "jitney_waiters 2",
        r#"jitney_limit{name="jobs_max"} 10000000"#,
        r#"jitney_limit_used{name="jobs_max"} 5"#,
        r#"jitney_limit_used{name="processors_max"} 3"#,
        r#"jitney_limit_used{name="connections_max"} 1"#,
        r#"jitney_limit{name="wait_max"} 300.0"#,
        "jitney_http_open_connections 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
    }
}

#[tokio::test]
async fn metrics_are_there_when_the_driver_is_not() {
    let edge = TestEdge::start(Setup::default(), |_| {
        Does::Says(Answer::Refused(Refusal::Recovering))
    })
    .await;
    let text = edge.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("jitney_http_connections_total 1\n"), "{text}");
    assert!(!text.contains("jitney_ready"), "{text}");
}

#[tokio::test]
async fn the_links_of_problems_lead_somewhere() {
    let edge = edge(Readiness::Ready).await;
    let problem = refused(edge.get("/nothing"), 404, "not_found", "no").await;
    let (path, anchor) = problem["type"].as_str().unwrap().split_once('#').unwrap();
    let page = edge.get(path).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/markdown; charset=utf-8");
    let page = page.text().await.unwrap();
    assert!(page.contains(&format!("\n## {anchor}\n")));
}

//! The limits that only a whole server with a log can meet: on the disk's bytes, on keys, on results.

use std::net::SocketAddr;
use std::path::Path;

use jitney::limits::Limits;
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{PATIENCE, json as read_json, refused};

struct Logged {
    server: Running,
    client: reqwest::Client,
}

impl Logged {
    async fn start(data: &Path, limits: Limits) -> Self {
        let server = start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bus: BusOptions::Log {
                data: data.to_owned(),
                segment_bytes: 2 << 20,
                cache_bytes: 1 << 20,
            },
            limits: Limits {
                job_bytes_max: 64 << 10,
                body_bytes_max: 256 << 10,
                ..limits
            },
            ..Options::default()
        })
        .await
        .unwrap();
        Self {
            server,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client
            .post(format!("http://{}{path}", self.server.address()))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(format!("http://{}{path}", self.server.address()));
        read_json(request.send().await.unwrap()).await
    }

    async fn submit(&self) -> String {
        let (status, job) =
            read_json(self.post("/v1/processors/p/jobs").body("1").send().await.unwrap()).await;
        assert_eq!(status, 202, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    /// Takes one job and settles it with this result.
    async fn work(&self, result: &str) {
        let poll = json!({"worker": "w", "wait": "20s", "max_jobs": 1});
        let (status, leased) = read_json(
            self.post("/v1/processors/p/lease")
                .json(&poll)
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(status, 200, "{leased}");
        let batch = &leased["batches"][0];
        let path = format!("/v1/leases/{}/settle", batch["lease"].as_str().unwrap());
        let outcomes = json!({"outcomes": [{"id": batch["jobs"][0]["id"], "ok": result}]});
        let (status, settled) = read_json(self.post(&path).json(&outcomes).send().await.unwrap()).await;
        assert_eq!((status, &settled["results"][0]["is"]), (200, &json!("applied")));
    }

    async fn stop(self) {
        self.server.stop(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_log_as_large_as_it_may_be_takes_no_more_jobs_but_their_outcomes() {
    let data = tempfile::tempdir().unwrap();
    let server = Logged::start(data.path(), Limits::default()).await;
    let id = server.submit().await;
    server.stop().await;
    let limits = Limits {
        log_bytes_max: Some(1 << 20),
        ..Limits::default()
    };
    let server = Logged::start(data.path(), limits).await;
    let submit = server.post("/v1/processors/p/jobs").body("2");
    let problem = refused(submit, 429, "queue_full", "after").await;
    assert_eq!(
        problem["detail"],
        "the queue is full: `log_bytes_max` is 1,048,576"
    );
    assert_eq!(problem["limit"], 1 << 20);
    server.work("done").await;
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.1["result"], "done");
    let (_, info) = server.get("/v1/info").await;
    assert_eq!(info["limits"]["log_bytes_max"], 1 << 20);
    assert!(info["usage"]["disk_bytes"].as_u64().unwrap() > 1 << 20, "{info}");
    server.stop().await;
}

#[tokio::test]
async fn keys_beyond_their_limit_are_refused_and_none_is_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let limits = Limits {
        keys_max: 1,
        ..Limits::default()
    };
    let server = Logged::start(data.path(), limits).await;
    let keyed = |key: &str| {
        let submit = server.post("/v1/processors/p/jobs").body("1");
        submit.header("idempotency-key", key)
    };
    assert_eq!(keyed("a").send().await.unwrap().status(), 202);
    let problem = refused(keyed("b"), 429, "keys_full", "after").await;
    assert_eq!(problem["limit"], 1);
    let again = keyed("a").send().await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    server.submit().await;
    server.stop().await;
}

#[tokio::test]
async fn results_beyond_their_bytes_give_way_and_the_server_says_so() {
    let data = tempfile::tempdir().unwrap();
    let limits = Limits {
        result_bytes_max: 10_000,
        ..Limits::default()
    };
    let server = Logged::start(data.path(), limits).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.submit().await);
        server.work(&"x".repeat(4_000)).await;
    }
    let (status, gone) = server.get(&format!("/v1/jobs/{}", ids[0])).await;
    assert_eq!((status, &gone["code"]), (404, &json!("unknown_job")));
    assert_eq!(server.get(&format!("/v1/jobs/{}", ids[2])).await.0, 200);
    let (_, info) = server.get("/v1/info").await;
    assert_eq!(info["usage"]["results_evicted"], 1, "{info}");
    assert!(
        info["usage"]["result_bytes"].as_u64().unwrap() <= 10_000,
        "{info}"
    );
    server.stop().await;
}

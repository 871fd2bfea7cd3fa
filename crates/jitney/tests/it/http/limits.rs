//! The limits that only a whole server with a log can meet: on the disk's bytes, on keys, on results.

use std::net::SocketAddr;
use std::path::Path;

use jitney::limits::Limits;
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, StartError, start};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{PATIENCE, json as read_json, refused};

struct Logged {
    server: Running,
    client: reqwest::Client,
}

impl Logged {
    async fn start(data: &Path, limits: Limits) -> Self {
        Self::try_start(data, limits).await.unwrap()
    }

    async fn try_start(data: &Path, limits: Limits) -> Result<Self, StartError> {
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
        .await?;
        Ok(Self {
            server,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        })
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
async fn a_limit_that_the_log_can_never_keep_is_refused_at_start_unless_jobs_are_there() {
    let data = tempfile::tempdir().unwrap();
    let limits = |bytes| Limits {
        log_bytes_max: Some(bytes),
        ..Limits::default()
    };
    let refused_start = Logged::try_start(data.path(), limits((6 << 20) - 1)).await;
    assert_eq!(
        refused_start.err().map(|error| error.to_string()).as_deref(),
        Some(
            "`log_bytes_max` is 6291455B, and a log with segments of 2MiB needs at least 6MiB: three of them, beside \
             its spares; raise `log_bytes_max` or lower `segment_bytes`"
        )
    );
    let server = Logged::start(data.path(), limits(6 << 20)).await;
    let id = server.submit().await;
    server.stop().await;
    // The jobs are worth more than the limit; what is in force says why nothing new is taken.
    let server = Logged::start(data.path(), limits(2 << 20)).await;
    refused(
        server.post("/v1/processors/p/jobs").body("2"),
        429,
        "queue_full",
        "after",
    )
    .await;
    let readyz = server
        .client
        .get(format!("http://{}/readyz", server.server.address()));
    let problem = refused(readyz, 503, "disk_full", "after").await;
    assert_eq!(
        problem["detail"],
        "no new jobs are taken: the log has reached `log_bytes_max`, 2MiB, and needs 6MiB, three segments of \
         `segment_bytes`; raise the one or lower the other, and start again"
    );
    server.work("done").await;
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.1["result"], "done");
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

//! Through the whole server, over the memory bus: each caller gets its own result, and what cannot be is
//! refused with its code.

use std::net::SocketAddr;
use std::time::Duration;

use jitney::limits::Limits;
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
use serde_json::{Value, json};

use super::{PATIENCE, json as read_json, refused};

/// A running server and a client for it.
struct Whole {
    server: Running,
    client: reqwest::Client,
}

impl Whole {
    async fn start(limits: Limits) -> Self {
        let server = start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bus: BusOptions::Memory,
            limits,
            ..Options::default()
        })
        .await
        .unwrap();
        Self {
            server,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client
            .post(format!("http://{}{path}", self.server.address()))
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://{}{path}", self.server.address()))
    }

    /// Submits a job to `p` and gives back its id.
    async fn submit(&self, data: &'static str) -> String {
        let (status, job) = read_json(
            self.post("/v1/processors/p/jobs")
                .body(data)
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(status, 202, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    /// Takes one batch of `p`.
    async fn lease(&self) -> Value {
        let poll = json!({"worker": "w", "wait": "20s"});
        let request = self.post("/v1/processors/p/lease").json(&poll);
        let (status, mut body) = read_json(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["batches"][0].take()
    }

    fn settle(&self, lease: &Value, outcomes: &Value) -> reqwest::RequestBuilder {
        let lease = lease["lease"].as_str().unwrap();
        self.post(&format!("/v1/leases/{lease}/settle"))
            .json(&json!({"outcomes": outcomes, "final": false}))
    }

    async fn settled(&self, lease: &Value, outcomes: &Value) -> (u16, Value) {
        read_json(self.settle(lease, outcomes).send().await.unwrap()).await
    }

    async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.server.stop(Duration::ZERO))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_waits_gets_its_own_result_byte_for_byte() {
    let whole = Whole::start(Limits::default()).await;
    let data = r#" {"amount": 1.0, "amount":2 }"#;
    let result = r#"{"n":123456789012345678901234567890,  "n":1}"#;
    let caller = whole
        .post("/v1/processors/p/jobs?wait=20s&key=tenant-7&label.order=A-17")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .body(data)
        .send();
    let worker = async {
        let poll = whole
            .post("/v1/processors/p/lease")
            .body(r#"{"worker":"w","wait":"20s"}"#);
        let text = poll.send().await.unwrap().text().await.unwrap();
        assert!(
            text.contains(&format!(r#""data":{data},"key":"tenant-7""#)),
            "{text}"
        );
        let body: Value = serde_json::from_str(&text).unwrap();
        let (lease, job) = (&body["batches"][0]["lease"], &body["batches"][0]["jobs"][0]);
        assert_eq!(job["labels"], json!({"order": "A-17"}));
        assert_eq!(
            job["traceparent"],
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        );
        assert_eq!((&job["attempt"], &job["delivery"]), (&json!(1), &json!(1)));
        let outcomes = format!(r#"{{"outcomes":[{{"id":{},"ok":{result}}}]}}"#, job["id"]);
        let path = format!("/v1/leases/{}/settle", lease.as_str().unwrap());
        read_json(whole.post(&path).body(outcomes).send().await.unwrap()).await
    };
    let (answer, (status, settled)) = tokio::join!(caller, worker);
    assert_eq!(status, 200);
    assert_eq!(settled["results"][0]["is"], "applied");
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(
        text.contains(&format!(r#""result":{result},"error":null"#)),
        "{text}"
    );
    let job: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(job["status"], "processed_ok");
    assert_eq!((&job["attempts"], &job["started"]), (&json!(1), &json!(true)));
    let again = whole.get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    let again = again.send().await.unwrap().text().await.unwrap();
    assert!(
        again.contains(&format!(r#""result":{result},"error":null"#)),
        "{again}"
    );
    whole.stop().await;
}

#[tokio::test]
async fn submitting_twice_is_submitting_once() {
    let whole = Whole::start(Limits::default()).await;
    let keyed = |data: &'static str| {
        whole
            .post("/v1/processors/p/jobs")
            .header("idempotency-key", "order-17")
            .body(data)
    };
    let first = read_json(keyed("1").send().await.unwrap()).await.1;
    let response = keyed("1").send().await.unwrap();
    assert_eq!(response.headers()["idempotency-replayed"], "true");
    assert_eq!(read_json(response).await.1["id"], first["id"]);
    refused(keyed("2"), 422, "idempotency_key_reused", "no").await;

    let id = "0199a3c4-0000-7000-8000-00000000002a";
    let named = |data: &Value| {
        whole
            .post("/v1/jobs")
            .json(&json!({"processor": "p", "id": id, "data": data}))
    };
    assert_eq!(
        read_json(named(&json!(1)).send().await.unwrap()).await.1["id"],
        id
    );
    let response = named(&json!(1)).send().await.unwrap();
    assert_eq!(response.headers()["idempotency-replayed"], "true");
    refused(named(&json!(2)), 422, "id_reused", "no").await;
    whole.stop().await;
}

#[tokio::test]
async fn a_failed_job_is_read_with_its_error_and_its_children_are_jobs() {
    let whole = Whole::start(Limits::default()).await;
    let failing = whole.submit("1").await;
    let lease = whole.lease().await;
    let error = json!({"code": "card_declined", "message": "no", "data": {"why": 1}});
    let outcome = json!([{"id": failing, "error": error}]);
    assert_eq!(
        whole.settled(&lease, &outcome).await.1["results"][0]["is"],
        "applied"
    );
    let job = read_json(
        whole
            .get(&format!("/v1/jobs/{failing}?wait=20s"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(job.0, 200);
    assert_eq!(job.1["status"], "processed_error");
    assert_eq!(job.1["error"], error);

    let parent = whole.submit("2").await;
    let lease = whole.lease().await;
    let outcome = json!([{"id": parent, "ok": null, "jobs": [{"processor": "mail", "data": [1]}]}]);
    let (_, settled) = whole.settled(&lease, &outcome).await;
    let child = settled["results"][0]["children"][0].as_str().unwrap();
    let child = read_json(whole.get(&format!("/v1/jobs/{child}")).send().await.unwrap())
        .await
        .1;
    assert_eq!(
        (&child["processor"], &child["parent"]),
        (&json!("mail"), &json!(parent))
    );
    whole.stop().await;
}

#[tokio::test]
async fn a_token_that_is_stale_or_foreign_changes_nothing() {
    let whole = Whole::start(Limits::default()).await;
    let id = whole.submit("1").await;
    let stale = whole.lease().await;
    let released = whole.settled(&stale, &json!([{"id": id, "release": true}])).await;
    assert_eq!(released.1["results"][0]["is"], "released");
    let current = whole.lease().await;
    assert_eq!(current["jobs"][0]["id"], json!(id));

    let late = whole.settle(&stale, &json!([{"id": id, "ok": "stale"}]));
    let problem = refused(late, 409, "lease_lost", "no").await;
    assert_eq!(problem["results"], json!([{"id": id, "is": "late"}]));
    let foreign = json!({"lease": "f".repeat(40)});
    let settle = whole.settle(&foreign, &json!([{"id": id, "ok": "foreign"}]));
    refused(settle, 404, "unknown_lease", "no").await;
    let extend = whole.post(&format!("/v1/leases/{}/extend", "f".repeat(40)));
    refused(extend, 404, "unknown_lease", "no").await;

    let other = "0199a3c4-0000-7000-8000-0000000000ff";
    let (_, settled) = whole
        .settled(
            &current,
            &json!([{"id": other, "ok": 1}, {"id": id, "ok": "good"}]),
        )
        .await;
    assert_eq!(settled["results"][0]["is"], "unknown");
    assert_eq!(settled["results"][1]["is"], "applied");
    let again = whole.settled(&current, &json!([{"id": id, "ok": "good"}])).await;
    assert_eq!(
        (again.0, &again.1["results"][0]["is"]),
        (200, &json!("duplicate"))
    );
    let job = read_json(whole.get(&format!("/v1/jobs/{id}")).send().await.unwrap())
        .await
        .1;
    assert_eq!(job["result"], "good");
    whole.stop().await;
}

#[tokio::test]
async fn a_repeated_poll_gets_the_same_batches() {
    let whole = Whole::start(Limits::default()).await;
    whole.submit("1").await;
    let poll = json!({"worker": "w", "request_id": "r", "wait": "20s"});
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let request = whole.post("/v1/processors/p/lease").json(&poll);
        let (status, body) = read_json(request.send().await.unwrap()).await;
        assert_eq!(status, 200);
        tokens.push(body["batches"][0]["lease"].clone());
    }
    assert_eq!(tokens[0], tokens[1]);
    whole.stop().await;
}

#[tokio::test]
async fn limits_of_the_driver_are_met_with_their_codes() {
    let limits = Limits {
        jobs_max: 2,
        waiters_max: 0,
        processors_max: 1,
        ..Limits::default()
    };
    let whole = Whole::start(limits).await;
    whole.submit("1").await;
    let waiting = whole.post("/v1/processors/p/jobs?wait=1s");
    let problem = refused(waiting, 429, "too_many_waiters", "after").await;
    assert_eq!(problem["limit"], 0);
    let second = whole.post("/v1/processors/q/jobs");
    let problem = refused(second, 429, "too_many_processors", "no").await;
    assert_eq!(problem["limit"], 1);
    whole.submit("2").await;
    let problem = refused(whole.post("/v1/processors/p/jobs"), 429, "queue_full", "after").await;
    assert_eq!(problem["limit"], 2);
    let unknown = whole.get("/v1/jobs/0199a3c4-0000-7000-8000-00000000002a");
    refused(unknown, 404, "unknown_job", "no").await;
    whole.stop().await;
}

#[tokio::test]
async fn lanes_info_and_metrics_show_what_goes_on() {
    let whole = Whole::start(Limits::default()).await;
    whole.submit("1").await;
    whole.submit("2").await;
    let lease = whole.lease().await;
    assert_eq!(whole.get("/readyz").send().await.unwrap().status(), 200);
    let lanes = read_json(whole.get("/v1/lanes").send().await.unwrap()).await.1;
    let lane = lanes["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|lane| lane["priority"] == "NORMAL")
        .unwrap();
    let jobs = lease["jobs"].as_array().unwrap().len();
    assert_eq!(lane["running"], jobs);
    assert_eq!(lane["queued"], 2 - jobs);
    assert_eq!(lane["workers"], 1);
    let info = read_json(whole.get("/v1/info").send().await.unwrap()).await.1;
    assert_eq!(
        (&info["bus"], &info["usage"]["jobs"]),
        (&json!("memory"), &json!(2))
    );
    let metrics = whole.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("jitney_jobs_submitted_total{priority=\"NORMAL\"} 2\n"),
        "{metrics}"
    );
    assert!(metrics.contains("jitney_unsettled_jobs 2\n"), "{metrics}");
    whole.stop().await;
}

#[tokio::test]
async fn a_stop_lets_leased_jobs_settle_and_sends_everyone_else_away() {
    let whole = Whole::start(Limits::default()).await;
    let leased = whole.submit("1").await;
    let lease = whole.lease().await;
    let leased_path = format!("/v1/jobs/{leased}?wait=20s");
    let waiting_for_leased = tokio::spawn(whole.get(&leased_path).send());
    let unleased = whole.post("/v1/processors/q/jobs?wait=20s").body("2");
    let waiting_for_unleased = tokio::spawn(unleased.send());
    let poll = json!({"worker": "w2", "wait": "20s"});
    let poll = tokio::spawn(whole.post("/v1/processors/p/lease").json(&poll).send());
    // Everyone is there once the driver counts two waiters and two workers.
    loop {
        let info = read_json(whole.get("/v1/info").send().await.unwrap()).await.1;
        let lanes = read_json(whole.get("/v1/lanes").send().await.unwrap()).await.1;
        let workers = lanes["lanes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lane| &lane["workers"]);
        if info["usage"]["waiters"] == 2 && workers.into_iter().any(|workers| *workers == 2) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let address = whole.server.address();
    let client = whole.client.clone();
    let stopping = tokio::spawn(whole.server.stop(PATIENCE));

    let response = poll.await.unwrap().unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["connection"], "close");
    let (status, job) = read_json(waiting_for_unleased.await.unwrap().unwrap()).await;
    assert_eq!((status, &job["state"]), (202, &json!("queued")));
    let submit = client.post(format!("http://{address}/v1/processors/p/jobs"));
    refused(submit, 503, "draining", "after").await;
    refused(
        client.get(format!("http://{address}/readyz")),
        503,
        "draining",
        "after",
    )
    .await;

    let settle = format!(
        "http://{address}/v1/leases/{}/settle",
        lease["lease"].as_str().unwrap()
    );
    let outcomes = json!({"outcomes": [{"id": leased, "ok": "done"}]});
    let (status, settled) = read_json(client.post(settle).json(&outcomes).send().await.unwrap()).await;
    assert_eq!((status, &settled["results"][0]["is"]), (200, &json!("applied")));
    let (status, job) = read_json(waiting_for_leased.await.unwrap().unwrap()).await;
    assert_eq!((status, &job["result"]), (200, &json!("done")));
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn many_that_wait_get_their_own_results_in_their_order() {
    let limits = Limits {
        waiters_max: 4,
        ..Limits::default()
    };
    let whole = Whole::start(limits).await;
    let lines = (0..6)
        .map(|n| format!("{{\"processor\":\"p\",\"data\":{n}}}\n"))
        .collect::<String>();
    let bulk = whole
        .post("/v1/jobs?wait=20s")
        .header("content-type", "application/x-ndjson")
        .body(format!("{lines}nonsense\n"))
        .send();
    let worker = async {
        let mut left = 6;
        // No more than three of them wait at a time: the others come when these have ended.
        while left > 0 {
            let batch = whole.lease().await;
            let jobs = batch["jobs"].as_array().unwrap();
            assert!(jobs.len() <= 3, "{batch}");
            left -= jobs.len();
            // Settled one by one, the last first.
            for job in jobs.iter().rev() {
                let outcome = match job["data"].as_u64() {
                    Some(2) => json!([{"id": job["id"], "error": {"code": "odd", "message": "no"}}]),
                    _ => json!([{"id": job["id"], "ok": {"of": job["data"]}}]),
                };
                whole.settled(&batch, &outcome).await;
            }
        }
    };
    let both = async { tokio::join!(bulk, worker) };
    let (response, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    let text = response.unwrap().text().await.unwrap();
    let entries: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(entries.len(), 7);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry["index"], index);
    }
    for index in [0, 1, 3, 4, 5] {
        assert_eq!(entries[index]["status"], "processed_ok");
        assert_eq!(entries[index]["result"], json!({"of": index}));
        assert_eq!(
            (&entries[index]["processor"], &entries[index]["error"]),
            (&json!("p"), &Value::Null)
        );
    }
    assert_eq!(entries[2]["status"], "processed_error");
    assert_eq!(entries[2]["error"]["code"], "odd");
    assert_eq!(entries[6]["error"]["code"], "malformed_json");

    // Items of an array do not wait for places.
    let array = format!("[{}]", [r#"{"processor":"q"}"#; 5].join(","));
    let request = whole.post("/v1/jobs?wait=10ms").body(array);
    let (_, answer) = read_json(request.send().await.unwrap()).await;
    let jobs = answer["jobs"].as_array().unwrap();
    assert!(
        jobs[..4].iter().all(|entry| entry["status"] == "submitted"),
        "{answer}"
    );
    assert_eq!(jobs[4]["error"]["code"], "too_many_waiters");
    assert_eq!(jobs[4].get("id"), None);
    whole.stop().await;
}

/// One poll for a thousand batches of large jobs held gigabytes, and every other call waited until all were read.
#[tokio::test]
async fn a_poll_for_many_large_batches_gets_as_many_as_fit_in_an_answer() {
    let whole = Whole::start(Limits::default()).await;
    let data = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..12 {
        let request = whole.post("/v1/processors/p/jobs").body(data.clone());
        assert_eq!(request.send().await.unwrap().status().as_u16(), 202);
    }
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 12 {
        let poll = json!({"worker": "w", "slots": 1_000, "wait": "20s"});
        let response = whole.post("/v1/processors/p/lease").json(&poll).send();
        let response = response.await.unwrap();
        let length = response.content_length();
        let bytes = response.bytes().await.unwrap();
        assert_eq!(length, Some(u64::try_from(bytes.len()).unwrap()));
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let batches = answer["batches"].as_array().unwrap();
        assert!(
            batches
                .iter()
                .all(|batch| batch["jobs"][0]["data"] == data[1..data.len() - 1])
        );
        sizes.push(batches.len());
    }
    // Four megabytes, and the batch that goes beyond.
    assert!(sizes.iter().all(|size| *size <= 5), "{sizes:?}");
    assert!(sizes[0] > 1, "{sizes:?}");
    whole.stop().await;
}

#[tokio::test]
async fn many_whose_time_is_up_are_shown_as_they_are_and_replays_with_their_result() {
    let whole = Whole::start(Limits::default()).await;
    let named = r#"{"processor":"p","data":1,"idempotency_key":"k"}"#;
    let send = |wait: &'static str| {
        let body = format!(r#"[{named},{{"processor":"q"}}]"#);
        let request = whole.post(&format!("/v1/jobs{wait}")).body(body);
        async move { read_json(request.send().await.unwrap()).await }
    };
    let (status, first) = send("").await;
    assert_eq!((status, &first["accepted"]), (200, &json!(2)));
    let lease = whole.lease().await;
    let outcome = json!([{"id": first["jobs"][0]["id"], "ok": "once"}]);
    whole.settled(&lease, &outcome).await;

    let (_, compact) = send("").await;
    assert_eq!(
        compact["jobs"][0],
        json!({"index": 0, "id": first["jobs"][0]["id"], "status": "processed_ok", "state": "done", "replayed": true})
    );
    // The second of each has no worker, so that the whole is answered when the time is up.
    let (_, waited) = send("?wait=50ms").await;
    let [done, queued] = waited["jobs"].as_array().unwrap().as_slice() else {
        panic!("{waited}");
    };
    assert_eq!(
        (&done["result"], &done["replayed"]),
        (&json!("once"), &json!(true))
    );
    assert_eq!(
        (&queued["state"], &queued["result"]),
        (&json!("queued"), &Value::Null)
    );
    assert_eq!(queued.get("replayed"), None);
    whole.stop().await;
}

//! The worker against a scripted jitney.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use super::scripted::{ScriptedJitney, id, job};
use super::*;
use crate::client::Submit;

async fn double(job: Job<i64>) -> Result<i64, HandlerError> {
    match job.data {
        0 => Err(HandlerError::retryable("zero", "not now").after(Duration::from_secs(2))),
        13 => panic!("unlucky"),
        99 => {
            job.submit_child(Submit::json("mail", &"hello")?);
            Ok(0)
        }
        number => Ok(2 * number),
    }
}

/// Runs a worker until the jitney has heard enough.
async fn run_until_heard(
    jitney: &ScriptedJitney,
    worker: Worker,
    heard: impl FnMut(&scripted::Heard) -> bool,
) -> scripted::Heard {
    let heard = std::cell::RefCell::new(heard);
    let last = std::cell::Cell::new(None);
    let enough = async { last.set(Some(jitney.until(|h| heard.borrow_mut()(h)).await)) };
    worker.run_until(enough).await.unwrap();
    drop(last.take());
    jitney.until(|_| true).await
}

fn outcome_of(heard: &scripted::Heard, number: u32) -> Value {
    let id = id(number).to_string();
    let mut all = heard.outcomes().into_iter().filter(|outcome| outcome["id"] == id);
    let outcome = all.next().unwrap();
    assert_eq!(all.next(), None, "one outcome for each job");
    outcome
}

#[tokio::test]
async fn each_job_gets_the_outcome_of_its_own_handler() {
    let jobs = vec![
        job(1, "double", json!(21)),
        job(2, "double", json!(0)),
        job(3, "double", json!(13)),
        job(4, "double", json!("no number")),
        job(5, "other", json!(1)),
        job(6, "double", json!(99)),
    ];
    let jitney = ScriptedJitney::giving(vec![jobs]).await;
    let worker = Worker::new(jitney.client(), "p")
        .max_jobs(16)
        .on_group("double", double);
    let heard = run_until_heard(&jitney, worker, |heard| heard.ended("l0")).await;
    assert_eq!(outcome_of(&heard, 1)["ok"], 42);
    assert_eq!(
        outcome_of(&heard, 2)["error"],
        json!({"code": "zero", "message": "not now", "retryable": true, "retry_after": "2s"})
    );
    let three = id(3).to_string();
    assert!(heard.outcomes().iter().all(|outcome| outcome["id"] != three));
    let (_, end) = heard.settles.last().unwrap();
    assert_eq!(
        (&end["failed"]["code"], &end["crashed"]),
        (&json!("panicked"), &json!(true)),
        "the one without an outcome crashed"
    );
    assert!(end["failed"]["message"].as_str().unwrap().contains("unlucky"));
    for (number, code) in [(4, "invalid_data"), (5, "unknown_group")] {
        let error = &outcome_of(&heard, number)["error"];
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!(code), &json!(false))
        );
    }
    assert_eq!(
        outcome_of(&heard, 6)["jobs"],
        json!([{"processor": "mail", "data": "hello"}])
    );
}

#[tokio::test]
async fn the_last_outcomes_ride_with_the_next_poll() {
    let batches = (1..=3).map(|number| vec![job(number, "double", json!(number))]);
    let jitney = ScriptedJitney::giving(batches.collect()).await;
    let worker = Worker::new(jitney.client(), "p").on_group("double", double);
    let heard = run_until_heard(&jitney, worker, |heard| heard.ended("l2")).await;
    for (poll, lease) in [(1, "l0"), (2, "l1"), (3, "l2")] {
        assert_eq!(heard.polls[poll]["settle"][0]["lease"], lease);
        assert_eq!(heard.polls[poll]["settle"][0]["final"], true);
    }
    assert_eq!(heard.polls[0]["max_jobs"], 1);
    assert_ne!(heard.polls[0]["request_id"], heard.polls[1]["request_id"]);
}

/// It took batches of one, in silence.
#[tokio::test]
async fn a_batch_handler_takes_what_the_policy_has_unless_the_worker_says_less() {
    async fn sum(jobs: Vec<Job<i64>>) -> Result<Outcomes<i64>, HandlerError> {
        Ok(jobs.iter().map(|job| job.ok(job.data)).collect())
    }
    let asked = async |shape: fn(Worker) -> Worker| {
        let jitney = ScriptedJitney::giving(Vec::new()).await;
        let worker = shape(Worker::new(jitney.client(), "p"));
        let heard = run_until_heard(&jitney, worker, |heard| !heard.polls.is_empty()).await;
        heard.polls[0]["max_jobs"].clone()
    };
    assert_eq!(asked(|worker| worker.on_group("double", double)).await, 1);
    assert_eq!(asked(|worker| worker.on_batch("sum", sum)).await, Value::Null);
    assert_eq!(
        asked(|worker| worker.on_group("double", double).on_batch("sum", sum)).await,
        Value::Null
    );
    assert_eq!(asked(|worker| worker.max_jobs(4).on_batch("sum", sum)).await, 4);
}

#[tokio::test]
async fn a_batch_handler_sees_its_jobs_together_and_its_error_fails_them_together() {
    let jobs = |from: u32| {
        (from..from + 3)
            .map(|n| job(n, "sum", json!(n)))
            .collect::<Vec<_>>()
    };
    let jitney = ScriptedJitney::giving(vec![jobs(1), jobs(10)]).await;
    let worker = Worker::new(jitney.client(), "p").max_jobs(8).on_batch(
        "sum",
        async |jobs: Vec<Job<i64>>| -> Result<Outcomes<i64>, HandlerError> {
            let sum: i64 = jobs.iter().map(|job| job.data).sum();
            if sum > 20 {
                return Err(HandlerError::retryable("too_much", sum));
            }
            Ok(jobs.into_iter().skip(1).map(|job| (job.id, Ok(sum))).collect())
        },
    );
    let heard = run_until_heard(&jitney, worker, |heard| heard.ended("l0") && heard.ended("l1")).await;
    let numbers: Vec<_> = heard
        .outcomes()
        .iter()
        .map(|outcome| outcome["ok"].clone())
        .collect();
    assert_eq!(numbers, [json!(6), json!(6)]);
    let (_, failed) = heard.settles.iter().find(|(lease, _)| lease == "l1").unwrap();
    assert_eq!(failed["failed"], json!({"code": "too_much", "message": "33"}));
    assert_eq!(failed["crashed"], Value::Null);
}

#[tokio::test]
async fn bytes_go_in_and_out_as_they_are() {
    let mut raw = job(1, "raw", Value::Null);
    raw["data_base64"] = json!("/wA=");
    raw["content_type"] = json!("image/png");
    raw.as_object_mut().unwrap().remove("data");
    let jitney = ScriptedJitney::giving(vec![vec![raw]]).await;
    let worker =
        Worker::new(jitney.client(), "p").on_group_raw("raw", async |job: Job<Payload>| Ok(job.data));
    let heard = run_until_heard(&jitney, worker, |heard| heard.ended("l0")).await;
    let outcome = outcome_of(&heard, 1);
    assert_eq!(
        (&outcome["ok_base64"], &outcome["content_type"]),
        (&json!("/wA="), &json!("image/png"))
    );
}

#[tokio::test]
async fn a_stop_finishes_the_job_at_hand_and_gives_the_others_back() {
    let jobs = (1..=3).map(|number| job(number, "slow", json!(number))).collect();
    let jitney = ScriptedJitney::giving(vec![jobs]).await;
    let (begun, stop) = oneshot::channel();
    let begun = Arc::new(std::sync::Mutex::new(Some(begun)));
    let go_on = Arc::new(Notify::new());
    let finish = Arc::clone(&go_on);
    let worker = Worker::new(jitney.client(), "p")
        .max_jobs(8)
        .on_group("slow", move |job: Job<i64>| {
            let begun = begun.lock().unwrap().take();
            let go_on = Arc::clone(&go_on);
            async move {
                begun.map(|begun| begun.send(()));
                go_on.notified().await;
                Ok::<i64, HandlerError>(job.data)
            }
        });
    let stopping = async move {
        stop.await.unwrap();
        // Nothing else runs on this thread before the worker has begun to stop.
        finish.notify_one();
    };
    worker.run_until(stopping).await.unwrap();
    let heard = jitney.until(|heard| heard.ended("l0")).await;
    assert_eq!(outcome_of(&heard, 1)["ok"], 1);
    assert_eq!(outcome_of(&heard, 2)["release"], true);
    assert_eq!(outcome_of(&heard, 3)["release"], true);
}

#[tokio::test]
async fn a_handler_that_outlasts_the_grace_is_dropped_and_its_job_given_back() {
    let jitney = ScriptedJitney::giving(vec![vec![job(1, "stuck", Value::Null)]]).await;
    let begun = Arc::new(Notify::new());
    let handler = Arc::clone(&begun);
    let worker = Worker::new(jitney.client(), "p")
        .grace(Duration::from_millis(10))
        .on_group("stuck", move |_: Job<()>| {
            handler.notify_one();
            std::future::pending::<Result<(), HandlerError>>()
        });
    worker.run_until(begun.notified()).await.unwrap();
    let heard = jitney.until(|heard| heard.ended("l0")).await;
    assert_eq!(outcome_of(&heard, 1)["release"], true);
}

#[tokio::test]
async fn a_slow_job_keeps_its_lease_alive() {
    let jitney = ScriptedJitney::start(vec![vec![job(1, "slow", Value::Null)]], 90).await;
    let (done, extended) = oneshot::channel::<()>();
    let extended = Arc::new(tokio::sync::Mutex::new(extended));
    let worker = Worker::new(jitney.client(), "p").on_group("slow", move |_: Job<()>| {
        let extended = Arc::clone(&extended);
        async move {
            (&mut *extended.lock().await).await?;
            Ok::<_, HandlerError>(())
        }
    });
    let beats = async {
        jitney.until(|heard| heard.extends >= 3).await;
        done.send(()).unwrap();
        jitney.until(|heard| heard.ended("l0")).await;
    };
    worker.run_until(beats).await.unwrap();
    let heard = jitney.until(|_| true).await;
    assert_eq!(outcome_of(&heard, 1)["ok"], Value::Null);
}

#[tokio::test]
async fn a_batch_handler_that_panics_crashes_its_batch() {
    let jobs = (1..=2).map(|number| job(number, "sum", json!(number))).collect();
    let jitney = ScriptedJitney::giving(vec![jobs]).await;
    let worker = Worker::new(jitney.client(), "p").max_jobs(8).on_batch(
        "sum",
        async |jobs: Vec<Job<i64>>| -> Result<Outcomes<i64>, HandlerError> { panic!("{} jobs", jobs.len()) },
    );
    let heard = run_until_heard(&jitney, worker, |heard| heard.ended("l0")).await;
    let (_, end) = heard.settles.last().unwrap();
    assert_eq!(
        (&end["failed"]["code"], &end["crashed"]),
        (&json!("panicked"), &json!(true))
    );
    assert_eq!(heard.outcomes(), Vec::<Value>::new());
}

#[tokio::test]
async fn several_slots_run_at_once() {
    let batches = (1..=3).map(|number| vec![job(number, "meet", Value::Null)]);
    let jitney = ScriptedJitney::giving(batches.collect()).await;
    let met = Arc::new(tokio::sync::Barrier::new(3));
    let most = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&most);
    let worker = Worker::new(jitney.client(), "p")
        .slots(3)
        .on_group("meet", move |_: Job<()>| {
            let (met, most) = (Arc::clone(&met), Arc::clone(&most));
            async move {
                // Ends only if all three are here.
                met.wait().await;
                most.fetch_add(1, Ordering::SeqCst);
                Ok::<_, HandlerError>(())
            }
        });
    run_until_heard(&jitney, worker, |heard| heard.outcomes().len() == 3).await;
    assert_eq!(counted.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_worker_that_the_server_refuses_ends_with_its_reason() {
    let refusal = r#"{"code":"invalid_value","detail":"no such name","retry":"no"}"#.to_owned();
    let server =
        crate::client::scripted::ScriptedServer::answering(vec![None, Some((400, "", refusal))]).await;
    let client = Client::new(&server.url).unwrap();
    let ended = Worker::new(client, "p").run_until(std::future::pending()).await;
    assert!(matches!(ended, Err(Error::Refused(problem)) if problem.code == "invalid_value"));
    let asked = server.asked();
    assert_eq!(asked[0].json()["request_id"], asked[1].json()["request_id"]);
}

/// A worker of a server whose `wait_max` is below its own 30 s ended at its first poll.
#[tokio::test]
async fn a_worker_waits_no_longer_than_its_server_allows() {
    let too_long = r#"{"code":"invalid_value","detail":"`wait` is 30s; `wait_max` is 300ms","retry":"no",
        "pointer":"/wait","limit":300}"#;
    let refusal = r#"{"code":"invalid_value","detail":"enough","retry":"no"}"#;
    let answers = [too_long, refusal].map(|problem| Some((400, "", problem.to_owned())));
    let server = crate::client::scripted::ScriptedServer::answering(answers.to_vec()).await;
    let client = Client::new(&server.url).unwrap();
    let ended = Worker::new(client, "p").run_until(std::future::pending()).await;
    assert!(matches!(ended, Err(Error::Refused(problem)) if problem.detail == "enough"));
    let waits: Vec<Value> = server
        .asked()
        .iter()
        .map(|asked| asked.json()["wait"].clone())
        .collect();
    assert_eq!(waits, ["30s", "300ms"]);
}

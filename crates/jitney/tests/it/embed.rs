//! A jitney inside the program: the promises of the server without HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jitney::Jitney;
use jitney::client::{Client, Error, Retries, Submit};
use jitney::embed::{Builder, OpenError};
use jitney::job::{Payload, State, Status};
use jitney::policy::PolicyPatch;
use jitney::worker::{HandlerError, Job, Outcomes, Worker, service};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tower::ServiceBuilder;

/// Less than a lease lasts.
const PATIENCE: Duration = Duration::from_secs(25);

fn order(number: i64) -> Submit {
    Submit::json("orders", &number).unwrap()
}

async fn double(job: Job<i64>) -> Result<i64, HandlerError> {
    Ok(2 * job.data)
}

/// A handler that says when it has begun, and goes on when it is told.
fn waiting(worker: Worker) -> (Worker, Arc<Notify>, Arc<Notify>) {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits) = (Arc::clone(&begun), Arc::clone(&go_on));
    let worker = worker.on_group("default", move |job: Job<i64>| {
        begins.notify_one();
        let waits = Arc::clone(&waits);
        async move {
            waits.notified().await;
            Ok::<_, HandlerError>(job.data)
        }
    });
    (worker, begun, go_on)
}

async fn refusal(client: &Client, submit: Submit) -> (String, u16, String) {
    match client.submit(submit).await {
        Err(Error::Refused(problem)) => (problem.code.clone(), problem.status, problem.detail.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let jitney = Jitney::open(directory.path()).await.unwrap();
    let first = jitney
        .client()
        .submit(order(21).idempotency_key("a"))
        .await
        .unwrap();
    assert!(!first.replayed);
    jitney.close().await.unwrap();

    let jitney = Jitney::open(directory.path()).await.unwrap();
    let client = jitney.client();
    let again = client.submit(order(21).idempotency_key("a")).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.job.id, first.job.id);
    jitney.spawn(jitney.worker("orders").on_group("default", double));
    let job = client.get_and_wait(first.job.id, PATIENCE).await.unwrap();
    assert_eq!(job.result_as::<i64>().unwrap(), 42);
    assert!(job.json().contains(r#""status":"processed_ok""#));
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_has_one_jitney_at_a_time_and_the_second_is_told_whose_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let first = Jitney::open(directory.path()).await.unwrap();
    let error = Jitney::open(directory.path()).await.unwrap_err().to_string();
    let pid = std::process::id().to_string();
    assert!(error.contains(&pid), "{error}");
    first.close().await.unwrap();
    let second = Jitney::open(directory.path()).await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn what_a_program_ran_when_it_ended_is_a_crash_at_its_next_start_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let jitney = Jitney::builder(directory.path())
        .grace(Duration::ZERO)
        .open()
        .await
        .unwrap();
    let (worker, begun, _) = waiting(jitney.worker("orders"));
    // Not spawned by the jitney, so that its end does not give the job back.
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    let id = jitney.client().submit(order(1)).await.unwrap().job.id;
    begun.notified().await;
    jitney.close().await.unwrap();
    worker.abort();

    let jitney = Jitney::open(directory.path()).await.unwrap();
    jitney.spawn(jitney.worker("orders").on_group("default", double));
    // Before the lease of the first try would have ended.
    let job = jitney.client().get_and_wait(id, PATIENCE).await.unwrap();
    assert_eq!((job.result_as::<i64>().unwrap(), job.crashes), (2, 1));
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn a_close_lets_the_job_at_hand_finish_and_its_caller_hear_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let jitney = Jitney::open(directory.path()).await.unwrap();
    let (worker, begun, go_on) = waiting(jitney.worker("orders"));
    jitney.spawn(worker);
    let client = jitney.client();
    let caller = tokio::spawn(async move { client.submit_and_wait(order(7), PATIENCE).await });
    begun.notified().await;
    let client = jitney.client().with_retries(Retries::none());
    let next = client.submit(order(8)).await.unwrap().job.id;
    let closing = tokio::spawn(jitney.close());
    // The close has begun when submits are refused.
    while client.submit(order(9)).await.is_ok() {}
    go_on.notify_one();
    let job = caller.await.unwrap().unwrap();
    assert_eq!(job.result_as::<i64>().unwrap(), 7);
    closing.await.unwrap().unwrap();
    assert!(matches!(client.get(next).await, Err(Error::Refused(problem)) if problem.code == "draining"));

    let jitney = Jitney::open(directory.path()).await.unwrap();
    let job = jitney.client().get(next).await.unwrap();
    assert_eq!((job.state, job.attempts, job.crashes), (State::Queued, 0, 0));
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_outlives_its_jitney_ends_with_a_reason() {
    let jitney = Jitney::in_memory().open().await.unwrap();
    let worker = jitney.worker("orders").on_group("default", double);
    let worker = tokio::spawn(worker.run_until(std::future::pending()));
    jitney.close().await.unwrap();
    let ended = worker.await.unwrap();
    assert!(matches!(ended, Err(Error::Refused(problem)) if problem.code == "draining"));
}

#[tokio::test]
async fn a_handler_that_hangs_is_dropped_at_its_batch_timeout_and_its_slot_is_free_again() {
    let jitney = Jitney::in_memory()
        .policy(
            "orders",
            PolicyPatch {
                lease: Some(Duration::from_millis(100)),
                batch_timeout: Some(Duration::from_millis(150)),
                ..PolicyPatch::default()
            },
        )
        .open()
        .await
        .unwrap();
    let worker = jitney.worker("orders").slots(1);
    jitney.spawn(worker.on_group("default", async |job: Job<i64>| {
        if job.delivery == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<_, HandlerError>(job.data)
    }));
    let job = jitney.client().submit_and_wait(order(5), PATIENCE).await.unwrap();
    assert_eq!((job.result_as::<i64>().unwrap(), job.crashes), (5, 1));
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn a_setup_that_contradicts_itself_is_an_error_before_anything_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let open = async |builder: Builder| match builder.open().await {
        Err(OpenError::Contradiction(detail)) => detail,
        other => panic!("{other:?}"),
    };
    let builder = || Jitney::builder(directory.path().join("jobs"));
    let longer = PolicyPatch {
        lease: Some(Duration::from_secs(4)),
        heartbeat: Some(Duration::from_secs(3)),
        ..PolicyPatch::default()
    };
    assert!(
        open(builder().policy("orders", longer))
            .await
            .contains("heartbeat")
    );
    let detail = open(builder().policy("no name", PolicyPatch::default())).await;
    assert!(detail.contains("`no name`"));
    assert!(
        open(builder().segment_bytes(1 << 20))
            .await
            .contains("`segment_bytes`")
    );
    assert!(!directory.path().join("jobs").exists());
}

#[tokio::test]
async fn a_batch_handler_that_forgets_a_job_has_it_tried_again() {
    let jitney = Jitney::in_memory().open().await.unwrap();
    let client = jitney.client();
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(client.submit(order(number)).await.unwrap().job.id);
    }
    let worker = jitney.worker("orders").max_jobs(8);
    jitney.spawn(worker.on_batch("default", async |jobs: Vec<Job<i64>>| {
        // In another order than they came, and one left out at first.
        let answered = jobs
            .into_iter()
            .rev()
            .filter(|job| job.data != 3 || job.attempt > 1);
        Ok(answered
            .map(|job| (job.id, Ok(job.data)))
            .collect::<Outcomes<i64>>())
    }));
    for (number, id) in (1..).zip(ids) {
        let job = client.get_and_wait(id, PATIENCE).await.unwrap();
        assert_eq!(job.result_as::<i64>().unwrap(), number);
        assert_eq!(job.attempts, if number == 3 { 2 } else { 1 });
    }
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn bytes_stay_what_they_are() {
    let jitney = Jitney::in_memory().open().await.unwrap();
    jitney.spawn(
        jitney
            .worker("images")
            .on_group_raw("default", async |job: Job<Payload>| Ok(job.data)),
    );
    for (content_type, bytes) in [
        (Some("image/png"), &b"\x89PNG\xff"[..]),
        (None, &b"{\"b\":1.0,  \"a\":1e400}"[..]),
    ] {
        let payload = Payload {
            content_type: content_type.map(Into::into),
            bytes: Bytes::from_static(bytes),
        };
        let submit = Submit::payload("images", payload.clone());
        let job = jitney.client().submit_and_wait(submit, PATIENCE).await.unwrap();
        assert_eq!(job.result, Some(payload));
    }
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn a_jitney_that_listens_is_the_same_one_over_http() {
    let listening = |builder: Builder| builder.listen(([127, 0, 0, 1], 0).into());
    let jitney = listening(Jitney::in_memory()).open().await.unwrap();
    let inside = jitney.client();
    let outside = Client::new(&jitney.address().unwrap().to_string()).unwrap();
    let id = inside
        .submit(order(4).key("k").label("a", "b"))
        .await
        .unwrap()
        .job
        .id;
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::new(outside.clone(), "orders").on_group("default", double);
    let worker = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
    let seen = inside.get_and_wait(id, PATIENCE).await.unwrap();
    assert_eq!(seen.status, Status::ProcessedOk);
    assert_eq!(
        seen,
        outside.get(id).await.unwrap(),
        "the same job, and the same words for it"
    );
    assert!(inside.info().await.unwrap().json().contains(r#""bus":"memory""#));
    inside.alive().await.unwrap();
    inside.ready().await.unwrap();
    drop(stop);
    worker.await.unwrap().unwrap();
    jitney.close().await.unwrap();
}

#[tokio::test]
async fn layers_stand_around_handlers_and_let_their_errors_through() {
    let jitney = Jitney::in_memory().open().await.unwrap();
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let handler = service(move |job: Job<i64>| {
        let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
        async move {
            most.fetch_max(1 + inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            // Others come in now, if they can.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            match job.data {
                0 => Err(HandlerError::last("zero", "nothing to do")),
                99 if job.attempt == 1 => std::future::pending().await,
                number => Ok(2 * number),
            }
        }
    });
    let layered = ServiceBuilder::new()
        .timeout(Duration::from_millis(200))
        .concurrency_limit(2)
        .service(handler);
    let batches = ServiceBuilder::new()
        .timeout(PATIENCE)
        .map_request(|jobs: Vec<Job<i64>>| jobs)
        .service(service(async |jobs: Vec<Job<i64>>| {
            Ok(jobs
                .iter()
                .map(|job| job.ok(-job.data))
                .collect::<Outcomes<i64>>())
        }));
    // One job at a time for each slot, so that the slots meet at the limit.
    let worker = jitney.worker("orders").slots(8).max_jobs(1);
    jitney.spawn(
        worker
            .on_service("default", layered)
            .on_batch_service("negate", batches),
    );
    let client = jitney.client();
    let mut callers = JoinSet::new();
    for number in (0..20).chain([99]) {
        let client = client.clone();
        callers.spawn(async move {
            (
                number,
                client.submit_and_wait(order(number), PATIENCE).await.unwrap(),
            )
        });
    }
    while let Some(called) = callers.join_next().await {
        let (number, job) = called.unwrap();
        if number == 0 {
            let error = job.error.as_ref().unwrap();
            assert_eq!((error.code.as_str(), job.attempts), ("zero", 1));
        } else {
            assert_eq!(job.result_as::<i64>().unwrap(), 2 * number);
            assert_eq!(job.attempts, if number == 99 { 2 } else { 1 });
        }
    }
    assert_eq!(seen.load(Ordering::SeqCst), 2, "as many as the limit lets in");
    let negated = client
        .submit_and_wait(order(5).group("negate"), PATIENCE)
        .await
        .unwrap();
    assert_eq!(negated.result_as::<i64>().unwrap(), -5);
    jitney.close().await.unwrap();
}

/// The rules for what a job may be stand in one place; each way in must go by it.
#[tokio::test]
async fn what_is_refused_over_http_is_refused_in_the_process_with_the_same_words() {
    let jitney = Jitney::in_memory()
        .listen(([127, 0, 0, 1], 0).into())
        .open()
        .await
        .unwrap();
    let inside = jitney.client();
    let outside = Client::new(&jitney.address().unwrap().to_string()).unwrap();
    let image = |content_type: &str| {
        Submit::payload(
            "orders",
            Payload {
                content_type: Some(content_type.into()),
                bytes: Bytes::from_static(b"x"),
            },
        )
    };
    let id = inside.submit(order(1)).await.unwrap().job.id;
    for wrong in [
        Submit::json("no name", &1).unwrap(),
        order(1).group("-"),
        order(1).key(""),
        order(1).key("k".repeat(256)),
        order(1).label("", "x"),
        order(1).label("x", "v".repeat(257)),
        (0..17).fold(order(1), |order, n| order.label(n.to_string(), "x")),
        order(1).idempotency_key("a b"),
        order(1).idempotency_key("k").id(id),
        Submit::json("orders", &"x".repeat(2 << 20)).unwrap(),
        image("application/vnd.x+json"),
        image("\u{e9}"),
    ] {
        let (code, status, detail) = refusal(&inside, wrong.clone()).await;
        let (same_code, same_status, same_detail) = refusal(&outside, wrong).await;
        assert_eq!(
            (&code, status),
            (&same_code, same_status),
            "{detail} | {same_detail}"
        );
    }
    jitney.close().await.unwrap();
}

//! The Rust worker against a whole jitney, over HTTP and in the same process: typed handlers, their children, and a
//! stop between two workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jitney::Jitney;
use jitney::client::{Client, Submit};
use jitney::job::{Priority, Processor, State, Status};
use jitney::policy::{PolicyBook, PolicyPatch, ProcessorPolicy};
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
use jitney::worker::{HandlerError, Job, Outcomes, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(25);

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Order {
    price: i64,
    status: Option<String>,
}

async fn server() -> (Running, Client) {
    let server = start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        bus: BusOptions::Memory,
        ..Options::default()
    })
    .await
    .unwrap();
    let client = Client::new(&server.address().to_string()).unwrap();
    (server, client)
}

async fn execute(job: Job<Order>) -> Result<Order, HandlerError> {
    match job.data.price {
        0 => Err(HandlerError::last("free", "nothing is free")),
        13 if job.delivery == 1 => panic!("unlucky"),
        price => {
            job.submit_child(Submit::json("mail", &price)?.group("receipt"));
            Ok(Order {
                price,
                status: Some("approved".to_owned()),
            })
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_take_and_give_types_and_their_children_run() {
    let (server, client) = server().await;
    orders_and_their_mails(client).await;
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_in_the_same_process_take_and_give_types_and_their_children_run() {
    let directory = tempfile::tempdir().unwrap();
    let jitney = Jitney::open(directory.path()).await.unwrap();
    orders_and_their_mails(jitney.client()).await;
    jitney.close().await.unwrap();
}

async fn orders_and_their_mails(client: Client) {
    let (stop, stopped) = tokio::sync::watch::channel(());
    let gone = |mut stopped: tokio::sync::watch::Receiver<()>| async move { drop(stopped.changed().await) };
    let orders = Worker::new(client.clone(), "orders")
        .slots(4)
        .max_jobs(8)
        .on_group("order", execute)
        .on_group("double", async |job: Job<i64>| match job.data {
            0 => Err(HandlerError::last("zero", "it has no double of its own")),
            number => Ok(2 * number),
        });
    let (sent, mut mails) = tokio::sync::mpsc::channel(64);
    let mail =
        Worker::new(client.clone(), "mail")
            .max_jobs(64)
            .on_batch("receipt", move |jobs: Vec<Job<i64>>| {
                let sent = sent.clone();
                async move {
                    for job in &jobs {
                        sent.send(job.data).await?;
                    }
                    Ok::<Outcomes<()>, HandlerError>(jobs.iter().map(|job| (job.id, Ok(()))).collect())
                }
            });
    let orders = tokio::spawn(orders.run_until(gone(stopped.clone())));
    let mail = tokio::spawn(mail.run_until(gone(stopped)));
    let mut callers = JoinSet::new();
    for price in 0..40 {
        let order = Order { price, status: None };
        let submit = Submit::json("orders", &order).unwrap().group("order");
        let client = client.clone();
        callers.spawn(async move { (price, client.submit_and_wait(submit, PATIENCE).await.unwrap()) });
    }
    while let Some(called) = callers.join_next().await {
        let (price, job) = called.unwrap();
        if price == 0 {
            assert_eq!(job.status, Status::ProcessedError);
            assert_eq!(job.error.as_ref().unwrap().code, "free");
            continue;
        }
        let order: Order = job.result_as().unwrap();
        assert_eq!((order.price, order.status.as_deref()), (price, Some("approved")));
        assert_eq!((job.attempts, job.children), (1, 1));
        if price == 13 {
            assert_eq!(job.crashes, 1);
        }
    }
    let mut mailed = Vec::new();
    while mailed.len() < 39 {
        mailed.push(mails.recv().await.unwrap());
    }
    mailed.sort_unstable();
    assert_eq!(mailed, (1..40).collect::<Vec<_>>());
    many_have_their_own_ends(&client).await;
    drop(stop);
    orders.await.unwrap().unwrap();
    mail.await.unwrap().unwrap();
}

/// More than go into one request, one of them with an error and one wrong.
async fn many_have_their_own_ends(client: &Client) {
    let numbers = (1..1_051).chain([0]);
    let orders = numbers.map(|number: i64| Submit::json("orders", &number).unwrap().group("double"));
    let mut orders: Vec<Submit> = orders.collect();
    orders.push(Submit::json("not a processor", &1).unwrap());
    let ends = client.submit_many_and_wait(orders, PATIENCE).await.unwrap();
    assert_eq!(ends.len(), 1_052);
    for (number, end) in (1..1_051).zip(&ends) {
        assert_eq!(end.as_ref().unwrap().result_as::<i64>().unwrap(), 2 * number);
    }
    let zero = ends[1_050].as_ref().unwrap();
    assert_eq!(zero.error.as_ref().unwrap().code, "zero");
    let wrong = &ends[1_051];
    assert!(
        matches!(wrong, Err(jitney::client::Error::Refused(_))),
        "{wrong:?}"
    );
    // Nobody works on these: each goes on.
    let idle = Submit::json("idle", &1).unwrap();
    let ends = client
        .submit_many_and_wait(vec![idle; 3], Duration::from_millis(20))
        .await
        .unwrap();
    for end in ends {
        let Err(jitney::client::Error::TimedOut { id, .. }) = end else {
            panic!("{end:?}")
        };
        assert!(!client.get(id).await.unwrap().has_ended());
    }
}

/// C15 as a whole: a log on disk, HTTP, and a worker of four slots that are all busy with SLOW but the reserved one.
#[tokio::test(flavor = "multi_thread")]
async fn realtime_is_served_while_every_other_slot_is_busy() {
    let data = tempfile::tempdir().unwrap();
    let reserve = ProcessorPolicy {
        base: PolicyPatch {
            realtime_reserve: Some(1),
            max_jobs: Some(1),
            max_delay: Some(Duration::ZERO),
            ..PolicyPatch::default()
        },
        ..ProcessorPolicy::default()
    };
    let server = start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        bus: BusOptions::Log {
            data: data.path().to_owned(),
            segment_bytes: 64 << 20,
            cache_bytes: 1 << 20,
        },
        policies: PolicyBook {
            processors: [(Processor::parse("orders").unwrap(), reserve)].into(),
            ..PolicyBook::default()
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let client = Client::new(&server.address().to_string()).unwrap();
    let submit = |number: i64, priority| Submit::json("orders", &number).unwrap().priority(priority);
    let mut slow = Vec::new();
    for number in 0..50 {
        let submitted = client.submit(submit(number, Priority::Slow)).await.unwrap();
        slow.push(submitted.job.id);
    }
    let (begun, mut begins) = tokio::sync::mpsc::channel(64);
    let (release, released) = tokio::sync::watch::channel(false);
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = Worker::new(client.clone(), "orders")
        .slots(4)
        .on_group("default", move |job: Job<i64>| {
            let (begun, mut released) = (begun.clone(), released.clone());
            async move {
                if job.data < 1_000 {
                    begun.send(job.data).await?;
                    released.wait_for(|released| *released).await?;
                }
                Ok::<_, HandlerError>(job.data)
            }
        });
    let worker = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
    for _ in 0..3 {
        assert!(begins.recv().await.unwrap() < 3, "the oldest three");
    }
    // None of the three ends before all of these have: they have the reserved slot, one after the other.
    for number in 1_000..1_020 {
        let submit = submit(number, Priority::Realtime);
        let job = client.submit_and_wait(submit, PATIENCE).await.unwrap();
        assert_eq!(job.result_as::<i64>().unwrap(), number);
    }
    assert!(begins.try_recv().is_err(), "the reserve took no SLOW");
    release.send_replace(true);
    for id in slow {
        let job = client.get_and_wait(id, PATIENCE).await.unwrap();
        assert_eq!(job.status, Status::ProcessedOk);
        while begins.try_recv().is_ok() {}
    }
    drop(stop);
    worker.await.unwrap().unwrap();
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_a_stopping_worker_gives_back_the_next_one_takes() {
    let (server, client) = server().await;
    two_workers_in_turn(client).await;
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_a_stopping_worker_in_the_same_process_gives_back_the_next_one_takes() {
    let jitney = Jitney::in_memory().open().await.unwrap();
    two_workers_in_turn(jitney.client()).await;
    jitney.close().await.unwrap();
}

async fn two_workers_in_turn(client: Client) {
    let mut ids = Vec::new();
    for number in 0..6 {
        let submit = Submit::json("orders", &number).unwrap();
        ids.push(client.submit(submit).await.unwrap().job.id);
    }
    let (begun, stop) = oneshot::channel();
    let begun = Arc::new(std::sync::Mutex::new(Some(begun)));
    let go_on = Arc::new(Notify::new());
    let finish = Arc::clone(&go_on);
    let first = Worker::new(client.clone(), "orders")
        .name("first")
        .max_jobs(64)
        .on_group("default", move |job: Job<i64>| {
            let begun = begun.lock().unwrap().take();
            let go_on = Arc::clone(&go_on);
            async move {
                if let Some(begun) = begun {
                    begun.send(()).unwrap();
                }
                go_on.notified().await;
                Ok::<_, HandlerError>(("first", job.data))
            }
        });
    first
        .run_until(async move {
            stop.await.unwrap();
            // Nothing else runs on this thread before the worker has begun to stop.
            finish.notify_one();
        })
        .await
        .unwrap();
    let mut left = Vec::new();
    for id in &ids {
        let job = client.get(*id).await.unwrap();
        if job.status != Status::ProcessedOk {
            assert_eq!((job.state, job.attempts, job.crashes), (State::Queued, 0, 0));
            left.push(*id);
        }
    }
    assert_eq!(left.len(), 5);

    let (stop, stopped) = oneshot::channel::<()>();
    let second = Worker::new(client.clone(), "orders")
        .name("second")
        .on_group("default", async |job: Job<i64>| Ok(("second", job.data)));
    let second = tokio::spawn(second.run_until(async { drop(stopped.await) }));
    for id in left {
        let job = client.get_and_wait(id, PATIENCE).await.unwrap();
        let (by, _): (String, i64) = job.result_as().unwrap();
        assert_eq!(by, "second");
        assert_eq!(job.attempts, 1);
    }
    drop(stop);
    second.await.unwrap().unwrap();
}

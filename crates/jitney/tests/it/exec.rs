//! The exec worker against a whole server: what a program does, well or badly, and what its callers hear.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jitney::client::{Client, Job, Submit};
use jitney::exec::{self, ExecOptions};
use jitney::job::{Reason, State, Status};
use jitney::policy::{PolicyBook, PolicyPatch, ProcessorPolicy};
use jitney::server::options::{BusOptions, Options};
use jitney::server::{Running, start};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything here takes, shorter than a lease: what waits for a lease to run out fails.
const PATIENCE: Duration = Duration::from_secs(25);

/// A server, and a worker with a program.
struct Stand {
    server: Running,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    worker: Option<JoinHandle<Result<(), exec::Error>>>,
}

impl Stand {
    async fn start(command: Vec<String>, concurrency: usize) -> Self {
        let mut stand = Self::without_worker().await;
        stand.work(command, concurrency);
        stand
    }

    async fn without_worker() -> Self {
        let orders = ProcessorPolicy {
            base: PolicyPatch {
                max_jobs: Some(16),
                backoff: Some(Duration::from_millis(1)),
                ..PolicyPatch::default()
            },
            ..ProcessorPolicy::default()
        };
        let mut policies = PolicyBook::default();
        let name = jitney::job::Processor::parse("orders").unwrap();
        policies.processors.insert(name, orders);
        let server = start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bus: BusOptions::Memory,
            policies,
            ..Options::default()
        })
        .await
        .unwrap();
        let client = Client::new(&server.address().to_string()).unwrap();
        Self {
            server,
            client,
            stop: None,
            worker: None,
        }
    }

    fn work(&mut self, command: Vec<String>, concurrency: usize) {
        self.work_with(command, concurrency, false);
    }

    /// A fresh process per batch.
    fn work_once(&mut self, command: Vec<String>, concurrency: usize) {
        self.work_with(command, concurrency, true);
    }

    fn work_with(&mut self, command: Vec<String>, concurrency: usize, once: bool) {
        let (stop, stopped) = oneshot::channel();
        let options = self.options(command, concurrency, once);
        self.stop = Some(stop);
        self.worker = Some(tokio::spawn(exec::run(options, async { drop(stopped.await) })));
    }

    fn options(&self, command: Vec<String>, concurrency: usize, once: bool) -> ExecOptions {
        ExecOptions {
            client: self.client.clone(),
            processor: "orders".to_owned(),
            command,
            concurrency,
            worker: "w-1".to_owned(),
            max_jobs: None,
            priorities: Vec::new(),
            grace: Duration::from_secs(10),
            once,
        }
    }

    fn order(&self, data: Value) -> impl Future<Output = Job> + Send + use<> {
        let client = self.client.clone();
        let submit = Submit::json("orders", &data).unwrap().group("order");
        async move { client.submit_and_wait(submit, PATIENCE).await.unwrap() }
    }

    async fn end_worker(&mut self) {
        drop(self.stop.take());
        if let Some(worker) = self.worker.take() {
            worker.await.unwrap().unwrap();
        }
    }

    async fn end(mut self) {
        self.end_worker().await;
        self.server.stop(Duration::from_secs(1)).await;
    }
}

fn python(body: &str) -> Vec<String> {
    let head = "import json, os, sys, time\ndef say(line): print(json.dumps(line), flush=True)\n";
    ["python3", "-c", &format!("{head}{body}")]
        .map(str::to_owned)
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_gets_its_own_order_from_the_example_program() {
    let mut program = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    program.push("../../examples/exec/order_executor.py");
    let command = vec!["python3".to_owned(), program.to_str().unwrap().to_owned()];
    let stand = Stand::start(command, 2).await;
    let mut callers = JoinSet::new();
    for number in 0..100 {
        // Line ends inside the data are the wire's affair, not the caller's.
        let order = stand.order(json!({"order": format!("A-{number}\r\n"), "price": number}));
        callers.spawn(async move { (number, order.await) });
    }
    while let Some(called) = callers.join_next().await {
        let (number, job) = called.unwrap();
        let expected = json!({"order": format!("A-{number}\r\n"), "price": number, "status": "approved"});
        assert_eq!(job.result_as::<Value>().unwrap(), expected);
    }
    let wrong = stand.order(json!({"price": "ten"})).await;
    assert_eq!(wrong.status, Status::ProcessedError);
    assert_eq!(wrong.error.as_ref().unwrap().code, "bad_order");
    stand.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_kills_its_program_is_given_up_and_takes_no_other_with_it() {
    let stand = Stand::start(
        python(
            "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' not in it: continue
    if it['data'] == 'poison': os.kill(os.getpid(), 9)
    say({'id': it['id'], 'ok': it['data']})
",
        ),
        1,
    )
    .await;
    let mut callers = JoinSet::new();
    for number in 0..20 {
        let data = if number == 7 {
            json!("poison")
        } else {
            json!(number)
        };
        let order = stand.order(data);
        callers.spawn(async move { (number, order.await) });
    }
    while let Some(called) = callers.join_next().await {
        let (number, job) = called.unwrap();
        if number == 7 {
            assert_eq!(
                (job.status, job.state, job.reason),
                (Status::BatchFailed, State::Dead, Some(Reason::Dead))
            );
            assert_eq!(job.error.as_ref().unwrap().code, "crashed");
            assert_eq!(job.attempts, 0, "a crash is no attempt");
            assert!(job.crashes >= 3, "{}", job.json());
        } else {
            assert_eq!(job.result_as::<Value>().unwrap(), json!(number));
            assert_eq!(job.attempts, 1);
        }
    }
    stand.end().await;
}

/// The handler ran five times, the job ended `exhausted`, and its code was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_final_error_is_final_however_its_text_came_out() {
    let stand = Stand::start(
        python(
            r#"
for line in sys.stdin:
    it = json.loads(line)
    if 'data' not in it: continue
    error = {'code': 'declined', 'message': 'm', 'retryable': False}
    if it['data'] == 'long': error['message'] = 'x' * 5000
    if it['data'] == 'half': error['message'] = 'a\ud800'
    if it['data'] == 'code': error['code'] = 'c' * 65
    if it['data'] == 'large': error['data'] = 'x' * (2 << 20)
    if it['data'] == 'fine': error['data'] = [1]
    say({'id': it['id'], 'error': error})
"#,
        ),
        1,
    )
    .await;
    for (data, code, message, kept) in [
        ("fine", "declined", "m".to_owned(), true),
        ("long", "declined", "x".repeat(4_096), false),
        ("half", "declined", "a\u{fffd}".to_owned(), false),
        ("code", "invalid_code", "m".to_owned(), false),
        ("large", "declined", "m".to_owned(), false),
    ] {
        let job = stand.order(json!(data)).await;
        let error = job.error.as_ref().unwrap();
        assert_eq!((&*error.code, &error.message), (code, &message), "{data}");
        assert_eq!((job.attempts, job.reason), (1, None), "{data}");
        assert_eq!(error.data.is_some(), kept, "{data}");
    }
    stand.end().await;
}

/// What the server says of the processor's first lane.
async fn lane(client: &Client) -> Value {
    let lanes: Value = serde_json::from_str(client.lanes().await.unwrap().json()).unwrap();
    lanes["lanes"][0].clone()
}

/// A deploy gone wrong: callers lost their jobs to it although a healthy worker stood beside.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_start_takes_no_job_with_it_and_the_server_shows_it() {
    let mut stand = Stand::start(python("import no_such_module"), 2).await;
    let mut callers = JoinSet::new();
    for number in 0..20 {
        let order = stand.order(json!(number));
        callers.spawn(async move { (number, order.await) });
    }
    let shown = async {
        loop {
            let lane = lane(&stand.client).await;
            if lane["workers_not_ready"] == 1 {
                return lane;
            }
            tokio::task::yield_now().await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, shown).await.unwrap();
    assert_eq!(
        shown["not_ready"],
        json!({"worker": "w-1", "why": "`python3` exited with code 1"})
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let healthy = ExecOptions {
        worker: "w-2".to_owned(),
        ..stand.options(
            python(
                "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' in it: say({'id': it['id'], 'ok': it['data']})
",
            ),
            1,
            false,
        )
    };
    let healthy = tokio::spawn(exec::run(healthy, async { drop(stopped.await) }));
    while let Some(called) = callers.join_next().await {
        let (number, job) = called.unwrap();
        assert_eq!(job.result_as::<Value>().unwrap(), json!(number));
        assert_eq!((job.attempts, job.crashes), (1, 0), "{}", job.json());
    }
    stand.end_worker().await;
    assert_eq!(lane(&stand.client).await["not_ready"], Value::Null);
    drop(stop);
    healthy.await.unwrap().unwrap();
    stand.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_and_missing_outcomes_cost_only_their_own_tries() {
    let stand = Stand::start(
        python(
            "
while True:
    line = sys.stdin.readline()
    if not line: break
    header = json.loads(line)
    for _ in range(header['jobs']):
        it = json.loads(sys.stdin.readline())
        print('rubbish', flush=True)
        if it['attempt'] == 1: continue
        say({'id': it['id'], 'ok': it['attempt']})
    say({'batch': header['batch'], 'done': True})
",
        ),
        1,
    )
    .await;
    let job = stand.order(json!(1)).await;
    assert_eq!(job.result_as::<u32>().unwrap(), 2);
    assert_eq!((job.attempts, job.crashes), (2, 0));
    stand.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_left_out_says_of_which_worker_and_batch() {
    let stand = Stand::start(
        python(
            "
for line in sys.stdin:
    it = json.loads(line)
    if 'jobs' in it: say({'batch': it['batch'], 'done': True})
",
        ),
        1,
    )
    .await;
    let job = stand.order(json!(1)).await;
    let error = job.error.as_ref().unwrap();
    assert_eq!(
        (job.reason, &*error.code),
        (Some(Reason::Exhausted), "missing_outcome")
    );
    let said = "the worker ended its batch without an outcome for this job (worker `w-1`, batch `";
    assert!(error.message.starts_with(said), "{}", error.message);
    stand.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_order_at_hand_and_gives_the_others_back() {
    let mut stand = Stand::without_worker().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let submit = Submit::json("orders", &number).unwrap();
        ids.push(stand.client.submit(submit).await.unwrap().job.id);
    }
    // Does the first order, begins the second, and is done with it once the input has ended.
    let command = python(
        "
lines = [json.loads(sys.stdin.readline()) for _ in range(3)]
say({'id': lines[1]['id'], 'ok': 1})
sys.stdin.read()
say({'id': lines[2]['id'], 'ok': 2})
",
    );
    stand.work(command, 1);
    stand.client.get_and_wait(ids[0], PATIENCE).await.unwrap();
    stand.end_worker().await;
    for (at, id) in ids.into_iter().enumerate() {
        let job = stand.client.get(id).await.unwrap();
        if at < 2 {
            assert_eq!(job.status, Status::ProcessedOk, "{}", job.json());
        } else {
            assert_eq!(
                (job.state, job.attempts, job.crashes),
                (State::Queued, 0, 0),
                "{}",
                job.json()
            );
        }
    }
    stand.end().await;
}

/// A worker with `--once`, and the shell script of the examples.
fn append_orders(file: &std::path::Path) -> Vec<String> {
    let mut script = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    script.push("../../examples/exec/append_orders.sh");
    ["bash", script.to_str().unwrap(), file.to_str().unwrap()]
        .map(str::to_owned)
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_script_gets_a_fresh_process_per_batch_and_its_exit_says_done() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orders.log");
    let mut stand = Stand::without_worker().await;
    stand.work_once(append_orders(&file), 2);
    let mut callers = JoinSet::new();
    for number in 0..30 {
        callers.spawn(stand.order(json!({"price": number})));
    }
    while let Some(job) = callers.join_next().await {
        let job = job.unwrap();
        assert_eq!(job.status, Status::ProcessedOk, "{}", job.json());
        assert_eq!(job.result_as::<Value>().unwrap(), Value::Null);
    }
    stand.end().await;
    let written = std::fs::read_to_string(&file).unwrap();
    for number in 0..30 {
        let price = format!("\"data\":{{\"price\":{number}}}");
        assert_eq!(
            written.lines().filter(|line| line.contains(&price)).count(),
            1,
            "{number}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_script_that_fails_fails_only_the_job_that_it_fails_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orders.log");
    let mut stand = Stand::without_worker().await;
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let data = if number == 5 {
            json!({"gift": 1})
        } else {
            json!({"price": number})
        };
        callers.spawn({
            let order = stand.order(data);
            async move { (number, order.await) }
        });
    }
    stand.work_once(append_orders(&file), 1);
    while let Some(called) = callers.join_next().await {
        let (number, job) = called.unwrap();
        if number == 5 {
            assert_eq!(
                (job.status, job.reason),
                (Status::ProcessedError, Some(Reason::Exhausted))
            );
            assert_eq!(job.error.as_ref().unwrap().code, "exit_code", "{}", job.json());
            assert_eq!(job.crashes, 0, "{}", job.json());
        } else {
            assert_eq!(job.status, Status::ProcessedOk, "{}", job.json());
        }
    }
    stand.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_writes_outcomes_is_taken_at_its_word() {
    let mut stand = Stand::without_worker().await;
    let command = python(
        "
assert json.loads(sys.stdin.readline())['jobs'] >= 1
for line in sys.stdin:
    it = json.loads(line)
    if it['data'] == 1 and it['attempt'] == 1: continue
    say({'id': it['id'], 'ok': [it['data'], it['attempt']]})
if os.environ.get('NOBODY'): sys.exit(1)
",
    );
    let orders: Vec<_> = (0..3).map(|number| stand.order(json!(number))).collect();
    let mut callers = JoinSet::new();
    for order in orders {
        callers.spawn(order);
    }
    stand.work_once(command, 1);
    let mut results = Vec::new();
    while let Some(job) = callers.join_next().await {
        results.push(job.unwrap().result_as::<Value>().unwrap());
    }
    results.sort_by_key(ToString::to_string);
    // The job that it did not name may have been alone in its batch: then an exit with 0 and not a word is "done".
    assert_eq!(results.len(), 3);
    assert!(
        results.contains(&json!([0, 1])) && results.contains(&json!([2, 1])),
        "{results:?}"
    );
    stand.end().await;
}

#[tokio::test]
async fn a_script_that_is_not_there_is_an_error_at_once() {
    let mut stand = Stand::without_worker().await;
    stand.work_once(vec!["./no-such-script".to_owned()], 1);
    let ended = stand.worker.take().unwrap().await.unwrap();
    assert!(matches!(ended, Err(exec::Error::Start { program, .. }) if program == "./no-such-script"));
    stand.end().await;
}

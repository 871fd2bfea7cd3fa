//! Real children against a scripted jitney.

use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::worker::scripted::{Heard, ScriptedJitney, id, job};

/// A child in Python: reads headers and jobs, calls `batch(header, jobs)`, which writes with `say`.
fn python(body: &str) -> Vec<String> {
    let program = format!(
        r#"
import json, os, sys, time
def say(line):
    print(line if isinstance(line, str) else json.dumps(line), flush=True)
{body}
"#
    );
    ["python3", "-c", &program].map(str::to_owned).to_vec()
}

const ECHO: &str = "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' in it:
        say({'id': it['id'], 'ok': it['data']})
";

fn options(jitney: &ScriptedJitney, command: Vec<String>) -> ExecOptions {
    ExecOptions {
        client: jitney.client(),
        processor: "orders".to_owned(),
        command,
        concurrency: 1,
        worker: "w-1".to_owned(),
        max_jobs: None,
        priorities: Vec::new(),
        grace: Duration::from_secs(10),
        once: false,
    }
}

/// Runs the command until jitney has heard enough, and gives all that it heard.
async fn heard(jitney: &ScriptedJitney, command: Vec<String>, enough: impl FnMut(&Heard) -> bool) -> Heard {
    let stop = async { drop(jitney.until(enough).await) };
    run(options(jitney, command), stop).await.unwrap();
    jitney.until(|_| true).await
}

fn batch(numbers: std::ops::RangeInclusive<u32>) -> Vec<Value> {
    numbers
        .map(|number| job(number, "order", json!({"price": number})))
        .collect()
}

fn outcome(heard: &Heard, number: u32) -> Value {
    let id = id(number).to_string();
    let all = heard.outcomes();
    all.into_iter()
        .find(|outcome| outcome["id"] == id)
        .unwrap_or_default()
}

fn failed(heard: &Heard, lease: &str) -> Value {
    let of = |(of, body): &&(String, Value)| of == lease && !body["failed"].is_null();
    heard
        .settles
        .iter()
        .find(of)
        .map(|(_, body)| body.clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_child_lives_on_from_batch_to_batch() {
    let jitney = ScriptedJitney::giving(vec![batch(1..=3), batch(4..=4), batch(5..=6)]).await;
    let command = python(
        "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' in it:
        say({'id': it['id'], 'ok': [it['data'], os.getpid()]})
",
    );
    let heard = heard(&jitney, command, |heard| heard.ended("l2")).await;
    let pid = outcome(&heard, 1)["ok"][1].clone();
    assert!(pid.is_number());
    for number in 1..=6 {
        assert_eq!(
            outcome(&heard, number)["ok"],
            json!([{"price": number}, pid]),
            "{number}"
        );
    }
}

/// A second outcome of a job stayed in the pipe and was taken for that of the job's next try.
#[tokio::test]
async fn what_a_child_writes_behind_a_batch_does_not_count_for_the_next() {
    let jitney = ScriptedJitney::giving(vec![batch(1..=1), batch(1..=1)]).await;
    let command = python(
        "
tries = 0
for line in sys.stdin:
    it = json.loads(line)
    if 'data' in it:
        tries += 1
        error = {'code': 'busy', 'message': '', 'retryable': True}
        first, second = {'id': it['id'], 'error': error}, {'id': it['id'], 'ok': tries}
        lines = [json.dumps(line) for line in ([first, second] if tries == 1 else [second])]
        say('\\n'.join(lines))
",
    );
    let heard = heard(&jitney, command, |heard| heard.ended("l1")).await;
    let outcomes = heard.outcomes();
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert_eq!(outcomes[0]["error"]["code"], "busy");
    assert_eq!(outcomes[1]["ok"], 2);
}

#[tokio::test]
async fn the_example_executor_approves_orders() {
    let mut program = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    program.push("../../examples/exec/order_executor.py");
    let jobs = vec![
        job(1, "order", json!({"price": 10, "order": "a \u{2028} \u{1f600}"})),
        job(2, "order", json!({"price": "ten"})),
        job(3, "order", json!([])),
    ];
    let jitney = ScriptedJitney::giving(vec![jobs]).await;
    let command = vec!["python3".to_owned(), program.to_str().unwrap().to_owned()];
    let heard = heard(&jitney, command, |heard| heard.ended("l0")).await;
    assert_eq!(
        outcome(&heard, 1)["ok"],
        json!({"price": 10, "order": "a \u{2028} \u{1f600}", "status": "approved"})
    );
    for wrong in [2, 3] {
        let error = &outcome(&heard, wrong)["error"];
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!("bad_order"), &json!(false))
        );
    }
}

#[tokio::test]
async fn an_outcome_is_settled_while_the_batch_goes_on() {
    // The child gives its second outcome only once the first was settled: the test tells it by a file.
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("settled");
    let command = python(&format!(
        "
lines = [json.loads(sys.stdin.readline()) for _ in range(3)]
say({{'id': lines[1]['id'], 'ok': 1}})
while not os.path.exists({flag:?}):
    time.sleep(0.005)
say({{'id': lines[2]['id'], 'ok': 2}})
"
    ));
    let jitney = ScriptedJitney::giving(vec![batch(1..=2)]).await;
    let enough = async {
        jitney.until(|heard| heard.outcomes().len() == 1).await;
        std::fs::write(&flag, b"").unwrap();
        jitney.until(|heard| heard.ended("l0")).await;
    };
    run(options(&jitney, command), enough).await.unwrap();
    let heard = jitney.until(|_| true).await;
    assert_eq!(heard.settles[0].1["final"], false);
    assert_eq!(outcome(&heard, 2)["ok"], 2);
}

#[tokio::test]
async fn a_child_that_dies_crashes_what_it_left_and_is_replaced() {
    let command = python(
        "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' not in it: continue
    if it['data']['price'] == 2: os.kill(os.getpid(), 9)
    say({'id': it['id'], 'ok': it['data']})
",
    );
    let jitney = ScriptedJitney::giving(vec![batch(1..=3), batch(4..=4)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0") && heard.ended("l1")).await;
    assert_eq!(outcome(&heard, 1)["ok"], json!({"price": 1}));
    assert_eq!(
        failed(&heard, "l0"),
        json!({"failed": {"code": "crashed", 
            "message": "`python3` was killed by signal 9 (worker `w-1`, batch `b0`)"}, "crashed": true})
    );
    assert_eq!(outcome(&heard, 4)["ok"], json!({"price": 4}));
}

/// A child in Python that fails at its first `times` starts as one does that cannot import a module.
fn fails_to_start(times: u32, starts: &std::path::Path, then: &str) -> Vec<String> {
    python(&format!(
        "
with open({starts:?}, 'a') as starts:
    starts.write('x')
if os.path.getsize({starts:?}) <= {times}:
    import no_such_module
{then}"
    ))
}

/// Such a program counted a crash of every job that it was given, until all of them were dead.
#[tokio::test]
async fn a_program_that_does_not_start_gives_its_batch_back_and_takes_none_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let command = fails_to_start(3, &dir.path().join("starts"), ECHO);
    let jitney = ScriptedJitney::giving(vec![batch(1..=3), batch(4..=4)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l1")).await;
    for number in 1..=3 {
        assert_eq!(outcome(&heard, number)["release"], true);
    }
    assert_eq!(failed(&heard, "l0"), Value::Null);
    assert_eq!(outcome(&heard, 4)["ok"], json!({"price": 4}));
    assert_eq!(heard.not_ready().unwrap(), "`python3` exited with code 1");
    assert_eq!(std::fs::read(dir.path().join("starts")).unwrap().len(), 4);
}

#[tokio::test]
async fn a_batch_larger_than_the_pipe_is_given_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let big = (1..=40).map(|n| job(n, "order", json!({"price": n, "text": "x".repeat(20_000)})));
    let command = fails_to_start(1, &dir.path().join("starts"), ECHO);
    let jitney = ScriptedJitney::giving(vec![big.collect()]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0")).await;
    assert_eq!(failed(&heard, "l0"), Value::Null);
    assert_eq!(heard.outcomes().len(), 40);
    assert!(heard.outcomes().iter().all(|outcome| outcome["release"] == true));
}

#[tokio::test]
async fn a_child_that_read_one_byte_may_have_been_killed_by_it() {
    let command = python("os.read(0, 1); sys.exit(1)");
    let jitney = ScriptedJitney::giving(vec![batch(1..=1)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0")).await;
    assert_eq!(failed(&heard, "l0")["crashed"], true);
    assert_eq!(heard.not_ready(), None);
}

#[tokio::test]
async fn a_child_that_worked_and_ends_before_it_reads_the_next_batch_is_replaced_at_once() {
    let command = python(
        "
import select
header = json.loads(sys.stdin.readline())
for _ in range(header['jobs']):
    it = json.loads(sys.stdin.readline())
    say({'id': it['id'], 'ok': it['data']})
select.select([0], [], [])
",
    );
    let jitney = ScriptedJitney::giving(vec![batch(1..=2), batch(3..=3), batch(4..=4)]).await;
    let ended = |heard: &Heard| ["l0", "l1", "l2"].iter().all(|lease| heard.ended(lease));
    let heard = heard(&jitney, command, ended).await;
    assert_eq!(outcome(&heard, 2)["ok"], json!({"price": 2}));
    assert_eq!(outcome(&heard, 3)["release"], true);
    assert_eq!(outcome(&heard, 4)["ok"], json!({"price": 4}));
    assert_eq!(heard.not_ready(), None);
}

#[tokio::test]
async fn a_plain_script_that_reads_nothing_and_fails_gives_its_batch_back() {
    let dir = tempfile::tempdir().unwrap();
    let command = fails_to_start(1, &dir.path().join("starts"), "sys.stdin.read(); sys.exit(3)");
    let jitney = ScriptedJitney::giving(vec![batch(1..=2), batch(3..=3)]).await;
    let stop = async { drop(jitney.until(|heard| heard.ended("l1")).await) };
    let options = ExecOptions {
        once: true,
        ..options(&jitney, command)
    };
    run(options, stop).await.unwrap();
    let heard = jitney.until(|_| true).await;
    assert_eq!(failed(&heard, "l0"), Value::Null);
    assert_eq!(outcome(&heard, 2)["release"], true);
    assert_eq!(
        failed(&heard, "l1")["failed"],
        json!({"code": "exit_code", "message": "`python3` exited with code 3 (worker `w-1`, batch `b1`)"})
    );
    assert_eq!(heard.not_ready().unwrap(), "`python3` exited with code 1");
}

#[tokio::test]
async fn a_child_that_closes_its_output_has_died() {
    let command = python("sys.stdin.readline(); os.close(1); time.sleep(60)");
    let jitney = ScriptedJitney::giving(vec![batch(1..=1)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0")).await;
    assert_eq!(failed(&heard, "l0")["crashed"], true);
}

/// What this thread logs while it is held.
struct Log {
    kept: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    fn keep() -> Self {
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Arc::clone(&kept);
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || Writer(Arc::clone(&writer)))
            .finish();
        Self {
            kept,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The event with this message.
    fn event(&self, message: &str) -> Option<Value> {
        let text = String::from_utf8(self.kept.lock().unwrap().clone()).unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.into_iter().find(|event| event["message"] == message)
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_of_a_death_has_the_last_words_under_their_batch() {
    let log = Log::keep();
    let command = python("sys.stdin.readline(); print('no such row', file=sys.stderr); sys.exit(4)");
    let jitney = ScriptedJitney::giving(vec![batch(1..=1)]).await;
    heard(&jitney, command, |heard| heard.ended("l0")).await;
    let line = log.event("stderr").unwrap();
    assert_eq!(
        (&line["line"], &line["batch"]),
        (&json!("no such row"), &json!("b0"))
    );
    let death = log.event("child died").unwrap();
    assert_eq!(
        (&death["stderr"], &death["batch"]),
        (&json!("no such row"), &json!("b0"))
    );
    assert_eq!(death["how"], "`python3` exited with code 4");
}

#[tokio::test]
async fn a_child_that_keeps_its_outcomes_to_itself_is_named() {
    let log = Log::keep();
    // One line that is no outcome comes out; the outcome does not.
    let command = python(
        "
lines = [json.loads(sys.stdin.readline()) for _ in range(2)]
say('working')
sys.stdin.read()
",
    );
    let jitney = ScriptedJitney::giving(vec![batch(1..=1)]).await;
    let stop = async {
        while log.event("protocol error").is_none() {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
        let message = "no outcome from the child for 30 s: does it flush its output after each line?";
        while log.event(message).is_none() {
            tokio::task::yield_now().await;
        }
        let warned = log.event(message).unwrap();
        assert_eq!(
            (&warned["level"], &warned["batch"]),
            (&json!("WARN"), &json!("b0"))
        );
        assert_eq!(
            (&warned["open_jobs"], &warned["other_lines"]),
            (&json!(1), &json!(1))
        );
    };
    run(options(&jitney, command), stop).await.unwrap();
}

#[tokio::test]
async fn python_is_told_not_to_keep_its_lines() {
    let jitney = ScriptedJitney::giving(vec![batch(1..=1)]).await;
    let command = python(
        "
lines = [json.loads(sys.stdin.readline()) for _ in range(2)]
print(json.dumps({'id': lines[1]['id'], 'ok': os.environ['PYTHONUNBUFFERED']}))
sys.stdin.read()
",
    );
    let heard = heard(&jitney, command, |heard| heard.outcomes().len() == 1).await;
    assert!(!outcome(&heard, 1)["ok"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn rubbish_changes_nothing() {
    let command = python(
        "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' not in it: continue
    say('hello')
    sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush()
    say('')
    say({'id': it['id']})
    say({'id': '0199b7a0-0000-7000-8000-999999999999', 'ok': 1})
    say({'batch': 'another', 'done': True})
    say('x' * (25 << 20))
    say({'id': it['id'], 'ok': it['data']})
    say({'id': it['id'], 'ok': 'twice'})
    sys.stderr.buffer.write(b'y' * (1 << 20) + b'\\n\\xff\\xfe no newline'); sys.stderr.flush()
",
    );
    let jitney = ScriptedJitney::giving(vec![batch(1..=2)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0")).await;
    let said: Vec<_> = heard
        .outcomes()
        .iter()
        .map(|outcome| outcome["ok"].clone())
        .collect();
    assert_eq!(said, [json!({"price": 1}), json!({"price": 2})]);
}

#[tokio::test]
async fn a_batch_can_end_early_or_fail_as_a_whole() {
    let command = python(
        "
while True:
    line = sys.stdin.readline()
    if not line: break
    header = json.loads(line)
    jobs = [json.loads(sys.stdin.readline()) for _ in range(header['jobs'])]
    if header['batch'] == 'b0':
        say({'id': jobs[0]['id'], 'ok': None})
        say({'batch': 'b0', 'done': True})
    else:
        say({'batch': header['batch'], 'failed': {'code': 'down', 'message': 'no connection'}})
",
    );
    let jitney = ScriptedJitney::giving(vec![batch(1..=3), batch(4..=5)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0") && heard.ended("l1")).await;
    assert_eq!(heard.outcomes(), [json!({"id": id(1).to_string(), "ok": null})]);
    assert_eq!(
        failed(&heard, "l1")["failed"],
        json!({"code": "down", "message": "no connection"})
    );
}

#[tokio::test]
async fn a_child_that_ends_batches_unread_finds_the_next_header_behind_their_lines() {
    // The first batch is far larger than a pipe, and ended after its header.
    let big = (1..=40).map(|n| job(n, "order", json!({"price": n, "text": "x".repeat(20_000)})));
    let command = python(
        "
header = json.loads(sys.stdin.readline())
say({'batch': header['batch'], 'done': True})
for _ in range(header['jobs']): json.loads(sys.stdin.readline())
for line in sys.stdin:
    it = json.loads(line)
    if 'data' in it: say({'id': it['id'], 'ok': it['data']})
",
    );
    let jitney = ScriptedJitney::giving(vec![big.collect(), batch(50..=51)]).await;
    let heard = heard(&jitney, command, |heard| heard.ended("l0") && heard.ended("l1")).await;
    assert_eq!(outcome(&heard, 51)["ok"], json!({"price": 51}));
}

#[tokio::test]
async fn a_stop_lets_the_child_finish_what_it_has_and_releases_the_rest() {
    // Far more than the pipe holds; the child does not read on before the stop.
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("stopped");
    let big = (1..=40).map(|n| job(n, "order", json!({"price": n, "text": "x".repeat(20_000)})));
    let command = python(&format!(
        "
for line in sys.stdin:
    it = json.loads(line)
    if 'data' not in it: continue
    say({{'id': it['id'], 'ok': it['data']['price']}})
    while not os.path.exists({flag:?}): time.sleep(0.005)
"
    ));
    let jitney = ScriptedJitney::giving(vec![big.collect()]).await;
    let stop = async {
        jitney.until(|heard| !heard.outcomes().is_empty()).await;
        // Nothing else runs on this thread before the worker has begun to stop.
        std::fs::write(&flag, b"").unwrap();
    };
    run(options(&jitney, command), stop).await.unwrap();
    let heard = jitney.until(|_| true).await;
    assert!(heard.ended("l0"));
    assert_eq!(failed(&heard, "l0"), Value::Null);
    assert_eq!(outcome(&heard, 1)["ok"], 1);
    assert_eq!(outcome(&heard, 2)["ok"], 2);
    assert_eq!(outcome(&heard, 40)["release"], true);
}

#[tokio::test]
async fn a_child_that_does_not_end_is_made_to_and_its_jobs_are_released() {
    let command = python(
        "
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
line = json.loads([sys.stdin.readline(), sys.stdin.readline()][1])
say({'id': line['id'], 'ok': 'begun'})
while True: time.sleep(1)
",
    );
    let jitney = ScriptedJitney::giving(vec![batch(1..=2)]).await;
    let stop = async { drop(jitney.until(|heard| !heard.outcomes().is_empty()).await) };
    let options = ExecOptions {
        grace: Duration::from_millis(50),
        ..options(&jitney, command)
    };
    run(options, stop).await.unwrap();
    let heard = jitney.until(|_| true).await;
    assert_eq!(outcome(&heard, 1)["ok"], "begun");
    assert_eq!(outcome(&heard, 2)["release"], true);
}

#[tokio::test]
async fn several_children_run_at_once() {
    let jitney = ScriptedJitney::giving(vec![batch(1..=1), batch(2..=2)]).await;
    let stop = async { drop(jitney.until(|heard| heard.ended("l0") && heard.ended("l1")).await) };
    let options = ExecOptions {
        concurrency: 2,
        ..options(&jitney, python(ECHO))
    };
    run(options, stop).await.unwrap();
    let heard = jitney.until(|_| true).await;
    assert_eq!(heard.polls[0]["slots"], 2);
    assert_eq!(heard.outcomes().len(), 2);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_at_once() {
    let jitney = ScriptedJitney::giving(Vec::new()).await;
    let options = options(&jitney, vec!["./no-such-program".to_owned()]);
    let ended = run(options, std::future::pending()).await;
    assert!(matches!(ended, Err(Error::Start { program, .. }) if program == "./no-such-program"));
}

#[test]
fn a_command_is_split_as_a_shell_would() {
    assert_eq!(
        words("./executor.py --name 'a b' \"c d\" e\\ f"),
        Some(
            ["./executor.py", "--name", "a b", "c d", "e f"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    assert_eq!(words("'open"), None);
}

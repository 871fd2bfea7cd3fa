//! A jitney for tests of workers: gives out the batches that it is told, keeps what it hears.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::scripted::{Asked, Said, ScriptedServer};
use crate::client::{Client, Retries};
use crate::job::JobId;

/// Serves until it is dropped.
pub(crate) struct ScriptedJitney {
    pub(crate) server: ScriptedServer,
    state: Arc<State>,
}

struct State {
    batches: Mutex<VecDeque<Value>>,
    changed: watch::Sender<Heard>,
    expires_in_ms: u64,
}

/// What a worker said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) polls: Vec<Value>,
    /// Lease and body.
    pub(crate) settles: Vec<(String, Value)>,
    pub(crate) extends: usize,
}

impl Heard {
    /// Every outcome that was said, in order. What rode with a poll that a stop cut short is said once more;
    /// such a repeat is left out.
    pub(crate) fn outcomes(&self) -> Vec<Value> {
        let mut distinct = Vec::new();
        let outcomes = self
            .settles
            .iter()
            .filter_map(|(_, body)| body["outcomes"].as_array());
        for outcome in outcomes.flatten() {
            if !distinct.contains(outcome) {
                distinct.push(outcome.clone());
            }
        }
        distinct
    }

    /// Whether a worker said that it cannot start, and why.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let mut said = self.polls.iter().filter_map(|poll| poll["not_ready"].as_str());
        said.next().map(str::to_owned)
    }

    /// Whether a settle ended this lease.
    pub(crate) fn ended(&self, lease: &str) -> bool {
        let ends = |body: &Value| body["final"] == true || !body["failed"].is_null();
        self.settles.iter().any(|(of, body)| of == lease && ends(body))
    }
}

/// The id of the job with this number.
pub(crate) fn id(number: u32) -> JobId {
    crate::client::parse_id(&format!("0199b7a0-0000-7000-8000-{number:012}")).unwrap()
}

/// A job object.
pub(crate) fn job(number: u32, group: &str, data: Value) -> Value {
    json!({"id": id(number).to_string(), "group": group, "attempt": 1, "delivery": 1, "data": data,
        "key": null, "submitted_at": "2026-01-05T10:00:00.000Z", "deadline": null, "labels": {}})
}

impl ScriptedJitney {
    /// One that gives these batches (each a list of job objects) under the leases `l0`, `l1`, and so on.
    pub(crate) async fn giving(batches: Vec<Vec<Value>>) -> Self {
        Self::start(batches, 30_000).await
    }

    /// As `giving`, with leases of this term.
    pub(crate) async fn start(batches: Vec<Vec<Value>>, expires_in_ms: u64) -> Self {
        let batches = batches.into_iter().enumerate().map(|(at, jobs)| {
            json!({"lease": format!("l{at}"), "batch": format!("b{at}"), "priority": "NORMAL",
                "expires_at": "2026-01-05T10:00:30.000Z", "expires_in_ms": expires_in_ms, "jobs": jobs})
        });
        let state = Arc::new(State {
            batches: Mutex::new(batches.collect()),
            changed: watch::Sender::new(Heard::default()),
            expires_in_ms,
        });
        let shared = Arc::clone(&state);
        let server = ScriptedServer::start(move |asked| {
            let state = Arc::clone(&shared);
            async move { state.answer(asked).await }
        })
        .await;
        Self { server, state }
    }

    pub(crate) fn client(&self) -> Client {
        Client::builder(&self.server.url)
            .retries(Retries::none())
            .build()
            .unwrap()
    }

    /// Waits until the worker has said so much, and gives all of it.
    pub(crate) async fn until(&self, heard: impl FnMut(&Heard) -> bool) -> Heard {
        self.state
            .changed
            .subscribe()
            .wait_for(heard)
            .await
            .unwrap()
            .clone()
    }
}

impl State {
    async fn answer(&self, asked: Asked) -> Said {
        let path = asked.line.split(' ').nth(1).unwrap().to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["", "v1", "processors", _, "lease"] => self.lease(asked.json()).await,
            ["", "v1", "leases", lease, "settle"] => {
                let results = self.settle(lease, asked.json());
                Some((200, "", json!({"results": results}).to_string()))
            }
            ["", "v1", "leases", _, "extend"] => {
                self.changed.send_modify(|heard| heard.extends += 1);
                Some((200, "", json!({"expires_in_ms": self.expires_in_ms}).to_string()))
            }
            _ => panic!("{}", asked.line),
        }
    }

    fn settle(&self, lease: &str, body: Value) -> Vec<Value> {
        let outcomes = body["outcomes"].as_array().cloned().unwrap_or_default();
        self.changed
            .send_modify(|heard| heard.settles.push((lease.to_owned(), body)));
        outcomes
            .iter()
            .map(|outcome| json!({"id": outcome["id"], "is": "applied"}))
            .collect()
    }

    async fn lease(&self, poll: Value) -> Said {
        let settle = poll["settle"].as_array().cloned().unwrap_or_default();
        let settled: Vec<Value> = settle
            .into_iter()
            .map(|body| {
                let lease = body["lease"].as_str().unwrap().to_owned();
                json!({"lease": lease, "results": self.settle(&lease, body)})
            })
            .collect();
        let slots = match poll["not_ready"].is_null() {
            true => usize::try_from(poll["slots"].as_u64().unwrap()).unwrap(),
            false => 0,
        };
        let waits = poll["wait"] != "0s";
        let batches: Vec<Value> = {
            let mut waiting = self.batches.lock().unwrap();
            let take = slots.min(waiting.len());
            waiting.drain(..take).collect()
        };
        self.changed.send_modify(|heard| heard.polls.push(poll));
        if batches.is_empty() && settled.is_empty() {
            if waits {
                // Until the worker goes away.
                std::future::pending::<()>().await;
            }
            return Some((204, "", String::new()));
        }
        Some((
            200,
            "",
            json!({"settled": settled, "batches": batches}).to_string(),
        ))
    }
}

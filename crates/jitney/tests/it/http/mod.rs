//! The HTTP edge before a scripted driver: what the edge promises by itself.

mod connections;
mod contract;
mod delivery;
mod docs;
mod lease;
mod leaving;
mod limits;
mod many;
mod memory;
mod operate;
mod refusals;
mod routes;
mod submit;
mod whole;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jitney::clock::WallMs;
use jitney::driver::port::{Answer, CallId, Command, Inbound, Port as _, Submit, Submitted};
use jitney::http::{self, App};
use jitney::job::{JobId, JobView, State, Status};
use jitney::limits::Limits;
use jitney::metrics::Metrics;
use jitney::server::handle::Handle;
use jitney::server::options::{Options, Route};
use jitney::server::port::port;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the scripted driver does with a call.
enum Does {
    /// Answers it.
    Says(Answer),
    /// Answers it once its caller is gone.
    SaysWhenGone(Answer),
    /// Answers it once its caller sends no more, or is gone.
    SaysWhenLeaving(Answer),
    /// Leaves it open.
    Nothing,
}

/// An edge on a port of its own, before a driver that does what a test says.
struct TestEdge {
    address: String,
    client: reqwest::Client,
    /// What came to the driver beside calls.
    notices: mpsc::Receiver<Inbound>,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
    driver: Option<JoinHandle<()>>,
}

/// What an edge is started with.
struct Setup {
    limits: Limits,
    routes: Vec<Route>,
    slow_client_timeout: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            routes: Vec::new(),
            slow_client_timeout: Duration::from_secs(10),
        }
    }
}

impl TestEdge {
    async fn start(setup: Setup, mut script: impl FnMut(Command) -> Does + Send + 'static) -> Self {
        let (handle, mut port) = port(1_000);
        handle.set_ready();
        // More than any test makes.
        let (sender, notices) = mpsc::channel(1_000);
        let driver = std::thread::spawn(move || {
            let mut when_gone: Vec<(CallId, Answer)> = Vec::new();
            let mut when_leaving: Vec<(CallId, Answer)> = Vec::new();
            loop {
                port.wait(0, None);
                while let Some(inbound) = port.take() {
                    match inbound {
                        Inbound::Call(call, command) => match script(command) {
                            Does::Says(answer) => port.answer(call, answer),
                            Does::SaysWhenGone(answer) => when_gone.push((call, answer)),
                            Does::SaysWhenLeaving(answer) => when_leaving.push((call, answer)),
                            Does::Nothing => {}
                        },
                        Inbound::Stop { .. } => return,
                        notice => {
                            if let Inbound::Gone(gone) = &notice
                                && let Some(at) = when_gone.iter().position(|(call, _)| call == gone)
                            {
                                let (call, answer) = when_gone.swap_remove(at);
                                port.answer(call, answer);
                            }
                            if let Inbound::Hurry { call: hurried, .. } | Inbound::Gone(hurried) = &notice
                                && let Some(at) = when_leaving.iter().position(|(call, _)| call == hurried)
                            {
                                let (call, answer) = when_leaving.swap_remove(at);
                                port.answer(call, answer);
                            }
                            sender.try_send(notice).unwrap();
                        }
                    }
                }
            }
        });
        let options = Options {
            limits: setup.limits,
            routes: setup.routes,
            slow_client_timeout: setup.slow_client_timeout,
            ..Options::default()
        };
        let app = App::new(handle.clone(), &options, Arc::new(Metrics::default())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(http::serve(listener, app, async move {
            let _ = stopped.await;
        }));
        Self {
            address,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            notices,
            handle,
            stop: Some(stop),
            served: Some(served),
            driver: Some(driver),
        }
    }

    /// An edge that takes every job and calls it queued.
    async fn accepting() -> Self {
        Self::start(Setup::default(), |command| Does::Says(accept(command))).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path))
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path))
    }

    /// A connection of its own, for what no client would send.
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut socket = self.connect().await;
        socket.write_all(request).await.unwrap();
        read_to_end(&mut socket).await
    }

    /// The next notice of the driver.
    async fn notice(&mut self) -> Inbound {
        let notice = tokio::time::timeout(PATIENCE, self.notices.recv()).await;
        notice.unwrap().unwrap()
    }

    /// Stops serving and waits for it.
    async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(served) = self.served.take() {
            tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
        }
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        self.handle.stop(Duration::ZERO);
        if let Some(driver) = self.driver.take() {
            driver.join().unwrap();
        }
    }
}

/// Reads until the server closes.
async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads up to the end of a response's head.
async fn read_head(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(
            tokio::time::timeout(PATIENCE, socket.read_u8())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    String::from_utf8(bytes).unwrap()
}

/// A scripted driver's answer to a submit; anything else is a mistake of the test.
fn accept(command: Command) -> Answer {
    match command {
        Command::Submit(submit) => submitted(job(&submit)),
        other => panic!("{other:?}"),
    }
}

fn submitted(job: JobView) -> Answer {
    Answer::Submitted(Box::new(Submitted {
        job,
        replayed: false,
        workers: 0,
        did_you_mean: None,
    }))
}

const ID: JobId = JobId(*b"\x01\x99\xa3\xc4\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x2a");
const ID_TEXT: &str = "0199a3c4-0000-7000-8000-00000000002a";

/// The job of a submit, queued.
fn job(submit: &Submit) -> JobView {
    JobView {
        id: submit.id.unwrap_or(ID),
        processor: submit.processor.clone(),
        group: submit.group.clone(),
        priority: submit.priority,
        status: Status::Submitted,
        state: State::Queued,
        reason: None,
        attempts: 0,
        crashes: 0,
        started_at: None,
        parent: None,
        children: 0,
        submitted_at: Some(WallMs(1_700_000_000_250)),
        finished_at: None,
        result: None,
        result_expired: false,
        error: None,
        key: submit.key.clone(),
        labels: submit.labels.clone(),
    }
}

/// A response's status and its body as JSON, which must be what the OpenAPI document foresees.
async fn json(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let path = response.url().path().to_owned();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.bytes().await.unwrap();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)));
    contract::assert_foreseen(&path, status, &content_type, &value);
    (status, value)
}

/// Sends a request and checks the problem that answers it: status, code and retry, which its other members
/// must agree with. Gives back the problem.
async fn refused(request: reqwest::RequestBuilder, status: u16, code: &str, retry: &str) -> Value {
    let response = request.send().await.unwrap();
    let content_type = response.headers().get("content-type").cloned();
    let retry_after = response.headers().get("retry-after").cloned();
    let (got, problem) = json(response).await;
    assert_eq!((got, &problem["code"]), (status, &Value::from(code)), "{problem}");
    assert_eq!(content_type.unwrap(), "application/problem+json");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["type"], format!("/docs/errors#{code}"));
    assert_eq!(problem["retry"], retry, "{problem}");
    assert_eq!(retry_after.is_some(), retry == "after", "{problem}");
    problem
}

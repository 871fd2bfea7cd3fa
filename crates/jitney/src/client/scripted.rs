//! A server for tests that answers as a script says, or drops the connection instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// What the script says to a request; `None` drops the connection.
pub(crate) type Said = Option<(u16, &'static str, String)>;

type Script = Arc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Said> + Send>> + Send + Sync>;

/// Serves until it is dropped.
pub(crate) struct ScriptedServer {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl ScriptedServer {
    /// Answers each request with what the script makes of it.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Asked) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Said> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(move |asked| Box::pin(script(asked)));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, script, Arc::clone(&asked)));
        Self {
            url,
            asked,
            _tasks: tasks,
        }
    }

    /// Answers the first request with the first of these, and so on; later ones find no connection.
    pub(crate) async fn answering(answers: Vec<Said>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        Self::start(move |_| {
            let answer = answers.lock().unwrap().next().flatten();
            async move { answer }
        })
        .await
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, script: Script, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(converse(stream, Arc::clone(&script), Arc::clone(&asked)));
    }
}

/// Ends, and with it the connection, when the peer is gone or the script says so.
async fn converse(stream: TcpStream, script: Script, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = receive(&mut stream).await {
        asked.lock().unwrap().push(request.clone());
        let mut byte = [0];
        let said = tokio::select! {
            said = script(request) => said,
            // A client that goes away takes its request with it, as a real server would have it.
            _ = stream.get_ref().peek(&mut byte) => None,
        };
        let Some((status, headers, body)) = said else {
            return;
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut asked = Asked {
        line: lines.remove(0),
        headers: lines,
        body: String::new(),
    };
    let length = asked.header("content-length").map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    asked.body = String::from_utf8(body).unwrap();
    Some(asked)
}

//! A server that says one thing, whatever it is asked, and remembers what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

/// Answers every request with the same text until it is dropped.
pub(crate) struct CannedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// The status line's code and words.
    status: String,
    body: String,
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl CannedServer {
    /// A server that answers with this status (`200 OK`) and JSON.
    pub(crate) fn new(status: &str, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            status: status.to_owned(),
            body: body.to_owned(),
            requests: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let thread = spawn({
            let shared = Arc::clone(&shared);
            move || {
                for connection in listener.incoming() {
                    if shared.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    shared.answer(connection.unwrap());
                }
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// What clients call it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, head and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn answer(&self, mut connection: TcpStream) {
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !is_whole(&request) {
            let read = connection.read(&mut piece).unwrap();
            assert_ne!(read, 0, "the client hung up in the middle of its request");
            request.extend_from_slice(&piece[..read]);
        }
        self.requests
            .lock()
            .unwrap()
            .push(String::from_utf8(request).unwrap());
        let kind = if self.status.starts_with('2') {
            "application/json"
        } else {
            "application/problem+json"
        };
        let answer = format!(
            "HTTP/1.1 {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.body.len(),
            self.body
        );
        connection.write_all(answer.as_bytes()).unwrap();
    }
}

/// Whether the head and as much body as it announces are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(|length| length.trim().parse().unwrap())
        })
        .unwrap_or(0);
    body.len() >= length
}

impl Drop for CannedServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread from its accept.
        drop(TcpStream::connect(self.address));
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

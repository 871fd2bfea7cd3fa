//! The memory that bodies take is bounded over all connections, and workers still get through.

use jitney::bus::{Capabilities, Usage};
use jitney::driver::port::{Answer, Command, Info, Readiness, SettleAnswer};
use jitney::limits::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Does, PATIENCE, Setup, TestEdge, accept, json, read_head, refused};

const KIB: usize = 1 << 10;

fn script(command: Command) -> Does {
    Does::Says(match command {
        Command::Info => Answer::Info(Box::new(Info {
            capabilities: Capabilities {
                name: "memory",
                durable: false,
                follow: false,
                atomic_children: true,
                durable_keys: false,
                point_reads: true,
            },
            usage: Usage::default(),
            readiness: Readiness::Ready,
            waiters: 0,
            processors: 0,
        })),
        Command::Settle(settle) => Answer::Settled(SettleAnswer {
            token: settle.token,
            results: Ok(Vec::new()),
        }),
        submit => accept(submit),
    })
}

/// The bytes of bodies that the server says it holds.
async fn held(edge: &TestEdge) -> u64 {
    let (_, info) = json(edge.get("/v1/info").send().await.unwrap()).await;
    info["usage"]["bodies_bytes"].as_u64().unwrap()
}

async fn until_held(edge: &TestEdge, bytes: u64) {
    let reached = async { while held(edge).await != bytes {} };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_them_are_refused_until_others_are_done() {
    let setup = Setup {
        limits: Limits {
            bodies_bytes_max: 64 << 10,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let edge = TestEdge::start(setup, script).await;
    let mut slow = edge.connect().await;
    let head = format!(
        "POST /v1/processors/p/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        60 * KIB
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&vec![b'1'; 59 * KIB]).await.unwrap();
    until_held(&edge, 59 << 10).await;

    let submit = edge.post("/v1/processors/p/jobs").body(vec![b'1'; 20 * KIB]);
    let problem = refused(submit, 429, "queue_full", "after").await;
    assert_eq!(problem["limit"], 64 << 10);
    assert_eq!(
        problem["detail"],
        "the bodies that are being served take 65,536 bytes, which is `bodies_bytes_max`"
    );
    // What lets the queue empty gets through, and so does what is small.
    let settle = format!(r#"{{"outcomes":[]{}}}"#, " ".repeat(20 * KIB));
    let settle = edge
        .post("/v1/leases/AAAAAAAAAAEAAAABAAAAAAAAAAE/settle")
        .body(settle);
    let answer = settle.send().await.unwrap();
    assert_ne!(answer.status(), 429, "{}", answer.text().await.unwrap());
    let small = edge.post("/v1/processors/p/jobs").body("1").send().await.unwrap();
    assert_eq!(small.status(), 202);

    slow.write_all(&vec![b'1'; KIB]).await.unwrap();
    assert!(read_head(&mut slow).await.starts_with("HTTP/1.1 202 "));
    until_held(&edge, 0).await;
    let again = edge.post("/v1/processors/p/jobs").body(vec![b'1'; 20 * KIB]);
    assert_eq!(again.send().await.unwrap().status(), 202);
    slow.shutdown().await.unwrap();
    drop(slow.read_to_end(&mut Vec::new()).await);
}

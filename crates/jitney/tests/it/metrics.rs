//! The page of metrics and the server's own word agree, and the alarms name what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jitney::client::{Client, Submit};
use jitney::server::options::{BusOptions, Options};
use jitney::server::start;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Type and labels, by name.
type Described = BTreeMap<String, (String, BTreeSet<String>)>;

fn repository_file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap()
}

async fn request(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What a server that has done a little of everything says.
async fn scrape() -> String {
    let server = start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        bus: BusOptions::Memory,
        ..Options::default()
    })
    .await
    .unwrap();
    let client = Client::new(&server.address().to_string()).unwrap();
    client.submit(Submit::json("orders", &1).unwrap()).await.unwrap();
    let get = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = request(server.address(), get).await;
    server.stop(Duration::from_secs(1)).await;
    answer
}

/// The name that a page gives to a metric: a counter's samples end in `_total`.
fn page_name(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{name}_total"),
        _ => name.to_owned(),
    }
}

fn described_by_server(text: &str) -> Described {
    let mut described = Described::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        described.insert(page_name(name, kind), (kind.to_owned(), BTreeSet::new()));
    }
    for line in text.lines().filter(|line| line.starts_with("jitney_")) {
        let sample = line.split(['{', ' ']).next().unwrap();
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| sample.strip_suffix(suffix))
            .find(|name| described.contains_key(*name))
            .unwrap_or(sample);
        let labels = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(labels, _)| labels);
        let names = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        described.get_mut(name).unwrap().1.extend(names);
    }
    described
}

fn described_by_page(page: &str) -> Described {
    let unquoted = |text: &str| text.trim().trim_matches('`').to_owned();
    page.lines()
        .filter(|line| line.starts_with("| `jitney_"))
        .filter_map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').collect();
            let [name, kind, _, labels, meaning] = cells[..] else {
                return None;
            };
            assert!(!meaning.trim().is_empty(), "{name} says nothing");
            let labels = labels.split(',').map(unquoted).filter(|label| !label.is_empty());
            Some((unquoted(name), (unquoted(kind), labels.collect())))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_and_the_server_agree() {
    let server = described_by_server(&scrape().await);
    let page = described_by_page(&repository_file("docs/metrics.md"));
    assert!(server.len() > 20, "{server:?}");
    for (name, described) in &server {
        assert_eq!(
            page.get(name),
            Some(described),
            "`{name}` needs a row in docs/metrics.md: | `name` | type | unit | labels in alphabetical order | what it is |"
        );
    }
    for name in page.keys() {
        assert!(
            server.contains_key(name),
            "docs/metrics.md has `{name}`, the server has not"
        );
    }
}

#[test]
fn the_alarms_name_metrics_that_there_are() {
    let page = described_by_page(&repository_file("docs/metrics.md"));
    let rules = repository_file("examples/prometheus/alerts.yml");
    let mut alarms = 0;
    for line in rules.lines() {
        alarms += usize::from(line.trim_start().starts_with("- alert: "));
        assert_eq!(line.matches('(').count(), line.matches(')').count(), "{line}");
        assert!(!line.contains('\t'), "a tab is no YAML: {line}");
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("jitney_")) {
            assert!(
                page.contains_key(name),
                "`{name}` is in no row of docs/metrics.md"
            );
        }
    }
    assert_eq!(alarms, rules.matches("expr: ").count());
    assert!(alarms >= 10, "{alarms}");
}

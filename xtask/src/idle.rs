//! Measures a server that has nothing to do, alone and with ten thousand idle connections, and that it still serves.
//!
//! Figures from /proc, so Linux only. With `--jitney PATH` it measures that binary, else it builds one.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::step::{cargo, now, say, succeeds};

/// Idle connections, the one for traffic included: `connections_max` of the server.
const CONNECTIONS: usize = 10_000;
/// Requests of the traffic beside them.
const REQUESTS: usize = 2_000;
/// How long nothing happens.
const QUIET: Duration = Duration::from_secs(30);
/// What a start leaves to do: the log marks its tail after a second, spare segments are made.
const WARM_UP: Duration = Duration::from_secs(5);
/// The server's share of one core while idle, in hundredths of a percent.
const CPU_MAX: f64 = 0.1;
/// Its memory while idle.
const RSS_MIB_MAX: f64 = 20.0;
/// Ticks of the clock in /proc, per second: fixed on every architecture that Linux has today.
const TICKS: f64 = 100.0;

/// What /proc says of a process.
#[derive(Clone, Copy)]
struct Reading {
    cpu: f64,
    wakes: u64,
    rss_mib: f64,
}

struct Server {
    child: Child,
    address: String,
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    let jitney = match arguments {
        [] => built(root)?,
        [flag, path] if flag == "--jitney" => PathBuf::from(path),
        _ => bail!("expected `--jitney PATH` or nothing"),
    };
    raise_open_files()?;
    let data = crate::crash::target()?.join("idle-data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let server = Server::start(&jitney, &data)?;
    let measured = measure(&server);
    let stopped = server.stop();
    fs::remove_dir_all(&data)?;
    Ok(measured? && stopped?)
}

fn built(root: &Path) -> Result<PathBuf> {
    let mut build = cargo(
        root,
        &[
            "build",
            "--release",
            "--locked",
            "--package",
            "jitney",
            "--bin",
            "jitney",
        ],
    );
    ensure!(succeeds(&mut build)?, "the build failed");
    Ok(crate::crash::target()?.join("release/jitney"))
}

fn measure(server: &Server) -> Result<bool> {
    pause(WARM_UP);
    let alone = quiet(server, "alone")?;
    let before = server.read()?;
    let mut idle = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS - 1 {
        let mut socket = TcpStream::connect(&server.address)?;
        get(&mut socket, "/healthz")?;
        idle.push(socket);
    }
    let mut busy = TcpStream::connect(&server.address)?;
    busy.set_nodelay(true)?;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let start = now();
        submit(&mut busy)?;
        times.push(now().duration_since(start));
    }
    times.sort();
    let after = server.read()?;
    let each = (after.rss_mib - before.rss_mib) * 1024.0 / float(CONNECTIONS);
    say(&format!(
        "{CONNECTIONS} connections: {:.1} MiB, {each:.1} KiB each; {REQUESTS} submits beside them: p50 {:?}, p99 {:?}",
        after.rss_mib,
        times[REQUESTS / 2],
        times[REQUESTS * 99 / 100]
    ));
    let mut refused = TcpStream::connect(&server.address)?;
    let answer = get(&mut refused, "/healthz")?;
    let is_refused = answer.contains("\"code\":\"too_many_connections\"");
    say(&format!(
        "one more: {}",
        answer.lines().next().unwrap_or_default()
    ));
    let many = quiet(server, "with all connections")?;
    let alive = idle
        .iter_mut()
        .all(|socket| get(socket, "/healthz").is_ok_and(|answer| answer.contains(" 200 ")));
    say(&format!("every connection still serves: {alive}"));
    Ok(is_refused && alive && alone.cpu <= CPU_MAX && alone.rss_mib <= RSS_MIB_MAX && many.cpu <= 1.0)
}

/// What the server does while nobody asks anything of it. `cpu` is in percent, `wakes` per second.
fn quiet(server: &Server, what: &str) -> Result<Reading> {
    let before = server.read()?;
    pause(QUIET);
    let after = server.read()?;
    let seconds = QUIET.as_secs_f64();
    let cpu = (after.cpu - before.cpu) / seconds * 100.0;
    let wakes = after.wakes - before.wakes;
    say(&format!(
        "idle {what}, {seconds} s: {cpu:.3} % CPU, {wakes} wake-ups, {:.1} MiB",
        after.rss_mib
    ));
    Ok(Reading { cpu, ..after })
}

impl Server {
    fn start(jitney: &Path, data: &Path) -> Result<Self> {
        let mut child = Command::new(jitney)
            .arg("serve")
            .env("JITNEY_LISTEN", "127.0.0.1:0")
            .env("JITNEY_DATA", data)
            .env("JITNEY_CONNECTIONS_MAX", CONNECTIONS.to_string())
            .env("JITNEY_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", jitney.display()))?;
        let stdout = child.stdout.take().context("it has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .map(str::to_owned);
        Ok(Self {
            child,
            address: address.context("it did not start")?,
        })
    }

    fn read(&self) -> Result<Reading> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = fs::read_to_string(process.join("stat"))?;
        // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
        let (_, rest) = stat.rsplit_once(')').context("no such line in /proc")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks =
            |at: usize| -> Result<f64> { Ok(fields.get(at).context("a short line in /proc")?.parse()?) };
        let mut wakes = 0;
        for task in fs::read_dir(process.join("task"))? {
            wakes += field(
                &fs::read_to_string(task?.path().join("status"))?,
                "voluntary_ctxt_switches:",
            )?;
        }
        let rss = field(&fs::read_to_string(process.join("status"))?, "VmRSS:")?;
        Ok(Reading {
            cpu: (ticks(11)? + ticks(12)?) / TICKS,
            wakes,
            rss_mib: float(usize::try_from(rss)?) / 1024.0,
        })
    }

    fn stop(mut self) -> Result<bool> {
        let mut kill = Command::new("kill");
        succeeds(kill.args(["-TERM", &self.child.id().to_string()]))?;
        Ok(self.child.wait()?.success())
    }
}

/// The number of a line in a status file.
fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.with_context(|| format!("/proc has no `{name}`"))?.parse()?)
}

fn get(socket: &mut TcpStream, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    exchange(socket, request.as_bytes())
}

fn submit(socket: &mut TcpStream) -> Result<()> {
    let request = b"POST /v1/processors/idle/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    let answer = exchange(socket, request)?;
    ensure!(
        answer.starts_with("HTTP/1.1 202 "),
        "a submit was answered {answer}"
    );
    Ok(())
}

/// Sends a request and reads its answer, whose length is in its head.
fn exchange(socket: &mut TcpStream, request: &[u8]) -> Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = socket.read(&mut piece)?;
        ensure!(read > 0, "the server closed the connection");
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap_or("0").parse::<usize>()? {
            return Ok(text);
        }
    }
}

/// This process holds the other end of every connection.
fn raise_open_files() -> Result<()> {
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        maximum: files.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let needed = u64::try_from(CONNECTIONS)? + 512;
    ensure!(
        files.maximum.is_none_or(|files| files >= needed),
        "{needed} open files are needed, and the hard limit is {:?}",
        files.maximum
    );
    Ok(())
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is that nothing happens for so long"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

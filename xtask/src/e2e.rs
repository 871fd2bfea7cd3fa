//! The live server against its own OpenAPI document: schemathesis makes requests that the document allows, and
//! requests that it does not, and compares the answers with it.
//!
//! In: `xtask/e2e/`: the server's configuration, the program behind its route, what schemathesis should know.
//! Out: whether every answer was foreseen. schemathesis comes from PyPI, pinned, into `target/e2e/venv`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::crash::{release_binaries, target};
use crate::step::{say, succeeds};

/// Requests per operation and phase where nobody says how many.
const EXAMPLES: &str = "40";
/// Among everything else that a change must pass: half a minute.
const CI_EXAMPLES: &str = "6";
/// How long all of it may take, whatever the number of requests.
const RUN_MAX: Duration = Duration::from_mins(20);
/// How long the server may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two looks at something that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the task was asked for.
struct Options {
    examples: String,
    seed: Option<String>,
    /// The binary to run instead of a fresh release build.
    jitney: Option<PathBuf>,
}

/// With the arguments that follow the task's name.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    let options = Options::parse(arguments)?;
    check(root, &options, &install(root)?)
}

/// A bounded run, which is left out where schemathesis is not to be had.
pub(crate) fn bounded(root: &Path) -> Result<bool> {
    match install(root) {
        Ok(schemathesis) => {
            let options = Options {
                examples: CI_EXAMPLES.to_owned(),
                seed: None,
                jitney: None,
            };
            check(root, &options, &schemathesis)
        }
        Err(error) => {
            say(&format!(
                "LEFT OUT: the server is not compared with its OpenAPI document: {error:#}"
            ));
            Ok(true)
        }
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            examples: EXAMPLES.to_owned(),
            seed: None,
            jitney: None,
        };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest
                .next()
                .with_context(|| format!("`{name}` needs a value: --examples N, --seed S, --jitney PATH"))?;
            match name.as_str() {
                "--examples" => options.examples = value.clone(),
                "--seed" => options.seed = Some(value.clone()),
                "--jitney" => options.jitney = Some(std::path::absolute(value)?),
                other => bail!("unknown argument `{other}`: --examples N, --seed S, --jitney PATH"),
            }
        }
        Ok(options)
    }
}

/// Puts schemathesis into a folder under `target`, unless it is there already. Gives back its program.
fn install(root: &Path) -> Result<PathBuf> {
    let requirements = root.join("xtask/e2e/requirements.txt");
    let wanted = fs::read_to_string(&requirements).context("cannot read xtask/e2e/requirements.txt")?;
    let venv = target()?.join("e2e/venv");
    let installed = venv.join("installed.txt");
    let program = venv.join("bin/schemathesis");
    if fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(program);
    }
    say("installing schemathesis from PyPI");
    let made = succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    if !made.unwrap_or(false) {
        bail!(
            "there is no `python3` that can make a virtual environment \
             (Debian: apt-get install python3-venv)"
        );
    }
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--retries", "2", "--timeout", "20", "--requirement"])
        .arg(&requirements);
    if !succeeds(&mut pip)? {
        bail!(
            "schemathesis could not be installed from PyPI; its message is above, most likely there is no network"
        );
    }
    fs::write(&installed, wanted).context("cannot note what was installed")?;
    Ok(program)
}

/// Starts a server with a worker, and lets schemathesis loose on it.
fn check(root: &Path, options: &Options, schemathesis: &Path) -> Result<bool> {
    let jitney = match &options.jitney {
        Some(jitney) => jitney.clone(),
        None if release_binaries(root)? => target()?.join("release/jitney"),
        None => return Ok(false),
    };
    let place = target()?.join("e2e/run");
    if place.exists() {
        fs::remove_dir_all(&place).context("cannot remove what the last run left")?;
    }
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let own = root.join("xtask/e2e");

    let ready = place.join("ready");
    let mut serve = Command::new(&jitney);
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(place.join("data"))
        .arg("--config")
        .arg(own.join("jitney.toml"))
        .arg("--ready-file")
        .arg(&ready);
    let mut server = Running::start("server", serve, &place)?;
    let address = wait_for(&ready, &mut server)?;
    let mut work = Command::new(&jitney);
    let exec = format!("python3 '{}'", own.join("executor.py").display());
    work.args(["work", "orders", "--url"])
        .arg(format!("http://{address}"))
        .args(["--concurrency", "2", "--exec", &exec]);
    let mut worker = Running::start("worker", work, &place)?;

    let mut judge = Command::new(schemathesis);
    judge
        .arg("--config-file")
        .arg(own.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .args([
            "--continue-on-failure",
            "--request-timeout",
            "30",
            "--max-examples",
        ])
        .arg(&options.examples)
        .args(options.seed.iter().flat_map(|seed| ["--seed", seed.as_str()]))
        .env("SCHEMATHESIS_HOOKS", own.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(&place)
        .stdin(Stdio::null());
    let passed = succeeds_in_time(judge)?;
    let alive = server.is_alive()? && worker.is_alive()?;
    if !alive {
        say("the server or its worker ended on the way");
    }
    let panicked = server.said_anywhere("panicked")?;
    if !passed || !alive || panicked {
        say(&format!("logs of server and worker: {}", place.display()));
    }
    Ok(passed && alive && !panicked)
}

/// The address in the ready file, once it is there.
fn wait_for(ready: &Path, server: &mut Running) -> Result<String> {
    for _ in 0..START_MAX.as_millis() / LOOK_AGAIN.as_millis() {
        if let Ok(address) = fs::read_to_string(ready) {
            return Ok(address.trim().to_owned());
        }
        if !server.is_alive()? {
            bail!("the server did not start; its log is {}", server.log.display());
        }
        pause();
    }
    bail!("the server was not ready within {} s", START_MAX.as_secs())
}

/// Runs a command to its end, or ends it when its time is over.
fn succeeds_in_time(mut command: Command) -> Result<bool> {
    let mut child = command.spawn().context("cannot run schemathesis")?;
    for _ in 0..RUN_MAX.as_millis() / LOOK_AGAIN.as_millis() {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        pause();
    }
    child.kill()?;
    child.wait()?;
    say(&format!(
        "schemathesis did not end within {} min",
        RUN_MAX.as_secs() / 60
    ));
    Ok(false)
}

/// Nobody sends: the wait ends by its time.
fn pause() {
    let (_sender, receiver) = sync_channel::<()>(0);
    let _ = receiver.recv_timeout(LOOK_AGAIN);
}

/// A process that ends with this value, and the file that has what it said.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(name: &str, mut command: Command, place: &Path) -> Result<Self> {
        let log = place.join(format!("{name}.log"));
        let file = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        Ok(Self { child, log })
    }

    fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn said_anywhere(&self, word: &str) -> Result<bool> {
        let said = fs::read(&self.log).context("cannot read a log")?;
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(word)).collect();
        lines.iter().for_each(|line| say(line));
        Ok(!lines.is_empty())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_unknown_ones_refused() {
        let parse = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            Options::parse(&arguments)
        };
        let options = parse(&["--seed", "7", "--examples", "3"]).unwrap();
        assert_eq!(
            (options.examples.as_str(), options.seed.as_deref()),
            ("3", Some("7"))
        );
        assert!(parse(&["--seed"]).is_err());
        assert!(parse(&["--sed", "7"]).is_err());
    }
}

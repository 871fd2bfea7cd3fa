//! A child process that says where it listens, and is not left behind.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

/// A program with a server in it, started, and ended at the latest when this is dropped.
pub(crate) struct ServerProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Reads the child's log, so that it never waits for us.
    stderr: Option<JoinHandle<String>>,
}

impl ServerProcess {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            stderr: Some(stderr),
        }
    }

    /// The next line on standard output that contains `what`. Fails when the output ends before.
    pub(crate) fn line_with(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                let status = self.child.wait().unwrap();
                let log = self.stderr.take().unwrap().join().unwrap();
                panic!("no line with `{what}` before the end ({status}); its log:\n{log}");
            }
            if line.contains(what) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// All lines up to the first that contains `what`, with it.
    pub(crate) fn lines_to(&mut self, what: &str) -> String {
        let mut lines = String::new();
        while !lines.lines().last().is_some_and(|line| line.contains(what)) {
            assert!(self.stdout.read_line(&mut lines).unwrap() > 0, "{lines}");
        }
        lines
    }

    /// What is printed from here to the end.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end: how, and the whole log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.stderr.take().unwrap().join().unwrap())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // One that has ended needs no killing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An example, built as this test was.
pub(crate) fn example(name: &str) -> PathBuf {
    // <target>/<profile>/deps/it-<hash>
    let this = env::current_exe().unwrap();
    let profile = this.parent().unwrap().parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--package", "jitney", "--example", name])
        .arg("--target-dir")
        .arg(profile.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    profile.join("examples").join(name)
}

/// The part of a line from `http://` on, up to white space or a quote.
pub(crate) fn url_in(line: &str) -> String {
    let url = &line[line.find("http://").unwrap()..];
    let end = url.find([' ', ',', '\'']).unwrap_or(url.len());
    url[..end].to_owned()
}

//! docs/first_service.md as it stands: its files go into an empty directory, its commands run there, and what they print
//! is what the page shows.
//!
//! A fenced block whose first line is `# NAME` is that file. In other blocks a line that begins with `$ ` is a command, and
//! the lines below it are what it prints; `...` stands for anything. `jitney ...` commands go on running.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{ServerProcess, url_in};

const PAGE: &str = include_str!("../../../../docs/first_service.md");

/// Where the page's server listens.
const ADDRESS: &str = "localhost:8080";

/// The content of each fenced block.
fn blocks() -> Vec<String> {
    let mut parts = PAGE.split("\n```");
    let mut blocks = Vec::new();
    parts.next();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        let (_language, content) = block.split_once('\n').unwrap();
        blocks.push(content.to_owned());
    }
    blocks
}

/// The commands of a block, each with what it prints.
fn commands(block: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, printed))) => {
                printed.push_str(line);
                printed.push('\n');
            }
            (None, None) => {}
        }
    }
    commands
}

/// Starts a `jitney` command of the page.
fn start(directory: &Path, command: &str, environment: &[(&str, &str)]) -> ServerProcess {
    let words = shlex::split(command).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_jitney"));
    process.args(&words[1..]).current_dir(directory).env_clear();
    process.env("PATH", std::env::var_os("PATH").unwrap());
    process.envs(environment.iter().copied());
    ServerProcess::start(&mut process)
}

/// What a command of the page prints, with the server at this address.
fn printed(directory: &Path, command: &str, address: &str) -> String {
    let command = command.replace(ADDRESS, address);
    let output = Command::new("sh")
        .args(["-c", &command])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "`{command}`: {output:?}");
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

/// Whether `text` is as `shown`, where `...` is anything.
fn is_as_shown(text: &str, shown: &str) -> bool {
    let mut parts = shown.trim_end().split("...");
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.trim_end().is_empty() || shown.trim_end().ends_with("...")
}

#[test]
fn what_is_shown_is_matched_with_gaps() {
    assert!(is_as_shown("a\nb c\n", "a\n...c\n"));
    assert!(is_as_shown("abc", "a..."));
    assert!(!is_as_shown("abcd", "a...c"));
    assert!(!is_as_shown("bc", "a..."));
}

#[test]
fn the_page_works_word_for_word() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut running = Vec::new();
    let mut address = String::new();
    let mut calls = 0;
    for block in blocks() {
        if let Some(name) = block.strip_prefix("# ").and_then(|rest| rest.lines().next()) {
            fs::write(directory.join(name), &block).unwrap();
            continue;
        }
        for (command, shown) in commands(&block) {
            if command.starts_with("jitney serve") {
                let mut server = start(directory, &command, &[("JITNEY_LISTEN", "127.0.0.1:0")]);
                let url = url_in(&server.line_with("http://"));
                address = url.strip_prefix("http://").unwrap().to_owned();
                running.push(server);
            } else if command.starts_with("jitney ") {
                let url = format!("http://{address}");
                running.push(start(directory, &command, &[("JITNEY_URL", &url)]));
            } else {
                let printed = printed(directory, &command, &address);
                assert!(is_as_shown(&printed, &shown), "`{command}` printed\n{printed}");
                calls += 1;
            }
        }
    }
    assert_eq!((running.len(), calls), (2, 5), "two programs, five calls");
}

/// What the page says of itself.
#[test]
fn the_files_are_as_long_as_the_page_says() {
    let lines = |name: &str| {
        let block = blocks()
            .into_iter()
            .find(|block| block.starts_with(name))
            .unwrap();
        block.lines().count()
    };
    assert_eq!((lines("# jitney.toml"), lines("# worker.py")), (20, 25));
}

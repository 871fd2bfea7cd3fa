//! Pages that repeat what the binary says, say the same. `UPDATE_DOCS=1 cargo test docs` writes them anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Checks the part of a page between `<!-- begin NAME -->` and `<!-- end NAME -->`, or writes it.
fn assert_part(page: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(page);
    let written = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = written.split_once(&begin).unwrap();
    let (part, after) = rest.split_once(&end).unwrap();
    if part == text {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(&path, format!("{before}{begin}{text}{end}{after}")).unwrap();
    }
    panic!(
        "docs/{page} is behind: UPDATE_DOCS=1 cargo test docs writes it\n--- the page\n{part}\n--- the binary\n{text}"
    );
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_jitney"))
        .args(command)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_configuration_page_has_the_reference() {
    let text = format!("```toml\n{}```\n", jitney::config::DEFAULT_TOML);
    assert_part("config.md", "default.toml", &text);
}

#[test]
fn the_command_line_page_has_the_help() {
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["work"],
        &["submit"],
        &["job", "get"],
        &["lane", "ls"],
        &["lane", "pause"],
        &["lane", "resume"],
        &["policy", "show"],
        &["policy", "set"],
        &["policy", "unset"],
        &["log", "inspect"],
        &["log", "verify"],
        &["log", "repair"],
        &["config", "check"],
        &["config", "show"],
        &["health"],
        &["quickstart"],
        &["bench"],
        &["completions"],
        &["man"],
    ];
    let mut text = String::new();
    for command in commands {
        let title = [&["jitney"], *command].concat().join(" ");
        write!(
            text,
            "### `{title}`\n\n```text\n{}\n```\n\n",
            help(command).trim_end()
        )
        .unwrap();
    }
    assert_part("cli.md", "help", &text);
}

//! Commands that cannot be run as they were written, and what to do: the mistakes that everybody makes once.
//!
//! In: the command as it was written, or a program and what the system said. Out: a sentence for people.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What begins a word that a shell would not hand on.
const OPERATORS: &[&str] = &["||", "|", "&&", "&", ">>", ">", "<<", "<", ";", "2>", "1>"];

/// The first operator of a shell in a command line, outside of quotes: no shell runs, so that it would be an argument.
#[must_use]
pub fn shell_operator(command: &str) -> Option<&str> {
    let (mut quote, mut escaped, mut begins) = (None, false, true);
    for (at, char) in command.char_indices() {
        if escaped {
            (escaped, begins) = (false, false);
            continue;
        }
        match (quote, char) {
            (Some('\''), '\\') => {}
            (_, '\\') => escaped = true,
            (Some(open), _) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, _) if begins => {
                let rest = &command[at..];
                let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
                if let Some(operator) = operator {
                    return Some(operator);
                }
            }
            (None, ';') if command[at + 1..].starts_with([' ', '\t', '\n']) || at + 1 == command.len() => {
                return Some(";");
            }
            (None, _) => {}
        }
        begins = quote.is_none() && char.is_whitespace();
    }
    None
}

/// What to do about a program that the system would not start.
pub(super) fn of_start(program: &str, error: &io::Error) -> Option<String> {
    if !program.contains('/') {
        return (error.kind() == io::ErrorKind::NotFound).then(|| of_name(program));
    }
    let path = Path::new(program);
    match error.kind() {
        io::ErrorKind::NotFound => Some(match missing_part(path) {
            Some(part) => format!("there is no `{}`{}", part.display(), seen_from(path)),
            None => "the file is there: the interpreter that its first line names is not (`#!` needs a whole path, \
                     and no CR at the end of the line)"
                .to_owned(),
        }),
        io::ErrorKind::PermissionDenied => Some(of_permission(path, program)),
        io::ErrorKind::ExecutableFileBusy => Some("it is being written: wait for that".to_owned()),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => Some(format!(
            "it is no program of this machine, or a script whose first line names no interpreter \
             (`#!/usr/bin/env python3`); `python3 {program}` needs none"
        )),
        _ => None,
    }
}

/// Whether the program can be found and run, as the system looks for it: by its path, or in the folders of PATH.
pub(super) fn look(program: &str) -> io::Result<()> {
    let runs = |path: &Path| {
        path.metadata()
            .map(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return match runs(Path::new(program))? {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| matches!(runs(&folder.join(program)), Ok(true)));
    if found {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn of_name(program: &str) -> String {
    if Path::new(program).is_file() {
        return format!("it is in no folder of PATH; the file that is here is `./{program}`");
    }
    match program.split_once('=') {
        Some((name, _)) if !name.is_empty() => {
            format!("no shell runs: for a variable write `env {program} PROGRAM`")
        }
        _ => "it is in no folder of PATH, and no shell runs that would know it; a path of its own needs `./` before it"
            .to_owned(),
    }
}

fn of_permission(path: &Path, program: &str) -> String {
    match path.metadata() {
        Ok(file) if file.is_dir() => "it is a folder".to_owned(),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => format!(
            "it is not executable: `chmod +x {program}`, or name its interpreter, as in `python3 {program}`"
        ),
        _ => "this user may not run it: look at its permissions, those of its folders, and at the `noexec` of its \
              file system"
            .to_owned(),
    }
}

/// The first part of a path that is not there.
fn missing_part(path: &Path) -> Option<PathBuf> {
    let mut parts: Vec<&Path> = path
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty())
        .collect();
    parts.reverse();
    parts
        .into_iter()
        .find(|part| part.symlink_metadata().is_err())
        .map(Path::to_owned)
}

fn seen_from(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(here) if path.is_relative() => format!(" in {}", here.display()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn operators_of_a_shell_are_seen_and_arguments_that_look_like_them_are_not() {
        for (command, operator) in [
            ("cat | x", Some("|")),
            ("a && b", Some("&&")),
            ("a > out", Some(">")),
            ("a >out", Some(">")),
            ("a 2>&1", Some("2>")),
            ("a 'b' | c", Some("|")),
            ("a; b", Some(";")),
            ("a;", Some(";")),
            ("a &", Some("&")),
            ("a < in", Some("<")),
            ("sh -c 'cat | x'", None),
            ("sh -c \"a \\\" | b\"", None),
            ("awk -F '|' x", None),
            ("a \\| b", None),
            ("a http://x/?a=1&b=2;c", None),
            ("a b|c 5>4", None),
            ("./x --name=a", None),
            ("'open | quote", None),
        ] {
            assert_eq!(shell_operator(command), operator, "{command}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_advice() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let file = |name: &str, text: &str, mode| {
            let path = here.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let plain = file("plain.py", "#!/bin/sh\n", 0o644);
        let lost = file("lost.py", "#!/no/such/interpreter\n", 0o755);
        let bare = file("bare.py", "print(1)\n", 0o755);
        let missing = here.join("no/such/x.py").to_str().unwrap().to_owned();
        let folder = here.to_str().unwrap().to_owned();
        for (program, said) in [
            (&plain, format!("chmod +x {plain}")),
            (
                &lost,
                "the interpreter that its first line names is not".to_owned(),
            ),
            (&bare, format!("`python3 {bare}` needs none")),
            (&missing, format!("there is no `{}`", here.join("no").display())),
            (&folder, "it is a folder".to_owned()),
            (
                &"no-such-program".to_owned(),
                "it is in no folder of PATH".to_owned(),
            ),
            (&"A=1".to_owned(), "`env A=1 PROGRAM`".to_owned()),
        ] {
            let error = std::process::Command::new(program).spawn().unwrap_err();
            let advice = of_start(program, &error).unwrap_or_else(|| panic!("{program}: {error}"));
            assert!(advice.contains(&said), "{advice}");
            // What is found out without starting it has the same advice.
            if program != &lost && program != &bare {
                assert_eq!(of_start(program, &look(program).unwrap_err()), Some(advice));
            }
        }
        assert!(look("sh").is_ok() && look(&bare).is_ok());
    }
}

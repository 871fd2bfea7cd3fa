//! What must not be written, or only in one place.

use super::paths::{CodePath, paths};
use super::rust::{Rust, words};
use super::tree::{File, Tree};
use super::{Exception, Finding};

/// A ban on something in Rust code.
struct Ban {
    /// What it looks for.
    needles: &'static [Needle],
    /// Where it holds: a file, or a folder with `/`.
    scope: &'static str,
    /// Whether it holds in test code too.
    in_tests: bool,
    /// Where it does not hold.
    except: &'static [Exception],
    /// What to do instead.
    advice: &'static str,
}

enum Needle {
    /// Segments of a path, anywhere in it.
    Path(&'static str),
    /// The first segments of a path.
    Root(&'static str),
    /// Segments that read a clock. Tokio's timers are none: they run the async edge, and tests pause them.
    Clock(&'static str),
    /// A macro of this name.
    Macro(&'static str),
    /// These characters, in code.
    Code(&'static str),
}

use Needle::{Clock, Code, Macro, Path, Root};

const BANS: &[Ban] = &[
    Ban {
        needles: &[
            Clock("Instant::now"),
            Clock("SystemTime::now"),
            Clock("Timestamp::now"),
            Clock("Zoned::now"),
        ],
        scope: "crates/",
        in_tests: false,
        except: &[Exception::new("crates/jitney/src/clock.rs", "it is the clock")],
        advice: "take a `Now`, or a `Clock`: only clock.rs reads the machine's clocks",
    },
    Ban {
        needles: &[Root("std::fs"), Root("tokio::fs")],
        scope: "crates/",
        in_tests: false,
        except: &[
            Exception::new("crates/joblog/src/dir.rs", "it is the `Storage` of real files"),
            Exception::new("crates/joblog/src/dir/", "and these are its files"),
            Exception::new(
                "crates/jitney/src/config/source.rs",
                "reading the file that a person wrote is its job",
            ),
            Exception::new(
                "crates/jitney/src/cli/submit.rs",
                "`submit @FILE` reads the data that the user names",
            ),
            Exception::new(
                "crates/jitney/src/cli/submit_results.rs",
                "`submit --out FILE` writes results where the user says",
            ),
            Exception::new(
                "crates/sim/src/bin/crash/",
                "real processes and their histories lie in real files",
            ),
            Exception::new(
                "crates/sim/src/runner.rs",
                "the seeds that failed are kept in a file",
            ),
            Exception::new(
                "crates/jitney/src/cli/man.rs",
                "`man --out DIR` writes the pages where the user says",
            ),
            Exception::new(
                "crates/jitney/src/exec/orphans.rs",
                "which children a process has stands in /proc only",
            ),
            Exception::new(
                "crates/jitney/src/cli/signals.rs",
                "whether a hangup is ignored stands in /proc/self/status only",
            ),
            Exception::new(
                "crates/jitney/src/cli/ready_file.rs",
                "`--ready-file` tells whoever started the server where it is",
            ),
            Exception::new(
                "crates/jitney/src/bench/scratch.rs",
                "the directory of a bench is made and removed by it",
            ),
            Exception::new(
                "crates/jitney/src/bench/machine.rs",
                "/proc is where the system says what a process used",
            ),
        ],
        advice: "go through joblog's `Storage`; a loader of configuration gets an exception with its reason",
    },
    Ban {
        needles: &[Code(".unwrap()")],
        scope: "",
        in_tests: false,
        except: &[],
        advice: "handle it, return it, or `expect` it with the proof as text",
    },
    Ban {
        needles: &[Code("#[allow("), Code("#![allow(")],
        scope: "",
        in_tests: true,
        except: &[],
        advice: "write `#[expect(lint, reason = \"...\")]`, which ends when its cause ends",
    },
    Ban {
        needles: &[Code("#[ignore")],
        scope: "",
        in_tests: true,
        except: &[],
        advice: "mend the test, or take it out: a test that does not run proves nothing",
    },
    Ban {
        needles: &[
            Macro("println"),
            Macro("print"),
            Macro("eprintln"),
            Macro("eprint"),
            Macro("dbg"),
        ],
        scope: "crates/jitney/",
        in_tests: false,
        except: &[],
        advice: "print through cli/output.rs, log through tracing",
    },
    Ban {
        needles: &[Path("thread::spawn")],
        scope: "crates/",
        in_tests: false,
        except: &[],
        advice: "use `std::thread::Builder` with a name, and join it",
    },
    Ban {
        needles: &[Path("*")],
        scope: "",
        in_tests: false,
        except: &[],
        advice: "import what you use by name; a glob is for tests",
    },
    Ban {
        needles: &[Macro(concat!("to", "do")), Macro(concat!("unimpl", "emented"))],
        scope: "",
        in_tests: true,
        except: &[],
        advice: "leave out what is not there, and refuse it by name",
    },
    Ban {
        needles: &[Root("tokio"), Root("tracing"), Root("jitney"), Root("anyhow")],
        scope: "crates/joblog/src/",
        in_tests: true,
        except: &[],
        advice: "the log is synchronous and knows nothing above it",
    },
];

/// Words that no file may have. In two parts, so that this file has them not.
const WORDS: &[(&str, &str)] = &[
    (
        concat!("TO", "DO"),
        "do it, or leave it out; an issue remembers better",
    ),
    (
        concat!("FIX", "ME"),
        "mend it, or leave it out; an issue remembers better",
    ),
];

/// Folders of one machine. In two parts, so that this file has them not.
const MACHINE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/t", "mp/"),
];

/// Statuses that are no error; the others are made from an error code, in one file.
const SUCCESSES: &[&str] = &["OK", "CREATED", "ACCEPTED", "NO_CONTENT", "NOT_MODIFIED"];
const STATUS_FILE: &str = "crates/jitney/src/http/error.rs";

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust() {
        let paths = paths(&rust.code);
        statuses(file, rust, &paths, findings);
        for ban in BANS {
            findings.extend(hits(ban, file, rust, &paths).filter(|_| excepted(ban, &file.path).is_none()));
        }
    }
    for ban in BANS {
        unused(ban, tree, findings);
    }
    for file in &tree.files {
        text(file, findings);
    }
}

fn excepted<'a>(ban: &'a Ban, path: &str) -> Option<&'a Exception> {
    ban.except.iter().find(|exception| exception.covers(path))
}

fn hits<'a>(
    ban: &'a Ban,
    file: &'a File,
    rust: &'a Rust,
    paths: &'a [CodePath],
) -> impl Iterator<Item = Finding> + 'a {
    let needles = if file.path.starts_with(ban.scope) {
        ban.needles
    } else {
        &[]
    };
    let offsets = needles
        .iter()
        .flat_map(move |needle| offsets(needle, rust, paths));
    offsets
        .filter(|(at, _)| ban.in_tests || !rust.is_test(*at))
        .map(|(at, name)| {
            let text = format!("`{name}` has no place here; {}", ban.advice);
            Finding::new(&file.path, rust.line(at), text)
        })
}

/// Where the needle is, and what to call it.
fn offsets(needle: &Needle, rust: &Rust, paths: &[CodePath]) -> Vec<(usize, String)> {
    let code = &rust.code;
    match *needle {
        Path(wanted) => named(paths.iter().filter(|path| path.contains(wanted))),
        Root(wanted) => named(paths.iter().filter(|path| path.starts_with(wanted))),
        Clock(wanted) => {
            let reads = |path: &&CodePath| path.contains(wanted) && !path.starts_with("tokio");
            named(paths.iter().filter(reads))
        }
        Macro(name) => words(code, name)
            .filter(|at| code[at + name.len()..].starts_with('!'))
            .map(|at| (at, format!("{name}!")))
            .collect(),
        Code(text) => code
            .match_indices(text)
            .map(|(at, _)| (at, text.to_owned()))
            .collect(),
    }
}

fn named<'a>(paths: impl Iterator<Item = &'a CodePath>) -> Vec<(usize, String)> {
    paths.map(|path| (path.at, path.segments.join("::"))).collect()
}

/// An exception that nothing needs is a hole that waits.
fn unused(ban: &Ban, tree: &Tree, findings: &mut Vec<Finding>) {
    for exception in ban.except {
        let exists = tree.files.iter().any(|file| exception.covers(&file.path));
        let needed = tree.rust().any(|(file, rust)| {
            exception.covers(&file.path) && hits(ban, file, rust, &paths(&rust.code)).next().is_some()
        });
        if exists && !needed {
            let text = format!(
                "needs no exception from `{}`; take it out of {}",
                ban.advice,
                file!()
            );
            findings.push(Finding::new(exception.path, 1, text));
        }
    }
}

fn statuses(file: &File, rust: &Rust, paths: &[CodePath], findings: &mut Vec<Finding>) {
    if !file.path.starts_with("crates/") || file.path == STATUS_FILE {
        return;
    }
    for path in paths.iter().filter(|path| !rust.is_test(path.at)) {
        let after = path
            .segments
            .iter()
            .skip_while(|segment| *segment != "StatusCode")
            .nth(1);
        let Some(name) = after else { continue };
        let is_constant = name.starts_with(|c: char| c.is_ascii_uppercase());
        if is_constant && !SUCCESSES.contains(&name.as_str()) {
            let text = format!(
                "`StatusCode::{name}` outside of http/error.rs; return an error, which has its status there"
            );
            findings.push(Finding::new(&file.path, rust.line(path.at), text));
        }
    }
}

/// What holds for text, comments and literals included.
fn text(file: &File, findings: &mut Vec<Finding>) {
    let is_source = [".rs", ".toml", ".sh", ".py", ".yml", "/run"]
        .iter()
        .any(|end| file.path.ends_with(end));
    let mut offset = 0;
    for (index, line) in file.text.split_inclusive('\n').enumerate() {
        let mut found = |text: String| findings.push(Finding::new(&file.path, index + 1, text));
        if is_source && let Some(character) = line.chars().find(|c| !c.is_ascii()) {
            found(format!(
                "`{}` is not ASCII; write it as an escape, or in words",
                character.escape_unicode()
            ));
        }
        for (word, advice) in WORDS
            .iter()
            .filter(|(word, _)| words(line, word).next().is_some())
        {
            found(format!("`{word}` is a promise that nobody keeps; {advice}"));
        }
        let is_test = file.rust.as_ref().is_some_and(|rust| rust.is_test(offset));
        for folder in MACHINE
            .iter()
            .filter(|folder| !is_test && machine_path(line, folder))
        {
            found(format!(
                "`{folder}` is a folder of one machine; use a relative path, or ask the system"
            ));
        }
        offset += line.len();
    }
}

/// Whether the folder stands there as an absolute path, not inside a longer one.
fn machine_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    #[track_caller]
    fn refused(path: &str, text: &str, why: &str) {
        let findings = findings(path, text);
        assert_eq!(findings.len(), 1, "{text}: {findings:?}");
        assert!(findings[0].contains(why), "{findings:?}");
    }

    #[track_caller]
    fn fine(path: &str, text: &str) {
        assert_eq!(findings(path, text), [""; 0], "{text}");
    }

    const HERE: &str = "crates/jitney/src/x.rs";

    #[test]
    fn only_the_clock_reads_clocks() {
        refused(HERE, "\nfn f() { Instant::now(); }", "x.rs:2: `Instant::now`");
        refused(
            HERE,
            "fn f() { std::time::SystemTime::now(); }",
            "SystemTime::now",
        );
        refused(HERE, "fn f() { jiff::Timestamp::now(); }", "Timestamp::now");
        refused(
            HERE,
            "use std::time::Instant;\nfn f() { Instant::now(); }",
            "std::time::Instant::now",
        );
        fine(HERE, "use tokio::time::Instant;\nfn f() { Instant::now(); }");
        fine("crates/jitney/src/clock.rs", "fn f() { Instant::now(); }");
        fine(
            HERE,
            "// Instant::now()\nfn f() { \"Instant::now()\"; clock.now(); }",
        );
        fine(HERE, "#[test]\nfn f() { Instant::now(); }");
    }

    #[test]
    fn only_the_storage_opens_files() {
        refused(HERE, "use std::fs::File;", "std::fs::File");
        refused(HERE, "use std::{fs, io};", "std::fs");
        refused(HERE, "fn f() { tokio::fs::read(x) }", "tokio::fs");
        fine(HERE, "#[cfg(test)]\nmod tests { use std::fs::File; }");
        fine("xtask/src/x.rs", "use std::fs::File;");
    }

    #[test]
    fn unwrap_is_for_tests() {
        refused(HERE, "fn f() { x.unwrap() }", ".unwrap()");
        fine(
            HERE,
            "fn f() { x.unwrap_or(1); x.expect(\"proved\") }\n#[test] fn g() { x.unwrap() }",
        );
        fine("crates/jitney/tests/it/main.rs", "fn f() { x.unwrap() }");
    }

    #[test]
    fn a_lint_is_expected_and_a_test_is_run() {
        refused(HERE, "#[allow(dead_code)]\nfn f() {}", "#[allow(");
        refused(HERE, "#![allow(dead_code)]", "#![allow(");
        refused(HERE, "#[cfg(test)] mod t { #[allow(x)] fn f() {} }", "#[allow(");
        refused(HERE, "#[test]\n#[ignore = \"slow\"]\nfn f() {}", "#[ignore");
        fine(HERE, "#[expect(dead_code, reason = \"x\")]\nfn f() {}");
    }

    #[test]
    fn printing_goes_through_one_place() {
        refused(HERE, "fn f() { println!(\"x\") }", "println!");
        refused(HERE, "fn f() { eprint!(\"x\") }", "eprint!");
        fine(
            HERE,
            "fn f() { my_println!(1); print(2); println == 3; }\n#[test] fn g() { println!() }",
        );
        fine("xtask/src/x.rs", "fn f() { println!(\"x\") }");
    }

    #[test]
    fn threads_have_names_and_imports_too() {
        refused(HERE, "fn f() { thread::spawn(g) }", "thread::spawn");
        refused(HERE, "use crate::job::*;", "crate::job::*");
        fine(
            HERE,
            "fn f() { tokio::spawn(g); a * b }\n#[cfg(test)] mod t { use super::*; }",
        );
    }

    #[test]
    fn the_log_knows_nothing_above_it() {
        for wanted in ["tokio::spawn", "tracing::info", "jitney::job", "anyhow::Result"] {
            refused("crates/joblog/src/x.rs", &format!("use {wanted};"), wanted);
        }
    }

    #[test]
    fn errors_get_their_status_in_one_file() {
        refused(
            HERE,
            "fn f() { StatusCode::BAD_REQUEST }",
            "StatusCode::BAD_REQUEST",
        );
        refused(
            HERE,
            "use axum::http::StatusCode::CONFLICT;",
            "StatusCode::CONFLICT",
        );
        fine(
            HERE,
            "use http::StatusCode;\nfn f() { StatusCode::OK; StatusCode::ACCEPTED; StatusCode::from_u16(1) }",
        );
        fine(STATUS_FILE, "fn f() { StatusCode::BAD_REQUEST }");
    }

    #[test]
    fn nothing_is_left_for_later() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            refused("a.md", &format!("x\n{word}: y"), "a.md:2:");
            refused("a.rs", &format!("// {word}"), word);
            fine("a.rs", &format!("// {word}S {}", word.to_lowercase()));
        }
        refused("a.rs", concat!("fn f() { to", "do!() }"), "refuse it by name");
        refused(
            "a.rs",
            concat!("#[test] fn f() { unimpl", "emented!() }"),
            "refuse it by name",
        );
    }

    #[test]
    fn source_is_ascii() {
        refused("a.rs", "\n// \u{2026}", "a.rs:2: `\\u{2026}`");
        refused("a.toml", "\u{e9}", "not ASCII");
        fine("a.md", "\u{2026}");
    }

    #[test]
    fn no_folder_of_one_machine_is_named() {
        for folder in MACHINE {
            refused("a.md", &format!("see {folder}x"), folder);
            refused("a.rs", &format!("const A: &str = \"{folder}x\";"), folder);
            fine("a.rs", &format!("#[test] fn f() {{ \"{folder}x\" }}"));
            fine(
                "a.md",
                &format!("see crates{folder}x and https://example.org{folder}"),
            );
        }
    }

    #[test]
    fn an_exception_ends_when_nothing_needs_it() {
        refused("crates/jitney/src/clock.rs", "fn f() {}", "needs no exception");
    }

    #[test]
    fn every_ban_finds_what_it_looks_for() {
        for ban in BANS {
            for needle in ban.needles {
                let code = match *needle {
                    Path(wanted) | Clock(wanted) => format!("use a::{wanted};"),
                    Root(wanted) => format!("use {wanted}::a;"),
                    Macro(name) => format!("fn f() {{ {name}!() }}"),
                    Code(text) => text.to_owned(),
                };
                let tree = Tree::of(&[(&format!("{}a.rs", ban.scope), &code)]);
                let (file, rust) = tree.rust().next().unwrap();
                assert_eq!(hits(ban, file, rust, &paths(&rust.code)).count(), 1, "{code}");
            }
        }
    }
}

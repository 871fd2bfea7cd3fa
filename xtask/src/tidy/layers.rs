//! Which module may use which. The table is mirrored in ARCHITECTURE.md, and compared with it here.

use super::Finding;
use super::paths::{CodePath, paths};
use super::rust::Rust;
use super::tree::{File, Tree};

const SOURCES: &str = "crates/jitney/src/";
const MIRROR: &str = "ARCHITECTURE.md";

/// A module and all that it may use of this crate beside the leaves: a module, or one item or submodule of it.
type Row = (&'static str, &'static str);

/// The modules in the order of the data path, then what stands around it. Test code is free.
const LAYERS: &[Row] = &[
    (
        "http",
        "server::handle server::options driver::port driver::refusal bus::Capabilities bus::Usage \
         dispatcher::event::LaneStats fingerprint metrics policy entropy",
    ),
    ("server", "http driver bus dispatcher metrics policy entropy"),
    ("driver", "dispatcher bus metrics policy"),
    ("bus", ""),
    (
        "dispatcher",
        "bus::Arrival bus::Past bus::RecoveredLease bus::Identity policy",
    ),
    ("client", "entropy"),
    ("worker", "client entropy"),
    (
        "embed",
        "server client worker http driver::port driver::refusal policy",
    ),
    ("exec", "worker client entropy"),
    (
        "cli",
        "server client worker exec config bench bus metrics telemetry policy entropy",
    ),
    ("bench", "dispatcher bus policy entropy"),
    ("config", "server::options policy"),
    ("fuzzing", "http config exec driver"),
    ("metrics", "bus::Usage dispatcher::event"),
    ("telemetry", ""),
    ("policy", ""),
    ("fingerprint", ""),
    ("entropy", ""),
];

/// What every module may use; they use each other only.
const LEAVES: &[&str] = &["job", "clock", "limits", "units", "near", "written", "mutants"];

/// Other crates that only some modules may name: a library, the modules, and why no other.
const LIBRARIES: &[(&str, &str, &str)] = &[
    (
        "joblog",
        "server driver bus job clock cli bench",
        "the edge and the dispatcher see jobs, not records",
    ),
    ("anyhow", "cli main", "a library names its errors"),
    ("clap", "cli main", "only the command line parses arguments"),
    ("clap_complete", "cli", "only the command line parses arguments"),
    ("clap_mangen", "cli", "only the command line parses arguments"),
    ("axum", "http server bench", "HTTP ends at the front door"),
    ("hyper", "http server", "HTTP ends at the front door"),
    (
        "reqwest",
        "client worker",
        "outgoing HTTP goes through the client",
    ),
    (
        "prometheus_client",
        "metrics",
        "names, units and labels live in one file",
    ),
    ("getrandom", "entropy", "randomness comes in through one file"),
    (
        "tokio",
        "http server client worker embed exec cli bench telemetry main",
        "what decides is synchronous, so that the simulator can run it",
    ),
    (
        "tracing",
        "http server client worker embed exec cli config telemetry bus driver main",
        "what decides is pure; log where its verdict is carried out",
    ),
];

/// What pure modules must not name: they get events and give back actions.
const PURE: &[&str] = &["dispatcher", "policy", "job", "limits"];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::sync::mpsc",
];

/// The log stands on the standard library and a checksum.
const JOBLOG_MANIFEST: &str = "crates/joblog/Cargo.toml";
const JOBLOG_DEPENDENCIES: &[&str] = &["crc32c"];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, rust) in tree.rust() {
        if let Some(inner) = file.path.strip_prefix(SOURCES) {
            module(file, rust, inner, findings);
        }
    }
    if let Some(manifest) = tree.files.iter().find(|file| file.path == JOBLOG_MANIFEST) {
        joblog(manifest, findings);
    }
    if let Some(page) = tree.files.iter().find(|file| file.path == MIRROR) {
        mirror(page, findings);
    }
}

fn module(file: &File, rust: &Rust, inner: &str, findings: &mut Vec<Finding>) {
    let place: Vec<&str> = inner
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| *part != "mod")
        .collect();
    let name = place[0];
    let row = LAYERS
        .iter()
        .find(|(module, _)| *module == name)
        .map(|(_, allowed)| *allowed);
    let row = row.or_else(|| LEAVES.contains(&name).then_some(""));
    if row.is_none() && !matches!(name, "lib" | "main") {
        let text = format!(
            "`{name}` is not in the table of layers; give it a row in {} and {MIRROR}",
            file!()
        );
        findings.push(Finding::new(&file.path, 1, text));
        return;
    }
    let depth = if matches!(name, "lib" | "main") {
        0
    } else {
        place.len()
    };
    for path in paths(&rust.code) {
        if rust.is_test(path.at) {
            continue;
        }
        let text = match inside(&path, depth + rust.inline_depth(path.at), name) {
            Some(target) => forbidden_inside(name, row, &target),
            None => forbidden_outside(name, &path),
        };
        if let Some(text) = text {
            findings.push(Finding::new(&file.path, rust.line(path.at), text));
        }
    }
}

/// The path below the crate's root, if it leads there.
fn inside(path: &CodePath, depth: usize, name: &str) -> Option<Vec<String>> {
    let up = path
        .segments
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    let root = match path.segments[0].as_str() {
        "crate" => 1,
        "jitney" if name == "main" => 1,
        "super" if up == depth => up,
        _ => return None,
    };
    let below = path.segments[root..].to_vec();
    (!below.is_empty()).then_some(below)
}

fn forbidden_inside(name: &str, row: Option<&str>, target: &[String]) -> Option<String> {
    let module = target[0].as_str();
    if name == "lib" || module == name || (name != "main" && LEAVES.contains(&module)) {
        return None;
    }
    let target = target.join("::");
    let Some(allowed) = row else {
        return (module != "cli")
            .then(|| format!("`main` uses `{target}`; it may use only `cli`, which owns the commands"));
    };
    let permits = |entry: &str| target == entry || target.starts_with(&format!("{entry}::"));
    (!allowed.split_whitespace().any(permits)).then(|| {
        format!("`{name}` uses `{target}`, which is not in its row; turn the dependency round, or argue for the row")
    })
}

fn forbidden_outside(name: &str, path: &CodePath) -> Option<String> {
    if PURE.contains(&name)
        && let Some(impure) = IMPURE.iter().find(|impure| path.starts_with(impure))
    {
        return Some(format!(
            "`{name}` is pure and names `{impure}`; return an action, and let the driver carry it out"
        ));
    }
    let (library, allowed, reason) = LIBRARIES
        .iter()
        .find(|(library, _, _)| path.segments[0] == *library)?;
    let permitted = allowed.split_whitespace().any(|module| module == name);
    (!permitted).then(|| format!("`{name}` uses `{library}`; {reason}: it is for {allowed}"))
}

fn joblog(manifest: &File, findings: &mut Vec<Finding>) {
    let mut section = "";
    for (index, line) in manifest.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !JOBLOG_DEPENDENCIES.contains(&name) {
                let text =
                    format!("the log depends on `{name}`; it stands on the standard library and a checksum");
                findings.push(Finding::new(&manifest.path, index + 1, text));
            }
        }
    }
}

fn mirror(page: &File, findings: &mut Vec<Finding>) {
    for line in rendered() {
        if !page.text.lines().any(|written| written == line) {
            let text = format!(
                "the table of layers lacks a row as {} has it; write `{line}`",
                file!()
            );
            findings.push(Finding::new(&page.path, 1, text));
        }
    }
}

/// The rows as the page shows them.
fn rendered() -> Vec<String> {
    let mut rows: Vec<String> = LAYERS
        .iter()
        .map(|(module, allowed)| format!("| `{module}` | {} |", listed(allowed.split_whitespace())))
        .collect();
    let leaves = listed(LEAVES.iter().copied());
    rows.push(format!("| {leaves} | each other |"));
    rows
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "only the leaves".to_owned()
    } else {
        names.join(", ")
    }
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
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains(why), "{findings:?}");
    }

    #[test]
    fn a_module_uses_only_what_its_row_names() {
        let allowed =
            "use crate::bus::{Arrival, Past};\nuse crate::job::JobId;\nuse crate::dispatcher::lane;";
        assert_eq!(findings("crates/jitney/src/dispatcher/mod.rs", allowed), [""; 0]);
        refused(
            "crates/jitney/src/dispatcher/lane.rs",
            "\nuse crate::bus::Bus;",
            "lane.rs:2: `dispatcher` uses `bus::Bus`",
        );
        refused(
            "crates/jitney/src/job.rs",
            "fn f(x: crate::driver::Driver) {}",
            "`job` uses `driver::Driver`",
        );
        refused(
            "crates/jitney/src/server/mod.rs",
            "use crate::{cli, bus};",
            "`server` uses `cli`",
        );
    }

    #[test]
    fn a_name_that_only_begins_like_an_allowed_one_is_refused() {
        refused(
            "crates/jitney/src/dispatcher/mod.rs",
            "use crate::bus::PastDue;",
            "bus::PastDue",
        );
    }

    #[test]
    fn super_is_followed_to_the_root_and_no_further() {
        assert_eq!(
            findings("crates/jitney/src/dispatcher/lane.rs", "use super::event::Event;"),
            [""; 0]
        );
        refused(
            "crates/jitney/src/dispatcher/lane.rs",
            "use super::super::server::x;",
            "`server::x`",
        );
        refused("crates/jitney/src/job.rs", "use super::server::x;", "`server::x`");
        refused(
            "crates/jitney/src/job.rs",
            "mod a { use super::super::server::x; }",
            "`server::x`",
        );
        assert_eq!(
            findings("crates/jitney/src/job.rs", "mod a { use super::server::x; }"),
            [""; 0]
        );
    }

    #[test]
    fn main_knows_the_command_line_only() {
        assert_eq!(
            findings("crates/jitney/src/main.rs", "fn main() { jitney::cli::run() }"),
            [""; 0]
        );
        refused(
            "crates/jitney/src/main.rs",
            "use jitney::server::Server;",
            "only `cli`",
        );
    }

    #[test]
    fn tests_may_use_what_they_need() {
        let text = "#[cfg(test)]\nmod tests { use crate::server::x; use std::fs::read; use tokio::spawn; }";
        assert_eq!(findings("crates/jitney/src/dispatcher/mod.rs", text), [""; 0]);
    }

    #[test]
    fn a_module_without_a_row_is_refused() {
        refused(
            "crates/jitney/src/helpers.rs",
            "",
            "`helpers` is not in the table",
        );
        assert_eq!(
            findings(
                "crates/jitney/src/lib.rs",
                "pub mod job; pub use crate::job::JobId;"
            ),
            [""; 0]
        );
    }

    #[test]
    fn pure_modules_touch_nothing() {
        for impure in [
            "std::fs::read",
            "std::io::Error",
            "std::net::TcpStream",
            "std::thread::spawn",
        ] {
            refused(
                "crates/jitney/src/dispatcher/mod.rs",
                &format!("use {impure};"),
                "is pure",
            );
        }
        refused(
            "crates/jitney/src/policy.rs",
            "use std::{collections::BTreeMap, env::var};",
            "`std::env`",
        );
        assert_eq!(
            findings("crates/jitney/src/server/mod.rs", "use std::thread::Builder;"),
            [""; 0]
        );
    }

    #[test]
    fn libraries_stay_in_their_modules() {
        refused(
            "crates/jitney/src/dispatcher/mod.rs",
            "use tokio::sync::oneshot;",
            "`tokio`",
        );
        refused(
            "crates/jitney/src/policy.rs",
            "fn f() { tracing::info!() }",
            "`tracing`",
        );
        refused(
            "crates/jitney/src/http/mod.rs",
            "use joblog::record::Record;",
            "`joblog`",
        );
        assert_eq!(
            findings("crates/jitney/src/bus/log.rs", "use joblog::record::Record;"),
            [""; 0]
        );
    }

    #[test]
    fn the_log_depends_on_a_checksum_and_nothing_else() {
        let good = "[dependencies]\n# why\ncrc32c.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(findings(JOBLOG_MANIFEST, good), [""; 0]);
        refused(
            JOBLOG_MANIFEST,
            "[dependencies]\ntokio = { version = \"1\" }",
            "`tokio`",
        );
    }

    #[test]
    fn the_page_must_show_every_row_as_it_is() {
        let rows = rendered();
        assert_eq!(findings(MIRROR, &rows.join("\n")), [""; 0]);
        for row in &rows {
            let others: Vec<&str> = rows
                .iter()
                .filter(|other| *other != row)
                .map(String::as_str)
                .collect();
            refused(MIRROR, &others.join("\n"), row);
        }
    }

    #[test]
    fn rows_name_modules_that_have_rows() {
        for (module, allowed) in LAYERS {
            for entry in allowed.split_whitespace() {
                let first = entry.split("::").next().unwrap();
                assert!(
                    LAYERS.iter().any(|(row, _)| *row == first),
                    "{module} may use {entry}, which has no row"
                );
            }
        }
    }
}

//! `jitney log inspect` and `log repair` on real files: beside a server, after a crash, on damage.

use std::fs;
use std::path::Path;

use jitney::client::{Client, LeaseRequest, Outcome, Settle, SettleBody, parse_id};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{ServerProcess, url_in};
use crate::serve::{FREE_PORT, code, damage, jitney, place_of, run, text};

const SECRET: &str = "a needle in the log";

fn lines(bytes: &[u8]) -> Vec<Value> {
    let lines = text(bytes).lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Submits; gives back the job's id.
fn submit(directory: &Path, data: &str, url: &str) -> String {
    let arguments = ["submit", "orders", data, "--key", "tenant", "--url", url];
    let submitted = run(directory, &arguments);
    assert_eq!(code(&submitted), 0, "{}", text(&submitted.stderr));
    text(&submitted.stdout).trim().to_owned()
}

/// A server with two jobs, the first of them settled.
struct Stand {
    directory: tempfile::TempDir,
    server: ServerProcess,
    first: String,
    second: String,
}

impl Stand {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
        let url = url_in(&server.line_with("listening on"));
        let data = format!("\"{SECRET}\"");
        let first = submit(directory.path(), &data, &url);
        let second = submit(directory.path(), &data, &url);
        let client = Client::new(&url).unwrap();
        let request = LeaseRequest {
            max_jobs: Some(1),
            ..LeaseRequest::new("w-1")
        };
        let leased = client.lease("orders", &request).await.unwrap();
        let outcome = Outcome::json(parse_id(&first).unwrap(), &SECRET, Vec::new()).unwrap();
        let settle = Settle {
            lease: leased.batches[0].lease.clone(),
            body: SettleBody::Outcomes {
                outcomes: vec![outcome],
                last: true,
            },
        };
        client.settle(&settle).await.unwrap();
        Self {
            directory,
            server,
            first,
            second,
        }
    }

    /// What `log inspect` prints; never the data, unless it was asked for.
    fn inspect(&self, arguments: &[&str]) -> String {
        let arguments = [&["log", "inspect"], arguments].concat();
        let output = run(self.directory.path(), &arguments);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&format!("pid {}", self.server.pid())));
        let shown = text(&output.stdout).to_owned();
        assert_eq!(
            shown.contains(SECRET),
            arguments.contains(&"--show-data"),
            "{shown}"
        );
        shown
    }
}

#[tokio::test]
async fn a_log_shows_what_is_in_it_beside_its_server() {
    let stand = Stand::start().await;
    let table = stand.inspect(&[]);
    let mut rows = table.lines();
    assert!(rows.next().unwrap().starts_with("SEGMENT"), "{table}");
    assert!(rows.next().unwrap().contains(" open "), "{table}");
    let segment = &lines(stand.inspect(&["--json"]).as_bytes())[0];
    assert_eq!(
        (&segment["submits"], &segment["outcomes"]),
        (&2.into(), &1.into()),
        "{segment}"
    );
    assert_eq!(
        (&segment["state"], &segment["unsettled"]),
        (&"open".into(), &1.into()),
        "{segment}"
    );
    let records = lines(stand.inspect(&["--records", "--json"]).as_bytes());
    let of = |kind: &str| records.iter().filter(|record| record["record"] == kind).count();
    assert_eq!((of("submit"), of("outcome")), (2, 1));
    let frames = lines(
        stand
            .inspect(&["--frames", "--json", "--segment", "1"])
            .as_bytes(),
    );
    assert!(frames.len() >= 4, "{frames:?}");
    assert_eq!(
        (&frames[0]["offset"], &frames[0]["frame"]),
        (&512.into(), &1.into())
    );

    let repair = run(stand.directory.path(), &["log", "repair", "--yes"]);
    assert_eq!(code(&repair), 74, "a log in use is not repaired");
    assert!(
        text(&repair.stderr).contains("in use by the process"),
        "{}",
        text(&repair.stderr)
    );
}

#[tokio::test]
async fn the_story_of_a_job_is_told_in_order_and_its_data_only_on_request() {
    let stand = Stand::start().await;
    let story = stand.inspect(&["--job", &stand.first]);
    let mut told: Vec<_> = story
        .lines()
        .map(|line| line.split_whitespace().nth(2).unwrap())
        .collect();
    // The mark that its batch arrived may come a little later.
    told.retain(|record| *record != "delivered");
    assert_eq!(told, ["submit", "dispatch", "outcome"], "{story}");
    let shown = stand.inspect(&["--job", &stand.second, "--show-data"]);
    assert!(shown.contains("key tenant"), "{shown}");
    let nobody = "0199b7a0-0000-7000-8000-000000000001";
    for wrong in [
        &["log", "inspect", "--job", nobody][..],
        &["log", "inspect", "--job", "x"],
        &["log", "inspect", "--segment", "77"],
    ] {
        assert_eq!(code(&run(stand.directory.path(), wrong)), 2, "{wrong:?}");
    }
}

#[test]
fn a_damaged_log_is_repaired_and_everything_undamaged_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("jitney-data");
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    let lost = submit(directory.path(), &format!("\"{SECRET}\""), &url);
    let kept: Vec<_> = (0..3)
        .map(|number| submit(directory.path(), &number.to_string(), &url))
        .collect();
    server.signal(Signal::TERM);
    assert!(server.wait().0.success());

    let good = run(directory.path(), &["log", "repair"]);
    assert_eq!(
        (code(&good), text(&good.stdout)),
        (0, "the log is good: there is nothing to repair\n")
    );

    let file = damage(&data, SECRET.as_bytes());
    let before = fs::read(data.join(&file)).unwrap();
    let asked = run(directory.path(), &["log", "repair"]);
    assert_eq!(code(&asked), 2, "nobody can be asked: {}", text(&asked.stderr));
    assert!(text(&asked.stderr).contains("--yes"), "{}", text(&asked.stderr));
    for said in [
        file.as_str(),
        "kept as `damaged-",
        &lost,
        "accepted jobs that are gone: 1",
        "unsettled jobs that stay: 3",
    ] {
        assert!(
            text(&asked.stdout).contains(said),
            "{said}: {}",
            text(&asked.stdout)
        );
    }
    assert_eq!(fs::read(data.join(&file)).unwrap(), before, "nothing was changed");
    let planned = run(directory.path(), &["log", "repair", "--json"]);
    assert_eq!(code(&planned), 2);
    assert_eq!(lines(&planned.stdout)[0]["jobs"]["gone"][0], lost.as_str());

    let repaired = run(directory.path(), &["log", "repair", "--yes", "--json"]);
    assert_eq!(code(&repaired), 0, "{}", text(&repaired.stderr));
    let plan = &lines(&repaired.stdout)[0];
    assert_eq!(plan["state"], "repaired");
    let keeper = data.join(plan["findings"][0]["kept"].as_str().unwrap());
    let offset = usize::try_from(plan["findings"][0]["offset"].as_u64().unwrap()).unwrap();
    let bytes = fs::read(keeper).unwrap();
    assert_eq!(bytes, before[offset..offset + bytes.len()]);

    assert_eq!(code(&run(directory.path(), &["log", "verify"])), 0);
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    for id in &kept {
        let job = run(directory.path(), &["job", "get", id, "--url", &url]);
        assert!(
            text(&job.stdout).contains("submitted (queued)"),
            "{}",
            text(&job.stderr)
        );
    }
    assert_eq!(
        code(&run(directory.path(), &["job", "get", &lost, "--url", &url])),
        2
    );
}

#[test]
fn a_log_of_which_a_file_was_copied_in_part_is_refused_and_can_be_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("jitney-data");
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    let first = submit(directory.path(), "1", &url);
    let lost = submit(directory.path(), &format!("\"{SECRET}\""), &url);
    server.signal(Signal::KILL);
    assert!(!server.wait().0.success());

    // The copy ends in the middle of the second job.
    let (path, at) = place_of(&data, SECRET.as_bytes());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(at as u64 + 3).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let verified = run(directory.path(), &["log", "verify"]);
    assert_eq!(code(&verified), 74);
    let said = text(&verified.stdout);
    assert!(said.contains(name) && said.contains("was shortened"), "{said}");
    assert!(!said.contains("torn"), "{said}");
    let started = jitney(directory.path(), FREE_PORT).output().unwrap();
    assert_eq!(code(&started), 74, "{}", text(&started.stderr));

    let asked = run(directory.path(), &["log", "repair"]);
    assert_eq!(code(&asked), 2);
    let said = text(&asked.stdout);
    assert!(said.contains("was shortened") && said.contains(&lost), "{said}");
    for said_of_jobs in [
        "accepted jobs that are gone: at least 1",
        "(as damaged bytes say: the id may be another)",
        "there may be more: nobody can say how many",
        "jobs that ended and will be processed again: at least 0",
        "unsettled jobs that stay: 1",
    ] {
        assert!(said.contains(said_of_jobs), "{said_of_jobs}: {said}");
    }
    assert_eq!(code(&run(directory.path(), &["log", "repair", "--yes"])), 0);
    assert_eq!(code(&run(directory.path(), &["log", "verify"])), 0);
    let mut server = ServerProcess::start(&mut jitney(directory.path(), FREE_PORT));
    let url = url_in(&server.line_with("listening on"));
    let job = run(directory.path(), &["job", "get", &first, "--url", &url]);
    assert!(
        text(&job.stdout).contains("submitted (queued)"),
        "{}",
        text(&job.stderr)
    );
}

#[test]
fn there_is_nothing_to_inspect_or_repair_where_there_is_no_log() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["inspect", "repair"] {
        for data in [".", "missing"] {
            let output = run(directory.path(), &["log", command, "--data", data]);
            assert_eq!(code(&output), 74, "{command} {data}: {}", text(&output.stderr));
            assert_eq!(text(&output.stdout), "");
        }
    }
    assert!(!directory.path().join("missing").exists());
}

//! The embedded example, killed with SIGKILL in the middle of its work: nothing accepted is lost, nothing is done
//! twice on paper, and what ran at the kill is run again at once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::process::{ServerProcess, example};

/// Orders that cost something; the one that does not has no invoice.
const ORDERS: std::ops::RangeInclusive<u32> = 1..=24;
const FREE: u32 = 13;

fn start(directory: &Path, drawing: &str) -> ServerProcess {
    let orders = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/embedded/orders.csv");
    let mut command = Command::new(example("embedded"));
    command
        .arg(orders)
        .args(["--drawing", drawing])
        .env_clear()
        .current_dir(directory);
    ServerProcess::start(&mut command)
}

/// The numbers of the orders of which the output says this.
fn said(output: &str, what: &str) -> BTreeSet<u32> {
    let number = |line: &str| {
        let (number, rest) = line.strip_prefix("order ")?.split_once(": ")?;
        (rest == what).then(|| number.parse().unwrap())
    };
    output.lines().filter_map(number).collect()
}

fn papers(directory: &Path, kind: &str) -> BTreeSet<u32> {
    let papers = std::fs::read_dir(directory.join("embedded-data").join(kind)).unwrap();
    papers
        .map(|paper| paper.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".txt")?.parse().ok())
        .collect()
}

#[test]
fn a_shop_that_is_killed_in_the_middle_loses_no_order_and_invoices_none_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = start(directory.path(), "40ms");
    let mut output = first.lines_to("invoice over");
    first.signal(Signal::KILL);
    output.push_str(&first.rest());
    drop(first);
    let accepted = said(&output, "accepted");
    assert_eq!(
        accepted,
        ORDERS.collect(),
        "all before the first invoice is shown"
    );
    let done = papers(directory.path(), "invoices");
    assert!(done.len() < 23, "killed before all was done");

    // It waits less long for an order than a lease lasts: what ran when it was killed runs again at once.
    let mut second = start(directory.path(), "1ms");
    let output = second.rest();
    let (status, log) = second.wait();
    assert!(status.success(), "{log}");
    assert_eq!(said(&output, "accepted before"), accepted, "{output}");
    assert!(output.contains("24 orders, all done"), "{output}");
    assert_eq!(said(&output, "there is nothing to pay"), BTreeSet::from([FREE]));

    let due: BTreeSet<u32> = ORDERS.filter(|number| *number != FREE).collect();
    assert_eq!(papers(directory.path(), "invoices"), due);
    assert_eq!(papers(directory.path(), "letters"), due);
    let invoice = directory.path().join("embedded-data/invoices/2.txt");
    assert_eq!(std::fs::read_to_string(invoice).unwrap(), "Bea owes 16.25\n");

    let mut third = start(directory.path(), "1ms");
    let output = third.rest();
    assert_eq!(
        said(&output, "accepted before"),
        accepted,
        "the keys outlive it all"
    );
    assert!(third.wait().0.success());
}

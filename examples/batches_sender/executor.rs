//! The executor process: reads a batch of orders, executes them, writes them back (docs/exec_protocol.md).

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// The line before each batch.
#[derive(Deserialize)]
struct Header {
    jobs: usize,
}

/// A line of a batch.
#[derive(Deserialize)]
struct Job<'a> {
    id: &'a str,
    /// Absent if what was submitted is no JSON.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// An order, its values as the very bytes that came.
#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    order: &'a RawValue,
}

/// The outcome of an order.
#[derive(Serialize)]
struct Outcome<'a> {
    id: &'a str,
    ok: Executed<'a>,
}

/// An order that was executed: what its caller gets.
#[derive(Serialize)]
struct Executed<'a> {
    price: &'a RawValue,
    order: &'a RawValue,
    status: &'static str,
}

/// Executes batches until the input ends.
pub(crate) fn run() -> io::Result<()> {
    let mut input = io::stdin().lock().lines();
    while let Some(header) = input.next().transpose()? {
        let header: Header = serde_json::from_str(&header)?;
        // The input may end in the middle of a batch: what came of it is executed.
        let batch = input.by_ref().take(header.jobs).collect::<io::Result<Vec<_>>>()?;
        execute(&batch, &mut io::stdout().lock())?;
        writeln!(io::stderr(), "executed a batch of {} orders", batch.len())?;
    }
    Ok(())
}

fn execute(batch: &[String], output: &mut impl Write) -> io::Result<()> {
    for line in batch {
        let job: Job<'_> = serde_json::from_str(line)?;
        match job.data.map(|data| serde_json::from_str::<Order<'_>>(data.get())) {
            Some(Ok(Order { price, order })) => {
                let status = "approved";
                let ok = Executed { price, order, status };
                serde_json::to_writer(&mut *output, &Outcome { id: job.id, ok })?;
            }
            // It came past the route, which would have refused it.
            _ => {
                let error = json!({ "code": "invalid_order", "message": "an order has a price and an order", "retryable": false });
                serde_json::to_writer(&mut *output, &json!({ "id": job.id, "error": error }))?;
            }
        }
        output.write_all(b"\n")?;
    }
    output.flush()
}

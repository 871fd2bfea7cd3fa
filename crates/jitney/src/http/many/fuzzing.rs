//! What a body with many jobs holds, read as [`super::ndjson`] and [`super::array`] read it, without a driver.

use bytes::Bytes;

use super::Terms;
use super::group::{Envelopes, Group};
use crate::driver::port::Submit;
use crate::http::Connection;
use crate::http::error::Result;
use crate::http::parse::lines::Lines;

/// The entries of an NDJSON body that comes in pieces of so many bytes.
pub(crate) fn lines(body: &Bytes, piece_bytes: usize, job_bytes_max: u64) -> Vec<Result<Submit>> {
    let mut envelopes = envelopes(job_bytes_max);
    let mut lines = Lines::new(envelopes.line_bytes_max());
    let mut groups = Groups::default();
    let mut rest = body.clone();
    while !rest.is_empty() {
        let mut piece = rest.split_to(piece_bytes.min(rest.len()));
        while let Some(line) = lines.next(&mut piece) {
            envelopes.line(&mut groups.last, line);
            groups.cut(&envelopes);
        }
    }
    if let Some(line) = lines.last() {
        envelopes.line(&mut groups.last, line);
    }
    groups.entries()
}

/// The entries of an array.
///
/// # Errors
/// It is none.
pub(crate) fn array(body: &Bytes, job_bytes_max: u64) -> Result<Vec<Result<Submit>>> {
    let mut envelopes = envelopes(job_bytes_max);
    let mut groups = Groups::default();
    for raw in super::array::items(body)? {
        envelopes.item(&mut groups.last, raw, body);
        groups.cut(&envelopes);
    }
    Ok(groups.entries())
}

fn envelopes(job_bytes_max: u64) -> Envelopes {
    let terms = Terms {
        wait: None,
        traceparent: None,
        here: Connection::default(),
    };
    Envelopes::new(job_bytes_max, terms)
}

/// Groups as they are sent: the next begins when one is full.
#[derive(Default)]
struct Groups {
    full: Vec<Result<Submit>>,
    last: Group,
}

impl Groups {
    fn cut(&mut self, envelopes: &Envelopes) {
        if envelopes.is_full(&self.last) {
            self.full.extend(std::mem::take(&mut self.last).into_entries());
        }
    }

    fn entries(mut self) -> Vec<Result<Submit>> {
        self.full.extend(self.last.into_entries());
        self.full
    }
}

//! Many jobs on their way to the server, and what it says to each.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{Error, Problem};
use super::submit::Submit;
use super::wire;
use crate::job::JobId;

/// Jobs of one request at most.
const PART_JOBS_MAX: usize = 1_000;

/// Bytes of one request, but for a single job that is larger.
const PART_BYTES_MAX: usize = 1 << 20;

/// One of many jobs that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The job, durable.
    pub id: JobId,
    /// It was submitted before under the same id or key.
    pub replayed: bool,
}

/// What became of each of many jobs, in their order: the server has it, or why not.
pub type Entries = Vec<Result<Taken, Box<Problem>>>;

/// How many of the first of these go into one request.
pub(super) fn part(lines: &[Bytes]) -> usize {
    let mut bytes = 0_usize;
    let fits = |line: &&Bytes| {
        bytes = bytes.saturating_add(line.len());
        bytes <= PART_BYTES_MAX
    };
    let count = lines.iter().take(PART_JOBS_MAX).take_while(fits).count();
    count.max(1).min(lines.len())
}

/// The body of a request, of jobs as [`Submit::encode_line`] has them.
pub(super) fn body<'a>(lines: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut body = BytesMut::new();
    for line in lines {
        body.extend_from_slice(line);
        body.put_u8(b'\n');
    }
    body.freeze()
}

/// Reads the answer to so many jobs. Where it breaks off, the last problem is what is known of the rest.
pub(super) fn decode(body: &[u8], count: usize) -> Result<Entries, Error> {
    let mut entries = Vec::with_capacity(count);
    let mut ending = None;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let entry: Entry<'_> = wire::read(line)?;
        let problem = entry.error.map(problem).transpose()?;
        match (entry.index, entry.id, problem) {
            (Some(index), Some(id), _) if index == entries.len() => entries.push(Ok(Taken {
                id,
                replayed: entry.replayed,
            })),
            (Some(index), None, Some(problem)) if index == entries.len() => entries.push(Err(problem)),
            (None, None, Some(problem)) => ending = Some(problem),
            _ => return Err(strange("an entry that belongs to no job")),
        }
    }
    if entries.len() > count || (entries.len() < count && ending.is_none()) {
        return Err(strange("another number of entries than of jobs"));
    }
    if let Some(problem) = ending {
        entries.resize(count, Err(problem));
    }
    Ok(entries)
}

impl Submit {
    /// A line of a request with many.
    pub(super) fn encode_line(&self) -> Result<Bytes, Error> {
        let json = self.raw_json()?;
        let mut line = self.encode_named(json)?;
        // White space within JSON may be the end of a line; within a string there is none.
        if line.contains(&b'\n') {
            line.iter_mut()
                .filter(|byte| **byte == b'\n')
                .for_each(|byte| *byte = b' ');
        }
        Ok(Bytes::from(line))
    }
}

fn problem(raw: &RawValue) -> Result<Box<Problem>, Error> {
    let beside: Beside = wire::read(raw.get().as_bytes())?;
    let after = beside.retry_after_ms.map(Duration::from_millis);
    Problem::decode(raw.get().as_bytes(), beside.status, after)
        .map(Box::new)
        .ok_or_else(|| strange("a refusal without a reason"))
}

fn strange(detail: &str) -> Error {
    Error::Protocol {
        detail: detail.to_owned(),
        server_fault: false,
    }
}

#[derive(Deserialize)]
struct Entry<'a> {
    index: Option<usize>,
    #[serde(default, deserialize_with = "wire::maybe_id")]
    id: Option<JobId>,
    #[serde(default)]
    replayed: bool,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    status: u16,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Retry;
    use crate::job::Payload;

    const ID: &str = "0199a3c4-0000-7000-8000-00000000002a";

    fn refused(index: &str) -> String {
        format!(
            r#"{{{index}"error":{{"status":429,"code":"queue_full","detail":"d","retry":"after","retry_after_ms":1500}}}}"#
        )
    }

    #[test]
    fn entries_are_read_in_their_order() {
        let body = format!(
            "{{\"index\":0,\"id\":\"{ID}\",\"status\":\"submitted\",\"state\":\"queued\",\"replayed\":true}}\n{}\n",
            refused("\"index\":1,")
        );
        let entries = decode(body.as_bytes(), 2).unwrap();
        assert!(entries[0].as_ref().unwrap().replayed);
        let problem = entries[1].as_ref().unwrap_err();
        assert_eq!(
            (problem.status, problem.retry, problem.retry_after),
            (429, Retry::After, Some(Duration::from_millis(1_500)))
        );
        for (body, count) in [(body.as_str(), 3), (body.as_str(), 1), ("{}", 1), ("x", 1)] {
            assert!(
                matches!(decode(body.as_bytes(), count), Err(Error::Protocol { .. })),
                "{body} {count}"
            );
        }
        // What broke off says why for all that it does not name.
        let body = format!("{{\"index\":0,\"id\":\"{ID}\"}}\n{}\n", refused(""));
        let entries = decode(body.as_bytes(), 3).unwrap();
        assert!(entries[0].is_ok() && entries[1].is_err() && entries[2].is_err());
    }

    #[test]
    fn a_job_is_one_line_with_its_own_key() {
        let payload = Payload {
            content_type: None,
            bytes: Bytes::from_static(b"{\n\"a\":\r\n\"\\n\"}"),
        };
        let line = Submit::payload("p", payload)
            .idempotency_key("k")
            .encode_line()
            .unwrap();
        assert_eq!(
            &line[..],
            b"{\"processor\":\"p\",\"data\":{ \"a\":\r \"\\n\"},\"idempotency_key\":\"k\"}"
        );
    }

    #[test]
    fn a_request_has_so_many_jobs_and_bytes() {
        let small = vec![Bytes::from_static(b"{}"); 2_500];
        assert_eq!(part(&small), 1_000);
        assert_eq!(part(&small[2_400..]), 100);
        let large = vec![Bytes::from(vec![b' '; 400 << 10]); 5];
        assert_eq!(part(&large), 2);
        assert_eq!(part(&[Bytes::from(vec![b' '; 2 << 20])]), 1);
    }
}

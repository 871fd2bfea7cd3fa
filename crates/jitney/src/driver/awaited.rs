//! Results that somebody waits for among many: kept from when they end until they are read, whatever gives way meanwhile.
//!
//! In: jobs as they end. Out: each once, where its result is not kept any more. Who waits for many reads them after the
//! last has ended, and by then the results of the first may have given way. Bounded by bytes; the oldest go first.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::job::{JobId, JobView};

/// Bytes of results, and of what stands beside each, that are kept at most.
const BYTES_MAX: usize = 16 << 20;

/// What a job takes beside its result, about.
const JOB_BYTES: usize = 512;

/// Ended jobs that were not read yet.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    jobs: HashMap<JobId, Box<JobView>>,
    /// In the order in which they ended; some were read since.
    order: VecDeque<(JobId, usize)>,
    bytes: usize,
}

impl Awaited {
    /// Keeps a job that has ended.
    pub(super) fn keep(&mut self, mut job: JobView) {
        if let Some(result) = &mut job.result {
            // A slice of its own: the frame that it lies in may be many times as long.
            result.bytes = Bytes::copy_from_slice(&result.bytes);
        }
        let id = job.id;
        let bytes = JOB_BYTES + job.result.as_ref().map_or(0, |result| result.bytes.len());
        self.order.push_back((id, bytes));
        self.bytes += bytes;
        self.jobs.insert(id, Box::new(job));
        while self.bytes > BYTES_MAX
            && let Some((oldest, bytes)) = self.order.pop_front()
        {
            self.bytes -= bytes;
            self.jobs.remove(&oldest);
        }
    }

    /// Takes a job out.
    pub(super) fn take(&mut self, id: JobId) -> Option<JobView> {
        let job = self.jobs.remove(&id)?;
        if self.jobs.is_empty() {
            self.order.clear();
            self.bytes = 0;
        }
        Some(*job)
    }
}

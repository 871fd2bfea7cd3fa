//! What one segment says of the tries of jobs that are unsettled, in sum: an upper bound for what must be copied.
//!
//! In: the dispatches, marks and returns of a hot segment, in order. Out: records that do the same to
//! [`crate::replay`], whatever it knew before. A job has at most one [`Tries`] and a place in one [`Dispatch`] of it, so
//! that one that goes back and forth for ever takes no room for ever.

use std::collections::{BTreeSet, HashMap};

use crate::hash::{IdMap, Seed};
use crate::ids::{JobId, Token, WallMs};
use crate::record::{Cause, Dispatch, Record, Return, Tries};
use crate::replay::by_settle;

pub(super) struct Fold {
    jobs: IdMap<JobId, Job>,
    /// In the order of their last dispatch.
    leases: Vec<Lease>,
    by_token: IdMap<Token, usize>,
    /// Records that speak of what an earlier segment says: as they are.
    leading: IdMap<JobId, Vec<Return<'static>>>,
    leading_marks: Vec<Token>,
}

/// From the first dispatch in the segment on; before it nothing is known.
struct Job {
    now: Tries,
    /// As it was before the dispatch that holds it.
    before: Option<Tries>,
    /// A return since then that did not end the lease.
    after: Option<Return<'static>>,
}

struct Lease {
    token: Token,
    worker: String,
    in_process: bool,
    request_id: Option<String>,
    term_ms: u64,
    granted: WallMs,
    delivered: bool,
    jobs: Vec<JobId>,
}

/// Dispatches and returns, ready to be written.
#[derive(Default)]
pub(super) struct Facts {
    /// Encoded records; each ends where the next begins.
    pub(super) records: Vec<u8>,
    /// Of how many jobs they speak.
    pub(super) jobs: u64,
}

impl Fold {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            jobs: HashMap::with_hasher(seed),
            leases: Vec::new(),
            by_token: HashMap::with_hasher(seed),
            leading: HashMap::with_hasher(seed),
            leading_marks: Vec::new(),
        }
    }

    /// A dispatch, of which only `jobs` are unsettled.
    pub(super) fn dispatch(&mut self, dispatch: &Dispatch<'_>, jobs: Vec<JobId>) {
        for id in &jobs {
            let fresh = Tries {
                id: *id,
                token: dispatch.token,
                deliveries: 0,
                counts: None,
                alone: false,
                held: false,
                spent: false,
                started: None,
                due: None,
                written: None,
            };
            let known = self.jobs.get(id).map(|job| job.now);
            let mut now = known.unwrap_or(fresh);
            now.token = dispatch.token;
            now.held = true;
            now.spent = false;
            (now.due, now.written) = (None, None);
            now.deliveries += 1;
            now.started = now.started.or(Some(dispatch.granted));
            // The lease that held it until then is written without it.
            let before = known.map(|known| Tries { held: false, ..known });
            let after = None;
            self.jobs.insert(*id, Job { now, before, after });
        }
        if jobs.is_empty() {
            return;
        }
        self.by_token.insert(dispatch.token, self.leases.len());
        self.leases.push(Lease {
            token: dispatch.token,
            worker: dispatch.worker.to_owned(),
            in_process: dispatch.in_process,
            request_id: dispatch.request_id.map(str::to_owned),
            term_ms: dispatch.term_ms,
            granted: dispatch.granted,
            delivered: false,
            jobs,
        });
    }

    /// A submit: what came before it was about an earlier job of that id.
    pub(super) fn submit(&mut self, id: JobId) {
        self.jobs.remove(&id);
        self.leading.remove(&id);
    }

    /// A mark. One whose dispatch is in an earlier segment stays as it is, unless `seen` says that its dispatch is in
    /// this one, and of no unsettled job.
    pub(super) fn delivered(&mut self, token: Token, seen: bool) {
        if let Some(lease) = self.by_token.get(&token) {
            self.leases[*lease].delivered = true;
        } else if !seen {
            self.leading_marks.push(token);
        }
    }

    /// A return of an unsettled job.
    pub(super) fn returned(&mut self, returned: &Return<'_>) {
        // Why it was sent back nobody asks any more.
        let returned = Return {
            id: returned.id,
            cause: returned.cause,
            token: returned.token,
            due: returned.due,
            written: returned.written,
            alone: returned.alone,
            attempts: returned.attempts,
            crashes: returned.crashes,
            error: None,
        };
        let Some(Job { now, after, .. }) = self.jobs.get_mut(&returned.id) else {
            // Which lease held it an earlier segment says.
            self.leading.entry(returned.id).or_default().push(returned);
            return;
        };
        (now.due, now.written) = (returned.due, returned.written);
        now.counts = Some((returned.attempts, returned.crashes));
        now.alone |= returned.alone;
        if now.token == returned.token {
            now.spent = by_settle(returned.cause);
            if std::mem::replace(&mut now.held, false) && returned.cause == Cause::Undelivered {
                now.deliveries = now.deliveries.saturating_sub(1);
                if now.deliveries == 0 {
                    now.started = None;
                }
            }
        }
        let alone = returned.alone || after.as_ref().is_some_and(|before| before.alone);
        *after = now.held.then_some(Return { alone, ..returned });
    }

    /// All of the segment was seen.
    pub(super) fn finish(mut self) -> Facts {
        let mut facts = Facts::default();
        let mut leading: Vec<_> = self.leading.drain().collect();
        leading.sort_unstable_by_key(|(id, _)| *id);
        for returned in leading.into_iter().flat_map(|(_, returns)| returns) {
            Record::Return(returned).encode(&mut facts.records);
            facts.jobs += 1;
        }
        for token in &self.leading_marks {
            Record::Delivered(*token).encode(&mut facts.records);
            facts.jobs += 1;
        }
        let listed = self.listed();
        let mut ids: Vec<_> = self.jobs.keys().copied().collect();
        ids.sort_unstable();
        for id in &ids {
            let job = &self.jobs[id];
            // What holds it is said by the dispatch below.
            let sum = if listed.contains(id) {
                job.before
            } else {
                Some(job.now)
            };
            if let Some(sum) = sum {
                Record::Tries(sum).encode(&mut facts.records);
                facts.jobs += 1;
            }
        }
        for (place, lease) in self.leases.iter().enumerate() {
            self.encode_lease(place, lease, &mut facts);
        }
        for id in &ids {
            let job = &self.jobs[id];
            if let Some(after) = job.after.as_ref().filter(|_| listed.contains(id)) {
                Record::Return(after.clone()).encode(&mut facts.records);
                facts.jobs += 1;
            }
        }
        facts
    }

    /// The jobs that the last dispatch of their lease holds.
    fn listed(&self) -> BTreeSet<JobId> {
        let current = |(place, lease): &(usize, &Lease)| self.by_token.get(&lease.token) == Some(place);
        let leases = self.leases.iter().enumerate().filter(current);
        leases
            .flat_map(|(_, lease)| lease.jobs.iter().filter(|id| self.holds(lease, **id)))
            .copied()
            .collect()
    }

    fn holds(&self, lease: &Lease, id: JobId) -> bool {
        let job = self.jobs.get(&id);
        job.is_some_and(|job| job.now.held && job.now.token == lease.token)
    }

    fn encode_lease(&self, place: usize, lease: &Lease, facts: &mut Facts) {
        // Of a lease that was written anew only the last counts.
        if self.by_token.get(&lease.token) != Some(&place) {
            return;
        }
        let holds = |id: &&JobId| self.holds(lease, **id);
        let jobs: Vec<JobId> = lease.jobs.iter().filter(holds).copied().collect();
        if jobs.is_empty() {
            return;
        }
        facts.jobs += u64::try_from(jobs.len()).unwrap_or(u64::MAX);
        let dispatch = Dispatch {
            token: lease.token,
            worker: &lease.worker,
            in_process: lease.in_process,
            request_id: lease.request_id.as_deref(),
            term_ms: lease.term_ms,
            granted: lease.granted,
            jobs,
        };
        Record::Dispatch(dispatch).encode(&mut facts.records);
        if lease.delivered {
            Record::Delivered(lease.token).encode(&mut facts.records);
        }
    }
}

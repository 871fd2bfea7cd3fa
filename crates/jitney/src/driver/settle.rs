//! Taking outcomes in: checked, decided by the dispatcher, appended with their children in one frame, and
//! answered once durable.

use std::collections::{HashMap, HashSet};

use super::ids::child_id;
use super::port::{
    Answer, CallId, Child, JobOutcome, Port, Said, Settle, SettleAnswer, SettleBody, SettleIs, SettleResult,
};
use super::records::{self, Birth, Report, Silence, children_of};
use super::refusal::Refusal;
use super::submit::Repeat;
use super::{Driver, Pending, view};
use crate::bus::{Bus, Durability, Known, Space, Ticket};
use crate::clock::Clock;
use crate::dispatcher::event::{
    Change, Decision, Decisions, Event, Report as Reported, RequestId, Settle as SettleEvent, Verdict,
};
use crate::job::{End, JobId, Processor, Token};
use crate::mutants::{Mutant, active};

/// How far above `jobs_max` children may take the queue: an outcome is not refused for a queue that is
/// merely full.
const CHILDREN_HEADROOM_DIVISOR: u64 = 10;

/// Where a settle's answer goes.
#[derive(Clone, Copy)]
pub(super) enum ReplyTo {
    /// A call of its own.
    Call(CallId),
    /// One of the settles that a lease call brought.
    Lease { call: CallId, index: usize },
}

/// Settles that the dispatcher is deciding, by the id under which it was asked.
#[derive(Default)]
pub(super) struct SettlingTable {
    last: u64,
    open: HashMap<RequestId, Asking>,
}

/// What a settle said, while the dispatcher decides.
struct Asking {
    reply_to: ReplyTo,
    token: Token,
    body: SettleBody,
}

/// Decided changes whose append is queued.
pub(super) struct Settling {
    /// The jobs that change, and how.
    changed: Vec<(JobId, Change)>,
    reply: Option<(ReplyTo, SettleAnswer)>,
    /// Submits under the id of a child that came meanwhile; each waits for this commit and shares its fate.
    pub(super) repeats: Vec<Repeat>,
}

/// The ids of the children of each decision, in its order; most have none.
type ChildIds = Vec<Vec<JobId>>;

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    pub(super) fn on_settle(&mut self, call: CallId, settle: Settle) {
        self.begin_settle(settle, ReplyTo::Call(call));
    }

    pub(super) fn begin_settle(&mut self, settle: Settle, reply_to: ReplyTo) {
        let Settle { token, mut body } = settle;
        self.settling.last += 1;
        let request = RequestId(u64::MAX - self.settling.last);
        let event = match &mut body {
            SettleBody::Outcomes { outcomes, last } => {
                self.inherit_traces(outcomes);
                // A job whose children find no room stays leased, to be settled again: so does its lease.
                let stays = self.refuse_excess_children(outcomes);
                let outcomes = outcomes
                    .iter()
                    .map(|outcome| (outcome.id, report(outcome)))
                    .collect();
                SettleEvent {
                    request,
                    token,
                    outcomes,
                    failed: false,
                    crashed: false,
                    last: *last && !stays,
                }
            }
            SettleBody::Failed { crashed, .. } => {
                let crashed = *crashed;
                SettleEvent {
                    request,
                    token,
                    outcomes: Vec::new(),
                    failed: true,
                    crashed,
                    last: true,
                }
            }
        };
        self.settling.open.insert(
            request,
            Asking {
                reply_to,
                token,
                body,
            },
        );
        self.step(Event::Settle(event));
    }

    /// A child belongs to the trace of its parent, unless it brought one.
    fn inherit_traces(&self, outcomes: &mut [JobOutcome]) {
        for outcome in outcomes {
            let Ok(Said::Ok { children, .. }) = &mut outcome.said else {
                continue;
            };
            if children.iter().all(|child| child.traceparent.is_some()) {
                continue;
            }
            // A parent that cannot be read has no trace to pass on; its settle says what is wrong with it.
            let Ok(Some(parent)) = self.bus.read(outcome.id) else {
                continue;
            };
            let Some(trace) = view::traceparent(&parent) else {
                continue;
            };
            for child in children {
                child.traceparent.get_or_insert_with(|| trace.clone());
            }
        }
    }

    /// Children may take the queue a little over its limit; beyond that their outcome is refused. Says whether
    /// one was.
    fn refuse_excess_children(&self, outcomes: &mut [JobOutcome]) -> bool {
        let mut full = false;
        let limit = self
            .limits
            .jobs_max
            .saturating_add(self.limits.jobs_max / CHILDREN_HEADROOM_DIVISOR);
        let mut unsettled = self.bus.usage().unsettled;
        let mut strangers = HashSet::new();
        for outcome in outcomes {
            let Ok(Said::Ok { children, .. }) = &outcome.said else {
                continue;
            };
            let Some(first) = children.first() else { continue };
            if !matches!(self.bus.find(outcome.id), Some(Known::Unsettled { .. })) {
                // It has ended, children and all: whether this is a duplicate does not hang on the queue.
                continue;
            }
            // The parent leaves the queue as they come.
            let more = u64::try_from(children.len() - 1).unwrap_or(u64::MAX);
            if unsettled.saturating_add(more) > limit {
                outcome.said = Err(self.queue_full("jobs_max", self.limits.jobs_max, &first.processor));
                full = true;
                continue;
            }
            match self.admit_children(children, &strangers) {
                Ok(all) => {
                    strangers = all;
                    unsettled += more;
                }
                Err(refusal) => outcome.said = Err(refusal),
            }
        }
        full
    }

    /// The processors that these children bring, beside those that the settle brings already.
    fn admit_children(
        &self,
        children: &[Child],
        strangers: &HashSet<Processor>,
    ) -> Result<HashSet<Processor>, Refusal> {
        let mut all = strangers.clone();
        for child in children {
            self.admit_processor(&child.processor, &all)?;
            if !self.dispatcher.knows(&child.processor)
                && !self.expected_processors.contains(&child.processor)
            {
                all.insert(child.processor.clone());
            }
        }
        Ok(all)
    }

    pub(super) fn on_unknown_lease(&mut self, request: RequestId) {
        match self.settling.open.remove(&request) {
            Some(Asking { reply_to, token, .. }) => {
                self.answer_settle(
                    reply_to,
                    SettleAnswer {
                        token,
                        results: Err(Refusal::UnknownLease),
                    },
                );
            }
            // Not a settle: an extend, asked under its call's own number.
            None => self.refuse(CallId(request.0), Refusal::UnknownLease),
        }
    }

    /// Writes what the dispatcher decided, for a settle or by itself.
    pub(super) fn on_decisions(&mut self, decisions: Decisions) {
        let asking = decisions
            .request
            .and_then(|request| self.settling.open.remove(&request));
        let changes = decisions
            .jobs
            .iter()
            .filter_map(|decision| Some((decision.job, decision.change?)));
        let changed: Vec<_> = changes.collect();
        let body = asking.as_ref().map(|asking| &asking.body);
        let children = self.child_ids(&decisions, body);
        let appended = if changed.is_empty() {
            Ok(None)
        } else {
            self.append_changes(&decisions, body, &children).map(Some)
        };
        let reply = asking.map(|asking| {
            let results = self.results(&decisions, &asking.body, &children);
            (
                asking.reply_to,
                SettleAnswer {
                    token: decisions.token,
                    results,
                },
            )
        });
        match appended {
            Ok(Some(ticket)) => {
                if active(Mutant::VisibleEarly) {
                    self.step(Event::Committed(changed.iter().map(|(id, _)| *id).collect()));
                }
                let repeats = Vec::new();
                let settling = Settling {
                    changed,
                    reply,
                    repeats,
                };
                self.pending.insert(ticket, Pending::Settle(settling));
            }
            Ok(None) => self.answer_unchanged(reply),
            Err(refusal) => {
                let repeats = Vec::new();
                let settling = Settling {
                    changed,
                    reply,
                    repeats,
                };
                self.settle_failed(settling, &refusal);
            }
        }
    }

    /// Nothing is to be written. A duplicate may be of a settle whose commit is in flight: it is answered
    /// after that commit.
    fn answer_unchanged(&mut self, reply: Option<(ReplyTo, SettleAnswer)>) {
        let Some((reply_to, answer)) = reply else { return };
        let in_flight = self.last_sync.filter(|ticket| self.pending.contains_key(ticket));
        match in_flight {
            Some(ticket) if has_duplicate(&answer) => self.ride_along(ticket, reply_to, answer),
            _ => self.answer_settle(reply_to, answer),
        }
    }

    /// Answers with an append that is in flight already.
    fn ride_along(&mut self, ticket: Ticket, reply_to: ReplyTo, answer: SettleAnswer) {
        self.riders.entry(ticket).or_default().push((reply_to, answer));
    }

    pub(super) fn fail_riders(&mut self, ticket: Ticket, refusal: &Refusal) {
        for (reply_to, mut answer) in self.riders.remove(&ticket).unwrap_or_default() {
            answer.results = Err(refusal.clone());
            self.answer_settle(reply_to, answer);
        }
    }

    pub(super) fn settle_is_durable(&mut self, settling: Settling) {
        tracing::debug!(jobs = settling.changed.len(), "outcomes settled");
        for (id, change) in &settling.changed {
            match change {
                Change::Finish(finish) => {
                    tracing::trace!(job = %id, end = ?finish.end, reason = ?finish.reason, "job ended");
                }
                Change::Requeue(requeue) => {
                    self.metrics.returned(requeue.cause);
                    tracing::trace!(job = %id, cause = ?requeue.cause, "job goes back");
                }
            }
        }
        self.step(Event::Committed(ids(&settling.changed)));
        if let Some((reply_to, answer)) = settling.reply {
            self.answer_settle(reply_to, answer);
        }
        self.firsts_are_durable(settling.repeats);
    }

    pub(super) fn settle_failed(&mut self, settling: Settling, refusal: &Refusal) {
        self.step(Event::CommitFailed(ids(&settling.changed)));
        if let Some((reply_to, mut answer)) = settling.reply {
            answer.results = Err(refusal.clone());
            self.answer_settle(reply_to, answer);
        }
        self.firsts_failed(settling.repeats, refusal);
    }

    pub(super) fn answer_settle(&mut self, reply_to: ReplyTo, answer: SettleAnswer) {
        match (reply_to, &answer.results) {
            (ReplyTo::Lease { call, index }, _) => self.lease_settled(call, index, answer),
            (ReplyTo::Call(call), Err(refusal)) => self.refuse(call, refusal.clone()),
            (ReplyTo::Call(call), Ok(_)) => self.port.answer(call, Answer::Settled(answer)),
        }
    }

    /// One append: outcomes, their children, returns. Wholly or not at all.
    fn append_changes(
        &mut self,
        decisions: &Decisions,
        body: Option<&SettleBody>,
        ids: &ChildIds,
    ) -> Result<Ticket, Refusal> {
        let now = self.now.wall;
        let silence = Silence::new(decisions);
        let mut made = Vec::with_capacity(decisions.jobs.len());
        let mut processors = Vec::new();
        for (index, (decision, ids)) in decisions.jobs.iter().zip(ids).enumerate() {
            let report = Report {
                body,
                outcome: outcome_at(body, index, decision.job),
                silence: &silence,
            };
            match decision.change {
                Some(Change::Finish(finish)) => {
                    made.push(records::outcome(decisions, decision.job, finish, report, now));
                    for ((index, child), &id) in (0_u32..).zip(report.children()).zip(ids) {
                        processors.push(&child.processor);
                        let sequence = self.ids.next_sequence();
                        let birth = Birth {
                            parent: decision.job,
                            index,
                            id,
                        };
                        made.push(records::child(birth, child, sequence, now));
                    }
                }
                Some(Change::Requeue(requeue)) => {
                    made.push(records::requeue(decisions, decision.job, requeue, report, now));
                }
                None => {}
            }
        }
        let appended = self.bus.append(&made, Space::Settle, Durability::Sync);
        let ticket = self.appended(appended, Space::Settle, Durability::Sync)?;
        for processor in processors {
            self.expect_processor(processor);
        }
        Ok(ticket)
    }

    /// The ids of the children that these decisions make. None is another job's, known or made here.
    fn child_ids(&self, decisions: &Decisions, body: Option<&SettleBody>) -> ChildIds {
        let mut made = HashSet::new();
        let of = |(index, decision): (usize, &Decision)| match decision.change {
            Some(Change::Finish(finish)) if finish.end == End::Ok => {
                let children = children_of(outcome_at(body, index, decision.job));
                let sequence = self.dispatcher.sequence(decision.job).unwrap_or_default();
                let first_free = |index| {
                    let mut ids = (0..).map(|taken| child_id(decision.job, sequence, index, taken));
                    let free = |id: &JobId| self.bus.find(*id).is_none() || active(Mutant::TakenChildId);
                    ids.find(|id| free(id) && made.insert(*id))
                        .unwrap_or(decision.job)
                };
                (0_u32..)
                    .zip(children)
                    .map(|(index, _)| index)
                    .map(first_free)
                    .collect()
            }
            _ => Vec::new(),
        };
        decisions.jobs.iter().enumerate().map(of).collect()
    }

    /// What each outcome's caller is told, in the order of the request.
    fn results(
        &self,
        decisions: &Decisions,
        body: &SettleBody,
        ids: &ChildIds,
    ) -> Result<Vec<SettleResult>, Refusal> {
        let mut results = Vec::with_capacity(decisions.jobs.len());
        for (index, (decision, ids)) in decisions.jobs.iter().zip(ids).enumerate() {
            let Some(verdict) = decision.verdict else { continue };
            let id = decision.job;
            let said = nth(body, index, id).map(|outcome| &outcome.said);
            let is = match verdict {
                Verdict::Applied => SettleIs::Applied {
                    children: ids.clone(),
                },
                Verdict::Released => SettleIs::Released,
                Verdict::Duplicate => SettleIs::Duplicate,
                Verdict::Late => {
                    self.metrics.late();
                    SettleIs::Late
                }
                Verdict::Unknown => SettleIs::Unknown,
                Verdict::Refused => match said {
                    Some(Err(refusal)) => SettleIs::Refused(refusal.clone()),
                    _ => SettleIs::Unknown,
                },
                Verdict::Ended => self.ended_verdict(id, decisions.token, said)?,
            };
            results.push(SettleResult { id, is });
        }
        Ok(results)
    }

    /// A job that is not unsettled any more: was it settled under this very token, and in this way? An outcome that is
    /// corrected after a refused one was its last try is late.
    fn ended_verdict(
        &self,
        id: JobId,
        token: Token,
        said: Option<&Result<Said, Refusal>>,
    ) -> Result<SettleIs, Refusal> {
        if !matches!(self.bus.find(id), Some(Known::Finished { .. })) {
            return Ok(SettleIs::Unknown);
        }
        let stored = self
            .bus
            .read(id)
            .map_err(|error| Refusal::Internal(error.to_string()))?;
        let end = stored.map_or(Ok(None), |stored| view::settled_under(&stored, token))?;
        Ok(match (end, said) {
            (Some(End::Error), Some(Err(refusal))) => SettleIs::Refused(refusal.clone()),
            (Some(End::Ok), _) | (Some(_), Some(Ok(Said::Error { .. }))) => SettleIs::Duplicate,
            _ => SettleIs::Late,
        })
    }
}

fn ids(changed: &[(JobId, Change)]) -> Vec<JobId> {
    changed.iter().map(|(id, _)| *id).collect()
}

fn report(outcome: &JobOutcome) -> Reported {
    match &outcome.said {
        Ok(Said::Ok { .. }) => Reported::Ok,
        Ok(Said::Error {
            retryable,
            retry_after,
            ..
        }) => Reported::Error {
            retryable: *retryable,
            retry_after: *retry_after,
        },
        Ok(Said::Release) => Reported::Release,
        Err(_) => Reported::Refused,
    }
}

/// What the settle said of the job that was decided at this place: the dispatcher keeps the order.
fn nth(body: &SettleBody, index: usize, id: JobId) -> Option<&JobOutcome> {
    match body {
        SettleBody::Outcomes { outcomes, .. } => outcomes.get(index).filter(|outcome| outcome.id == id),
        SettleBody::Failed { .. } => None,
    }
}

fn outcome_at(body: Option<&SettleBody>, index: usize, job: JobId) -> Option<&JobOutcome> {
    body.and_then(|body| nth(body, index, job))
}

fn has_duplicate(answer: &SettleAnswer) -> bool {
    let duplicate = |result: &SettleResult| matches!(result.is, SettleIs::Duplicate);
    answer
        .results
        .as_ref()
        .is_ok_and(|results| results.iter().any(duplicate))
}

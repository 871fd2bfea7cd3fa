//! Records of what was decided: outcomes with their children, and returns.

use std::cell::OnceCell;

use joblog::record::{ErrorFields, Outcome, Return, Submit as SubmitRecord};

use super::port::{Child, JobOutcome, Said, SettleBody};
use crate::bus::Record;
use crate::clock::WallMs;
use crate::dispatcher::event::{Decisions, Finish, Requeue};
use crate::job::{Cause, End, JobError, JobId};

/// What a settle said of a job whose change is to be written; all `None` where nobody settled it.
#[derive(Clone, Copy)]
pub(super) struct Report<'a> {
    /// The body of the settle.
    pub body: Option<&'a SettleBody>,
    /// The job's own outcome in it.
    pub outcome: Option<&'a JobOutcome>,
    /// What is said where a worker said nothing.
    pub silence: &'a Silence<'a>,
}

/// The messages of errors that no worker sent, with who should have: made once for all jobs of a lease, and only if
/// one needs it.
pub(super) struct Silence<'a> {
    decisions: &'a Decisions,
    missing: OnceCell<String>,
    vanished: OnceCell<String>,
}

impl<'a> Silence<'a> {
    pub(super) const fn new(decisions: &'a Decisions) -> Self {
        Self {
            decisions,
            missing: OnceCell::new(),
            vanished: OnceCell::new(),
        }
    }

    fn missing(&self) -> &str {
        self.missing
            .get_or_init(|| self.of("the worker ended its batch without an outcome for this job"))
    }

    fn vanished(&self) -> &str {
        self.vanished
            .get_or_init(|| self.of("the worker vanished: its lease ended without an outcome"))
    }

    fn of(&self, what: &str) -> String {
        let Decisions { token, worker, .. } = self.decisions;
        match worker.is_empty() {
            true => format!("{what} (batch `{token}`)"),
            false => format!("{what} (worker `{worker}`, batch `{token}`)"),
        }
    }
}

impl<'a> Report<'a> {
    fn said(self) -> Option<&'a Said> {
        self.outcome?.said.as_ref().ok()
    }

    /// The jobs that this outcome submits.
    pub(super) fn children(self) -> &'a [Child] {
        children_of(self.outcome)
    }

    /// The error of a try: what the handler said, or what is said in its place.
    fn error(self, cause: Option<Cause>) -> ErrorFields<'a> {
        if let Some(Said::Error { error, .. }) = self.said() {
            return fields(error);
        }
        if let Some(SettleBody::Failed { error, .. }) = self.body {
            return fields(error);
        }
        if let Some(Err(refusal)) = self.outcome.map(|outcome| &outcome.said) {
            return plain(
                refusal.code(),
                "the outcome was refused; the answer to its settle says why",
            );
        }
        match cause {
            Some(Cause::MissingOutcome) => plain("missing_outcome", self.silence.missing()),
            _ => plain("crashed", self.silence.vanished()),
        }
    }
}

/// The jobs that an outcome submits.
pub(super) fn children_of(outcome: Option<&JobOutcome>) -> &[Child] {
    match outcome.map(|outcome| &outcome.said) {
        Some(Ok(Said::Ok { children, .. })) => children,
        _ => &[],
    }
}

pub(super) fn outcome<'a>(
    decisions: &'a Decisions,
    job: JobId,
    finish: Finish,
    report: Report<'a>,
    now: WallMs,
) -> Record<'a> {
    let result = match (finish.end, report.said()) {
        (End::Ok, Some(Said::Ok { result, .. })) => Some(result),
        _ => None,
    };
    let error = match (finish.end, finish.cause) {
        (End::Ok, _) => None,
        // A job given up for its crashes says so, whatever its worker called the last one.
        (End::Failed, cause) => Some(plain("crashed", report.error(cause).message)),
        (End::Error, cause) => Some(report.error(cause)),
    };
    Record::Outcome(Outcome {
        id: job,
        end: finish.end,
        reason: finish.reason,
        token: Some(decisions.token),
        worker: Some(&*decisions.worker).filter(|worker| !worker.is_empty()),
        started: finish.started,
        finished: now,
        attempts: finish.attempts,
        crashes: finish.crashes,
        result: result.map_or(&[], |result| &result.bytes),
        content_type: result.and_then(|result| result.content_type.as_deref()),
        error,
        children: u32::try_from(report.children().len()).unwrap_or(u32::MAX),
        keep_ms: finish
            .keep
            .map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// Which child of which parent a job is, and its own id.
#[derive(Clone, Copy)]
pub(super) struct Birth {
    pub parent: JobId,
    pub index: u32,
    pub id: JobId,
}

pub(super) fn child(birth: Birth, child: &Child, sequence: u64, now: WallMs) -> Record<'_> {
    Record::Submit(SubmitRecord {
        id: birth.id,
        processor: child.processor.as_str(),
        group: child.group.as_str(),
        priority: child.priority,
        data: &child.payload.bytes,
        content_type: child.payload.content_type.as_deref(),
        key: child.key.as_deref(),
        labels: child
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect(),
        idempotency: None,
        fingerprint: 0,
        client_id: false,
        parent: Some((birth.parent, birth.index)),
        traceparent: child.traceparent.as_deref(),
        ttl_ms: None,
        deadline: None,
        run_at: None,
        sequence,
        accepted: now,
    })
}

pub(super) fn requeue<'a>(
    decisions: &Decisions,
    job: JobId,
    requeue: Requeue,
    report: Report<'a>,
    now: WallMs,
) -> Record<'a> {
    let says_error = !matches!(requeue.cause, Cause::Released | Cause::Undelivered);
    Record::Return(Return {
        id: job,
        cause: requeue.cause,
        token: decisions.token,
        due: requeue.due,
        written: requeue.due.map(|_| now),
        alone: requeue.alone,
        attempts: requeue.attempts,
        crashes: requeue.crashes,
        error: says_error.then(|| report.error(Some(requeue.cause))),
    })
}

fn fields(error: &JobError) -> ErrorFields<'_> {
    ErrorFields {
        code: &error.code,
        message: &error.message,
        data: error.data.as_deref(),
    }
}

const fn plain<'a>(code: &'a str, message: &'a str) -> ErrorFields<'a> {
    ErrorFields {
        code,
        message,
        data: None,
    }
}

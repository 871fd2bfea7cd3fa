//! A jitney in this process, as its clients reach it: the calls of HTTP without HTTP.
//!
//! In: what callers and workers say, checked by the same rules as at the front door. Out: commands to the
//! driver, and its answers. Data and results stay the bytes that they are; no JSON is written or read for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::words;
use crate::client::control::{Policy, PolicyChange, PolicyScope};
use crate::client::text::Text;
use crate::client::transport::{Answer, Transport};
use crate::client::{
    AllHeld, Error, Extended, Held, Info, Job, Lanes, LeaseAnswer, LeaseRequest, Settle, SettleAnswer,
    Submit, Submitted, Taken,
};
use crate::driver::port::{self, Command, SubmitMany};
use crate::driver::refusal::Refusal;
use crate::http::lease::{DRAINING_RETRY, SLOTS_MAX};
use crate::http::parse::job::{JobFields, Name};
use crate::http::{App, control, ops, parse, submit};
use crate::job::{JobId, JobView, Priority, Token};
use crate::server::Ended;

/// Jobs that go to the driver in one call at most.
const PART_JOBS_MAX: usize = 1_000;

/// Calls the driver of this process.
#[derive(Debug)]
pub(super) struct Local {
    app: App,
    /// How the driver ended, once it has.
    ended: watch::Receiver<Option<Ended>>,
}

impl Local {
    pub(super) const fn new(app: App, ended: watch::Receiver<Option<Ended>>) -> Self {
        Self { app, ended }
    }

    /// No wait is longer than the limit; whoever waits on asks again.
    fn bounded(&self, wait: Duration) -> Duration {
        wait.min(self.app.limits().wait_max)
    }

    /// A job's fields and name, or why it is refused before the driver sees it.
    fn checked<'a>(&self, submit: &'a Submit) -> Result<(JobFields, Name<'a>), Error> {
        let fields = words::fields(submit, parse::object::At::Body, self.app.limits())?;
        let name = Name {
            id: submit.id,
            key: words::idempotency_key(submit)?,
            traceparent: words::traceparent(submit.traceparent.as_deref()),
        };
        Ok((fields, name))
    }

    /// Hands jobs over together; each that is wrong is refused alone.
    async fn submit_part(&self, submits: &[&Submit], wait: Option<Duration>) -> Result<AllHeld, Error> {
        let mut entries: Vec<Option<_>> = Vec::with_capacity(submits.len());
        let mut jobs = Vec::with_capacity(submits.len());
        for submit in submits {
            entries.push(match self.checked(submit) {
                Ok((fields, name)) => {
                    jobs.push(parse::job::submit(fields, name));
                    None
                }
                Err(Error::Refused(problem)) => Some(Err(problem)),
                Err(error) => return Err(error),
            });
        }
        let named: Vec<bool> = jobs.iter().map(port::Submit::is_named).collect();
        let many = Command::SubmitMany(Box::new(SubmitMany {
            jobs,
            wait,
            patient: true,
        }));
        let taken = match self.call(many).await {
            port::Answer::SubmittedMany(taken) => taken,
            port::Answer::Refused(refusal) => {
                let named = named.iter().all(|named| *named);
                return Err(words::refused(&submit::refused(refusal, named)));
            }
            other => return Err(words::not_given(other)),
        };
        let mut taken = taken.into_iter().zip(named).map(|(taken, named)| match taken {
            Ok(taken) => Ok(Held {
                taken: Taken {
                    id: taken.id,
                    replayed: taken.replayed,
                },
                // It is read by the same call as any other, which copies nothing here.
                job: None,
            }),
            Err(refusal) => Err(words::problem(&submit::refused(refusal, named))),
        });
        let entries = entries
            .into_iter()
            .filter_map(|entry| entry.or_else(|| taken.next()));
        Ok(entries.collect())
    }

    async fn call(&self, command: Command) -> port::Answer {
        self.app.handle().call(command).await.answer
    }
}

impl Transport for Local {
    fn address(&self) -> &str {
        "this process"
    }

    fn is_over(&self) -> bool {
        // Its sender is gone only if the driver panicked.
        self.ended.borrow().is_some() || self.ended.has_changed().is_err()
    }

    fn submit<'a>(&'a self, submit: &'a Submit, wait: Option<Duration>) -> Answer<'a, Submitted> {
        Box::pin(async move {
            let (fields, name) = self.checked(submit)?;
            let wait = wait.map(|wait| self.bounded(wait)).filter(|wait| !wait.is_zero());
            let submitted = submit::hand_over(&self.app, None, fields, name, wait)
                .await
                .map_err(|problem| words::refused(&problem))?;
            Ok(Submitted {
                job: job(submitted.job),
                replayed: submitted.replayed,
                workers: Some(submitted.workers),
                did_you_mean: submitted.did_you_mean,
            })
        })
    }

    fn submit_many<'a>(&'a self, submits: &'a [&'a Submit], wait: Option<Duration>) -> Answer<'a, AllHeld> {
        Box::pin(async move {
            let wait = wait.map(|wait| self.bounded(wait)).filter(|wait| !wait.is_zero());
            let mut entries = Vec::with_capacity(submits.len());
            let parts = submits.chunks(PART_JOBS_MAX);
            let last = parts.len();
            for (index, part) in (1..).zip(parts) {
                // Who waited for the earlier ones would keep the later ones from being submitted.
                let wait = wait.filter(|_| index == last);
                entries.extend(self.submit_part(part, wait).await?);
            }
            Ok(entries)
        })
    }

    fn get(&self, id: JobId, wait: Option<Duration>) -> Answer<'_, Job> {
        Box::pin(async move {
            let wait = wait.map(|wait| self.bounded(wait));
            match self.call(Command::Get { id, wait }).await {
                port::Answer::Job(view) => Ok(job(*view)),
                other => Err(words::not_given(other)),
            }
        })
    }

    fn lanes(&self) -> Answer<'_, Lanes> {
        Box::pin(async move {
            let json = ops::lanes_json(&self.app).await;
            Ok(Lanes::new(
                json.map_err(|problem| words::refused(&problem))?.finish(),
            ))
        })
    }

    fn set_paused<'a>(&'a self, processor: &'a str, priority: Priority, paused: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let lane = control::pause_lane(&self.app, processor, priority.name(), paused).await;
            lane.map(|_| ()).map_err(|problem| words::refused(&problem))
        })
    }

    fn policy<'a>(
        &'a self,
        processor: &'a str,
        scope: &'a PolicyScope,
        change: PolicyChange<'a>,
    ) -> Answer<'a, Policy> {
        Box::pin(async move {
            let change = match change {
                PolicyChange::None => control::Change::None,
                PolicyChange::Set(values) => control::Change::Set(values.as_bytes()),
                PolicyChange::Clear => control::Change::Clear,
            };
            let scope = (scope.group.as_deref(), scope.priority.map(Priority::name));
            let json = control::policy_json(&self.app, processor, scope, change).await;
            Ok(Policy::new(
                json.map_err(|problem| words::refused(&problem))?.finish(),
            ))
        })
    }

    fn info(&self) -> Answer<'_, Info> {
        Box::pin(async move {
            let json = ops::info_json(&self.app).await;
            Ok(Info::new(
                json.map_err(|problem| words::refused(&problem))?.finish(),
            ))
        })
    }

    fn health(&self, ready: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            if ready {
                ops::check_ready(&self.app)
                    .await
                    .map_err(|problem| words::refused(&problem))?;
            }
            Ok(())
        })
    }

    fn lease<'a>(&'a self, processor: &'a str, request: &'a LeaseRequest) -> Answer<'a, LeaseAnswer> {
        Box::pin(async move {
            let lease = self.poll(processor, request)?;
            let reply = self.app.handle().call(Command::Lease(Box::new(lease))).await;
            let leased = match reply.answer {
                port::Answer::Leased(leased) => leased,
                other => return Err(words::not_given(other)),
            };
            let answer = LeaseAnswer {
                settled: words::settled(request, leased.settled),
                batches: leased.batches.into_iter().map(words::batch).collect(),
                retry_after: leased.draining.then_some(DRAINING_RETRY),
            };
            // There is no connection that could lose it: whoever polls has it with the return of this call.
            if let Some(delivery) = reply.delivery {
                delivery.delivered();
            }
            Ok(answer)
        })
    }

    fn settle<'a>(&'a self, settle: &'a Settle) -> Answer<'a, SettleAnswer> {
        Box::pin(async move {
            let settle = words::settle(settle, self.app.limits())?;
            let settle = settle.ok_or_else(|| words::lease_refused(Refusal::UnknownLease))?;
            match self.call(Command::Settle(settle)).await {
                port::Answer::Settled(answer) => match answer.results {
                    Ok(results) => Ok(words::settle_answer(results)),
                    Err(refusal) => Err(words::lease_refused(refusal)),
                },
                other => Err(words::not_given(other)),
            }
        })
    }

    fn extend<'a>(&'a self, lease: &'a str) -> Answer<'a, Extended> {
        Box::pin(async move {
            let token = Token::parse(lease).ok_or_else(|| words::lease_refused(Refusal::UnknownLease))?;
            match self.call(Command::Extend { token }).await {
                port::Answer::Extended { expires_in, lost } => Ok(Extended {
                    expires_in_ms: words::millis(expires_in),
                    cancelled: Vec::new(),
                    lost,
                }),
                other => Err(words::not_given(other)),
            }
        })
    }
}

impl Local {
    fn poll(&self, processor: &str, request: &LeaseRequest) -> Result<port::Lease, Error> {
        let mut priorities = [request.priorities.is_empty(); 3];
        for priority in &request.priorities {
            priorities[priority.index()] = true;
        }
        let mut settles = Vec::with_capacity(request.settle.len());
        for settle in &request.settle {
            settles.extend(words::settle(settle, self.app.limits())?);
        }
        Ok(port::Lease {
            processor: words::processor(processor)?,
            worker: Arc::from(words::worker(&request.worker)?),
            // After a restart it is known at once that this worker is no more.
            in_process: true,
            slots: request.slots.clamp(1, SLOTS_MAX),
            max_jobs: request.max_jobs.map(|jobs| jobs.max(1)),
            max_bytes: request.max_bytes.map(|bytes| bytes.max(1)),
            wait: self.bounded(request.wait),
            priorities,
            request_id: request.request_id.as_deref().map(Arc::from),
            not_ready: request.not_ready.as_deref().map(Arc::from),
            settle: settles,
        })
    }
}

fn job(view: JobView) -> Job {
    Job::here(view, Text::made_by(words::job_json))
}

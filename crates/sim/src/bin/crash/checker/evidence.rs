//! The history, put together by job, call and lease.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{Event, Held, Lane, Line, Outcome, Said, Submit, Verdict, View};
use crate::order::{self, Order, Plan, STEADY};

/// A call of a process.
pub(super) type Call<'a> = (&'a str, u64);

/// All that is known, by what it is about.
#[derive(Debug, Default)]
pub(super) struct Evidence<'a> {
    /// What was submitted, by its number; child jobs too.
    pub(super) jobs: HashMap<u64, Known>,
    pub(super) submits: HashMap<Call<'a>, &'a Submit>,
    /// The id that was read, and whether it must have ended.
    pub(super) reads: HashMap<Call<'a>, (&'a str, bool)>,
    /// When each call was made.
    pub(super) begun: HashMap<Call<'a>, u64>,
    pub(super) answers: Vec<Answer<'a>>,
    /// Of jobs that were submitted with others.
    pub(super) taken: Vec<Taken<'a>>,
    pub(super) failures: Vec<(Call<'a>, &'a str)>,
    /// How many answers each call had.
    pub(super) answered: HashMap<Call<'a>, u32>,
    /// The poll that each lease was given to, and the jobs in it.
    pub(super) leases: HashMap<&'a str, Lease<'a>>,
    /// Leases that were given to two polls.
    pub(super) repeated: Vec<(&'a str, String)>,
    pub(super) deliveries: Vec<Delivery<'a>>,
    pub(super) handed: Vec<Handed<'a>>,
    /// What the operator did and heard, in its order, and when.
    pub(super) control: Vec<(u64, &'a Event)>,
    pub(super) settles: HashMap<Call<'a>, Settle<'a>>,
    pub(super) verdicts: Vec<Spoken<'a>>,
    polls: HashMap<Call<'a>, &'a str>,
    /// When each worker first made each of its requests.
    first_polls: HashMap<(&'a str, &'a str), u64>,
    /// When the power was cut.
    cuts: Vec<u64>,
}

/// A job as it was submitted.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) hash: u64,
    pub(super) plan: Plan,
    pub(super) processor: String,
    /// The parent's number, of a child.
    pub(super) parent: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) at: u64,
    pub(super) call: Call<'a>,
    pub(super) job: &'a View,
}

/// A caller of many was told that one of them is this job.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pub(super) call: Call<'a>,
    pub(super) id: &'a str,
    pub(super) replayed: bool,
}

/// A batch reached a worker.
#[derive(Debug)]
pub(super) struct Handed<'a> {
    pub(super) at: u64,
    /// When its worker first asked for it.
    pub(super) asked: u64,
    pub(super) lease: &'a str,
    pub(super) lane: &'a Lane,
}

#[derive(Debug)]
pub(super) struct Lease<'a> {
    worker: &'a str,
    request: &'a str,
    /// When its worker had it.
    at: u64,
    pub(super) jobs: BTreeSet<&'a str>,
}

#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) id: &'a str,
    pub(super) n: u64,
    pub(super) hash: u64,
}

#[derive(Debug)]
pub(super) struct Settle<'a> {
    pub(super) at: u64,
    pub(super) lease: &'a str,
    pub(super) said: &'a [Said],
}

/// One verdict of the server.
#[derive(Debug)]
pub(super) struct Spoken<'a> {
    pub(super) at: u64,
    pub(super) call: Call<'a>,
    pub(super) verdict: &'a Verdict,
}

impl Settle<'_> {
    pub(super) fn says(&self, id: &str) -> Option<Outcome> {
        self.said.iter().find(|said| said.id == id).map(|said| said.of)
    }
}

impl<'a> Evidence<'a> {
    pub(super) fn of(lines: &'a [Line]) -> Self {
        let mut evidence = Self::default();
        for line in lines {
            evidence.take(line);
        }
        evidence
    }

    /// The ids of all jobs that were acknowledged or handed out.
    pub(super) fn ids(&self) -> BTreeSet<&'a str> {
        let acknowledged = self.answers.iter().map(|answer| answer.job.id.as_str());
        let taken = self.taken.iter().map(|taken| taken.id);
        let delivered = self.deliveries.iter().map(|delivery| delivery.id);
        acknowledged.chain(taken).chain(delivered).collect()
    }

    /// The number of each job, as the answers and the deliveries show it; more than one is a finding.
    pub(super) fn numbers(&self) -> BTreeMap<&'a str, BTreeSet<u64>> {
        let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for delivery in &self.deliveries {
            numbers.entry(delivery.id).or_default().insert(delivery.n);
        }
        for answer in &self.answers {
            let of = self.submits.get(&answer.call).filter(|submit| !submit.clash);
            let all = numbers.entry(&answer.job.id).or_default();
            all.extend(of.map(|submit| submit.n).into_iter().chain(answer.job.n));
        }
        for taken in &self.taken {
            let of = self.submits.get(&taken.call).filter(|submit| !submit.clash);
            numbers
                .entry(taken.id)
                .or_default()
                .extend(of.map(|submit| submit.n));
        }
        numbers
    }

    /// Whether the power went after this lease was given to its worker: who holds what is written, not synced.
    pub(super) fn may_be_forgotten(&self, lease: &str) -> bool {
        let given = self.leases.get(lease).map(|lease| lease.at);
        given.is_some_and(|given| self.cuts.iter().any(|cut| given <= *cut))
    }

    fn take(&mut self, line: &'a Line) {
        let by = line.by.as_str();
        match &line.event {
            Event::Submit(submit) => {
                self.begun.insert((by, submit.call), line.at);
                self.submits.insert((by, submit.call), submit);
                if !submit.clash {
                    self.submitted(submit);
                }
            }
            Event::Read { call, id, last } => {
                self.begun.insert((by, *call), line.at);
                self.reads.insert((by, *call), (id, *last));
            }
            Event::Answer { call, job } => {
                self.answer((by, *call));
                self.answers.push(Answer {
                    at: line.at,
                    call: (by, *call),
                    job,
                });
            }
            Event::Taken { call, id, replayed } => {
                self.answer((by, *call));
                self.taken.push(Taken {
                    call: (by, *call),
                    id,
                    replayed: *replayed,
                });
            }
            Event::Failed { call, code, .. } => {
                self.answer((by, *call));
                self.failures.push(((by, *call), code));
            }
            Event::Pause { call, .. } | Event::Look { call } => {
                self.begun.insert((by, *call), line.at);
                self.control.push((line.at, &line.event));
            }
            Event::Paused { call } | Event::Looked { call, .. } => {
                self.answer((by, *call));
                self.control.push((line.at, &line.event));
            }
            Event::Poll { call, request } => {
                self.first_polls.entry((by, request)).or_insert(line.at);
                self.begun.insert((by, *call), line.at);
                self.polls.insert((by, *call), request);
            }
            Event::Leased { call, batches } => self.batches((by, *call), batches, line.at),
            Event::Settle { call, lease, said } => {
                self.begun.insert((by, *call), line.at);
                let settle = Settle {
                    at: line.at,
                    lease,
                    said,
                };
                self.settles.insert((by, *call), settle);
            }
            Event::Settled { call, verdicts } => {
                self.answer((by, *call));
                self.verdicts.extend(verdicts.iter().map(|verdict| Spoken {
                    at: line.at,
                    call: (by, *call),
                    verdict,
                }));
            }
            Event::Cut => self.cuts.push(line.at),
            Event::Note { .. } => {}
        }
    }

    /// Batches reached a worker.
    fn batches(&mut self, call: Call<'a>, batches: &'a [Held], at: u64) {
        self.answer(call);
        let by = call.0;
        let request = self.polls.get(&call).copied().unwrap_or_default();
        let asked = self.first_polls.get(&(by, request)).copied().unwrap_or(0);
        for batch in batches {
            self.leased(by, request, &batch.lease, at);
            self.handed.push(Handed {
                at,
                asked,
                lease: &batch.lease,
                lane: &batch.lane,
            });
            for (id, n, hash, _) in &batch.jobs {
                self.delivered(&batch.lease, id, *n, *hash);
            }
        }
    }

    fn answer(&mut self, call: Call<'a>) {
        *self.answered.entry(call).or_default() += 1;
    }

    fn submitted(&mut self, submit: &Submit) {
        let known = Known {
            hash: submit.hash,
            plan: submit.plan,
            processor: submit.processor.clone(),
            parent: None,
        };
        if self.jobs.insert(submit.n, known).is_some() {
            return;
        }
        let order = Order {
            n: submit.n,
            plan: submit.plan,
            pad: String::new(),
        };
        for child in order.children() {
            let known = Known {
                hash: order::hash(child.json().get().as_bytes()),
                plan: child.plan,
                processor: STEADY.to_owned(),
                parent: Some(submit.n),
            };
            self.jobs.insert(child.n, known);
        }
    }

    fn leased(&mut self, worker: &'a str, request: &'a str, lease: &'a str, at: u64) {
        let first = self.leases.entry(lease).or_insert_with(|| Lease {
            worker,
            request,
            at,
            jobs: BTreeSet::new(),
        });
        if (first.worker, first.request) != (worker, request) {
            let text = format!(
                "given to `{}` for `{}` and to `{worker}` for `{request}`",
                first.worker, first.request
            );
            self.repeated.push((lease, text));
        }
    }

    fn delivered(&mut self, lease: &'a str, id: &'a str, n: u64, hash: u64) {
        if let Some(held) = self.leases.get_mut(lease) {
            held.jobs.insert(id);
        }
        self.deliveries.push(Delivery { id, n, hash });
    }
}

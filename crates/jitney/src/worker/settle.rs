//! Outcomes on their way to the server: settled as they come, together with whatever else is ready.
//!
//! In: outcomes of one lease, through a bounded channel. Out: settles, each repeated until the server has
//! answered, which is safe: the first outcome of a job counts. What was not sent when the batch ended goes
//! with the last settle.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::lease::{Lost, is_gone};
use crate::client::{
    BatchError, Client, Error, Outcome, Retries, Retry, Settle, SettleAnswer, SettleBody, SettleIs,
};
use crate::entropy::jittered;
use crate::job::JobId;

/// An outcome waits this long for others of its batch. A batch that is done by then takes one round trip;
/// a caller does not notice it.
const LINGER: Duration = Duration::from_millis(2);

/// A settle of at most so many bytes, unless one outcome has more: well below the server's `max_body_bytes`.
const SETTLE_BYTES_MAX: usize = 4 << 20;

/// Outcomes that wait for the settler; a faster program waits.
const OUTCOMES_WAITING_MAX: usize = 64;

/// How long the same settle is repeated to a server that does not answer: as long as a batch may take by
/// default. After that the lease is lost anyway.
const UNANSWERED_MAX: Duration = Duration::from_mins(10);

/// How often an outcome is sent again whose children found the queue full. With the pauses between, about
/// half a minute.
const RESENDS_MAX: u32 = 10;

/// The longest pause before such an outcome is sent again, whatever the server says: the batch's own time
/// runs on.
const RESEND_PAUSE_MAX: Duration = Duration::from_secs(10);

/// How a batch ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// Every job has its outcome, or none will come: those left unnamed count as failed tries.
    Complete,
    /// These go back, nothing counted.
    Released(Vec<JobId>),
    /// It failed as a whole.
    Failed {
        /// With what.
        error: BatchError,
        /// The program that ran it died.
        crashed: bool,
    },
}

/// Where the outcomes of a running batch go.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Outcome>,
}

impl Outbox {
    /// Hands an outcome over; waits while too many wait.
    pub(crate) async fn push(&self, outcome: Outcome) {
        // The settler outlives the batch. Where it does not, the process ends, and the lease says the rest.
        drop(self.sender.send(outcome).await);
    }
}

/// Settles one lease.
#[derive(Debug)]
pub(crate) struct Settler {
    client: Client,
    lease: Arc<str>,
    lost: Arc<Lost>,
    /// The end of patience with a server that does not answer.
    give_up: CancellationToken,
    /// Refused for good: named again in the last settle, so that each counts with its own code.
    refused: Vec<Outcome>,
}

/// The lease is gone, or the server did not answer until patience ended.
#[derive(Debug)]
struct GaveUp;

impl Settler {
    pub(crate) fn new(client: Client, lease: Arc<str>, lost: Arc<Lost>, give_up: CancellationToken) -> Self {
        Self {
            client,
            lease,
            lost,
            give_up,
            refused: Vec::new(),
        }
    }

    /// The lease's token.
    pub(crate) fn lease(&self) -> &str {
        &self.lease
    }

    /// An outbox, and what settles what comes into it until it is dropped: gives back itself and what the
    /// last settle is to carry.
    pub(crate) fn open(self) -> (Outbox, impl Future<Output = (Self, Vec<Outcome>)> + Send) {
        let (sender, receiver) = mpsc::channel(OUTCOMES_WAITING_MAX);
        (Outbox { sender }, self.settle_as_they_come(receiver))
    }

    async fn settle_as_they_come(mut self, mut receiver: mpsc::Receiver<Outcome>) -> (Self, Vec<Outcome>) {
        let mut ready: Vec<Outcome> = Vec::new();
        while let Some(first) = receiver.recv().await {
            let mut bytes = first.wire_bytes();
            ready.push(first);
            let until = Instant::now() + LINGER;
            while bytes < SETTLE_BYTES_MAX {
                match timeout_at(until, receiver.recv()).await {
                    Ok(Some(outcome)) => {
                        bytes += outcome.wire_bytes();
                        ready.push(outcome);
                    }
                    Ok(None) => return (self, ready),
                    Err(_) => break,
                }
            }
            if self.send(std::mem::take(&mut ready)).await.is_err() {
                // Take the rest, so that the program is not held up, and drop it.
                while receiver.recv().await.is_some() {}
            }
        }
        (self, ready)
    }

    /// What the last settle says, if one is enough and it is small: it can ride with a poll. Otherwise
    /// everything comes back.
    pub(crate) fn ride(
        &mut self,
        rest: Vec<Outcome>,
        ending: Ending,
    ) -> Result<SettleBody, (Vec<Outcome>, Ending)> {
        let bytes: usize = rest.iter().chain(&self.refused).map(Outcome::wire_bytes).sum();
        let sure = |outcome: &Outcome| !outcome.has_children() && !outcome.may_lose_data();
        let rides = bytes <= SETTLE_BYTES_MAX / 4 && rest.iter().all(sure);
        match ending {
            Ending::Complete if rides => Ok(self.last(rest)),
            Ending::Failed { error, crashed } if rest.is_empty() && self.refused.is_empty() => {
                Ok(SettleBody::Failed { error, crashed })
            }
            ending => Err((rest, ending)),
        }
    }

    /// Settles the rest and ends the lease.
    pub(crate) async fn finish(mut self, mut rest: Vec<Outcome>, ending: Ending) {
        if let Ending::Released(ids) = &ending {
            rest.extend(ids.iter().copied().map(Outcome::release));
        }
        let whole = matches!(ending, Ending::Failed { .. });
        let ended = async {
            // Children may find the queue full, and data may be too large, which a last settle would count as a
            // failed try.
            let early = |outcome: &Outcome| whole || outcome.has_children() || outcome.may_lose_data();
            let (early, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(early);
            let early = self.send_chunks(early).await?;
            self.send(early).await?;
            let rest = self.send_chunks(rest).await?;
            let body = match ending {
                Ending::Failed { error, crashed } => SettleBody::Failed { error, crashed },
                Ending::Complete | Ending::Released(_) => self.last(rest),
            };
            self.exchange_last(body).await
        };
        if ended.await.is_err() {
            debug!(lease = %self.lease, "lease not settled to its end");
        }
    }

    /// Whether the answer to a settle that rode with a poll settles everything. Logs what it refuses.
    pub(crate) fn accepts(&self, answer: &SettleAnswer) -> bool {
        self.report(answer);
        match &answer.error {
            Some(error) => is_gone(&error.code),
            None => true,
        }
    }

    /// Sends a body that ends the lease until the server has answered.
    pub(crate) async fn finish_with(mut self, body: SettleBody) {
        if self.exchange_last(body).await.is_err() {
            debug!(lease = %self.lease, "lease not settled to its end");
        }
    }

    async fn exchange_last(&mut self, body: SettleBody) -> Result<(), GaveUp> {
        match self.exchange(body).await? {
            Ok(answer) => {
                self.report(&answer);
                Ok(())
            }
            Err(SettleBody::Outcomes { outcomes, .. }) if outcomes.is_empty() => Err(GaveUp),
            Err(body) => {
                // Something in it spoils the request: settle each outcome alone, then end the lease.
                if let SettleBody::Outcomes { outcomes, .. } = body {
                    self.send(outcomes).await?;
                }
                let end = self.last(Vec::new());
                self.exchange(end).await.map(drop)
            }
        }
    }

    fn last(&mut self, mut outcomes: Vec<Outcome>) -> SettleBody {
        outcomes.append(&mut self.refused);
        SettleBody::Outcomes { outcomes, last: true }
    }

    /// Sends as many outcomes as are too many for one settle, and gives the rest.
    async fn send_chunks(&mut self, mut outcomes: Vec<Outcome>) -> Result<Vec<Outcome>, GaveUp> {
        while outcomes.iter().map(Outcome::wire_bytes).sum::<usize>() > SETTLE_BYTES_MAX {
            let chunk = take_chunk(&mut outcomes);
            self.send(chunk).await?;
        }
        Ok(outcomes)
    }

    /// Sends outcomes, and those again that the server wants later, without ending the lease.
    async fn send(&mut self, outcomes: Vec<Outcome>) -> Result<(), GaveUp> {
        let mut waves: Vec<Vec<Outcome>> = vec![outcomes];
        let mut resends = 0;
        while let Some(mut wave) = waves.pop() {
            wave.retain(|outcome| !self.lost.contains(outcome.id));
            if wave.is_empty() {
                continue;
            }
            let body = SettleBody::Outcomes {
                outcomes: wave,
                last: false,
            };
            let (wave, answer) = match self.exchange_kept(body).await? {
                (wave, Some(answer)) => (wave, answer),
                (mut wave, None) if wave.len() > 1 => {
                    waves.push(wave.split_off(wave.len() / 2));
                    waves.push(wave);
                    continue;
                }
                (_, None) => continue,
            };
            self.report(&answer);
            let (again, after) = self.again(wave, &answer, resends < RESENDS_MAX);
            if !again.is_empty() {
                resends += 1;
                let pause = jittered(Retries::default().backoff(resends + 1));
                self.pause(pause.max(after.min(RESEND_PAUSE_MAX))).await?;
                waves.push(again);
            }
        }
        Ok(())
    }

    /// Those to be sent again, and not before how long; those refused for good are kept for the last settle.
    fn again(&mut self, wave: Vec<Outcome>, answer: &SettleAnswer, may: bool) -> (Vec<Outcome>, Duration) {
        let mut again = Vec::new();
        let mut after = Duration::ZERO;
        for outcome in wave {
            let refusal = answer
                .results
                .iter()
                .find(|result| result.id == outcome.id && result.is == SettleIs::Refused);
            let Some(refusal) = refusal else { continue };
            let error = refusal.error.as_ref();
            let retry = error.and_then(|error| error.retry);
            if may && matches!(retry, Some(Retry::After | Retry::Safe)) {
                let said = error.and_then(|error| error.retry_after_ms).unwrap_or_default();
                after = after.max(Duration::from_millis(said));
                again.push(outcome);
            } else if let Some(rest) = outcome.without_data() {
                // A final error is final: tried again the job would only fail so once more.
                let code = error.map_or("", |error| &error.code);
                warn!(lease = %self.lease, job = %outcome.id, code, "error refused, sending it without its data");
                again.push(rest);
            } else {
                self.refused.push(outcome);
            }
        }
        (again, after)
    }

    async fn exchange_kept(
        &mut self,
        body: SettleBody,
    ) -> Result<(Vec<Outcome>, Option<SettleAnswer>), GaveUp> {
        let settle = self.settle(body);
        let answer = self.exchange_settle(&settle).await?;
        let SettleBody::Outcomes { outcomes, .. } = settle.body else {
            return Err(GaveUp);
        };
        Ok((outcomes, answer))
    }

    /// The answer; or the body again, if the server takes no settle of this kind.
    async fn exchange(&mut self, body: SettleBody) -> Result<Result<SettleAnswer, SettleBody>, GaveUp> {
        let settle = self.settle(body);
        let answer = self.exchange_settle(&settle).await?;
        Ok(answer.ok_or(settle.body))
    }

    fn settle(&self, body: SettleBody) -> Settle {
        Settle {
            lease: self.lease.to_string(),
            body,
        }
    }

    /// Repeats a settle until the server has answered it; `None` if it refuses it as a whole.
    async fn exchange_settle(&mut self, settle: &Settle) -> Result<Option<SettleAnswer>, GaveUp> {
        let until = Instant::now() + UNANSWERED_MAX;
        let retries = Retries::default();
        let mut attempt = 0;
        loop {
            let called = self
                .give_up
                .run_until_cancelled(self.client.settle(settle))
                .await
                .ok_or(GaveUp)?;
            let error = match called {
                Ok(answer) => return Ok(Some(answer)),
                Err(_) if self.client.is_over() => return Err(GaveUp),
                Err(error) => error,
            };
            let after = match &error {
                Error::Refused(problem) if is_gone(&problem.code) => {
                    warn!(lease = %self.lease, code = %problem.code, "lease lost, its outcomes are dropped");
                    self.lost.lose_all();
                    return Err(GaveUp);
                }
                Error::Refused(problem) if problem.retry != Retry::No => problem.retry_after,
                Error::Refused(_)
                | Error::Invalid { .. }
                | Error::TimedOut { .. }
                | Error::Accepted { .. } => {
                    warn!(lease = %self.lease, error = error.told(), "settle refused");
                    return Ok(None);
                }
                Error::Unreachable { .. } | Error::Protocol { .. } => None,
            };
            attempt += 1;
            if attempt == 1 {
                warn!(lease = %self.lease, error = error.told(), "settle failed, trying on");
            }
            if Instant::now() >= until {
                return Err(GaveUp);
            }
            self.pause(jittered(retries.backoff(attempt)).max(after.unwrap_or_default()))
                .await?;
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), GaveUp> {
        self.give_up.run_until_cancelled(sleep(pause)).await.ok_or(GaveUp)
    }

    fn report(&self, answer: &SettleAnswer) {
        for result in &answer.results {
            match result.is {
                SettleIs::Applied | SettleIs::Released | SettleIs::Duplicate => {}
                SettleIs::Late => debug!(lease = %self.lease, job = %result.id, "outcome came late"),
                SettleIs::Unknown => {
                    warn!(lease = %self.lease, job = %result.id, "outcome of an unknown job")
                }
                SettleIs::Refused => {
                    let (code, detail) = result
                        .error
                        .as_ref()
                        .map_or(("", ""), |error| (&error.code, &error.detail));
                    warn!(lease = %self.lease, job = %result.id, code, detail, "outcome refused");
                }
            }
        }
    }
}

/// Splits off so many outcomes as fit in one settle, at least one.
fn take_chunk(rest: &mut Vec<Outcome>) -> Vec<Outcome> {
    let mut bytes = 0;
    let fits = rest
        .iter()
        .take_while(|outcome| {
            bytes += outcome.wire_bytes();
            bytes <= SETTLE_BYTES_MAX
        })
        .count();
    let tail = rest.split_off(fits.max(1));
    std::mem::replace(rest, tail)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::client::scripted::{Said, ScriptedServer};
    use crate::client::{OutcomeError, parse_id};

    fn id(number: u32) -> JobId {
        parse_id(&format!("0199b7a0-0000-7000-8000-{number:012}")).unwrap()
    }

    fn outcome(number: u32, code: &str) -> Outcome {
        let error = OutcomeError {
            code: code.to_owned(),
            message: String::new(),
            retryable: false,
            retry_after: None,
            data: None,
        };
        Outcome::error(id(number), error)
    }

    fn settler(server: &ScriptedServer) -> Settler {
        let client = Client::new(&server.url).unwrap();
        Settler::new(client, "l".into(), Arc::default(), CancellationToken::new())
    }

    /// Answers each outcome with what `is` makes of its code.
    async fn server(
        is: impl Fn(&str) -> Option<serde_json::Value> + Send + Sync + 'static,
    ) -> ScriptedServer {
        let is = Arc::new(is);
        ScriptedServer::start(move |asked| {
            let body = asked.json();
            let results: Option<Vec<_>> = body["outcomes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|outcome| {
                    let mut result = is(outcome["error"]["code"].as_str().unwrap())?;
                    result["id"] = outcome["id"].clone();
                    Some(result)
                })
                .collect();
            let said: Said = Some(match results {
                Some(results) => (200, "", json!({"results": results}).to_string()),
                None => (
                    400,
                    "",
                    json!({"code": "invalid_value", "retry": "no"}).to_string(),
                ),
            });
            async move { said }
        })
        .await
    }

    fn sent(server: &ScriptedServer) -> Vec<(Vec<String>, bool)> {
        let codes = |body: &serde_json::Value| {
            let outcomes = body["outcomes"].as_array().unwrap().iter();
            outcomes
                .map(|outcome| outcome["error"]["code"].as_str().unwrap().to_owned())
                .collect()
        };
        let bodies = server.asked().into_iter().map(|asked| asked.json());
        bodies.map(|body| (codes(&body), body["final"] == true)).collect()
    }

    fn of(codes: &[&str], last: bool) -> (Vec<String>, bool) {
        (codes.iter().map(|code| (*code).to_owned()).collect(), last)
    }

    #[tokio::test]
    async fn what_is_refused_for_now_is_sent_again_and_what_is_refused_for_good_ends_with_the_lease() {
        let full = Mutex::new(true);
        let server = server(move |code| {
            let refused =
                |retry| json!({"is": "refused", "error": {"code": "x", "retry": retry, "retry_after_ms": 1}});
            Some(match code {
                "later" if std::mem::take(&mut *full.lock().unwrap()) => refused("after"),
                "never" => refused("no"),
                _ => json!({"is": "applied"}),
            })
        })
        .await;
        let mut settler = settler(&server);
        let outcomes = [outcome(1, "good"), outcome(2, "later"), outcome(3, "never")];
        settler.send(outcomes.to_vec()).await.unwrap();
        settler.finish(vec![outcome(4, "rest")], Ending::Complete).await;
        assert_eq!(
            sent(&server),
            [
                of(&["good", "later", "never"], false),
                of(&["later"], false),
                of(&["rest", "never"], true)
            ]
        );
    }

    #[tokio::test]
    async fn an_outcome_that_spoils_its_settle_does_not_take_the_others_with_it() {
        let server = server(|code| (code != "spoilt").then(|| json!({"is": "applied"}))).await;
        let rest = ["a", "spoilt", "b"].into_iter().enumerate();
        let rest = rest
            .map(|(number, code)| outcome(u32::try_from(number).unwrap(), code))
            .collect();
        settler(&server).finish(rest, Ending::Complete).await;
        let sent = sent(&server);
        for code in ["a", "b"] {
            assert!(sent.contains(&of(&[code], false)), "{sent:?}");
        }
        assert_eq!(sent.last(), Some(&of(&[], true)));
    }

    /// Its data was over the limit, and the job was tried again until it was `exhausted`.
    #[tokio::test]
    async fn a_final_error_whose_data_is_refused_is_final_without_it() {
        let large = Mutex::new(true);
        let server = server(move |_| {
            let refused = std::mem::take(&mut *large.lock().unwrap());
            let refusal = json!({"is": "refused", "error": {"code": "job_too_large", "retry": "no"}});
            Some(if refused {
                refusal
            } else {
                json!({"is": "applied"})
            })
        })
        .await;
        let error = OutcomeError {
            code: "declined".to_owned(),
            message: String::new(),
            retryable: false,
            retry_after: None,
            data: Some(serde_json::value::to_raw_value(&"x".repeat(5_000)).unwrap()),
        };
        let rest = vec![Outcome::error(id(1), error)];
        let mut settler = settler(&server);
        let Err((rest, ending)) = settler.ride(rest, Ending::Complete) else {
            panic!("a last settle would count as a failed try");
        };
        settler.finish(rest, ending).await;
        assert_eq!(
            sent(&server),
            [of(&["declined"], false), of(&["declined"], false), of(&[], true)]
        );
        let data =
            |asked: &crate::client::scripted::Asked| asked.json()["outcomes"][0]["error"]["data"].is_string();
        assert_eq!(
            server.asked().iter().map(data).collect::<Vec<_>>(),
            [true, false, false]
        );
    }

    #[tokio::test]
    async fn outcomes_that_are_ready_together_travel_together() {
        let server = server(|_| Some(json!({"is": "applied"}))).await;
        let (outbox, settling) = settler(&server).open();
        for number in 0..5 {
            outbox.push(outcome(number, "x")).await;
        }
        drop(outbox);
        let (settler, rest) = settling.await;
        assert_eq!(rest.len(), 5, "a batch that is done at once needs one settle");
        settler.finish(rest, Ending::Complete).await;
        assert_eq!(sent(&server), [of(&["x"; 5], true)]);
    }

    #[tokio::test]
    async fn a_large_rest_goes_in_several_settles() {
        let server = server(|_| Some(json!({"is": "applied"}))).await;
        let large = |number| {
            let error = OutcomeError {
                code: "x".to_owned(),
                message: String::new(),
                retryable: true,
                retry_after: None,
                data: Some(serde_json::value::to_raw_value(&"x".repeat(1 << 20)).unwrap()),
            };
            Outcome::error(id(number), error)
        };
        settler(&server)
            .finish((0..6).map(large).collect(), Ending::Complete)
            .await;
        let sent = sent(&server);
        assert_eq!(sent.iter().map(|(codes, _)| codes.len()).sum::<usize>(), 6);
        assert_eq!(
            sent.iter().map(|(_, last)| *last).collect::<Vec<_>>(),
            [false, true]
        );
    }
}

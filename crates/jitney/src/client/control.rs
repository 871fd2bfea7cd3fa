//! Control of a running server: lanes that are paused, policies that are shown and set.

use bytes::Bytes;

use super::Client;
use super::error::Error;
use super::job::text;
use crate::job::Priority;

/// Which table of a processor's policies is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyScope {
    /// Of this group; without it: of all groups without a policy of their own.
    pub group: Option<String>,
    /// In this lane; to set a policy, not together with `group`.
    pub priority: Option<Priority>,
}

/// The policy in force, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    json: Bytes,
}

/// What is to become of what was set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PolicyChange<'a> {
    /// It stays.
    None,
    /// These values are set: a JSON object.
    Set(&'a str),
    /// All of the table is taken away.
    Clear,
}

impl Policy {
    pub(crate) fn new(json: Bytes) -> Self {
        Self { json }
    }

    /// The answer of the server, as it wrote it (docs/http_api.md, section 5).
    #[must_use]
    pub fn json(&self) -> &str {
        text(&self.json)
    }
}

impl Client {
    /// Lets a lane hand nothing out from now on, also after a restart of the server. Jobs go on coming in, and
    /// what is leased goes on. Pausing twice is pausing once.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`]. The processor need not have a job yet.
    pub async fn pause_lane(&self, processor: &str, priority: Priority) -> Result<(), Error> {
        self.set_paused(processor, priority, true).await
    }

    /// Lets a paused lane go on. Resuming what is not paused changes nothing.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn resume_lane(&self, processor: &str, priority: Priority) -> Result<(), Error> {
        self.set_paused(processor, priority, false).await
    }

    /// The policy in force.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn policy(&self, processor: &str, scope: &PolicyScope) -> Result<Policy, Error> {
        self.ask_policy(processor, scope, PolicyChange::None).await
    }

    /// Sets values of a policy: a JSON object with keys of the configuration; `null` takes a value away. Durable
    /// when it is answered, and in force, unless the configuration file says otherwise: then the answer warns.
    ///
    /// # Errors
    /// [`Error::Refused`] `unknown_field` or `invalid_value` for values that cannot be; nothing is set then.
    pub async fn set_policy(
        &self,
        processor: &str,
        scope: &PolicyScope,
        values: &str,
    ) -> Result<Policy, Error> {
        self.ask_policy(processor, scope, PolicyChange::Set(values)).await
    }

    /// Takes away all that was set for the table.
    ///
    /// # Errors
    /// Any but [`Error::TimedOut`].
    pub async fn clear_policy(&self, processor: &str, scope: &PolicyScope) -> Result<Policy, Error> {
        self.ask_policy(processor, scope, PolicyChange::Clear).await
    }

    async fn set_paused(&self, processor: &str, priority: Priority, paused: bool) -> Result<(), Error> {
        let transport = &self.shared.transport;
        self.retrying(true, self.patience(), || {
            transport.set_paused(processor, priority, paused)
        })
        .await
    }

    async fn ask_policy(
        &self,
        processor: &str,
        scope: &PolicyScope,
        change: PolicyChange<'_>,
    ) -> Result<Policy, Error> {
        let transport = &self.shared.transport;
        self.retrying(true, self.patience(), || {
            transport.policy(processor, scope, change)
        })
        .await
    }
}

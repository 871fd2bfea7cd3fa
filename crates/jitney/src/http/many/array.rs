//! A JSON array of envelopes: read whole, answered as one object.

use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::entries::Writer;
use super::group::{Envelopes, Group};
use super::outbox::Outbox;
use super::terms;
use crate::http::App;
use crate::http::error::{Problem, Result};
use crate::http::parse::object::malformed;
use crate::units::format_count;

/// Items of an array at most: it is in memory as a whole, and so is what became of each. NDJSON has no such bound.
pub(in crate::http) const ITEMS_MAX: usize = 100_000;

/// Takes the jobs of an array.
pub(in crate::http) async fn array(app: App, parts: &Parts, body: Bytes) -> Result<Response<Body>> {
    let terms = terms(&app, parts)?;
    let whole = terms.wait.is_some();
    let mut envelopes = Envelopes::new(app.limits().job_bytes_max, terms);
    let mut sent = Vec::new();
    let mut group = Group::default();
    for raw in items(&body)? {
        envelopes.item(&mut group, raw, &body);
        if envelopes.is_full(&group) {
            sent.push(envelopes.send(&app, &mut group));
        }
    }
    if !group.is_empty() {
        sent.push(envelopes.send(&app, &mut group));
    }
    let outbox = Outbox::new(app.answers());
    let work = {
        let outbox = std::sync::Arc::clone(&outbox);
        async move {
            let mut groups = Vec::with_capacity(sent.len());
            for sent in sent {
                groups.push(sent.settled().await);
            }
            let refused = groups.first().and_then(|group| group.refused_whole());
            if let Some(problem) = refused
                && groups.iter().all(|group| group.refused_whole().is_some())
            {
                return Err(Box::new(problem.clone()));
            }
            let entries = || groups.iter().flat_map(|group| &group.entries);
            let accepted = entries().filter(|entry| entry.is_ok()).count();
            let rejected = entries().count() - accepted;
            let mut writer = Writer::new(false);
            let json = writer.json();
            json.open();
            json.key("accepted");
            json.number(u64::try_from(accepted).unwrap_or(u64::MAX));
            json.key("rejected");
            json.number(u64::try_from(rejected).unwrap_or(u64::MAX));
            json.key("jobs");
            json.open_list();
            for group in groups {
                writer.group(&app, &outbox, group, whole).await;
            }
            writer.json().close_list();
            writer.json().close();
            writer.flush(&outbox).await;
            Ok(())
        }
    };
    super::answer(parts, "application/json", outbox, work).await
}

/// The items of an array, each a slice of the body.
pub(super) fn items(body: &[u8]) -> Result<Vec<&RawValue>> {
    let items = serde_json::from_slice::<Vec<&RawValue>>(body)
        .map_err(|error| malformed("the body", body, &error))?;
    if items.len() > ITEMS_MAX {
        let limit = u64::try_from(ITEMS_MAX).unwrap_or(u64::MAX);
        let detail = format!(
            "an array has at most {} jobs, and this one {}; send more as application/x-ndjson",
            format_count(limit),
            format_count(u64::try_from(items.len()).unwrap_or(u64::MAX))
        );
        return Err(Problem::invalid("", detail).limit(limit));
    }
    Ok(items)
}

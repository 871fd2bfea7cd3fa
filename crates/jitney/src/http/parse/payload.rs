//! What a body is: JSON, or bytes with a type.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::object::malformed;
use crate::http::error::{Problem, Result};
use crate::job::Payload;

/// The type of bytes about which nothing is known.
pub(crate) const OCTETS: &str = "application/octet-stream";

/// The longest content type that is kept, bytes.
pub(crate) const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// What a content type says about a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// There is none.
    Nothing,
    /// What HTML forms and `curl -d` send.
    Form,
    /// `application/json`.
    Json,
    /// A JSON type of its own: `application/vnd.x+json`.
    OwnJson,
    /// Anything else.
    Other,
}

/// Reads a content type; its parameters (`; charset=utf-8`) change nothing.
pub(crate) fn declared(content_type: Option<&str>) -> Declared {
    let Some(content_type) = content_type else {
        return Declared::Nothing;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Declared::Json
    } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        || essence.eq_ignore_ascii_case("multipart/form-data")
    {
        Declared::Form
    } else if has_json_suffix(essence) {
        Declared::OwnJson
    } else if essence.is_empty() {
        Declared::Nothing
    } else {
        Declared::Other
    }
}

/// Whether the body came in parts.
pub(crate) fn is_multipart(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("multipart/form-data"))
}

/// A body as a job's data.
pub(crate) fn data(content_type: Option<&str>, bytes: Bytes) -> Result<Payload> {
    let content_type = match declared(content_type) {
        Declared::Json => {
            check(&bytes)?;
            None
        }
        Declared::OwnJson => {
            check(&bytes)?;
            content_type
        }
        Declared::Nothing => (!is_json(&bytes)).then_some(OCTETS),
        Declared::Form => content_type.filter(|_| !is_json(&bytes)),
        Declared::Other => content_type,
    };
    Ok(Payload {
        content_type: content_type.map(Arc::from),
        bytes,
    })
}

/// Bytes that were declared, inside an envelope or an outcome, to be of this type; `None` if they are not.
pub(crate) fn typed(content_type: Option<&str>, bytes: Bytes) -> Option<Payload> {
    let kept = match declared(content_type) {
        Declared::Json if is_json(&bytes) => None,
        Declared::OwnJson if is_json(&bytes) => content_type,
        Declared::Json | Declared::OwnJson => return None,
        Declared::Nothing => Some(OCTETS),
        Declared::Form | Declared::Other => content_type,
    };
    Some(Payload {
        content_type: kept.map(Arc::from),
        bytes,
    })
}

/// Whether the bytes may be spliced into a JSON text as they are.
pub(crate) fn splices(payload: &Payload) -> bool {
    match &payload.content_type {
        None => true,
        // Whoever made the payload in this process may not have checked it.
        Some(content_type) => declared(Some(content_type)) == Declared::OwnJson && is_json(&payload.bytes),
    }
}

/// Whether the whole is one JSON value, in UTF-8.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Fails if the bytes are not one JSON value.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(malformed("the body", bytes, &error)),
    }
}

/// A content type that can be kept and given back in a header.
pub(crate) fn check_content_type(content_type: &str) -> std::result::Result<(), String> {
    let visible = content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if content_type.is_empty() || content_type.len() > CONTENT_TYPE_BYTES_MAX || !visible {
        return Err(format!(
            "a content type is 1 to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters"
        ));
    }
    Ok(())
}

/// A header's content type, checked.
pub(crate) fn content_type(headers: &axum::http::HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(axum::http::header::CONTENT_TYPE).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::invalid("Content-Type", "`Content-Type` is given twice"));
    }
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    check_content_type(text).map_err(|detail| Problem::invalid("Content-Type", detail))?;
    Ok(Some(text))
}

fn has_json_suffix(essence: &str) -> bool {
    let start = essence.len().saturating_sub("+json".len());
    essence
        .get(start..)
        .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: Option<&str>, bytes: &'static [u8]) -> Option<Option<String>> {
        data(content_type, Bytes::from_static(bytes))
            .ok()
            .map(|payload| payload.content_type.map(|kept| kept.to_string()))
    }

    #[test]
    fn declared_json_must_be_json() {
        assert_eq!(read(Some("application/json"), b"{}"), Some(None));
        assert_eq!(
            read(Some("Application/JSON; charset=utf-8"), b" [1] \n"),
            Some(None)
        );
        assert_eq!(read(Some("application/json"), b"{"), None);
        assert_eq!(read(Some("application/json"), b""), None);
        assert_eq!(read(Some("application/json"), b"{} {}"), None);
        assert_eq!(read(Some("application/json"), b"\"\xff\""), None);
        let own = "application/vnd.order+json";
        assert_eq!(read(Some(own), b"{}"), Some(Some(own.to_owned())));
        assert_eq!(read(Some(own), b"x"), None);
    }

    #[test]
    fn without_a_type_or_with_a_form_type_the_bytes_decide() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(read(None, b"{}"), Some(None));
        assert_eq!(read(Some(form), b"{}"), Some(None));
        assert_eq!(read(None, b"a=1"), Some(Some(OCTETS.to_owned())));
        assert_eq!(read(None, b""), Some(Some(OCTETS.to_owned())));
        assert_eq!(read(Some(form), b"a=1"), Some(Some(form.to_owned())));
    }

    #[test]
    fn any_other_type_is_bytes_even_if_they_look_like_json() {
        assert_eq!(
            read(Some("text/plain"), b"{}"),
            Some(Some("text/plain".to_owned()))
        );
        assert_eq!(
            read(Some("image/png"), b"\x89PNG\xff"),
            Some(Some("image/png".to_owned()))
        );
    }
}

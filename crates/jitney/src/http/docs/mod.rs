//! The pages of the server itself: `/openapi.json`, `/docs` with Swagger UI, `/docs/errors`.
//!
//! Everything is in the binary and made at start; a page asks for nothing from elsewhere, and its policy forbids
//! it to. Each text has an `ETag`, so that a browser asks again and is told that nothing changed.

mod markdown;

use std::hash::Hasher as _;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use siphasher::sip::SipHasher24;

use super::App;
use super::openapi;
use super::route_table::RouteTable;
use crate::limits::Limits;

/// What every code means and what to do: the text behind the links in problems.
pub(super) const ERRORS: &str = include_str!("../../../../../docs/errors.md");

/// The document.
pub(super) const OPENAPI_PATH: &str = "/openapi.json";
/// The document as a page.
pub(super) const DOCS_PATH: &str = "/docs";
/// Where problems point to.
pub(super) const ERRORS_PATH: &str = "/docs/errors";

/// A page runs the scripts of this server, talks to this server, and nothing else. Swagger UI draws its icons
/// from `data:` and sets styles on elements.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that pages load.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// Kept packed, and sent so: every browser unpacks it.
    gzip: bool,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 5] = [
    Asset {
        path: "/docs/swagger-ui-bundle.js",
        content_type: "text/javascript; charset=utf-8",
        gzip: true,
        bytes: include_bytes!("../../../assets/swagger-ui/swagger-ui-bundle.js.gz"),
    },
    Asset {
        path: "/docs/swagger-ui.css",
        content_type: "text/css; charset=utf-8",
        gzip: true,
        bytes: include_bytes!("../../../assets/swagger-ui/swagger-ui.css.gz"),
    },
    Asset {
        path: "/docs/start.js",
        content_type: "text/javascript; charset=utf-8",
        gzip: false,
        bytes: include_bytes!("../../../assets/docs/start.js"),
    },
    Asset {
        path: "/docs/style.css",
        content_type: "text/css; charset=utf-8",
        gzip: false,
        bytes: include_bytes!("../../../assets/docs/style.css"),
    },
    Asset {
        path: "/docs/licenses",
        content_type: "text/plain; charset=utf-8",
        gzip: false,
        bytes: include_bytes!("../../../assets/swagger-ui/LICENSES.txt"),
    },
];

const INDEX: &[u8] = include_bytes!("../../../assets/docs/index.html");

/// Every text, ready to be sent.
#[derive(Debug)]
pub(super) struct Pages {
    openapi: Text,
    index: Text,
    errors_html: Text,
    errors_markdown: Text,
    /// In the order of [`ASSETS`].
    assets: Vec<Text>,
}

/// A text and what its answer says of it.
#[derive(Debug)]
struct Text {
    content_type: &'static str,
    gzip: bool,
    page: bool,
    etag: HeaderValue,
    bytes: Bytes,
}

impl Pages {
    /// Makes the pages of a server with these limits and routes.
    pub(super) fn new(limits: &Limits, routes: &RouteTable) -> Self {
        let document = openapi::document(limits, routes).to_string();
        let html = "text/html; charset=utf-8";
        let assets = ASSETS.iter().map(|asset| Text {
            gzip: asset.gzip,
            ..Text::new(asset.content_type, asset.bytes)
        });
        Self {
            openapi: Text::new("application/json", document),
            index: Text::new(html, INDEX).page(),
            errors_html: Text::new(html, markdown::page("jitney: errors", ERRORS)).page(),
            errors_markdown: Text::new("text/markdown; charset=utf-8", ERRORS),
            assets: assets.collect(),
        }
    }

    /// The OpenAPI document.
    pub(super) fn openapi(&self) -> &[u8] {
        &self.openapi.bytes
    }
}

impl Text {
    fn new(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let mut hasher = SipHasher24::new();
        hasher.write(&bytes);
        let etag = HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()))
            .expect("hexadecimal digits in quotes are visible ASCII");
        Self {
            content_type,
            gzip: false,
            page: false,
            etag,
            bytes,
        }
    }

    fn page(mut self) -> Self {
        self.page = true;
        self
    }

    /// The whole, or word that the client has it.
    fn answer(&self, asked: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        if is_known(asked, &self.etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Body::from(self.bytes.clone());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if self.gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            if self.page {
                headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
                headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            }
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        let headers = response.headers_mut();
        headers.insert(ETAG, self.etag.clone());
        // Kept, and asked for again each time: another version of jitney may answer tomorrow.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// Adds the pages to the router.
pub(super) fn add(mut router: Router<App>) -> Router<App> {
    for (at, asset) in ASSETS.iter().enumerate() {
        let serve = move |State(app): State<App>, request: Request| async move {
            app.pages().assets[at].answer(request.headers())
        };
        router = router.route(asset.path, get(serve));
    }
    router
        .route(OPENAPI_PATH, get(openapi_document))
        .route(DOCS_PATH, get(index))
        .route(ERRORS_PATH, get(errors))
}

/// The paths of [`add`] that are no part of the contract.
pub(super) fn asset_paths() -> impl Iterator<Item = &'static str> {
    ASSETS.iter().map(|asset| asset.path)
}

/// Names and texts of a page's sections.
pub(super) fn sections(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
}

async fn openapi_document(State(app): State<App>, request: Request) -> Response<Body> {
    app.pages().openapi.answer(request.headers())
}

async fn index(State(app): State<App>, request: Request) -> Response<Body> {
    app.pages().index.answer(request.headers())
}

/// HTML for those who ask for it by name, browsers; Markdown for terminals.
async fn errors(State(app): State<App>, request: Request) -> Response<Body> {
    let accepted = request.headers().get_all(ACCEPT).iter();
    let html = accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"));
    let text = match html {
        true => &app.pages().errors_html,
        false => &app.pages().errors_markdown,
    };
    let mut response = text.answer(request.headers());
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether the client says that it has this version.
fn is_known(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::http::error::Code;

    #[test]
    fn every_error_has_a_place_on_the_page() {
        let page = markdown::page("jitney: errors", ERRORS);
        for code in Code::ALL {
            let name = code.name();
            assert!(page.contains(&format!("<h2 id=\"{name}\">")), "{name}");
        }
        assert!(page.contains("<h2 id=\"job_failed\">"));
    }

    #[test]
    fn a_client_that_has_the_text_is_told_so() {
        let text = Text::new("text/plain", "x");
        let asked = |tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::try_from(tag).unwrap());
            text.answer(&headers).status()
        };
        let own = text.etag.to_str().unwrap();
        assert_eq!(asked(own), StatusCode::NOT_MODIFIED);
        assert_eq!(asked(&format!("\"a\", W/{own}")), StatusCode::NOT_MODIFIED);
        assert_eq!(asked("*"), StatusCode::NOT_MODIFIED);
        assert_eq!(asked("\"a\""), StatusCode::OK);
    }

    #[test]
    fn what_is_said_to_be_packed_is() {
        for asset in ASSETS {
            let packed = asset.bytes.starts_with(b"\x1f\x8b");
            assert_eq!(packed, asset.gzip, "{}", asset.path);
        }
    }
}

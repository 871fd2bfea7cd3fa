//! The pages of the server itself: the OpenAPI document, its page, and the page of errors.

use std::collections::BTreeMap;

use jitney::job::{Group, Priority, Processor};
use jitney::server::options::Route;
use reqwest::Response;
use serde_json::{Value, json};

use super::{Setup, TestEdge, refused};

/// An edge with one route, whose driver is not called.
async fn edge() -> TestEdge {
    let route = Route {
        method: "POST".to_owned(),
        path: "/shops/{shop}/orders".to_owned(),
        processor: Processor::parse("orders").unwrap(),
        group: Group::default(),
        priority: Priority::Normal,
        wait: None,
        schema: Some(json!({"type": "object", "required": ["price"]})),
        status: BTreeMap::from([("error.card_declined".to_owned(), 402)]),
    };
    let setup = Setup {
        routes: vec![route],
        ..Setup::default()
    };
    TestEdge::start(setup, |command| panic!("{command:?}")).await
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_document_has_the_contract_and_the_routes_of_this_server() {
    let edge = edge().await;
    let response = edge.get("/openapi.json").send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "application/json");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["paths"]["/v1/jobs"]["post"].is_object());
    let route = &document["paths"]["/shops/{shop}/orders"]["post"];
    assert!(route["responses"]["402"].is_object(), "{route}");
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let edge = edge().await;
    let response = edge.get("/docs").send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "text/html; charset=utf-8");
    let policy = header(&response, "content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    let page = response.text().await.unwrap();
    let mut loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for url in page
            .split(attribute)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
        {
            if url.starts_with("data:") {
                continue;
            }
            let response = edge.get(url).send().await.unwrap();
            assert_eq!(response.status(), 200, "{url}");
            assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{url}");
            loaded += 1;
        }
    }
    assert!(loaded >= 6, "{page}");
}

#[tokio::test]
async fn what_a_browser_has_it_is_not_sent_again() {
    let edge = edge().await;
    for path in [
        "/openapi.json",
        "/docs",
        "/docs/errors",
        "/docs/swagger-ui-bundle.js",
    ] {
        let first = edge.get(path).send().await.unwrap();
        assert_eq!(header(&first, "cache-control"), "no-cache", "{path}");
        let tag = header(&first, "etag").to_owned();
        let length = header(&first, "content-length").to_owned();
        let again = edge.get(path).header("if-none-match", &tag).send().await.unwrap();
        assert_eq!(
            (again.status().as_u16(), header(&again, "etag")),
            (304, tag.as_str()),
            "{path}"
        );
        assert_eq!(again.bytes().await.unwrap().len(), 0);
        let head = edge.client.head(edge.url(path)).send().await.unwrap();
        assert_eq!(
            (head.status().as_u16(), header(&head, "content-length")),
            (200, length.as_str()),
            "{path}"
        );
        assert_eq!(head.bytes().await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn the_page_of_errors_is_html_for_browsers_and_markdown_for_terminals() {
    let edge = edge().await;
    let browser = edge
        .get("/docs/errors")
        .header("accept", "text/html,*/*;q=0.8")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&browser, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&browser, "vary"), "accept");
    let page = browser.text().await.unwrap();
    assert!(page.contains("<h2 id=\"queue_full\">"), "{page}");
    let terminal = edge.get("/docs/errors").send().await.unwrap();
    assert_eq!(header(&terminal, "content-type"), "text/markdown; charset=utf-8");
    assert!(terminal.text().await.unwrap().contains("\n## queue_full\n"));
}

#[tokio::test]
async fn the_pages_are_read_and_nothing_else() {
    let edge = edge().await;
    for path in ["/docs", "/openapi.json"] {
        refused(edge.post(path), 405, "method_not_allowed", "no").await;
    }
    refused(edge.get("/docs/"), 404, "not_found", "no").await;
}

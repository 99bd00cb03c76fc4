//! What a server may say by an HTTP status: refusals, limits, redirects.

use std::sync::atomic::{AtomicUsize, Ordering};

use operator::{crd::reason, probe::ServerHealth};
use serde_json::json;

use crate::{
    support::fake::{self, Act, error, legacy, modern, response},
    table::{HEALTHY, Scenario, alive, always, credentials, failed, legacy_but, modern_but, redirect, scenario, with_status},
};

fn says(health: &ServerHealth, text: &str) -> Result<(), String> {
    if health.verdict.message.contains(text) { Ok(()) } else { Err(health.verdict.message.to_string()) }
}

pub fn statuses() -> Vec<Scenario> {
    vec![
        scenario("404 on the path", failed(reason::HTTP_STATUS), with_status("404 Not Found", &[], "no such page"))
            .check(|health, _| says(health, "HTTP 404 to initialize at /mcp: perhaps spec.container.path is not where")),
        scenario("400", failed(reason::HTTP_STATUS), with_status("400 Bad Request", &[], ""))
            .check(|health, _| says(health, "HTTP 400 to initialize at /mcp")),
        scenario("500", failed(reason::HTTP_STATUS), with_status("500 Internal Server Error", &[], "")),
        scenario(
            "502 with a page",
            failed(reason::HTTP_STATUS),
            with_status("502 Bad Gateway", &[("Content-Type", "text/html")], "<html>bad gateway</html>"),
        ),
        scenario(
            "503 with Retry-After",
            failed(reason::HTTP_STATUS),
            with_status("503 Service Unavailable", &[("Retry-After", "600")], ""),
        ),
        scenario("503, then well", HEALTHY, {
            let asked = AtomicUsize::new(0);
            move |ask, state| {
                if asked.fetch_add(1, Ordering::Relaxed) < 2 {
                    fake::status("503 Service Unavailable", "")
                } else {
                    modern(ask, state)
                }
            }
        }),
        scenario(
            "500 whose body never ends",
            failed(reason::HTTP_STATUS),
            always(|| Act::BytesThenHang(b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\nx".to_vec())),
        )
        .with(|spec| spec.health.timeout_seconds = 4),
        scenario(
            "401 without credentials of ours",
            alive(reason::UNAUTHORIZED),
            with_status("401 Unauthorized", &[("WWW-Authenticate", "Bearer")], ""),
        ),
        scenario("403 without credentials of ours", alive(reason::UNAUTHORIZED), with_status("403 Forbidden", &[], "go away")),
        scenario("401 to our credentials", failed(reason::CREDENTIALS_REJECTED), with_status("401 Unauthorized", &[], ""))
            .with(credentials),
        scenario("403 to our credentials", failed(reason::CREDENTIALS_REJECTED), with_status("403 Forbidden", &[], ""))
            .with(credentials),
        scenario("our credentials are right", HEALTHY, |ask, state| {
            if ask.headers.get("authorization").is_some_and(|value| value == "Bearer s3cret-token") {
                modern(ask, state)
            } else {
                fake::status("401 Unauthorized", "")
            }
        })
        .with(credentials),
        scenario(
            "401 to the list only",
            alive(reason::UNAUTHORIZED),
            modern_but("tools/list", |_| fake::status("401 Unauthorized", "")),
        ),
        scenario(
            "403 in rmcp's words for a foreign Host",
            failed(reason::HOST_REJECTED),
            with_status("403 Forbidden", &[], "Forbidden: Host header is not allowed"),
        ),
        scenario(
            "403 in the TypeScript SDK's words",
            failed(reason::HOST_REJECTED),
            with_status(
                "403 Forbidden",
                &[("Content-Type", "application/json")],
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Invalid Host: server-mcp.test.svc"},"id":null}"#,
            ),
        ),
        scenario(
            "421 in the Python SDK's words",
            failed(reason::HOST_REJECTED),
            with_status("421 Misdirected Request", &[], "Invalid Host header"),
        ),
        scenario("the Host is the Service's name", HEALTHY, |ask, state| {
            if ask.headers.get("host").is_some_and(|host| host == "server-mcp.test.svc:8080") {
                modern(ask, state)
            } else {
                fake::status("403 Forbidden", "host header")
            }
        }),
        scenario("429 without Retry-After", alive(reason::RATE_LIMITED), with_status("429 Too Many Requests", &[], "")),
        scenario(
            "429 with Retry-After",
            alive(reason::RATE_LIMITED),
            with_status("429 Too Many Requests", &[("Retry-After", "3600")], ""),
        )
        .check(|_, state| {
            if state.total() == 1 { Ok(()) } else { Err(format!("asked {} times while it should wait", state.total())) }
        }),
        scenario(
            "429 with a Retry-After of garbage",
            alive(reason::RATE_LIMITED),
            with_status("429 Too Many Requests", &[("Retry-After", "soon")], ""),
        ),
        scenario(
            "429 to the list only",
            alive(reason::RATE_LIMITED),
            modern_but("tools/list", |_| fake::status("429 Too Many Requests", "")),
        ),
        scenario("301 elsewhere", failed(reason::REDIRECTED), redirect("301 Moved Permanently", "https://example.com/mcp")),
        scenario("302 on the spot", failed(reason::REDIRECTED), redirect("302 Found", "/mcp/")),
        scenario(
            "308 to another port",
            failed(reason::REDIRECTED),
            redirect("308 Permanent Redirect", "http://server-mcp.test.svc:9090/mcp"),
        ),
        scenario(
            "307 to another scheme",
            failed(reason::REDIRECTED),
            redirect("307 Temporary Redirect", "https://server-mcp.test.svc:8080/mcp"),
        ),
        scenario("307 in a circle", failed(reason::REDIRECTED), redirect("307 Temporary Redirect", "/mcp")),
        scenario("307 without a Location", failed(reason::REDIRECTED), with_status("307 Temporary Redirect", &[], "")),
        scenario("307 to a slash, as Starlette does", HEALTHY, |ask, state| {
            if ask.path == "/mcp/" {
                modern(ask, state)
            } else {
                Act::Bytes(response("307 Temporary Redirect", &[("Location", "http://server-mcp.test.svc:8080/mcp/")], ""))
            }
        }),
        scenario("308 to a relative path", HEALTHY, |ask, state| {
            if ask.path == "/v2?x=1" {
                modern(ask, state)
            } else {
                Act::Bytes(response("308 Permanent Redirect", &[("Location", "v2?x=1")], ""))
            }
        }),
        scenario("204 to a question", failed(reason::NOT_MCP), with_status("204 No Content", &[], "")),
        scenario("202 to a question", failed(reason::NOT_MCP), with_status("202 Accepted", &[], "")),
        scenario(
            "405 to everything",
            failed(reason::HTTP_STATUS),
            with_status("405 Method Not Allowed", &[("Allow", "GET")], ""),
        ),
        scenario("a JSON-RPC error on 400 to everything", failed(reason::JSON_RPC_ERROR), |ask, _| {
            error(ask, "400 Bad Request", -32600, json!(null))
        }),
        scenario("303 to a page", failed(reason::REDIRECTED), redirect("303 See Other", "/login")),
        scenario("300 with choices", failed(reason::REDIRECTED), redirect("300 Multiple Choices", "/a")),
        scenario(
            "401 to initialize",
            alive(reason::UNAUTHORIZED),
            legacy_but("initialize", |_| fake::status("401 Unauthorized", "")),
        ),
        scenario("429 to initialize", alive(reason::RATE_LIMITED), legacy_but("initialize", |_| fake::status("429 Slow", ""))),
        scenario(
            "403 to the notification",
            alive(reason::UNAUTHORIZED),
            legacy_but("notifications/initialized", |_| fake::status("403 Forbidden", "")),
        ),
        scenario(
            "429 to the notification",
            alive(reason::RATE_LIMITED),
            legacy_but("notifications/initialized", |_| fake::status("429 Slow", "")),
        ),
        scenario(
            "401 to the list of a session",
            alive(reason::UNAUTHORIZED),
            legacy_but("tools/list", |_| fake::status("401 Unauthorized", "")),
        ),
        scenario(
            "401 to the list, to our credentials",
            failed(reason::CREDENTIALS_REJECTED),
            modern_but("tools/list", |_| fake::status("401 Unauthorized", "")),
        )
        .with(credentials),
        scenario(
            "403 to initialize that names our Host",
            failed(reason::HOST_REJECTED),
            legacy_but("initialize", |_| fake::status("403 Forbidden", "unknown host server-mcp.test.svc:8080")),
        ),
        scenario(
            "429 to DELETE",
            HEALTHY,
            |ask, state| {
                if ask.http == "DELETE" { fake::status("429 Slow", "") } else { legacy(ask, state) }
            },
        )
        .leaves_sessions(),
        scenario("401 to DELETE, to our credentials", HEALTHY, |ask, state| {
            if ask.http == "DELETE" { fake::status("401 Unauthorized", "") } else { legacy(ask, state) }
        })
        .with(credentials)
        .leaves_sessions(),
        scenario(
            "429 with a Retry-After that is a date",
            alive(reason::RATE_LIMITED),
            with_status("429 Too Many Requests", &[("Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT")], ""),
        )
        .check(|_, state| {
            if state.total() == 1 { Ok(()) } else { Err(format!("asked {} times while it should wait", state.total())) }
        }),
        scenario(
            "429 with a Retry-After of the past",
            alive(reason::RATE_LIMITED),
            with_status("429 Too Many Requests", &[("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")], ""),
        ),
        scenario("408 as goodbye to an idle connection", HEALTHY, |ask, state| match modern(ask, state) {
            Act::Bytes(bytes) if ask.method == "tools/list" => {
                Act::BytesThenClose([bytes, response("408 Request Timeout", &[("Connection", "close")], "")].concat())
            }
            other => other,
        }),
    ]
}

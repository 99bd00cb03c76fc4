//! In which era a server speaks, and how that is found out.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use operator::crd::{Era, reason};
use serde_json::{Value, json};

use crate::{
    support::fake::{self, Act, Ask, State, error, json_bytes, legacy, modern, response, result},
    table::{Check, HEALTHY, Scenario, failed, legacy_but, modern_but, scenario},
};

/// A legacy server without sessions, whose list comes in an array beside a notification.
fn in_arrays(version: &str, ask: &Ask, state: &State) -> Act {
    match ask.method.as_str() {
        "initialize" => result(ask, fake::initialize_result(version, true)),
        "notifications/initialized" => Act::Bytes(response("202 Accepted", &[], "")),
        "tools/list" => {
            let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "debug", "data": "x"}});
            let list = json!({"jsonrpc": "2.0", "id": ask.id, "result": {"tools": [fake::tool("a")]}});
            json_bytes(&json!([log, list]).to_string())
        }
        _ => legacy(ask, state),
    }
}

fn closes(after: &[u8]) -> Act {
    Act::BytesThenClose(after.to_vec())
}

pub fn eras() -> Vec<Scenario> {
    let legacy_era: Check = |health, _| match &health.protocol {
        Some(protocol) if protocol.era == Era::Legacy => Ok(()),
        other => Err(format!("era {other:?}")),
    };
    let modern_era: Check = |health, state| match &health.protocol {
        Some(protocol) if protocol.era == Era::Modern && state.count("initialize") == 0 => Ok(()),
        other => Err(format!("era {other:?}, {} initialize", state.count("initialize"))),
    };
    vec![
        scenario("modern only", HEALTHY, modern).check(modern_era),
        scenario("both eras", HEALTHY, |ask, state| {
            if ask.headers.get("mcp-protocol-version").is_some_and(|version| version == "2026-07-28") {
                modern(ask, state)
            } else {
                legacy(ask, state)
            }
        })
        .check(modern_era),
        scenario("legacy: 400 without a session", HEALTHY, legacy).check(legacy_era),
        scenario("2025-03-26 that answers in arrays", HEALTHY, |ask, state| in_arrays("2025-03-26", ask, state))
            .check(legacy_era),
        scenario("arrays in a revision that has none", failed(reason::NOT_MCP), |ask, state| in_arrays("2025-06-18", ask, state)),
        // The session that it opens says nothing to discover, which is asked next: a 404 there is no lost session.
        scenario(
            "legacy at first, then a revision that nobody knows",
            failed(reason::UNSUPPORTED_VERSION),
            |ask, state| match ask.method.as_str() {
                "server/discover" => fake::status("404 Not Found", "not found"),
                "initialize" if state.opened.load(Ordering::Relaxed) > 0 => {
                    let session = format!("s{}", state.opened.fetch_add(1, Ordering::Relaxed));
                    state.sessions.lock().expect("no panic").insert(session.clone());
                    let result = json!({"jsonrpc": "2.0", "id": ask.id, "result": fake::initialize_result("1999-01-01", true)});
                    let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", session.as_str())];
                    Act::Bytes(response("200 OK", &headers, result.to_string()))
                }
                _ => legacy(ask, state),
            },
        )
        .check(|health, _| match health.circuit.reason.as_deref() {
            Some(reason::UNSUPPORTED_VERSION) => Ok(()),
            other => Err(format!("opened for {other:?}")),
        }),
        scenario(
            "legacy: -32601 on 200",
            HEALTHY,
            legacy_but("server/discover", |ask| error(ask, "200 OK", -32601, Value::Null)),
        )
        .check(legacy_era),
        scenario(
            "legacy: -32601 on 400",
            HEALTHY,
            legacy_but("server/discover", |ask| error(ask, "400 Bad Request", -32601, Value::Null)),
        )
        .check(legacy_era),
        scenario("legacy: {} to discover", HEALTHY, legacy_but("server/discover", |ask| result(ask, json!({}))))
            .check(legacy_era),
        scenario("legacy: 404 to discover", HEALTHY, legacy_but("server/discover", |_| fake::status("404 Not Found", "")))
            .check(legacy_era),
        scenario("legacy: 500 to discover", HEALTHY, legacy_but("server/discover", |_| fake::status("500 Oh", "unknown method")))
            .check(legacy_era),
        scenario("legacy: junk to discover", HEALTHY, legacy_but("server/discover", |_| json_bytes("null"))).check(legacy_era),
        scenario("legacy: 202 to discover", HEALTHY, legacy_but("server/discover", |_| fake::status("202 Accepted", "")))
            .check(legacy_era),
        scenario("legacy: silence to discover", HEALTHY, legacy_but("server/discover", |_| Act::hang()))
            .with(|spec| spec.health.startup_seconds = 60)
            .check(legacy_era),
        scenario("legacy: the connection is closed at discover", HEALTHY, legacy_but("server/discover", |_| closes(b"")))
            .check(legacy_era),
        scenario(
            "legacy: the connection is reset at discover",
            HEALTHY,
            legacy_but("server/discover", |_| Act::BytesThenReset(Vec::new())),
        )
        .check(legacy_era),
        scenario(
            "legacy: half a head to discover",
            HEALTHY,
            legacy_but("server/discover", |_| closes(b"HTTP/1.1 200 OK\r\nContent-")),
        )
        .check(legacy_era),
        scenario(
            "legacy: half a body to discover",
            HEALTHY,
            legacy_but("server/discover", |_| {
                closes(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
            }),
        )
        .check(legacy_era),
        scenario(
            "legacy: the connection is closed at discover, and at initialize",
            failed(reason::CONNECTION_RESET),
            |ask, state| match ask.method.as_str() {
                "server/discover" | "initialize" => closes(b""),
                _ => legacy(ask, state),
            },
        ),
        scenario("legacy: ends at discover, and is back some time later", HEALTHY, {
            let back = Mutex::new(Instant::now());
            move |ask, state| {
                let mut back = back.lock().expect("no panic");
                if ask.method == "server/discover" {
                    *back = Instant::now() + Duration::from_millis(500);
                }
                if Instant::now() < *back { closes(b"") } else { legacy(ask, state) }
            }
        })
        .check(legacy_era),
        scenario(
            "modern: the connection is closed at discover, and initialize is refused",
            failed(reason::CONNECTION_RESET),
            |ask, state| match ask.method.as_str() {
                "server/discover" => closes(b""),
                "initialize" => error(ask, "400 Bad Request", -32022, json!({"supported": ["2026-07-28"]})),
                _ => modern(ask, state),
            },
        ),
        scenario("modern: silent at first, and the connection is closed at initialize", HEALTHY, |ask, state| {
            match ask.method.as_str() {
                "server/discover" if state.count("initialize") == 0 => Act::hang(),
                "initialize" => closes(b""),
                _ => modern(ask, state),
            }
        })
        .with(|spec| spec.health.startup_seconds = 60),
        // That it knows no initialize says only that it is modern.
        scenario("modern: silent at first, then no HTTP to discover", failed(reason::NOT_MCP), |ask, state| {
            match ask.method.as_str() {
                "server/discover" if state.count("server/discover") == 1 => Act::hang(),
                "server/discover" => closes(b"no HTTP\r\n\r\n"),
                _ => modern(ask, state),
            }
        }),
        scenario("both: nothing is answered before initialize is", HEALTHY, |ask, state| match ask.method.as_str() {
            "server/discover" if state.count("initialize") == 0 => Act::hang(),
            _ if ask.headers.contains_key("mcp-method") => modern(ask, state),
            _ => legacy(ask, state),
        })
        .with(|spec| spec.health.startup_seconds = 60)
        .check(|health, state| match &health.protocol {
            Some(protocol) if protocol.era == Era::Modern && state.count("initialize") > 0 => Ok(()),
            other => Err(format!("era {other:?}, {} initialize", state.count("initialize"))),
        }),
        scenario(
            "legacy: -32022 that lists legacy revisions",
            HEALTHY,
            legacy_but("server/discover", |ask| {
                error(
                    ask,
                    "400 Bad Request",
                    -32022,
                    json!({"supported": ["2025-11-25", "2025-06-18"], "requested": "2026-07-28"}),
                )
            }),
        )
        .check(legacy_era),
        scenario(
            "legacy: -32020 to discover",
            HEALTHY,
            legacy_but("server/discover", |ask| error(ask, "400 Bad Request", -32020, Value::Null)),
        )
        .check(legacy_era),
        scenario(
            "a discover result that lists only legacy revisions",
            HEALTHY,
            legacy_but("server/discover", |ask| result(ask, json!({"supportedVersions": ["2025-11-25"], "capabilities": {}}))),
        )
        .check(legacy_era),
        scenario("-32022 that lists revisions nobody knows", failed(reason::UNSUPPORTED_VERSION), |ask, _| {
            error(ask, "400 Bad Request", -32022, json!({"supported": ["2031-01-01"]}))
        }),
        scenario("a discover result that lists revisions nobody knows", failed(reason::UNSUPPORTED_VERSION), |ask, _| {
            result(ask, json!({"supportedVersions": ["2031-01-01"], "capabilities": {}}))
        }),
        scenario("legacy: 2024-11-05", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2024-11-05", true)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "tools/list" => result(ask, json!({"tools": []})),
            _ => legacy(ask, state),
        }),
        scenario(
            "legacy: a revision that nobody knows",
            failed(reason::UNSUPPORTED_VERSION),
            legacy_but("initialize", |ask| result(ask, fake::initialize_result("1999-01-01", true))),
        ),
        scenario(
            "legacy: the modern revision to initialize",
            failed(reason::UNSUPPORTED_VERSION),
            legacy_but("initialize", |ask| result(ask, fake::initialize_result("2026-07-28", true))),
        ),
        scenario(
            "legacy: capabilities that are null",
            failed(reason::NOT_MCP),
            legacy_but("initialize", |ask| result(ask, json!({"protocolVersion": "2025-06-18", "capabilities": null}))),
        ),
        scenario("modern: a hello with odd fields that only describe", HEALTHY, |ask, state| match ask.method.as_str() {
            "server/discover" => {
                let odd = json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": [], "experimental": []}, "ttlMs": 1.5,
                                 "cacheScope": "shared", "resultType": null, "serverInfo": {"version": 1.2}, "instructions": []});
                result(ask, odd)
            }
            _ => modern(ask, state),
        })
        .check(modern_era),
        scenario(
            "-32000 to initialize",
            failed(reason::JSON_RPC_ERROR),
            legacy_but("initialize", |ask| error(ask, "200 OK", -32000, Value::Null)),
        ),
        scenario("-32603 to everything", failed(reason::JSON_RPC_ERROR), |ask, _| error(ask, "200 OK", -32603, Value::Null)),
        scenario("modern today, legacy tomorrow", HEALTHY, {
            let asked = AtomicUsize::new(0);
            move |ask, state| if asked.fetch_add(1, Ordering::Relaxed) < 2 { modern(ask, state) } else { legacy(ask, state) }
        })
        .with(|spec| spec.health.interval_seconds = 1),
        scenario(
            "legacy: -32022 that lists the modern revision, too",
            HEALTHY,
            legacy_but("server/discover", |ask| {
                error(ask, "400 Bad Request", -32022, json!({"supported": ["2026-07-28", "2025-11-25"]}))
            }),
        )
        .check(legacy_era),
        scenario(
            "legacy: -32022 that lists only revisions nobody knows",
            HEALTHY,
            legacy_but("server/discover", |ask| error(ask, "400 Bad Request", -32022, json!({"supported": ["2031-01-01"]}))),
        )
        .check(legacy_era),
        scenario(
            "legacy: -32022 without a list",
            HEALTHY,
            legacy_but("server/discover", |ask| error(ask, "400 Bad Request", -32022, Value::Null)),
        )
        .check(legacy_era),
        // Legacy revisions need not be listed.
        scenario(
            "legacy: a discover result that lists only revisions nobody knows",
            HEALTHY,
            legacy_but("server/discover", |ask| result(ask, json!({"supportedVersions": ["2031-01-01"], "capabilities": {}}))),
        )
        .check(legacy_era),
        scenario(
            "a revision nobody knows, and -32601 to initialize",
            failed(reason::UNSUPPORTED_VERSION),
            modern_but("server/discover", |ask| error(ask, "400 Bad Request", -32022, json!({"supported": ["2031-01-01"]}))),
        ),
        scenario("legacy: 401 to discover only", HEALTHY, legacy_but("server/discover", |_| fake::status("401 Who", "")))
            .check(legacy_era),
        scenario("legacy: 503 to discover only", HEALTHY, legacy_but("server/discover", |_| fake::status("503 No", "")))
            .check(legacy_era),
        scenario(
            "legacy: a page to discover",
            HEALTHY,
            legacy_but("server/discover", |_| Act::Bytes(response("200 OK", &[("Content-Type", "text/html")], "<html>"))),
        )
        .check(legacy_era),
        scenario(
            "the modern revision as an answer to initialize",
            failed(reason::UNSUPPORTED_VERSION),
            legacy_but("initialize", |ask| result(ask, fake::initialize_result("2026-07-28", true))),
        ),
        scenario(
            "initialize without capabilities",
            failed(reason::NOT_MCP),
            legacy_but("initialize", |ask| result(ask, json!({"protocolVersion": "2025-11-25"}))),
        ),
    ]
}

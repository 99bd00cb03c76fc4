//! What a server may do to a prober, and what we make of it: verdict, conditions, gate and circuit, over a real socket.
#![allow(clippy::panic, reason = "a test says what is wrong")]
#![allow(clippy::too_many_lines, reason = "tables are as long as they are")]

mod support;

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue};
use operator::{
    clock,
    crd::{CircuitState, Era, McpServer, ToolCall, reason},
    mcp_server::status::{self, Outcome},
    probe::{Endpoint, ServerHealth, ServerSpec, VerdictKind as Kind},
};
use serde_json::{Value, json};
use support::{
    fake::{self, Act, Ask, Fake, Script, State, chunked, error, json_bytes, legacy, modern, response, result, tool},
    rig::Rig,
};

type Change = fn(&mut ServerSpec);
type Check = fn(&ServerHealth, &State) -> Result<(), String>;

struct Scenario {
    name: &'static str,
    script: Script,
    change: Change,
    expected: (Kind, &'static str),
    check: Check,
    /// Sessions are allowed to stay: the server does not let us delete them.
    leaves_sessions: bool,
}

fn scenario(
    name: &'static str,
    expected: (Kind, &'static str),
    script: impl Fn(&Ask, &State) -> Act + Send + Sync + 'static,
) -> Scenario {
    Scenario { name, script: Arc::new(script), change: |_| {}, expected, check: |_, _| Ok(()), leaves_sessions: false }
}

impl Scenario {
    fn with(self, change: Change) -> Self {
        Self { change, ..self }
    }

    fn check(self, check: Check) -> Self {
        Self { check, ..self }
    }

    fn leaves_sessions(self) -> Self {
        Self { leaves_sessions: true, ..self }
    }
}

const HEALTHY: (Kind, &str) = (Kind::Healthy, reason::PROBE_SUCCEEDED);

const fn failed(reason: &'static str) -> (Kind, &'static str) {
    (Kind::Failed, reason)
}

const fn alive(reason: &'static str) -> (Kind, &'static str) {
    (Kind::Alive, reason)
}

/// The modern server, but for one method.
fn modern_but(
    method: &'static str,
    act: impl Fn(&Ask) -> Act + Send + Sync + 'static,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |ask, state| if ask.method == method { act(ask) } else { modern(ask, state) }
}

/// The legacy server, but for one method.
fn legacy_but(
    method: &'static str,
    act: impl Fn(&Ask) -> Act + Send + Sync + 'static,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |ask, state| if ask.method == method { act(ask) } else { legacy(ask, state) }
}

fn always(act: impl Fn() -> Act + Send + Sync + 'static) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |_, _| act()
}

fn body_of(ask: &Ask, state: &State) -> String {
    match modern(ask, state) {
        Act::Bytes(bytes) => String::from_utf8(bytes).expect("text").split_once("\r\n\r\n").expect("a head").1.to_owned(),
        other => panic!("unexpected {other:?}"),
    }
}

fn sse(ask: &Ask, state: &State, chunks: impl Fn(&str) -> Vec<String>, ends: bool) -> Act {
    let body = body_of(ask, state);
    let chunks = chunks(&body);
    let mut bytes = chunked("text/event-stream", &chunks.iter().map(String::as_str).collect::<Vec<_>>());
    if ends {
        bytes.extend_from_slice(b"0\r\n\r\n");
        Act::Bytes(bytes)
    } else {
        Act::BytesThenHang(bytes)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn gzipped(ask: &Ask, state: &State, content_type: &str, body: &[u8]) -> Act {
    let _ = (ask, state);
    Act::Bytes(response("200 OK", &[("Content-Type", content_type), ("Content-Encoding", "gzip")], gzip(body)))
}

fn redirect(code: &'static str, to: &'static str) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |_, _| Act::Bytes(response(code, &[("Location", to)], ""))
}

fn with_status(
    code: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |_, _| Act::Bytes(response(code, headers, body))
}

fn credentials(spec: &mut ServerSpec) {
    spec.credentials = vec![(HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer s3cret-token"))];
}

fn tool_call(spec: &mut ServerSpec) {
    spec.health.tool_call = Some(ToolCall { name: "a".into(), arguments: serde_json::Map::new() });
}

fn transport() -> Vec<Scenario> {
    vec![
        scenario("accepts and never answers", failed(reason::TIMEOUT), always(Act::hang)),
        scenario("answers after the deadline", failed(reason::TIMEOUT), |ask, state| modern(ask, state).after(1_500)),
        scenario("answers slowly, but in time", HEALTHY, |ask, state| modern(ask, state).after(300)),
        scenario("closes without an answer", failed(reason::CONNECTION_RESET), always(|| Act::BytesThenClose(Vec::new()))),
        scenario("resets without an answer", failed(reason::CONNECTION_RESET), always(|| Act::BytesThenReset(Vec::new()))),
        scenario(
            "half a body, then the end",
            failed(reason::TRUNCATED),
            always(|| {
                let mut bytes =
                    response("200 OK", &[("Content-Type", "application/json")], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
                bytes.truncate(bytes.len() - 10);
                Act::BytesThenClose(bytes)
            }),
        ),
        scenario(
            "a chunk is missing",
            failed(reason::TRUNCATED),
            always(|| Act::BytesThenClose(chunked("application/json", &["{\"jsonrpc\":"]))),
        ),
        scenario(
            "half a head, then the end",
            failed(reason::TRUNCATED),
            always(|| Act::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-".to_vec())),
        ),
        scenario(
            "a reset in mid-body",
            failed(reason::CONNECTION_RESET),
            always(|| Act::BytesThenReset(chunked("application/json", &["{"]))),
        ),
        scenario(
            "half a body, then nothing",
            failed(reason::TIMEOUT),
            always(|| Act::BytesThenHang(chunked("application/json", &["{"]))),
        ),
        scenario(
            "another protocol",
            failed(reason::NOT_MCP),
            always(|| Act::BytesThenClose(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())),
        ),
        scenario("closes every connection after one answer", HEALTHY, |ask, state| match modern(ask, state) {
            Act::Bytes(bytes) => Act::BytesThenClose(bytes),
            other => other,
        }),
        scenario("says that it closes, and closes", HEALTHY, |ask, state| {
            Act::BytesThenClose(response(
                "200 OK",
                &[("Content-Type", "application/json"), ("Connection", "close")],
                body_of(ask, state),
            ))
        }),
        scenario("HTTP/1.0, the body ends with the connection", HEALTHY, |ask, state| {
            Act::BytesThenClose(
                format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}", body_of(ask, state)).into_bytes(),
            )
        }),
    ]
}

fn statuses() -> Vec<Scenario> {
    vec![
        scenario("404 on the path", failed(reason::HTTP_STATUS), with_status("404 Not Found", &[], "no such page")),
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
    ]
}

fn bodies() -> Vec<Scenario> {
    let plain = |body: &'static str| always(move || json_bytes(body));
    vec![
        scenario(
            "200 with HTML",
            failed(reason::NOT_MCP),
            with_status("200 OK", &[("Content-Type", "text/html")], "<!doctype html>"),
        ),
        scenario("200 with HTML that says it is JSON", failed(reason::NOT_MCP), plain("<!doctype html>")),
        scenario("200 with {} to everything", failed(reason::NOT_MCP), plain("{}")),
        scenario("200 with an empty result to everything", failed(reason::NOT_MCP), |ask, _| result(ask, json!({}))),
        scenario("an empty body", failed(reason::NOT_MCP), plain("")),
        scenario("JSON cut by its own length", failed(reason::NOT_MCP), plain(r#"{"jsonrpc":"2.0","#)),
        scenario("an array", failed(reason::NOT_MCP), plain("[]")),
        scenario("a result that is null", failed(reason::NOT_MCP), |ask, _| result(ask, Value::Null)),
        scenario("a wrong id", failed(reason::NOT_MCP), |ask, state| {
            json_bytes(&body_of(ask, state).replace(&format!("\"id\":{}", ask.id), "\"id\":99"))
        }),
        scenario("no id", failed(reason::NOT_MCP), |ask, state| {
            json_bytes(&body_of(ask, state).replace(&format!("\"id\":{},", ask.id), ""))
        }),
        scenario("the id as text", HEALTHY, |ask, state| {
            json_bytes(&body_of(ask, state).replace(&format!("\"id\":{}", ask.id), &format!("\"id\":\"{}\"", ask.id)))
        }),
        scenario("a wrong jsonrpc", failed(reason::NOT_MCP), |ask, state| {
            json_bytes(&body_of(ask, state).replace("\"2.0\"", "\"1.0\""))
        }),
        scenario("no jsonrpc", failed(reason::NOT_MCP), |ask, state| {
            json_bytes(&body_of(ask, state).replace("\"jsonrpc\":\"2.0\",", ""))
        }),
        scenario("result and error at once", failed(reason::NOT_MCP), |ask, _| {
            json_bytes(&json!({"jsonrpc": "2.0", "id": ask.id, "result": {}, "error": {"code": 1, "message": ""}}).to_string())
        }),
        scenario("a content type that is none of ours", failed(reason::NOT_MCP), |ask, state| {
            Act::Bytes(response("200 OK", &[("Content-Type", "text/plain")], body_of(ask, state)))
        }),
        scenario("no content type", failed(reason::NOT_MCP), |ask, state| {
            Act::Bytes(response("200 OK", &[], body_of(ask, state)))
        }),
        scenario("a content type with parameters and capitals", HEALTHY, |ask, state| {
            Act::Bytes(response("200 OK", &[("CONTENT-TYPE", "Application/JSON; Charset=UTF-8")], body_of(ask, state)))
        }),
        scenario("a byte order mark", HEALTHY, |ask, state| json_bytes(&format!("\u{feff}{}", body_of(ask, state)))),
        scenario("a chunk a byte", HEALTHY, |ask, state| {
            let body = body_of(ask, state);
            let pieces: Vec<String> = body.chars().map(String::from).collect();
            let mut bytes = chunked("application/json", &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            bytes.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
            Act::Bytes(bytes)
        }),
        scenario("an unasked 100", HEALTHY, |ask, state| match modern(ask, state) {
            Act::Bytes(bytes) => Act::Bytes([b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), bytes].concat()),
            other => other,
        }),
        scenario("gzip", HEALTHY, |ask, state| gzipped(ask, state, "application/json", body_of(ask, state).as_bytes())),
        scenario(
            "broken gzip",
            failed(reason::NOT_MCP),
            with_status(
                "200 OK",
                &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
                "this is surely not gzip, however long one looks",
            ),
        ),
        scenario(
            "brotli",
            failed(reason::NOT_MCP),
            with_status("200 OK", &[("Content-Type", "application/json"), ("Content-Encoding", "br")], "x"),
        ),
        scenario("a gzip bomb", failed(reason::TOO_LARGE), |ask, state| {
            gzipped(ask, state, "application/json", &vec![b' '; 64 << 20])
        })
        .with(|spec| spec.health.timeout_seconds = 20),
        scenario("a body of 10 MB", failed(reason::TOO_LARGE), always(|| json_bytes(&" ".repeat(10 << 20))))
            .with(|spec| spec.health.timeout_seconds = 20),
        scenario(
            "a head that never ends",
            failed(reason::TOO_LARGE),
            always(|| Act::BytesThenHang(format!("HTTP/1.1 200 OK\r\nX-Header: {}", "a".repeat(1 << 20)).into_bytes())),
        )
        .with(|spec| spec.health.timeout_seconds = 20),
    ]
}

fn events() -> Vec<Scenario> {
    let one = |body: &str| vec![format!("event: message\ndata: {body}\n\n")];
    vec![
        scenario("SSE", HEALTHY, move |ask, state| sse(ask, state, one, true)),
        scenario("SSE with the answer as second event, after a notification and a ping", HEALTHY, |ask, state| {
            sse(
                ask,
                state,
                |body| {
                    vec![
                ": hello\n\nid: 0\ndata:\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n".into(),
                "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n".into(),
                format!("data: {body}\n\n"),
            ]
                },
                true,
            )
        }),
        scenario("SSE cut in the middle of a line", HEALTHY, |ask, state| {
            sse(
                ask,
                state,
                |body| {
                    let (a, b) = body.split_at(body.len() / 2);
                    vec![format!("data: {a}"), format!("{b}\r\n\r\n")]
                },
                true,
            )
        }),
        scenario("SSE that goes on after the answer", HEALTHY, move |ask, state| sse(ask, state, one, false)),
        scenario("SSE that never ends and never answers", failed(reason::TIMEOUT), |ask, state| {
            sse(ask, state, |_| vec![": keep-alive\n\n".into()], false)
        }),
        scenario("SSE that ends without the answer", failed(reason::NOT_MCP), |ask, state| {
            sse(ask, state, |_| vec![": bye\n\n".into()], true)
        }),
        scenario("SSE with the answer to another question", failed(reason::NOT_MCP), |ask, state| {
            let id = ask.id.clone();
            sse(ask, state, move |body| vec![format!("data: {}\n\n", body.replace(&format!("\"id\":{id}"), "\"id\":77"))], true)
        }),
        scenario(
            "SSE of noise without end",
            failed(reason::TOO_LARGE),
            always(|| {
                let chunk = format!(
                    "data: {}\n\n",
                    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}".to_owned() + &" ".repeat(60_000)
                );
                let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
                bytes.extend_from_slice(chunk.repeat(200).as_bytes());
                Act::BytesThenHang(bytes)
            }),
        )
        .with(|spec| spec.health.timeout_seconds = 20),
        scenario("SSE in gzip", HEALTHY, |ask, state| {
            let body = format!("data: {}\n\n", body_of(ask, state));
            gzipped(ask, state, "text/event-stream", body.as_bytes())
        }),
    ]
}

fn eras() -> Vec<Scenario> {
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
    ]
}

fn sessions() -> Vec<Scenario> {
    vec![
        scenario("the session is lost once", HEALTHY, {
            let lost = AtomicUsize::new(0);
            move |ask, state| {
                if ask.method == "tools/list" && lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    ask.session().map(|session| state.sessions.lock().expect("no panic").remove(session));
                }
                legacy(ask, state)
            }
        }),
        scenario("the session is lost every time", failed(reason::SESSION_LOST), |ask, state| {
            if ask.method == "tools/list" {
                ask.session().map(|session| state.sessions.lock().expect("no panic").remove(session));
            }
            legacy(ask, state)
        }),
        scenario("DELETE is refused", HEALTHY, |ask, state| {
            if ask.http == "DELETE" { fake::status("405 Method Not Allowed", "") } else { legacy(ask, state) }
        })
        .leaves_sessions(),
        scenario("DELETE hangs", HEALTHY, |ask, state| if ask.http == "DELETE" { Act::hang() } else { legacy(ask, state) })
            .leaves_sessions(),
        scenario("legacy without sessions", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2025-06-18", true)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "tools/list" => result(ask, json!({"tools": [tool("a")]})),
            _ => legacy(ask, state),
        })
        .check(|_, state| if state.count("DELETE") == 0 { Ok(()) } else { Err("a DELETE without a session".into()) }),
        scenario(
            "the notification is acknowledged by 200 and a page",
            HEALTHY,
            legacy_but("notifications/initialized", |_| fake::status("200 OK", "fine")),
        ),
        scenario(
            "the notification is refused",
            failed(reason::HTTP_STATUS),
            legacy_but("notifications/initialized", |_| fake::status("500 Oh", "")),
        ),
        scenario("no tools, and -32601 to ping", HEALTHY, |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2025-11-25", false)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "ping" => error(ask, "200 OK", -32601, Value::Null),
            "tools/list" => panic!("asked for what was not advertised"),
            _ => legacy(ask, state),
        }),
        scenario("no tools, and ping hangs", failed(reason::TIMEOUT), |ask, state| match ask.method.as_str() {
            "initialize" => result(ask, fake::initialize_result("2025-11-25", false)),
            "notifications/initialized" => fake::status("202 Accepted", ""),
            "ping" => Act::hang(),
            _ => legacy(ask, state),
        }),
        scenario("initialize in SSE, as the SDKs' servers do", HEALTHY, |ask, state| match legacy(ask, state) {
            Act::Bytes(bytes) if ask.method == "initialize" => {
                let text = String::from_utf8(bytes).expect("text");
                let (head, body) = text.split_once("\r\n\r\n").expect("a head");
                let session = head.lines().find(|line| line.starts_with("Mcp-Session-Id")).expect("a session");
                let event = format!("event: message\ndata: {body}\n\n");
                Act::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{session}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into_bytes())
            }
            other => other,
        }),
        scenario(
            "a legacy server that hangs at the list leaves no session",
            failed(reason::TIMEOUT),
            legacy_but("tools/list", |_| Act::hang()),
        ),
        scenario("a legacy server that answers initialize too late leaves no session", failed(reason::TIMEOUT), |ask, state| {
            let act = legacy(ask, state);
            if ask.method == "initialize" { act.after(4_500) } else { act }
        }),
    ]
}

fn tools() -> Vec<Scenario> {
    fn pages(ask: &Ask, state: &State, last: i64, next: impl Fn(i64) -> Value) -> Act {
        if ask.method != "tools/list" {
            return modern(ask, state);
        }
        let page: i64 = ask.body["params"]["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let mut offered = json!({"resultType": "complete", "tools": [tool(&format!("tool-{page}"))]});
        if page < last {
            offered["nextCursor"] = next(page);
        }
        result(ask, offered)
    }
    fn count(health: &ServerHealth, expected: usize) -> Result<(), String> {
        match health.tools.as_ref().map(|tools| tools.count()) {
            Some(count) if count == expected => Ok(()),
            other => Err(format!("{other:?} tools instead of {expected}")),
        }
    }
    let list = |tools: Value| {
        modern_but("tools/list", move |ask| result(ask, json!({"resultType": "complete", "tools": tools.clone()})))
    };
    vec![
        scenario("a list of three pages", HEALTHY, |ask, state| pages(ask, state, 2, |page| (page + 1).to_string().into()))
            .check(|health, _| count(health, 3)),
        scenario("a list of 64 pages", HEALTHY, |ask, state| pages(ask, state, 63, |page| (page + 1).to_string().into()))
            .with(|spec| spec.health.timeout_seconds = 20)
            .check(|health, _| count(health, 64)),
        scenario("a cursor that comes twice", HEALTHY, |ask, state| pages(ask, state, i64::MAX, |_| "1".into()))
            .check(|health, _| count(health, 2)),
        scenario("a list without end", failed(reason::TOO_LARGE), |ask, state| {
            pages(ask, state, i64::MAX, |page| (page + 1).to_string().into())
        })
        .with(|spec| spec.health.timeout_seconds = 20),
        scenario("a cursor that is a number", failed(reason::NOT_MCP), |ask, state| pages(ask, state, 5, Into::into)),
        scenario("the same tool twice", HEALTHY, list(json!([tool("a"), tool("a"), tool("b")])))
            .check(|health, _| count(health, 2)),
        scenario(
            "names that break the rules",
            HEALTHY,
            list(json!([tool("a b"), tool(""), tool("ü/♥"), tool(&"x".repeat(500))])),
        )
        .check(|health, _| count(health, 4)),
        scenario("a tool without a name", failed(reason::NOT_MCP), list(json!([tool("a"), {"description": "nameless"}]))),
        scenario("a tool whose name is a number", failed(reason::NOT_MCP), list(json!([{"name": 1}]))),
        scenario("tools that are no list", failed(reason::NOT_MCP), list(json!({"a": 1}))),
        scenario("1,000 tools", HEALTHY, list((0..1_000).map(|i| tool(&format!("tool-{i}"))).collect()))
            .check(|health, _| count(health, 1_000)),
        scenario("no tools advertised", HEALTHY, |ask, _| match ask.method.as_str() {
            "server/discover" => result(ask, json!({"supportedVersions": ["2026-07-28"], "capabilities": {"prompts": {}}})),
            _ => fake::status("500 Oh", "asked for what was not advertised"),
        }),
        scenario("an empty result to the list", failed(reason::NOT_MCP), modern_but("tools/list", |ask| result(ask, json!({})))),
        scenario(
            "-32601 to the list that was advertised",
            failed(reason::JSON_RPC_ERROR),
            modern_but("tools/list", |ask| error(ask, "404 Not Found", -32601, Value::Null)),
        ),
        scenario(
            "-32603 to the list",
            failed(reason::JSON_RPC_ERROR),
            legacy_but("tools/list", |ask| error(ask, "200 OK", -32603, Value::Null)),
        ),
        scenario("a living bridge before a dead child", failed(reason::TIMEOUT), modern_but("tools/list", |_| Act::hang())),
        scenario("toolCall succeeds", HEALTHY, |ask, state| {
            if ask.method == "tools/call" {
                assert_eq!(ask.headers.get("mcp-name").map(String::as_str), Some("a"), "Mcp-Name");
            }
            modern(ask, state)
        })
        .with(tool_call)
        .check(|_, state| if state.count("tools/call") > 0 { Ok(()) } else { Err("not called".into()) }),
        scenario("toolCall succeeds in a legacy session", HEALTHY, legacy).with(tool_call),
        scenario(
            "toolCall answers isError",
            failed(reason::TOOL_CALL_FAILED),
            modern_but("tools/call", |ask| {
                result(
                    ask,
                    json!({"resultType": "complete", "isError": true, "content": [{"type": "text", "text": "no database"}]}),
                )
            }),
        )
        .with(tool_call),
        scenario(
            "toolCall answers a JSON-RPC error",
            failed(reason::TOOL_CALL_FAILED),
            modern_but("tools/call", |ask| error(ask, "200 OK", -32602, Value::Null)),
        )
        .with(tool_call),
        scenario(
            "toolCall wants more input",
            failed(reason::TOOL_CALL_FAILED),
            modern_but("tools/call", |ask| result(ask, json!({"resultType": "input_required", "content": []}))),
        )
        .with(tool_call),
        scenario("toolCall is slow", failed(reason::TIMEOUT), modern_but("tools/call", |_| Act::hang())).with(tool_call),
        scenario(
            "toolCall is refused with 401",
            alive(reason::UNAUTHORIZED),
            modern_but("tools/call", |_| fake::status("401 Unauthorized", "")),
        )
        .with(tool_call),
    ]
}

/// Runs one scenario, and says what is wrong.
async fn run(scenario: Scenario) -> Result<(), String> {
    let Scenario { name, script, change, expected, check, leaves_sessions } = scenario;
    let mut rig = Rig::start();
    let fake = Fake::start_tls(script, None).await;
    rig.server("server", fake.addr, change);
    let verdict = judged(&rig, expected).await.and_then(|health| check(&health, &fake.state));
    rig.stop().await;
    verdict.map_err(|what| format!("{name}: {what}"))?;
    // The last deletion may still be on its way through the server.
    tokio::time::sleep(Duration::from_millis(50)).await;
    if leaves_sessions || fake.state.left() == 0 { Ok(()) } else { Err(format!("{name}: {} sessions left", fake.state.left())) }
}

/// Waits for the verdict and for all that follows from it.
async fn judged(rig: &Rig, expected: (Kind, &'static str)) -> Result<ServerHealth, String> {
    let (kind, reason) = expected;
    let wanted = |health: &ServerHealth| {
        let pod = health.pods.first();
        let (circuit, gate) = match kind {
            Kind::Failed => (CircuitState::Open, false),
            _ => (CircuitState::Closed, true),
        };
        (health.verdict.kind, health.verdict.reason) == (kind, reason)
            && health.circuit.state == circuit
            && pod.is_none_or(|pod| pod.gate == gate && pod.in_service == gate && pod.failing != gate)
    };
    let health = rig
        .until("server", Duration::from_secs(40), wanted)
        .await
        .map_err(|health| format!("expected {expected:?}, but it is {health:?}"))?;
    conditions(&health, kind)?;
    if health.verdict.message.contains("s3cret") {
        return Err(format!("a secret in {}", health.verdict.message));
    }
    Ok(health)
}

fn conditions(health: &ServerHealth, kind: Kind) -> Result<(), String> {
    let server: McpServer = serde_json::from_value(json!({
        "apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "metadata": {"name": "server", "namespace": "test"},
        "spec": {"container": {"image": "x"}},
    }))
    .expect("a server");
    let status = status::compute(&server, &Outcome::default(), Some(health), clock::now());
    let of = |type_: &str| {
        status.conditions.iter().find(|condition| condition.type_ == type_).map_or("", |condition| condition.status.as_str())
    };
    let found = (of("Ready"), of("Healthy"), of("CircuitClosed"));
    let expected = match kind {
        Kind::Failed => ("False", "False", "False"),
        Kind::Alive => ("True", "Unknown", "True"),
        _ => ("True", "True", "True"),
    };
    // A pod counts as in service only once its gate has been patched; the rig's API server does that at once.
    if found == expected {
        Ok(())
    } else {
        Err(format!("Ready, Healthy, CircuitClosed are {found:?} instead of {expected:?}: {:#?}", status.conditions))
    }
}

async fn all(scenarios: Vec<Scenario>) {
    let count = scenarios.len();
    let wrong: Vec<String> =
        stream::iter(scenarios).map(run).buffer_unordered(24).filter_map(|result| async { result.err() }).collect().await;
    assert!(wrong.is_empty(), "{} of {count} scenarios went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_transports() {
    all(transport()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_statuses() {
    all(statuses()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_kind() {
    all(bodies()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams() {
    all(events()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_eras() {
    all(eras()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_sessions() {
    all(sessions()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_calls_of_tools() {
    all(tools()).await;
}

#[tokio::test]
async fn the_suite_is_as_large_as_it_is_said_to_be() {
    let count = [transport(), statuses(), bodies(), events(), eras(), sessions(), tools()].iter().map(Vec::len).sum::<usize>();
    assert!(count >= 100, "{count} scenarios");
}

#[tokio::test]
async fn nothing_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    let rig = Rig::start();
    rig.server("server", addr, |_| {});
    judged(&rig, failed(reason::CONNECTION_REFUSED)).await.expect("refused");
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let rig = Rig::start();
    rig.server("server", SocketAddr::from(([127, 0, 0, 1], 9)), |spec| {
        spec.endpoint = Endpoint::Remote { url: "http://user:s3cret@no-such-host.invalid/mcp".parse().expect("a URL") };
    });
    let health =
        rig.until("server", Duration::from_secs(30), |health| health.circuit.state == CircuitState::Open).await.expect("open");
    assert_eq!(health.verdict.reason, reason::DNS_FAILED);
    assert!(!health.verdict.message.contains("s3cret"));
    assert!(!serde_json::to_string(&rig.engine.fleet()).expect("JSON").contains("s3cret"));
}

mod tls {
    //! Certificates that are right and wrong.
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    struct Ca {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca() -> Ca {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    fn acceptor(ca: &Ca, name: &str, expired: bool) -> tokio_rustls::TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate: CertificateDer<'static> = params.signed_by(&key, &ca.issuer).expect("a certificate").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate and its key");
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }

    async fn verdict(acceptor: Option<tokio_rustls::TlsAcceptor>, ca: Option<&str>) -> (Kind, &'static str, String) {
        let fake = Fake::start_tls(Arc::new(modern), acceptor).await;
        let rig = Rig::start();
        rig.server("server", fake.addr, |spec| {
            spec.endpoint =
                Endpoint::Remote { url: format!("https://localhost:{}/mcp", fake.addr.port()).parse().expect("a URL") };
            spec.ca = ca.map(|pem| pem.as_bytes().to_vec());
        });
        let health =
            rig.until("server", Duration::from_secs(30), |health| health.verdict.kind != Kind::Unknown).await.expect("a verdict");
        (health.verdict.kind, health.verdict.reason, health.verdict.message.to_string())
    }

    #[tokio::test]
    async fn a_private_ca_is_trusted_when_it_is_given() {
        let ca = ca();
        let (kind, reason, message) = verdict(Some(acceptor(&ca, "localhost", false)), Some(&ca.pem)).await;
        assert_eq!((kind, reason), HEALTHY, "{message}");
    }

    #[tokio::test]
    async fn a_ca_that_nobody_gave_is_not() {
        let (kind, reason, message) = verdict(Some(acceptor(&ca(), "localhost", false)), None).await;
        assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
        assert!(message.contains("UnknownIssuer"), "{message}");
    }

    #[tokio::test]
    async fn another_ca_is_not() {
        let (kind, reason, message) = verdict(Some(acceptor(&ca(), "localhost", false)), Some(&ca().pem)).await;
        assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_not() {
        let ca = ca();
        let (kind, reason, message) = verdict(Some(acceptor(&ca, "elsewhere.example", false)), Some(&ca.pem)).await;
        assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
    }

    #[tokio::test]
    async fn an_expired_certificate_is_not() {
        let ca = ca();
        let (kind, reason, message) = verdict(Some(acceptor(&ca, "localhost", true)), Some(&ca.pem)).await;
        assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
        assert!(message.to_lowercase().contains("expired"), "{message}");
    }

    #[tokio::test]
    async fn a_plain_server_behind_an_https_url_fails() {
        let (kind, reason, message) = verdict(None, None).await;
        assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
    }

    #[tokio::test]
    async fn a_bundle_without_a_certificate_says_so() {
        let ca = ca();
        let (kind, reason, message) = verdict(Some(acceptor(&ca, "localhost", false)), Some("not PEM")).await;
        assert_eq!((kind, reason), failed(reason::TLS_FAILED));
        assert!(message.contains("CA bundle"), "{message}");
    }

    #[tokio::test]
    async fn a_tls_server_behind_a_plain_url_fails() {
        let fake = Fake::start_tls(Arc::new(modern), Some(acceptor(&ca(), "localhost", false))).await;
        let rig = Rig::start();
        rig.server("server", fake.addr, |_| {});
        let health = rig
            .until("server", Duration::from_secs(30), |health| health.circuit.state == CircuitState::Open)
            .await
            .expect("open");
        assert!(matches!(health.verdict.reason, reason::NOT_MCP | reason::CONNECTION_RESET), "{:?}", health.verdict);
    }
}

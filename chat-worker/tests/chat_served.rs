//! chat-worker as a server, by what it is sent and what it passes on: texts that are cut inside a letter, parameters of a wrong shape, several
//! messages at once, names that a page can take, and lists that hold more than anybody here knows.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, response::IntoResponse};
use rstest::rstest;
use serde_json::{Value, json, value::RawValue};
use support::{Worker, odd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SCRIPT: &str = "otherwise: {text: 'Hello.'}";
const BIG: &str = "12345678901234567890123";

/// A server whose results are written letter by letter, and what it was sent.
struct Raw {
    results: Mutex<BTreeMap<&'static str, String>>,
    seen: Mutex<Vec<String>>,
    url: String,
}

impl Raw {
    async fn start(results: &[(&'static str, &str)]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let own = [
            ("tools/list", r#"{"tools":[{"name":"good","inputSchema":{"type":"object"}}]}"#),
            ("tools/call", r#"{"content":[{"type":"text","text":"done"}]}"#),
            ("resources/list", r#"{"resources":[]}"#),
            ("resources/templates/list", r#"{"resourceTemplates":[]}"#),
            ("prompts/list", r#"{"prompts":[]}"#),
            ("logging/setLevel", "{}"),
            (
                "initialize",
                r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{},"prompts":{},"completions":{},"logging":{}},"serverInfo":{"name":"s","version":"1"}}"#,
            ),
        ];
        let results = own.iter().chain(results).map(|(method, result)| (*method, (*result).to_owned())).collect();
        let raw = Arc::new(Self { results: Mutex::new(results), seen: Mutex::default(), url });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&raw));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        raw
    }

    fn entry(&self) -> Value {
        json!({"name": "s", "url": self.url, "timeout": 5, "max_retries": 0})
    }

    /// The arguments of the last call, as they came.
    fn arguments(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            params: Params<'a>,
        }
        #[derive(serde::Deserialize)]
        struct Params<'a> {
            #[serde(borrow)]
            arguments: &'a RawValue,
        }
        let seen = self.seen.lock().unwrap();
        let last = seen.iter().rfind(|body| body.contains("tools/call")).unwrap();
        serde_json::from_str::<Message>(last).unwrap().params.arguments.get().to_owned()
    }
}

async fn answer(State(raw): State<Arc<Raw>>, body: Bytes) -> axum::response::Response {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let Ok(request) = serde_json::from_str::<Value>(&text) else { return StatusCode::BAD_REQUEST.into_response() };
    raw.seen.lock().unwrap().push(text);
    if request["id"].is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let method = request["method"].as_str().unwrap_or_default();
    match raw.results.lock().unwrap().get(method) {
        Some(result) => {
            let id = &request["id"];
            odd::reply(200, "application/json", format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
        }
        None => odd::reply(404, "text/plain", "no such method"),
    }
}

async fn post(worker: &Worker, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let request = worker.http.post(format!("{}/mcp", worker.url)).header("content-type", "application/json");
    let request = request.header("accept", "application/json, text/event-stream");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.body(body.to_owned()).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Asks /mcp as a client of an earlier era does: the whole answer, as it was written.
async fn ask(worker: &Worker, method: &str, params: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let (status, text) = post(worker, &[("mcp-protocol-version", "2025-11-25")], &body).await;
    assert_eq!(status, 200, "{text}");
    text
}

async fn ask_modern(worker: &Worker, method: &str, name: Option<&str>, params: &str) -> String {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{}}},"io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"}}"#;
    let comma = if params == "{}" { "" } else { "," };
    let params = format!("{{{meta}{comma}{}", &params[1..]);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    headers.extend(name.map(|name| ("mcp-name", name)));
    let (status, text) = post(worker, &headers, &body).await;
    assert_eq!(status, 200, "{text}");
    text
}

#[rstest]
#[case::half_a_pair(r#""cut \ud83d""#, r#""cut �""#)]
#[case::a_pair(r#""\ud83d\ude00""#, r#""😀""#)]
#[case::beyond_a_double("1e400", "1.7976931348623157e308")]
#[case::a_text_that_looks_marked("\"\u{FDD0}123\"", "\"\u{FDD0}123\"")]
#[case::the_same_escaped(r#""\ufdd0123""#, "\"\u{FDD0}123\"")]
#[case::a_long_number(BIG, BIG)]
#[tokio::test]
async fn arguments_reach_the_server_as_they_were_meant(#[case] sent: &str, #[case] comes: &str) {
    let raw = Raw::start(&[]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    // The second one goes the SDK's way.
    for more in ["", r#","unknown":1"#] {
        let told = ask(&worker, "tools/call", &format!(r#"{{"name":"s__good","arguments":{{"q":{sent}}}{more}}}"#)).await;
        assert!(told.contains("done"), "{told}");
        let came: Value = serde_json::from_str(&raw.arguments()).unwrap();
        let meant: Value = serde_json::from_str(&format!(r#"{{"q":{comes}}}"#)).unwrap();
        assert_eq!(came, meant, "{}", raw.arguments());
    }
}

#[tokio::test]
async fn a_message_that_is_cut_inside_a_letter_is_answered() {
    let worker = Worker::start(SCRIPT, &[], &[]).await;
    let half = r#"{"message":"cut \ud83d","messages":[{"role":"user","content":"\ude00"},{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"a","input":{"a":1e400}}]}],"stream":false}"#;
    let request = worker.http.post(format!("{}/v1/chat", worker.url)).header("content-type", "application/json").body(half);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let seen = worker.model.standin.seen();
    assert!(seen.last().unwrap().body.to_string().contains("cut \u{fffd}"));
}

#[rstest]
#[case::no_name("tools/call", "{}", "name")]
#[case::no_object("tools/call", r#"{"name":"s__good","arguments":[]}"#, "arguments")]
#[case::a_text("tools/call", r#"{"name":"s__good","arguments":"{}"}"#, "arguments")]
#[case::odd_meta("tools/call", r#"{"name":"s__good","_meta":5}"#, "_meta")]
#[case::level("logging/setLevel", r#"{"level":"loud"}"#, "level")]
#[case::reference("completion/complete", r#"{"ref":{"type":"ref/foo"},"argument":{"name":"a","value":""}}"#, "ref")]
#[case::uri("resources/read", "{}", "uri")]
#[case::prompt("prompts/get", r#"{"name":5}"#, "name")]
#[case::cursor("tools/list", r#"{"cursor":5}"#, "cursor")]
#[case::another_cursor("prompts/list", r#"{"cursor":{}}"#, "cursor")]
#[tokio::test]
async fn parameters_of_a_wrong_shape_are_told_as_such(#[case] method: &str, #[case] params: &str, #[case] named: &str) {
    let raw = Raw::start(&[]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    let told: Value = serde_json::from_str(&ask(&worker, method, params).await).unwrap();
    let error = &told["error"];
    assert_eq!((&error["code"], &told["id"]), (&json!(-32602), &json!(1)), "{told}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(method) && message.contains(named) && message.contains(' '), "{message}");
}

#[rstest]
#[case("tools/list")]
#[case("resources/list")]
#[case("resources/templates/list")]
#[case("prompts/list")]
#[tokio::test]
async fn an_unknown_cursor_is_refused_and_a_method_that_is_none_stays_one(#[case] method: &str) {
    let raw = Raw::start(&[]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    for cursor in ["no-such-cursor", "7", "400", "s__good"] {
        let told = ask(&worker, method, &json!({"cursor": cursor}).to_string()).await;
        assert!(told.contains("-32602") && told.contains("cursor"), "{cursor}: {told}");
    }
    let searching = Worker::start(SCRIPT, &[raw.entry()], &["--tool-search", "always"]).await;
    assert!(ask(&searching, method, r#"{"cursor":"x"}"#).await.contains("-32602"));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/like","params":{}}"#;
    assert!(post(&worker, &[], body).await.1.contains("-32601"));
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_to_its_end() {
    let many = |field: &str, of: &dyn Fn(usize) -> Value, count: usize| {
        json!({field: (0..count).map(of).collect::<Vec<_>>()}).to_string()
    };
    let tools = many("tools", &|n| json!({"name": format!("t{n:03}"), "inputSchema": {"type": "object"}}), 230);
    let resources = many("resources", &|n| json!({"uri": format!("a:{n}"), "name": "n"}), 450);
    let raw = Raw::start(&[("tools/list", &tools), ("resources/list", &resources)]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    for (method, field, count) in [("tools/list", "tools", 230), ("resources/list", "resources", 450)] {
        let (mut all, mut cursor) = (0, json!(null));
        loop {
            let page: Value = serde_json::from_str(&ask(&worker, method, &json!({"cursor": cursor}).to_string()).await).unwrap();
            all += page["result"][field].as_array().unwrap().len();
            cursor = page["result"]["nextCursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(all, count, "{method}");
    }
}

#[tokio::test]
async fn no_structured_content_is_no_text() {
    let result = r#"{"content":[{"type":"text","text":"x"}],"structuredContent":null}"#;
    let raw = Raw::start(&[("tools/call", result)]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    let told = ask(&worker, "tools/call", r#"{"name":"s__good","arguments":{}}"#).await;
    assert!(told.contains(&format!(r#""result":{result}"#)), "{told}");
    let other: Value =
        serde_json::from_str(&ask(&worker, "tools/call", r#"{"name":"s__good","arguments":{},"unknown":1}"#).await).unwrap();
    assert_eq!(other["result"]["content"], json!([{"type": "text", "text": "x"}]), "the SDK's way, too");
}

/// A method, its result, its parameters, what its header names, and the pieces.
type Kept = (&'static str, &'static str, &'static str, Option<&'static str>, &'static [&'static str]);

/// What a server may write that nobody here knows: it has to be found in what a client is told, letter by letter.
const KEPT: [Kept; 7] = [
    (
        "tools/list",
        r#"{"tools":[{"name":"good","title":null,"inputSchema":{"type":"object","properties":{"n":{"type":"integer","maximum":12345678901234567890123,"default":null}}},"annotations":{"readOnlyHint":true,"vendorHint":1,"title":null},"_meta":{"n":12345678901234567890123},"x-vendor":{"a":1e3}}]}"#,
        "{}",
        None,
        &[
            r#""name":"s__good""#,
            r#""inputSchema":{"type":"object","properties":{"n":{"type":"integer","maximum":12345678901234567890123,"default":null}}}"#,
            r#""annotations":{"readOnlyHint":true,"vendorHint":1}"#,
            r#""_meta":{"n":12345678901234567890123}"#,
            r#""x-vendor":{"a":1e3}"#,
        ],
    ),
    (
        "resources/list",
        r#"{"resources":[{"uri":"a://1","name":"n","description":null,"annotations":{"vendor":1},"_meta":{"n":12345678901234567890123},"x-vendor":1}]}"#,
        "{}",
        None,
        &[r#"{"uri":"a://1","name":"s__n","annotations":{"vendor":1},"_meta":{"n":12345678901234567890123},"x-vendor":1}"#],
    ),
    (
        "resources/templates/list",
        r#"{"resourceTemplates":[{"uriTemplate":"a://{x}","name":"n","x-vendor":1.50}]}"#,
        "{}",
        None,
        &[r#"{"uriTemplate":"a://{x}","name":"s__n","x-vendor":1.50}"#],
    ),
    (
        "prompts/list",
        r#"{"prompts":[{"name":"p","arguments":[{"name":"a","description":null,"x-vendor":2}],"x-vendor":1}]}"#,
        "{}",
        None,
        &[r#"{"name":"s__p","arguments":[{"name":"a","x-vendor":2}],"x-vendor":1}"#],
    ),
    (
        "resources/read",
        r#"{"contents":[{"uri":"a://1","text":"T","x-vendor":1}],"x-vendor":12345678901234567890123}"#,
        r#"{"uri":"a://1"}"#,
        Some("a://1"),
        &[r#""contents":[{"uri":"a://1","text":"T","x-vendor":1}],"x-vendor":12345678901234567890123"#],
    ),
    (
        "prompts/get",
        r#"{"messages":[{"role":"user","content":{"type":"text","text":"x","x-vendor":1},"own":2}],"x-vendor":2}"#,
        r#"{"name":"s__p"}"#,
        Some("s__p"),
        &[r#""messages":[{"role":"user","content":{"type":"text","text":"x","x-vendor":1},"own":2}],"x-vendor":2"#],
    ),
    (
        "completion/complete",
        r#"{"completion":{"values":["a"],"x-vendor":1},"x-vendor":2}"#,
        r#"{"ref":{"type":"ref/prompt","name":"s__p"},"argument":{"name":"a","value":""}}"#,
        None,
        &[r#""completion":{"values":["a"],"x-vendor":1},"x-vendor":2"#],
    ),
];

#[tokio::test]
async fn lists_and_reads_pass_as_their_servers_wrote_them() {
    let results: Vec<_> = KEPT.iter().map(|(method, result, ..)| (*method, *result)).collect();
    let raw = Raw::start(&results).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    for (method, _, params, name, kept) in KEPT {
        let legacy = ask(&worker, method, params).await;
        let modern = ask_modern(&worker, method, name, params).await;
        for piece in kept {
            assert!(legacy.contains(piece), "{method}: {piece} is not in {legacy}");
            assert!(modern.contains(piece), "{method}: {piece} is not in {modern}");
        }
        assert!(modern.contains(r#""resultType":"complete""#) && !legacy.contains("resultType"), "{legacy} {modern}");
    }
}

#[rstest]
#[case::a_call(
    "tools/call",
    r#"{"name":"s__good","arguments":{}"#,
    "s__good",
    r#"{"content":[{"type":"text","text":"x","own":1}],"own":12345678901234567890123"#
)]
#[case::a_read(
    "resources/read",
    r#"{"uri":"a://1""#,
    "a://1",
    r#"{"contents":[{"uri":"a://1","text":"T","own":1}],"own":12345678901234567890123"#
)]
#[case::a_prompt("prompts/get", r#"{"name":"s__p""#, "s__p", r#"{"messages":[],"own":12345678901234567890123"#)]
#[tokio::test]
async fn what_comes_after_an_answer_of_the_user_passes_whole_too(
    #[case] method: &'static str,
    #[case] params: &str,
    #[case] name: &str,
    #[case] done: &str,
) {
    let modern = r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{},"prompts":{}},"ttlMs":0,"cacheScope":"private","resultType":"complete"}"#;
    let question = r#"{"method":"elicitation/create","params":{"mode":"form","message":"Sure?","own":12345678901234567890123,"requestedSchema":{"type":"object","properties":{}}}}"#;
    let asks = format!(r#"{{"resultType":"input_required","inputRequests":{{"sure":{question}}},"requestState":"theirs"}}"#);
    let prompts = r#"{"prompts":[{"name":"p"}]}"#;
    let raw = Raw::start(&[("server/discover", modern), (method, &asks), ("prompts/list", prompts)]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    let asked = ask_modern(&worker, method, Some(name), &format!("{params}}}")).await;
    assert!(asked.contains(r#""own":12345678901234567890123"#) && asked.contains("input_required"), "{asked}");
    let state = serde_json::from_str::<Value>(&asked).unwrap()["result"]["requestState"].to_string();
    raw.results.lock().unwrap().insert(method, format!("{done}}}"));
    let answer = r#"{"sure":{"action":"accept","content":{"n":12345678901234567890123}}}"#;
    let again = format!(r#"{params},"requestState":{state},"inputResponses":{answer}}}"#);
    let told = ask_modern(&worker, method, Some(name), &again).await;
    assert!(told.contains(&done[1..]), "{told}");
    let seen = raw.seen.lock().unwrap();
    let last = seen.iter().rfind(|body| body.contains(method)).unwrap();
    assert!(last.contains(r#""content":{"n":12345678901234567890123}"#) && last.contains("theirs"), "{last}");
}

fn called(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "s__good", "arguments": {}}})
}

#[rstest]
#[case::negotiated(&[("mcp-protocol-version", "2025-03-26")])]
#[case::without_the_header(&[])]
#[tokio::test]
async fn several_messages_at_once_are_answered_where_the_revision_has_them(#[case] headers: &[(&str, &str)]) {
    let raw = Raw::start(&[]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &[]).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let (status, told) = post(
        &worker,
        headers,
        &json!([called(1), note, 5, called(2), {"jsonrpc": "2.0", "id": 3, "method": "ping"}]).to_string(),
    )
    .await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let ids: Vec<&Value> = told.as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!((status, ids), (200, vec![&json!(1), &json!(null), &json!(2), &json!(3)]), "{told}");
    assert_eq!((&told[0]["result"]["content"][0]["text"], &told[1]["error"]["code"]), (&json!("done"), &json!(-32600)));
    assert_eq!(post(&worker, headers, &json!([note, note]).to_string()).await.0, 202);
    let (status, told) = post(&worker, headers, "[]").await;
    assert!(status == 400 && told.contains("-32600"), "{told}");
    let begins = json!([{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}]).to_string();
    assert!(post(&worker, headers, &begins).await.1.contains("-32600"), "a session does not begin among others");
    let later = post(&worker, &[("mcp-protocol-version", "2025-06-18")], &json!([called(1)]).to_string()).await;
    assert_eq!(later.0, 400, "the revision after it took them away: {}", later.1);
}

#[tokio::test]
async fn several_calls_at_once_count_as_several() {
    let raw = Raw::start(&[]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &["--rate-limit-requests", "3"]).await;
    let (_, told) = post(&worker, &[], &json!([called(1), called(2), called(3), called(4), called(5)]).to_string()).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let done = told.as_array().unwrap().iter().filter(|one| one["result"].is_object()).count();
    assert_eq!((done, told[4]["error"]["code"].is_number()), (3, true), "{told}");
}

/// The status and the body of the answer to a request that no client library would send.
async fn raw_get(worker: &Worker, target: &str, headers: &str) -> (u16, String) {
    raw_ask(worker, &format!("GET {target} HTTP/1.1\r\n{headers}\r\nconnection: close\r\n\r\n")).await
}

async fn raw_ask(worker: &Worker, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(worker.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_name_that_a_page_can_take_is_told_nothing() {
    let raw = Raw::start(&[]).await;
    let worker = Worker::start(SCRIPT, &[raw.entry()], &["--allowed-hosts", "chat.example.com"]).await;
    for path in ["/health", "/metrics", "/readyz", "/healthz", "/v1/servers"] {
        assert_eq!(raw_get(&worker, path, "host: evil.example").await.0, 403, "{path}");
        let elsewhere = format!("http://evil.example{path}");
        assert_eq!(raw_get(&worker, &elsewhere, "host: localhost").await.0, 403, "{elsewhere}");
        let here = format!("http://localhost{path}");
        assert_eq!(raw_get(&worker, &here, "host: evil.example").await.0, 200, "the target's name counts: {here}");
        if path != "/v1/servers" {
            // As some balancers ask.
            let (status, body) = raw_ask(&worker, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
            assert_eq!(status, if path == "/metrics" { 403 } else { 200 }, "{path}");
            assert!(!body.contains("servers") && !body.contains("model"), "{body}");
        }
        for host in ["10.244.0.7:8080", "chat-app.team.svc:8080", "chat-app", "chat.example.com"] {
            let (status, body) = raw_get(&worker, path, &format!("host: {host}")).await;
            assert!(status == 200 && !body.is_empty(), "{host}{path}");
        }
    }
}

#[tokio::test]
async fn behind_a_token_a_strange_name_gets_a_bare_status() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret-of-length").unwrap();
    let worker = Worker::start(SCRIPT, &[], &["--access-token-file", file.path().to_str().unwrap()]).await;
    assert_eq!(raw_get(&worker, "/readyz", "host: evil.example").await, (200, String::new()));
    assert_eq!(raw_get(&worker, "/health", "host: evil.example").await, (200, r#"{"status":"healthy"}"#.to_owned()));
    assert_eq!(raw_get(&worker, "/metrics", "host: evil.example").await.0, 403);
    let known = "host: chat.example\r\nauthorization: Bearer s3cret-of-length";
    assert!(raw_get(&worker, "/metrics", known).await.1.contains("chat_"));
    assert!(
        raw_get(&worker, "/metrics", "host: 10.0.0.7:8080").await.1.contains("chat_"),
        "Prometheus asks a pod by its address"
    );
    assert!(raw_get(&worker, "/readyz", "host: 10.0.0.7:8080").await.1.contains("model"), "so does the operator");
}

#[rstest]
#[case::a_users_text(json!([{"role": "user", "content": [{"type": "text", "text": "a", "id": "m1"}]}, {"role": "assistant", "content": "b"}]), None)]
#[case::a_models_text(json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b", "duration_ms": 5}]}]), None)]
#[case::a_call(json!([{"role": "user", "content": "a"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "s__good", "input": {}, "server": "o"}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r", "annotations": {}}], "duration_ms": 5, "is_error": null}]},
    {"role": "assistant", "content": "b"}]), None)]
#[case::an_unknown_kind(json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "foo"}, {"type": "text", "text": "b"}]}]), Some("foo"))]
#[tokio::test]
async fn a_history_is_mended_or_refused_with_what_to_change(#[case] messages: Value, #[case] refused: Option<&str>) {
    let worker = Worker::start(SCRIPT, &[], &[]).await;
    let (status, told) = worker.ask(json!({"message": "go", "messages": messages})).await;
    let Some(named) = refused else {
        assert_eq!(status, 200, "{told}");
        let sent = worker.model.standin.seen().last().unwrap().body.to_string();
        for own in ["duration_ms", "m1", "\"server\"", "annotations", "is_error\":null"] {
            assert!(!sent.contains(own), "{own}: {sent}");
        }
        return;
    };
    assert_eq!(status, 422, "{told}");
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains(named) && detail.contains("message 1"), "{detail}");
    assert!(worker.model.standin.seen().is_empty(), "nobody was asked");
}

//! The door: who is let in, from where, with what, and how much of it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};
use support::Worker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PLAIN: &str = "otherwise: {text: 'An answer.'}";
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const TOKEN: &str = "s3cret-of-length";

async fn closed(args: &[&str]) -> (Worker, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    let all = [&["--access-token-file", file.path().to_str().unwrap()], args].concat();
    (Worker::start(PLAIN, &[], &all).await, file)
}

/// The status of the answer to a request that no client library would send.
async fn raw(worker: &Worker, head: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(worker.url.trim_start_matches("http://")).await.unwrap();
    let request = format!("{head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn without_a_token_no_name_that_a_page_can_take_is_answered_to() {
    let worker = Worker::start(PLAIN, &[], &["--allowed-hosts", "chat.example.com,*.corp.example"]).await;
    let get = |hosts: &'static str| raw_get(&worker, hosts);
    for host in [
        "host: localhost",
        "host: 127.0.0.1:8080",
        "host: [::1]",
        "host: 10.0.0.7:8080",
        "host: chat-app.team.svc",
        "host: chat.example.com",
        "host: a.corp.example",
    ] {
        assert_eq!(get(host).await, 200, "{host}");
    }
    for host in [
        "host: evil.example",
        "host: localhost.evil.example",
        "host: 127.0.0.1.nip.io",
        "host: evil.example\r\norigin: http://evil.example",
        "host: localhost\r\norigin: https://evil.example",
        "host: localhost\r\norigin: null",
    ] {
        assert_eq!(get(host).await, 403, "{host}");
    }
    assert_eq!(get("host: localhost\r\nhost: evil.example").await, 400);
    for path in ["/openapi.json", "/assets/app.js", "/healthz", "/", "/v1/tools"] {
        assert_eq!(raw(&worker, &format!("GET {path} HTTP/1.1\r\nhost: evil.example"), "").await, 403, "{path}");
    }
    assert_eq!(get("host: chat-app\r\norigin: https://chat.example.com").await, 200, "behind a proxy that rewrites Host");
}

async fn raw_get(worker: &Worker, hosts: &str) -> u16 {
    raw(worker, &format!("GET /v1/servers HTTP/1.1\r\n{hosts}"), "").await
}

#[tokio::test]
async fn with_a_token_any_name_will_do_and_a_rebound_one_has_no_token() {
    let (worker, _file) = closed(&[]).await;
    assert_eq!(raw_get(&worker, "host: evil.example\r\norigin: http://evil.example").await, 401);
    assert_eq!(raw_get(&worker, &format!("host: chat.example\r\nauthorization: Bearer {TOKEN}")).await, 200);
    assert_eq!(
        raw_get(&worker, &format!("host: chat.example\r\norigin: https://evil.example\r\nauthorization: Bearer {TOKEN}")).await,
        403
    );
}

#[tokio::test]
async fn guessing_is_slow_on_every_path_and_health_tells_strangers_nothing() {
    let (worker, _file) = closed(&["--rate-limit-requests", "0", "--trusted-proxies", "127.0.0.0/8"]).await;
    let guess = |caller: &str, token: &str| {
        worker.http.get(format!("{}/v1/tools", worker.url)).header("x-forwarded-for", caller).bearer_auth(token).send()
    };
    let mut statuses = Vec::new();
    for number in 0..12 {
        statuses.push(guess("[2001:db8::1]:4711", &format!("guess {number}")).await.unwrap().status().as_u16());
    }
    assert_eq!((statuses[9], statuses[10], statuses[11]), (401, 429, 429));
    assert_eq!(guess("[2001:db8::2]:1", TOKEN).await.unwrap().status(), 429, "the same network");
    assert_eq!(guess("203.0.113.8:1234", TOKEN).await.unwrap().status(), 200, "somebody else");
    assert_eq!(worker.get("/health").await, json!({"status": "healthy"}));
    let known = worker.http.get(format!("{}/health", worker.url)).bearer_auth(TOKEN).header("x-forwarded-for", "203.0.113.8");
    assert!(known.send().await.unwrap().json::<Value>().await.unwrap()["metrics"]["usage"].is_object());
}

#[tokio::test]
async fn the_endpoint_serves_whoever_takes_json() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    for accept in [
        "accept: */*\r\n",
        "",
        "accept: application/json\r\n",
        "accept: application/*\r\n",
        "accept: text/event-stream, application/json\r\n",
    ] {
        let head = format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\n{accept}content-type: application/json");
        assert_eq!(raw(&worker, &head, PING).await, 200, "{accept}");
    }
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\ncontent-type: application/json";
    assert_eq!(raw(&worker, head, PING).await, 406);
}

#[tokio::test]
async fn a_small_body_that_would_become_a_large_tree_is_refused_and_a_long_text_is_not() {
    let worker = Worker::start(PLAIN, &[], &["--max-message-chars", "10000000"]).await;
    let post = |path: &str, body: String| {
        worker.http.post(format!("{}{path}", worker.url)).header("content-type", "application/json").body(body).send()
    };
    let objects = |count: usize| r#"{"a":1},"#.repeat(count) + "1";
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"a":[{}]}}}}}}"#,
        objects(470_000)
    );
    assert_eq!(post("/mcp", call).await.unwrap().status(), 413);
    let chat = format!(r#"{{"message":"hi","stream":false,"messages":[{{"role":"user","content":[{}]}}]}}"#, objects(1_000_000));
    assert_eq!(post("/v1/chat", chat).await.unwrap().status(), 413);
    let long = json!({"message": "long ".repeat(500_000), "stream": false}).to_string();
    assert_eq!(post("/v1/chat", long).await.unwrap().status(), 200);
}

#[tokio::test]
async fn readiness_tells_how_the_model_was_met() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    assert_eq!(worker.get("/readyz").await["model"]["reachable"], Value::Null, "it was not asked");
    worker.ask(json!({"message": "hi"})).await;
    assert_eq!(worker.get("/readyz").await["model"]["reachable"], true);

    let silent = Worker::start(PLAIN, &[], &["--base-url", "http://127.0.0.1:1", "--model-timeout-seconds", "1"]).await;
    let (_, answer) = silent.ask(json!({"message": "hi"})).await;
    let model = silent.get("/readyz").await["model"].clone();
    assert_eq!(model["reachable"], false, "{answer}");
    assert!(model["since"].is_string() && model["message"].is_string(), "{model}");
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_its_clients_keep_it() {
    let worker = Worker::start(PLAIN, &[], &["--idle-timeout-seconds", "2"]).await;
    let mut stream = TcpStream::connect(worker.url.trim_start_matches("http://")).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut buffer = [0; 4096];
    stream.write_all(ask).await.unwrap();
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    let ended = tokio::time::timeout(Duration::from_secs(10), async { while stream.read(&mut buffer).await.unwrap_or(0) > 0 {} });
    let began = std::time::Instant::now();
    ended.await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_prefers_to_wait_waits_in_line_instead_of_being_turned_away() {
    let worker = Worker::start(PLAIN, &[], &["--rate-limit-requests", "2", "--rate-limit-window-seconds", "4"]).await;
    let ask = |prefer: &'static str| {
        let request = worker.http.post(format!("{}/v1/chat", worker.url)).header("prefer", prefer);
        request.json(&json!({"message": "hi", "stream": false})).send()
    };
    for _ in 0..2 {
        assert_eq!(ask("").await.unwrap().status(), 200);
    }
    assert_eq!(ask("").await.unwrap().status(), 429);
    let began = std::time::Instant::now();
    assert_eq!(ask("wait=10").await.unwrap().status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stranger_holds_no_place_in_the_line_and_nobody_many() {
    // The next request is due in forty seconds.
    let (worker, _file) = closed(&["--rate-limit-requests", "1", "--rate-limit-window-seconds", "40"]).await;
    let ask = |token: Option<&'static str>| {
        let request = worker.http.post(format!("{}/mcp", worker.url)).header("prefer", "wait=60").body(PING);
        token.iter().fold(request, reqwest::RequestBuilder::bearer_auth).send()
    };
    assert_eq!(ask(None).await.unwrap().status(), 401, "the one that there is");
    let at_once =
        async |token| tokio::time::timeout(Duration::from_secs(20), ask(token)).await.expect("at once").unwrap().status();
    assert_eq!((at_once(None).await.as_u16(), at_once(Some("a-guess-of-some-length")).await.as_u16()), (429, 429));
    let mut waiting: FuturesUnordered<_> = (0..9).map(|_| ask(Some(TOKEN))).collect();
    let first = tokio::time::timeout(Duration::from_secs(20), waiting.next()).await.expect("at once").unwrap().unwrap();
    assert_eq!(first.status(), 429, "eight of one caller wait");
    assert!(waiting.next().now_or_never().is_none());
}

/// The status of the answer to a request whose body comes by a letter every ten seconds.
async fn trickled(worker: &Worker, head: &str) -> u16 {
    let mut stream = TcpStream::connect(worker.url.trim_start_matches("http://")).await.unwrap();
    let request = format!("{head}\r\nhost: localhost\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n", "the body is waited for");
    tokio::time::pause();
    for _ in 0..4 {
        // It may be given up by now.
        let _ = stream.write_all(b"x").await;
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    tokio::time::resume();
    let mut head = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut head)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&head)["HTTP/1.1 ".len()..].parse().unwrap()
}

#[tokio::test]
async fn no_body_is_waited_for_without_end() {
    let (worker, _file) = closed(&[]).await;
    let bearer = format!("authorization: Bearer {TOKEN}");
    for head in [
        format!("POST /v1/chat HTTP/1.1\r\ncontent-type: application/json\r\n{bearer}"),
        format!("POST /mcp HTTP/1.1\r\ncontent-type: application/json\r\n{bearer}"),
        format!("PUT /mcp HTTP/1.1\r\ncontent-type: application/json\r\n{bearer}"),
        "POST /signin HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded".to_owned(),
    ] {
        assert_eq!(trickled(&worker, &head).await, 408, "{head}");
    }
}

#[tokio::test]
async fn signing_in_keeps_the_pace_and_takes_no_more_than_a_token() {
    let (worker, _file) = closed(&["--rate-limit-requests", "3"]).await;
    let sign_in = |token: String| {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let form = format!("token={token}");
        let request = client.post(format!("{}/signin", worker.url)).header("content-type", "application/x-www-form-urlencoded");
        request.header("accept", "text/html").body(form).send()
    };
    let large = sign_in("x".repeat(5_000)).await.unwrap();
    assert_eq!((large.status().as_u16(), large.text().await.unwrap().contains("4 KiB")), (413, true));
    let known = sign_in(TOKEN.to_owned()).await.unwrap();
    assert_eq!((known.status().as_u16(), known.headers().contains_key("set-cookie")), (303, true));
    assert_eq!(sign_in("wrong".to_owned()).await.unwrap().status(), 403);
    let late = sign_in(TOKEN.to_owned()).await.unwrap();
    assert_eq!((late.status().as_u16(), late.headers().contains_key("retry-after")), (429, true));
    assert!(late.text().await.unwrap().contains("<form"), "who fills in the form reads the page");
}

#[tokio::test]
async fn a_body_that_is_nested_without_end_is_refused_and_ends_nothing() {
    let worker = Worker::start(PLAIN, &[], &[]).await;
    for depth in [600, 200_000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        let call =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"a":{deep}}}}}}}"#);
        let chat = format!(r#"{{"messages":[{{"role":"user","content":{deep}}}]}}"#);
        for (path, body) in [("/mcp", call), ("/v1/chat", chat)] {
            let request = worker.http.post(format!("{}{path}", worker.url)).header("content-type", "application/json");
            let response = request.body(body).send().await.unwrap();
            let told = (response.status().as_u16(), response.text().await.unwrap());
            assert!(told.0 == 400 && told.1.contains("nested deeper than 512 levels"), "{path}: {told:?}");
        }
    }
}

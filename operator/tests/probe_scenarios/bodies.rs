//! Bodies that are right, wrong, encoded, or too large.

use operator::crd::reason;
use serde_json::{Value, json};

use crate::{
    support::fake::{Act, chunked, json_bytes, modern, response, result},
    table::{HEALTHY, Scenario, always, body_of, failed, gzip, gzipped, scenario, with_status},
};

pub fn bodies() -> Vec<Scenario> {
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
        scenario("a batch that holds the answer", failed(reason::NOT_MCP), |ask, state| {
            json_bytes(&format!("[{}]", body_of(ask, state)))
        }),
        scenario("the id as 1.0", HEALTHY, |ask, state| {
            json_bytes(&body_of(ask, state).replace(&format!("\"id\":{}", ask.id), &format!("\"id\":{}.0", ask.id)))
        }),
        scenario("an error without an id", failed(reason::JSON_RPC_ERROR), |ask, state| {
            if ask.method == "server/discover" {
                return modern(ask, state);
            }
            json_bytes(&json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32603, "message": "no"}}).to_string())
        }),
        scenario("more than it said", failed(reason::NOT_MCP), |ask, state| {
            let body = body_of(ask, state);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len() - 5);
            Act::Bytes(format!("{head}{body}").into_bytes())
        }),
        scenario("an early hint", HEALTHY, |ask, state| match modern(ask, state) {
            Act::Bytes(bytes) => Act::Bytes([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec(), bytes].concat()),
            other => other,
        }),
        scenario("headers of 100 kB", HEALTHY, |ask, state| {
            let long = "x".repeat(2_000);
            let mut headers = vec![("Content-Type", "application/json")];
            headers.extend(std::iter::repeat_n(("X-Long", long.as_str()), 50));
            Act::Bytes(response("200 OK", &headers, body_of(ask, state)))
        }),
        scenario("the encoding identity", HEALTHY, |ask, state| {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", "Identity")];
            Act::Bytes(response("200 OK", &headers, body_of(ask, state)))
        }),
        scenario("gzip by its other name", HEALTHY, |ask, state| {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", "X-GZIP")];
            Act::Bytes(response("200 OK", &headers, gzip(body_of(ask, state).as_bytes())))
        }),
        scenario("gzip that is cut short", failed(reason::TRUNCATED), |ask, state| {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
            let mut bytes = gzip(body_of(ask, state).as_bytes());
            bytes.truncate(bytes.len() / 2);
            Act::Bytes(response("200 OK", &headers, bytes))
        }),
        scenario(
            "deflate",
            failed(reason::NOT_MCP),
            with_status("200 OK", &[("Content-Type", "application/json"), ("Content-Encoding", "deflate")], "x"),
        ),
    ]
}

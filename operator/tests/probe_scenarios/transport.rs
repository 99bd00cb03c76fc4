//! Connections that break, hang or speak something else.

use operator::crd::reason;

use crate::{
    support::fake::{Act, chunked, modern, response},
    table::{HEALTHY, Scenario, always, body_of, failed, scenario},
};

pub fn transport() -> Vec<Scenario> {
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
        scenario("HTTP/1.0 that keeps the connection", HEALTHY, |ask, state| {
            let body = body_of(ask, state);
            let head = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length";
            Act::Bytes(format!("{head}: {}\r\n\r\n{body}", body.len()).into_bytes())
        }),
        scenario("closes the connection between two questions of a probe", HEALTHY, |ask, state| match modern(ask, state) {
            Act::Bytes(bytes) if ask.nth % 2 == 1 => Act::BytesThenClose(bytes),
            other => other,
        }),
        scenario("chunks with extensions and trailers", HEALTHY, |ask, state| {
            let body = body_of(ask, state);
            let head = "HTTP/1.1 200 OK\r\ncontent-TYPE: application/json\r\ntransfer-encoding: Chunked\r\n\r\n";
            Act::Bytes(format!("{head}{:X};a=b\r\n{body}\r\n0\r\nExpires: 0\r\nX-Sum: 1\r\n\r\n", body.len()).into_bytes())
        }),
        scenario(
            "a chunk that is longer than it says",
            failed(reason::TRUNCATED),
            always(|| {
                Act::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n".to_vec())
            }),
        ),
        scenario("150 headers", HEALTHY, |ask, state| {
            let names: Vec<String> = (0..150).map(|number| format!("X-Number-{number}")).collect();
            let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
            headers.push(("Content-Type", "application/json"));
            Act::Bytes(response("200 OK", &headers, body_of(ask, state)))
        }),
        scenario("a header on two lines", HEALTHY, |ask, state| {
            let headers = [("X-Long", "a\r\n  b"), ("Content-Type", "application/json")];
            Act::Bytes(response("200 OK", &headers, body_of(ask, state)))
        }),
    ]
}

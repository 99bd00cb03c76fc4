//! Answers that come as server-sent events.

use operator::crd::reason;

use crate::{
    support::fake::{Act, chunked, response},
    table::{HEALTHY, Scenario, always, body_of, failed, gzipped, scenario, sse},
};

pub fn events() -> Vec<Scenario> {
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
        scenario("SSE with fields, comments, carriage returns and the answer on many lines", HEALTHY, |ask, state| {
            let text = |body: &str| {
                let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
                let pretty = serde_json::to_string_pretty(&value).expect("JSON");
                let lines = format!("data: {}\r\n", pretty.replace('\n', "\r\ndata: "));
                vec![format!("\u{feff}: hi\r\nretry: 10\r\nid: 7\r\nevent: message\r\n{lines}\r\n")]
            };
            sse(ask, state, text, true)
        }),
        scenario("SSE with events of other names before the answer", HEALTHY, |ask, state| {
            sse(
                ask,
                state,
                |body| vec!["event: ping\ndata: 2026-11-26\n\n".into(), format!("event: message\ndata: {body}\n\n")],
                true,
            )
        }),
        scenario("SSE with the answer in an event that no client reads", failed(reason::NOT_MCP), |ask, state| {
            sse(ask, state, |body| vec![format!("event: answer\ndata: {body}\n\n")], true)
        }),
        scenario("SSE with a request for sampling before the answer", HEALTHY, |ask, state| {
            let request =
                r#"data: {"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}"#;
            sse(ask, state, |body| vec![format!("{request}\n\ndata: {body}\n\n")], true)
        }),
        scenario("SSE with the answer to another question before ours", HEALTHY, |ask, state| {
            let other = r#"data: {"jsonrpc":"2.0","id":"another","result":{}}"#;
            sse(ask, state, |body| vec![format!("{other}\n\n"), format!("data: {body}\n\n")], true)
        }),
        scenario("SSE with junk before the answer", HEALTHY, |ask, state| {
            sse(ask, state, |body| vec!["data: [DONE]\n\n".into(), format!("data: {body}\n\n")], true)
        }),
        scenario("SSE with a notification whose params are an array", HEALTHY, |ask, state| {
            let odd = r#"data: {"jsonrpc":"2.0","method":"notifications/own","params":[1]}"#;
            sse(ask, state, |body| vec![format!("{odd}\n\n"), format!("data: {body}\n\n")], true)
        }),
        scenario("SSE with an answer that is none, and a better one after it", failed(reason::NOT_MCP), |ask, state| {
            let broken = format!(r#"data: {{"jsonrpc":"2.0","id":{},"result":5}}"#, ask.id);
            sse(ask, state, |body| vec![format!("{broken}\n\n"), format!("data: {body}\n\n")], true)
        }),
        scenario("SSE with the answer to another question, and then nothing", failed(reason::NOT_MCP), |ask, state| {
            sse(ask, state, |_| vec!["data: {\"jsonrpc\":\"2.0\",\"id\":77,\"result\":{}}\n\n".into()], false)
        }),
        scenario("SSE that ends within the answer's event", failed(reason::NOT_MCP), |ask, state| {
            sse(ask, state, |body| vec![format!("data: {body}\n")], true)
        }),
        scenario("SSE by a content type with parameters", HEALTHY, |ask, state| {
            let body = format!("data: {}\n\n", body_of(ask, state));
            Act::Bytes(response("200 OK", &[("content-type", "text/event-stream;charset=utf-8")], body))
        }),
        scenario(
            "SSE that is cut off by a missing chunk",
            failed(reason::TRUNCATED),
            always(|| Act::BytesThenClose(chunked("text/event-stream", &[": hello\n\n"]))),
        ),
    ]
}

//! Traces and request ids: what a collector on this machine receives from the real program, and what its log says.

use ::traces::testing::{Received, hex, of};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Bridge, answer, child, text, tools_call};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const PATIENT: &str = "--max-deaths 0 --max-backoff-seconds 0";

#[tokio::test]
async fn a_call_of_either_era_is_a_span_here_and_one_towards_the_child_which_goes_on_from_it() {
    let collector = Received::start().await;
    for era in ["legacy", "modern"] {
        let bridge = Bridge::start_with(&collector.environment(), "", &child(era)).await;
        let mut call = tools_call("seen", json!({"whispered": "secret"}));
        call["params"]["_meta"] = json!({"traceparent": PARENT, "tracestate": "vendor=1"});
        let seen = [
            answer(bridge.post(None, &call).await).await,
            answer(bridge.modern(&json!(1), "tools/call", &call["params"]).send().await.unwrap()).await,
        ];
        // What the server exports itself comes after the two of the bridge, if it does.
        let spans = collector.spans(4).await;
        for seen in seen {
            let told = text(&seen)["meta"].clone();
            let of_child = told["traceparent"].as_str().unwrap().split('-').nth(2).unwrap().to_owned();
            assert_eq!(told["tracestate"], "vendor=1");
            let calls = spans.iter().find(|span| hex(&span.span_id) == of_child).unwrap();
            let serves = spans.iter().find(|span| span.span_id == calls.parent_span_id).unwrap();
            assert_eq!(hex(&serves.parent_span_id), "b7ad6b7169203331");
            assert_eq!((calls.kind, serves.kind), (3, 2), "a client's, a server's");
            for span in [calls, serves] {
                assert_eq!((hex(&span.trace_id).as_str(), span.name.as_str()), (TRACE, "tools/call seen"));
                assert_eq!((of(span, "gen_ai.tool.name"), of(span, "error.type")), ("seen".into(), "absent".into()));
                assert!(span.end_time_unix_nano > span.start_time_unix_nano);
            }
            assert_eq!((of(calls, "network.transport"), of(serves, "network.transport")), ("pipe".into(), "tcp".into()));
            assert_eq!((of(calls, "mcpfleet.outcome"), of(serves, "http.response.status_code")), ("ok".into(), "200".into()));
        }
        bridge.stop().await;
        assert_eq!(collector.service(), "bridge");
        collector.forget();
    }
    collector.assert_unsaid(&["secret", "whispered"]);
}

#[tokio::test]
async fn what_fails_is_traced_as_an_error_and_ends_with_its_stream() {
    let collector = Received::start().await;
    let bridge = Bridge::start_with(&collector.environment(), &format!("--timeout-seconds 1 {PATIENT}"), &child("modern")).await;
    for tool in ["never", "die"] {
        bridge.call(None, tool, json!({})).await;
    }
    // Refused here, without a call of the child.
    let params = json!({"name": "echo", "arguments": {}});
    let refused = bridge.modern(&json!(1), "tools/call", &params).header("mcp-name", "other").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    // At once: what has not been sent yet is sent on the way out.
    assert!(bridge.stop().await.success());
    let spans = collector.spans(5).await;
    let mut seen: Vec<_> = spans
        .iter()
        .map(|span| (span.name.clone(), span.kind, of(span, "error.type"), span.status.clone().unwrap_or_default().code))
        .collect();
    seen.sort();
    let expected = [
        ("tools/call die", 2, "exited", 2),
        ("tools/call die", 3, "exited", 2),
        ("tools/call echo", 2, "-32020", 2),
        ("tools/call never", 2, "timeout", 2),
        ("tools/call never", 3, "timeout", 2),
    ];
    assert_eq!(seen, expected.map(|(name, kind, error, status)| (name.to_owned(), kind, error.to_owned(), status)));
}

#[tokio::test]
async fn the_collectors_password_is_in_no_line_of_the_log() {
    let collector = Received::start().await;
    let [(endpoint, address), delay] = collector.environment();
    let secret = address.replace("//", "//user:swordfish@");
    let start = async |address: &str| {
        let bridge = Bridge::start_with(&[(endpoint, address), delay], "--log-level debug", &child("legacy")).await;
        assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
        bridge
    };
    let said = |bridge: &Bridge| bridge.log.lock().unwrap().join("\n");
    let bridge = start(&secret).await;
    collector.spans(2).await;
    // Over the connection that was kept, of which there is a line, too.
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
    collector.spans(4).await;
    bridge.logged("\"DEBUG\"").await;
    assert!(!said(&bridge).contains("swordfish"));
    let bridge = start("http://user:swordfish@127.0.0.1:1").await;
    bridge.logged("BatchSpanProcessor.ExportError").await;
    assert!(!said(&bridge).contains("swordfish"));
}

#[tokio::test]
async fn a_collector_that_is_not_spoken_to_keeps_no_server_from_running() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let bridge = Bridge::start_with(&variables, "", &child("legacy")).await;
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
    bridge.logged("the bridge sends no traces").await;
}

#[tokio::test]
async fn a_request_id_is_in_the_answer_in_the_line_of_a_call_that_failed_and_goes_to_the_server_beside() {
    let bridge = Bridge::start_ready(PATIENT, &child("legacy")).await;
    let sent = async |bridge: &Bridge, id: &str, tool: &str| {
        let request = bridge.request(Method::POST, "/mcp").header("x-request-id", id).header("accept", "application/json");
        let response = request.json(&tools_call(tool, json!({}))).send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(sent(&bridge, "abc-1", "echo").await, "abc-1");
    assert!(sent(&bridge, "a b", "echo").await.starts_with("req_"));
    let front = Bridge::beside(&bridge).await;
    assert_eq!(sent(&front, "through-2", "die").await, "through-2");
    let line: Value = serde_json::from_str(&bridge.logged("did not answer a call").await).unwrap();
    assert_eq!((&line["request_id"], &line["tool"], &line["outcome"]), (&json!("through-2"), &json!("die"), &json!("exited")));
}

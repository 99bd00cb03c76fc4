use mcp_wire::hello::MODERN;
use rmcp::model::{ListToolsRequest, PaginatedRequestParams};
use serde_json::json;

use super::*;

fn asked(kind: Kind) -> Asked {
    Asked { id: RequestId::Number(7), kind }
}

/// Requests of the SDK that wait.
fn of<const N: usize>(all: [Asked; N]) -> Waiting {
    let all = all.into_iter().map(|asked| (asked.number(), (asked, None))).collect();
    Waiting(Arc::new(Mutex::new(Waits { all, over: false })))
}

/// What the SDK is told, as JSON; "other" when it is not the answer.
fn told(kind: Kind, body: &str, revision: Option<&str>) -> Value {
    match asked(kind).read(body.as_bytes(), revision) {
        Came::Answer(answer) | Came::Odd(answer) => serde_json::to_value(answer.message()).expect("JSON"),
        Came::Other => "other".into(),
    }
}

fn result(kind: Kind, result: &Value) -> Value {
    told(kind, &json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string(), None)
}

#[test]
fn a_request_is_known_by_its_kind() {
    let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(PaginatedRequestParams::default()));
    let asked = Asked::of(&ClientJsonRpcMessage::request(request, RequestId::Number(7))).expect("a request");
    assert_eq!((asked.number(), asked.kind), (7, Kind::ListTools));
}

#[test]
fn an_error_keeps_its_numbers_as_they_were_written() {
    let body = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32042,"message":"m","data":{"n":12345678901234567890123}}}"#;
    let error = told(Kind::CallTool, body, None)["error"].clone();
    assert_eq!((&error["code"], &error["message"]), (&json!(-32042), &json!("m")));
    assert_eq!(numbers::written(&error["data"]), r#"{"n":12345678901234567890123}"#);
}

#[test]
fn an_error_without_an_id_is_the_answer() {
    for body in [
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID provided"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"No valid session ID provided"}}"#,
    ] {
        let told = told(Kind::CallTool, body, Some("2025-06-18"));
        assert_eq!((&told["id"], &told["error"]["message"]), (&json!(7), &json!("No valid session ID provided")), "{body}");
    }
}

#[test]
fn a_malformed_tool_is_left_out_and_named_and_the_others_are_not() {
    let good = json!({"name": "good", "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}}}});
    for (odd, named) in [
        (json!({"name": "bare"}), "bare: it has no inputSchema"),
        (json!({"name": "bare", "inputSchema": null}), "bare: its inputSchema is null"),
        (json!({"name": "bare", "inputSchema": "x"}), "bare: its inputSchema is a string"),
        (json!({"name": "bare", "inputSchema": []}), "bare: its inputSchema is an array"),
        (json!({"name": "bare", "inputSchema": true}), "bare: its inputSchema is a truth value"),
        (json!({"inputSchema": {}}), "tools[1]: it has no name"),
        (json!({"name": 5, "inputSchema": {}}), "tools[1]: its name is a number"),
        (json!({"name": "", "inputSchema": {}}), "tools[1]: its name is empty"),
        (json!(null), "tools[1]: it is null"),
        (json!("bare"), "tools[1]: it is a string"),
        (json!(["bare", null, null, {}, null, null, null, null]), "tools[1]: it is an array"),
    ] {
        let told = result(Kind::ListTools, &json!({"tools": [good, odd]}));
        assert_eq!(told["result"]["tools"].as_array().map(Vec::len), Some(1), "{odd}: {told}");
        let left_out = told["result"]["_meta"][LEFT_OUT][0].as_str().unwrap_or_default();
        assert!(left_out.starts_with(named), "{odd}: {left_out}");
    }
    for field in ["description", "annotations", "outputSchema", "title", "icons", "_meta", "execution"] {
        let mut odd = json!({"name": "odd", "inputSchema": {}});
        odd[field] = Value::Null;
        let told = result(Kind::ListTools, &json!({"tools": [good, odd]}));
        assert_eq!(told["result"]["tools"].as_array().map(Vec::len), Some(2), "{field}: {told}");
        odd[field] = if field == "outputSchema" { json!(true) } else { json!([5]) };
        let told = result(Kind::ListTools, &json!({"tools": [good, odd]}));
        assert_eq!(told["result"]["tools"].as_array().map(Vec::len), Some(2), "{field}: {told}");
        assert_eq!(told["result"]["_meta"][LEFT_OUT], json!([]), "{field}: {told}");
    }
}

#[test]
fn a_list_is_no_other_thing_and_its_cursor_is_a_string() {
    assert_eq!(
        result(Kind::ListTools, &json!({"tools": "none"}))["error"]["message"],
        "the server's result is malformed: its \"tools\" are no array"
    );
    assert!(
        result(Kind::ListTools, &json!({"content": []}))["error"]["message"].as_str().is_some_and(|told| told.contains("tools"))
    );
    let told = result(Kind::ListTools, &json!({"tools": [], "nextCursor": 5}));
    assert!(told["result"]["_meta"][LEFT_OUT][0].as_str().is_some_and(|told| told.contains("nextCursor")), "{told}");
    assert_eq!(result(Kind::ListTools, &json!({"tools": [], "nextCursor": "x"}))["result"]["nextCursor"], "x");
    let own = json!({"tools": [], "_meta": {LEFT_OUT: ["a lie"]}});
    assert_eq!(result(Kind::ListTools, &own)["result"]["_meta"][LEFT_OUT], json!([]));
}

#[test]
fn a_malformed_resource_or_prompt_costs_only_itself_and_is_named() {
    for (kind, field, good, odd, reason) in [
        (
            Kind::ListResources,
            "resources",
            json!({"uri": "a:b", "name": "a", "size": 12.0, "icons": [{"src": "a", "sizes": "48x48"}]}),
            json!({"name": "no URI"}),
            "no URI: it has no uri",
        ),
        (
            Kind::ListTemplates,
            "resourceTemplates",
            json!({"uriTemplate": "a:{b}", "name": "a", "annotations": []}),
            json!({"uriTemplate": 5}),
            "resourceTemplates[1]: its uriTemplate is a number",
        ),
        (
            Kind::ListPrompts,
            "prompts",
            json!({"name": "a", "arguments": [{"name": "x", "required": "yes"}], "_meta": []}),
            json!({"name": "b", "arguments": "x"}),
            "b: its arguments are a string",
        ),
    ] {
        for next in [json!(5), json!(null), json!("")] {
            let told = result(kind, &json!({field: [good, odd, "x", null], "nextCursor": next}));
            assert_eq!(told["result"][field].as_array().map(Vec::len), Some(1), "{field}: {told}");
            assert_eq!(told["result"]["nextCursor"], Value::Null, "{field}: {told}");
            let left_out = told["result"]["_meta"][LEFT_OUT].to_string();
            for named in [reason, &format!("{field}[2]: it is a string"), &format!("{field}[3]: it is null")] {
                assert!(left_out.contains(named), "{named}: {left_out}");
            }
            assert_eq!(left_out.contains("no string"), next == json!(5), "{left_out}");
        }
        assert_eq!(result(kind, &json!({field: [], "nextCursor": "x"}))["result"]["nextCursor"], "x");
        for malformed in [json!({field: "none"}), json!({}), json!({field: null})] {
            let told = result(kind, &malformed);
            assert!(told["error"]["message"].as_str().is_some_and(|told| told.contains("malformed")), "{field}: {told}");
        }
    }
}

#[test]
fn what_a_resource_or_a_prompt_is_passes_whole_and_nothing_else_is_taken_for_it() {
    let read = result(Kind::ReadResource, &json!({"contents": [{"uri": "a:b", "text": "x"}], "_meta": {"a": 1}}));
    assert_eq!((&read["result"]["contents"][0]["text"], &read["result"]["_meta"]["a"]), (&json!("x"), &json!(1)));
    let odd = json!({"role": "user", "content": {"type": "video", "data": "x"}});
    let text = json!({"role": "assistant", "content": {"type": "text", "text": "x"}});
    let prompt = result(Kind::GetPrompt, &json!({"messages": [odd, text]}));
    assert!(prompt["result"]["messages"][0]["content"]["text"].as_str().is_some_and(|told| told.contains("video")), "{prompt}");
    assert_eq!(result(Kind::Complete, &json!({"completion": {"values": ["x"]}}))["result"]["completion"]["values"], json!(["x"]));
    let asks = json!({"resultType": "input_required", "requestState": "s", "inputRequests": {}});
    assert_eq!(result(Kind::GetPrompt, &asks)["result"]["requestState"], "s");
    let question = json!({"method": "elicitation/create", "params": {"message": "who?", "odd": {}}});
    let asks = json!({"resultType": "input_required", "inputRequests": {"name": question}});
    for kind in [Kind::CallTool, Kind::GetPrompt, Kind::ReadResource] {
        let told = result(kind, &asks);
        assert_eq!(told["result"]["resultType"], "input_required", "{kind:?}: {told}");
    }
    for (kind, malformed) in [
        (Kind::ReadResource, json!({"contents": "x"})),
        (Kind::ReadResource, json!({"contents": [{"uri": "a:b"}]})),
        (Kind::ReadResource, json!({"content": []})),
        (Kind::GetPrompt, json!({"messages": [{"role": "user", "content": "x"}]})),
        (Kind::GetPrompt, json!({"messages": [{"role": "nobody", "content": {"type": "text", "text": "x"}}]})),
        (Kind::Complete, json!({"values": ["x"]})),
    ] {
        let told = result(kind, &malformed);
        assert!(told["error"]["message"].as_str().is_some_and(|told| told.contains("malformed")), "{malformed}: {told}");
    }
}

#[test]
fn a_malformed_result_of_a_call_is_an_error_that_says_so() {
    for odd in [
        json!({"content": "x"}),
        json!({"content": [5]}),
        json!({"content": [{"type": "text"}]}),
        json!({"content": [], "isError": "no"}),
        json!({"content": {"type": "text", "text": "x"}}),
        json!(null),
        json!("x"),
        json!([]),
        json!(5),
    ] {
        let told = result(Kind::CallTool, &odd);
        assert!(told["error"]["message"].as_str().is_some_and(|told| told.contains("malformed")), "{odd}: {told}");
    }
    for good in [json!({"content": []}), json!({"structuredContent": {"a": 1}}), json!({}), json!({"isError": true})] {
        assert!(result(Kind::CallTool, &good)["error"].is_null(), "{good}");
    }
    let told = result(Kind::CallTool, &json!({"content": [{"type": "video", "data": "…"}, {"type": "text", "text": "x"}]}));
    assert_eq!(told["result"]["content"][1]["text"], "x", "{told}");
    assert!(told["result"]["content"][0]["text"].as_str().is_some_and(|told| told.contains("video")), "{told}");
}

#[test]
fn what_is_no_discover_result_means_an_earlier_era() {
    for odd in [json!({}), json!({"supportedVersions": ["2025-11-25"], "capabilities": {}}), json!({"tools": []}), json!(null)] {
        assert_eq!(result(Kind::Discover, &odd)["error"]["code"], -32601, "{odd}");
    }
    let legacy = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"message":"no","data":{"supported":["2025-06-18"]}}}"#;
    assert_eq!(told(Kind::Discover, legacy, None)["error"]["code"], -32601);
    let header = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32020,"message":"no"}}"#;
    assert_eq!(told(Kind::Discover, header, None)["error"]["code"], -32601);
    let both = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}}"#;
    assert_eq!(told(Kind::Discover, both, None)["error"]["code"], -32601);
    let unnamed = json!({"supportedVersions": [MODERN], "capabilities": null});
    assert_eq!(result(Kind::Discover, &unnamed)["error"]["code"], -32601);
    let good = json!({"supportedVersions": [MODERN], "capabilities": {"tools": {}}});
    assert_eq!(result(Kind::Discover, &good)["result"]["supportedVersions"][0], MODERN);
}

#[test]
fn a_hello_opens_a_connection_whatever_only_describes_its_server_and_none_of_an_unknown_revision_does() {
    let hello = |odd: Value| {
        let mut hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                               "serverInfo": {"name": "x", "version": "1"}});
        hello.as_object_mut().expect("an object").extend(odd.as_object().expect("an object").clone());
        result(Kind::Initialize, &hello)
    };
    for odd in [
        json!({"capabilities": {"tools": []}}),
        json!({"capabilities": {"tools": {}, "experimental": []}}),
        json!({"capabilities": {"tools": {"listChanged": "true"}, "logging": true}}),
        json!({"serverInfo": {"name": "x", "version": 1.2}}),
        json!({"serverInfo": null}),
        json!({"serverInfo": {"name": "x", "version": "1", "icons": [{"src": "a", "sizes": "48x48"}]}}),
        json!({"instructions": ["a"]}),
        json!({"_meta": []}),
    ] {
        assert!(hello(odd.clone())["result"]["capabilities"]["tools"].is_object(), "{odd}: {}", hello(odd.clone()));
    }
    for (odd, told) in [
        (json!({"protocolVersion": "2099-01-01"}), "its revision \"2099-01-01\" is not known here"),
        (json!({"protocolVersion": MODERN}), "is not known here"),
        (json!({"protocolVersion": 5}), "it names no protocolVersion"),
        (json!({"capabilities": null}), "it names no capabilities"),
    ] {
        let message = &hello(odd)["error"]["message"];
        assert!(message.as_str().is_some_and(|message| message.contains(told)), "{message}");
    }
    let odd = json!({"supportedVersions": [MODERN], "capabilities": {"tools": []}, "ttlMs": 1.5, "cacheScope": "shared"});
    assert_eq!(result(Kind::Discover, &odd)["result"]["cacheScope"], "private");
}

#[test]
fn the_lines_of_a_child_are_told_apart() {
    let asked = |number| Asked { id: RequestId::Number(number), kind: Kind::CallTool };
    let waiting = of([7, 8].map(asked));
    let read = |line: &str| match waiting.read(line.as_bytes()) {
        Line::Sdk(message) => Some(serde_json::to_value(message).expect("JSON")),
        Line::Taken | Line::Nothing => None,
    };
    assert_eq!(read("Listening on stdio"), None);
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#), None);
    assert_eq!(read(r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"?"}}"#), None, "whose?");
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    assert_eq!(read(progress).expect("a message")["method"], "notifications/progress");
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":"8","result":{"content":"x"}}"#).expect("an answer")["error"]["code"], -32603);
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":8,"result":{"content":[]}}"#), None, "answered already");
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#).expect("an answer")["id"], 7);
    let twice = of([asked(7)]).read(br#"{"id":9,"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#);
    assert!(matches!(twice, Line::Sdk(_)), "the last id counts");
}

#[test]
fn an_answer_of_a_child_goes_where_it_is_waited_for() {
    let waiting = Waiting::default();
    let line = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
    let mut answer = waiting.asks(asked(Kind::CallTool));
    assert!(matches!(waiting.read(line.as_bytes()), Line::Taken));
    assert!(answer.try_recv().expect("the answer").result.is_ok());
    assert!(matches!(waiting.read(line.as_bytes()), Line::Nothing), "once");
    let mut open = waiting.asks(asked(Kind::CallTool));
    waiting.end();
    assert!(open.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    let mut late = waiting.asks(asked(Kind::CallTool));
    assert!(late.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed), "it has ended");
}

/// The result of a call, as it is passed on.
fn written_of(body: &str) -> String {
    let Came::Answer(answer) = asked(Kind::CallTool).read(body.as_bytes(), None) else { return String::new() };
    answer.result.expect("a result").written.expect("a call's").get().to_owned()
}

#[test]
fn what_the_types_do_not_know_of_a_result_stays_in_it() {
    let written = |result: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string();
        written_of(&body)
    };
    let own = json!({"content": [{"type": "text", "text": "x", "of": {"its": "own"}}], "more": 1});
    assert_eq!(written(own.clone()), own.to_string());
    for odd in [
        json!({"content": [{"type": "text", "text": "x", "own": 1}, {"type": "video", "data": "x"}]}),
        json!({"content": [{"type": "resource_link", "uri": "a:b", "name": "a", "size": 12.0}]}),
        json!({"content": [{"type": "resource_link", "uri": "a:b", "name": "a", "icons": [{"src": "a", "sizes": "48x48"}]}]}),
        json!({"content": [{"type": "text", "text": "x", "annotations": []}], "_meta": []}),
    ] {
        assert_eq!(written(odd.clone()), odd.to_string());
    }
    let long = r#"{"jsonrpc":"2.0","id":7,"result":{"structuredContent":{"id":12345678901234567890123}}}"#;
    assert_eq!(written_of(long), r#"{"structuredContent":{"id":12345678901234567890123}}"#);
}

#[test]
fn what_many_answers_take_together_is_known_before_they_are_read() {
    let result = |values: usize| format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"a":[{}1]}}}}"#, r#"{"a":1},"#.repeat(values));
    let weight = |kind, values| asked(kind).weight(result(values).as_bytes()) >> 20;
    assert!((13..=14).contains(&weight(Kind::CallTool, 20_000)), "{}", weight(Kind::CallTool, 20_000));
    assert_eq!(weight(Kind::CallTool, 200), 0, "it is small");
    assert_eq!(weight(Kind::CallTool, 900_000), 0, "it is not read at all");
    assert_eq!(weight(Kind::ListTools, 20_000), 0, "of which there is one at a time");
    let waiting = of([asked(Kind::CallTool)]);
    let (id, weight) = waiting.weight(result(20_000).as_bytes()).expect("an answer");
    assert_eq!((id, weight >> 20), (RequestId::Number(7), 13));
    assert!(matches!(waiting.read(result(1).as_bytes()), Line::Sdk(_)), "it still waits");
}

#[test]
fn marks_arrays_and_depth_are_read_and_small_bombs_are_not() {
    let body = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
    assert!(told(Kind::CallTool, &format!("\u{feff}{body}"), None)["result"].is_object());
    assert!(told(Kind::CallTool, &format!("[{body}]"), Some(WITH_ARRAYS))["result"].is_object());
    assert!(told(Kind::CallTool, &format!("[{body}]"), Some("2025-06-18"))["error"].is_object());
    let deep = "[".repeat(400) + &"]".repeat(400);
    let body = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"structuredContent":{{"a":{deep}}}}}}}"#);
    assert!(told(Kind::CallTool, &body, None)["result"].is_object());
    let bomb = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"structuredContent":[{}1]}}}}"#, r#"{"a":1},"#.repeat(900_000));
    assert!(told(Kind::CallTool, &bomb, None)["error"]["message"].as_str().is_some_and(|told| told.contains("too many values")));
    let others = told(Kind::CallTool, r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, None);
    assert!(others["error"]["message"].as_str().is_some_and(|told| told.contains("not the one of the request")), "{others}");
}

//! Lists of tools, and the call that `health.toolCall` asks for.

use operator::{crd::reason, probe::ServerHealth};
use serde_json::{Value, json};

use crate::{
    support::fake::{self, Act, Ask, State, error, legacy, modern, result, tool},
    table::{HEALTHY, Scenario, alive, credentials, failed, legacy_but, modern_but, scenario, tool_call},
};

/// A modern server with one tool, whose schema is these bytes.
fn raw_list(ask: &Ask, state: &State, schema: &str) -> Act {
    if ask.method != "tools/list" {
        return modern(ask, state);
    }
    let tools = format!(r#"[{{"name": "t", "inputSchema": {schema}}}]"#);
    let body = format!(r#"{{"jsonrpc": "2.0", "id": {}, "result": {{"resultType": "complete", "tools": {tools}}}}}"#, ask.id);
    fake::json_bytes(&body)
}

fn nested(levels: usize) -> String {
    format!(r#"{}"x"{}"#, r#"{"type":"object","properties":{"a":"#.repeat(levels), "}}".repeat(levels))
}

pub fn tools() -> Vec<Scenario> {
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
    fn left_out(health: &ServerHealth, sound: usize, expected: &str) -> Result<(), String> {
        let tools = health.tools.as_ref().ok_or("no tools")?;
        let names = tools.left_out.join(",");
        let fits = tools.count() == sound && names == expected;
        if fits { Ok(()) } else { Err(format!("{} tools; left out: {names}", tools.count())) }
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
        scenario("a cursor that is a number", HEALTHY, |ask, state| pages(ask, state, 5, Into::into))
            .check(|health, _| left_out(health, 1, "all further pages: nextCursor is no string")),
        scenario("the same tool twice", HEALTHY, list(json!([tool("a"), tool("a"), tool("b")])))
            .check(|health, _| count(health, 2)),
        scenario(
            "names that break the rules",
            HEALTHY,
            list(json!([tool("a b"), tool(""), tool("ü/♥"), tool(&"x".repeat(500))])),
        )
        .check(|health, _| left_out(health, 3, "tools[1]")),
        scenario("a tool without a name is left out", HEALTHY, list(json!([tool("a"), {"description": "nameless"}])))
            .check(|health, _| left_out(health, 1, "tools[1]")),
        scenario("a tool whose name is a number is left out", HEALTHY, list(json!([{"name": 1}])))
            .check(|health, _| left_out(health, 0, "tools[0]")),
        scenario(
            "a tool without a schema of its arguments is left out",
            HEALTHY,
            list(json!([tool("a"), {"name": "b"}, {"name": "c", "inputSchema": []}])),
        )
        .check(|health, _| left_out(health, 1, "b,c")),
        scenario("a schema that is nested 120 levels deep", HEALTHY, |ask, state| raw_list(ask, state, &nested(120)))
            .check(|health, _| count(health, 1)),
        scenario("a schema that is nested 2,000 levels deep", failed(reason::NOT_MCP), |ask, state| {
            raw_list(ask, state, &nested(2_000))
        }),
        scenario("a description that ends in half a surrogate pair", HEALTHY, |ask, state| {
            raw_list(ask, state, r#"{"type": "object", "description": "cut \ud83d"}"#)
        })
        .check(|health, _| count(health, 1)),
        scenario("a maximum of 1e999", HEALTHY, |ask, state| raw_list(ask, state, r#"{"type": "object", "maximum": 1e999}"#)),
        scenario("an integer of 400 digits", HEALTHY, |ask, state| {
            raw_list(ask, state, &format!(r#"{{"type": "object", "maximum": {}}}"#, "7".repeat(400)))
        }),
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
        scenario("a cursor that is empty", HEALTHY, |ask, state| pages(ask, state, 5, |_| "".into())).check(|health, state| {
            let asked = state.asks.lock().expect("no panic").iter().any(|ask| ask.body["params"]["cursor"] == "");
            if asked { Err("asked for an empty cursor".into()) } else { count(health, 1) }
        }),
        scenario(
            "two tools of one name",
            HEALTHY,
            list(json!([tool("a"), {"name": "a", "description": "another", "inputSchema": {"type": "object"}}])),
        )
        .check(|health, _| count(health, 1)),
        scenario("a list of 10 MB", failed(reason::TOO_LARGE), list(json!([{"name": "a", "description": "x".repeat(10 << 20)}])))
            .with(|spec| spec.health.timeout_seconds = 20),
        scenario(
            "toolCall answers with structure only",
            HEALTHY,
            modern_but("tools/call", |ask| result(ask, json!({"structuredContent": {"ok": true}}))),
        )
        .with(tool_call),
        scenario(
            "toolCall answers nothing",
            failed(reason::TOOL_CALL_FAILED),
            modern_but("tools/call", |ask| result(ask, json!({}))),
        )
        .with(tool_call),
        scenario("500 to toolCall", failed(reason::HTTP_STATUS), modern_but("tools/call", |_| fake::status("500 Oh", "")))
            .with(tool_call),
        scenario(
            "401 to toolCall, to our credentials",
            failed(reason::CREDENTIALS_REJECTED),
            modern_but("tools/call", |_| fake::status("401 Unauthorized", "")),
        )
        .with(|spec| {
            tool_call(spec);
            credentials(spec);
        }),
        scenario("-32601 to ping, and the call of a tool that was not advertised", HEALTHY, |ask, state| {
            if ask.method == "server/discover" {
                return result(ask, json!({"supportedVersions": ["2026-07-28"], "capabilities": {}}));
            }
            modern(ask, state)
        })
        .with(tool_call),
        scenario("toolCall with arguments that are headers, too", HEALTHY, |ask, state| match ask.method.as_str() {
            "tools/list" => {
                let properties = json!({
                    "region": {"type": "string", "x-mcp-header": "Region"}, "limit": {"type": "integer", "x-mcp-header": "Limit"},
                    "confirm": {"type": "boolean", "x-mcp-header": "Confirm"}, "none": {"type": "string", "x-mcp-header": "None"},
                    "o": {"type": "object", "properties": {"d": {"type": "string", "x-mcp-header": "Deep"}}}});
                let schema = json!({"type": "object", "properties": properties});
                result(ask, json!({"resultType": "complete", "tools": [tool("b"), {"name": "a", "inputSchema": schema}]}))
            }
            "tools/call" => {
                let said = ["region", "limit", "confirm", "none", "deep", "q"]
                    .map(|name| ask.headers.get(&format!("mcp-param-{name}")).map(String::as_str));
                let expected = [Some("=?base64?dXMgd2VzdCDDqQ==?="), Some("42"), Some("true"), None, Some("x"), None];
                if said == expected { modern(ask, state) } else { error(ask, "400 Bad Request", -32020, Value::Null) }
            }
            _ => modern(ask, state),
        })
        .with(|spec| {
            tool_call(spec);
            let arguments = json!({"region": "us west é", "limit": 42, "confirm": true, "none": null, "o": {"d": "x"}, "q": "q"});
            let arguments = arguments.as_object().expect("an object").clone();
            spec.health.tool_call.as_mut().expect("a call").arguments = arguments;
        })
        // The second time the list has the same bytes, and is not read again.
        .check(|_, state| if state.count("tools/call") > 0 { Ok(()) } else { Err("no call".into()) }),
        scenario("toolCall in a legacy session has no headers of its arguments", HEALTHY, |ask, state| {
            let schema = json!({"type": "object", "properties": {"q": {"type": "string", "x-mcp-header": "Q"}}});
            match ask.method.as_str() {
                "tools/list" if ask.session().is_some() => result(ask, json!({"tools": [{"name": "a", "inputSchema": schema}]})),
                "tools/call" if ask.headers.contains_key("mcp-param-q") => error(ask, "200 OK", -32602, Value::Null),
                _ => legacy(ask, state),
            }
        })
        .with(|spec| {
            tool_call(spec);
            spec.health.tool_call.as_mut().expect("a call").arguments.insert("q".into(), json!("q"));
        }),
    ]
}

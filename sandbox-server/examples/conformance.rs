//! The fixtures that the official conformance suite asks for by name, on exactly the HTTP stack of this server: the same router, the
//! same checks at the door, the same connections. `conformance ADDRESS` serves it, `conformance stdio` serves the
//! fixtures on standard input and output, for the bridge; SQLite is only there to fill the door's readiness.

#![expect(deprecated, reason = "the suite for 2025-11-25 asks for logging")]
#![expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::single_match_else,
    reason = "fixtures are read as tables: one shape for all rows"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult, ContentBlock, ErrorData,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, ServerRequest, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler, ServiceExt as _};
use sandbox_server::db::Database;
use sandbox_server::db::open::OpenOptions;
use sandbox_server::direct::{Answers, Called};
use sandbox_server::http::{self, DoorSettings};
use sandbox_server::metrics::Metrics;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// One red pixel, and a WAV file without a sample.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

#[derive(Debug, Clone)]
struct Fixtures;

/// A result. The SDK takes the mark away again for earlier eras.
fn result<T: DeserializeOwned>(mut value: Value) -> Result<T, ErrorData> {
    value["resultType"] = json!("complete");
    shape(value)
}

/// The fixtures are data; what does not fit the protocol's types is a mistake in this file.
fn shape<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn text(text: impl Into<String>) -> Result<CallToolResponse, ErrorData> {
    Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
}

fn elicitation(message: &str, properties: Value, required: Value) -> Value {
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": {"type": "object", "properties": properties, "required": required}}})
}

fn sampling(prompt: &str, tokens: u32) -> Value {
    json!({"method": "sampling/createMessage", "params": {"messages": [{"role": "user", "content": {"type": "text", "text": prompt}}], "maxTokens": tokens}})
}

/// A state that a client cannot change unnoticed. The key is this process's own, and lives as long.
fn seal(state: &str) -> String {
    format!("{state}.{}", URL_SAFE_NO_PAD.encode(Sha256::digest(format!("conformance {} {state}", std::process::id()))))
}

fn unseal(sealed: Option<&str>) -> Result<Option<String>, ErrorData> {
    let Some(sealed) = sealed else { return Ok(None) };
    let state = sealed.rsplit_once('.').map_or("", |(state, _)| state);
    if seal(state) == sealed {
        Ok(Some(state.to_owned()))
    } else {
        Err(ErrorData::invalid_params("requestState was changed", None))
    }
}

const TOOLS: &[&str] = &[
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
    "test_tool_with_progress",
    "test_tool_with_logging",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_missing_capability",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
    "test_streaming_elicitation",
    "test_logging_tool",
];

/// Those of them that need nothing of the SDK: their calls go the short way where they can.
const PLAIN: &[&str] = &[
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
];

fn plain(tool: &str) -> Result<CallToolResult, ErrorData> {
    let png = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
    let content = match tool {
        "test_image_content" => json!([png]),
        "test_audio_content" => json!([{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]),
        "test_embedded_resource" => {
            json!([{"type": "resource", "resource": {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource content."}}])
        }
        "test_multiple_content_types" => json!([
            {"type": "text", "text": "Multiple content types test:"}, png,
            {"type": "resource", "resource": {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": "{\"test\":\"data\",\"value\":123}"}},
        ]),
        "test_error_handling" => {
            return Ok(CallToolResult::error(vec![ContentBlock::text("This tool intentionally returns an error for testing")]));
        }
        _ => json!([{"type": "text", "text": "This is a simple text response for testing."}]),
    };
    result(json!({"content": content}))
}

impl Answers for Fixtures {
    // One of the fixtures is a tool whose arguments the SDK compares with headers.
    const WRAPPED: bool = false;

    fn tool(name: &str) -> Option<&'static str> {
        PLAIN.iter().find(|known| **known == name).copied()
    }

    fn passes_meta_on(&self) -> bool {
        false
    }

    fn answer(&self, called: Called<'_>) -> impl Future<Output = Result<CallToolResult, ErrorData>> + Send + 'static + use<> {
        SHORT_WAY.fetch_add(1, Ordering::Relaxed);
        std::future::ready(plain(called.tool))
    }
}

/// Calls that went the short way.
static SHORT_WAY: AtomicUsize = AtomicUsize::new(0);

/// A tool with an argument that middleboxes may route by.
const HEADER_TOOL: &str = "test_custom_header";

fn header_schema() -> Value {
    json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}}, "required": ["region"]})
}

/// Asks the client of an earlier era, in its session.
async fn ask_client(context: &RequestContext<RoleServer>, request: Value) -> Result<Value, ErrorData> {
    let answer = context.peer.send_request(shape::<ServerRequest>(request)?).await;
    let answer = answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    serde_json::to_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

async fn progress(context: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    for step in [0.0, 50.0, 100.0] {
        if let Some(token) = context.meta.get_progress_token() {
            // A client that has gone misses nothing.
            let _ = context.peer.notify_progress(ProgressNotificationParam::new(token, step).with_total(100.0)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text("done")
}

async fn logging(context: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        let message = shape(json!({"level": "info", "data": line}))?;
        let _ = context.peer.notify_logging_message(message).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    text("done")
}

/// Tools of the earlier eras that ask the client while they run.
async fn asking_tool(name: &str, arguments: &Value, context: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
    let request = match name {
        "test_sampling" => sampling(&argument("prompt"), 100),
        "test_elicitation" => elicitation(
            &argument("message"),
            json!({"username": {"type": "string", "description": "User's response"}, "email": {"type": "string", "description": "User's email address"}}),
            json!(["username", "email"]),
        ),
        "test_elicitation_sep1034_defaults" => elicitation(
            "Please check these values",
            json!({
                "name": {"type": "string", "default": "John Doe"},
                "age": {"type": "integer", "default": 30},
                "score": {"type": "number", "default": 95.5},
                "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
                "verified": {"type": "boolean", "default": true},
            }),
            json!([]),
        ),
        _ => elicitation(
            "Please choose",
            json!({
                "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
                "titledSingle": {"type": "string", "oneOf": [{"const": "value1", "title": "First Option"}, {"const": "value2", "title": "Second Option"}, {"const": "value3", "title": "Third Option"}]},
                "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
                "titledMulti": {"type": "array", "items": {"anyOf": [{"const": "value1", "title": "First Choice"}, {"const": "value2", "title": "Second Choice"}, {"const": "value3", "title": "Third Choice"}]}},
            }),
            json!([]),
        ),
    };
    let answer = ask_client(context, request).await?;
    if name == "test_sampling" {
        return text(format!("LLM response: {}", answer["content"]["text"].as_str().unwrap_or_default()));
    }
    let verb = if name == "test_elicitation" { "User response" } else { "Elicitation completed" };
    text(format!("{verb}: action={}, content={}", answer["action"].as_str().unwrap_or_default(), answer["content"]))
}

fn required(requests: Value, state: Option<String>) -> Result<CallToolResponse, ErrorData> {
    let mut result = json!({"resultType": "input_required", "inputRequests": requests});
    if let Some(state) = state {
        result["requestState"] = json!(state);
    }
    Ok(CallToolResponse::InputRequired(shape(result)?))
}

/// Tools of the modern era that ask by their result, and are called again with the answers.
fn input_tool(
    name: &str,
    answers: &Value,
    state: Option<&str>,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let name_question = || elicitation("What is your name?", json!({"name": {"type": "string"}}), json!(["name"]));
    let confirm = || json!({"confirm": elicitation("Please confirm", json!({"ok": {"type": "boolean"}}), json!(["ok"]))});
    match name {
        "test_input_required_result_elicitation" => match answers["user_name"]["content"]["name"].as_str() {
            Some(name) => text(format!("Hello, {name}!")),
            None => required(json!({"user_name": name_question()}), None),
        },
        "test_input_required_result_sampling" => match answers["capital_question"]["content"]["text"].as_str() {
            Some(answer) => text(answer),
            None => required(json!({"capital_question": sampling("What is the capital of France?", 100)}), None),
        },
        "test_input_required_result_list_roots" => match answers["client_roots"]["roots"].as_array() {
            Some(roots) => text(Value::from(roots.clone()).to_string()),
            None => required(json!({"client_roots": {"method": "roots/list", "params": {}}}), None),
        },
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => match unseal(state)? {
            Some(_) if answers["confirm"].is_object() => text("state-ok"),
            _ => required(confirm(), Some(seal("confirm"))),
        },
        "test_input_required_result_multiple_inputs" => match unseal(state)? {
            Some(_) if ["user_name", "greeting", "client_roots"].iter().all(|key| answers[*key].is_object()) => {
                text("all three have come")
            }
            _ => required(
                json!({"user_name": name_question(), "greeting": sampling("Generate a greeting", 50), "client_roots": {"method": "roots/list", "params": {}}}),
                Some(seal("multiple")),
            ),
        },
        "test_input_required_result_multi_round" => match unseal(state)?.as_deref() {
            Some("one") if answers["step1"].is_object() => required(
                json!({"step2": elicitation("Step 2: What is your favorite color?", json!({"color": {"type": "string"}}), json!(["color"]))}),
                Some(seal("two")),
            ),
            Some("two") if answers["step2"].is_object() => text("both steps are done"),
            _ => required(
                json!({"step1": elicitation("Step 1: What is your name?", json!({"name": {"type": "string"}}), json!(["name"]))}),
                Some(seal("one")),
            ),
        },
        // Asks only for what the client has said that it can do.
        _ => {
            let can = context.client_capabilities().unwrap_or_default();
            let mut requests = json!({});
            if can.elicitation.is_some() {
                requests["user_name"] = name_question();
            }
            if serde_json::to_value(&can).is_ok_and(|can| can.get("sampling").is_some()) {
                requests["greeting"] = sampling("Generate a greeting", 50);
            }
            if requests.as_object().is_some_and(serde_json::Map::is_empty)
                || answers.as_object().is_some_and(|answers| !answers.is_empty())
            {
                text("nothing to ask")
            } else {
                required(requests, None)
            }
        }
    }
}

impl ServerHandler for Fixtures {
    fn get_info(&self) -> ServerConfig {
        let capabilities = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true, "listChanged": true}, "prompts": {"listChanged": true}, "completions": {}, "logging": {}});
        let capabilities: ServerCapabilities = serde_json::from_value(capabilities).unwrap_or_default();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("conformance-fixtures", "1"))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools: Vec<Value> = TOOLS
            .iter()
            .map(|name| json!({"name": name, "description": format!("Fixture {name}"), "inputSchema": {"type": "object"}}))
            .collect();
        tools.push(
            json!({"name": HEADER_TOOL, "description": "Takes one argument from a header too", "inputSchema": header_schema()}),
        );
        tools.push(json!({
            "name": "json_schema_2020_12_tool", "description": "Keywords of JSON Schema 2020-12 that must survive",
            "inputSchema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
                "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
                "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}, "contactMethod": {"type": "string", "enum": ["phone", "email"]}, "phone": {"type": "string"}, "email": {"type": "string"}},
                "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
                "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]}, "then": {"required": ["phone"]}, "else": {"required": ["email"]},
                "additionalProperties": false,
            },
        }));
        result(json!({"tools": tools, "ttlMs": 60_000, "cacheScope": "public"}))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let schema = header_schema().as_object().cloned().unwrap_or_default();
        (name == HEADER_TOOL).then(|| Tool::new(HEADER_TOOL, "", schema))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        if let Some(tool) = Self::tool(&request.name) {
            return plain(tool).map(Into::into);
        }
        match &*request.name {
            "test_tool_with_progress" => progress(&context).await,
            // Only who asks for log messages gets them.
            "test_logging_tool" if context.meta.get("io.modelcontextprotocol/logLevel").is_none() => text("nothing was logged"),
            "test_logging_tool" | "test_tool_with_logging" => logging(&context).await,
            "test_missing_capability" => {
                let can = serde_json::to_value(context.client_capabilities()).unwrap_or_default();
                if can.get("sampling").is_none() {
                    return Err(ErrorData::missing_required_client_capability(shape(json!({"sampling": {}}))?));
                }
                text("the client can sample")
            }
            name @ ("test_sampling"
            | "test_elicitation"
            | "test_elicitation_sep1034_defaults"
            | "test_elicitation_sep1330_enums") => asking_tool(name, &arguments, &context).await,
            "test_streaming_elicitation" => required(
                json!({"user_name": elicitation("What is your name?", json!({"name": {"type": "string"}}), json!(["name"]))}),
                None,
            ),
            HEADER_TOOL => text(format!("region {}", arguments["region"])),
            name if name.starts_with("test_input_required_result_") && TOOLS.contains(&name) => {
                let answers = serde_json::to_value(&request.input_responses).unwrap_or_default();
                input_tool(name, &answers, request.request_state.as_deref(), &context)
            }
            name => Err(ErrorData::invalid_params(format!("no tool named {name}"), None)),
        }
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resource = |name: &str, mime: &str| json!({"uri": format!("test://{name}"), "name": name, "description": format!("Fixture {name}"), "mimeType": mime});
        result(
            json!({"resources": [resource("static-text", "text/plain"), resource("static-binary", "image/png"), resource("watched-resource", "text/plain")], "ttlMs": 60_000, "cacheScope": "public"}),
        )
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = json!({"uriTemplate": "test://template/{id}/data", "name": "template", "description": "Fixture template", "mimeType": "application/json"});
        result(json!({"resourceTemplates": [template], "ttlMs": 60_000, "cacheScope": "public"}))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = &request.uri;
        let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
        let contents = match (uri.as_str(), id) {
            ("test://static-text" | "test://watched-resource", _) => {
                json!({"uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource."})
            }
            ("test://static-binary", _) => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
            (_, Some(id)) => {
                json!({"uri": uri, "mimeType": "application/json", "text": json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")}).to_string()})
            }
            _ => return Err(ErrorData::resource_not_found(format!("no resource {uri}"), Some(json!({"uri": uri})))),
        };
        Ok(ReadResourceResponse::Complete(result(json!({"contents": [contents], "ttlMs": 60_000, "cacheScope": "public"}))?))
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument = |name: &str| json!({"name": name, "description": format!("The argument {name}"), "required": true});
        let prompt = |name: &str, arguments: Value| json!({"name": name, "description": format!("Fixture {name}"), "arguments": arguments});
        let prompts = json!([
            prompt("test_simple_prompt", json!([])),
            prompt("test_prompt_with_arguments", json!([argument("arg1"), argument("arg2")])),
            prompt("test_prompt_with_embedded_resource", json!([argument("resourceUri")])),
            prompt("test_prompt_with_image", json!([])),
            prompt("test_input_required_result_prompt", json!([])),
        ]);
        result(json!({"prompts": prompts, "ttlMs": 60_000, "cacheScope": "public"}))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let argument = |name: &str| {
            request
                .arguments
                .as_ref()
                .and_then(|arguments| arguments.get(name))
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let said = |text: &str| json!({"role": "user", "content": {"type": "text", "text": text}});
        let messages = match request.name.as_str() {
            "test_simple_prompt" => json!([said("This is a simple prompt for testing.")]),
            "test_prompt_with_arguments" => {
                json!([said(&format!("Prompt with arguments: arg1='{}', arg2='{}'", argument("arg1"), argument("arg2")))])
            }
            "test_prompt_with_embedded_resource" => {
                let resource = json!({"uri": argument("resourceUri"), "mimeType": "text/plain", "text": "Embedded resource content for testing."});
                json!([{"role": "user", "content": {"type": "resource", "resource": resource}}, said("Please process the embedded resource above.")])
            }
            "test_prompt_with_image" => {
                json!([{"role": "user", "content": {"type": "image", "data": PNG, "mimeType": "image/png"}}, said("Please analyze the image above.")])
            }
            "test_input_required_result_prompt" => {
                let answers = serde_json::to_value(&request.input_responses).unwrap_or_default();
                match answers["user_context"]["content"]["context"].as_str() {
                    Some(context) => json!([said(&format!("Use this context: {context}"))]),
                    None => {
                        let question = elicitation(
                            "What context should the prompt use?",
                            json!({"context": {"type": "string"}}),
                            json!(["context"]),
                        );
                        return Ok(GetPromptResponse::InputRequired(shape(
                            json!({"resultType": "input_required", "inputRequests": {"user_context": question}}),
                        )?));
                    }
                }
            }
            name => return Err(ErrorData::invalid_params(format!("no prompt named {name}"), None)),
        };
        Ok(GetPromptResponse::Complete(result(json!({"messages": messages}))?))
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        result(json!({"completion": {"values": ["paris", "park", "party"], "total": 3, "hasMore": false}}))
    }

    async fn set_level(&self, _request: SetLevelRequestParams, _context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _request: SubscribeRequestParams, _context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: conformance ADDRESS|stdio")?;
    if address == "stdio" {
        Fixtures.serve(rmcp::transport::stdio()).await?.waiting().await?;
        return Ok(());
    }
    let address: SocketAddr = address.parse()?;
    let folder = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let db = Database::open(OpenOptions { readers: 1, ..OpenOptions::new(folder.join("empty.db")) })?;
    let settings = DoorSettings {
        hosts: vec![],
        origins: vec![],
        tokens: None,
        max_request_bytes: 1 << 20,
        max_requests: 100,
        rate: None,
        trusted_proxies: vec![],
        legacy_sessions: true,
    };
    let service = http::service(
        || Fixtures,
        Fixtures,
        settings,
        db.clone(),
        Metrics::default(),
        Arc::new(AtomicBool::new(true)),
        CancellationToken::new(),
    );
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let mut left = http_server::serve(listener, service, 1000, async {
        // Until somebody types Ctrl-C, or the pipe that started it is gone.
        let _ = tokio::signal::ctrl_c().await;
    })
    .await;
    left.within(Duration::from_secs(1)).await;
    println!("{} calls went the short way", SHORT_WAY.load(Ordering::Relaxed));
    db.close();
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

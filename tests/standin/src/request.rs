//! What a request must be: the checks that the real API makes and that a client gets wrong, and the parts that the
//! script needs. Pure.

use serde_json::Value;

use crate::rules;

/// The parts of a request that the script needs.
#[derive(Debug)]
pub struct Conversation {
    pub model: String,
    pub stream: bool,
    /// The text of the last message in which the user spoke.
    pub question: String,
    /// How often the model has answered since.
    pub rounds: usize,
    /// The results of the round before, as text, with their error flag.
    pub results: Vec<ToolOutcome>,
    /// The names of the tools on offer.
    pub tools: Vec<String>,
    /// The client forbade tools (`tool_choice: none`).
    pub no_tools: bool,
    /// A rough count: a token for four bytes of the request.
    pub input_tokens: usize,
}

/// One tool result of the last message.
#[derive(Debug, Clone)]
pub struct ToolOutcome {
    pub text: String,
    pub is_error: bool,
}

/// The signature that the stand-in's thinking blocks carry.
pub const SIGNATURE: &str = "c3RhbmQtaW4gc2lnbmF0dXJl";

impl Conversation {
    /// Checks a request as the real API would, and takes out what the script needs.
    ///
    /// # Errors
    /// A sentence for an `invalid_request_error`.
    pub fn read(body: &Value) -> Result<Self, String> {
        if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
            return Err("max_tokens: must be at least 1".into());
        }
        let messages = body["messages"].as_array().ok_or("messages: field required")?;
        rules::tools(body)?;
        check_messages(messages)?;
        let holds_calls =
            |message: &Value| blocks(message).any(|block| block["type"] == "tool_use" || block["type"] == "tool_result");
        if body["tools"].as_array().is_none_or(Vec::is_empty) && messages.iter().any(holds_calls) {
            return Err("Requests which include `tool_use` or `tool_result` blocks must define tools".into());
        }
        if marks(body) > 4 {
            return Err("A maximum of 4 blocks with cache_control may be provided".into());
        }
        Self::of(body)
    }

    /// What the script needs of a request that has been checked.
    ///
    /// # Errors
    /// A sentence for an `invalid_request_error`.
    pub fn of(body: &Value) -> Result<Self, String> {
        let model = body["model"].as_str().ok_or("model: field required")?.to_owned();
        let messages = body["messages"].as_array().ok_or("messages: field required")?;
        let names = body["tools"].as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str());
        let asked = messages.iter().rposition(|message| message["role"] == "user" && spoken(message).is_some());
        let asked = asked.ok_or("messages: the user has said nothing")?;
        let last = messages.last().ok_or("messages: at least one message is required")?;
        Ok(Self {
            model,
            stream: body["stream"].as_bool().unwrap_or(false),
            question: spoken(&messages[asked]).unwrap_or_default(),
            rounds: messages[asked..].iter().filter(|message| message["role"] == "assistant").count(),
            results: blocks(last).filter(|block| block["type"] == "tool_result").map(outcome).collect(),
            no_tools: body["tool_choice"]["type"] == "none",
            input_tokens: body.to_string().len() / 4,
            tools: names.map(str::to_owned).collect(),
        })
    }
}

fn marks(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| usize::from(name == "cache_control") + marks(value)).sum(),
        Value::Array(list) => list.iter().map(marks).sum(),
        _ => 0,
    }
}

/// Every tool use is answered exactly once, in the next message; no message is empty; thinking comes back as it was.
fn check_messages(messages: &[Value]) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut ids: Vec<&str> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if index == 0 && role != "user" {
            return Err("messages: the first message must be the user's".into());
        }
        if message["content"].as_array().is_some_and(Vec::is_empty) || message["content"] == "" {
            return Err(format!("messages.{index}: content must not be empty"));
        }
        let mut spoken = false;
        for block in blocks(message) {
            if block["type"] == "tool_result" && spoken {
                return Err(format!("messages.{index}: tool_result blocks must come before everything else"));
            }
            spoken |= block["type"] != "tool_result";
            check_block(index, role, block, &mut open)?;
            if let Some(id) = block["id"].as_str().filter(|_| block["type"] == "tool_use") {
                if ids.contains(&id) {
                    return Err(format!("messages.{index}: `tool_use` ids must be unique, {id:?} is not"));
                }
                ids.push(id);
            }
        }
        if role == "user" && !open.is_empty() {
            return Err(format!("messages.{index}: tool_use ids without a tool_result: {}", open.join(", ")));
        }
        if role == "assistant" {
            open = blocks(message).filter(|b| b["type"] == "tool_use").filter_map(|b| b["id"].as_str()).collect();
        }
    }
    Ok(())
}

fn check_block<'a>(index: usize, role: &str, block: &'a Value, open: &mut Vec<&'a str>) -> Result<(), String> {
    match (block["type"].as_str(), role) {
        (Some("tool_result"), "user") => {
            let id = block["tool_use_id"].as_str().unwrap_or_default();
            let position = open.iter().position(|open| *open == id);
            let position = position
                .ok_or_else(|| format!("messages.{index}: tool_result {id:?} answers no tool_use of the message before"))?;
            open.remove(position);
            for part in blocks(block) {
                match part["type"].as_str() {
                    Some("text") if part["text"].as_str().is_some_and(|text| !text.is_empty()) => {}
                    Some("image") => check_image(index, part)?,
                    _ => return Err(format!("messages.{index}: a tool_result holds a block that it cannot: {}", part["type"])),
                }
            }
        }
        (Some("text"), _) if block["text"].as_str().is_none_or(|text| text.trim().is_empty()) => {
            return Err(format!("messages.{index}: text content blocks must be non-empty"));
        }
        (Some("thinking"), "assistant") if block["signature"] != SIGNATURE => {
            return Err(format!("messages.{index}: the thinking block was changed"));
        }
        (Some("tool_use"), "assistant") => check_call(index, block)?,
        (Some("image"), "user") => check_image(index, block)?,
        (Some("text" | "thinking" | "redacted_thinking"), _) => {}
        (kind, _) => {
            return Err(format!("messages.{index}: a {role} message cannot hold {kind:?}"));
        }
    }
    Ok(())
}

fn check_call(index: usize, block: &Value) -> Result<(), String> {
    let id = block["id"].as_str().unwrap_or_default();
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(format!("messages.{index}: tool_use.id {id:?} should match pattern '^[a-zA-Z0-9_-]+$'"));
    }
    let name = block["name"].as_str().unwrap_or_default();
    if !rules::is_name(name, 200) {
        return Err(format!("messages.{index}: tool_use.name {name:?} should match pattern '^[a-zA-Z0-9_-]{{1,200}}$'"));
    }
    if !block["input"].is_object() {
        return Err(format!("messages.{index}: tool_use.input should be a valid dictionary"));
    }
    Ok(())
}

fn check_image(index: usize, block: &Value) -> Result<(), String> {
    let source = &block["source"];
    let kind = source["media_type"].as_str().unwrap_or_default();
    let fits = source["type"] == "base64" && source["data"].as_str().is_some_and(|data| !data.is_empty());
    if fits && ["image/jpeg", "image/png", "image/gif", "image/webp"].contains(&kind) {
        return Ok(());
    }
    Err(format!("messages.{index}: an image of {kind:?} is none that can be seen"))
}

fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    message["content"].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// What the user said in this message; `None` when it only carries tool results.
fn spoken(message: &Value) -> Option<String> {
    if let Some(text) = message["content"].as_str() {
        return Some(text.to_owned());
    }
    let texts: Vec<&str> =
        blocks(message).filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn outcome(block: &Value) -> ToolOutcome {
    let text = match &block["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    };
    ToolOutcome { text, is_error: block["is_error"] == true }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(messages: &Value) -> Value {
        let tools = json!([{"name": "a", "input_schema": {"type": "object"}}]);
        json!({"model": "m", "max_tokens": 10, "messages": messages, "tools": tools})
    }

    #[test]
    fn what_the_api_publishes_of_histories_is_kept() {
        let with = |content: Value, answer: Value| {
            let body = request(
                &json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}, {"role": "user", "content": answer}]),
            );
            Conversation::read(&body)
        };
        let call = |id: &str, input: Value| json!([{"type": "tool_use", "id": id, "name": "a", "input": input}]);
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "x"});
        assert!(with(call("t1", json!({})), json!([result("t1")])).is_ok());
        assert!(with(call("a b", json!({})), json!([result("a b")])).is_err(), "an id of other letters");
        assert!(with(call("t1", json!([1])), json!([result("t1")])).is_err(), "an input that is no object");
        assert!(
            with(call("t1", json!({})), json!([{"type": "text", "text": "so"}, result("t1")])).is_err(),
            "a text before the result"
        );
        let mut bare =
            request(&json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": call("t1", json!({}))},
            {"role": "user", "content": [result("t1")]}]));
        bare["tools"] = json!([]);
        assert!(Conversation::read(&bare).expect_err("no tools").contains("must define tools"));
    }

    #[test]
    fn a_tool_use_without_a_result_is_refused() {
        let body = request(&json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "a", "input": {}}]},
            {"role": "user", "content": "and?"}
        ]));
        let error = Conversation::read(&body).expect_err("t1 is open");
        assert!(error.contains("t1"), "{error}");
    }

    #[test]
    fn rounds_count_from_the_last_question_and_not_from_tool_results() {
        let body = request(&json!([
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "one"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "a", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42", "is_error": true}]}
        ]));
        let conversation = Conversation::read(&body).expect("valid");
        assert_eq!((conversation.question.as_str(), conversation.rounds), ("second", 1));
        assert!(conversation.results[0].is_error);
    }

    #[test]
    fn a_bad_tool_name_fails_the_whole_request() {
        let mut body = request(&json!([{"role": "user", "content": "hi"}]));
        body["tools"] = json!([{"name": "a.b", "input_schema": {"type": "object"}}]);
        assert!(Conversation::read(&body).is_err());
    }
}

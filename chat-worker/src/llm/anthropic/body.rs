//! The bodies of requests. Written straight from what a prompt borrows: to build a tree of values first would copy every tool and
//! every message for each round.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    llm::{
        Prompt, history,
        offer::{Dialect, Projected},
    },
    message::{Message, Role, block_text},
};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<[System<'a>; 1]>,
    messages: Vec<Said<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<Kind>,
}

#[derive(Serialize)]
struct System<'a> {
    r#type: &'static str,
    text: &'a str,
    cache_control: Kind,
}

#[derive(Serialize)]
struct Said<'a> {
    role: Role,
    content: Vec<Cow<'a, Value>>,
}

impl Said<'_> {
    /// Where the assistant is to go on, as after a pause, its words must not end in a space.
    fn fit_the_end(&mut self) {
        if self.role != Role::Assistant {
            return;
        }
        while let Some(text) = self.content.last().and_then(|block| block_text(block)).filter(|text| text.trim_end() != *text) {
            let trimmed = text.trim_end().to_owned();
            let block = self.content.pop().filter(|_| !trimmed.is_empty());
            self.content.extend(block.map(|mut block| {
                block.to_mut()["text"] = json!(trimmed);
                block
            }));
        }
    }
}

/// An object that says only of which kind it is.
#[derive(Serialize)]
struct Kind {
    r#type: &'static str,
}

const CACHED: Kind = Kind { r#type: "ephemeral" };

/// The body of a request. Three of the four cache breakpoints are used: after the tools, after the system prompt, and
/// after the last message, so that each round reads the rounds before it from the cache.
pub fn request(prompt: &Prompt<'_>, model: &str, max_tokens: u32) -> Vec<u8> {
    body(prompt, model, Some(max_tokens))
}

/// The body of a request that only counts: the same prompt, without what concerns the answer.
pub fn count(prompt: &Prompt<'_>, model: &str) -> Vec<u8> {
    body(prompt, model, None)
}

/// `max_tokens` is for an answer, which is streamed.
fn body(prompt: &Prompt<'_>, model: &str, max_tokens: Option<u32>) -> Vec<u8> {
    let offered = &prompt.offer.tools;
    let remembered = if offered.is_empty() { history::remembered(&prompt.messages) } else { Vec::new() };
    let mut tools: Vec<Tool<'_>> = offered.iter().map(|tool| &**tool).chain(&remembered).map(tool).collect();
    if let Some(last) = tools.last_mut() {
        last.cache_control = Some(CACHED);
    }
    let fitted = history::fitted(&prompt.messages, &prompt.offer, Dialect::Messages);
    let mut messages: Vec<Said<'_>> = fitted.iter().map(said).collect();
    if let Some(last) = messages.last_mut() {
        last.fit_the_end();
        // Thinking bears no mark.
        let bears = |block: &&mut Cow<'_, Value>| !matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking"));
        if let Some(block) = last.content.iter_mut().rev().find(bears) {
            block.to_mut()["cache_control"] = json!(CACHED);
        }
    }
    let system = System { r#type: "text", text: prompt.system, cache_control: CACHED };
    let request = Request {
        model,
        max_tokens,
        stream: max_tokens.is_some().then_some(true),
        tool_choice: (!tools.is_empty() && (!prompt.allow_tools || offered.is_empty())).then_some(Kind { r#type: "none" }),
        tools,
        system: (!prompt.system.is_empty()).then_some([system]),
        messages,
    };
    // Maps with string keys: they cannot fail to be written.
    serde_json::to_vec(&request).unwrap_or_default()
}

fn tool(tool: &Projected) -> Tool<'_> {
    Tool { name: &tool.name, description: &tool.description, input_schema: &tool.schema, cache_control: None }
}

fn said(message: &Message) -> Said<'_> {
    Said { role: message.role, content: message.content.iter().map(Cow::Borrowed).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::offer::tests as offer;

    #[test]
    fn an_answer_that_goes_on_ends_as_the_api_takes_it() {
        let ended = |content: Value| {
            let messages: Vec<Message> =
                serde_json::from_value(json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]))
                    .expect("messages");
            let offer = offer::of_tools(&[], Dialect::Messages).into();
            let prompt = Prompt { system: "", offer, messages: messages.into(), allow_tools: true, model: None };
            let body: Value = serde_json::from_slice(&request(&prompt, "m", 10)).expect("JSON");
            body["messages"][1]["content"].clone()
        };
        let marked = |text: &str| json!({"type": "text", "text": text, "cache_control": CACHED});
        let text = |text: &str| json!({"type": "text", "text": text});
        let thinking = json!({"type": "thinking", "thinking": "hm ", "signature": "s"});
        assert_eq!(ended(json!([text("so "), thinking])), json!([marked("so "), thinking]));
        assert_eq!(ended(json!([thinking])), json!([thinking]));
        assert_eq!(ended(json!([thinking, text("so \n")])), json!([thinking, marked("so")]));
        assert_eq!(ended(json!([text("so"), text("\n")])), json!([marked("so")]));
    }

    #[test]
    fn at_most_four_blocks_are_marked_for_the_cache() {
        let prompt = Prompt {
            system: "be brief",
            offer: offer::of_tools(
                &[json!({"name": "a", "inputSchema": {}}), json!({"name": "b", "inputSchema": {}})],
                Dialect::Messages,
            )
            .into(),
            messages: vec![Message::user("hi"), Message::user("there")].into(),
            allow_tools: true,
            model: None,
        };
        let body: Value = serde_json::from_slice(&request(&prompt, "m", 10)).expect("JSON");
        assert_eq!(body.to_string().matches("cache_control").count(), 3);
        assert!(body["messages"][1]["content"][0]["cache_control"].is_object());
        assert!(body["tools"][1]["cache_control"].is_object());
        assert_eq!(
            (&body["max_tokens"], &body["stream"], &body["system"][0]["text"]),
            (&json!(10), &json!(true), &json!("be brief"))
        );
        let counting: Value = serde_json::from_slice(&count(&prompt, "m")).expect("JSON");
        assert!(counting["max_tokens"].is_null() && counting["stream"].is_null() && counting["tools"] == body["tools"]);
    }
}

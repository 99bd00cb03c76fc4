//! /resources and /prompt: what servers offer beside tools, as lists and as questions.

use std::{fmt::Write as _, pin::pin, sync::Arc};

use rmcp::{
    ErrorData,
    model::{ClientCapabilities, GetPromptRequestParams, JsonObject, ReadResourceRequestParams},
};
use serde_json::Value;

use super::spinner::Spinner;
use crate::{
    message::Message,
    tools::{
        hub::Hub,
        quoted::Source,
        relay::{Following, Next, Relay, Said, in_words},
        sanitize::clean_line,
    },
    turn::opening::Opening,
};

/// The resources and their templates.
pub async fn listed(hub: &Arc<Hub>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for resource in hub.resources().await {
        let _ = writeln!(text, "{:<48}{}", clean_line(&resource.item.uri), clean_line(&resource.item.name));
    }
    for template in hub.templates().await {
        let _ = writeln!(text, "{:<48}{}", clean_line(&template.item.uri_template), clean_line(&template.item.name));
    }
    if text.is_empty() { "No server has resources.\n".to_owned() } else { text }
}

/// The prompts with their arguments.
pub async fn prompts(hub: &Arc<Hub>) -> String {
    let mut text = String::new();
    for prompt in hub.prompts().await.into_iter().map(|prompt| prompt.item) {
        let arguments = prompt.arguments.unwrap_or_default().into_iter().map(|argument| {
            if argument.required == Some(true) { format!("{}=…", argument.name) } else { format!("[{}=…]", argument.name) }
        });
        let arguments = arguments.collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "{:<40}{}", prompt.name, clean_line(&arguments));
        if let Some(description) = prompt.description {
            let _ = writeln!(text, "    {}", clean_line(&description));
        }
    }
    if text.is_empty() { "No server has prompts.\n".to_owned() } else { text }
}

/// A resource as a question.
pub async fn resource(hub: &Arc<Hub>, uri: &str) -> Result<Opening, String> {
    let source = Source::Resource(ReadResourceRequestParams::new(uri));
    quoted(hub, uri, source).await.map_err(|why| format!("{uri} cannot be read: {why}"))
}

/// A prompt as a question, filled in: `NAME key=value …`.
pub async fn prompt(hub: &Arc<Hub>, words: &str) -> Result<Opening, String> {
    let (name, arguments) = read(words)?;
    let source = Source::Prompt(GetPromptRequestParams::new(name).with_arguments(arguments));
    quoted(hub, name, source).await.map_err(|why| format!("{name} cannot be had: {why}"))
}

async fn quoted(hub: &Arc<Hub>, what: &str, source: Source) -> Result<Opening, String> {
    let messages = waited(what, |relay| hub.quoted(source, relay)).await?;
    Opening::of(messages).ok_or_else(|| "there is nothing in it".to_owned())
}

/// Waits for an answer, and shows meanwhile what its server says. Ctrl-C stops it, for the server, too.
async fn waited<W: Future<Output = Result<Vec<Message>, ErrorData>>>(
    what: &str,
    ask: impl FnOnce(Relay) -> W,
) -> Result<Vec<Message>, String> {
    let (relay, hears) = Relay::new(ClientCapabilities::default(), None, false);
    let mut spinner = Spinner::default();
    let mut show = |text: &str| {
        if super::is_capable() {
            spinner.show(text);
        }
    };
    show(what);
    let answer = pin!(ask(relay));
    let mut following = Following::new(answer, hears);
    let answered = loop {
        tokio::select! {
            next = following.next() => match next {
                Next::Said(Said::Told { params, .. }) => show(&format!("{what}: {}", in_words(&params))),
                Next::Said(Said::Asked(_)) => {}
                Next::Over(answer) => break answer.map_err(|error| clean_line(&error.message)),
            },
            _ = tokio::signal::ctrl_c() => break Err("stopped".to_owned()),
        }
    };
    spinner.clear();
    answered
}

/// The name, and its arguments. A value may hold spaces: it ends where the next `key=` begins.
fn read(words: &str) -> Result<(&str, JsonObject), String> {
    let (name, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
    let (mut arguments, mut last) = (JsonObject::new(), None::<String>);
    for word in rest.split_whitespace() {
        match word.split_once('=').filter(|(key, _)| !key.is_empty()) {
            Some((key, value)) => {
                arguments.insert(key.to_owned(), Value::from(value));
                last = Some(key.to_owned());
            }
            None => match last.as_ref().and_then(|key| arguments.get_mut(key)) {
                Some(Value::String(value)) => {
                    value.push(' ');
                    value.push_str(word);
                }
                _ => return Err(format!("{word} is no argument; write name=value")),
            },
        }
    }
    Ok((name, arguments))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_read_and_values_may_hold_spaces() {
        let (name, arguments) = read("two__greet who=Ann Smith tone=kind").expect("read");
        assert_eq!((name, json!(arguments)), ("two__greet", json!({"who": "Ann Smith", "tone": "kind"})));
        assert!(read("two__greet Ann").is_err());
    }
}

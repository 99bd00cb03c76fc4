//! A conversation as an API takes it: what it would refuse a whole request for, and what nobody needs to be asked about, is put
//! right on the way. Pure. What cannot be put right was refused when the conversation was read (`turn::transcript`).

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use serde_json::{Value, json};

use super::offer::{Dialect, Offer, Projected, Renamed, names};
use crate::{
    digest::digest,
    message::{Message, block_result_id, text_block},
};

/// The names of tools, and the ids of calls at Anthropic, are of these letters.
fn is_plain(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The messages with ids and names that the API takes, and with arguments named as the model knows them. Borrowed where nothing is to
/// be changed.
pub fn fitted<'m>(messages: &'m [Message], offer: &Offer, dialect: Dialect) -> Cow<'m, [Message]> {
    let ids = Ids::of(messages, dialect);
    let renames = |block: &Value| {
        let name = block["name"].as_str().unwrap_or_default();
        !is_plain(name, 64) || offer.get(name).is_some_and(|tool| !tool.renamed.is_empty())
    };
    let uses = || messages.iter().flat_map(|message| &message.content).filter(|block| block["type"] == "tool_use");
    if ids.new.is_empty() && !uses().any(renames) {
        return Cow::Borrowed(messages);
    }
    let mut fitted = messages.to_vec();
    for (index, message) in fitted.iter_mut().enumerate() {
        for block in &mut message.content {
            if block["type"] == "tool_use" {
                if let Some(id) = block["id"].as_str().and_then(|id| ids.at(index, id)) {
                    block["id"] = json!(id);
                }
                let name = block["name"].as_str().unwrap_or_default().to_owned();
                let properties = offer.get(&name).map(|tool| &tool.renamed).filter(|renamed| !renamed.is_empty());
                if let Some(properties) = properties {
                    block["input"] = names::as_written(block["input"].take(), properties);
                }
                if !is_plain(&name, 64) {
                    block["name"] = json!(plain_name(&name));
                }
            } else if let Some(id) = block_result_id(block).and_then(|id| ids.at(index.saturating_sub(1), id)) {
                block["tool_use_id"] = json!(id);
            }
        }
    }
    Cow::Owned(fitted)
}

fn plain_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(50).collect();
    format!("{plain}_{}", &digest(&[name])[..8])
}

/// The ids that change: those of another alphabet or too long, and those that an earlier message has, too.
struct Ids {
    /// By the message with the calls, and the id in it.
    new: HashMap<(usize, String), String>,
}

impl Ids {
    fn of(messages: &[Message], dialect: Dialect) -> Self {
        // OpenAI takes any letters, and not many of them.
        let fits = |id: &str| match dialect {
            Dialect::Messages => is_plain(id, 64),
            Dialect::Completions => (1..=40).contains(&id.len()),
        };
        let (mut seen, mut new) = (HashSet::new(), HashMap::new());
        for (index, message) in messages.iter().enumerate() {
            for id in message.content.iter().filter(|block| block["type"] == "tool_use").filter_map(|block| block["id"].as_str())
            {
                if !seen.insert(id) || !fits(id) {
                    new.insert((index, id.to_owned()), format!("call_{index}_{}", &digest(&[id])[..12]));
                }
            }
        }
        Self { new }
    }

    fn at(&self, index: usize, id: &str) -> Option<&str> {
        self.new.get(&(index, id.to_owned())).map(String::as_str)
    }
}

/// Whether there are pictures in it.
pub fn has_images(messages: &[Message]) -> bool {
    messages.iter().flat_map(|message| &message.content).any(|block| {
        let inside = block["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        block["type"] == "image" || inside.iter().any(|part| part["type"] == "image")
    })
}

/// The same messages with a word in the place of each picture.
pub fn without_images(messages: &[Message]) -> Vec<Message> {
    let word = || text_block("[a picture, which you cannot see]");
    let mut messages = messages.to_vec();
    for block in messages.iter_mut().flat_map(|message| &mut message.content) {
        if block["type"] == "image" {
            *block = word();
        }
        for part in block["content"].as_array_mut().into_iter().flatten().filter(|part| part["type"] == "image") {
            *part = word();
        }
    }
    messages
}

/// Definitions for tools that the history calls and that are not offered any more: a history with calls and no tools at all is
/// refused. The model is told not to call them.
pub fn remembered(messages: &[Message]) -> Vec<Projected> {
    let uses = messages.iter().flat_map(|message| &message.content).filter(|block| block["type"] == "tool_use");
    let names: std::collections::BTreeSet<&str> = uses.filter_map(|block| block["name"].as_str()).collect();
    let schema = || serde_json::value::to_raw_value(&json!({"type": "object", "properties": {}}));
    let remembered = |name: &str| {
        let description = "Not available at the moment.".to_owned();
        Some(Projected { name: name.to_owned(), description, schema: schema().ok()?, renamed: Renamed::new() })
    };
    names.into_iter().filter_map(remembered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(calls: &[(&str, &str)]) -> Vec<Message> {
        let messages = calls.iter().flat_map(|(id, name)| {
            [
                json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": name, "input": {}}]}),
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "x"}]}),
            ]
        });
        serde_json::from_value(messages.collect()).expect("messages")
    }

    fn ids(messages: &[Message]) -> Vec<(String, String)> {
        let id = |index: usize, field: &str| messages[index].content[0][field].as_str().expect("an id").to_owned();
        (0..messages.len()).step_by(2).map(|index| (id(index, "id"), id(index + 1, "tool_use_id"))).collect()
    }

    #[test]
    fn ids_that_are_taken_or_refused_become_others_with_their_results() {
        let messages = conversation(&[("call_0", "a"), ("call_0", "a"), ("a b", "a"), ("functions.q:0", "a")]);
        let fitted = fitted(&messages, &Offer::default(), Dialect::Messages);
        let ids = ids(&fitted);
        assert_eq!(ids[0], ("call_0".to_owned(), "call_0".to_owned()));
        for (call, result) in &ids {
            assert!(call == result && is_plain(call, 64), "{ids:?}");
        }
        let unique: HashSet<&String> = ids.iter().map(|(call, _)| call).collect();
        assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn a_name_that_no_api_takes_is_made_one_and_a_good_conversation_is_not_copied() {
        let odd = conversation(&[("1", "odd.good x")]);
        let fitted_odd = fitted(&odd, &Offer::default(), Dialect::Completions);
        assert!(is_plain(fitted_odd[0].content[0]["name"].as_str().expect("a name"), 64));
        let good = conversation(&[("1", "s__a"), ("2", "s__a")]);
        assert!(matches!(fitted(&good, &Offer::default(), Dialect::Messages), Cow::Borrowed(_)));
        let names: Vec<String> = remembered(&good).into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["s__a"]);
    }
}

//! What a turn begins with: what the user says, or messages that the user asks with, such as a prompt of a server, and what the user says of
//! them. Pure. It begins and ends with the user, the roles alternate, and nothing in it is empty, whatever those messages are: model APIs
//! refuse everything else, and an answer begun in the model's name (a prompt that ends with the assistant) is refused by the newer ones.

use serde::Serialize;
use serde_json::{Value, json};

use super::outside::{self, TranscriptError};
use crate::message::{Message, Role, block_text, text_block};

/// What the user says before a prompt that begins with the assistant, and after one that ends with it.
const BEGINS: &str = "[What you say next was prepared: it is part of a prompt.]";
const GO_ON: &str = "Go on from there.";

/// Messages that can be added to a conversation as a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Opening(Vec<Message>);

impl From<&str> for Opening {
    fn from(text: &str) -> Self {
        Self(vec![Message::user(text)])
    }
}

impl Opening {
    /// The question that these messages are; `None` where nothing is said in them. A picture in what the assistant is to have said becomes a
    /// word: the APIs take pictures of the user only.
    pub fn of(messages: Vec<Message>) -> Option<Self> {
        let mut all: Vec<Message> = Vec::new();
        for Message { role, content } in messages {
            for block in content.into_iter().filter(is_said) {
                let block = if role == Role::Assistant && block["type"] == "image" { named(&block) } else { block };
                if all.is_empty() && role == Role::Assistant {
                    all.push(Message::user(BEGINS));
                }
                match all.last_mut().filter(|last| last.role == role) {
                    Some(last) => add(&mut last.content, block),
                    None => all.push(Message { role, content: vec![block] }),
                }
            }
        }
        if all.last()?.role == Role::Assistant {
            all.push(Message::user(GO_ON));
        }
        Some(Self(all))
    }

    /// The same of messages that a caller sends, which may hold texts and pictures.
    pub fn read(mut messages: Vec<Message>) -> Result<Option<Self>, TranscriptError> {
        for (index, message) in messages.iter_mut().enumerate() {
            // An empty message of a prompt says nothing, and is nothing to refuse.
            message.content.retain(|block| block["type"] != "text" || is_said(block));
            outside::mend(index, message)?;
            if let Some(other) = message.content.iter().find(|block| block["type"] != "text" && block["type"] != "image") {
                let what = format!("a block of the type {} is no part of a question; text and image are", other["type"]);
                return Err(TranscriptError::Block { index, what });
            }
        }
        Ok(Self::of(messages))
    }

    /// And what the user says of it.
    pub fn and(mut self, text: &str) -> Self {
        // It ends with the user.
        if let Some(last) = self.0.last_mut() {
            last.content.push(text_block(text));
        }
        self
    }

    /// All that is said in it.
    pub fn text(&self) -> String {
        let texts = self.0.iter().flat_map(|message| &message.content).filter_map(block_text);
        texts.collect::<Vec<_>>().join("\n\n")
    }

    pub fn messages(&self) -> &[Message] {
        &self.0
    }

    pub fn into_messages(self) -> Vec<Message> {
        self.0
    }
}

fn is_said(block: &Value) -> bool {
    block_text(block).is_none_or(|text| !text.trim().is_empty())
}

/// Texts that follow each other are one: not every API keeps them apart.
fn add(content: &mut Vec<Value>, block: Value) {
    if let (Some(last), Some(more)) = (content.last_mut(), block_text(&block))
        && let Some(text) = block_text(last)
    {
        *last = text_block(&format!("{text}\n\n{more}"));
        return;
    }
    content.push(block);
}

fn named(picture: &Value) -> Value {
    json!({"type": "text", "text": format!("[an image, {}]", picture["source"]["media_type"].as_str().unwrap_or("of no kind"))})
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::turn::transcript::Transcript;

    const PNG: &str = "iVBORw0KGgo=";

    fn said(role: &str, text: &str) -> Value {
        json!({"role": role, "content": text})
    }

    fn of(messages: &Value) -> Option<Value> {
        let opening = Opening::of(serde_json::from_value(messages.clone()).expect("messages"))?;
        let mut transcript = Transcript::default();
        transcript.say(opening.clone());
        let whole = Transcript::read(transcript.into_messages()).expect("a conversation");
        assert_eq!(whole.messages().last().map(|last| last.role), Some(Role::User), "it waits for an answer");
        Some(json!(opening.into_messages()))
    }

    fn text(role: &str, text: &str) -> Value {
        json!({"role": role, "content": [text_block(text)]})
    }

    #[rstest]
    #[case::talk(json!([said("user", "a"), said("assistant", "b"), said("user", "c")]), json!([text("user", "a"), text("assistant", "b"), text("user", "c")]))]
    #[case::the_same_twice(json!([said("user", "a"), said("user", "b"), said("assistant", "c"), said("assistant", "d"), said("user", "e")]),
        json!([text("user", "a\n\nb"), text("assistant", "c\n\nd"), text("user", "e")]))]
    #[case::the_assistant_begins(json!([said("assistant", "a"), said("user", "b")]), json!([text("user", BEGINS), text("assistant", "a"), text("user", "b")]))]
    #[case::the_assistant_ends(json!([said("user", "a"), said("assistant", "b ")]), json!([text("user", "a"), text("assistant", "b "), text("user", GO_ON)]))]
    #[case::the_assistant_alone(json!([said("assistant", "a")]), json!([text("user", BEGINS), text("assistant", "a"), text("user", GO_ON)]))]
    #[case::empty_ones(json!([said("assistant", " "), said("user", "a"), said("assistant", ""), said("user", "b"), said("assistant", "\n")]), json!([text("user", "a\n\nb")]))]
    fn whatever_the_messages_are_it_is_a_question(#[case] messages: Value, #[case] expected: Value) {
        assert_eq!(of(&messages), Some(expected));
    }

    #[test]
    fn where_nothing_is_said_there_is_no_question() {
        for nothing in [json!([]), json!([said("user", "")]), json!([said("assistant", " \n"), said("user", "\t")])] {
            assert_eq!(of(&nothing), None, "{nothing}");
        }
    }

    #[test]
    fn pictures_of_the_user_keep_their_place_and_those_of_the_assistant_are_named() {
        let picture = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}});
        let blocks = |role: &str| json!({"role": role, "content": [text_block("a"), picture, text_block("b")]});
        let opening = of(&json!([blocks("user"), blocks("assistant"), said("user", "c")])).expect("a question");
        assert_eq!(opening[0]["content"], blocks("user")["content"]);
        assert_eq!(opening[1]["content"], json!([text_block("a\n\n[an image, image/png]\n\nb")]));
    }

    #[test]
    fn of_what_a_caller_sends_texts_and_pictures_are_taken() {
        let read = |messages: Value| Opening::read(serde_json::from_value(messages).expect("messages"));
        let empty = json!({"role": "user", "content": []});
        assert!(matches!(read(json!([empty, said("assistant", " "), said("user", "a")])), Ok(Some(_))));
        assert_eq!(read(json!([empty])), Ok(None));
        for odd in [
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]}),
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "a", "input": {}}]}),
            json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}),
            json!({"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a/b.png"}}]}),
        ] {
            assert!(matches!(read(json!([odd])), Err(TranscriptError::Block { index: 0, .. })), "{odd}");
        }
    }

    #[test]
    fn what_the_user_says_of_it_comes_last() {
        let opening = Opening::of(vec![Message::user("a")]).expect("a question").and("b");
        assert_eq!((opening.text().as_str(), opening.messages().len()), ("a\n\nb", 1));
    }
}

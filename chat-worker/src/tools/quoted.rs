//! A prompt or a resource of a server as the messages that a user asks with: texts and pictures, for every way to ask. Pure. What a model
//! cannot be shown is named in its place, and what is too much is cut where it says so. That it is a question which a model's API takes is
//! `turn::opening`'s.

use rmcp::model::{
    ContentBlock, GetPromptRequestParams, PromptMessage, ReadResourceRequestParams, ResourceContents, Role as Speaker,
};
use serde_json::Value;

use super::{
    answer::{MAX_IMAGES, MAX_PICTURES, MAX_TOLD, block_in_words, contents_in_words, image, picture},
    sanitize::{clean, clean_line, cut},
};
use crate::message::{Message, Role, text_block};

/// What each part costs beside its text, in bytes: there may be very many of nothing.
const A_PART: usize = 16;

/// What a user asks with.
#[derive(Debug)]
pub enum Source {
    Prompt(GetPromptRequestParams),
    Resource(ReadResourceRequestParams),
}

/// What there is room for.
struct Room {
    text: usize,
    pictures: usize,
    images: usize,
    /// What is left out at the end, in bytes.
    left: usize,
}

impl Room {
    fn new() -> Self {
        Self { text: MAX_TOLD, pictures: MAX_PICTURES, images: MAX_IMAGES, left: 0 }
    }

    /// A text as far as there is room for it.
    fn text(&mut self, text: &str) -> Option<Value> {
        let text = clean(text);
        if self.left > 0 || self.text <= A_PART {
            self.left += text.len();
            return None;
        }
        let (told, left) = cut(&text, self.text - A_PART);
        self.text -= told.len() + A_PART;
        self.left += left;
        Some(text_block(&told))
    }

    /// A picture, where it is one, and there is room for it.
    fn picture(&mut self, data: &str) -> Option<Value> {
        if self.left > 0 || self.images == 0 {
            return None;
        }
        let (kind, data) = picture(data).filter(|(_, data)| data.len() <= self.pictures)?;
        (self.images, self.pictures) = (self.images - 1, self.pictures - data.len());
        Some(image(kind, &data))
    }

    fn resource(&mut self, contents: &ResourceContents) -> Vec<Value> {
        let shown = match contents {
            ResourceContents::BlobResourceContents { blob, .. } => self.picture(blob),
            _ => None,
        };
        self.text(&contents_in_words(contents)).into_iter().chain(shown).collect()
    }

    fn block(&mut self, block: &ContentBlock, role: Role) -> Vec<Value> {
        match block {
            ContentBlock::Image(image) => {
                let shown = if role == Role::User { self.picture(&image.data) } else { None };
                let named = || self.text(&format!("[an image, {}, which you cannot see]", image.mime_type));
                shown.or_else(named).into_iter().collect()
            }
            ContentBlock::Resource(embedded) if role == Role::User => self.resource(&embedded.resource),
            other => self.text(&block_in_words(other)).into_iter().collect(),
        }
    }

    /// Says at the end that it is not all.
    fn told(&self, mut messages: Vec<Message>) -> Vec<Message> {
        if let (1.., Some(last)) = (self.left, messages.last_mut()) {
            last.content.push(text_block(&format!("[cut off here: {} more bytes]", self.left)));
        }
        messages
    }
}

/// The messages of a prompt.
pub fn prompt(messages: &[PromptMessage]) -> Vec<Message> {
    let mut room = Room::new();
    let mut all = Vec::new();
    for message in messages {
        let role = if message.role == Speaker::Assistant { Role::Assistant } else { Role::User };
        let content = room.block(&message.content, role);
        if !content.is_empty() {
            all.push(Message { role, content });
        }
    }
    room.told(all)
}

/// A resource, as the user shows it.
pub fn resource(uri: &str, contents: &[ResourceContents]) -> Vec<Message> {
    let mut room = Room::new();
    let mut content = vec![text_block(&format!("This is the resource {}:", clean_line(uri)))];
    content.extend(contents.iter().flat_map(|part| room.resource(part)));
    room.told(vec![Message { role: Role::User, content }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PNG: &str = "iVBORw0KGgo=";

    #[allow(clippy::needless_pass_by_value, reason = "tests: it is made in place")]
    fn said(role: &str, content: Value) -> Value {
        json!({"role": role, "content": content})
    }

    fn text(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }

    fn picture(data: &str) -> Value {
        json!({"type": "image", "mimeType": "image/png", "data": data})
    }

    fn of(messages: Value) -> Value {
        json!(prompt(&serde_json::from_value::<Vec<PromptMessage>>(messages).expect("messages")))
    }

    #[test]
    fn a_prompt_keeps_its_roles_and_its_pictures_and_names_the_rest() {
        let resource = |resource: Value| json!({"type": "resource", "resource": resource});
        let link = json!({"type": "resource_link", "uri": "a:b", "name": "B", "description": "the b"});
        let told = of(json!([
            said("user", text("Look:\u{202e}")),
            said("user", picture(PNG)),
            said("user", resource(json!({"uri": "a:t", "text": "its text"}))),
            said("user", resource(json!({"uri": "a:p", "mimeType": "image/png", "blob": PNG}))),
            said("user", resource(json!({"uri": "a:z", "mimeType": "application/zip", "blob": "UEs="}))),
            said("assistant", text("I see.")),
            said("assistant", picture(PNG)),
            said("user", link),
            said("user", json!({"type": "audio", "mimeType": "audio/wav", "data": "aGk="})),
            said("user", picture("aGk=")),
        ]));
        let shown = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}});
        let contents: Vec<&Value> = told.as_array().expect("messages").iter().map(|message| &message["content"]).collect();
        assert_eq!(
            contents,
            [
                &json!([text("Look:")]),
                &json!([shown]),
                &json!([text("its text")]),
                &json!([text("[image/png of a:p, 12 bytes in base64]"), shown]),
                &json!([text("[application/zip of a:z, 4 bytes in base64]")]),
                &json!([text("I see.")]),
                &json!([text("[an image, image/png, which you cannot see]")]),
                &json!([text("[resource a:b (B): the b]")]),
                &json!([text("[a sound, audio/wav, which you cannot hear]")]),
                &json!([text("[an image, image/png, which you cannot see]")]),
            ]
        );
        assert_eq!(
            (&told[4]["role"], &told[5]["role"], &told[6]["role"]),
            (&json!("user"), &json!("assistant"), &json!("assistant"))
        );
    }

    #[test]
    fn what_is_too_much_is_cut_and_says_so() {
        let long = "ä".repeat(MAX_TOLD);
        let told = of(json!([
            said("user", text("a")),
            said("assistant", text(&long)),
            said("user", text("b")),
            said("user", picture(PNG))
        ]));
        assert_eq!(told.as_array().map(Vec::len), Some(2));
        let end = told[1]["content"][1]["text"].as_str().expect("a text");
        let kept = told[1]["content"][0]["text"].as_str().expect("a text").len();
        let left = 2 * MAX_TOLD - kept + "b".len() + "[an image, image/png, which you cannot see]".len();
        assert_eq!(end, format!("[cut off here: {left} more bytes]"));
        assert!(told.to_string().len() < MAX_TOLD + 500);
        // Very many of next to nothing.
        let many: Vec<Value> = (0..MAX_TOLD).map(|_| said("user", text("x"))).collect();
        let told = of(Value::Array(many));
        assert!(
            told.as_array().is_some_and(|all| all.len() <= MAX_TOLD / A_PART) && told.to_string().contains("[cut off here: ")
        );
        let pictures: Vec<Value> = (0..=MAX_IMAGES).map(|_| said("user", picture(PNG))).collect();
        let told = of(Value::Array(pictures)).to_string();
        assert_eq!((told.matches(PNG).count(), told.matches("which you cannot see").count()), (MAX_IMAGES, 1));
    }

    #[test]
    fn a_resource_says_which_it_is_and_shows_its_pictures() {
        let contents = json!([{"uri": "a:b", "text": "its text"}, {"uri": "a:b", "mimeType": "image/png", "blob": PNG}]);
        let told = resource("a:\nb", &serde_json::from_value::<Vec<ResourceContents>>(contents).expect("contents"));
        let content = json!(told[0].content);
        assert_eq!((&content[0], &content[1]), (&text("This is the resource a: b:"), &text("its text")));
        assert_eq!((&content[3]["type"], told.len()), (&json!("image"), 1));
    }
}

//! What a call of a tool came to: its answer whole, for whoever takes it whole, and as a model is told of it. Pure.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::{Value, json};

use super::sanitize::{clean, cut};

/// What a model is told of one result, in bytes: beyond it, results crowd out the conversation.
pub const MAX_TOLD: usize = 48 * 1024;
/// Pictures of one result that a model is shown, and how large each may be in base64: what Anthropic's API takes.
const MAX_IMAGES: usize = 8;
const MAX_IMAGE: usize = 5 * 1024 * 1024;
const SHOWN: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/// Where the rest of a result begins, by the names that servers give it.
const CURSORS: [&str; 4] = ["next_cursor", "nextCursor", "cursor", "next_page_token"];

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolOutput {
    pub text: String,
    pub is_error: bool,
    /// As the server sent it: not cleaned, and not cut.
    pub whole: Option<Arc<CallToolResult>>,
    /// For metrics: "ok", "tool_error", "unavailable", "timeout", "transport", "refused" or "cancelled".
    pub outcome: &'static str,
    pub duration: Duration,
}

impl ToolOutput {
    /// Something that is told without any server.
    pub fn told(text: String) -> Self {
        Self { text, is_error: false, whole: None, outcome: "ok", duration: Duration::ZERO }
    }

    /// A call that was not made.
    pub fn refused(text: &str) -> Self {
        Self { text: text.to_owned(), is_error: true, whole: None, outcome: "refused", duration: Duration::ZERO }
    }

    /// A call that could not be made.
    pub fn unavailable(text: &str) -> Self {
        Self { text: text.to_owned(), is_error: true, whole: None, outcome: "unavailable", duration: Duration::ZERO }
    }
}

/// The result in words: its texts, and the names of what is no text. Cleaned, and cut where it is too long; what is left of a list
/// that goes on is kept.
pub fn in_words(result: &CallToolResult) -> String {
    let mut parts: Vec<String> = result.content.iter().map(block_in_words).filter(|part| !part.is_empty()).collect();
    if let Some(structured) = &result.structured_content
        && parts.is_empty()
    {
        parts.push(structured.to_string());
    }
    let joined = parts.join("\n");
    if joined.len() <= MAX_TOLD {
        return clean(&joined);
    }
    let (mut told, left) = cut(&joined, MAX_TOLD);
    told = clean(&told);
    // Writing to a String cannot fail.
    let _ = write!(told, "\n[cut off here: {left} more bytes; ask for less at a time]");
    if let Some(cursor) = result.structured_content.as_ref().and_then(cursor) {
        let _ = write!(told, "\n[it goes on at {cursor}]");
    }
    told
}

/// The pictures that a model can be shown, as blocks of the Messages API.
pub fn images(result: &CallToolResult) -> Vec<Value> {
    let picture = |block: &ContentBlock| match block {
        ContentBlock::Image(image) => Some((image.mime_type.clone(), image.data.clone())),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::BlobResourceContents { mime_type: Some(kind), blob, .. } => Some((kind.clone(), blob.clone())),
            _ => None,
        },
        _ => None,
    };
    let fits = |(kind, data): &(String, String)| SHOWN.contains(&kind.as_str()) && (1..=MAX_IMAGE).contains(&data.len());
    let pictures = result.content.iter().filter_map(picture).filter(fits).take(MAX_IMAGES);
    pictures
        .map(|(kind, data)| json!({"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}))
        .collect()
}

fn block_in_words(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => format!("[an image, {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[a sound, {}, which you cannot hear]", audio.mime_type),
        ContentBlock::Resource(embedded) => contents_in_words(&embedded.resource),
        ContentBlock::ResourceLink(link) => {
            let description = link.description.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
            format!("[resource {} ({}){description}]", link.uri, link.name)
        }
        _ => "[content of an unknown kind]".to_owned(),
    }
}

/// A resource in words.
pub fn contents_in_words(contents: &ResourceContents) -> String {
    match contents {
        ResourceContents::TextResourceContents { text, .. } => text.clone(),
        ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
            let kind = mime_type.as_deref().unwrap_or("binary data");
            format!("[{kind} of {uri}, {} bytes in base64]", blob.len())
        }
        _ => "[a resource of an unknown kind]".to_owned(),
    }
}

/// Where a result says that it goes on.
fn cursor(structured: &Value) -> Option<String> {
    CURSORS.iter().find_map(|name| {
        let cursor = structured.get(*name)?.as_str().filter(|cursor| (1..=1_024).contains(&cursor.len()))?;
        Some(format!("{name} {}", clean(cursor)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(value: Value) -> CallToolResult {
        serde_json::from_value(value).expect("a result")
    }

    #[test]
    fn a_result_that_is_cut_says_how_much_is_left_and_where_it_goes_on() {
        let long = "ä".repeat(MAX_TOLD / 2) + &"x".repeat(1_000);
        let told = in_words(&result(
            json!({"content": [{"type": "text", "text": long}], "structuredContent": {"next_cursor": "p2", "rows": []}}),
        ));
        assert!(
            told.ends_with("\n[cut off here: 1000 more bytes; ask for less at a time]\n[it goes on at next_cursor p2]"),
            "{}",
            &told[told.len() - 120..]
        );
        assert_eq!(in_words(&result(json!({"content": [], "structuredContent": {"a": 1}}))), r#"{"a":1}"#);
    }

    #[test]
    fn pictures_are_shown_and_what_is_none_is_named() {
        let image = |kind: &str| json!({"type": "image", "mimeType": kind, "data": "aGk="});
        let blob = json!({"type": "resource", "resource": {"uri": "a:b", "mimeType": "image/png", "blob": "aGk="}});
        let sound = json!({"type": "audio", "mimeType": "audio/wav", "data": "aGk="});
        let result = result(json!({"content": [image("image/png"), image("image/tiff"), blob, sound]}));
        assert_eq!(images(&result).len(), 2);
        assert_eq!(images(&result)[0]["source"]["media_type"], "image/png");
        assert!(in_words(&result).contains("[a sound, audio/wav"));
    }
}

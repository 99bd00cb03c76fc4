//! What a call of a tool came to: its answer whole, for whoever takes it whole, and as a model is told of it. Pure.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use data_encoding::BASE64;
use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, ResourceContents},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::sanitize::{clean, cut};
use crate::{heavy::Room, numbers, written::Fields};

/// What a model is told of one result, in bytes: beyond it, results crowd out the conversation.
pub const MAX_TOLD: usize = 48 * 1024;
/// Pictures of one result that a model is shown, and how large each may be in base64: what Anthropic's API takes.
pub const MAX_IMAGES: usize = 8;
const MAX_IMAGE: usize = 5 * 1024 * 1024;
/// What the pictures of a conversation may take together, in base64: it is sent along with each question, and must fit into one.
pub const MAX_PICTURES: usize = 10 * 1024 * 1024;
/// Where the rest of a result begins, by the names that servers give it.
const CURSORS: [&str; 12] = [
    "next_cursor",
    "nextCursor",
    "cursor",
    "next_page_token",
    "nextPageToken",
    "next_token",
    "nextToken",
    "continuation_token",
    "continuationToken",
    "end_cursor",
    "endCursor",
    "next_page",
];
/// Longer is no cursor, in bytes.
const LONGEST_CURSOR: usize = 1_024;

/// What a call came to.
#[derive(Debug, Clone)]
pub struct ToolOutput {
    pub told: Told,
    pub is_error: bool,
    /// For metrics: "ok", "tool_error", "unavailable", "timeout", "transport", "refused" or "cancelled".
    pub outcome: &'static str,
    pub duration: Duration,
}

/// What there is to tell.
#[derive(Debug, Clone)]
pub enum Told {
    /// As the server sent it: not cleaned, and not cut.
    Whole(Arc<Whole>),
    /// In words of ours.
    Words(String),
    /// An error of the server's own: in words, and as it was written.
    Error(String, Box<ErrorData>),
}

/// A result as it came, and the room that it takes.
#[derive(Debug)]
pub struct Whole {
    pub result: CallToolResult,
    /// The same as it was written: with what the types do not know.
    pub written: Box<RawValue>,
    _room: Option<Room>,
}

impl Whole {
    pub fn new(result: CallToolResult, written: Option<Box<RawValue>>, room: Option<Room>) -> Self {
        // A result can always be written.
        let written = written.or_else(|| to_raw_value(&result).ok()).unwrap_or_default();
        Self { result, written, _room: room }
    }

    /// The result alone, for whoever passes it on.
    pub fn into_result(self: Arc<Self>) -> CallToolResult {
        Arc::try_unwrap(self).map_or_else(|shared| shared.result.clone(), |own| own.result)
    }
}

impl ToolOutput {
    /// What the server answered.
    pub fn given(whole: Whole, duration: Duration) -> Self {
        let is_error = whole.result.is_error.unwrap_or(false);
        let outcome = if is_error { "tool_error" } else { "ok" };
        Self { told: Told::Whole(Arc::new(whole)), is_error, outcome, duration }
    }

    /// Something that is told without any server.
    pub fn told(text: String) -> Self {
        Self { told: Told::Words(text), is_error: false, outcome: "ok", duration: Duration::ZERO }
    }

    /// A call that came to nothing.
    pub fn failed(text: String, outcome: &'static str) -> Self {
        Self { told: Told::Words(text), is_error: true, outcome, duration: Duration::ZERO }
    }

    /// What the server answered instead of a result.
    pub fn own_error(text: String, error: Box<ErrorData>) -> Self {
        Self { told: Told::Error(text, error), is_error: true, outcome: "tool_error", duration: Duration::ZERO }
    }

    /// A call that was not made.
    pub fn refused(text: &str) -> Self {
        Self::failed(text.to_owned(), "refused")
    }

    /// A call that could not be made.
    pub fn unavailable(text: &str) -> Self {
        Self::failed(text.to_owned(), "unavailable")
    }
}

/// The result in words: its texts, and the names of what is no text. Cleaned, and cut where it is too long; what is left of a list
/// that goes on is kept.
pub fn in_words(result: &CallToolResult) -> String {
    let mut parts: Vec<String> = result.content.iter().map(block_in_words).filter(|part| !part.is_empty()).collect();
    // A picture says nothing of it.
    if let Some(structured) = &result.structured_content
        && !result.content.iter().any(is_said)
    {
        parts.push(numbers::release(&structured.to_string()).into_owned());
    }
    let joined = parts.join("\n");
    let (mut told, left) = cut(&joined, MAX_TOLD);
    told = clean(&told);
    // Writing to a String cannot fail.
    if left > 0 {
        let _ = write!(told, "\n[cut off here: {left} more bytes; ask for less at a time]");
    }
    let structured = result.structured_content.as_ref().and_then(cursor);
    if let Some((name, cursor)) = structured.or_else(|| if left > 0 { cursor_in(&joined) } else { None })
        && !told.contains(&cursor)
    {
        let _ = write!(told, "\n[it goes on at {name} {cursor}]");
    }
    told
}

/// Whether a block says something by a text.
fn is_said(block: &ContentBlock) -> bool {
    match block {
        ContentBlock::Text(text) => !text.text.is_empty(),
        ContentBlock::Resource(embedded) => {
            matches!(&embedded.resource, ResourceContents::TextResourceContents { text, .. } if !text.is_empty())
        }
        _ => false,
    }
}

/// The pictures that a model can be shown, as blocks of the Messages API, of at most so many bytes together.
pub fn images(result: &CallToolResult, mut most: usize) -> Vec<Value> {
    let pictures = result.content.iter().filter_map(data).filter_map(picture).take(MAX_IMAGES);
    pictures
        .filter(|(_, data)| {
            let fits = data.len() <= most;
            most -= if fits { data.len() } else { 0 };
            fits
        })
        .map(|(kind, data)| image(kind, &data))
        .collect()
}

/// A picture as a block of the Messages API.
pub fn image(kind: &str, data: &str) -> Value {
    json!({"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}})
}

fn data(block: &ContentBlock) -> Option<&str> {
    match block {
        ContentBlock::Image(image) => Some(&image.data),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::BlobResourceContents { blob, .. } => Some(blob),
            _ => None,
        },
        _ => None,
    }
}

/// A picture in base64 as models can be shown it: what it is by its own first bytes, which the API looks at, whatever it was said to be.
/// `None` for what is none, or too large: one such picture would have each question of its conversation refused.
pub fn picture(said: &str) -> Option<(&'static str, String)> {
    let bare = said.strip_prefix("data:").and_then(|said| said.split_once("base64,")).map_or(said, |(_, bare)| bare);
    if bare.len() > 2 * MAX_IMAGE {
        return None;
    }
    let data: String = bare.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = (1..=MAX_IMAGE).contains(&data.len()).then(|| BASE64.decode(data.as_bytes()).ok())??;
    let kind = match bytes.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xFF, 0xD8, 0xFF, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => return None,
    };
    Some((kind, data))
}

/// What a block says, or the name of what is no text.
pub fn block_in_words(block: &ContentBlock) -> String {
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

/// Where a result says that it goes on: the name that it has for it, and the place.
fn cursor(structured: &Value) -> Option<(&'static str, String)> {
    CURSORS.iter().find_map(|name| Some((*name, place(structured.get(*name)?)?)))
}

/// The same of a text that is JSON, whose end is cut off.
fn cursor_in(text: &str) -> Option<(&'static str, String)> {
    let fields = Fields::read(text).ok()?;
    CURSORS.iter().find_map(|name| {
        let written = fields.get(name).filter(|written| written.len() <= 2 * LONGEST_CURSOR)?;
        Some((*name, place(&serde_json::from_str(written).ok()?)?))
    })
}

fn place(value: &Value) -> Option<String> {
    let cursor = match value {
        Value::String(cursor) => clean(cursor),
        cursor @ Value::Number(_) => cursor.to_string(),
        _ => return None,
    };
    (1..=LONGEST_CURSOR).contains(&cursor.len()).then_some(cursor)
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
        let short = |structured: Value| {
            in_words(&result(json!({"content": [{"type": "text", "text": "rows"}], "structuredContent": structured})))
        };
        assert_eq!(short(json!({"nextCursor": "p2"})), "rows\n[it goes on at nextCursor p2]");
        assert_eq!(short(json!({"next_cursor": 50})), "rows\n[it goes on at next_cursor 50]");
        assert_eq!(short(json!({"next_cursor": null, "cursor": ""})), "rows");
        assert_eq!(short(json!({"next_cursor": "rows"})), "rows", "it says so already");
    }

    #[test]
    fn where_a_text_goes_on_is_kept_when_its_end_is_cut_off() {
        let rows = "x".repeat(MAX_TOLD);
        let told = |text: String| in_words(&result(json!({"content": [{"type": "text", "text": text}]})));
        let long = told(format!(r#"{{"rows": "{rows}", "nextPageToken": "p\u0032"}}"#));
        assert!(long.ends_with("\n[it goes on at nextPageToken p2]"), "{}", &long[MAX_TOLD..]);
        let odd = told(format!(r#"{{"rows": "{rows}", "nextPageToken": {{}}}}"#));
        assert!(odd.ends_with("ask for less at a time]"), "{}", &odd[MAX_TOLD..]);
        assert_eq!(told(r#"{"nextToken": "p2"}"#.to_owned()), r#"{"nextToken": "p2"}"#);
    }

    #[test]
    fn what_stands_beside_a_picture_is_told() {
        let image = json!({"type": "image", "mimeType": "image/png", "data": PNG});
        let told = |content: Value| in_words(&result(json!({"content": content, "structuredContent": {"total": 7}})));
        assert_eq!(told(json!([image])), "[an image, image/png]\n{\"total\":7}");
        assert_eq!(told(json!([image, {"type": "text", "text": "seven"}])), "[an image, image/png]\nseven");
    }

    #[test]
    fn a_long_number_is_told_as_it_was_written() {
        let sent = r#"{"content": [], "structuredContent": {"id": 12345678901234567890123}}"#;
        let sent: CallToolResult = serde_json::from_str(&numbers::guard(sent)).expect("a result");
        assert_eq!(in_words(&sent), r#"{"id":12345678901234567890123}"#);
    }

    const PNG: &str = "iVBORw0KGgo=";

    #[test]
    fn pictures_are_shown_and_what_is_none_is_named() {
        let image = |kind: &str, data: &str| json!({"type": "image", "mimeType": kind, "data": data});
        let blob = json!({"type": "resource", "resource": {"uri": "a:b", "mimeType": "image/png", "blob": PNG}});
        let sound = json!({"type": "audio", "mimeType": "audio/wav", "data": "aGk="});
        let result = result(json!({"content": [image("image/png", PNG), image("image/tiff", "SUkqAA=="), blob, sound]}));
        assert_eq!(images(&result, MAX_PICTURES).len(), 2);
        assert_eq!(images(&result, MAX_PICTURES)[0]["source"]["media_type"], "image/png");
        assert_eq!(images(&result, PNG.len()).len(), 1, "there is room for one");
        assert!(in_words(&result).contains("[a sound, audio/wav"));
    }

    #[test]
    fn a_picture_that_would_be_refused_is_put_right_or_left_out() {
        let kind = |data: &str| picture(data).map(|(kind, _)| kind);
        assert_eq!(kind("/9j/4AAQ"), Some("image/jpeg"), "whatever its server calls it");
        assert_eq!(kind("R0lGODlh"), Some("image/gif"));
        assert_eq!(kind("UklGRgAAAABXRUJQ"), Some("image/webp"));
        assert_eq!(picture("iVBO\nRw0K\r\nGgo=\n"), Some(("image/png", PNG.to_owned())));
        assert_eq!(picture(&format!("data:image/png;base64,{PNG}")), Some(("image/png", PNG.to_owned())));
        for odd in ["", "aGk=", "iVBORw0KGgo", "iVBORw0KGgo*", "not a picture", "PHN2Zz48L3N2Zz4="] {
            assert_eq!(picture(odd), None, "{odd}");
        }
        let large = BASE64.encode(&[&[0x89, b'P', b'N', b'G'][..], &vec![0; MAX_IMAGE]].concat());
        assert_eq!(picture(&large), None);
    }
}

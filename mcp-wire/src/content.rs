//! What a result holds, for strict types: blocks of content, of which some are of kinds that nobody here knows.

use serde_json::{Value, json};

use crate::shape::{ANNOTATIONS, ICONS, Shape};

/// Blocks of these kinds are known.
const KINDS: [&str; 5] = ["text", "image", "audio", "resource", "resource_link"];

/// What describes a block, of whatever kind.
const BLOCK: Shape = Shape::Fields {
    needs: &[],
    all: &[
        ("title", Shape::Text),
        ("description", Shape::Text),
        ("mimeType", Shape::Text),
        ("size", Shape::Whole),
        ("icons", ICONS),
        ("annotations", ANNOTATIONS),
        ("_meta", Shape::Object),
        ("resource", CONTENTS),
    ],
};

const CONTENTS: Shape = Shape::Fields { needs: &[], all: &[("mimeType", Shape::Text), ("_meta", Shape::Object)] };

/// What describes a result.
const RESULT: Shape = Shape::Fields {
    needs: &[],
    all: &[
        ("_meta", Shape::Object),
        ("ttlMs", Shape::Whole),
        ("cacheScope", Shape::OneOf(&["public", "private"])),
        ("description", Shape::Text),
    ],
};

/// Of what is listed or read, a server of the modern era says how long it holds.
pub fn is_cacheable(method: &str) -> bool {
    matches!(method, "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read")
}

/// Makes a result fit: odd fields that only describe are left out, and a block of a kind that nobody here knows becomes a word about it. What
/// it is without them stays as it is, be it right or not.
pub fn fit(result: &mut Value) {
    RESULT.fit(result);
    for block in result.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        fit_block(block);
    }
    for contents in result.get_mut("contents").and_then(Value::as_array_mut).into_iter().flatten() {
        CONTENTS.fit(contents);
    }
    for message in result.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(block) = message.get_mut("content") {
            fit_block(block);
        }
    }
}

fn fit_block(block: &mut Value) {
    match block.get("type").and_then(Value::as_str) {
        Some(kind) if !KINDS.contains(&kind) => {
            *block = json!({"type": "text", "text": format!("[content of the unknown kind {kind:?}, left out]")});
        }
        _ => {
            BLOCK.fit(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_describes_a_block_costs_itself_and_an_unknown_one_becomes_a_word() {
        let mut result = json!({"_meta": [], "content": [
            {"type": "resource_link", "uri": "a:b", "name": "a", "size": 12.0, "icons": [{"src": "a", "sizes": "48x48"}]},
            {"type": "text", "text": "x", "annotations": {"priority": "high"}, "_meta": "x"},
            {"type": "resource", "resource": {"uri": "a:b", "text": "x", "mimeType": 5}},
            {"type": "video", "url": "a"}, {"type": "text"}, 5]});
        fit(&mut result);
        assert_eq!(
            result,
            json!({"content": [
                {"type": "resource_link", "uri": "a:b", "name": "a", "size": 12, "icons": [{"src": "a", "sizes": ["48x48"]}]},
                {"type": "text", "text": "x", "annotations": {}},
                {"type": "resource", "resource": {"uri": "a:b", "text": "x"}},
                {"type": "text", "text": "[content of the unknown kind \"video\", left out]"}, {"type": "text"}, 5]})
        );
        let mut read = json!({"contents": [{"uri": "a:b", "text": "x", "mimeType": 5, "_meta": []}], "ttlMs": 1.5});
        fit(&mut read);
        assert_eq!(read, json!({"contents": [{"uri": "a:b", "text": "x"}]}));
        let mut prompt = json!({"messages": [{"role": "user", "content": {"type": "video"}}], "description": 5});
        fit(&mut prompt);
        assert!(prompt["description"].is_null() && prompt["messages"][0]["content"]["type"] == "text", "{prompt}");
    }
}

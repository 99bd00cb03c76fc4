//! What a server says that will be said for it while it sleeps: its answers to `server/discover` and `tools/list`, as one text. Pure.
//!
//! The text is the file that the activator reads (`activator/src/kept.rs`): `{"discover": …, "tools": …}`, each the result as the
//! server gave it, or null.

use std::{fmt, sync::Arc};

use serde_json::{Value, json};

use super::answer;

/// The most that a ConfigMap holds is 1 MiB, with everything around the text.
const MOST: usize = 900 * 1024;

/// The text, cheap to clone and to compare.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    hash: u64,
    text: Arc<str>,
}

impl fmt::Debug for Kept {
    /// What tells it from another one: the text itself is as long as the list of tools.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kept").field(&self.hash).finish()
    }
}

impl Kept {
    /// The key in the ConfigMap. The activator reads it (`activator/src/kept.rs`).
    pub const FILE: &str = "answers.json";

    /// What a server said to `server/discover`, where it speaks that revision, and the pages of its list of tools.
    pub fn new<'a>(discover: Option<&Value>, pages: impl Iterator<Item = &'a Value>) -> Self {
        let mut text = json!({"discover": discover, "tools": one_page(pages)}).to_string();
        if text.len() > MOST {
            // Whoever wants the list has to wake the server.
            text = json!({"discover": discover, "tools": null}).to_string();
        }
        if text.len() > MOST {
            text = json!({"discover": null, "tools": null}).to_string();
        }
        Self { hash: answer::hash(text.as_bytes()), text: text.into() }
    }

    /// The file.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// All pages as one: a cursor is the server's own, and nobody else can go on from it.
fn one_page<'a>(mut pages: impl Iterator<Item = &'a Value>) -> Option<Value> {
    let mut all = pages.next()?.clone();
    all.as_object_mut()?.remove("nextCursor");
    let tools = all.get_mut("tools")?.as_array_mut()?;
    for page in pages {
        tools.extend(page.get("tools")?.as_array()?.iter().cloned());
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_one_and_everything_else_stays_as_the_server_said_it() {
        let pages = [
            json!({"tools": [{"name": "a", "x": 1.50}], "nextCursor": "2", "ttlMs": 5, "resultType": "complete"}),
            json!({"tools": [{"name": "b"}], "ttlMs": 7}),
        ];
        let kept = Kept::new(Some(&json!({"supportedVersions": ["2026-07-28"]})), pages.iter());
        let said: Value = serde_json::from_str(kept.text()).expect("JSON");
        assert_eq!(
            said,
            json!({
                "discover": {"supportedVersions": ["2026-07-28"]},
                "tools": {"tools": [{"name": "a", "x": 1.5}, {"name": "b"}], "ttlMs": 5, "resultType": "complete"},
            })
        );
        assert_eq!(Kept::new(None, [].into_iter()).text(), r#"{"discover":null,"tools":null}"#);
    }

    #[test]
    fn a_list_that_no_config_map_holds_is_left_out() {
        let page = json!({"tools": [{"name": "a", "description": "x".repeat(MOST)}]});
        assert_eq!(Kept::new(Some(&json!(1)), [page].iter()).text(), r#"{"discover":1,"tools":null}"#);
    }
}

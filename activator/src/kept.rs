//! What is answered for a server that sleeps, out of what was kept of it. Pure, but for the reading of the ConfigMap's text.
//!
//! Only what says the same whether the server runs or not, and what needs no answer. Everything else wakes it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use bridge::era::Era;
use bridge::post::{Envelope, Post};

/// The key in the ConfigMap. The operator writes it (`operator/src/asleep/kept.rs`).
pub const FILE: &str = "answers.json";

/// What of an answer of the modern era a legacy client has no word for.
const MODERN_ONLY: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];

/// The answers of a server.
#[derive(Debug, Default, Deserialize)]
pub struct Kept {
    /// To `server/discover`. None: it speaks only revisions with `initialize`.
    #[serde(default)]
    discover: Option<Box<RawValue>>,
    /// To `tools/list`, all pages as one. None: it has no tools, or so many that they could not be kept.
    #[serde(default)]
    tools: Option<Box<RawValue>>,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// This is the result.
    Result(String),
    /// There is nothing to be had while the server sleeps, and its client can do without: an error of the protocol.
    None,
    /// It was a notification, or an answer: it is taken, and goes nowhere.
    Taken,
    /// Only the server can answer.
    Wake,
}

impl Kept {
    /// Out of the ConfigMap's text. What cannot be read was not kept.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// What becomes of a message while the server sleeps. `modern`: its client follows the rules of 2026-07-28.
    pub fn reply(&self, post: &Post, modern: bool) -> Reply {
        let request = match post {
            Post::Request(request) => request,
            Post::Notification { .. } | Post::Answer { .. } => return Reply::Taken,
        };
        let modern = modern || request.era == Era::Modern;
        match &*request.method {
            "ping" => Reply::Result("{}".into()),
            // Nothing changes while it sleeps; whoever listens asks again, and must not keep it awake by that.
            "subscriptions/listen" => Reply::None,
            "server/discover" => self.discover.as_ref().map_or(Reply::Wake, |discover| Reply::Result(discover.get().to_owned())),
            "tools/list" => self.tools_for(request, modern),
            _ => Reply::Wake,
        }
    }

    fn tools_for(&self, request: &Envelope, modern: bool) -> Reply {
        // A cursor is the server's own, of a list that it gave in pages.
        let cursor = request.params().and_then(|params| serde_json::from_str::<Cursor>(params).ok()?.cursor).is_some();
        match &self.tools {
            Some(tools) if !cursor && modern && self.discover.is_some() => Reply::Result(tools.get().to_owned()),
            Some(tools) if !cursor && !modern => legacy(tools).map_or(Reply::Wake, Reply::Result),
            _ => Reply::Wake,
        }
    }
}

#[derive(Deserialize)]
struct Cursor {
    cursor: Option<IgnoredAny>,
}

/// The same list as a client of an older revision knows it.
fn legacy(tools: &RawValue) -> Option<String> {
    let mut members: Map<String, Value> = serde_json::from_str(tools.get()).ok()?;
    members.retain(|key, _| !MODERN_ONLY.contains(&key.as_str()));
    serde_json::to_string(&members).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MODERN: &str = r#"{"discover":{"supportedVersions":["2026-07-28"],"resultType":"complete"},
        "tools":{"tools":[{"name":"t"}],"resultType":"complete","ttlMs":5}}"#;
    const LEGACY: &str = r#"{"tools":{"tools":[{"name":"t"}]}}"#;

    fn reply(kept: &str, message: &str, modern: bool) -> Reply {
        Kept::read(kept).reply(&Post::read(&Bytes::from(message.to_owned())).unwrap(), modern)
    }

    fn request(method: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)
    }

    #[test]
    fn what_the_server_said_is_said_for_it() {
        let list = r#"{"tools":[{"name":"t"}],"resultType":"complete","ttlMs":5}"#;
        assert_eq!(reply(MODERN, &request("tools/list"), true), Reply::Result(list.into()));
        assert!(matches!(reply(MODERN, &request("server/discover"), true), Reply::Result(said) if said.contains("2026-07-28")));
        let older = Reply::Result(r#"{"tools":[{"name":"t"}]}"#.into());
        assert_eq!(
            [reply(MODERN, &request("tools/list"), false), reply(LEGACY, &request("tools/list"), false)],
            [older, { Reply::Result(r#"{"tools":[{"name":"t"}]}"#.into()) }]
        );
        assert_eq!(reply("{}", &request("ping"), false), Reply::Result("{}".into()));
    }

    #[test]
    fn only_the_server_can_answer_the_rest() {
        for method in ["tools/call", "initialize", "resources/read", "prompts/list", "completion/complete"] {
            assert_eq!(reply(MODERN, &request(method), true), Reply::Wake, "{method}");
        }
        let next = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"2"}}"#;
        assert_eq!(reply(MODERN, next, true), Reply::Wake, "the cursor is the server's own");
        assert_eq!(reply(LEGACY, &request("server/discover"), true), Reply::Wake, "it says no in its own words");
        assert_eq!(reply(LEGACY, &request("tools/list"), true), Reply::Wake);
        for nothing in ["{}", "no JSON", r#"{"tools":null}"#] {
            assert_eq!(reply(nothing, &request("tools/list"), false), Reply::Wake, "{nothing}");
        }
    }

    #[test]
    fn what_needs_no_answer_wakes_nobody_and_listening_keeps_nobody_awake() {
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(reply(LEGACY, ready, false), Reply::Taken);
        assert_eq!(reply(MODERN, r#"{"jsonrpc":"2.0","id":3,"result":{}}"#, true), Reply::Taken);
        assert_eq!(reply(MODERN, &request("subscriptions/listen"), true), Reply::None);
    }
}

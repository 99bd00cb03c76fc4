//! The two eras of the protocol, and what a server says of itself in each: one can be told as the other.

pub use mcp_wire::hello::{LEGACY, MODERN};
use serde_json::{Map, Value, json};

/// Which rules a side follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25: `initialize`, then sessions.
    Legacy,
    /// 2026-07-28: every request is whole in itself.
    Modern,
}

/// All of them, for a client that asks for another one.
pub const ALL: [&str; 5] = [MODERN, LEGACY[0], LEGACY[1], LEGACY[2], LEGACY[3]];

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// Who we are to a child.
pub const CLIENT_INFO: &str = concat!(r#"{"name":"mcpfleet-bridge","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// What a child said of itself: the result of `initialize` or of `server/discover`.
#[derive(Debug, Clone)]
pub struct Hello {
    /// By which of the two.
    pub era: Era,
    /// The revision that is spoken with the child.
    pub version: String,
    said: Map<String, Value>,
}

/// What a child may tell by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a capability")]
pub struct Offers {
    /// `notifications/tools/list_changed`.
    pub tools: bool,
    /// `notifications/prompts/list_changed`.
    pub prompts: bool,
    /// `notifications/resources/list_changed`.
    pub resources: bool,
    /// `resources/subscribe`.
    pub subscribe: bool,
    /// `logging/setLevel`.
    pub logging: bool,
}

impl Hello {
    /// None: no result of `initialize`. Some servers answer anything with `{}`.
    pub fn of_initialize(result: &str) -> Option<Self> {
        let said: Map<String, Value> = serde_json::from_str(result).ok()?;
        let version = said.get("protocolVersion")?.as_str()?.to_owned();
        said.get("capabilities")?.as_object()?;
        Some(Self { era: Era::Legacy, version, said })
    }

    /// None: no result of `server/discover`, or of a server of another revision.
    pub fn of_discover(result: &str) -> Option<Self> {
        let said: Map<String, Value> = serde_json::from_str(result).ok()?;
        said.get("supportedVersions")?.as_array()?.iter().find(|version| *version == MODERN)?;
        Some(Self { era: Era::Modern, version: MODERN.to_owned(), said })
    }

    /// A legacy child that its client initializes.
    pub fn of_a_client() -> Self {
        Self { era: Era::Legacy, version: LEGACY[0].to_owned(), said: Map::new() }
    }

    /// Whether it can also be initialized by a client of an earlier revision.
    pub fn speaks_legacy(&self) -> bool {
        let supported = self.said.get("supportedVersions").and_then(Value::as_array);
        self.era == Era::Legacy
            || supported.is_some_and(|all| all.iter().any(|version| LEGACY.iter().any(|legacy| version == legacy)))
    }

    /// What it may tell by itself.
    pub fn offers(&self) -> Offers {
        let offers =
            |pointer: &str| self.said.get("capabilities").and_then(|all| all.pointer(pointer)) == Some(&Value::Bool(true));
        Offers {
            tools: offers("/tools/listChanged"),
            prompts: offers("/prompts/listChanged"),
            resources: offers("/resources/listChanged"),
            subscribe: offers("/resources/subscribe"),
            logging: self.said.get("capabilities").is_some_and(|all| all.get("logging").is_some()),
        }
    }

    /// The name by which the child goes.
    pub fn server_name(&self) -> Option<&str> {
        self.server_info()?.get("name")?.as_str()
    }

    fn server_info(&self) -> Option<&Value> {
        match self.era {
            Era::Legacy => self.said.get("serverInfo"),
            Era::Modern => self.said.get("_meta")?.get(SERVER_INFO),
        }
    }

    /// The result of `initialize` for a client that asked for a revision: that one if it is older than the child's, so that a client gets
    /// what it knows; otherwise the child's.
    pub fn initialize_result(&self, asked: Option<&str>) -> String {
        let spoken = if self.era == Era::Modern { LEGACY[0] } else { &self.version };
        let version = asked.filter(|asked| LEGACY.contains(asked) && *asked < spoken).unwrap_or(spoken);
        let mut result = match self.era {
            Era::Legacy => self.said.clone(),
            Era::Modern => {
                let mut result = self.without(&["resultType", "supportedVersions", "ttlMs", "cacheScope", "_meta"]);
                let info = self.server_info().cloned();
                result.insert("serverInfo".to_owned(), info.unwrap_or_else(|| json!({"name": "unknown", "version": ""})));
                result
            }
        };
        result.insert("protocolVersion".to_owned(), version.into());
        Value::Object(result).to_string()
    }

    /// The result of `server/discover`.
    pub fn discover_result(&self) -> String {
        let mut result = match self.era {
            Era::Modern => self.said.clone(),
            Era::Legacy => {
                let mut result = self.without(&["protocolVersion", "serverInfo"]);
                let meta = result.entry("_meta").or_insert_with(|| json!({}));
                if let (Some(meta), Some(info)) = (meta.as_object_mut(), self.server_info()) {
                    meta.insert(SERVER_INFO.to_owned(), info.clone());
                }
                result.insert("resultType".to_owned(), "complete".into());
                result.insert("ttlMs".to_owned(), 0.into());
                result.insert("cacheScope".to_owned(), "private".into());
                result
            }
        };
        // Whatever the child speaks, we speak both.
        result.insert("supportedVersions".to_owned(), ALL.as_slice().into());
        Value::Object(result).to_string()
    }

    fn without(&self, keys: &[&str]) -> Map<String, Value> {
        self.said
            .iter()
            .filter(|(key, _)| !keys.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIALIZED: &str = r#"{"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": true}, "logging": {}},
        "serverInfo": {"name": "s", "version": "1"}, "instructions": "read"}"#;
    const DISCOVERED: &str = r#"{"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"resources": {"subscribe": true}},
        "ttlMs": 5, "cacheScope": "public", "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "m", "version": "2"}}}"#;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_legacy_server_is_told_as_a_modern_one() {
        let hello = Hello::of_initialize(INITIALIZED).unwrap();
        assert_eq!(hello.offers(), Offers { tools: true, logging: true, ..Offers::default() });
        assert_eq!(
            parsed(&hello.discover_result()),
            json!({"resultType": "complete", "supportedVersions": ALL, "capabilities": {"tools": {"listChanged": true}, "logging": {}},
                "instructions": "read", "ttlMs": 0, "cacheScope": "private",
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}})
        );
    }

    #[test]
    fn a_modern_server_is_told_as_a_legacy_one() {
        let hello = Hello::of_discover(DISCOVERED).unwrap();
        assert_eq!(hello.server_name(), Some("m"));
        assert_eq!(
            parsed(&hello.initialize_result(Some("2025-06-18"))),
            json!({"protocolVersion": "2025-06-18", "capabilities": {"resources": {"subscribe": true}}, "serverInfo": {"name": "m", "version": "2"}})
        );
    }

    #[test]
    fn a_client_gets_the_older_one_of_two_revisions() {
        let hello = Hello::of_initialize(INITIALIZED).unwrap();
        let version = |asked| parsed(&hello.initialize_result(asked))["protocolVersion"].clone();
        assert_eq!(version(Some("2025-03-26")), "2025-03-26");
        assert_eq!(version(Some("2025-11-25")), "2025-06-18");
        assert_eq!(version(Some("1999-01-01")), "2025-06-18");
        assert_eq!(version(None), "2025-06-18");
    }

    #[test]
    fn an_empty_answer_is_no_hello() {
        assert!(Hello::of_initialize("{}").is_none() && Hello::of_discover("{}").is_none());
        assert!(Hello::of_discover(r#"{"supportedVersions": ["2025-11-25"]}"#).is_none());
    }
}

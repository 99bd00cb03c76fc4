//! What of a call's `_meta` decides on its way: read without making a tree of it, which would take longer than reading the rest.

use std::fmt;

use rmcp::model::{ClientCapabilities, ProtocolVersion};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What begins the keys of `_meta` that mean something to the protocol.
const PROTOCOL_KEYS: &str = "io.modelcontextprotocol/";

/// The facts. All of `_meta` is read again only where it is passed on.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is whether a key is there")]
pub struct Meta {
    /// Progress is sent while a call runs, and then the answer is a stream.
    pub asks_for_progress: bool,
    /// It is of 2026-07-28.
    pub is_modern: bool,
    /// The client says what it can.
    pub has_capabilities: bool,
    /// One of its keys is the protocol's own.
    pub speaks_of_the_protocol: bool,
}

/// A key of `_meta`.
enum Key {
    ProgressToken,
    ProtocolVersion,
    ClientCapabilities,
    /// Another one of the protocol's own.
    Protocol,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "progressToken" => Key::ProgressToken,
                    "io.modelcontextprotocol/protocolVersion" => Key::ProtocolVersion,
                    "io.modelcontextprotocol/clientCapabilities" => Key::ClientCapabilities,
                    key if key.starts_with(PROTOCOL_KEYS) => Key::Protocol,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(Reads)
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Meta;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Meta, A::Error> {
                let mut meta = Meta::default();
                while let Some(key) = map.next_key()? {
                    // Of two that are the same the last one counts, which is for the SDK to see.
                    let twice = match key {
                        Key::ProtocolVersion => std::mem::replace(
                            &mut meta.is_modern,
                            map.next_value::<ProtocolVersion>()? == ProtocolVersion::V_2026_07_28,
                        ),
                        Key::ClientCapabilities => {
                            map.next_value::<ClientCapabilities>()?;
                            std::mem::replace(&mut meta.has_capabilities, true)
                        }
                        Key::ProgressToken | Key::Protocol | Key::Other => {
                            map.next_value::<Sound>()?;
                            meta.asks_for_progress |= matches!(key, Key::ProgressToken);
                            false
                        }
                    };
                    if twice {
                        return Err(A::Error::custom("a key stands in it twice"));
                    }
                    meta.speaks_of_the_protocol |= !matches!(key, Key::ProgressToken | Key::Other);
                }
                Ok(meta)
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

/// Any value that could be read whole. serde's IgnoredAny looks neither at what characters stand for nor at how large numbers are.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<(bool, bool, bool, bool)> {
        let meta: Meta = serde_json::from_str(json).ok()?;
        Some((meta.asks_for_progress, meta.is_modern, meta.has_capabilities, meta.speaks_of_the_protocol))
    }

    #[test]
    fn the_protocols_keys_are_seen_and_others_are_not() {
        let modern = r#"{"a": [1], "io.modelcontextprotocol/protocolVersion": "2026\u002d07-28", "io.modelcontextprotocol/clientCapabilities": {}}"#;
        assert_eq!(read(modern), Some((false, true, true, true)));
        assert_eq!(read(r#"{"progressToken": null, "x/y": 1}"#), Some((true, false, false, false)));
        assert_eq!(read(r#"{"io.modelcontextprotocol/clientInfo": 5}"#), Some((false, false, false, true)));
        assert_eq!(read(r#"{"io.modelcontextprotocol/protocolVersion": "2025-11-25"}"#), Some((false, false, false, true)));
        assert_eq!(read("{}"), Some((false, false, false, false)));
    }

    #[test]
    fn what_is_in_doubt_is_not_read() {
        for doubtful in [
            "null",
            "[]",
            r#"{"a": "\ud800"}"#,
            r#"{"a": [{"b": 1e999}]}"#,
            r#"{"a\ud800": 1}"#,
            r#"{"io.modelcontextprotocol/protocolVersion": 5}"#,
            r#"{"io.modelcontextprotocol/clientCapabilities": []}"#,
            r#"{"io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientCapabilities": {}}"#,
            r#"{"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/protocolVersion": "x"}"#,
        ] {
            assert_eq!(read(doubtful), None, "{doubtful}");
        }
    }
}

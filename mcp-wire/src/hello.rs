//! In which era a server speaks, and what it offers, by its answer to `server/discover` or `initialize`. What only describes it is not looked
//! at.

use std::time::Duration;

use serde_json::{Value, json};

use crate::shape::{ICONS, Shape};

/// The one modern revision that is known here.
pub const MODERN: &str = "2026-07-28";
/// The legacy revisions, newest first.
pub const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", WITH_ARRAYS, "2024-11-05"];
/// The revision in which the messages of an answer may come in an array.
pub const WITH_ARRAYS: &str = "2025-03-26";

/// After so much silence a server is taken for one that does not know `server/discover`: some never answer what they do not know.
pub const SILENCE: Duration = Duration::from_secs(2);

/// What an answer to discover means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovered {
    /// It speaks the modern revision.
    Modern,
    /// It lists revisions, and of those that are known only legacy ones.
    Legacy,
    /// It lists revisions, and none that is known.
    Unknown(Vec<String>),
    /// This is no discover result.
    No,
}

/// Judges the result of `server/discover`.
pub fn discovered(result: &Value) -> Discovered {
    let complete = present(result, "resultType").is_none_or(|kind| kind == "complete");
    let has_capabilities = result.get("capabilities").is_some_and(Value::is_object);
    let Some(versions) = result.get("supportedVersions").and_then(Value::as_array).filter(|_| complete && has_capabilities)
    else {
        return Discovered::No;
    };
    let versions: Vec<&str> = versions.iter().filter_map(Value::as_str).collect();
    if versions.contains(&MODERN) {
        Discovered::Modern
    } else if versions.iter().any(|version| LEGACY.contains(version)) {
        Discovered::Legacy
    } else if versions.is_empty() {
        Discovered::No
    } else {
        Discovered::Unknown(versions.into_iter().map(str::to_owned).collect())
    }
}

/// Why an answer to `initialize` opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("its revision {0:?} is not known here")]
    Revision(String),
}

/// Judges the result of `initialize`: the revision that is agreed upon.
pub fn initialized(result: &Value) -> Result<&'static str, Unusable> {
    let version = result.get("protocolVersion").and_then(Value::as_str);
    let version = version.ok_or(Unusable::Malformed("it names no protocolVersion"))?;
    let known = LEGACY.iter().find(|known| **known == version).ok_or_else(|| Unusable::Revision(version.to_owned()))?;
    if !result.get("capabilities").is_some_and(Value::is_object) {
        return Err(Unusable::Malformed("it names no capabilities"));
    }
    Ok(known)
}

/// By which revision to ask a server to initialize after it refused this one: the latest earlier one of those that it names, or the next
/// where it names none and speaks of its version. `None`: there is no other, or it refused for another reason.
pub fn revision_after(refused: &str, message: &str, supported: &[&str]) -> Option<&'static str> {
    let mut earlier = LEGACY.into_iter().skip_while(|known| *known != refused).skip(1);
    if !supported.is_empty() {
        return earlier.find(|known| supported.contains(known));
    }
    if !message.to_lowercase().contains("version") {
        return None;
    }
    let named = earlier.clone().find(|known| message.contains(known));
    named.or_else(|| earlier.next())
}

/// The revisions that an error of a server names, by its `data`.
pub fn supported(data: Option<&Value>) -> Vec<&str> {
    let supported = data.and_then(|data| data.get("supported")).and_then(Value::as_array);
    supported.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether a server offers what is named so among its capabilities. Whatever is said of it, it is said: some languages write an object
/// without fields as a list without items.
pub fn offers(result: &Value, what: &str) -> bool {
    result.get("capabilities").and_then(|capabilities| present(capabilities, what)).is_some_and(|said| *said != false)
}

/// A result that was judged to be one of `server/discover` or `initialize`, for a strict type: without what does not fit, and with what is
/// missing.
pub fn fit(mut result: Value) -> Value {
    for what in ["tools", "prompts", "resources", "logging", "completions"] {
        let offered = offers(&result, what);
        if let Some(capabilities) = result.get_mut("capabilities").and_then(Value::as_object_mut) {
            if !offered {
                capabilities.remove(what);
            } else if !capabilities.get(what).is_some_and(Value::is_object) {
                capabilities.insert(what.to_owned(), json!({}));
            }
        }
    }
    HELLO.fit(&mut result);
    let defaults =
        [("serverInfo", json!({})), ("resultType", json!("complete")), ("ttlMs", json!(0)), ("cacheScope", json!("private"))];
    for (name, default) in defaults {
        fill(&mut result, name, default);
    }
    for name in ["name", "version"] {
        fill(&mut result["serverInfo"], name, "".into());
    }
    result
}

fn fill(value: &mut Value, name: &str, default: Value) {
    if present(value, name).is_none() {
        value[name] = default;
    }
}

/// A field that is null says the same as one that is not there.
fn present<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

const LISTED: Shape = Shape::Fields { needs: &[], all: &[("subscribe", Shape::Flag), ("listChanged", Shape::Flag)] };

const HELLO: Shape = Shape::Fields {
    needs: &[],
    all: &[
        (
            "capabilities",
            Shape::Fields {
                needs: &[],
                all: &[
                    ("tools", LISTED),
                    ("prompts", LISTED),
                    ("resources", LISTED),
                    ("experimental", Shape::Map(&Shape::Object)),
                    ("extensions", Shape::Map(&Shape::Object)),
                ],
            },
        ),
        (
            "serverInfo",
            Shape::Fields {
                needs: &[],
                all: &[
                    ("name", Shape::Text),
                    ("version", Shape::Text),
                    ("title", Shape::Text),
                    ("description", Shape::Text),
                    ("websiteUrl", Shape::Text),
                    ("icons", ICONS),
                ],
            },
        ),
        ("supportedVersions", Shape::List(&Shape::Text)),
        ("instructions", Shape::Text),
        ("ttlMs", Shape::Whole),
        ("cacheScope", Shape::OneOf(&["public", "private"])),
        ("_meta", Shape::Object),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_known_or_the_answer_opens_nothing() {
        let of = |version: &str| initialized(&json!({"protocolVersion": version, "capabilities": {}}));
        for known in LEGACY {
            assert_eq!(of(known), Ok(known));
        }
        for unknown in ["2099-01-01", "DRAFT-2026-v1", MODERN, ""] {
            assert_eq!(of(unknown), Err(Unusable::Revision(unknown.into())));
        }
        assert_eq!(initialized(&json!({"capabilities": {}})), Err(Unusable::Malformed("it names no protocolVersion")));
        for odd in [json!({}), json!({"capabilities": null}), json!({"capabilities": []})] {
            let mut result = json!({"protocolVersion": "2025-06-18"});
            result.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
            assert_eq!(initialized(&result), Err(Unusable::Malformed("it names no capabilities")), "{odd}");
        }
    }

    #[test]
    fn who_refuses_a_revision_is_asked_by_an_earlier_one() {
        let refused = |supported: &[&str]| revision_after("2025-11-25", "Unsupported protocol version", supported);
        assert_eq!(refused(&["2024-11-05", "2025-03-26", "2031-01-01"]), Some("2025-03-26"), "the latest that it names");
        assert_eq!((refused(&[]), refused(&[MODERN]), refused(&["2025-11-25"])), (Some("2025-06-18"), None, None));
        let said = |message: &str| revision_after("2025-06-18", message, &[]);
        assert_eq!(said("unsupported version 2025-06-18 (supported: 2024-11-05)"), Some("2024-11-05"));
        assert_eq!(said("Unsupported Version"), Some("2025-03-26"));
        assert_eq!((said("no database"), revision_after("2024-11-05", "version", &[])), (None, None));
        assert_eq!(supported(Some(&json!({"supported": ["a", 5]}))), ["a"]);
        assert!(supported(Some(&json!({"supported": "a"}))).is_empty() && supported(None).is_empty());
    }

    #[test]
    fn a_discover_result_lists_revisions_and_names_capabilities() {
        let of = |versions: Value| discovered(&json!({"supportedVersions": versions, "capabilities": {}, "resultType": null}));
        assert_eq!(of(json!(["2025-06-18", MODERN, 5])), Discovered::Modern);
        assert_eq!(of(json!(["2025-06-18", "2031-01-01"])), Discovered::Legacy);
        assert_eq!(of(json!(["2031-01-01"])), Discovered::Unknown(vec!["2031-01-01".into()]));
        for no in [json!([]), json!(MODERN), json!([5])] {
            assert_eq!(of(no), Discovered::No);
        }
        assert_eq!(discovered(&json!({"supportedVersions": [MODERN]})), Discovered::No);
        assert_eq!(discovered(&json!({"supportedVersions": [MODERN], "capabilities": null})), Discovered::No);
        let other = json!({"supportedVersions": [MODERN], "capabilities": {}, "resultType": "input_required"});
        assert_eq!(discovered(&other), Discovered::No);
    }

    #[test]
    fn what_is_said_of_a_capability_is_not_what_is_offered() {
        let offers = |said: Value| offers(&json!({"capabilities": {"tools": said}}), "tools");
        for said in [json!({}), json!([]), json!(true), json!("yes"), json!({"listChanged": "true"})] {
            assert!(offers(said.clone()), "{said}");
        }
        assert!(!offers(json!(null)) && !offers(json!(false)));
    }

    #[test]
    fn what_only_describes_a_server_costs_itself() {
        let hello = json!({
            "protocolVersion": "2025-06-18", "ttlMs": 1.5, "cacheScope": "shared", "instructions": ["a"], "_meta": [],
            "capabilities": {"tools": [], "prompts": {"listChanged": "true"}, "resources": false, "logging": true,
                             "experimental": {"a": true, "b": {}}, "extensions": []},
            "serverInfo": {"version": 1.2, "icons": [{"src": "a", "sizes": "48x48"}]}, "own": 1,
        });
        assert_eq!(
            fit(hello),
            json!({
                "protocolVersion": "2025-06-18", "ttlMs": 0, "cacheScope": "private", "resultType": "complete",
                "capabilities": {"tools": {}, "prompts": {}, "logging": {}, "experimental": {"b": {}}},
                "serverInfo": {"name": "", "version": "", "icons": [{"src": "a", "sizes": ["48x48"]}]}, "own": 1,
            })
        );
        for odd in [json!(null), json!("x"), json!([])] {
            assert_eq!(fit(json!({"serverInfo": odd}))["serverInfo"], json!({"name": "", "version": ""}));
        }
    }
}

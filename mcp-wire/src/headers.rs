//! The headers by which a request of the modern era says what it is, so that whoever stands between need not read it (SEP-2243).

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const ARGUMENT: &str = "mcp-param-";
/// By what a schema says that an argument is one of the headers.
const IN_A_HEADER: &str = "x-mcp-header";

/// Headers of HTTP and MCP themselves, in small letters: a request has them, or has them from hop to hop, whoever asks.
pub const OF_EVERY_REQUEST: [&str; 16] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header is one of those, in any letters.
pub fn is_of_every_request(name: &str) -> bool {
    OF_EVERY_REQUEST.contains(&name.to_ascii_lowercase().as_str())
}

/// So many headers an answer may have. Clients of other makers read more than the 100 that hyper takes unless it is told.
pub const MOST: usize = 512;

/// An argument that is one of the headers, too: where it stands, and the header's name.
pub type Named = (Vec<String>, String);

/// The headers of a request, by its method and the name that it is about.
pub fn of(method: &'static str, name: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(METHOD, HeaderValue::from_static(method));
    if let Some(name) = name.and_then(|name| HeaderValue::try_from(encoded(name)).ok()) {
        headers.insert(NAME, name);
    }
    headers
}

/// Those of its arguments that are headers, too.
pub fn arguments(headers: &mut HeaderMap, named: &[Named], arguments: &Value) {
    for (path, name) in named {
        let argument = path.iter().try_fold(arguments, |value, key| value.get(key));
        let text = match argument {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            _ => continue,
        };
        let name = HeaderName::try_from(format!("{ARGUMENT}{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(encoded(&text))) {
            headers.insert(name, value);
        }
    }
}

/// Which arguments of a tool are headers, too.
pub fn named(schema: &Map<String, Value>) -> Vec<Named> {
    fn look(properties: Option<&Value>, path: &mut Vec<String>, found: &mut Vec<Named>) {
        for (name, schema) in properties.and_then(Value::as_object).into_iter().flatten() {
            path.push(name.clone());
            if let Some(header) = schema.get(IN_A_HEADER).and_then(Value::as_str).filter(|header| !header.is_empty()) {
                found.push((path.clone(), header.to_owned()));
            }
            look(schema.get("properties"), path, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    look(schema.get("properties"), &mut Vec::new(), &mut found);
    found
}

/// What a header cannot hold as it is goes in base64.
fn encoded(text: &str) -> String {
    let plain = text.bytes().all(|byte| matches!(byte, 0x20..=0x7E)) && text.trim_matches(' ') == text;
    if plain && !(text.starts_with("=?base64?") && text.ends_with("?=")) {
        return text.to_owned();
    }
    format!("=?base64?{}?=", BASE64.encode(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_says_its_method_its_name_and_the_arguments_that_are_headers() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}, "q": {"type": "string"},
            "deep": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}, "absent": {"x-mcp-header": "A"}}}}});
        let named = named(schema.as_object().unwrap());
        let mut all = of("tools/call", Some("grüße"));
        arguments(&mut all, &named, &json!({"region": " eu", "q": "x", "deep": {"n": 5}}));
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        for expected in [
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?Z3LDvMOfZQ==?="),
            ("mcp-param-region", "=?base64?IGV1?="),
            ("mcp-param-n", "5"),
        ] {
            assert!(all.contains(&expected), "{expected:?} in {all:?}");
        }
        assert_eq!(all.len(), 4);
        assert_eq!((encoded(""), encoded("=?base64?x?=").starts_with("=?base64?PT9i")), (String::new(), true));
    }
}

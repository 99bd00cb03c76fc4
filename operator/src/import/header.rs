//! Headers of requests as other programs write them. Pure.

/// The headers that every request of HTTP or MCP has: the API takes none of them.
pub const OF_EVERY_REQUEST: [&str; 10] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Options of programs whose value is a header.
pub const OPTIONS: [&str; 3] = ["-H", "--header", "--headers"];

/// Further headers that say nothing of who asks.
const HARMLESS: [&str; 4] = ["accept-encoding", "accept-language", "cache-control", "user-agent"];

/// Name, what stands between, and value. `0.0.0.0`, `localhost:8080` and an address are none.
pub fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once(':')?;
    let value = rest.trim_start();
    let is_port = !value.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let between = &text[name.len()..text.len() - value.len()];
    (is_name(name) && !is_port && !rest.starts_with("//")).then_some((name, between, value))
}

/// Whether it can be the name of a header.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&*+.^_|~-".contains(c))
}

/// Whether the header is no secret of the one who asks, whatever its value.
pub fn is_harmless(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OF_EVERY_REQUEST.contains(&name.as_str()) || HARMLESS.contains(&name.as_str())
}

/// Why a header cannot be one of spec.remote.headersFrom. None: it can.
pub fn refused(name: &str) -> Option<&'static str> {
    if OF_EVERY_REQUEST.contains(&name.to_ascii_lowercase().as_str()) {
        Some("every request has it, and it is left out")
    } else if is_name(name) {
        None
    } else {
        Some("no header has such a name, and it is left out")
    }
}

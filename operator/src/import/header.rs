//! Headers of requests as other programs write them. Pure.

use mcp_wire::headers::is_of_every_request;

/// Options of programs whose value is a header.
pub const OPTIONS: [&str; 3] = ["-H", "--header", "--headers"];

/// Further headers that say nothing of who asks.
const HARMLESS: [&str; 3] = ["accept-language", "cache-control", "user-agent"];

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
    is_of_every_request(name) || HARMLESS.contains(&name.to_ascii_lowercase().as_str())
}

/// Why a header cannot be one of spec.remote.headersFrom. None: it can.
pub fn refused(name: &str) -> Option<&'static str> {
    if is_of_every_request(name) {
        Some("every request has it, and it is left out")
    } else if is_name(name) {
        None
    } else {
        Some("no header has such a name, and it is left out")
    }
}

//! The headers that every answer carries: what a browser may do with it. A handler that sets one of them is left its own.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Of the page: everything that it shows and runs comes from this server, and no text can become a script.
pub const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
/// Of everything that is no page.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

const EVERYWHERE: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, DATA_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Not "no-referrer": with it, browsers send `Origin: null` with the sign-in form, which is refused as foreign.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
    ),
    // Conversations and tokens are nobody's to keep on the way.
    (header::CACHE_CONTROL, "no-store"),
];

/// Adds them.
pub fn add(mut response: Response) -> Response {
    for (name, value) in EVERYWHERE {
        let headers = response.headers_mut();
        // Also instead of the bare "no-cache" of a library's stream of events.
        let bare = name == header::CACHE_CONTROL && headers.get(&name).is_some_and(|value| value == "no-cache");
        if bare && is_events(headers.get(header::CONTENT_TYPE)) {
            headers.remove(&name);
        }
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn is_events(kind: Option<&HeaderValue>) -> bool {
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// OPTIONS is answered with what a path takes. Nothing in it lets another site in.
pub fn options(response: &Response) -> Option<Response> {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return None;
    }
    let allowed = response.headers().get(header::ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let allowed = if allowed.is_empty() { "OPTIONS".to_owned() } else { format!("{allowed},OPTIONS") };
    Some((StatusCode::NO_CONTENT, [(header::ALLOW, allowed)]).into_response())
}

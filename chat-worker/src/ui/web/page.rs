//! What a browser gets: one page with its scripts and style, embedded in the program. Nothing comes from anywhere else, and
//! the policy (`headers`) says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{headers::PAGE_POLICY, problem, state::Web};

const INDEX: &str = include_str!("assets/index.html");
const GATEWAY: &str = include_str!("assets/gateway.html");
const SIGN_IN: &str = include_str!("assets/signin.html");
const OPENAPI: &str = include_str!("assets/openapi.json");

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const FILES: &[(&str, &str, &str)] = &[
    ("app.js", SCRIPT, include_str!("assets/app.js")),
    ("attached.js", SCRIPT, include_str!("assets/attached.js")),
    ("beyond.js", SCRIPT, include_str!("assets/beyond.js")),
    ("cards.js", SCRIPT, include_str!("assets/cards.js")),
    ("composer.js", SCRIPT, include_str!("assets/composer.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("export.js", SCRIPT, include_str!("assets/export.js")),
    ("gateway.js", SCRIPT, include_str!("assets/gateway.js")),
    ("live.js", SCRIPT, include_str!("assets/live.js")),
    ("markdown.js", SCRIPT, include_str!("assets/markdown.js")),
    ("record.js", SCRIPT, include_str!("assets/record.js")),
    ("scroll.js", SCRIPT, include_str!("assets/scroll.js")),
    ("sidebar.js", SCRIPT, include_str!("assets/sidebar.js")),
    ("store.js", SCRIPT, include_str!("assets/store.js")),
    ("stream.js", SCRIPT, include_str!("assets/stream.js")),
    ("turn.js", SCRIPT, include_str!("assets/turn.js")),
    ("view.js", SCRIPT, include_str!("assets/view.js")),
    ("welcome.js", SCRIPT, include_str!("assets/welcome.js")),
    ("words.js", SCRIPT, include_str!("assets/words.js")),
    ("app.css", STYLE, include_str!("assets/app.css")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// By name: the kind, the text, and the tag that says whether a browser's copy is this one.
static ASSETS: LazyLock<BTreeMap<&str, (&str, &str, String)>> = LazyLock::new(|| {
    let tag = |text: &str| format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(text)[..12]));
    FILES.iter().map(|(name, kind, text)| (*name, (*kind, *text, tag(text)))).collect()
});

/// A page. A new version must not run with an old script: a browser asks each time whether its copy is the right one.
fn html(text: String) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// The chat, or the list of a gateway. Where no token is asked for, there is nothing to sign out of.
pub async fn index(State(web): State<Arc<Web>>) -> Response {
    let hidden = if web.access.is_closed() { "" } else { "hidden" };
    let page = if web.app.is_gateway { GATEWAY } else { INDEX };
    html(page.replace("data-account", hidden))
}

/// The page for those who have not presented a token; the message says what was wrong with what they presented.
pub fn sign_in(status: StatusCode, message: Option<&str>) -> Response {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let message = message.map(|text| format!("<p id=\"wrong\" class=\"error\" role=\"alert\">{}</p>", escape(text)));
    let described = if message.is_some() { "aria-invalid=\"true\" aria-describedby=\"wrong\"" } else { "" };
    let page = SIGN_IN.replace("<!--message-->", &message.unwrap_or_default()).replace("data-wrong", described);
    (status, html(page)).into_response()
}

pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((kind, text, tag)) = ASSETS.get(name.as_str()) else { return problem::not_found().await.into_response() };
    let caching = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, *kind)], *text).into_response()
}

pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

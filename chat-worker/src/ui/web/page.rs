//! What a browser gets: one page with its script and style, embedded in the program. Nothing comes from anywhere else, and
//! the policy says so.

use axum::{
    extract::Path,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::problem;

const INDEX: &str = include_str!("assets/index.html");
const SIGN_IN: &str = include_str!("assets/signin.html");
const SCRIPT: &str = include_str!("assets/app.js");
const MARKDOWN: &str = include_str!("assets/markdown.js");
const STYLE: &str = include_str!("assets/app.css");
const ICON: &str = include_str!("assets/icon.svg");
const OPENAPI: &str = include_str!("assets/openapi.json");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

fn headers(kind: &'static str) -> [(HeaderName, &'static str); 4] {
    [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Not "no-referrer": with it, browsers send `Origin: null` with the sign-in form, which is refused as foreign.
        (header::REFERRER_POLICY, "same-origin"),
        // A new version must not run with an old script.
        (header::CACHE_CONTROL, "no-cache"),
    ]
}

pub async fn index() -> Response {
    (headers("text/html; charset=utf-8"), INDEX).into_response()
}

/// The page for those who have not presented a token; 403 says that the one they presented is wrong.
pub fn sign_in(status: StatusCode) -> Response {
    let wrong = status == StatusCode::FORBIDDEN;
    let message = if wrong { "<p role=\"alert\">That is not the token.</p>" } else { "" };
    (status, headers("text/html; charset=utf-8"), SIGN_IN.replace("<!--message-->", message)).into_response()
}

pub async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "app.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "markdown.js" => ("text/javascript; charset=utf-8", MARKDOWN),
        "app.css" => ("text/css; charset=utf-8", STYLE),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return problem::not_found().await.into_response(),
    };
    (headers(kind), text).into_response()
}

pub async fn openapi() -> Response {
    (headers("application/json"), OPENAPI).into_response()
}

//! Who may use the page and the API: those who present the token, as a bearer or by the cookie that signing in gives.
//! The cookie is made from the token, so that every replica takes it and a rotated token ends every session.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use axum::{
    Form,
    extract::{Extension, Request, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Web, forwarded::Caller, page, problem::Problem};
use crate::tools::catalogue::hex;

const COOKIE: &str = "mcpfleet_session";

/// The rule in force.
#[derive(Debug)]
pub struct Access {
    token_file: Option<PathBuf>,
    /// Only this machine can connect: a name that is not its own is somebody else's page.
    loopback: bool,
}

impl Access {
    pub fn new(token_file: Option<PathBuf>, loopback: bool) -> Self {
        Self { token_file, loopback }
    }

    /// Read at every request: the file is small, and a rotated token counts at once.
    fn token(&self) -> Result<Option<String>, Problem> {
        let Some(path) = &self.token_file else { return Ok(None) };
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
            other => {
                let why = other.err().map_or_else(|| "it is empty".to_owned(), |error| error.to_string());
                tracing::error!("nobody gets in: the access token file {} cannot be used: {why}", path.display());
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the access token of this server cannot be read"))
            }
        }
    }

    pub fn allows(&self, headers: &HeaderMap) -> Result<bool, Problem> {
        let Some(token) = self.token()? else { return Ok(true) };
        let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        let bearer = text(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        if let Some(bearer) = bearer {
            return Ok(same(bearer, &token));
        }
        let cookies = text(header::COOKIE).unwrap_or_default();
        let session = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        Ok(session.is_some_and(|session| same(session, &session_of(&token))))
    }

    /// Whether a token is asked for at all.
    pub fn is_closed(&self) -> bool {
        self.token_file.is_some()
    }

    /// A page of another site must neither act nor read with this user's cookie, nor reach this machine by a name of its own.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if self.loopback && !is_local(host) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "this server answers to localhost only"));
        }
        match headers.get(header::ORIGIN) {
            Some(origin) if !is_of(origin.as_bytes(), host) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "the request comes from another site"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether an Origin is that of a page of this host. `null`, which sandboxed pages send, is nobody's.
fn is_of(origin: &[u8], host: &str) -> bool {
    let origin = std::str::from_utf8(origin).unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, named)| named.eq_ignore_ascii_case(host))
}

/// Whether a Host header names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares digests, so that the time tells nothing of where two tokens differ.
fn same(given: &str, expected: &str) -> bool {
    Sha256::digest(given.as_bytes()) == Sha256::digest(expected.as_bytes())
}

fn session_of(token: &str) -> String {
    hex(&Sha256::new().chain_update("mcpfleet chat session\0").chain_update(token).finalize())
}

/// Lets a request through, or says why not; the page becomes a sign-in page.
pub async fn require(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    if let Err(problem) = web.access.check_origin(request.headers()) {
        return problem.into_response();
    }
    match web.access.allows(request.headers()) {
        Ok(true) => next.run(request).await,
        Ok(false) if request.uri().path() == "/" => page::sign_in(StatusCode::UNAUTHORIZED, None),
        Ok(false) => {
            let given = request.headers().contains_key(header::AUTHORIZATION);
            let what = if given { "this is not the access token; " } else { "" };
            let detail = format!("{what}present the access token: Authorization: Bearer …");
            Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// What the sign-in page sends.
#[derive(Deserialize)]
pub struct SignIn {
    token: String,
}

pub async fn sign_in(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    form: Result<Form<SignIn>, FormRejection>,
) -> Response {
    if let Err(problem) = web.access.check_origin(&headers) {
        return problem.into_response();
    }
    // Whoever fills in the form reads the page; a program reads the problem.
    let refuse = |problem: Problem| {
        let page = accepts_html(&headers).then(|| page::sign_in(problem.status, Some(&problem.detail)));
        let mut response = page.unwrap_or_else(|| problem.clone().into_response());
        if let Some(seconds) = problem.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    };
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return refuse(Problem::new(rejection.status(), rejection.body_text())),
    };
    // Guessing is limited like everything else.
    if let Some(Err(wait)) = web.rate.as_ref().map(|rate| rate.take(&format!("signin {}", caller.address))) {
        let seconds = wait.as_secs() + 1;
        let detail = format!("Too many attempts. Try again in {seconds} s.");
        return refuse(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds));
    }
    match web.access.token() {
        Ok(Some(token)) if same(form.token.trim(), &token) => {
            ([(header::SET_COOKIE, cookie(&session_of(&token), caller.tls))], Redirect::to("/")).into_response()
        }
        Ok(Some(_)) => refuse(Problem::new(StatusCode::FORBIDDEN, "That is not the token.")),
        Ok(None) => Redirect::to("/").into_response(),
        Err(problem) => refuse(problem),
    }
}

pub async fn sign_out(State(web): State<Arc<Web>>, Extension(caller): Extension<Caller>, headers: HeaderMap) -> Response {
    if let Err(problem) = web.access.check_origin(&headers) {
        return problem.into_response();
    }
    let expired = cookie("", caller.tls) + "; Max-Age=0";
    ([(header::SET_COOKIE, expired)], Redirect::to("/")).into_response()
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// Out of reach of scripts and of other sites; over TLS only where the user came by TLS.
fn cookie(value: &str, tls: bool) -> String {
    let secure = if tls { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn the_token_or_its_cookie_opens_and_rotation_closes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let access = Access::new(Some(file.path().to_owned()), false);
        let allows = |pairs: &[(header::HeaderName, &str)]| access.allows(&headers(pairs)).expect("readable");
        let session = format!("other=1; {COOKIE}={}", session_of("s3cret"));
        assert!(allows(&[(header::AUTHORIZATION, "bearer s3cret")]));
        assert!(allows(&[(header::COOKIE, &session)]));
        assert!(!allows(&[(header::AUTHORIZATION, "Bearer s3cre")]));
        assert!(!allows(&[]));
        let naive = format!("{COOKIE}=s3cret");
        assert!(!allows(&[(header::COOKIE, &naive)]), "the token itself is no session");
        std::fs::write(file.path(), "another").expect("written");
        assert!(!allows(&[(header::COOKIE, &session)]));
        std::fs::write(file.path(), "").expect("written");
        assert!(access.allows(&headers(&[])).is_err(), "without a token nobody gets in");
    }

    #[test]
    fn other_sites_and_other_names_are_refused() {
        let open = Access::new(None, true);
        let check = |pairs: &[(header::HeaderName, &str)]| open.check_origin(&headers(pairs)).is_ok();
        assert!(check(&[(header::HOST, "localhost:8080"), (header::ORIGIN, "http://localhost:8080")]));
        assert!(check(&[(header::HOST, "127.0.0.1:8080")]));
        assert!(check(&[(header::HOST, "[::1]:8080")]));
        for foreign in ["https://evil.example", "http://localhost:8081", "null", "localhost:8080"] {
            assert!(!check(&[(header::HOST, "localhost:8080"), (header::ORIGIN, foreign)]), "{foreign}");
        }
        assert!(!check(&[(header::HOST, "evil.example")]));
    }
}

//! What `access` decides, asked of each request, and the page on which the token is given once for a cookie.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Extension, Request, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
};
use http_server::{forwarded::Caller, token};
use serde::Deserialize;

use super::{
    access::{Presented, cookie, presented, session_of},
    page,
    problem::Problem,
    state::Web,
};

/// The refusal of a request that comes from another site, or by a name that may be one's.
pub fn foreign(web: &Web, caller: Caller, request: &Request) -> Option<Response> {
    web.access.check_origin(request.uri(), request.headers(), caller).err().map(Problem::into_response)
}

/// The refusal of a request that does not bring the token; of the page, it is a sign-in page.
pub fn unknown(web: &Web, caller: Caller, request: &Request) -> Option<Response> {
    match web.access.allows(&presented(request.headers()), caller) {
        Ok(true) => None,
        Ok(false) if request.uri().path() == "/" => Some(page::sign_in(StatusCode::UNAUTHORIZED, None)),
        Ok(false) => {
            let given = request.headers().contains_key(header::AUTHORIZATION);
            let what = if given { "this is not the access token; " } else { "" };
            let detail = format!("{what}present the access token: Authorization: Bearer …");
            Some(Problem::new(StatusCode::UNAUTHORIZED, detail).into_response())
        }
        Err(problem) => Some(problem.into_response()),
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
    uri: Uri,
    headers: HeaderMap,
    form: Result<Form<SignIn>, FormRejection>,
) -> Response {
    if let Err(problem) = web.access.check_origin(&uri, &headers, caller) {
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
    if !web.access.is_closed() {
        return Redirect::to("/").into_response();
    }
    match web.access.allows(&Presented::Form(&form.token), caller) {
        Ok(true) => {
            let session = session_of(&token::digest(&form.token));
            ([(header::SET_COOKIE, cookie(&session, caller.tls))], Redirect::to("/")).into_response()
        }
        Ok(false) => refuse(Problem::new(StatusCode::FORBIDDEN, "That is not the token.")),
        Err(problem) => refuse(problem),
    }
}

pub async fn sign_out(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(problem) = web.access.check_origin(&uri, &headers, caller) {
        return problem.into_response();
    }
    let expired = cookie("", caller.tls) + "; Max-Age=0";
    ([(header::SET_COOKIE, expired)], Redirect::to("/")).into_response()
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

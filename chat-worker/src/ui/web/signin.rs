//! What `access` decides, asked of each request, and the page on which the token is given once for a cookie.

use std::sync::Arc;

use axum::{
    Form,
    body::Body,
    extract::{Extension, FromRequest as _, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
};
use http_server::{body, forwarded::Caller, token};
use serde::Deserialize;

use super::{
    BODY_PATIENCE,
    access::{Presented, cookie, presented, session_of},
    closing, page,
    problem::Problem,
    state::Web,
    too_many, unread,
};

/// A token, in a form. Whoever sends it is a stranger.
const MAX_FORM: usize = 4 << 10;

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

/// Keeps the pace, as whatever a stranger may send does.
pub async fn sign_in(State(web): State<Arc<Web>>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    if let Some(refusal) = foreign(&web, caller, &request) {
        return refusal;
    }
    let (parts, body) = request.into_parts();
    // Whoever fills in the form reads the page; a program reads the problem.
    let reads_html = accepts_html(&parts.headers);
    let refuse = |problem: Problem| {
        let page = reads_html.then(|| page::sign_in(problem.status, Some(&problem.detail)));
        let mut response = page.unwrap_or_else(|| problem.clone().into_response());
        if let Some(seconds) = problem.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    };
    if let Some(problem) = too_many(&web, caller, &parts.headers).await {
        return refuse(problem);
    }
    let body = match body::whole(body, MAX_FORM, BODY_PATIENCE).await {
        Ok(body) => body,
        Err(error) => return closing(refuse(unread(error, MAX_FORM))),
    };
    let form: SignIn = match Form::from_request(Request::from_parts(parts, Body::from(body)), &()).await {
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

//! Which requests may go the short way (direct.rs): complete, well-formed calls of 2026-07-28, or of an earlier revision without a session.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method};
use http_server::host::only;

use crate::direct::{Answers, DirectCall, Era, METHOD};

const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// By the header alone; None: not one for the short way.
fn era(headers: &HeaderMap, legacy: bool) -> Option<Era> {
    if !headers.contains_key(&VERSION_HEADER) {
        return legacy.then_some(Era::Legacy);
    }
    match Era::of(only(headers, &VERSION_HEADER)?)? {
        Era::Modern => (only(headers, &METHOD_HEADER)? == METHOD).then_some(Era::Modern),
        Era::Legacy => legacy.then_some(Era::Legacy),
    }
}

/// Reads a request; None: the SDK's. `legacy`: revisions before 2026-07-28 are served without sessions, so that a call is whole in itself.
pub fn read<'a, A: Answers>(method: &Method, headers: &HeaderMap, body: &'a [u8], legacy: bool) -> Option<(DirectCall<'a>, Era)> {
    let plain = method == Method::POST
        && only(headers, &CONTENT_TYPE) == Some("application/json")
        && matches!(only(headers, &ACCEPT), Some("application/json, text/event-stream" | "application/json,text/event-stream"));
    if !plain {
        return None;
    }
    let era = era(headers, legacy)?;
    let call = DirectCall::read::<A>(body)?;
    let named = era == Era::Legacy || only(headers, &NAME_HEADER) == Some(call.tool());
    (named && call.fits(era)).then_some((call, era))
}

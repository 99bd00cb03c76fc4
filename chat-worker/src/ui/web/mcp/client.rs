//! Who calls over /mcp, and what it can. A client of the modern era says so in each request. One of an earlier era says it once, when it
//! initializes, and is given a session id that repeats it: so nothing is kept, and any replica takes any request.

#![allow(deprecated, reason = "roots, sampling and messages for a log, which earlier eras have")]

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderName, request::Parts};
use http_server::forwarded::Caller;
use rmcp::{
    RoleServer,
    model::{
        ClientCapabilities, ElicitationCapability, FormElicitationCapability, LoggingLevel, RequestMetaObject, RootsCapabilities,
        SamplingCapability, UrlElicitationCapability,
    },
    service::RequestContext,
};
use serde_json::Value;

use crate::heavy::Weight;

pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PREFIX: &str = "mcpfleet-";
/// What a session id says that a client can, by letters.
const FORM: char = 'f';
const URL: char = 'u';
const SAMPLING: char = 's';
const SAMPLING_TOOLS: char = 't';
const SAMPLING_CONTEXT: char = 'c';
const ROOTS: char = 'r';
const NOTHING: char = '0';

/// That the client takes a stream of events as the answer to this request.
#[derive(Debug, Clone, Copy)]
pub struct Streams(pub bool);

/// The client of one request.
#[derive(Debug, Default)]
pub struct Client {
    /// Its address, for the audit.
    pub caller: String,
    /// Of an earlier era.
    pub session: Option<String>,
    pub is_modern: bool,
    pub can: ClientCapabilities,
    /// For its progress, as it was written.
    pub token: Option<Value>,
    /// From which level on it wants messages for a log, where the request says it.
    pub log_level: Option<LoggingLevel>,
    /// What its request takes of the memory, where that is much.
    pub weight: usize,
    streams: bool,
}

impl Client {
    pub fn of(context: &RequestContext<RoleServer>) -> Self {
        let is_modern = context.protocol_version().is_some_and(|version| !version.has_initialize());
        match context.extensions.get::<Parts>() {
            Some(parts) => Self::who_sent(parts, &context.meta, is_modern),
            None => Self { is_modern, ..Self::default() },
        }
    }

    /// The client that sent this.
    pub fn who_sent(parts: &Parts, meta: &RequestMetaObject, is_modern: bool) -> Self {
        let session = session(&parts.headers);
        let can = if is_modern { meta.client_capabilities().unwrap_or_default() } else { session.map(said).unwrap_or_default() };
        let caller = parts.extensions.get::<Caller>();
        Self {
            caller: caller.map_or_else(String::new, |caller| caller.address.to_string()),
            session: session.map(str::to_owned),
            is_modern,
            can: of_calls(can),
            token: meta.get("progressToken").filter(|token| token.is_string() || token.is_number()).cloned(),
            log_level: meta.log_level(),
            weight: parts.extensions.get::<Weight>().map_or(0, |weight| weight.0),
            streams: parts.extensions.get::<Streams>().is_some_and(|streams| streams.0),
        }
    }

    /// Whether it can hear anything before its call has ended.
    pub fn listens(&self) -> bool {
        self.comes_back() || (self.streams && (self.token.is_some() || self.takes_logs()))
    }

    /// Whether it makes a call again with the answers to what was asked.
    pub fn comes_back(&self) -> bool {
        self.is_modern && self.can != ClientCapabilities::default()
    }

    pub fn takes_logs(&self) -> bool {
        self.streams && if self.is_modern { self.log_level.is_some() } else { self.session.is_some() }
    }
}

/// The session id of a request, if it is one of ours.
pub fn session(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION)?.to_str().ok().filter(|id| id.starts_with(PREFIX) && id.len() < 64)
}

/// A new session's id for a client that can so much.
pub fn new_session(can: &ClientCapabilities) -> String {
    let can = of_calls(can.clone());
    let mut id = PREFIX.to_owned();
    if let Some(elicitation) = &can.elicitation {
        // Without either, a form is meant, as in the first revision that had it.
        id.extend((elicitation.form.is_some() || elicitation.url.is_none()).then_some(FORM));
        id.extend(elicitation.url.is_some().then_some(URL));
    }
    if let Some(sampling) = &can.sampling {
        id.push(SAMPLING);
        id.extend(sampling.tools.is_some().then_some(SAMPLING_TOOLS));
        id.extend(sampling.context.is_some().then_some(SAMPLING_CONTEXT));
    }
    id.extend(can.roots.is_some().then_some(ROOTS));
    if id.len() == PREFIX.len() {
        id.push(NOTHING);
    }
    // Writing to a String cannot fail.
    let _ = write!(id, "-{}", unguessable());
    id
}

/// Who sent a request, as limits count it.
pub fn counted(parts: Option<&Parts>) -> String {
    let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
    caller.map(|caller| caller.counted_as().to_string()).unwrap_or_default()
}

/// Nobody else knows it.
pub fn unguessable() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn said(session: &str) -> ClientCapabilities {
    let letters = session.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).unwrap_or_default();
    let has = |letter| letters.contains(letter);
    let mut can = ClientCapabilities::default();
    if has(FORM) || has(URL) {
        let mut elicitation = ElicitationCapability::default();
        elicitation.form = has(FORM).then(FormElicitationCapability::default);
        elicitation.url = has(URL).then(UrlElicitationCapability::default);
        can.elicitation = Some(elicitation);
    }
    if has(SAMPLING) {
        let mut sampling = SamplingCapability::default();
        sampling.tools = has(SAMPLING_TOOLS).then(Default::default);
        sampling.context = has(SAMPLING_CONTEXT).then(Default::default);
        can.sampling = Some(sampling);
    }
    can.roots = has(ROOTS).then(RootsCapabilities::default);
    can
}

/// What concerns the calls of tools, and passes through here.
fn of_calls(can: ClientCapabilities) -> ClientCapabilities {
    let mut of_calls = ClientCapabilities::default();
    (of_calls.elicitation, of_calls.sampling, of_calls.roots) = (can.elicitation, can.sampling, can.roots);
    // Servers are not told that they changed: they ask again.
    of_calls.roots.iter_mut().for_each(|roots| roots.list_changed = None);
    of_calls
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_session_id_says_what_its_client_can() {
        for (can, said_again) in [
            (json!({}), json!({})),
            (json!({"roots": {"listChanged": true}}), json!({"roots": {}})),
            (json!({"experimental": {}}), json!({})),
            (json!({"elicitation": {}}), json!({"elicitation": {"form": {}}})),
            (json!({"elicitation": {"url": {}}}), json!({"elicitation": {"url": {}}})),
            (
                json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}}),
                json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}}),
            ),
            (json!({"sampling": {"tools": {}}}), json!({"sampling": {"tools": {}}})),
            (json!({"sampling": {"tools": {}, "context": {}}}), json!({"sampling": {"tools": {}, "context": {}}})),
        ] {
            let can: ClientCapabilities = serde_json::from_value(can).expect("capabilities");
            let id = new_session(&can);
            let again: Value = serde_json::to_value(said(&id)).expect("JSON");
            assert_eq!(again, said_again, "{id}");
            let mut headers = HeaderMap::new();
            headers.insert(SESSION, id.parse().expect("a header"));
            assert_eq!(session(&headers), Some(&id[..]));
        }
        assert_ne!(new_session(&ClientCapabilities::default()), new_session(&ClientCapabilities::default()));
    }
}

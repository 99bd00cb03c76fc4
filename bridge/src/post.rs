//! What a client posts: one message, of which it is known where the parts are that matter.

use std::ops::Range;

use bytes::Bytes;

use crate::era::Era;
use crate::wire::{self, Message};

/// One message of a client's.
#[derive(Debug)]
pub enum Post {
    /// Wants an answer.
    Request(Envelope),
    /// Wants none. The ranges are what `notifications/cancelled` says.
    Notification {
        /// Its name.
        method: Box<str>,
        /// The id of a request that is meant, as it stands in the body.
        request: Option<Range<usize>>,
        /// Why, as it stands in the body: a string.
        reason: Option<Range<usize>>,
        /// As it came.
        body: Bytes,
    },
    /// An answer to a request of the server's.
    Answer {
        /// Of that request.
        id: Box<str>,
        /// As it came.
        body: Bytes,
    },
}

/// A request, and where its parts are in its text.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// As it came.
    pub body: Bytes,
    /// Which rules its client follows.
    pub era: Era,
    /// What is asked for.
    pub method: Box<str>,
    /// The tool, prompt or resource that is meant.
    pub target: Option<Box<str>>,
    /// What its `_meta` says of the protocol.
    pub says: Says,
    id: Range<usize>,
    params: Option<Range<usize>>,
    meta: Option<Range<usize>>,
    token: Option<Range<usize>>,
}

/// What a request's `_meta` says of the protocol.
#[derive(Debug, Clone, Default)]
pub struct Says {
    /// The revision.
    pub version: Option<Box<str>>,
    /// Whether it names what the client can do.
    pub capabilities: bool,
    /// Whether it wants the server's log messages.
    pub log_level: bool,
}

/// Why a body is no message of a client's.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No JSON.
    Parse(String),
    /// Not one JSON-RPC 2.0 message.
    Invalid,
}

impl Post {
    /// Reads a body.
    pub fn read(body: &Bytes) -> Result<Self, Malformed> {
        let Some(message) = Message::read(body) else {
            return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
                Err(error) => Malformed::Parse(error.to_string()),
                Ok(_) => Malformed::Invalid,
            });
        };
        if message.id.is_some_and(|id| !wire::is_id(id))
            || !message.is_2_0()
            || message.params.is_some_and(|params| !params.get().starts_with('{'))
            // A notification that wants an answer is none, and no server would give one.
            || message.id.is_some() && message.method.as_ref().is_some_and(|method| method.0.starts_with("notifications/"))
        {
            return Err(Malformed::Invalid);
        }
        match (&message.method, message.id) {
            (Some(method), Some(id)) => {
                let (method, id) = (method.0.as_ref().into(), wire::span(body, id));
                let params = message.params();
                let meta = params.meta();
                let target = wire::text(params.name).or_else(|| wire::text(params.uri));
                let envelope = Envelope {
                    era: if meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy },
                    method,
                    target: target.map(|target| target.as_ref().into()),
                    says: Says {
                        version: wire::text(meta.protocol_version).map(|version| version.as_ref().into()),
                        capabilities: meta.capabilities.is_some_and(|raw| raw.get().starts_with('{')),
                        log_level: meta.log_level.is_some(),
                    },
                    id,
                    params: message.params.map(|params| wire::span(body, params)),
                    meta: params.meta.map(|meta| wire::span(body, meta)),
                    token: meta.progress_token.map(|token| wire::span(body, token)),
                    body: body.clone(),
                };
                Ok(Self::Request(envelope))
            }
            (Some(method), None) => {
                let params = message.params();
                let request = params.request_id.map(|id| wire::span(body, id));
                let reason = params.reason.filter(|reason| reason.get().starts_with('"')).map(|reason| wire::span(body, reason));
                Ok(Self::Notification { method: method.0.as_ref().into(), request, reason, body: body.clone() })
            }
            (None, Some(id)) if message.result.is_some() || message.error.is_some() => {
                Ok(Self::Answer { id: id.get().into(), body: body.clone() })
            }
            (None, _) => Err(Malformed::Invalid),
        }
    }
}

impl Envelope {
    /// The client's id, as JSON.
    pub fn id(&self) -> &str {
        self.part(&self.id)
    }

    /// Where the id is.
    pub fn id_place(&self) -> Range<usize> {
        self.id.clone()
    }

    /// The params, as JSON.
    pub fn params(&self) -> Option<&str> {
        self.params.as_ref().map(|params| self.part(params))
    }

    /// Where the params are.
    pub fn params_place(&self) -> Option<Range<usize>> {
        self.params.clone()
    }

    /// The `_meta` of the params, as JSON.
    pub fn meta(&self) -> Option<&str> {
        self.meta.as_ref().map(|meta| self.part(meta))
    }

    /// Where the `_meta` is.
    pub fn meta_place(&self) -> Option<Range<usize>> {
        self.meta.clone()
    }

    /// The client's progress token, as JSON.
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| self.part(token))
    }

    /// Where the progress token is.
    pub fn token_place(&self) -> Option<Range<usize>> {
        self.token.clone()
    }

    fn part(&self, place: &Range<usize>) -> &str {
        std::str::from_utf8(&self.body[place.clone()]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Post, Malformed> {
        Post::read(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_request_is_known_by_its_parts() {
        let text = r#"{"jsonrpc":"2.0","id":"a\u0020b","method":"tools/call","params":{"name":"t","_meta":{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let Ok(Post::Request(request)) = read(text) else { unreachable!() };
        assert_eq!((request.id(), request.token(), request.target.as_deref()), (r#""a\u0020b""#, Some("7"), Some("t")));
        assert_eq!(
            (request.era, request.says.version.as_deref(), request.says.capabilities),
            (Era::Modern, Some("2026-07-28"), false)
        );
    }

    #[test]
    fn notifications_and_answers_are_told_apart() {
        let cancelled = read(r#"{"method":"notifications/cancelled","params":{"requestId":5,"reason":"late"},"jsonrpc":"2.0"}"#);
        let Ok(Post::Notification { request: Some(id), reason: Some(reason), body, .. }) = cancelled else { unreachable!() };
        assert_eq!((&body[id], &body[reason]), (&b"5"[..], &b"\"late\""[..]));
        assert!(matches!(read(r#"{"jsonrpc":"2.0","id":"x","result":{}}"#), Ok(Post::Answer { id, .. }) if &*id == "\"x\""));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "[]",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#,
        ] {
            assert_eq!(read(text).unwrap_err(), Malformed::Invalid, "{text}");
        }
        assert!(matches!(read("{"), Err(Malformed::Parse(_))));
    }
}

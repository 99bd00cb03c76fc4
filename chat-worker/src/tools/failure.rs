//! What went wrong on the way to a server, out of the SDK's errors: which of them speak against the server, and in whose words they are told.

use std::{error::Error, time::Duration};

use http::StatusCode;
use rmcp::{
    ErrorData,
    model::ErrorCode,
    service::{ClientInitializeError, ServiceError},
    transport::{DynamicTransportError, streamable_http_client::StreamableHttpError},
};
use serde_json::Value;

use super::{
    error::ServerError,
    pages::asked_first,
    remote::RemoteError,
    request::Failed,
    sanitize::{cap, clean_line, cut},
};
use crate::redact::redact;

/// Pages to open that are told of one error, and how long they may be together, in bytes.
const MAX_PAGES: usize = 8;
const MAX_TOLD_PAGES: usize = 8 * 1024;
/// Of what a server says in the place of a result, in bytes: a log and a model read it.
const MAX_SAID: usize = 16 * 1024;

/// What went wrong while a connection was being made.
pub fn to_start(error: &ClientInitializeError) -> ServerError {
    // What the earlier era came to is what is wrong: the modern one is only tried before it.
    if let ClientInitializeError::LegacyFallbackFailed { discover, fallback } = error {
        // One that has none of it is of the modern era, and has said what is wrong.
        let has_none =
            matches!(&**fallback, ClientInitializeError::JsonRpcError(error) if error.code == ErrorCode::METHOD_NOT_FOUND);
        return to_start(if has_none { discover } else { fallback });
    }
    // The SDK does not name what the transport met as this error's source.
    let met: &(dyn Error + 'static) = match error {
        ClientInitializeError::TransportError { error, .. } => error,
        other => other,
    };
    let text = redact(&clean_line(&with_causes(met))).into_owned();
    match error {
        ClientInitializeError::TransportError { .. } if let Some(wait) = limited(met) => ServerError::Limited(text, wait),
        ClientInitializeError::TransportError { .. } if !was_refused(met) => ServerError::Connect(text),
        ClientInitializeError::ConnectionClosed(_) => ServerError::Connect(text),
        _ => ServerError::Refused(text),
    }
}

/// What became of a call, which had so long, instead of a result. An error of the server's own is kept as it is.
pub fn of_call(failed: Failed, limit: Duration) -> ServerError {
    match failed {
        Failed::Own(error) => ServerError::Own(own(&error), Box::new(error)),
        Failed::Otherwise(error) => of(&error, limit),
    }
}

/// What a server says in the place of a result, for whoever reads it: with the pages that are to be opened first.
pub fn own(error: &ErrorData) -> String {
    in_bounds(&error.message) + &pages(error)
}

/// A server's sentence, for whoever reads it: it may be of any length.
fn in_bounds(said: &str) -> String {
    let (said, left) = cut(said, MAX_SAID);
    let said = redact(&clean_line(&said)).into_owned();
    if left == 0 { said } else { format!("{said} [cut off here: {left} more bytes]") }
}

/// The pages that an error asks to open before the same is asked for again.
fn pages(error: &ErrorData) -> String {
    let page = |asked: &Value| {
        let (page, why) = (clean_line(asked["url"].as_str()?), clean_line(asked["message"].as_str().unwrap_or_default()));
        Some(if why.is_empty() { page } else { format!("{page} ({why})") })
    };
    let pages: Vec<String> = asked_first(error).filter_map(page).take(MAX_PAGES).collect();
    if pages.is_empty() { String::new() } else { cap(format!("; first open {}", pages.join(", ")), MAX_TOLD_PAGES).0 }
}

/// What became of a request instead of an answer, which had so long.
pub fn of(error: &ServiceError, limit: Duration) -> ServerError {
    let text = || redact(&clean_line(&with_causes(error))).into_owned();
    match error {
        ServiceError::McpError(error) => ServerError::Refused(in_bounds(&error.message)),
        ServiceError::Timeout { .. } => ServerError::Timeout(limit),
        _ if let Some(wait) = limited(error) => ServerError::Limited(text(), wait),
        // It is up, and says no, or nothing that we take.
        _ if was_refused(error) => ServerError::Refused(text()),
        _ if matches!(met(error), Some(RemoteError::Unreached(_))) => ServerError::Connect(text()),
        ServiceError::UnexpectedResponse => ServerError::Refused("the server's result is malformed".to_owned()),
        _ => ServerError::Transport(text()),
    }
}

/// The error, what caused it, what caused that, and so on.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (**error).source())
}

/// Whether the server was reached, and it, or what stands in front of it, will say the same again. A gateway that has nobody behind it is
/// no such answer.
fn was_refused(error: &(dyn Error + 'static)) -> bool {
    match met(error) {
        Some(RemoteError::Status(refusal)) => !refusal.status.is_server_error(),
        Some(
            RemoteError::Redirected(_)
            | RemoteError::TooLarge(_)
            | RemoteError::Coding(_)
            | RemoteError::Credentials(_)
            | RemoteError::Url(_),
        ) => true,
        Some(RemoteError::Unreached(_) | RemoteError::Transport(_)) | None => false,
    }
}

/// For how long the server asks to be left alone, if it does.
fn limited(error: &(dyn Error + 'static)) -> Option<Duration> {
    match met(error) {
        Some(RemoteError::Status(refusal)) if refusal.status == StatusCode::TOO_MANY_REQUESTS => {
            Some(refusal.retry_after.unwrap_or_default())
        }
        _ => None,
    }
}

/// What a request met on its way by HTTP: our own client's word, which the SDK holds, but does not name as its error's source.
fn met<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e RemoteError> {
    chain(error).find_map(|error| match error.downcast_ref::<StreamableHttpError<RemoteError>>() {
        Some(StreamableHttpError::Client(met)) => Some(met),
        _ => error.downcast_ref::<RemoteError>(),
    })
}

/// The error and its causes, each once. The SDK wraps what a transport met into the name of the transport's Rust type, which tells a
/// person nothing: what was met is told alone.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let met = chain(error).find_map(|error| error.downcast_ref::<DynamicTransportError>()?.source());
    let mut told = String::new();
    for text in chain(met.unwrap_or(error)).map(|error| error.to_string().trim_start_matches("Client error: ").to_owned()) {
        if told.is_empty() {
            told = text;
        } else if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
    }
    cap(told, 600).0
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use super::*;

    fn of_call(met: RemoteError) -> ServerError {
        let error = Box::new(StreamableHttpError::Client(met));
        of(&ServiceError::TransportSend(DynamicTransportError::from_parts("t", TypeId::of::<()>(), error)), Duration::ZERO)
    }

    #[test]
    fn what_a_server_will_say_again_is_no_fault_of_it_and_not_tried_again() {
        for met in [
            RemoteError::TooLarge(8 << 20),
            RemoteError::Redirected("HTTP 302 is not followed".into()),
            RemoteError::Credentials("the file is empty".into()),
        ] {
            let told = met.to_string();
            let error = of_call(met);
            assert!(!error.is_fault() && !error.is_transient(), "{error:?}");
            assert_eq!(error.to_string(), told, "in its own words alone");
        }
        let error = of_call(RemoteError::Transport("connection refused".into()));
        assert!(error.is_fault() && error.is_transient(), "{error:?}");
    }

    #[test]
    fn an_error_of_any_length_is_told_within_bounds() {
        let error = ErrorData::internal_error("no ".repeat(1 << 20), None);
        for told in [own(&error), of(&ServiceError::McpError(error.clone()), Duration::ZERO).to_string()] {
            assert!(told.len() < MAX_SAID + 100 && told.ends_with(" more bytes]"), "{}", told.len());
        }
        assert_eq!(own(&ErrorData::internal_error("no such\n row", None)), "no such row");
    }

    #[test]
    fn a_server_that_refuses_while_a_connection_is_made_is_not_one_that_cannot_be_reached() {
        let met = |met: RemoteError| {
            let error = Box::new(StreamableHttpError::Client(met));
            let error = DynamicTransportError::from_parts("t", TypeId::of::<()>(), error);
            to_start(&ClientInitializeError::TransportError { error, context: "it began".into() }).to_string()
        };
        assert_eq!(met(RemoteError::Redirected("HTTP 302 is not followed".into())), "HTTP 302 is not followed");
        assert_eq!(met(RemoteError::Transport("connection refused".into())), "could not connect: connection refused");
    }
}

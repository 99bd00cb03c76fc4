//! What a connection's or an exchange's error means.

use std::{error::Error as StdError, io};

use crate::probe::verdict::{Problem, Step};

pub(super) fn unconnected(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Problem::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Problem::Reset(Step::Connect),
        kind => Problem::Unreachable(kind.to_string()),
    }
}

/// What a broken exchange means. `silent`: nothing of an answer had come.
pub(super) fn broken(error: &hyper::Error, step: Step, silent: bool) -> Problem {
    let io = sources(error).find_map(|source| source.downcast_ref::<io::Error>());
    if let Some(tls) = io.and_then(|io| io.get_ref()).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Problem::Tls(tls.to_string());
    }
    if error.is_parse_too_large() {
        return Problem::TooLarge(format!("the head of the answer to {step}"));
    }
    if error.is_parse() {
        return Problem::NotMcp(step, "it is not HTTP/1.1".into());
    }
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) if !silent => Problem::Truncated(step),
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Problem::Truncated(step),
        Some(_) => Problem::Reset(step),
        None if silent => Problem::Reset(step),
        None => Problem::Truncated(step),
    }
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// What of a TLS error is fit for a status: rustls says in words what is wrong, and nothing secret.
pub(super) fn tls_text(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => tls.to_string(),
        None => format!("the server ended the handshake ({})", error.kind()),
    }
}

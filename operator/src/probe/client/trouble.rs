//! What a connection's or an exchange's error means.

use std::{error::Error as StdError, io};

use super::stream::Heard;
use crate::probe::verdict::{Problem, Step};

/// What it means that there is no connection.
pub(super) fn unconnected(error: &io::Error) -> Problem {
    if error.raw_os_error().is_some_and(is_ours) {
        return Problem::Ours(error.to_string());
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Problem::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Problem::Reset(Step::Connect),
        kind => Problem::Unreachable(kind.to_string()),
    }
}

/// We have no descriptor, port or memory left: that says nothing about the server.
fn is_ours(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error).contains(&code)
}

/// What a broken exchange means, by what had come of an answer.
pub(super) fn broken(error: &hyper::Error, step: Step, heard: Heard) -> Problem {
    let silent = heard == Heard::Nothing;
    let io = sources(error).find_map(|source| source.downcast_ref::<io::Error>());
    if let Some(tls) = io.and_then(|io| io.get_ref()).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Problem::Tls(tls.to_string());
    }
    if error.is_parse_too_large() {
        return Problem::TooLarge(format!("the head of the answer to {step}"));
    }
    if error.is_parse() && heard == Heard::TlsAlert {
        return Problem::SpeaksTls(step);
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
        // Its first bytes are no message of TLS.
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "the server answers plain HTTP where https is expected".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => certificate(&other.0.to_string()),
        Some(tls) => tls.to_string(),
        None => format!("the server ended the handshake ({})", error.kind()),
    }
}

/// What is wrong with a certificate, in words, where the library has but a name for it.
fn certificate(name: &str) -> String {
    match name {
        // The most usual self-signed one: <https://docs.openssl.org/3.0/man1/openssl-req/> (`-x509`).
        "CaUsedAsEndEntity" => {
            "the server's own certificate is an authority's (CA:TRUE, as openssl req -x509 makes it), which this client \
             does not take: make it with basicConstraints CA:FALSE"
                .to_owned()
        }
        name => format!("invalid peer certificate: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authoritys_certificate_is_told_with_what_to_do() {
        let found = rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(webpki_error("CaUsedAsEndEntity"))));
        let told = tls_text(&io::Error::other(rustls::Error::InvalidCertificate(found)));
        assert!(told.contains("basicConstraints CA:FALSE"), "{told}");
        let found = rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(webpki_error("BadDer"))));
        let told = tls_text(&io::Error::other(rustls::Error::InvalidCertificate(found)));
        assert_eq!(told, "invalid peer certificate: BadDer");
    }

    fn webpki_error(name: &'static str) -> io::Error {
        io::Error::other(name)
    }

    #[test]
    fn what_we_ran_out_of_is_ours_and_what_the_server_does_is_not() {
        for code in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::ADDRNOTAVAIL] {
            let problem = unconnected(&io::Error::from_raw_os_error(code.raw_os_error()));
            assert!(matches!(problem, Problem::Ours(_)), "{problem:?}");
        }
        let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(unconnected(&refused), Problem::Refused);
    }
}

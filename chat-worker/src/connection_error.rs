//! What went wrong on the way to another program, in words that do not say where it is: they go to a model, and to everybody who chats.
//! Where it is, is for the log. Pure.

use std::{error::Error, io, sync::LazyLock};

use hyper_util::client::proxy::matcher::Matcher;
use rustls::CertificateError;
use url::Url;

use crate::redact::redact;

/// The proxies that the environment names, as the HTTP client reads them.
static PROXIES: LazyLock<Matcher> = LazyLock::new(Matcher::from_system);

/// The innermost cause: reqwest's own sentence names the URL, and not what went wrong.
pub fn cause(error: &reqwest::Error) -> &(dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

/// Whether there was no connection, so that nothing was sent, for a reason that another attempt may not meet: behind one name there may be
/// several servers, of which one has just gone.
pub fn found_nobody(error: &reqwest::Error) -> bool {
    let kind = cause(error).downcast_ref::<io::Error>().map(io::Error::kind);
    error.is_connect() && kind.is_some_and(is_passing)
}

fn is_passing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut, UnexpectedEof,
    };
    matches!(
        kind,
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut | UnexpectedEof
    )
}

/// The cause in words for everybody.
pub fn in_words(error: &reqwest::Error, url: &Url) -> String {
    let is_proxied = error.is_connect() && url.as_str().parse().is_ok_and(|url| PROXIES.intercept(&url).is_some());
    let words = words(error, url, is_proxied);
    if is_proxied { format!("through the proxy that the environment names: {words}") } else { words }
}

fn words(error: &reqwest::Error, url: &Url, is_proxied: bool) -> String {
    let cause = cause(error);
    if chain(error).any(|error| error.to_string().contains("dns error")) {
        return "its name cannot be resolved".to_owned();
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) if is_proxied => {
            "connection refused: nothing listens on the proxy's port".to_owned()
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            let port = url.port_or_known_default().unwrap_or_default();
            format!("connection refused: nothing listens on its port {port}")
        }
        _ if error.is_timeout() && error.is_connect() => "it does not take the connection".to_owned(),
        _ => certificate(cause).unwrap_or_else(|| without_host(&redact(&cause.to_string()), url)),
    }
}

fn chain<'e>(error: &'e reqwest::Error) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error: &&'e (dyn Error + 'static)| (**error).source())
}

/// What is wrong with a certificate. Some of its faults name whom it is for, and whom it should be for.
fn certificate(cause: &(dyn Error + 'static)) -> Option<String> {
    let inner = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>();
    match cause.downcast_ref::<rustls::Error>().or_else(inner)? {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("its certificate is for another name".to_owned()),
        _ => None,
    }
}

fn without_host(text: &str, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host.is_empty() { text.to_owned() } else { text.replace(host, "its host") }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn a_certificate_for_another_name_is_told_without_the_names() {
        let expected = ServerName::try_from("inside.example").expect("a name");
        let presented = vec!["other.example".to_owned()];
        let fault = CertificateError::NotValidForNameContext { expected, presented };
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(fault));
        assert!(error.to_string().contains("inside.example"), "{error}");
        assert_eq!(certificate(&error).as_deref(), Some("its certificate is for another name"));
        assert_eq!(certificate(&io::Error::other("no")), None);
    }

    #[test]
    fn a_text_that_names_the_host_does_not_any_more() {
        let url = Url::parse("http://[fd00::7]:80/").expect("a URL");
        assert_eq!(without_host("no route to fd00::7", &url), "no route to its host");
        assert_eq!(without_host("broken pipe", &url), "broken pipe");
    }
}

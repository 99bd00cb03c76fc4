//! Which remote servers are reached by a proxy. Pure.

use std::{fmt, sync::Arc};

use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// A proxy for TLS, and the hosts that it is not for.
#[derive(Clone)]
pub struct Proxy(Arc<Matcher>);

impl fmt::Debug for Proxy {
    /// Without its URL, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxy")
    }
}

impl Proxy {
    /// The proxy at a URL, as `HTTPS_PROXY` has it, and `NO_PROXY`'s list of names, addresses and ranges that are reached without it. None without a
    /// URL.
    pub fn new(https: &str, no: &str) -> Option<Self> {
        let https = https.trim();
        (!https.is_empty()).then(|| Self(Arc::new(Matcher::builder().https(https.to_owned()).no(no.to_owned()).build())))
    }

    /// How `host:port` is reached; none: without a proxy.
    pub(super) fn to(&self, host: &str) -> Option<Intercept> {
        self.0.intercept(&format!("https://{host}/").parse().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_ranges_are_left_out_and_credentials_are_not_shown() {
        let proxy = Proxy::new("http://user:s3cret@proxy:3128", "inside.example,10.0.0.0/8,192.0.2.7").expect("a proxy");
        for (host, by_proxy) in [
            ("far.example:443", true),
            ("a.inside.example", false),
            ("inside.example:8443", false),
            ("10.1.2.3", false),
            ("192.0.2.8", true),
        ] {
            assert_eq!(proxy.to(host).is_some(), by_proxy, "{host}");
        }
        assert!(!format!("{proxy:?}").contains("s3cret"));
        assert!(Proxy::new(" ", "").is_none());
    }
}

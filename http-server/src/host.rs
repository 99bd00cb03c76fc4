//! Which `Host` and `Origin` a request may carry. A web page can make a browser send requests to any address it likes, by letting its
//! own name point there (DNS rebinding); it cannot make the browser send another name. So names that only a cluster or this machine
//! can hand out pass, and names that anybody can register do not.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::OnceLock;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, StatusCode, Uri};

/// Suffixes that no public name server hands out: `localhost` and `local` are reserved, and there is no top-level domain `svc`.
const PRIVATE_SUFFIXES: [&str; 3] = [".localhost", ".svc", ".cluster.local"];

/// A name that the operator allows besides the defaults: `mcp.example.com`, `mcp.example.com:8443`, `*.example.com` or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Everything: only for a server that no browser can reach.
    Any,
    /// All names below a domain.
    Below(String),
    /// One name, on any port or on one.
    Exact(String, Option<u16>),
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(domain) = text.strip_prefix("*.") {
            return if domain.is_empty() || domain.contains('*') {
                Err("write *.example.com".into())
            } else {
                Ok(Self::Below(format!(".{}", domain.to_ascii_lowercase())))
            };
        }
        let authority = Authority::from_str(text).map_err(|_| {
            "write a host name without scheme and path, such as mcp.example.com or mcp.example.com:8443".to_owned()
        })?;
        Ok(Self::Exact(normal(authority.host()), authority.port_u16()))
    }
}

/// An origin that the operator allows besides those of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(String);

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().trim_end_matches('/').to_ascii_lowercase();
        if lower == "null" || origin_host(&lower).is_some() {
            Ok(Self(lower))
        } else {
            Err("write scheme, host and port, such as https://app.example.com or http://localhost:3000".into())
        }
    }
}

/// Which names a server answers to, and to which pages.
#[derive(Debug)]
pub struct Names {
    hosts: Vec<HostPattern>,
    origins: Vec<AllowedOrigin>,
    /// A Host that passed: nearly all callers send the same, and judging it takes longer than reading it.
    known: OnceLock<String>,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Not exactly one Host header.
    NoHost,
    /// It asks for a name that anybody can register.
    Host,
    /// It comes from a page of another site.
    Origin,
}

impl Foreign {
    /// The answer: its status, which header is at fault (for metrics), and what to say. `program` is who is started with the flag.
    pub fn refusal(self, program: &str) -> (StatusCode, &'static str, String) {
        let forbidden = |header: &str, flag: &str, what: &str| {
            format!("Forbidden: {header} header is not allowed; start {program} with --allowed-{flag} for this {what}\n")
        };
        match self {
            Self::NoHost => (StatusCode::BAD_REQUEST, "host", "Bad Request: exactly one Host header is needed\n".to_owned()),
            Self::Host => (StatusCode::FORBIDDEN, "host", forbidden("Host", "host", "name")),
            Self::Origin => (StatusCode::FORBIDDEN, "origin", forbidden("Origin", "origin", "page")),
        }
    }
}

impl Names {
    /// Those that pass by themselves, and these.
    pub fn new(hosts: Vec<HostPattern>, origins: Vec<AllowedOrigin>) -> Self {
        Self { hosts, origins, known: OnceLock::new() }
    }

    /// Judges a request.
    pub fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Foreign> {
        if !self.answers_to(asked(uri, headers).ok_or(Foreign::NoHost)?) {
            return Err(Foreign::Host);
        }
        let serves = |origin| origin_allowed(origin, &self.origins);
        if headers.contains_key(ORIGIN) && !only(headers, &ORIGIN).is_some_and(serves) {
            return Err(Foreign::Origin);
        }
        Ok(())
    }

    fn answers_to(&self, host: &str) -> bool {
        let known = self.known.get().is_some_and(|known| known == host);
        let allowed = known || host_allowed(host, &self.hosts);
        if allowed && !known {
            // Another one may have been first.
            let _ = self.known.set(host.to_owned());
        }
        allowed
    }
}

/// The name that a request asks for: that in its target, where it has one, whatever `Host` says (RFC 9112, 3.2.2). None: not exactly one
/// `Host`, which there has to be in any case.
pub fn asked<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r str> {
    let host = only(headers, &HOST)?;
    Some(uri.authority().map_or(host, Authority::as_str))
}

/// One value, readable as text; None also when there are two.
pub fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Lower case, without the root's dot and without brackets.
fn normal(host: &str) -> String {
    host.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

/// Whether a `Host` header may pass.
pub fn host_allowed(header: &str, extra: &[HostPattern]) -> bool {
    let Ok(authority) = Authority::from_str(header) else { return false };
    // "user@host" is no Host header.
    let port = header.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    if header.contains('@') || authority.host().is_empty() || (port.is_some() && authority.port_u16().is_none()) {
        return false;
    }
    let host = normal(authority.host());
    let single_label = !host.is_empty() && !host.contains(['.', ':']);
    let private = single_label || host.parse::<IpAddr>().is_ok() || PRIVATE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix));
    private || extra.iter().any(|pattern| *pattern == HostPattern::Any || names(pattern, &authority))
}

/// Whether an `Origin` header may pass: pages of this machine, and those that are listed. Never "the same as Host", which a rebound name is.
pub fn origin_allowed(header: &str, extra: &[AllowedOrigin]) -> bool {
    let lower = header.to_ascii_lowercase();
    if extra.iter().any(|allowed| allowed.0 == lower) {
        return true;
    }
    origin_host(&lower).is_some_and(|host| {
        host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Whether an origin is that of a page that came from this very `Host`. `null`, which sandboxed pages send, is nobody's. It proves nothing
/// where the host itself was not judged: a rebound name has pages, too.
pub fn is_of(origin: &str, host: &str) -> bool {
    let Some((scheme, named)) = origin.split_once("://") else { return false };
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    // Browsers leave the usual port out, and proxies put it in.
    let place = |text: &str| {
        let authority = Authority::from_str(text).ok().filter(|_| !text.contains('@'))?;
        Some((normal(authority.host()), authority.port_u16().unwrap_or(usual)))
    };
    place(named).is_some_and(|named| place(host) == Some(named))
}

/// Whether an origin's host is named among those that the operator allows. `*` names nobody: it is for servers that no browser can reach.
pub fn is_listed(origin: &str, extra: &[HostPattern]) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let authority = Authority::from_str(authority).ok().filter(|authority| !authority.as_str().contains('@'));
    authority.is_some_and(|authority| extra.iter().any(|pattern| names(pattern, &authority)))
}

fn names(pattern: &HostPattern, authority: &Authority) -> bool {
    let host = normal(authority.host());
    match pattern {
        HostPattern::Any => false,
        HostPattern::Below(suffix) => host.ends_with(suffix.as_str()),
        HostPattern::Exact(name, port) => *name == host && (port.is_none() || *port == authority.port_u16()),
    }
}

/// The host of a well-formed origin.
fn origin_host(origin: &str) -> Option<String> {
    let (scheme, authority) = origin.split_once("://")?;
    if !matches!(scheme, "http" | "https") || authority.contains(['/', '@']) {
        return None;
    }
    let authority = Authority::from_str(authority).ok()?;
    Some(normal(authority.host())).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_cluster_and_of_this_machine_pass() {
        for host in [
            "sqlite-mcp",
            "sqlite-mcp:8080",
            "sqlite-mcp.team.svc",
            "sqlite-mcp.team.svc:8080",
            "sqlite-mcp.team.svc.cluster.local",
            "SQLITE-MCP.team.svc.cluster.local.:8080",
            "10.244.0.7:8080",
            "[fd00::7]:8080",
            "[::1]",
            "127.0.0.1:8080",
            "localhost",
            "localhost:8080",
            "x.localhost",
        ] {
            assert!(host_allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn a_request_is_judged_by_its_one_host_its_target_and_its_page() {
        let names = Names::new(vec!["mcp.example.com".parse().unwrap()], vec!["https://app.example.com".parse().unwrap()]);
        let judge = |uri: &str, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            names.judge(&uri.parse().unwrap(), &headers)
        };
        // Twice, because the first that passes is remembered.
        for _ in 0..2 {
            assert_eq!(judge("/mcp", &[("host", "localhost")]), Ok(()));
            assert_eq!(judge("/mcp", &[("host", "mcp.example.com"), ("origin", "https://app.example.com")]), Ok(()));
            assert_eq!(judge("/mcp", &[]), Err(Foreign::NoHost));
            assert_eq!(judge("/mcp", &[("host", "localhost"), ("host", "localhost")]), Err(Foreign::NoHost));
            assert_eq!(judge("/mcp", &[("host", "evil.example")]), Err(Foreign::Host));
            assert_eq!(judge("http://evil.example/mcp", &[("host", "localhost")]), Err(Foreign::Host));
            assert_eq!(judge("http://localhost/mcp", &[("host", "evil.example")]), Ok(()), "the target's name counts");
            assert_eq!(judge("http://localhost/mcp", &[]), Err(Foreign::NoHost));
            assert_eq!(judge("/mcp", &[("host", "localhost"), ("origin", "https://evil.example")]), Err(Foreign::Origin));
        }
    }

    #[test]
    fn names_that_anybody_can_register_do_not() {
        for host in [
            "evil.com",
            "evil.com:8080",
            "svc.evil.com",
            "localhost.evil.com",
            "a.svc.evil.com",
            "127.0.0.1.nip.io",
            "10-0-0-1.evil.com",
            "team.local",
            "evilsvc.io",
            "",
            "user@localhost",
            "localhost:port",
            "evil.com/localhost",
            "sqlite.team",
        ] {
            assert!(!host_allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn the_operator_can_add_names() {
        let extra: Vec<HostPattern> =
            ["mcp.example.com", "tls.example.com:8443", "*.corp.example"].iter().map(|text| text.parse().unwrap()).collect();
        assert!(host_allowed("MCP.example.com:1", &extra));
        assert!(host_allowed("tls.example.com:8443", &extra));
        assert!(!host_allowed("tls.example.com", &extra));
        assert!(host_allowed("a.b.corp.example", &extra));
        assert!(!host_allowed("corp.example", &extra));
        assert!(host_allowed("evil.com", &[HostPattern::Any]));
        assert!("http://x".parse::<HostPattern>().is_err());
        assert!("*.".parse::<HostPattern>().is_err());
    }

    #[test]
    fn an_origin_may_be_that_of_the_host_or_of_an_allowed_one() {
        assert!(is_of("https://chat.example.com", "chat.example.com") && is_of("http://LOCALHOST:8080", "localhost:8080"));
        assert!(is_of("https://chat.example.com", "chat.example.com:443") && is_of("http://[::1]:80", "[::1]"));
        assert!(!is_of("http://chat.example.com", "chat.example.com:443"), "another port");
        for foreign in [
            "https://evil.example",
            "http://localhost:8081",
            "http://localhost",
            "null",
            "localhost:8080",
            "ftp://localhost:8080",
            "http://evil@localhost:8080",
            "http://",
        ] {
            assert!(!is_of(foreign, "localhost:8080"), "{foreign}");
        }
        assert!(!is_of("http://", "") && !is_of("http://a/", "a"), "no hosts");
        let extra: Vec<HostPattern> = ["chat.example.com", "*.corp.example"].iter().map(|text| text.parse().unwrap()).collect();
        assert!(is_listed("https://chat.example.com:8443", &extra) && is_listed("https://a.corp.example", &extra));
        assert!(!is_listed("https://chat.example.com.evil.example", &extra) && !is_listed("https://x@chat.example.com", &extra));
        assert!(!is_listed("https://evil.example", &[HostPattern::Any]));
    }

    #[test]
    fn origins_of_this_machine_and_listed_ones_pass() {
        let extra: Vec<AllowedOrigin> = vec!["https://app.example.com".parse().unwrap()];
        for origin in ["http://localhost:6274", "http://127.0.0.1", "https://[::1]:3000", "HTTPS://APP.example.com"] {
            assert!(origin_allowed(origin, &extra), "{origin}");
        }
        for origin in [
            "http://evil.com",
            "https://app.example.com:444",
            "http://app.example.com",
            "null",
            "",
            "http://localhost.evil.com",
            "file://localhost",
            "http://sqlite-mcp:8080",
            "http://localhost@evil.com",
        ] {
            assert!(!origin_allowed(origin, &extra), "{origin}");
        }
    }
}

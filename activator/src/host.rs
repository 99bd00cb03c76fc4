//! Which server a request is for, by its `Host`. Pure.

use std::net::IpAddr;
use std::str::FromStr as _;

use http::uri::Authority;

/// What the operator appends to a server's name for its Service.
const SUFFIX: &str = "-mcp";

/// A server as a caller names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Absent in the short form that a pod of the server's own namespace may use.
    pub namespace: Option<String>,
    /// The McpServer's name.
    pub name: String,
}

/// The server that a `Host` header names: `NAME-mcp`, `NAME-mcp.NAMESPACE`, `NAME-mcp.NAMESPACE.svc` and what a cluster's domain appends,
/// with or without a port. None: it names no server.
pub fn named(header: &str) -> Option<Named> {
    let authority = Authority::from_str(header).ok().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut labels = host.split('.');
    let name = labels.next()?.strip_suffix(SUFFIX).filter(|name| !name.is_empty())?;
    let namespace = labels.next().map(ToOwned::to_owned);
    let is_service = labels.next().is_none_or(|label| label == "svc");
    is_service.then(|| Named { namespace, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_services_name_is_the_servers() {
        for host in [
            "search-mcp.team",
            "search-mcp.team.svc",
            "search-mcp.team.svc:8080",
            "search-mcp.team.svc.cluster.local",
            "Search-MCP.team.svc.cluster.local.:8080",
            "search-mcp.team.svc.corp.example:80",
        ] {
            let named = named(host).unwrap();
            assert_eq!((named.name.as_str(), named.namespace.as_deref()), ("search", Some("team")), "{host}");
        }
        assert_eq!(named("search-mcp:8080"), Some(Named { namespace: None, name: "search".into() }));
        assert_eq!(named("a-mcp-mcp.team.svc").unwrap().name, "a-mcp");
    }

    #[test]
    fn what_is_no_services_name_is_nobodys() {
        for host in [
            "10.88.0.4:8080",
            "[fd00::1]:8080",
            "search",
            "search.team.svc",
            "-mcp.team",
            "search-mcp.team.example.com",
            "u@a-mcp",
            "",
        ] {
            assert_eq!(named(host), None, "{host}");
        }
    }
}

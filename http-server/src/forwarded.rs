//! Who asks, and whether by TLS: the connection's own word, or that of a proxy in front which is trusted by its address.
//! Headers of anybody else are ignored: a caller could write them. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The caller of a request, as far as it can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub address: IpAddr,
    pub tls: bool,
    /// A trusted proxy stands between.
    pub proxied: bool,
}

impl Caller {
    /// Whom a limit counts: whoever has one address of an IPv6 network has 2^64 of them.
    pub fn counted_as(&self) -> IpAddr {
        match self.address {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
            address @ IpAddr::V4(_) => address,
        }
    }
}

/// A proxy as settings name it: a network such as 10.0.0.0/8, or one address. What is wrong with a text is told of the part that it is wrong
/// with.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let none = || format!("{address} is no IP address: write one, or a network such as 10.0.0.0/8");
    let address: IpAddr = address.parse().map_err(|_| none())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else { return Ok(address.into()) };
    let fits = length.parse().ok().and_then(|length| IpNet::new(address, length).ok());
    fits.ok_or_else(|| format!("the length of its prefix is {length}: write a number from 0 to {most}"))
}

/// Judges the headers of a request that came over a connection from `peer`.
pub fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Caller {
    let is_proxy = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let peer = peer.to_canonical();
    if !is_proxy(&peer) {
        return Caller { address: peer, tls: false, proxied: false };
    }
    let lines = |name| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    // Each proxy appends whom it saw: from the right, the first that is no proxy of ours is the caller. What stands to
    // its left is the caller's own story.
    let path: Vec<&str> = lines("x-forwarded-for").flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut address = peer;
    for hop in path.iter().rev() {
        let Some(hop) = address_in(hop) else { break };
        address = hop.to_canonical();
        if !is_proxy(&address) {
            break;
        }
    }
    let tls = lines("x-forwarded-proto").next_back().is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"));
    Caller { address, tls, proxied: true }
}

/// The address in an entry: proxies write it with a port, and IPv6 in brackets, or not.
fn address_in(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches('"');
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(peer: &str, pairs: &[(&'static str, &str)]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        let trusted = ["10.0.0.0/8".parse().expect("a net"), "fd00::/8".parse().expect("a net")];
        let caller = caller(peer.parse().expect("an address"), &headers, &trusted);
        (caller.address.to_string(), caller.tls)
    }

    #[test]
    fn what_is_wrong_with_a_network_is_told_of_its_part() {
        for (text, read) in
            [("10.0.0.0/8", "10.0.0.0/8"), (" fd00::/8 ", "fd00::/8"), ("10.0.0.1", "10.0.0.1/32"), ("::1", "::1/128")]
        {
            assert_eq!(network(text).map(|network| network.to_string()), Ok(read.to_owned()));
        }
        let told = |text: &str| network(text).expect_err("it is none");
        assert_eq!(told("10.0.0.0/99"), "the length of its prefix is 99: write a number from 0 to 32");
        assert_eq!(told("fd00::/129"), "the length of its prefix is 129: write a number from 0 to 128");
        assert!(told("10.0.0/8").starts_with("10.0.0 is no IP address"));
        assert!(told("").contains("such as 10.0.0.0/8"));
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let told = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https")];
        assert_eq!(judged("203.0.113.5", &told), ("203.0.113.5".into(), false));
    }

    #[test]
    fn a_trusted_proxy_is_and_the_callers_own_story_is_not() {
        let told = [("x-forwarded-for", "1.1.1.1, 192.0.2.9"), ("x-forwarded-for", "10.3.3.3"), ("x-forwarded-proto", "https")];
        assert_eq!(judged("10.0.0.1", &told), ("192.0.2.9".into(), true));
        assert_eq!(judged("::ffff:10.0.0.1", &told), ("192.0.2.9".into(), true));
    }

    #[test]
    fn an_entry_may_have_a_port_and_brackets() {
        for (entry, address) in [
            ("203.0.113.8:1234", "203.0.113.8"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:203.0.113.8", "203.0.113.8"),
        ] {
            assert_eq!(judged("10.0.0.1", &[("x-forwarded-for", entry)]).0, address, "{entry}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let counted =
            |address: &str| Caller { address: address.parse().expect("an address"), tls: false, proxied: false }.counted_as();
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff::9"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_ne!(counted("192.0.2.1"), counted("192.0.2.2"));
    }

    #[test]
    fn what_cannot_be_read_ends_the_path() {
        assert_eq!(judged("10.0.0.1", &[("x-forwarded-for", "192.0.2.9, unknown")]), ("10.0.0.1".into(), false));
        assert_eq!(judged("fd00::1", &[]), ("fd00::1".into(), false));
    }
}

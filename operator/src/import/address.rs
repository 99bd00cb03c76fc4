//! Addresses within a text: whether they hold a credential, and whether they lead to this machine. Pure.

use std::net::IpAddr;

use mcp_stdio::secrets;

use super::token;

/// Whether an address in the text has one: a user or password, a parameter, a webhook's path, a part of the path without any sense.
pub fn hold_a_credential(text: &str) -> bool {
    let addresses = text.match_indices("://").map(|(at, _)| {
        let rest = &text[at + 3..];
        &rest[..rest.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(rest.len())]
    });
    addresses.into_iter().any(of_address) || text.split(|c: char| c.is_whitespace() || "\"'`,;".contains(c)).any(is_login)
}

/// What stands after `://`.
fn of_address(address: &str) -> bool {
    let (before, fragment) = address.split_once('#').unwrap_or((address, ""));
    let (before, query) = before.split_once('?').unwrap_or((before, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    // A password with a sign that it should not have in an address: `me:a/b@host`.
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let broken = !authority.starts_with('[') && port.bytes().any(|byte| !byte.is_ascii_digit()) && address.contains('@');
    // The user of all who fetch a repository.
    let login = authority.rsplit_once('@').is_some_and(|(user, _)| user != "git");
    let parameters = query.split('&').chain(fragment.split('&')).map(|part| part.split_once('=').unwrap_or(("", part)));
    let in_parameters = parameters.into_iter().any(|(name, value)| {
        let code = name.eq_ignore_ascii_case("code") && !secrets::is_harmless(name, value);
        secrets::tells(name, value) || code || is_senseless(value)
    });
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    login || broken || in_parameters || is_webhook(authority, &segments) || segments_hold_one(&segments)
}

/// Addresses that let whoever knows them write.
fn is_webhook(host: &str, segments: &[&str]) -> bool {
    let of_hooks = host.starts_with("hooks.") && segments.len() > 1;
    let hooks = |segment: &str| ["webhook", "webhooks", "hook", "hooks"].contains(&segment);
    let bot = |segment: &str| segment.strip_prefix("bot").is_some_and(|rest| rest.contains(':'));
    of_hooks || segments.windows(2).any(|two| hooks(two[0]) && two[1] != "mcp") || segments.iter().any(|segment| bot(segment))
}

/// Parts of a path behind which stands what lets somebody in.
const KEYS: [&str; 7] = ["key", "apikey", "api-key", "api_key", "token", "secret", "password"];

fn segments_hold_one(segments: &[&str]) -> bool {
    let before = [None].into_iter().chain(segments.iter().map(Some));
    before.zip(segments).any(|(before, segment)| {
        // A commit, which is known to all.
        let pinned = before
            .is_some_and(|before| ["archive", "blob", "commit", "commits", "raw", "tarball", "tree", "zip"].contains(before));
        let named = before.is_some_and(|before| KEYS.contains(before));
        let name = if pinned {
            ""
        } else {
            segment.rsplit_once('@').filter(|(_, pin)| is_commit(pin)).map_or(*segment, |(name, _)| name)
        };
        named || is_senseless(name)
    })
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a part of a path is no name: names are made of words, and have a number at the end at most.
fn is_senseless(segment: &str) -> bool {
    let bytes = |text: &str, is: fn(&u8) -> bool| text.bytes().filter(is).count();
    let hex: String = segment.chars().filter(|c| *c != '-').collect();
    let hex = hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let run = |run: &str| {
        let (digits, letters) = (bytes(run, u8::is_ascii_digit), bytes(run, u8::is_ascii_alphabetic));
        let turns = run.as_bytes().windows(2).filter(|two| two[0].is_ascii_digit() != two[1].is_ascii_digit()).count();
        let sides = digits > 0 && letters > 0;
        (run.len() >= 12 && sides && turns >= 3) || (run.len() >= 16 && sides && turns >= 1)
    };
    let kinds: [fn(&u8) -> bool; 3] = [u8::is_ascii_digit, u8::is_ascii_lowercase, u8::is_ascii_uppercase];
    let mixed = segment.len() >= 24 && kinds.into_iter().all(|kind| bytes(segment, kind) > 0);
    let key = segment.match_indices("sk-").any(|(at, _)| {
        let joined = segment[..at].ends_with(|c: char| c.is_ascii_lowercase());
        !joined && segment.len() - at > "sk-".len() + 3
    });
    hex || mixed || key || token::is_one(segment) || segment.split(|c: char| !c.is_ascii_alphanumeric()).any(run)
}

/// `user:password@host` without a scheme. Packages are written so, too: `npm:name@1.2.3`, `image:1@sha256:…`.
fn is_login(word: &str) -> bool {
    let Some((login, host)) = word.split_once('@') else { return false };
    // Oracle's: `me/password@//host`.
    if login.contains('/') && host.starts_with("//") {
        return true;
    }
    let Some((user, password)) = login.split_once(':') else { return false };
    let user = user.rsplit('=').next().unwrap_or_default();
    let package = ["npm", "jsr", "file", "github", "gitlab", "workspace"].contains(&user) || host.starts_with("sha256:");
    !package && !user.contains('/') && !password.is_empty() && !password.contains('/') && !host.is_empty()
}

/// Whether the API takes it as that of a remote server: http or https, a host, no fragment and no space.
pub fn is_of_a_server(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '?']))
        && !url.contains(|c: char| c == '#' || c.is_whitespace())
}

/// Whether it leads to the machine that it was written on, which is another one in a cluster.
pub fn is_of_this_machine(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let host = host.trim_end_matches('.');
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    ["localhost", "host.docker.internal", "host.containers.internal"].contains(&host)
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

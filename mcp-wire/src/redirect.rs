//! Which redirects are followed: those that keep the request as it is, and stay with the server.

use url::Url;

/// For one request.
pub const MOST: usize = 5;

/// Whether a status sends the request elsewhere.
pub fn is_one(status: u16) -> bool {
    (300..400).contains(&status) && status != 304
}

/// Where a redirect of a request to `from` leads; the error says why it is not followed. Credentials and arguments go to nobody who was
/// not configured.
pub fn target(from: &Url, status: u16, location: Option<&str>) -> Result<Url, String> {
    if !matches!(status, 307 | 308) {
        return Err(format!("HTTP {status} is not followed, because it may turn a POST into a GET"));
    }
    let location = location.ok_or_else(|| format!("HTTP {status} without a Location"))?;
    let mut target = from.join(location).map_err(|_| format!("HTTP {status} to a Location that is no URL"))?;
    if target.origin() != from.origin() {
        return Err(format!("HTTP {status} to another scheme, host or port is not followed"));
    }
    // They belong to the origin, and a relative Location does not repeat them.
    let kept = target.set_username(from.username()).and_then(|()| target.set_password(from.password()));
    kept.map_err(|()| format!("HTTP {status} to a Location that is no URL"))?;
    Ok(target)
}

/// Whether the next request goes to where this one was sent: 308 is for good, and 307 for one request (RFC 9110, 15.4.8). Routers that want
/// a '/' at the end of a path, or none, say so by 307, each time.
pub fn lasts(status: u16, from: &Url, to: &Url) -> bool {
    let same = from.path().trim_end_matches('/') == to.path().trim_end_matches('/') && from.query() == to.query();
    status == 308 || same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_redirect_is_for_one_request() {
        let url = |path: &str| Url::parse("http://server").unwrap().join(path).unwrap();
        assert!(lasts(308, &url("/mcp"), &url("/mcp2")) && !lasts(307, &url("/mcp"), &url("/mcp2")));
        assert!(!lasts(307, &url("/mcp"), &url("/mcp?ticket=1")));
        assert!(lasts(307, &url("/mcp"), &url("/mcp/")) && lasts(307, &url("/mcp/"), &url("/mcp")));
    }

    #[test]
    fn a_redirect_is_followed_within_the_server_only() {
        let from = Url::parse("http://u:p@server:8080/mcp").unwrap();
        let to = |status, location| target(&from, status, location).map(String::from);
        assert_eq!(to(307, Some("/mcp/")).unwrap(), "http://u:p@server:8080/mcp/");
        assert_eq!(to(308, Some("http://SERVER:8080/x?y=1")).unwrap(), "http://u:p@server:8080/x?y=1");
        assert_eq!(to(307, Some("there")).unwrap(), "http://u:p@server:8080/there");
        for (status, location) in [
            (307, Some("https://server:8080/mcp")),
            (307, Some("http://server/mcp")),
            (307, Some("http://other:8080/mcp")),
            (307, Some("//other/mcp")),
            (307, Some("http://[")),
            (307, None),
            (302, Some("/mcp/")),
            (301, Some("/mcp/")),
            (303, Some("/mcp/")),
        ] {
            assert!(to(status, location).is_err(), "{status} {location:?}");
        }
    }
}

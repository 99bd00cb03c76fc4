//! Who may use the page and the API: those who present the token, as a bearer or by the cookie that signing in gives (`signin`). The cookie is made from the token, so that every replica takes it and a rotated token ends every session.

use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use data_encoding::HEXLOWER;
use http_server::{
    forwarded::Caller,
    guesses::Guesses,
    host::{self, HostPattern, only},
    token::{self, Tokens},
};
use sha2::{Digest, Sha256};

use super::problem::Problem;

const COOKIE: &str = "mcpfleet_session";
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The rule in force.
#[derive(Debug)]
pub struct Access {
    /// Absent: nobody is asked for one.
    tokens: Option<Tokens>,
    /// Names under which this server is reached, besides those that no page can take.
    hosts: Vec<HostPattern>,
    guesses: Guesses,
}

/// What a caller presents.
pub enum Presented<'a> {
    Nothing,
    Bearer(&'a str),
    Session(&'a str),
    /// To get a session for it.
    Form(&'a str),
}

impl Access {
    pub fn new(tokens: Option<Tokens>, hosts: Vec<HostPattern>) -> Self {
        Self { tokens, hosts, guesses: Guesses::default() }
    }

    /// Whether a token is asked for at all.
    pub fn is_closed(&self) -> bool {
        self.tokens.is_some()
    }

    fn knows(&self, presented: &Presented) -> bool {
        let Some(tokens) = &self.tokens else { return true };
        match presented {
            Presented::Nothing => false,
            Presented::Bearer(token) => tokens.knows(token),
            Presented::Form(token) => tokens.is_current(token),
            Presented::Session(session) => tokens.proved(session.as_bytes(), |digest| session_of(digest).into_bytes()),
        }
    }

    /// Whether what let a stream begin still would.
    pub fn still_allows(&self, headers: &HeaderMap) -> bool {
        self.knows(&presented(headers))
    }

    /// Looks at what a caller presents, unless it has presented too much that is wrong.
    pub fn allows(&self, presented: &Presented, caller: Caller) -> Result<bool, Problem> {
        if self.tokens.is_none() {
            return Ok(true);
        }
        if matches!(presented, Presented::Nothing) {
            return Ok(false);
        }
        let (who, now) = (caller.counted_as(), Instant::now());
        if let Some(wait) = self.guesses.wait(who, now) {
            let seconds = wait.as_secs() + 1;
            let detail = format!("too many wrong tokens; try again in {seconds} s");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds));
        }
        let known = self.knows(presented);
        match presented {
            Presented::Bearer(_) | Presented::Form(_) if !known => self.guesses.wrong(who, now),
            // Whoever guesses a token knows its session.
            Presented::Session(session) if !known => self.guesses.wrong_session(who, session, now),
            _ => {}
        }
        Ok(known)
    }

    /// Whether a request may read what is told without asking for a token, such as figures: by a name that no page can take, or with the
    /// token. Kubelets and Prometheus come by addresses, and by names of a cluster.
    pub fn tells(&self, uri: &Uri, headers: &HeaderMap, caller: Caller) -> bool {
        let is_private = host::asked(uri, headers).is_some_and(|host| host::host_allowed(host, &self.hosts));
        is_private || (self.is_closed() && self.proves(headers, caller))
    }

    /// Whether a request brings what opens. One that brings too much that is wrong is answered as one that brings nothing.
    pub fn proves(&self, headers: &HeaderMap, caller: Caller) -> bool {
        self.allows(&presented(headers), caller).unwrap_or(false)
    }

    /// A page of another site must neither act nor read with this user's cookie, nor reach this server by a name of its own: without a
    /// token, only names that no page can take are answered to. With one, a page under its own name has neither token nor cookie.
    pub fn check_origin(&self, uri: &Uri, headers: &HeaderMap, caller: Caller) -> Result<(), Problem> {
        let Some(host) = host::asked(uri, headers) else {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "exactly one Host header is needed"));
        };
        if !self.is_closed() && !host::host_allowed(host, &self.hosts) {
            let detail = "without an access token, this server answers to localhost, addresses and names of a cluster only; set \
                CHAT_ALLOWED_HOSTS to this name, or CHAT_ACCESS_TOKEN_FILE";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let from = only(headers, &header::ORIGIN).unwrap_or_default();
        // A trusted proxy may ask for another name than the user did, and says so.
        let forwarded = only(headers, &FORWARDED_HOST).filter(|_| caller.proxied).unwrap_or(host);
        if host::is_of(from, host) || host::is_of(from, forwarded) || host::is_listed(from, &self.hosts) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "the request comes from another site"))
    }
}

/// What the headers of a request present.
pub fn presented(headers: &HeaderMap) -> Presented<'_> {
    if let Some(bearer) = only(headers, &header::AUTHORIZATION).and_then(token::bearer) {
        return Presented::Bearer(bearer);
    }
    let cookies = headers.get(header::COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let session = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    session.map_or(Presented::Nothing, Presented::Session)
}

/// The session that is given for a token, by the token's SHA-256.
pub fn session_of(digest: &[u8; 32]) -> String {
    HEXLOWER.encode(&Sha256::new().chain_update("mcpfleet chat session\0").chain_update(digest).finalize())
}

/// Out of reach of scripts and of other sites; over TLS only where the user came by TLS.
pub fn cookie(value: &str, tls: bool) -> String {
    let secure = if tls { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "s3cret-of-length";

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), value.parse().expect("a value"));
        }
        headers
    }

    fn caller(address: &str) -> Caller {
        Caller { address: address.parse().expect("an address"), tls: false, proxied: false }
    }

    fn closed() -> Access {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("{TOKEN}\n")).expect("written");
        Access::new(Some(Tokens::load(file.path()).expect("a token")), Vec::new())
    }

    #[test]
    fn the_token_or_its_session_opens_and_nothing_else_does() {
        let access = closed();
        let allows = |pairs: &[(header::HeaderName, &str)]| {
            access.allows(&presented(&headers(pairs)), caller("192.0.2.1")).expect("not too often")
        };
        let session = format!("other=1; {COOKIE}={}", session_of(&token::digest(TOKEN)));
        assert!(allows(&[(header::AUTHORIZATION, &format!("bearer {TOKEN}"))]));
        assert!(allows(&[(header::COOKIE, &session)]));
        assert!(!allows(&[(header::AUTHORIZATION, "Bearer s3cret-of-lengt")]));
        assert!(!allows(&[]));
        assert!(!allows(&[(header::COOKIE, &format!("{COOKIE}={TOKEN}"))]), "the token itself is no session");
    }

    #[test]
    fn guessing_ends_soon_and_the_right_guess_does_not_help_then() {
        let access = closed();
        let guess = |token: &str, address: &str| access.allows(&Presented::Bearer(token), caller(address));
        let refused = (0..100).find(|_| guess("wrong", "2001:db8::1").is_err()).expect("it ends");
        assert!(refused <= 10, "{refused}");
        assert!(guess(TOKEN, "2001:db8::2").is_err(), "the same network");
        assert!(guess(TOKEN, "2001:db8:0:1::2").expect("another caller"));
        let by_cookie = |token: String| {
            let session = session_of(&token::digest(&token));
            access.allows(&Presented::Session(&session), caller("192.0.2.7"))
        };
        let refused = (0..100).find(|number| by_cookie(format!("guess {number}")).is_err()).expect("it ends");
        assert!(refused <= 10, "{refused}");
        assert!(by_cookie(TOKEN.to_owned()).is_err(), "by the cookie, too");
    }

    #[test]
    fn other_sites_and_names_that_a_page_can_take_are_refused() {
        let open = Access::new(None, vec!["chat.example.com".parse().expect("a name")]);
        let check = |pairs: &[(header::HeaderName, &str)]| {
            let problem = open.check_origin(&Uri::from_static("/"), &headers(pairs), caller("127.0.0.1")).err()?;
            Some(problem.status.as_u16())
        };
        assert_eq!(check(&[(header::HOST, "localhost:8080"), (header::ORIGIN, "http://localhost:8080")]), None);
        for host in ["127.0.0.1:8080", "[::1]:8080", "10.1.2.3:8080", "chat-app.team.svc:8080", "chat.example.com"] {
            assert_eq!(check(&[(header::HOST, host)]), None, "{host}");
        }
        for foreign in ["https://evil.example", "http://localhost:8081", "null", "localhost:8080"] {
            assert_eq!(check(&[(header::HOST, "localhost:8080"), (header::ORIGIN, foreign)]), Some(403), "{foreign}");
        }
        assert_eq!(check(&[(header::HOST, "evil.example")]), Some(403));
        assert_eq!(
            check(&[(header::HOST, "evil.example"), (header::ORIGIN, "http://evil.example")]),
            Some(403),
            "a rebound name"
        );
        assert_eq!(
            check(&[(header::HOST, "chat-app:8080"), (header::ORIGIN, "https://chat.example.com")]),
            None,
            "a proxy rewrote it"
        );
        assert_eq!(check(&[(header::HOST, "localhost"), (header::HOST, "evil.example")]), Some(400));
        assert_eq!(check(&[]), Some(400));
    }

    #[test]
    fn a_trusted_proxy_tells_the_name_that_was_asked_for() {
        let access = closed();
        let pairs = [(header::HOST, "app:8080"), (header::ORIGIN, "https://chat.example"), (FORWARDED_HOST, "chat.example")];
        let uri = Uri::from_static("/");
        let check = |proxied| access.check_origin(&uri, &headers(&pairs), Caller { proxied, ..caller("10.0.0.1") }).is_ok();
        assert_eq!((check(true), check(false)), (true, false));
    }
}

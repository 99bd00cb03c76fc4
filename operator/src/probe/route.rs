//! Where a server is and what every request to it carries: made once from its spec, shared by all its probes. No I/O.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName, pki_types::pem::PemObject as _};
use tokio::sync::Semaphore;
use url::Url;

use mcp_wire::mask::Mask;

use super::{
    protocol,
    template::Template,
    types::{Endpoint, ServerSpec},
    verdict::{Given, Problem},
};
use crate::{
    crd::{Era, ToolCall},
    reach::{Caller, Reach},
};

/// `MCP-Protocol-Version`
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Last-Event-ID`
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// A server that never answers a deletion must not be left with a connection a probe.
const LATE_A_SERVER: usize = 3;
/// Probes that are further apart find most kept connections closed: servers do so after 5 s (uvicorn, Node) or some more.
const KEPT_BETWEEN: Duration = Duration::from_secs(15);
/// A connection is used for no longer, so that a certificate which is no longer good is met.
const KEPT_FOR: Duration = Duration::from_mins(1);

fn keep(interval: Duration) -> Option<Duration> {
    (interval <= KEPT_BETWEEN).then_some(KEPT_FOR)
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// To the target's own address, at this port.
    Pod(u16),
    /// To an address.
    Address(IpAddr, u16),
    /// To whatever the name resolves to.
    Name(String, u16),
}

impl Dial {
    const fn port(&self) -> u16 {
        match self {
            Self::Pod(port) | Self::Address(_, port) | Self::Name(_, port) => *port,
        }
    }
}

/// What is the same in every probe of a server.
pub struct Route {
    /// Where to connect to.
    pub dial: Dial,
    /// With TLS: whom the certificate must name, and how it is verified.
    pub tls: Option<Result<(ServerName<'static>, Arc<ClientConfig>), String>>,
    /// The request target.
    pub path: Uri,
    /// The Host header.
    pub host: HeaderValue,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// How long a probe may take.
    pub timeout: Duration,
    /// What decides how a refusal counts.
    pub given: Given,
    /// For how long a connection is kept for later probes; none: not at all.
    pub keep: Option<Duration>,
    /// How many of the server's sessions are waited for at a time after a probe's end, until they are deleted.
    pub late: Arc<Semaphore>,
    /// Which addresses are dialled. None: whatever there is.
    pub guard: Option<Guard>,
    /// The call that must succeed, per era.
    pub call: Option<[protocol::Request; 2]>,
    /// What the server says of itself and of its tools is kept, to be said for it while it sleeps.
    pub keeps: bool,
    /// Texts that must not be repeated in messages.
    secrets: Vec<String>,
    mask: Arc<Mask>,
}

/// Keeps a remote server's probes out of where they have no business.
pub struct Guard {
    reach: Arc<Reach>,
    namespace: String,
    host: String,
}

impl Guard {
    fn new(spec: &ServerSpec) -> Option<Self> {
        let Endpoint::Remote { url } = &spec.endpoint else { return None };
        Some(Self {
            reach: Arc::clone(spec.reach.as_ref()?),
            namespace: spec.object.namespace.clone().unwrap_or_default(),
            host: url.host_str().unwrap_or_default().to_owned(),
        })
    }

    /// Its name is one of the cluster's own.
    pub fn is_inside(&self) -> bool {
        self.reach.is_inside(&self.host)
    }

    /// Those of the addresses that may be dialled. When there is none: why not the last of them.
    pub fn allowed(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Problem> {
        let caller = Caller { namespace: &self.namespace, host: &self.host };
        let mut refusal = None;
        let allowed: Vec<_> = addresses
            .into_iter()
            .filter(|address| match self.reach.refusal(caller, address.ip()) {
                Some(why) => {
                    refusal = Some(why);
                    false
                }
                None => true,
            })
            .collect();
        match refusal {
            Some(why) if allowed.is_empty() => Err(Problem::Forbidden(why)),
            _ => Ok(allowed),
        }
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("dial", &self.dial).finish_non_exhaustive()
    }
}

impl Route {
    /// What the spec comes to.
    pub fn new(spec: &ServerSpec) -> Self {
        Self::of(spec, None)
    }

    /// What the spec comes to for a pod whose own template says what it is asked.
    pub fn of(spec: &ServerSpec, asked: Option<&Template>) -> Self {
        let (dial, tls, path, host) = match (&spec.endpoint, asked) {
            (Endpoint::Pods { host, .. }, Some(asked)) => {
                let service = host.rsplit_once(':').map_or(host.as_str(), |(service, _)| service);
                (Dial::Pod(asked.port), None, asked.path.clone(), format!("{service}:{}", asked.port))
            }
            (Endpoint::Pods { port, path, host }, None) => (Dial::Pod(*port), None, path.clone(), host.clone()),
            (Endpoint::Remote { url }, _) => {
                let tls = (url.scheme() == "https").then(|| remote_tls(url, spec.ca.as_deref()));
                (remote_dial(url), tls, remote_path(url), remote_host(url))
            }
        };
        let call = asked.map_or(spec.health.tool_call.as_ref(), |asked| asked.tool_call.as_ref());
        let host = HeaderValue::from_str(&host).unwrap_or_else(|_| HeaderValue::from_static("invalid"));
        let headers = headers(spec, &host);
        Self {
            tls,
            path: path.parse().unwrap_or_else(|_| Uri::from_static("/")),
            given: Given {
                credentials: headers.values().any(HeaderValue::is_sensitive),
                remote: matches!(spec.endpoint, Endpoint::Remote { .. }),
                port: dial.port(),
            },
            dial,
            headers,
            host,
            guard: Guard::new(spec),
            timeout: Duration::from_secs(spec.health.timeout_seconds.into()),
            keep: keep(Duration::from_secs(spec.health.interval_seconds.into())),
            late: Arc::new(Semaphore::new(LATE_A_SERVER)),
            call: call.map(both_eras),
            // What it says only to those who have credentials is not said to everybody.
            keeps: spec.may_sleep && spec.credentials.is_empty(),
            secrets: secrets(spec),
            mask: Arc::clone(&spec.mask),
        }
    }

    /// The request that `health.toolCall` asks for.
    pub fn call(&self, era: Era) -> Option<&protocol::Request> {
        self.call.as_ref().map(|[modern, legacy]| if era == Era::Modern { modern } else { legacy })
    }

    /// A text from the server, without the secrets that it may have been told, by probes or in its environment.
    pub fn redact(&self, text: String) -> String {
        let text = self.mask.apply(text);
        self.secrets.iter().fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "***") } else { text })
    }
}

fn both_eras(call: &ToolCall) -> [protocol::Request; 2] {
    [protocol::call(Era::Modern, call), protocol::call(Era::Legacy, call)]
}

fn headers(spec: &ServerSpec, host: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("mcpfleet-prober/", env!("CARGO_PKG_VERSION"))));
    if let Endpoint::Remote { url } = &spec.endpoint
        && let Some(value) = userinfo(url)
    {
        headers.insert(header::AUTHORIZATION, value);
    }
    for (name, value) in &spec.credentials {
        let mut value = value.clone();
        value.set_sensitive(true);
        headers.append(name.clone(), value);
    }
    // After the credentials: these are the protocol's, and not for a Secret to change.
    headers.insert(header::HOST, host.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// `user:password@` of a URL, as every HTTP client sends it.
fn userinfo(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let text = format!("{}:{}", percent_decode(url.username()), percent_decode(url.password().unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(text))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The credentials as a server might repeat them: the whole value, and the part after the scheme.
fn secrets(spec: &ServerSpec) -> Vec<String> {
    let mut secrets = Vec::new();
    for (_, value) in &spec.credentials {
        let Ok(text) = std::str::from_utf8(value.as_bytes()) else { continue };
        secrets.push(text.to_owned());
        secrets.extend(text.split_once(' ').map(|(_, token)| token.trim().to_owned()));
    }
    if let Endpoint::Remote { url } = &spec.endpoint {
        secrets.extend(url.password().map(percent_decode));
    }
    // Replacing very short texts would garble messages and hide nothing.
    secrets.retain(|secret| secret.len() >= 4);
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

fn remote_port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

fn remote_dial(url: &Url) -> Dial {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => Dial::Address(ip.into(), remote_port(url)),
        Some(url::Host::Ipv6(ip)) => Dial::Address(ip.into(), remote_port(url)),
        _ => Dial::Name(url.host_str().unwrap_or_default().to_owned(), remote_port(url)),
    }
}

fn remote_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn remote_path(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

fn remote_tls(url: &Url, ca: Option<&[u8]>) -> Result<(ServerName<'static>, Arc<ClientConfig>), String> {
    let name = match url.host() {
        Some(url::Host::Ipv4(ip)) => ServerName::from(IpAddr::from(ip)),
        Some(url::Host::Ipv6(ip)) => ServerName::from(IpAddr::from(ip)),
        _ => ServerName::try_from(url.host_str().unwrap_or_default().to_owned())
            .map_err(|_| "the URL's host is no DNS name".to_owned())?,
    };
    let config = match ca {
        Some(pem) => Arc::new(tls_config(private_roots(pem)?)),
        None => Arc::clone(&SYSTEM),
    };
    Ok((name, config))
}

/// One configuration for all servers without a CA of their own: reading the system's roots takes milliseconds and a megabyte.
static SYSTEM: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_added, _unreadable) = roots.add_parsable_certificates(found.certs);
    Arc::new(tls_config(roots))
});

/// Whether these are certificates of a CA that can be trusted, and why not.
pub fn check_ca(pem: &[u8]) -> Result<(), String> {
    private_roots(pem).map(drop)
}

fn private_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "the CA bundle is not PEM".to_owned())?;
        roots.add(certificate).map_err(|error| format!("a certificate of the CA bundle cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err("the CA bundle holds no certificate".into()) } else { Ok(roots) }
}

fn tls_config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring offers the protocol versions that rustls calls safe")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed handshake shows no certificate: one that ran out, or was replaced, would never be seen.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

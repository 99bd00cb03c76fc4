//! From a name or an address to a connection: the lookup, the addresses side by side, a proxy where there is one, TLS. I/O.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hyper_util::client::proxy::matcher::Intercept;
use rustls::{ClientConfig, SignatureScheme, client::ResolvesClientCert, pki_types::ServerName, sign::CertifiedKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::{
    stream::{Stream, Watched},
    trouble::{tls_text, unconnected},
};
use crate::{
    clock,
    probe::{
        proxy::Proxy,
        route::{Dial, Guard, Route},
        verdict::{Problem, Step},
    },
};

/// How long an address has before the next one is tried beside it (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);
/// Lookups at a time. The system's cannot be cancelled: where DNS is down they would pile up in threads.
static LOOKUPS: Semaphore = Semaphore::const_new(64);
/// The longest head of a proxy's answer.
const PROXY_HEAD: usize = 16 * 1024;

/// Opens a connection to the server of `route`, at `ip` where that is a pod. `step` is kept up to date for the message when the time is up.
pub(super) async fn dial(route: &Route, ip: Option<IpAddr>, proxy: Option<&Proxy>, step: &mut Step) -> Result<Watched, Problem> {
    let stream = if let Some(proxy) = through(route, proxy) {
        tunnel(route, &proxy, step).await?
    } else {
        let addresses = guarded(route, addresses(route, ip, step).await?)?;
        *step = Step::Connect;
        connect(&addresses).await?
    };
    let Some(tls) = &route.tls else { return Ok(Watched::new(Stream::Plain(stream), route.keep, false)) };
    *step = Step::Tls;
    let (name, config) = tls.as_ref().map_err(|what| Problem::Tls(what.clone()))?;
    shake_hands(route, stream, name.clone(), config).await
}

async fn addresses(route: &Route, ip: Option<IpAddr>, step: &mut Step) -> Result<Vec<SocketAddr>, Problem> {
    match (&route.dial, ip) {
        (Dial::Pod(port), Some(ip)) => Ok(vec![(ip, *port).into()]),
        (Dial::Pod(_), None) => Err(Problem::Unreachable("the pod has no address".into())),
        (Dial::Address(ip, port), _) => Ok(vec![(*ip, *port).into()]),
        (Dial::Name(name, port), _) => {
            *step = Step::Resolve;
            resolve(name.clone(), *port).await
        }
    }
}

/// Those of the addresses that may be dialled.
fn guarded(route: &Route, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Problem> {
    match &route.guard {
        Some(guard) => guard.allowed(addresses),
        None => Ok(addresses),
    }
}

async fn resolve(name: String, port: u16) -> Result<Vec<SocketAddr>, Problem> {
    let (place, asked) = (LOOKUPS.acquire().await, name.clone());
    let lookup = tokio::task::spawn_blocking(move || {
        // The thread keeps the place, also when nobody waits for it any more.
        let _place = place;
        (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
    });
    let found: io::Result<Vec<SocketAddr>> = lookup.await.map_err(|_| Problem::Dns("the lookup was cancelled".into()))?;
    found.map_err(|error| match unconnected(&error) {
        ours @ Problem::Ours(_) => ours,
        _ => Problem::Dns(format!("{asked}: {error}")),
    })
}

/// The first of the addresses that accepts. The next is tried as soon as one refuses, or does not answer for a moment: of two families one
/// may lead nowhere.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Problem> {
    let mut waiting = side_by_side(addresses).into_iter();
    let mut tries = FuturesUnordered::new();
    let mut last = Problem::Dns("the name has no address".into());
    tries.extend(waiting.next().map(TcpStream::connect));
    loop {
        tokio::select! {
            biased;
            opened = tries.next() => match opened {
                Some(Ok(stream)) => {
                    // Two small writes in a row would otherwise wait for an acknowledgement: 40 ms a probe.
                    let _unsupported_is_only_slower = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Some(Err(error)) => last = unconnected(&error),
                None => return Err(last),
            },
            () = tokio::time::sleep(STAGGER), if !waiting.as_slice().is_empty() => {}
        }
        tries.extend(waiting.next().map(TcpStream::connect));
    }
}

/// The addresses with the families taking turns, in the order of the resolver within each.
fn side_by_side(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(|address| address.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    (0..longest).flat_map(|n| [first.get(n), second.get(n)]).flatten().copied().collect()
}

/// The proxy by which the server is reached. Only TLS goes through one: what is in it the proxy cannot read. And no name of the cluster's
/// own: where that leads is judged here.
fn through(route: &Route, proxy: Option<&Proxy>) -> Option<Intercept> {
    let proxy = proxy.filter(|_| route.tls.is_some() && !matches!(route.dial, Dial::Pod(_)))?;
    let is_inside = matches!(route.dial, Dial::Name(..)) && route.guard.as_ref().is_some_and(Guard::is_inside);
    if is_inside {
        return None;
    }
    proxy.to(route.host.to_str().ok()?)
}

/// A connection through a proxy: it connects, and hands on what comes.
async fn tunnel(route: &Route, proxy: &Intercept, step: &mut Step) -> Result<TcpStream, Problem> {
    let refused = |what: &str| Problem::Unreachable(format!("the proxy {what}"));
    // Any other name is the proxy's to resolve, and where it leads the proxy's to allow.
    if let Dial::Address(ip, port) = route.dial {
        guarded(route, vec![(ip, port).into()])?;
    }
    let host = proxy.uri().host().ok_or_else(|| refused("has no name"))?.trim_matches(['[', ']']);
    let port = proxy.uri().port_u16().unwrap_or(80);
    *step = Step::Resolve;
    let addresses = resolve(host.to_owned(), port).await?;
    *step = Step::Connect;
    let mut stream = connect(&addresses).await.map_err(|problem| match problem {
        ours @ Problem::Ours(_) => ours,
        _ => refused("cannot be reached"),
    })?;
    let target = match &route.dial {
        Dial::Address(IpAddr::V6(ip), port) => format!("[{ip}]:{port}"),
        Dial::Address(ip, port) => format!("{ip}:{port}"),
        Dial::Name(name, port) => format!("{name}:{port}"),
        Dial::Pod(_) => return Err(refused("is none for a pod")),
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(credentials) = proxy.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|_| refused("broke the connection"))?;
    let mut head = Vec::new();
    // A byte at a time: what follows the head is the server's.
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.map_err(|_| refused("broke the connection"))?;
        head.push(byte);
        if head.len() > PROXY_HEAD {
            return Err(refused("answers without end"));
        }
    }
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status.first() == Some(&b'2') {
        Ok(stream)
    } else {
        Err(refused(&format!("answered {}", String::from_utf8_lossy(status))))
    }
}

async fn shake_hands(
    route: &Route,
    stream: TcpStream,
    name: ServerName<'static>,
    config: &ClientConfig,
) -> Result<Watched, Problem> {
    let asked = Arc::new(AtomicBool::new(false));
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate(Arc::clone(&asked)));
    let wanted = || asked.load(Ordering::Relaxed);
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| match unconnected(&error) {
        ours @ Problem::Ours(_) => ours,
        _ if wanted() => certificate_wanted(),
        _ => Problem::Tls(tls_text(&error)),
    })?;
    let until = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(|leaf| left(leaf));
    let keep = route.keep.map(|keep| until.map_or(keep, |until| keep.min(until)));
    Ok(Watched::new(Stream::Tls(Box::new(stream)), keep, wanted()))
}

/// What a server that asks for a client certificate and ends the conversation wants.
pub(super) fn certificate_wanted() -> Problem {
    Problem::Tls("the server wants a client certificate, and mcpfleet has none to give".into())
}

/// How much longer the certificate is valid.
fn left(certificate: &[u8]) -> Option<Duration> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp() - clock::now().as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// We have no certificate; but that the server asked for one is worth knowing.
#[derive(Debug)]
struct NoCertificate(Arc<AtomicBool>);

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl Watched {
    /// A new connection. `keep`: for how long it may be used by later probes; none: not at all.
    pub(super) fn new(stream: Stream, keep: Option<Duration>, certificate_wanted: bool) -> Self {
        Self { stream, first: Arc::default(), kept_until: keep.map(|keep| Instant::now() + keep), certificate_wanted }
    }

    /// A later probe may use it.
    pub(super) fn is_fresh(&self) -> bool {
        self.kept_until.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_resolvers_choice_is_first() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<SocketAddr>>();
        let given = parse(&["[::1]:1", "[::2]:1", "10.0.0.1:1", "[::3]:1"]);
        assert_eq!(side_by_side(&given), parse(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]));
    }

    #[test]
    fn a_connection_is_not_kept_past_the_end_of_its_certificate() {
        let until = |year| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().expect("a key");
            left(params.self_signed(&key).expect("a certificate").der()).expect("an end")
        };
        assert_eq!(until(2021), Duration::ZERO);
        assert!(until(4000) > Duration::from_hours(24));
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_delays_the_next_one_by_a_moment_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        // A full backlog drops what comes: nobody answers there, and nobody refuses.
        let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
        deaf.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let deaf = deaf.listen(0).expect("a listener");
        let silent = deaf.local_addr().expect("an address");
        let fill = [(); 3].map(|()| tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(silent)));
        let _filled = futures::future::join_all(fill).await;
        let began = Instant::now();
        let open = listener.local_addr().expect("an address");
        connect(&[silent, open]).await.expect("the second one accepts");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

//! Certificates that are right and wrong.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use operator::{
    crd::{CircuitState, reason},
    probe::{Endpoint, EngineConfig, Proxy, RemotePolicy, VerdictKind as Kind},
    reach::Reach,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    support::{
        fake::{self, Act, Ask, Fake, State, modern},
        rig::Rig,
    },
    table::{HEALTHY, failed},
};

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    Ca { pem, issuer: Issuer::new(params, key) }
}

fn certified(ca: &Ca, name: &str, expired: bool) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    if expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let certificate: CertificateDer<'static> = params.signed_by(&key, &ca.issuer).expect("a certificate").der().clone();
    (vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

fn builder() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions")
}

fn acceptor(ca: &Ca, name: &str, expired: bool) -> tokio_rustls::TlsAcceptor {
    let (chain, key) = certified(ca, name, expired);
    let config = builder().with_no_client_auth().with_single_cert(chain, key).expect("a certificate and its key");
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// Shows its first certificate until it is told to show the second one, and keeps its ticket keys meanwhile.
#[derive(Debug)]
struct Reloaded {
    certificates: [Arc<CertifiedKey>; 2],
    second: AtomicBool,
}

impl ResolvesServerCert for Reloaded {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.certificates[usize::from(self.second.load(Ordering::Relaxed))]))
    }
}

#[tokio::test]
async fn a_certificate_that_becomes_a_wrong_one_is_seen_although_sessions_could_be_resumed() {
    let ca = ca();
    let certificates = [certified(&ca, "localhost", false), certified(&ca, "localhost", true)].map(|(chain, key)| {
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
        Arc::new(CertifiedKey::new(chain, key))
    });
    let reloaded = Arc::new(Reloaded { certificates, second: AtomicBool::new(false) });
    let config = builder().with_no_client_auth().with_cert_resolver(Arc::<Reloaded>::clone(&reloaded));
    // Each answer ends its connection: the next probe could resume.
    let script = |ask: &Ask, state: &State| match modern(ask, state) {
        Act::Bytes(bytes) => Act::BytesThenClose(bytes),
        other => other,
    };
    let fake = Fake::start_tls(Arc::new(script), Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await;
    let rig = Rig::start();
    rig.server("server", fake.addr, |spec| {
        spec.endpoint = Endpoint::Remote { url: format!("https://localhost:{}/mcp", fake.addr.port()).parse().expect("a URL") };
        spec.ca = Some(ca.pem.as_bytes().to_vec());
    });
    rig.until("server", Duration::from_secs(30), |health| health.verdict.kind == Kind::Healthy).await.expect("healthy");
    reloaded.second.store(true, Ordering::Relaxed);
    let open = |health: &operator::probe::ServerHealth| health.circuit.state == CircuitState::Open;
    let health = rig.until("server", Duration::from_secs(20), open).await.expect("open");
    assert_eq!(health.verdict.reason, reason::TLS_FAILED, "{health:?}");
}

/// A proxy that connects to whatever it is asked for, and remembers what that was.
async fn proxy() -> (std::net::SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("text");
                let target = head.split(' ').nth(1).expect("a target").to_owned();
                told.lock().expect("no panic").push(head);
                let mut server = tokio::net::TcpStream::connect(target).await.expect("a server");
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("a client");
                let _ended = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_remote_server_with_tls_is_reached_by_the_proxy_unless_that_is_not_for_it() {
    for (no_proxy, by_proxy) in [("", true), ("localhost", false)] {
        let ca = ca();
        let fake = Fake::start_tls(Arc::new(modern), Some(acceptor(&ca, "localhost", false))).await;
        let (address, asked) = proxy().await;
        let proxy = Proxy::new(&format!("http://user:pass@{address}"), no_proxy);
        let rig = Rig::start_with(EngineConfig { proxy, ..EngineConfig::default() });
        rig.server("server", fake.addr, |spec| {
            let url = format!("https://localhost:{}/mcp", fake.addr.port());
            spec.endpoint = Endpoint::Remote { url: url.parse().expect("a URL") };
            spec.ca = Some(ca.pem.as_bytes().to_vec());
        });
        rig.until("server", Duration::from_secs(30), |health| health.verdict.kind == Kind::Healthy).await.expect("healthy");
        let asked = asked.lock().expect("no panic");
        assert_eq!(!asked.is_empty(), by_proxy, "{asked:?}");
        let credentials = "Proxy-Authorization: Basic dXNlcjpwYXNz";
        assert!(asked.iter().all(|head| head.starts_with("CONNECT localhost:") && head.contains(credentials)), "{asked:?}");
    }
}

/// A proxy in the cluster would get to where the operator must not.
#[tokio::test]
async fn a_name_of_the_clusters_own_is_judged_here_and_never_told_to_a_proxy() {
    let (address, asked) = proxy().await;
    let proxy = Proxy::new(&format!("http://{address}"), "");
    let remote = RemotePolicy { reach: Some(Reach::new(Vec::new(), Vec::new())), tool_calls: false };
    let rig = Rig::start_with(EngineConfig { proxy, remote, ..EngineConfig::default() });
    for host in ["localhost", "127.0.0.1", "db.theirs.svc"] {
        rig.server(host, address, |spec| {
            let url = format!("https://{host}:{}/mcp", address.port());
            spec.endpoint = Endpoint::Remote { url: url.parse().expect("a URL") };
        });
        let failed = |health: &operator::probe::ServerHealth| health.verdict.kind == Kind::Failed;
        let told = rig.until(host, Duration::from_secs(30), failed).await.expect("failed");
        let resolves = host != "db.theirs.svc";
        assert_eq!(told.verdict.reason == reason::ADDRESS_FORBIDDEN, resolves, "{host}: {told:?}");
    }
    assert!(asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_told_as_such() {
    let ca = ca();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
    let (chain, key) = certified(&ca, "localhost", false);
    let config = builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).expect("a certificate and its key");
    let (kind, reason, message) = verdict(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config))), Some(&ca.pem)).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
    assert!(message.contains("client certificate"), "{message}");
}

async fn verdict(acceptor: Option<tokio_rustls::TlsAcceptor>, ca: Option<&str>) -> (Kind, &'static str, String) {
    let fake = Fake::start_tls(Arc::new(modern), acceptor).await;
    let rig = Rig::start();
    rig.server("server", fake.addr, |spec| {
        spec.endpoint = Endpoint::Remote { url: format!("https://localhost:{}/mcp", fake.addr.port()).parse().expect("a URL") };
        spec.ca = ca.map(|pem| pem.as_bytes().to_vec());
    });
    let health =
        rig.until("server", Duration::from_secs(30), |health| health.verdict.kind != Kind::Unknown).await.expect("a verdict");
    (health.verdict.kind, health.verdict.reason, health.verdict.message.to_string())
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_it_is_given() {
    let ca = ca();
    let (kind, reason, message) = verdict(Some(acceptor(&ca, "localhost", false)), Some(&ca.pem)).await;
    assert_eq!((kind, reason), HEALTHY, "{message}");
}

#[tokio::test]
async fn a_ca_that_nobody_gave_is_not() {
    let (kind, reason, message) = verdict(Some(acceptor(&ca(), "localhost", false)), None).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
    assert!(message.contains("UnknownIssuer"), "{message}");
}

#[tokio::test]
async fn another_ca_is_not() {
    let (kind, reason, message) = verdict(Some(acceptor(&ca(), "localhost", false)), Some(&ca().pem)).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not() {
    let ca = ca();
    let (kind, reason, message) = verdict(Some(acceptor(&ca, "elsewhere.example", false)), Some(&ca.pem)).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
}

#[tokio::test]
async fn an_expired_certificate_is_not() {
    let ca = ca();
    let (kind, reason, message) = verdict(Some(acceptor(&ca, "localhost", true)), Some(&ca.pem)).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
    assert!(message.to_lowercase().contains("expired"), "{message}");
}

#[tokio::test]
async fn a_plain_server_behind_an_https_url_is_told_as_that() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The greeting of TLS is no request: servers say so, in plain HTTP.
            let _greeting = stream.read(&mut [0; 4096]).await;
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let rig = Rig::start();
    rig.server("server", ([127, 0, 0, 1], port).into(), |spec| {
        spec.endpoint = Endpoint::Remote { url: format!("https://localhost:{port}/mcp").parse().expect("a URL") };
    });
    let health = rig.until("server", Duration::from_secs(30), |health| health.verdict.kind != Kind::Unknown).await;
    let verdict = health.expect("a verdict").verdict;
    assert_eq!((verdict.kind, verdict.reason), failed(reason::TLS_FAILED), "{verdict:?}");
    assert!(verdict.message.contains("answers plain HTTP where https is expected"), "{verdict:?}");
}

#[tokio::test]
async fn a_bundle_without_a_certificate_says_so() {
    let ca = ca();
    let (kind, reason, message) = verdict(Some(acceptor(&ca, "localhost", false)), Some("not PEM")).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED));
    assert!(message.contains("CA bundle"), "{message}");
}

#[tokio::test]
async fn a_tls_server_behind_a_plain_url_fails() {
    let fake = Fake::start_tls(Arc::new(modern), Some(acceptor(&ca(), "localhost", false))).await;
    let rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    let health =
        rig.until("server", Duration::from_secs(30), |health| health.circuit.state == CircuitState::Open).await.expect("open");
    assert!(health.verdict.message.contains("speaks TLS where http is expected"), "{:?}", health.verdict);
    // Some answer in plain HTTP that they want TLS: nginx, and servers in Go.
    for said in
        ["<center>The plain HTTP request was sent to HTTPS port</center>", "Client sent an HTTP request to an HTTPS server.\n"]
    {
        let fake = Fake::start(move |_, _| fake::status("400 Bad Request", said)).await;
        let rig = Rig::start();
        rig.server("server", fake.addr, |_| {});
        let health = rig.until("server", Duration::from_secs(30), |health| health.circuit.state == CircuitState::Open);
        let health = health.await.expect("open");
        assert!(health.verdict.message.contains("speaks TLS where http is expected"), "{:?}", health.verdict);
    }
}

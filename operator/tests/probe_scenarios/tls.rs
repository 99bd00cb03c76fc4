//! Certificates that are right and wrong.
use std::{sync::Arc, time::Duration};

use operator::{
    crd::{CircuitState, reason},
    probe::{Endpoint, VerdictKind as Kind},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    support::{
        fake::{Fake, modern},
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

fn acceptor(ca: &Ca, name: &str, expired: bool) -> tokio_rustls::TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    if expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let certificate: CertificateDer<'static> = params.signed_by(&key, &ca.issuer).expect("a certificate").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
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
async fn a_plain_server_behind_an_https_url_fails() {
    let (kind, reason, message) = verdict(None, None).await;
    assert_eq!((kind, reason), failed(reason::TLS_FAILED), "{message}");
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
    assert!(matches!(health.verdict.reason, reason::NOT_MCP | reason::CONNECTION_RESET), "{:?}", health.verdict);
}

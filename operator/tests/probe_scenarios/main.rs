//! What a server may do to a prober, and what we make of it: verdict, conditions, gate and circuit, over a real socket.
#![allow(clippy::panic, reason = "a test says what is wrong")]
#![allow(clippy::too_many_lines, reason = "tables are as long as they are")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod eras;
mod events;
mod sessions;
mod statuses;
mod table;
mod tls;
mod tools;
mod transport;

use std::{net::SocketAddr, time::Duration};

use operator::{
    crd::{CircuitState, reason},
    probe::Endpoint,
};
use support::rig::Rig;
use table::{all, failed, judged};

#[tokio::test(flavor = "multi_thread")]
async fn broken_transports() {
    all(transport::transport()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_statuses() {
    all(statuses::statuses()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_kind() {
    all(bodies::bodies()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams() {
    all(events::events()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_eras() {
    all(eras::eras()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_sessions() {
    all(sessions::sessions()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_calls_of_tools() {
    all(tools::tools()).await;
}

#[tokio::test]
async fn the_suite_is_as_large_as_it_is_said_to_be() {
    let count = [
        transport::transport(),
        statuses::statuses(),
        bodies::bodies(),
        events::events(),
        eras::eras(),
        sessions::sessions(),
        tools::tools(),
    ]
    .iter()
    .map(Vec::len)
    .sum::<usize>();
    assert!(count >= 100, "{count} scenarios");
}

#[tokio::test]
async fn nothing_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    let rig = Rig::start();
    rig.server("server", addr, |_| {});
    judged(&rig, failed(reason::CONNECTION_REFUSED)).await.expect("refused");
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let rig = Rig::start();
    rig.server("server", SocketAddr::from(([127, 0, 0, 1], 9)), |spec| {
        spec.endpoint = Endpoint::Remote { url: "http://user:s3cret@no-such-host.invalid/mcp".parse().expect("a URL") };
    });
    let health =
        rig.until("server", Duration::from_secs(30), |health| health.circuit.state == CircuitState::Open).await.expect("open");
    assert_eq!(health.verdict.reason, reason::DNS_FAILED);
    assert!(!health.verdict.message.contains("s3cret"));
    assert!(!serde_json::to_string(&rig.engine.fleet()).expect("JSON").contains("s3cret"));
}

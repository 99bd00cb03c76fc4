//! What a server may do to a prober, and what we make of it: verdict, conditions, gate and circuit, over a real socket.
#![allow(clippy::panic, reason = "a test says what is wrong")]
#![allow(clippy::too_many_lines, reason = "tables are as long as they are")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod eras;
mod events;
mod pods;
mod sessions;
mod statuses;
mod streams;
mod table;
mod tls;
mod tools;
mod transport;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use operator::{
    crd::{CircuitState, Era, reason},
    probe::{Endpoint, ServerHealth},
};
use support::{
    fake::{Act, Fake, State, legacy, modern},
    rig::Rig,
};
use table::{HEALTHY, all, failed, judged};

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
async fn streams_that_ask_and_streams_that_go_on() {
    all(streams::streams()).await;
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
        streams::streams(),
        eras::eras(),
        sessions::sessions(),
        tools::tools(),
    ]
    .iter()
    .map(Vec::len)
    .sum::<usize>();
    assert!(count >= 180, "{count} scenarios");
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

#[tokio::test]
async fn a_server_that_is_upgraded_in_its_place_is_asked_in_its_new_era() {
    let (new, switch) = (Arc::new(AtomicBool::new(false)), |new: &AtomicBool| new.store(true, Ordering::Relaxed));
    let seen = Arc::clone(&new);
    let fake =
        Fake::start(move |ask, state| if seen.load(Ordering::Relaxed) { modern(ask, state) } else { legacy(ask, state) }).await;
    let rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    judged(&rig, HEALTHY).await.expect("healthy");
    assert_eq!(rig.health("server").protocol.expect("a protocol").era, Era::Legacy);
    switch(&new);
    let era = |health: &ServerHealth| health.protocol.as_ref().is_some_and(|protocol| protocol.era == Era::Modern);
    let health = rig.until("server", Duration::from_secs(10), era).await.expect("modern");
    assert_eq!((health.circuit.state, health.circuit.openings), (CircuitState::Closed, 0), "no failure on the way");
}

#[tokio::test]
async fn a_session_that_is_opened_long_after_the_probe_gave_up_is_deleted() {
    let fake = Fake::start(|ask, state| {
        let act = legacy(ask, state);
        if ask.method == "initialize" { act.after(9_000) } else { act }
    })
    .await;
    let mut rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    judged(&rig, failed(reason::TIMEOUT)).await.expect("a hang");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while fake.state.left() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(fake.state.opened.load(Ordering::Relaxed) > 0, "none was opened");
    assert_eq!(fake.state.left(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_never_answers_a_deletion_is_left_with_few_connections() {
    let fake = Fake::start(|ask, state| if ask.http == "DELETE" { Act::hang() } else { legacy(ask, state) }).await;
    let mut rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    judged(&rig, HEALTHY).await.expect("healthy");
    let mut most = 0;
    while fake.state.opened.load(Ordering::Relaxed) < 16 {
        most = most.max(fake.state.live.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Three that are waited for long, those of the last 5 s, and the probe under way.
    assert!(most <= 10, "{most} connections at a time");
    drop(fake);
    rig.stop().await;
}

#[tokio::test]
async fn a_deletion_that_a_server_threw_away_when_it_went_on_is_sent_again() {
    let thrown = AtomicBool::new(false);
    // A server that was stopped finds that the connection was idle for too long by its clock, and closes it with what is unread on it.
    let fake = Fake::start(move |ask, state| {
        let first = ask.http == "DELETE" && !thrown.swap(true, Ordering::Relaxed);
        if first { Act::BytesThenReset(Vec::new()).after(6_000) } else { legacy(ask, state) }
    })
    .await;
    let mut rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    judged(&rig, HEALTHY).await.expect("healthy");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    let lost = |state: &State| state.sessions.lock().expect("no panic").contains("s0");
    while lost(&fake.state) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!lost(&fake.state), "the first session stayed");
    rig.stop().await;
}

#[tokio::test]
async fn a_pod_with_an_ipv6_address() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.expect("a port");
    let fake = Fake::serve(listener, Arc::new(modern), None);
    let rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    judged(&rig, HEALTHY).await.expect("healthy");
    let host = fake.state.asks.lock().expect("no panic")[0].headers["host"].clone();
    assert_eq!(host, "server-mcp.test.svc:8080");
}

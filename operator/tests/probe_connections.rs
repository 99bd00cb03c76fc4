//! What the prober leaves on the servers that it asks: connections and sessions. Over real sockets.
#![allow(clippy::panic, reason = "a test says what is wrong")]

mod support;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use operator::{
    crd::{CircuitState, Era, reason},
    probe::{Attempt as _, Known, McpProber, Prober as _, Route, TargetId, VerdictKind as Kind},
};
use support::{
    fake::{self, Act, Fake, legacy, modern},
    rig::{Rig, key, pod, spec},
};
use tokio::{net::TcpListener, time::sleep};

/// Probes a server so many times, one after the other.
async fn probes(fake: &Fake, count: usize) -> Known {
    probes_by(fake, count, Known::default()).await
}

async fn probes_by(fake: &Fake, count: usize, mut known: Known) -> Known {
    let route = Arc::new(Route::new(&spec(fake.addr.port())));
    let prober = McpProber::default();
    for _ in 0..count {
        let mut attempt = prober.attempt(TargetId(1), &route, Some(fake.addr.ip()), known, false);
        attempt.ask().await.expect("a good probe");
        known = attempt.known();
        attempt.finish().await;
    }
    known
}

#[tokio::test]
async fn a_thousand_probes_of_a_legacy_server_leave_no_session_and_use_one_connection() {
    let fake = Fake::start(legacy).await;
    probes(&fake, 1_000).await;
    assert_eq!(fake.state.left(), 0);
    assert_eq!((fake.state.count("initialize"), fake.state.count("DELETE")), (1_000, 1_000));
    assert_eq!(fake.state.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(fake.state.count("server/discover"), 1, "the era is found once");
}

#[tokio::test]
async fn a_thousand_probes_of_a_modern_server_are_two_thousand_requests_on_one_connection() {
    let fake = Fake::start(modern).await;
    probes(&fake, 1_000).await;
    assert_eq!(fake.state.total(), 2_000);
    assert_eq!(fake.state.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_spoke_the_modern_era_and_was_silent_for_a_while_is_not_taken_for_a_legacy_server() {
    let both = |ask: &fake::Ask, state: &fake::State| {
        if ask.headers.contains_key("mcp-method") { modern(ask, state) } else { legacy(ask, state) }
    };
    let fake = Fake::start(both).await;
    let mut known = probes(&fake, 1).await;
    // It failed, and was silent to discover last: now it is greeted in the older era first.
    known.forget_era();
    known.legacy_first = true;
    let known = probes_by(&fake, 1, known).await;
    assert_eq!((known.era, fake.state.count("initialize")), (Some(Era::Modern), 1));
    assert_eq!(fake.state.left(), 0, "the session of the older era is not left behind");
}

#[tokio::test]
async fn a_probe_that_is_cancelled_half_way_deletes_its_session() {
    let fake = Fake::start(|ask, state| if ask.method == "tools/list" { Act::hang() } else { legacy(ask, state) }).await;
    let rig = Rig::start();
    rig.server("server", fake.addr, |spec| {
        spec.health.timeout_seconds = 60;
        spec.health.interval_seconds = 60;
    });
    while fake.state.count("tools/list") == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fake.state.left(), 1);
    rig.engine.remove_server(&key("server"));
    for _ in 0..100 {
        if fake.state.left() == 0 {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{} sessions left", fake.state.left());
}

#[tokio::test]
async fn an_engine_that_is_stopped_has_deleted_its_sessions_when_it_returns() {
    let fake = Fake::start(|ask, state| match ask.method.as_str() {
        "tools/list" => Act::hang(),
        "initialize" => legacy(ask, state).after(100),
        _ => legacy(ask, state),
    })
    .await;
    let mut rig = Rig::start();
    for n in 0..20 {
        rig.server(&format!("s{n}"), fake.addr, |spec| spec.health.timeout_seconds = 60);
    }
    // Some wait for the list, some for initialize.
    while fake.state.count("initialize") < 20 {
        sleep(Duration::from_millis(5)).await;
    }
    rig.stop().await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(fake.state.left(), 0);
}

#[tokio::test]
async fn a_kept_connection_does_not_speak_for_another_address() {
    let first = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = first.local_addr().expect("an address").port();
    let second = TcpListener::bind(SocketAddr::from(([127, 0, 0, 2], port))).await.expect("the same port");
    let good = Fake::serve(first, Arc::new(modern), None);
    let _bad = Fake::serve(second, Arc::new(|_, _| fake::status("500 Oh", "")), None);
    let rig = Rig::start();
    rig.server("server", good.addr, |_| {});
    rig.until("server", Duration::from_secs(5), |health| health.verdict.kind == Kind::Healthy).await.expect("healthy");
    // The process of before still answers on the connection that we keep; the pod is elsewhere.
    rig.api.change_pod("server-0", |pod| pod.address = Some(IpAddr::from([127, 0, 0, 2])));
    let health = rig.until("server", Duration::from_secs(10), |health| health.verdict.is_failed()).await.expect("failed");
    assert_eq!((health.verdict.reason, health.circuit.state), (reason::HTTP_STATUS, CircuitState::Open));
}

#[tokio::test]
async fn the_pods_of_one_address_one_after_the_other_are_judged_each_by_itself() {
    let fake = Fake::start(modern).await;
    let rig = Rig::start();
    rig.server("server", fake.addr, |_| {});
    rig.until("server", Duration::from_secs(5), |health| health.pods.iter().any(|pod| pod.in_service)).await.expect("in service");
    rig.api.remove_pod("server-0");
    let addr = fake.addr;
    drop(fake);
    rig.api.set_pod(&key("server"), operator::probe::PodState { uid: "another".into(), ..pod("server-1", addr.ip()) });
    sleep(Duration::from_millis(300)).await;
    assert!(rig.health("server").pods.iter().all(|pod| !pod.gate), "{:?}", rig.health("server"));
}

#[tokio::test]
async fn secrets_are_in_no_message_and_no_debug_output() {
    let fake = Fake::start(|ask, _| {
        // A server that repeats what it was told.
        let told = ask.headers.get("authorization").cloned().unwrap_or_default();
        let body = serde_json::json!({"jsonrpc": "2.0", "id": ask.id, "error": {"code": -32000, "message": format!("bad token {told}")}});
        fake::json_bytes(&body.to_string())
    })
    .await;
    let rig = Rig::start();
    let mut secret = spec(fake.addr.port());
    secret.credentials = vec![(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer s3cret-token"))];
    assert!(!format!("{secret:?}").contains("s3cret"));
    rig.engine.set_server(&key("server"), secret, None);
    rig.api.set_pod(&key("server"), pod("server-0", fake.addr.ip()));
    let health = rig.until("server", Duration::from_secs(10), |health| health.verdict.is_failed()).await.expect("failed");
    assert!(health.verdict.message.contains("bad token ***"), "{}", health.verdict.message);
    assert!(!format!("{:?}", rig.engine).contains("s3cret"));
    assert!(!serde_json::to_string(&rig.engine.fleet()).expect("JSON").contains("s3cret"));
}

#[tokio::test]
async fn no_more_connections_are_kept_than_there_is_room_for() {
    let fake = Fake::start(modern).await;
    let route = Arc::new(Route::new(&spec(fake.addr.port())));
    let prober = McpProber::default().keeping(4);
    for _ in 0..2 {
        for id in 0..10 {
            let mut attempt = prober.attempt(TargetId(id), &route, Some(fake.addr.ip()), Known::default(), false);
            attempt.ask().await.expect("a good probe");
            attempt.finish().await;
        }
    }
    assert_eq!(fake.state.connections.load(std::sync::atomic::Ordering::Relaxed), 16, "four of ten were used again");
}

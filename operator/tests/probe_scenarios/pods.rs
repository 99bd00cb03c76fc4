//! What only a pod can do: name itself by its own address, and be gone in mid-probe.

use std::{sync::Arc, time::Duration};

use operator::crd::reason;
use tokio::net::TcpListener;

use crate::{
    support::{
        fake::{Act, Ask, Fake, State, legacy, modern, response},
        rig::Rig,
    },
    table::{HEALTHY, failed, judged},
};

/// Redirects from `/mcp` to `/v2` at the address that `to` makes of the pod's own port.
async fn redirected(code: &'static str, to: impl Fn(u16) -> String) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let location = to(listener.local_addr().expect("an address").port());
    let script = move |ask: &_, state: &_| move_on(ask, state, code, &location);
    Fake::serve(listener, Arc::new(script), None)
}

fn move_on(ask: &Ask, state: &State, code: &str, location: &str) -> Act {
    if ask.path == "/v2" { modern(ask, state) } else { Act::Bytes(response(code, &[("Location", location)], "")) }
}

#[tokio::test]
async fn a_redirect_to_the_pods_own_address_is_followed() {
    for code in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let fake = redirected(code, |port| format!("http://127.0.0.1:{port}/v2")).await;
        let rig = Rig::start();
        rig.server("server", fake.addr, |_| {});
        judged(&rig, HEALTHY).await.expect(code);
    }
}

#[tokio::test]
async fn a_redirect_to_another_pod_port_or_scheme_is_not_followed() {
    // A redirect that is followed stays on the connection: /v2 would answer there.
    for to in ["http://127.0.0.2:PORT/v2", "http://127.0.0.1:1/v2", "https://127.0.0.1:PORT/v2"] {
        let fake = redirected("307 Temporary Redirect", |port| to.replace("PORT", &port.to_string())).await;
        let rig = Rig::start();
        rig.server("server", fake.addr, |_| {});
        judged(&rig, failed(reason::REDIRECTED)).await.expect(to);
    }
}

#[tokio::test]
async fn a_pod_that_is_gone_in_mid_probe_leaves_neither_a_session_nor_a_word() {
    let fake = Fake::start(|ask, state| if ask.method == "tools/list" { Act::hang() } else { legacy(ask, state) }).await;
    let mut rig = Rig::start();
    rig.server("server", fake.addr, |spec| {
        spec.health.timeout_seconds = 60;
        spec.health.interval_seconds = 60;
    });
    let patience = Duration::from_secs(10);
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        let waited = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, waited).await.unwrap_or_else(|_| panic!("{what} did not come about"));
    };
    until("a probe", &|| fake.state.count("tools/list") > 0).await;
    assert!(fake.state.left() > 0, "it has a session");
    rig.changes();
    let writes = rig.api.writes().len();
    rig.api.remove_pod("server-0");
    until("the end of the session", &|| fake.state.left() == 0).await;
    until("the end of the connection", &|| fake.state.live.load(std::sync::atomic::Ordering::Relaxed) == 0).await;
    assert!(rig.health("server").pods.is_empty());
    assert_eq!(rig.api.writes().len(), writes, "nothing is written of a pod that is gone");
    assert_eq!(rig.api.events(), Vec::<String>::new());

    rig.stop().await;
}

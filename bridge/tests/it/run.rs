//! Start, readiness, the end, and the other verbs.

use std::process::Command;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Bridge, alive, child, initialize, until};

async fn ready(bridge: &Bridge) -> StatusCode {
    bridge.request(Method::GET, "/readyz").send().await.unwrap().status()
}

#[tokio::test]
async fn it_is_ready_when_its_child_is() {
    let bridge = Bridge::start("", &child("legacy slow-start")).await;
    assert_eq!(ready(&bridge).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bridge.request(Method::GET, "/healthz").send().await.unwrap().status(), StatusCode::OK);
    until("a child", async || (ready(&bridge).await == StatusCode::OK).then_some(())).await;
    assert_eq!(bridge.metric("bridge_children").await, 1);
}

#[rstest]
#[tokio::test]
async fn it_drains_before_it_ends(#[values("shared", "per-session")] sessions: &str) {
    let bridge = Bridge::start(&format!("--lame-duck-seconds 1 --sessions {sessions}"), &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    let pid = bridge.text(Some(&session), "seen", json!({})).await["pid"].as_i64().unwrap();
    let listening =
        bridge.request(Method::GET, "/mcp").header("mcp-session-id", &session).header("accept", "text/event-stream").send();
    let mut listening = crate::support::Events::of(listening.await.unwrap());
    let slow = bridge.text(Some(&session), "sleep", json!({"seconds": 2}));
    let draining = async {
        until("the call", async || (bridge.metric("bridge_calls_in_flight").await >= 1).then_some(())).await;
        bridge.signal("-TERM");
        until("not ready", async || (ready(&bridge).await == StatusCode::SERVICE_UNAVAILABLE).then_some(())).await;
        assert_eq!(bridge.post(None, &initialize(json!({}))).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(listening.next().await.is_none(), "it would hold up the end");
    };
    let (slept, ()) = tokio::join!(slow, draining);
    assert_eq!(slept, "slept", "what is in flight finishes");
    let mut bridge = bridge;
    assert_eq!(bridge.ended().await.code(), Some(0));
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_child_that_will_not_end_is_made_to() {
    let bridge = Bridge::start("--lame-duck-seconds 0", &child("legacy ignore-eof")).await;
    let pid = bridge.text(None, "seen", json!({})).await["pid"].as_i64().unwrap();
    let began = Instant::now();
    assert_eq!(bridge.stop().await.code(), Some(0));
    assert!(!alive(pid));
    // Two seconds for the closed input, two for SIGTERM.
    assert!(began.elapsed() >= Duration::from_millis(3900) && began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn it_copies_itself() {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new(env!("CARGO_BIN_EXE_bridge")).arg("copy-self").arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let copy = Command::new(folder.path().join("bridge")).arg("--version").output().unwrap();
    assert!(copy.status.success() && String::from_utf8_lossy(&copy.stdout).starts_with("bridge "));
}

#[test]
fn what_cannot_be_copied_is_told_with_its_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for place in [file.path().join("folder"), "/proc".into()] {
        let failed = Command::new(env!("CARGO_BIN_EXE_bridge")).arg("copy-self").arg(&place).output().unwrap();
        let told: Value = serde_json::from_slice(&failed.stderr).unwrap();
        let words = format!("failed to copy this program to {}: ", place.display());
        assert_eq!((failed.status.code(), &told["level"]), (Some(1), &json!("ERROR")), "{told}");
        // And the system's own word.
        assert!(told["message"].as_str().unwrap().strip_prefix(&words).is_some_and(|why| why.contains("os error")), "{told}");
    }
}

#[test]
fn the_activator_is_the_program_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let bridge = folder.path().join("bridge");
    std::fs::copy(env!("CARGO_BIN_EXE_bridge"), &bridge).unwrap();
    let activate = || Command::new(&bridge).args(["activate", "--help", "--listen", "[::]:1"]).output().unwrap();

    let alone = activate();
    let told = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(!alone.status.success() && told.contains("/activator, which the bridge's image has beside it"), "{told}");

    std::os::unix::fs::symlink("/bin/echo", folder.path().join("activator")).unwrap();
    let started = activate();
    assert_eq!(String::from_utf8_lossy(&started.stdout), "--help --listen [::]:1\n");
}

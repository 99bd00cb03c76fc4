//! Start, readiness, the end, and the other verbs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
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

#[tokio::test]
async fn it_drains_before_it_ends() {
    let bridge = Bridge::start("--lame-duck-seconds 1", &child("legacy")).await;
    let session = bridge.initialize(json!({})).await;
    let pid = bridge.text(None, "seen", json!({})).await["pid"].as_i64().unwrap();
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
    assert!(began.elapsed() >= Duration::from_millis(3900) && began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_installed_is_started_without_its_runner() {
    let packages = tempfile::tempdir().unwrap();
    let index = json!({"npm @scope/server@1.0.0": child("")[0]});
    std::fs::write(packages.path().join("installed.json"), index.to_string()).unwrap();
    let mut command: Vec<String> = ["npx", "-y", "@scope/server@1.0.0"].map(str::to_owned).to_vec();
    command.extend(child("legacy").drain(1..));
    let bridge = Bridge::start(&format!("--packages {}", packages.path().display()), &command).await;
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
}

/// A folder with an `npm` that does this instead, and what installs by it.
fn installs(script: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let npm = folder.path().join("npm");
    std::fs::write(&npm, format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display())).unwrap();
    std::fs::set_permissions(&npm, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut install = Command::new(env!("CARGO_BIN_EXE_bridge"));
    install.env("PATH", path).args(["install", "npm", "server@1.0.0", "--into"]).arg(folder.path().join("packages"));
    (folder, install)
}

#[tokio::test]
async fn an_installation_that_is_to_stop_ends_with_all_that_it_started() {
    let (folder, mut install) =
        installs("sleep 1000 & echo $! >pids; setsid sleep 1000 & echo $! >>pids; echo $$ >>pids; touch begun; wait");
    let log = folder.path().join("log");
    std::fs::write(&log, "").unwrap();
    let mut bridge = install.arg("--termination-log").arg(&log).stderr(Stdio::null()).spawn().unwrap();
    until("the installer", async || folder.path().join("begun").exists().then_some(())).await;
    assert!(Command::new("kill").args(["-TERM", &bridge.id().to_string()]).status().unwrap().success());
    let ended = until("its end", async || bridge.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(1));
    assert_eq!(std::fs::read_to_string(log).unwrap(), "stopped before server@1.0.0 was installed");
    let pids = std::fs::read_to_string(folder.path().join("pids")).unwrap();
    let pids: Vec<i64> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    until("the end of all", async || (!pids.iter().any(|pid| alive(*pid))).then_some(())).await;
}

#[test]
fn a_package_that_does_not_have_what_it_names_is_told_so() {
    let (_folder, mut install) = installs(concat!(
        "own=packages/npm/npm+server+1.0.0/node_modules/server; mkdir -p $own; ",
        r#"echo '{"name": "server", "bin": {"server": "nothere.js"}}' >$own/package.json"#
    ));
    let output = install.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = "server@1.0.0 names the file nothere.js for its program server, and does not have it";
    assert!(output.status.code() == Some(1) && told.contains(words), "{told}");
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

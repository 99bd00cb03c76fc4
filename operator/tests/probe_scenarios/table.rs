//! What a scenario is, how it is run, and the pieces that scripts are made of.

use std::{io::Write as _, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue};
use operator::{
    clock,
    crd::{CircuitState, McpServer, ToolCall, reason},
    mcp_server::status::{self, Outcome},
    probe::{ServerHealth, ServerSpec, VerdictKind as Kind},
};
use serde_json::json;

use crate::support::{
    fake::{Act, Ask, Fake, Script, State, chunked, legacy, modern, response},
    rig::Rig,
};

pub type Change = fn(&mut ServerSpec);
pub type Check = fn(&ServerHealth, &State) -> Result<(), String>;

pub struct Scenario {
    pub name: &'static str,
    pub script: Script,
    pub change: Change,
    pub expected: (Kind, &'static str),
    pub check: Check,
    /// Sessions are allowed to stay: the server does not let us delete them.
    pub leaves_sessions: bool,
}

pub fn scenario(
    name: &'static str,
    expected: (Kind, &'static str),
    script: impl Fn(&Ask, &State) -> Act + Send + Sync + 'static,
) -> Scenario {
    Scenario { name, script: Arc::new(script), change: |_| {}, expected, check: |_, _| Ok(()), leaves_sessions: false }
}

impl Scenario {
    pub fn with(self, change: Change) -> Self {
        Self { change, ..self }
    }

    pub fn check(self, check: Check) -> Self {
        Self { check, ..self }
    }

    pub fn leaves_sessions(self) -> Self {
        Self { leaves_sessions: true, ..self }
    }
}

pub const HEALTHY: (Kind, &str) = (Kind::Healthy, reason::PROBE_SUCCEEDED);

pub const fn failed(reason: &'static str) -> (Kind, &'static str) {
    (Kind::Failed, reason)
}

pub const fn alive(reason: &'static str) -> (Kind, &'static str) {
    (Kind::Alive, reason)
}

/// The modern server, but for one method.
pub fn modern_but(
    method: &'static str,
    act: impl Fn(&Ask) -> Act + Send + Sync + 'static,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |ask, state| if ask.method == method { act(ask) } else { modern(ask, state) }
}

/// The legacy server, but for one method.
pub fn legacy_but(
    method: &'static str,
    act: impl Fn(&Ask) -> Act + Send + Sync + 'static,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |ask, state| if ask.method == method { act(ask) } else { legacy(ask, state) }
}

pub fn always(act: impl Fn() -> Act + Send + Sync + 'static) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |_, _| act()
}

pub fn body_of(ask: &Ask, state: &State) -> String {
    match modern(ask, state) {
        Act::Bytes(bytes) => String::from_utf8(bytes).expect("text").split_once("\r\n\r\n").expect("a head").1.to_owned(),
        other => panic!("unexpected {other:?}"),
    }
}

pub fn sse(ask: &Ask, state: &State, chunks: impl Fn(&str) -> Vec<String>, ends: bool) -> Act {
    let body = body_of(ask, state);
    let chunks = chunks(&body);
    let mut bytes = chunked("text/event-stream", &chunks.iter().map(String::as_str).collect::<Vec<_>>());
    if ends {
        bytes.extend_from_slice(b"0\r\n\r\n");
        Act::Bytes(bytes)
    } else {
        Act::BytesThenHang(bytes)
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub fn gzipped(ask: &Ask, state: &State, content_type: &str, body: &[u8]) -> Act {
    let _ = (ask, state);
    Act::Bytes(response("200 OK", &[("Content-Type", content_type), ("Content-Encoding", "gzip")], gzip(body)))
}

pub fn redirect(code: &'static str, to: &'static str) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |_, _| Act::Bytes(response(code, &[("Location", to)], ""))
}

pub fn with_status(
    code: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> impl Fn(&Ask, &State) -> Act + Send + Sync {
    move |_, _| Act::Bytes(response(code, headers, body))
}

pub fn credentials(spec: &mut ServerSpec) {
    spec.credentials = vec![(HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer s3cret-token"))];
}

pub fn tool_call(spec: &mut ServerSpec) {
    spec.health.tool_call = Some(ToolCall { name: "a".into(), arguments: serde_json::Map::new() });
}

/// Runs one scenario, and says what is wrong.
pub async fn run(scenario: Scenario) -> Result<(), String> {
    let Scenario { name, script, change, expected, check, leaves_sessions } = scenario;
    let mut rig = Rig::start();
    let fake = Fake::start_tls(script, None).await;
    rig.server("server", fake.addr, change);
    let verdict = judged(&rig, expected).await.and_then(|health| check(&health, &fake.state));
    rig.stop().await;
    verdict.map_err(|what| format!("{name}: {what}"))?;
    // The last deletion may still be on its way through the server.
    tokio::time::sleep(Duration::from_millis(50)).await;
    if leaves_sessions || fake.state.left() == 0 { Ok(()) } else { Err(format!("{name}: {} sessions left", fake.state.left())) }
}

/// Waits for the verdict and for all that follows from it.
pub async fn judged(rig: &Rig, expected: (Kind, &'static str)) -> Result<ServerHealth, String> {
    let (kind, reason) = expected;
    let wanted = |health: &ServerHealth| {
        let pod = health.pods.first();
        let (circuit, gate) = match kind {
            Kind::Failed => (CircuitState::Open, false),
            _ => (CircuitState::Closed, true),
        };
        (health.verdict.kind, health.verdict.reason) == (kind, reason)
            && health.circuit.state == circuit
            && pod.is_none_or(|pod| pod.gate == gate && pod.in_service == gate && pod.failing != gate)
    };
    let health = rig
        // A machine that stands still makes a timeout first: the circuit is tried again after half a minute.
        .until("server", Duration::from_mins(2), wanted)
        .await
        .map_err(|health| format!("expected {expected:?}, but it is {health:?}"))?;
    conditions(&health, kind)?;
    if health.verdict.message.contains("s3cret") {
        return Err(format!("a secret in {}", health.verdict.message));
    }
    Ok(health)
}

pub fn conditions(health: &ServerHealth, kind: Kind) -> Result<(), String> {
    let server: McpServer = serde_json::from_value(json!({
        "apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "metadata": {"name": "server", "namespace": "test"},
        "spec": {"container": {"image": "x"}},
    }))
    .expect("a server");
    let status = status::compute(&server, &Outcome::default(), Some(health), clock::now());
    let of = |type_: &str| {
        status.conditions.iter().find(|condition| condition.type_ == type_).map_or("", |condition| condition.status.as_str())
    };
    let found = (of("Ready"), of("Healthy"), of("CircuitClosed"));
    let expected = match kind {
        Kind::Failed => ("False", "False", "False"),
        // Whether its clients have what we have not is not for us to say.
        Kind::Alive if health.verdict.reason == reason::UNAUTHORIZED => ("Unknown", "Unknown", "True"),
        Kind::Alive => ("True", "Unknown", "True"),
        _ => ("True", "True", "True"),
    };
    // A pod counts as in service only once its gate has been patched; the rig's API server does that at once.
    if found == expected {
        Ok(())
    } else {
        Err(format!("Ready, Healthy, CircuitClosed are {found:?} instead of {expected:?}: {:#?}", status.conditions))
    }
}

pub async fn all(scenarios: Vec<Scenario>) {
    let count = scenarios.len();
    let wrong: Vec<String> =
        stream::iter(scenarios).map(run).buffer_unordered(24).filter_map(|result| async { result.err() }).collect().await;
    assert!(wrong.is_empty(), "{} of {count} scenarios went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

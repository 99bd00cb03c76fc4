//! A pod is asked what its own template says: an edit takes no old pod out before a new one is in.

use std::sync::Arc;

use operator::{
    crd::{CircuitState, ToolCall, ToolsPolicy},
    probe::{
        AcceptedTools, Dial, Endpoint, PodState, ServerHealth, ServerSpec, Tool, ToolsContract, ToolsList, Wire,
        template::Template,
    },
};
use rstest::rstest;
use tokio::time::sleep;

use crate::{
    gate, ip, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod},
    },
};

fn list(names: &[&str]) -> AcceptedTools {
    let tools = names.iter().map(|name| Tool { name: (*name).into(), hash: format!("hash of {name}").into() });
    ToolsList::new(tools.collect()).accept()
}

fn call() -> ToolCall {
    ToolCall { name: "new".into(), arguments: serde_json::Map::new() }
}

/// What the two versions of a server are asked, and what each of them answers.
struct Edit {
    spec: fn(&mut ServerSpec),
    before: Template,
    after: Template,
    old: Does,
    new: Does,
}

fn template() -> Template {
    Template { port: 8080, path: "/mcp".into(), tool_call: None, digest: None }
}

fn at_port(wire: &Wire) -> bool {
    wire.dial == Dial::Pod(3000)
}

fn at_path(wire: &Wire) -> bool {
    wire.path == "/new"
}

fn with_call(wire: &Wire) -> bool {
    wire.call.is_some()
}

fn port() -> Edit {
    Edit {
        spec: |spec| spec.endpoint = Endpoint::Pods { port: 3000, path: "/mcp".into(), host: "server-mcp.test.svc:3000".into() },
        before: template(),
        after: Template { port: 3000, ..template() },
        old: Does::AnswerTo(|wire| !at_port(wire)),
        new: Does::AnswerTo(at_port),
    }
}

fn path() -> Edit {
    Edit {
        spec: |spec| spec.endpoint = Endpoint::Pods { port: 8080, path: "/new".into(), host: "server-mcp.test.svc:8080".into() },
        before: template(),
        after: Template { path: "/new".into(), ..template() },
        old: Does::AnswerTo(|wire| !at_path(wire)),
        new: Does::AnswerTo(at_path),
    }
}

fn tool_call() -> Edit {
    Edit {
        spec: |spec| spec.health.tool_call = Some(call()),
        before: template(),
        after: Template { tool_call: Some(call()), ..template() },
        old: Does::AnswerTo(|wire| !with_call(wire)),
        new: Does::AnswerTo(with_call),
    }
}

fn digest(before: Option<&str>) -> Edit {
    Edit {
        spec: |spec| spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(list(&["a", "c"])), pinned: true },
        before: Template { digest: before.map(Into::into), ..template() },
        after: Template { digest: Some(list(&["a", "c"]).digest), ..template() },
        old: Does::Offer(vec!["a", "b"]),
        new: Does::Offer(vec!["a", "c"]),
    }
}

fn in_service(health: &ServerHealth) -> Vec<&str> {
    health.pods.iter().filter(|pod| pod.in_service).map(|pod| pod.name.as_str()).collect()
}

#[rstest]
#[case::port(port())]
#[case::path(path())]
#[case::tool_call(tool_call())]
#[case::digest(digest(Some(&list(&["a", "b"]).digest)))]
#[case::first_digest(digest(None))]
#[tokio::test(start_paused = true)]
async fn an_edit_leaves_the_old_pods_in_service_until_the_new_ones_are(#[case] edit: Edit) {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2, 3], |spec| {
        spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(list(&["a", "b"])), pinned: false };
    })
    .await;
    for n in [1, 2, 3] {
        puppet.set(ip(n), edit.old.clone());
        rig.api.change_pod(&format!("server-{n}"), |pod| pod.asked = Some(Arc::new(edit.before.clone())));
    }
    sleep(secs(30)).await;
    assert_eq!(in_service(&rig.health("server")).len(), 3);

    // The edit, and for a while no new pod at all.
    let mut spec = crate::support::rig::spec(8080);
    crate::usual(&mut spec);
    spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(list(&["a", "b"])), pinned: false };
    (edit.spec)(&mut spec);
    rig.engine.set_server(&key("server"), spec, None);
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert_eq!((in_service(&health).len(), health.circuit.state), (3, CircuitState::Closed), "{health:?}");

    // A new pod that does not answer changes nothing, one that does comes in beside them.
    let new = PodState { asked: Some(Arc::new(edit.after)), template: Some("2".into()), ..pod("server-4", ip(4)) };
    rig.api.set_pod(&key("server"), new);
    sleep(secs(60)).await;
    assert_eq!(in_service(&rig.health("server")), ["server-1", "server-2", "server-3"]);
    puppet.set(ip(4), edit.new);
    rig.until("server", secs(5), |health| gate(health, "server-4")).await.expect("the new one comes in");
    sleep(secs(60)).await;
    assert_eq!(
        in_service(&rig.health("server")).len(),
        4,
        "the rollout itself takes the old ones away: {:?}",
        rig.health("server")
    );
    assert_eq!(rig.api.gates("server-1"), [true], "never out");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_an_older_operator_is_asked_by_the_spec() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| {
        spec.endpoint = Endpoint::Pods { port: 3000, path: "/mcp".into(), host: "server-mcp.test.svc:3000".into() };
    })
    .await;
    puppet.set(ip(1), Does::AnswerTo(at_port));
    sleep(secs(30)).await;
    assert!(rig.health("server").pods[0].in_service);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_contract_alone_takes_nobody_out_while_no_pod_keeps_the_new_one() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    let warn = ToolsContract { policy: ToolsPolicy::Warn, accepted: Some(list(&["z"])), pinned: false };
    serving(&rig, &puppet, "server", &[1, 2], |spec| spec.tools = warn.clone()).await;
    let mut spec = crate::support::rig::spec(8080);
    crate::usual(&mut spec);
    spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, ..warn };
    rig.engine.set_server(&key("server"), spec, None);
    sleep(secs(60)).await;
    assert_eq!(in_service(&rig.health("server")).len(), 2, "they were let in under another contract");
    // One of them takes up what is accepted: now there is somebody who keeps it, and the other one leaves.
    puppet.set(ip(1), Does::Offer(vec!["z"]));
    rig.until("server", secs(30), |health| in_service(health) == ["server-1"]).await.expect("the other one leaves");
    assert!(rig.health("server").pods[1].shut_out);
}

//! A pod is asked what its own template says: an edit takes no old pod out before a new one is in.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use operator::{
    crd::{CircuitState, ToolCall, ToolsPolicy},
    probe::{
        AcceptedTools, Dial, Endpoint, PodState, Route, ServerHealth, ServerSpec, Tool, ToolsContract, ToolsList,
        VerdictKind as Kind, template::Template,
    },
};
use rstest::rstest;
use tokio::time::sleep;

use crate::{
    gate, ip, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, of_template, pod},
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

fn at_port(route: &Route) -> bool {
    route.dial == Dial::Pod(3000)
}

fn at_path(route: &Route) -> bool {
    route.path == "/new"
}

fn with_call(route: &Route) -> bool {
    route.call.is_some()
}

fn port() -> Edit {
    Edit {
        spec: |spec| spec.endpoint = Endpoint::Pods { port: 3000, path: "/mcp".into(), host: "server-mcp.test.svc:3000".into() },
        before: template(),
        after: Template { port: 3000, ..template() },
        old: Does::AnswerTo(|route| !at_port(route)),
        new: Does::AnswerTo(at_port),
    }
}

fn path() -> Edit {
    Edit {
        spec: |spec| spec.endpoint = Endpoint::Pods { port: 8080, path: "/new".into(), host: "server-mcp.test.svc:8080".into() },
        before: template(),
        after: Template { path: "/new".into(), ..template() },
        old: Does::AnswerTo(|route| !at_path(route)),
        new: Does::AnswerTo(at_path),
    }
}

fn tool_call() -> Edit {
    Edit {
        spec: |spec| spec.health.tool_call = Some(call()),
        before: template(),
        after: Template { tool_call: Some(call()), ..template() },
        old: Does::AnswerTo(|route| !with_call(route)),
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
    let new = PodState { asked: Some(Arc::new(edit.after)), origin: of_template("2"), ..pod("server-4", ip(4)) };
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

fn of_version(template: &str, n: u16) -> PodState {
    PodState { origin: of_template(template), ..pod(&format!("server-{n}"), ip(n)) }
}

#[rstest]
#[case::unauthorized(401, false, false)]
#[case::forbidden(403, false, false)]
#[case::limited(429, false, false)]
#[case::whose_clients_bring_credentials(401, true, true)]
#[case::limited_whose_clients_bring_credentials(429, true, false)]
#[tokio::test(start_paused = true)]
async fn a_version_that_only_says_no_does_not_take_over_from_one_that_is_well(
    #[case] code: u16,
    #[case] accepts: bool,
    #[case] comes_in: bool,
) {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.health.accept_unauthorized = accepts).await;
    puppet.set(ip(2), Does::SayNo(code, None));
    rig.api.set_pod(&key("server"), of_version("2", 2));
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert_eq!(in_service(&health).contains(&"server-2"), comes_in);
    if !comes_in {
        assert_eq!(
            (health.verdict.kind, health.circuit.state),
            (Kind::Healthy, CircuitState::Closed),
            "clients see the other one"
        );
        puppet.set(ip(2), Does::Answer);
        rig.until("server", secs(11), |health| in_service(health).len() == 2).await.expect("it has shown what it is");
        // What it says once it is in takes it out no more than any other.
        puppet.set(ip(2), Does::SayNo(code, None));
        rig.api.change_pod("server-2", |pod| pod.incarnation = Some("again".into()));
        rig.until("server", secs(3), |health| in_service(health).len() == 2).await.expect("its container started anew");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_no_comes_up_and_is_rolled_and_scaled_as_any_other() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    (1..=3).for_each(|n| puppet.set(ip(n), Does::SayNo(401, None)));
    let mut spec = crate::support::rig::spec(8080);
    crate::usual(&mut spec);
    rig.engine.set_server(&key("server"), spec, None);
    for (count, (template, n)) in [("1", 1), ("1", 2), ("2", 3)].into_iter().enumerate() {
        rig.api.set_pod(&key("server"), of_version(template, n));
        rig.until("server", secs(2), |health| in_service(health).len() == count + 1).await.expect("in service");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_only_says_no_comes_in_once_nobody_is_left_from_whom_it_would_take_over() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(2), Does::SayNo(401, None));
    rig.api.set_pod(&key("server"), of_version("2", 2));
    sleep(secs(30)).await;
    // It fails, and would do well if it did not.
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(5)).await;
    assert!(!gate(&rig.health("server"), "server-2"));
    rig.api.remove_pod("server-1");
    rig.until("server", secs(15), |health| in_service(health) == ["server-2"]).await.expect("it is all there is");
}

#[tokio::test(start_paused = true)]
async fn a_new_operator_asks_the_old_version_before_it_lets_a_new_one_in_that_only_says_no() {
    for (old, comes_in) in [(Does::Answer, false), (Does::SayNo(401, None), true)] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        puppet.set(ip(1), old);
        puppet.set(ip(2), Does::SayNo(401, None));
        let mut spec = crate::support::rig::spec(8080);
        crate::usual(&mut spec);
        rig.engine.set_server(&key("server"), spec, None);
        rig.api.set_pod(&key("server"), PodState { gate: Some(true), ..of_version("1", 1) });
        rig.api.set_pod(&key("server"), of_version("2", 2));
        sleep(secs(12)).await;
        assert_eq!(gate(&rig.health("server"), "server-2"), comes_in);
        assert_eq!(rig.api.gates("server-2").len(), usize::from(comes_in));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_version_that_is_limited_is_asked_again_when_it_said() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.health.interval_seconds = 300).await;
    puppet.set(ip(2), Does::SayNo(429, Some(secs(20))));
    rig.api.set_pod(&key("server"), of_version("2", 2));
    sleep(secs(2)).await;
    puppet.set(ip(2), Does::Answer);
    sleep(secs(15)).await;
    assert_eq!(puppet.asked(ip(2)).len(), 1, "it is left alone");
    rig.until("server", secs(5), |health| in_service(health).len() == 2).await.expect("asked again");
}

#[tokio::test(start_paused = true)]
async fn under_enforce_a_pod_that_shows_no_list_does_not_pass_for_one_that_offers_the_accepted_one() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::SayNo(401, None));
    let mut spec = crate::support::rig::spec(8080);
    crate::usual(&mut spec);
    spec.health.accept_unauthorized = true;
    spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(list(&["a", "b"])), pinned: false };
    rig.engine.set_server(&key("server"), spec, None);
    rig.api.set_pod(&key("server"), of_version("1", 1));
    sleep(secs(60)).await;
    assert!(in_service(&rig.health("server")).is_empty());
    puppet.set(ip(1), Does::Answer);
    rig.until("server", secs(11), |health| in_service(health).len() == 1).await.expect("it shows them");
    puppet.set(ip(1), Does::SayNo(401, None));
    sleep(secs(30)).await;
    assert_eq!(rig.api.gates("server-1"), [true], "it showed them once");
}

fn with_key(route: &Route, key: &str) -> bool {
    route.headers.get("x-key").is_some_and(|value| value == key)
}

fn by_old(route: &Route) -> bool {
    with_key(route, "old")
}

fn by_new(route: &Route) -> bool {
    with_key(route, "new")
}

fn gives(key: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    vec![(HeaderName::from_static("x-key"), HeaderValue::from_static(key))]
}

/// A server of two pods, whose Secret is another one since a moment.
async fn rotated(puppet: &Puppet) -> Rig {
    let rig = Rig::with_puppet(puppet);
    (1..=2).for_each(|n| puppet.set(ip(n), Does::AdmitTo(by_old)));
    let spec = |key| {
        let mut spec = crate::support::rig::spec(8080);
        crate::usual(&mut spec);
        ServerSpec { credentials: gives(key), ..spec }
    };
    rig.engine.set_server(&key("server"), spec("old"), None);
    (1..=2).for_each(|n| rig.api.set_pod(&key("server"), of_version("1", n)));
    rig.until("server", secs(5), |health| in_service(health).len() == 2).await.expect("in service");
    rig.engine.set_server(&key("server"), spec("new"), None);
    rig
}

fn is_well(health: &ServerHealth) -> bool {
    health.circuit.state == CircuitState::Closed && health.verdict.kind == Kind::Healthy && in_service(health).len() == 2
}

#[tokio::test(start_paused = true)]
async fn pods_that_started_with_the_credentials_of_before_are_asked_with_them_until_new_ones_are_there() {
    let puppet = Puppet::default();
    let rig = rotated(&puppet).await;
    for _ in 0..30 {
        sleep(secs(1)).await;
        assert!(is_well(&rig.health("server")), "{:?}", rig.health("server"));
    }
    // A new pod takes the new ones alone.
    puppet.set(ip(3), Does::AdmitTo(by_new));
    rig.api.set_pod(&key("server"), of_version("2", 3));
    rig.until("server", secs(5), |health| in_service(health).len() == 3).await.expect("it comes in");
    for n in 1..=2 {
        rig.api.remove_pod(&format!("server-{n}"));
    }
    sleep(secs(30)).await;
    assert_eq!(in_service(&rig.health("server")), ["server-3"]);
}

#[tokio::test(start_paused = true)]
async fn pods_that_read_their_credentials_anew_are_asked_with_the_new_ones() {
    let puppet = Puppet::default();
    let rig = rotated(&puppet).await;
    sleep(secs(60)).await;
    (1..=2).for_each(|n| puppet.set(ip(n), Does::AdmitTo(by_new)));
    for _ in 0..30 {
        sleep(secs(1)).await;
        assert!(is_well(&rig.health("server")), "{:?}", rig.health("server"));
    }
}

#[tokio::test(start_paused = true)]
async fn that_the_credentials_which_the_spec_gives_are_refused_is_told_after_a_rollout_would_have_been_over() {
    let puppet = Puppet::default();
    let rig = rotated(&puppet).await;
    sleep(secs(9 * 60)).await;
    assert!(is_well(&rig.health("server")));
    let told = rig.until("server", secs(90), |health| health.circuit.state == CircuitState::Open).await.expect("told");
    assert_eq!(told.verdict.reason, "CredentialsRejected");
}

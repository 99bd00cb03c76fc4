//! Lists of tools that are not the accepted ones.

use std::collections::BTreeMap;

use operator::{
    crd::{CircuitState, ToolsPolicy},
    probe::{AcceptedTools, Tool, ToolsContract, ToolsList},
};
use tokio::time::sleep;

use crate::{
    gate, ip, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod},
    },
};

fn accepted(names: &[&str]) -> AcceptedTools {
    let tools = names.iter().map(|name| Tool { name: (*name).into(), hash: format!("hash of {name}").into() });
    ToolsList::new(tools.collect()).accept()
}

#[tokio::test(start_paused = true)]
async fn enforce_keeps_a_pod_with_other_tools_out_while_the_others_serve() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1, 2], |spec| {
        spec.tools = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(accepted(&["a", "b"])), pinned: false };
    })
    .await;
    puppet.set(ip(3), Does::Offer(vec!["a", "c"]));
    rig.api.set_pod(&key("server"), pod("server-3", ip(3)));
    sleep(secs(60)).await;
    let health = rig.health("server");
    assert!(!gate(&health, "server-3") && gate(&health, "server-1"));
    assert_eq!(health.pods.iter().map(|pod| pod.tools_accepted).collect::<Vec<_>>(), [Some(true), Some(true), Some(false)]);
    let diff = health.tools_diff.expect("a difference");
    assert_eq!((diff.added, diff.removed, diff.changed), (vec!["c".to_owned()], vec!["b".to_owned()], vec![]));
    assert_eq!(health.circuit.state, CircuitState::Closed);
    assert_eq!(rig.api.gates("server-3"), Vec::<bool>::new());
}

#[tokio::test(start_paused = true)]
async fn warn_tells_of_other_tools_and_serves_on() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.tools.accepted = Some(accepted(&["a", "b"]))).await;
    assert_eq!(rig.health("server").tools_diff, None);
    puppet.set(ip(1), Does::Offer(vec!["a"]));
    let health = rig.until("server", secs(30), |health| health.tools_diff.is_some()).await.expect("told");
    assert!(health.pods[0].in_service);
    assert_eq!(health.tools_diff.expect("a difference").removed, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn tools_that_vanish_are_told_and_under_enforce_take_the_pod_out() {
    for policy in [ToolsPolicy::Warn, ToolsPolicy::Enforce] {
        let puppet = Puppet::default();
        let rig = Rig::with_puppet(&puppet);
        serving(&rig, &puppet, "server", &[1], |spec| {
            spec.tools = ToolsContract { policy, accepted: Some(accepted(&["a", "b"])), pinned: false };
        })
        .await;
        puppet.set(ip(1), Does::OfferNothing);
        let health = rig.until("server", secs(30), |health| health.tools_diff.is_some()).await.expect("told");
        assert_eq!(health.tools_diff.expect("a difference").removed, ["a", "b"]);
        assert_eq!(health.tools.map(|tools| tools.count()), Some(0));
        assert_eq!(health.pods[0].gate, policy == ToolsPolicy::Warn);
    }
}

#[tokio::test(start_paused = true)]
async fn under_enforce_a_list_may_be_accepted_once_it_was_seen_twice() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(ip(1), Does::Offer(vec!["a"]));
    let mut spec = crate::support::rig::spec(8080);
    crate::usual(&mut spec);
    spec.health.interval_seconds = 60;
    spec.tools.policy = ToolsPolicy::Enforce;
    rig.engine.set_server(&key("server"), spec, None);
    rig.api.set_pod(&key("server"), pod("server-1", ip(1)));
    rig.until("server", secs(1), |health| health.tools.is_some()).await.expect("a first list");
    assert_eq!(rig.health("server").acceptable, None, "the plugins may still be loading");
    puppet.set(ip(1), Does::Offer(vec!["a", "b"]));
    let health = rig.until("server", secs(5), |health| health.acceptable.is_some()).await.expect("seen twice");
    assert_eq!(health.acceptable.expect("a list").names().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn one_of_several_pods_that_says_something_else_every_time_is_told_seldom() {
    for does in [Does::OfferAnew, Does::Ramble] {
        let puppet = Puppet::default();
        let mut rig = Rig::with_puppet(&puppet);
        serving(&rig, &puppet, "server", &[1, 2, 3], |spec| spec.tools.accepted = Some(accepted(&["a", "b"]))).await;
        puppet.set(ip(1), does.clone());
        sleep(secs(60)).await;
        rig.changes();
        sleep(secs(3_600)).await;
        let changes = rig.changes();
        assert!(changes <= 7, "{changes} changes in an hour of {does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changes_at_every_probe_is_told_at_most_every_ten_minutes() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::OfferAnew);
    rig.changes();
    sleep(secs(3_600)).await;
    let changes = rig.changes();
    assert!((1..=7).contains(&changes), "{changes} changes in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changes_once_is_told_at_the_next_probe_but_one() {
    let puppet = Puppet::default();
    let mut rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    rig.changes();
    puppet.set(ip(1), Does::Offer(vec!["z"]));
    sleep(secs(21)).await;
    assert_eq!(rig.changes(), 1);
    let names: BTreeMap<_, _> = rig.health("server").tools.expect("tools").accept().tools;
    assert_eq!(names.into_keys().collect::<Vec<_>>(), ["z"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_accepted_holds_at_once_and_is_remembered() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| spec.tools.policy = ToolsPolicy::Enforce).await;
    assert_eq!(rig.engine.accepted(&key("server")), None);
    let contract = ToolsContract { policy: ToolsPolicy::Enforce, accepted: Some(accepted(&["a", "b"])), pinned: false };
    rig.engine.set_contract(&key("server"), &contract);
    puppet.set(ip(2), Does::Offer(vec!["a"]));
    rig.api.set_pod(&key("server"), pod("server-2", ip(2)));
    sleep(secs(30)).await;
    assert!(rig.api.gates("server-2").is_empty());
    assert_eq!(rig.engine.accepted(&key("server")), contract.accepted);
    rig.engine.set_contract(&key("server"), &ToolsContract { pinned: true, ..contract });
    assert_eq!(rig.engine.accepted(&key("server")), None, "that is a person's word, and goes with it");
}

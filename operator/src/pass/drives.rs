//! Tests: the driver by itself, over a kind of CR that does as it is told: what it asks for, in which order, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use metrics_text::MetricSet;
use serde_json::json;

use super::*;
use crate::fixtures::{self, api::Api};

/// What a pass over the CR is to meet, and what it did.
#[derive(Default)]
pub struct Script {
    invalid: Vec<Problem>,
    lacks: Vec<Problem>,
    notes: Vec<Problem>,
    later: Option<Duration>,
    /// When a pod will have been made for long.
    look: Option<Duration>,
    /// What others say, word for word.
    message: String,
    /// Looks at what cannot be read.
    unreadable: bool,
    /// A Deployment is among the children.
    deployed: bool,
    /// The steps, in order.
    done: Vec<&'static str>,
}

type World = Arc<Mutex<Script>>;

fn script(world: &World) -> MutexGuard<'_, Script> {
    world.lock().expect("no panic")
}

/// What children are made of.
#[derive(Debug)]
pub struct Valid {
    lacks: Vec<Problem>,
    notes: Vec<Problem>,
    deployed: bool,
}

/// A ConfigMap stands for a CR. Its data are its status.
impl Subject for ConfigMap {
    const COMPONENT: Component = Component::Server;
    type Facts = ();
    type Valid = Valid;
    type Status = BTreeMap<String, String>;
    type World = World;

    fn told(&self) -> Option<&Self::Status> {
        self.data.as_ref()
    }

    fn conditions(_: &Self::Status) -> &[Condition] {
        &[]
    }

    fn masked(status: Self::Status, mask: &Mask) -> Self::Status {
        status.into_iter().map(|(key, told)| (key, mask.apply(told))).collect()
    }

    fn given(&self) -> BTreeSet<Reference> {
        BTreeSet::new()
    }

    fn switch(&self, context: &Context<Self>) {
        script(&context.world).done.push("switch");
    }

    fn claims(&self) -> Vec<String> {
        vec!["own".into(), "absent".into()]
    }

    async fn observe(&self, context: &Context<Self>) -> Result<(), inputs::Error> {
        let unreadable = {
            let mut script = script(&context.world);
            script.done.push("observe");
            script.unreadable
        };
        if unreadable { context.reader.claim("team", "unreadable").await.map(drop) } else { Ok(()) }
    }

    fn validate(&self, (): &(), world: &World) -> Result<Valid, Vec<Problem>> {
        let mut script = script(world);
        script.done.push("validate");
        if !script.invalid.is_empty() {
            return Err(script.invalid.clone());
        }
        Ok(Valid { lacks: script.lacks.clone(), notes: script.notes.clone(), deployed: script.deployed })
    }

    fn most_pods(&self) -> u32 {
        if self.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key("off")) { 0 } else { 2 }
    }

    fn lacks(valid: &Valid) -> &[Problem] {
        &valid.lacks
    }

    fn notes(valid: &Valid) -> &[Problem] {
        &valid.notes
    }

    fn news(told: Option<&Self::Status>, _: &Self::Status) -> Vec<News> {
        // Once: when nothing has been told yet.
        if told.is_some() { Vec::new() } else { vec![News::new(false, "Begun", "it begins".into())] }
    }

    fn children(valid: &Valid, _: &Surroundings) -> Vec<Child> {
        let metadata = json!({"name": "db-mcp", "namespace": "team", "ownerReferences": [
            {"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "db", "uid": "uid-of-db", "controller": true},
        ]});
        let map = json!({"metadata": metadata, "data": {"a": "b"}});
        let mut children = vec![Child::new(&serde_json::from_value::<ConfigMap>(map).expect("a ConfigMap"))];
        if valid.deployed {
            let template = json!({"spec": {"containers": [{"name": "server"}]}});
            let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template});
            let deployment = json!({"metadata": metadata, "spec": spec});
            children.push(Child::new(&serde_json::from_value::<Deployment>(deployment).expect("a Deployment")));
        }
        children
    }

    fn found(&self, _: &Valid, _: &Arc<Mask>, context: &Context<Self>) {
        script(&context.world).done.push("found");
    }

    fn look(&self, context: &Context<Self>, _: Timestamp) -> Option<Duration> {
        script(&context.world).look
    }

    async fn reconfigured(&self, _: &Live, context: &Context<Self>) {
        script(&context.world).done.push("reconfigured");
    }

    fn status(&self, outcome: &Outcome<Valid>, context: &Context<Self>, _: Timestamp) -> Told<Self::Status> {
        let mut script = script(&context.world);
        script.done.push("status");
        if let Some(wait) = script.later {
            return Told::Later(wait);
        }
        let problems: Vec<_> = outcome.problems.iter().map(|problem| problem.message.as_str()).collect();
        let claims: Vec<_> = outcome.claims.iter().map(ResourceExt::name_any).collect();
        Told::Now(BTreeMap::from([
            ("valid".into(), outcome.valid.is_some().to_string()),
            ("paused".into(), outcome.paused.to_string()),
            ("problems".into(), problems.join("; ")),
            ("claims".into(), claims.join(" ")),
            ("message".into(), script.message.clone()),
            ("no service".into(), outcome.no_service.as_ref().map(|why| why.message.clone()).unwrap_or_default()),
        ]))
    }
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/team/deployments/db-mcp";
const SELF: &str = "/api/v1/namespaces/team/configmaps/db";
const CHILD: &str = "/api/v1/namespaces/team/configmaps/db-mcp";

struct Rig {
    api: Api,
    metrics: MetricSet,
    context: Arc<Context<ConfigMap>>,
}

impl Rig {
    /// A CR called `db`, changed.
    fn new(change: impl FnOnce(&mut ConfigMap)) -> (Self, Arc<ConfigMap>) {
        let api = Api::default();
        // The API server keeps a status beside the data; here they are one.
        api.state().webhook = Some(|object| {
            if object["status"].is_object() && object["metadata"]["name"] == "db" {
                object["data"] = object["status"].take();
            }
        });
        let metadata = json!({"name": "db", "namespace": "team", "uid": "uid-of-db"});
        let put = api.put(SELF, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
        let mut object: ConfigMap = serde_json::from_value(put).expect("a ConfigMap");
        change(&mut object);
        let measured = MetricSet::default();
        let context = fixtures::context(&object, &api, &measured, World::default());
        (Self { api, metrics: measured, context: Arc::new(context) }, Arc::new(object))
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        script(&self.context.world)
    }

    /// A pass over what the CR is by now.
    async fn pass(&self, object: &Arc<ConfigMap>) -> Action {
        let Ok(action) = reconcile(Arc::clone(object), Arc::clone(&self.context)).await;
        action
    }

    /// What was written last to the status.
    fn told(&self, what: &str) -> String {
        self.context.subjects.get("team", "db").and_then(|object| object.data.clone()?.remove(what)).unwrap_or_default()
    }

    /// The requests since this was asked last that are no reads, as `METHOD path`.
    fn writes(&self) -> Vec<String> {
        let sent = self.api.sent().into_iter().filter(|sent| sent.method != "GET");
        sent.map(|sent| format!("{} {}", sent.method, sent.path.split('?').next().unwrap_or_default())).collect()
    }

    /// How passes ended, as their metric has it.
    fn outcomes(&self) -> Vec<String> {
        let text = self.metrics.text();
        let passes = text.lines().filter(|line| line.starts_with("mcpfleet_reconcile_total{"));
        passes.filter_map(|line| Some(line.split_once("outcome=\"")?.1.replace("\"}", ""))).collect()
    }
}

fn problem(class: Class, message: &str) -> Problem {
    Problem { class, reason: reason::APPLY_FAILED, message: message.into() }
}

const CHILD_MADE: &str = "POST /api/v1/namespaces/team/configmaps";
const CHILD_APPLIED: &str = "PATCH /api/v1/namespaces/team/configmaps/db-mcp";
const STATUS_WRITTEN: &str = "PATCH /api/v1/namespaces/team/configmaps/db/status";
const EVENT: &str = "POST /apis/events.k8s.io/v1/namespaces/team/events";

#[tokio::test]
async fn a_pass_goes_in_one_direction_and_the_next_one_over_the_same_world_writes_nothing() {
    let (rig, object) = Rig::new(|_| {});
    rig.api.put("/api/v1/namespaces/team/persistentvolumeclaims/own", json!({"metadata": {"name": "own", "namespace": "team"}}));
    rig.api.sent();
    assert_eq!(rig.pass(&object).await, Action::await_change());
    assert_eq!(rig.script().done, ["switch", "observe", "validate", "found", "reconfigured", "status"]);
    // After the status, so that it is told once.
    assert_eq!(rig.writes(), [CHILD_MADE, STATUS_WRITTEN, EVENT]);
    assert_eq!([rig.told("valid"), rig.told("paused"), rig.told("problems")], ["true", "false", ""]);
    assert_eq!(rig.told("claims"), "own", "one that is not there is not named");
    assert_eq!(rig.pass(&object).await, Action::await_change());
    assert!(rig.writes().is_empty());
    assert_eq!(rig.outcomes(), ["ok 2"]);
}

#[tokio::test]
async fn a_claim_that_does_not_grow_is_told_and_one_that_grows_is_looked_at_again() {
    const CLAIM: &str = "/api/v1/namespaces/team/persistentvolumeclaims/own";
    let (rig, object) = Rig::new(|_| {});
    let claim = |said: serde_json::Value| {
        json!({
            "metadata": {"name": "own", "namespace": "team", "labels": {"app.kubernetes.io/managed-by": "mcpfleet"}},
            "spec": {"resources": {"requests": {"storage": "2Gi"}}},
            "status": {"capacity": {"storage": "1Gi"}, "conditions": said},
        })
    };
    rig.api.put(CLAIM, claim(json!([])));
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_mins(1)));
    assert_eq!(rig.told("problems"), "");
    rig.api.put(CLAIM, claim(json!([{"type": "ControllerResizeError", "status": "True", "message": "no room"}])));
    rig.pass(&object).await;
    assert!(rig.told("problems").starts_with("the claim own cannot grow from 1Gi to 2Gi"), "{}", rig.told("problems"));
}

#[tokio::test]
async fn the_children_of_one_that_is_being_deleted_are_left_to_that_and_it_is_told_what_is_met() {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
    let (rig, object) = Rig::new(|object| object.metadata.deletion_timestamp = Some(now));
    assert_eq!(rig.pass(&object).await, Action::await_change());
    assert_eq!(rig.script().done, ["switch", "observe", "validate", "found", "status"]);
    assert_eq!(rig.writes(), [STATUS_WRITTEN, EVENT]);
}

#[tokio::test]
async fn one_that_is_paused_is_told_of_and_its_children_are_left_as_they_are() {
    let pause = |value: &'static str| {
        move |object: &mut ConfigMap| {
            object.annotations_mut().insert(names::ANNOTATION_PAUSED.into(), value.into());
        }
    };
    for spelled in ["true", "True"] {
        let (rig, object) = Rig::new(pause(spelled));
        rig.pass(&object).await;
        assert_eq!(rig.writes(), [STATUS_WRITTEN, EVENT]);
        assert_eq!((rig.told("paused"), rig.outcomes()), ("true".into(), vec!["paused 1".into()]));
    }
    let (rig, object) = Rig::new(pause("no"));
    rig.pass(&object).await;
    assert_eq!(rig.writes(), [CHILD_MADE, STATUS_WRITTEN, EVENT]);
}

#[tokio::test]
async fn a_status_that_is_not_worth_writing_yet_is_looked_at_later() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().later = Some(Duration::from_secs(3));
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(3)));
    assert_eq!(rig.writes(), [CHILD_MADE]);
    assert_eq!(rig.outcomes(), ["ok 1"]);
}

#[tokio::test]
async fn what_is_invalid_has_no_children_is_told_and_waits_for_an_edit() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().invalid = vec![problem(Class::Rejected, "no"), problem(Class::Rejected, "nor this")];
    assert_eq!(rig.pass(&object).await, Action::await_change());
    assert_eq!(rig.script().done, ["switch", "observe", "validate", "status"]);
    assert_eq!(rig.writes(), [STATUS_WRITTEN, EVENT]);
    assert_eq!([rig.told("valid"), rig.told("problems")], ["false", "no; nor this"]);
    assert_eq!(rig.outcomes(), ["rejected 1"]);
}

/// Its Deployment, with two pods, is made known.
fn with_deployment(rig: &Rig, owner: &str) {
    let owner =
        json!([{"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "db", "uid": owner, "controller": true}]);
    let put = rig.api.put(
        DEPLOYMENT,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2, "selector": {}, "template": {}},
            "metadata": {"name": "db-mcp", "namespace": "team", "uid": "uid-of-deployment", "ownerReferences": owner},
        }),
    );
    let live = crate::children::Live::new("Deployment", serde_json::from_value(put).expect("one"));
    rig.context.writer.children.shown(live);
    rig.api.sent();
}

#[tokio::test]
async fn who_is_switched_off_loses_its_pods_also_when_its_spec_cannot_be_carried_out() {
    let off = |object: &mut ConfigMap| drop(object.annotations_mut().insert("off".into(), "true".into()));
    let (rig, object) = Rig::new(off);
    rig.script().invalid = vec![problem(Class::Rejected, "no")];
    with_deployment(&rig, "uid-of-db");
    rig.pass(&object).await;
    let sent = rig.api.sent();
    let scaled: Vec<_> = sent.iter().filter(|sent| sent.path.starts_with(DEPLOYMENT)).collect();
    assert!(scaled.len() == 1 && scaled[0].body["spec"] == json!({"replicas": 0}), "{scaled:?}");
    rig.pass(&object).await;
    assert!(rig.writes().is_empty(), "once");
    // Neither one that is on, nor one whose Deployment is another's.
    for (change, owner) in [(None, "uid-of-db"), (Some(off), "uid-of-another")] {
        let (rig, object) = Rig::new(|object| change.into_iter().for_each(|change| change(object)));
        rig.script().invalid = vec![problem(Class::Rejected, "no")];
        with_deployment(&rig, owner);
        rig.pass(&object).await;
        assert_eq!(rig.writes(), [STATUS_WRITTEN, EVENT], "{owner}");
    }
}

/// The two ways of lowering the number of pods must not forget each other's writes.
#[tokio::test]
async fn a_number_of_pods_that_does_not_stay_is_left_alone_in_the_end() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().deployed = true;
    rig.pass(&object).await;
    let mut put_back = 0;
    for replicas in 3..20 {
        rig.api.sent();
        let theirs = rig.api.change(DEPLOYMENT, |deployment| deployment["spec"]["replicas"] = json!(replicas));
        let live = crate::children::Live::new("Deployment", serde_json::from_value(theirs).expect("one"));
        rig.context.writer.children.shown(live);
        rig.pass(&object).await;
        put_back += rig.writes().iter().filter(|write| write.ends_with(DEPLOYMENT)).count();
    }
    assert!((5..=7).contains(&put_back), "{put_back}");
    assert!(rig.told("problems").starts_with("spec.replicas of the Deployment db-mcp does not stay"), "{}", rig.told("problems"));
}

#[tokio::test]
async fn that_there_is_no_service_is_known_whatever_else_is_well() {
    let (rig, object) = Rig::new(|_| {});
    rig.pass(&object).await;
    assert_eq!(rig.told("no service"), "its Service is not there: no client finds it");
}

#[tokio::test]
async fn what_lacks_and_what_is_noted_is_told_and_what_can_be_made_is_made() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().lacks = vec![problem(Class::Waiting, "lacking")];
    rig.script().notes = vec![problem(Class::Contested, "noted")];
    rig.api.state().refusals.push(("POST", "configmaps", 403));
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_mins(1)));
    assert_eq!(rig.told("problems"), "lacking; noted; failed to create the ConfigMap db-mcp: refused");
    assert_eq!(rig.outcomes(), ["waiting 1"]);
}

#[tokio::test]
async fn a_pod_that_is_made_is_looked_at_when_it_has_been_so_for_long_whatever_else_is_waited_for() {
    let (rig, object) = Rig::new(|_| {});
    for seconds in [30, 7] {
        rig.script().look = Some(Duration::from_secs(seconds));
        assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(seconds)));
    }
    rig.script().lacks = vec![problem(Class::Waiting, "lacking")];
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(7)));
    rig.script().look = None;
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_mins(1)));
}

#[tokio::test]
async fn what_is_said_again_with_another_number_is_not_written_again() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().message = "attempt 1 (request-id: 7f3a) at 10:00:00: the pool is full".into();
    rig.pass(&object).await;
    rig.api.sent();
    rig.script().message = "attempt 2 (request-id: 91bc) at 10:00:40: the pool is full".into();
    rig.pass(&object).await;
    assert!(rig.writes().is_empty());
    rig.script().message = "attempt 3 (request-id: 02ff) at 10:01:40: the pool is gone".into();
    rig.pass(&object).await;
    assert_eq!(rig.writes(), [STATUS_WRITTEN]);
    assert!(rig.told("message").starts_with("attempt 3"), "what is written is what is said now");
}

#[test]
fn pods_that_are_held_up_are_looked_at_until_they_have_had_their_time() {
    let told = |status: &str, reason: &str| {
        let since = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::fixtures::at(0));
        let told = Condition {
            type_: condition::RECONCILING.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            last_transition_time: since,
            observed_generation: None,
        };
        held_up(&[told], crate::fixtures::at(90))
    };
    assert_eq!(told("True", reason::UNSCHEDULABLE), Some(Duration::from_secs(90)));
    assert_eq!(told("True", reason::ROLLING_OUT), None, "in the usual manner: what changes wakes us");
    assert_eq!(told("False", reason::UNSCHEDULABLE), None, "Stalled says it, or nothing");
}

#[tokio::test]
async fn what_fails_for_now_is_tried_again_later_each_time_until_it_succeeds() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().unreadable = true;
    for seconds in [1, 2, 4] {
        rig.api.state().refusals.push(("GET", "unreadable", 500));
        assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(seconds)));
    }
    assert_eq!(rig.told("problems"), "failed to read the PersistentVolumeClaim unreadable");
    assert_eq!(rig.pass(&object).await, Action::await_change());
    rig.api.state().refusals.push(("GET", "unreadable", 500));
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(1)), "counted anew");
    assert_eq!(rig.outcomes(), ["ok 1", "transient 4"]);
}

#[tokio::test]
async fn an_api_server_that_is_away_is_asked_again_every_few_seconds_also_where_something_else_is_waited_for() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().unreadable = true;
    for millis in [1_000, 2_000, 2_500, 2_500, 2_500] {
        rig.api.state().refusals.push(("GET", "unreadable", 503));
        assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_millis(millis)));
    }
    assert_eq!(rig.outcomes(), ["transient 5"]);
    let (rig, object) = Rig::new(|_| {});
    rig.script().lacks = vec![problem(Class::Waiting, "lacking")];
    rig.api.state().refusals.push(("PATCH", "/status", 503));
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(1)), "what is waited for is not told yet");
}

#[tokio::test]
async fn an_api_server_that_is_back_and_cannot_do_it_yet_is_asked_again_soon_however_long_it_was_away() {
    let (rig, object) = Rig::new(|_| {});
    rig.script().unreadable = true;
    for _ in 0..10 {
        rig.api.state().refusals.push(("GET", "unreadable", 503));
        rig.pass(&object).await;
    }
    for seconds in [1, 2, 4] {
        rig.api.state().refusals.push(("GET", "unreadable", 500));
        assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn a_status_that_cannot_be_written_is_tried_again_and_is_no_news_before() {
    let (rig, object) = Rig::new(|_| {});
    rig.api.state().refusals.push(("PATCH", "/status", 500));
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_secs(1)));
    assert_eq!(rig.writes(), [CHILD_MADE, STATUS_WRITTEN]);
    rig.pass(&object).await;
    assert_eq!(rig.writes(), [STATUS_WRITTEN, EVENT]);
    assert_eq!(rig.outcomes(), ["ok 1", "transient 1"]);
}

#[tokio::test]
async fn what_somebody_changed_of_a_child_is_put_right_and_told() {
    let (rig, object) = Rig::new(|_| {});
    rig.pass(&object).await;
    rig.api.sent();
    let theirs = rig.api.change(CHILD, |child| child["data"]["a"] = json!("theirs"));
    rig.context.writer.children.shown(crate::children::Live::new("ConfigMap", serde_json::from_value(theirs).expect("one")));
    rig.pass(&object).await;
    assert_eq!(rig.writes(), ["PATCH /api/v1/namespaces/team/configmaps/db-mcp", EVENT]);
}

#[tokio::test(start_paused = true)]
async fn what_kubernetes_drops_of_a_child_is_told_and_written_once() {
    let (rig, object) = Rig::new(|_| {});
    rig.api.state().webhook = Some(|object| {
        if object["status"].is_object() {
            object["data"] = object["status"].take();
        }
        if object["metadata"]["name"] == "db-mcp" {
            object["data"] = json!({});
        }
    });
    rig.pass(&object).await;
    assert_eq!(rig.writes(), [CHILD_MADE, STATUS_WRITTEN, EVENT]);
    let told = rig.told("problems");
    assert!(told.starts_with("Kubernetes drops data.a of the ConfigMap db-mcp as it is written"), "{told}");
    let rests = async || {
        for _ in 0..9 {
            tokio::time::advance(Duration::from_mins(5)).await;
            assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_mins(1)));
            assert!(rig.writes().is_empty());
        }
    };
    rests().await;
    // What is wrong beside it is put right all the same.
    let theirs = rig.api.change(CHILD, |child| child["metadata"]["ownerReferences"][0]["name"] = json!("theirs"));
    rig.context.writer.children.shown(crate::children::Live::new("ConfigMap", serde_json::from_value(theirs).expect("one")));
    rig.pass(&object).await;
    assert_eq!(rig.writes(), [CHILD_APPLIED, EVENT]);
    rests().await;
    // Kubernetes may take it by now.
    tokio::time::advance(Duration::from_mins(20)).await;
    rig.pass(&object).await;
    assert_eq!(rig.writes(), [CHILD_APPLIED]);
    rests().await;
}

/// What people are told by Events since this was asked last.
fn notes(rig: &Rig) -> Vec<String> {
    let sent = rig.api.sent().into_iter().filter(|sent| sent.path.contains("/events"));
    sent.map(|sent| sent.body["note"].as_str().unwrap_or_default().to_owned()).collect()
}

/// `kubectl rollout undo` takes the annotations of before with it, and the hash of what we want among them.
#[tokio::test]
async fn what_somebody_takes_back_as_a_whole_is_put_right_and_told_with_who_it_was() {
    let (rig, object) = Rig::new(|_| {});
    rig.pass(&object).await;
    for before in [Some(json!("what we wanted before")), None] {
        rig.api.sent();
        let theirs = rig.api.change(CHILD, |child| {
            child["data"]["a"] = json!("theirs");
            let annotations = child["metadata"]["annotations"].as_object_mut().expect("it has one");
            annotations.remove(names::ANNOTATION_APPLIED);
            annotations.extend(before.map(|before| (names::ANNOTATION_APPLIED.to_owned(), before)));
        });
        let live = crate::children::Live::new("ConfigMap", serde_json::from_value(theirs).expect("one"));
        rig.context.writer.children.shown(live);
        rig.pass(&object).await;
        let told = notes(&rig);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("kubectl-edit changed data.a of the ConfigMap db-mcp: it is put back"), "{told:?}");
    }
}

#[tokio::test]
async fn a_status_that_somebody_else_writes_again_and_again_is_contested_and_told_once() {
    let (rig, object) = Rig::new(|_| {});
    let mut events = 0;
    for _ in 0..9 {
        rig.pass(&object).await;
        events += rig.writes().iter().filter(|write| *write == EVENT).count();
        // Another operator says something else.
        let theirs = rig.api.change(SELF, |object| object["data"] = json!({"valid": "theirs"}));
        rig.context.subjects.wrote(serde_json::from_value(theirs).expect("a ConfigMap"));
    }
    assert_eq!(events, 2, "that it begins, and that it is contested");
    assert_eq!(rig.pass(&object).await, Action::requeue(Duration::from_mins(1)));
    assert!(rig.writes().is_empty());
}

//! Tests: what is sent to the API server, request by request, and what becomes of its answers.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::runtime::watcher::Event;

use super::*;
use crate::{
    crd::{McpServer, McpServerStatus},
    fixtures::{self, api::Api as Server},
};

/// Where the child is.
const PATH: &str = "/api/v1/namespaces/team/configmaps/db-mcp";

fn writer(api: &Server) -> Writer {
    Writer { client: api.client(), children: Arc::default(), contests: Arc::default() }
}

fn live(object: &Value) -> Live {
    Live::new("ConfigMap", serde_json::from_value(object.clone()).expect("an object"))
}

/// A ConfigMap of the server `db`.
fn child(text: &str) -> Child {
    let owner = json!([
        {"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": "db", "uid": "uid-of-db", "controller": true},
    ]);
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "db-mcp", "namespace": "team", "ownerReferences": owner}, "data": {"text": text},
    }))
    .expect("a ConfigMap");
    Child::new(&map)
}

#[tokio::test]
async fn a_new_child_is_created_by_one_plain_request_and_then_nothing_is_sent() {
    let api = Server::default();
    let writer = writer(&api);
    let applied = writer.apply(&child("a")).await.expect("created");
    assert_eq!((applied.live.uid.as_str(), applied.corrected), ("uid-1", None));
    let sent = api.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let request = &sent[0];
    assert_eq!((request.method.as_str(), request.path.split('?').next()), ("POST", PATH.strip_suffix("/db-mcp")));
    assert!(request.path.contains("fieldManager=mcpfleet"), "{}", request.path);
    assert_eq!(request.body["metadata"]["annotations"][names::ANNOTATION_APPLIED], child("a").hash());
    assert_eq!(writer.apply(&child("a")).await.expect("there").corrected, None);
    assert!(api.sent().is_empty());
}

#[tokio::test]
async fn what_was_created_is_taken_up_before_its_first_apply_and_then_it_is_applied_alone() {
    let api = Server::default();
    let writer = writer(&api);
    writer.apply(&child("a")).await.expect("created");
    api.sent();
    assert_eq!(writer.apply(&child("b")).await.expect("applied").corrected, None, "we want something else");
    let sent = api.sent();
    let methods: Vec<_> = sent.iter().map(|sent| sent.method.as_str()).collect();
    assert_eq!(methods, ["GET", "PATCH", "PATCH"]);
    let taken = &sent[1].body["metadata"];
    assert_eq!(taken["managedFields"][0]["operation"], "Apply");
    assert_eq!((&taken["uid"], &taken["resourceVersion"]), (&json!("uid-1"), &json!("1")));
    let (path, body) = (&sent[2].path, &sent[2].body);
    assert!(path.contains("fieldManager=mcpfleet") && path.contains("force=true"), "{path}");
    assert_eq!((&body["data"]["text"], &body["metadata"]["uid"]), (&json!("b"), &json!("uid-1")));
    writer.apply(&child("c")).await.expect("applied");
    assert_eq!(api.methods(), ["PATCH"], "its fields are those of our applies now");
}

#[tokio::test]
async fn what_is_written_while_it_is_taken_up_is_taken_up_all_the_same() {
    let api = Server::default();
    let writer = writer(&api);
    writer.apply(&child("a")).await.expect("created");
    api.sent();
    api.state().refusals.extend([("PATCH", "", 409), ("PATCH", "", 409)]);
    writer.apply(&child("b")).await.expect("applied");
    assert_eq!(api.methods(), ["GET", "PATCH", "GET", "PATCH", "GET", "PATCH", "PATCH"]);
}

#[tokio::test]
async fn what_somebody_else_changed_is_put_right_and_named() {
    let api = Server::default();
    let writer = writer(&api);
    writer.apply(&child("a")).await.expect("created");
    writer.children.shown(live(&api.change(PATH, |object| object["data"]["text"] = json!("theirs"))));
    let corrected = writer.apply(&child("a")).await.expect("applied").corrected;
    assert_eq!(corrected, Some(Correction { what: "data.text".into(), by: Some("kubectl-edit".into()) }));
    // Whoever does that again and again is left to it for a minute.
    let mut contested = None;
    for _ in 0..9 {
        writer.children.shown(live(&api.change(PATH, |object| object["data"]["text"] = json!("theirs"))));
        contested = writer.apply(&child("a")).await.err();
    }
    api.sent();
    let told = writer.apply(&child("a")).await.expect_err("it is left alone");
    assert!(matches!(&told, Error::Contested { undone: true, what, .. } if what == "data.text"), "{contested:?} {told:?}");
    assert!(api.sent().is_empty());
}

/// `kubectl rollout undo` has the hash of before in hand, and what was ours then would stay by an apply.
#[tokio::test]
async fn a_deployment_that_is_put_back_as_it_was_is_replaced_whole_before_it_is_applied() {
    let api = Server::default();
    let writer = writer(&api);
    let path = "/apis/apps/v1/namespaces/team/deployments/db-mcp";
    let owner = child("a").owner().expect("an owner");
    let deployment = |image: &str| {
        let container = json!({"name": "mcp", "image": image});
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "db-mcp", "namespace": "team", "ownerReferences": [owner]},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        }))
        .expect("a Deployment");
        Child::new(&deployment)
    };
    writer.apply(&deployment("a:1")).await.expect("created");
    writer.apply(&deployment("a:2")).await.expect("applied");
    let theirs = api.change(path, |object| {
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("a:1");
        object["metadata"]["annotations"][names::ANNOTATION_APPLIED] = json!("what we wanted before");
    });
    writer.children.shown(Live::new("Deployment", serde_json::from_value(theirs).expect("an object")));
    api.sent();
    let corrected = writer.apply(&deployment("a:2")).await.expect("applied").corrected.expect("told");
    assert_eq!(corrected.by.as_deref(), Some("kubectl-edit"));
    let sent = api.sent();
    let patches: Vec<_> = sent.iter().filter(|sent| sent.method == "PATCH").collect();
    let replaced = |sent: &&&crate::fixtures::api::Sent| sent.body["spec"]["template"]["$patch"] == "replace";
    assert_eq!((patches.len(), patches.iter().position(|sent| replaced(&sent))), (2, Some(0)), "{patches:?}");
    assert!(patches.iter().all(|sent| sent.body["metadata"]["uid"] == "uid-1"), "what was made anew meanwhile is another's");
}

#[tokio::test]
async fn what_a_webhook_changes_as_it_is_written_is_told_at_once() {
    let api = Server::default();
    let writer = writer(&api);
    writer.apply(&child("a")).await.expect("created");
    api.state().webhook = Some(|object| object["data"]["text"] = json!("mirrored"));
    let told = writer.apply(&child("b")).await.expect_err("it does not hold");
    assert!(matches!(&told, Error::Contested { undone: false, what, .. } if what == "data.text"), "{told:?}");
}

#[tokio::test]
async fn a_name_that_is_taken_is_found_by_the_refusal_and_left_as_it_is() {
    let of = |owner: Value| {
        let api = Server::default();
        for (kind, path) in [("ConfigMap", "configmaps"), ("PersistentVolumeClaim", "persistentvolumeclaims")] {
            let metadata = json!({"name": "db-mcp", "namespace": "team", "ownerReferences": owner});
            let path = format!("/api/v1/namespaces/team/{path}/db-mcp");
            api.put(&path, json!({"apiVersion": "v1", "kind": kind, "metadata": metadata}));
        }
        api
    };
    let server = |name: &str, uid: &str| json!([{"apiVersion": "mcpfleet.dev/v1alpha1", "kind": "McpServer", "name": name, "uid": uid, "controller": true}]);
    let foreign = of(server("other", "x"));
    let told = writer(&foreign).apply(&child("a")).await.expect_err("it is another's");
    assert!(matches!(told, Error::NameConflict(_)), "{told:?}");
    assert_eq!(foreign.methods(), ["POST", "GET"]);

    let before = of(server("db", "former"));
    let told = writer(&before).apply(&child("a")).await.expect_err("it is going");
    assert!(matches!(told, Error::OfPredecessor(_)), "{told:?}");

    // A claim has no owner: its labels say whose it is.
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": "db-mcp", "namespace": "team", "labels": {names::LABEL_INSTANCE: "db", "team": "data"}},
    }))
    .expect("a claim");
    let told = writer(&of(json!([]))).apply(&Child::new(&claim)).await.expect_err("it may hold data");
    assert!(matches!(&told, Error::ForeignData(..)), "{told:?}");
    let sentence = told.to_string();
    assert!(sentence.ends_with(&format!("label the claim {}=db", names::LABEL_INSTANCE)), "{sentence}");

    let ours = of(server("db", "uid-of-db"));
    writer(&ours).apply(&child("a")).await.expect("it is ours");
    assert_eq!(ours.methods(), ["POST", "GET", "PATCH"]);
}

/// `kubectl delete --cascade=orphan`, as the watches show it when they lag: the child is nobody's, and the CR seems to be there.
#[tokio::test]
async fn an_orphan_is_adopted_by_who_is_there_and_not_by_who_goes() {
    let server = |uid: &str, going: Option<&str>| json!({"metadata": {"name": "db", "namespace": "team", "uid": uid, "deletionTimestamp": going}});
    let adopt = async |server: Option<Value>| {
        let api = Server::default();
        server.map(|server| api.put("/apis/mcpfleet.dev/v1alpha1/namespaces/team/mcpservers/db", server));
        let metadata =
            json!({"name": "db-mcp", "namespace": "team", "uid": "orphan", "labels": names::Component::Server.labels("db")});
        let orphan = api.put(PATH, json!({"metadata": metadata, "data": {"text": "a"}}));
        let (writer, mut child) = (writer(&api), child("a"));
        child.body["metadata"]["labels"] = json!(names::Component::Server.labels("db"));
        writer.children.shown(live(&orphan));
        let adopted = writer.apply(&child).await;
        (adopted, api.methods())
    };
    let (adopted, sent) = adopt(Some(server("uid-of-db", None))).await;
    assert_eq!(sent, ["GET", "PATCH"]);
    assert_eq!(adopted.expect("adopted").live.owner.as_deref(), Some("uid-of-db"));
    for gone in [None, Some(server("uid-of-successor", None)), Some(server("uid-of-db", Some("2026-01-01T00:00:00Z")))] {
        let (told, sent) = adopt(gone).await;
        let told = told.expect_err("it goes");
        assert!(matches!(told, Error::OwnerGoing(..)) && told.is_transient(), "{told}");
        assert_eq!(
            told.to_string(),
            "the ConfigMap db-mcp has no owner, and the McpServer db is gone, or going: it is left as it is"
        );
        assert_eq!(sent, ["GET"]);
    }
}

#[tokio::test]
async fn what_is_taken_up_from_somebody_is_no_correction() {
    let api = Server::default();
    let labels = names::Component::Server.labels("db");
    let claim = |size: &str| {
        let managers = json!([{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:resources": {}}}}]);
        let metadata = json!({
            "name": "db-mcp", "namespace": "team", "uid": "theirs", "labels": labels, "managedFields": managers,
        });
        json!({"metadata": metadata, "spec": {"resources": {"requests": {"storage": size}}}})
    };
    let mut wanted: PersistentVolumeClaim = serde_json::from_value(claim("2Gi")).expect("a claim");
    (wanted.metadata.uid, wanted.metadata.managed_fields) = (None, None);
    api.put("/api/v1/namespaces/team/persistentvolumeclaims/db-mcp", claim("1Gi"));
    let theirs = serde_json::from_value(claim("1Gi")).expect("an object");
    let writer = writer(&api);
    writer.children.shown(Live::new("PersistentVolumeClaim", theirs));
    assert_eq!(writer.apply(&Child::new(&wanted)).await.expect("taken up").corrected, None);
}

#[tokio::test]
async fn a_claim_that_is_being_deleted_is_told_and_left_as_it_is() {
    let api = Server::default();
    let writer = writer(&api);
    let labels = names::Component::Server.labels("db");
    let claim = |size: &str| {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "db-mcp", "namespace": "team", "labels": labels}, "spec": {"resources": {"requests": {"storage": size}}},
        }))
        .expect("a claim");
        Child::new(&claim)
    };
    writer.apply(&claim("1Gi")).await.expect("created");
    let going = api.change("/api/v1/namespaces/team/persistentvolumeclaims/db-mcp", |claim| {
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    writer.children.shown(Live::new("PersistentVolumeClaim", serde_json::from_value(going).expect("an object")));
    api.sent();
    for size in ["1Gi", "2Gi"] {
        let error = writer.apply(&claim(size)).await.expect_err("it goes");
        assert!(matches!(error, Error::DataGoing(_)) && !error.is_transient(), "{error}");
    }
    assert!(api.sent().is_empty());
}

#[test]
fn what_kubernetes_says_is_one_line_and_says_the_way_out_where_there_is_one() {
    assert_eq!(in_one_line("it is\nimmutable\n@@ -10,7 +10,7 @@\n-a\n+b"), "it is immutable");
    assert!(way_out("only dynamically provisioned pvc can be resized").contains("delete this object"));
    assert_eq!(way_out("exceeded quota"), "");
}

#[tokio::test]
async fn a_refusal_is_told_and_looks_at_nothing() {
    let api = Server::default();
    api.state().refusals.push(("POST", "", 403));
    let told = writer(&api).apply(&child("a")).await.expect_err("refused");
    assert_eq!(told.describe(), "failed to create the ConfigMap db-mcp: refused");
    assert_eq!(api.methods(), ["POST"]);
}

#[tokio::test]
async fn a_child_is_deleted_by_its_uid_and_one_that_is_gone_is_no_fault() {
    let api = Server::default();
    let writer = writer(&api);
    let child = child("a");
    let created = writer.apply(&child).await.expect("created").live;
    api.sent();
    api.state().refusals.push(("DELETE", "", 500));
    let told = writer.delete(&created, &child.resource).await.expect_err("refused");
    assert_eq!(told.describe(), "failed to delete the ConfigMap db-mcp: refused");
    assert!(writer.children.get(&child.key).is_some());
    api.sent();
    writer.delete(&created, &child.resource).await.expect("deleted");
    let sent = api.sent();
    assert_eq!((sent[0].method.as_str(), &sent[0].body["preconditions"]["uid"]), ("DELETE", &json!("uid-1")));
    assert_eq!(sent[0].body["propagationPolicy"], "Background");
    assert!(writer.children.get(&child.key).is_none());
    writer.delete(&created, &child.resource).await.expect("somebody was quicker");
    for _ in 0..9 {
        _ = writer.delete(&created, &child.resource).await;
    }
    let told = writer.delete(&created, &child.resource).await.expect_err("it comes again and again");
    assert!(matches!(told, Error::Contested { undone: true, .. }), "{told:?}");
}

/// A cache that has seen the server at a version.
fn cache_of(server: &McpServer) -> Arc<Cache<McpServer>> {
    use futures::{FutureExt as _, StreamExt as _};
    let events = futures::stream::iter([Ok(Event::Init), Ok(Event::InitApply(server.clone())), Ok(Event::InitDone)]);
    let (cache, follows) = crate::cache::follow("McpServers", events.boxed(), |_| {});
    follows.now_or_never().expect("a stream that ends");
    cache
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_to_its_object_alone_and_stands_in_front_of_the_watch() {
    let server = fixtures::server(|server| server.metadata.resource_version = Some("1".into()));
    let api = Server::default();
    api.put("/apis/mcpfleet.dev/v1alpha1/namespaces/team/mcpservers/db", serde_json::to_value(&server).expect("JSON"));
    let cache = cache_of(&server);
    let status = McpServerStatus { url: Some("here".into()), ..McpServerStatus::default() };
    apply_status(&api.client(), &cache, &server, &status).await.expect("written");
    let sent = api.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let request = &sent[0];
    assert_eq!(request.method, "PATCH");
    let path = &request.path;
    assert!(path.starts_with("/apis/mcpfleet.dev/v1alpha1/namespaces/team/mcpservers/db/status?"), "{path}");
    assert!(path.contains("fieldManager=mcpfleet") && path.contains("force=true"), "{path}");
    let body = &request.body;
    assert_eq!((&body["metadata"]["uid"], &body["status"]["url"]), (&json!("uid-of-db"), &json!("here")));
    let known = cache.get("team", "db").expect("known");
    assert_eq!(known.status.as_ref().and_then(|status| status.url.as_deref()), Some("here"));

    api.state().silent = true;
    let begun = Instant::now();
    let told = apply_status(&api.client(), &cache, &server, &status).await.expect_err("nobody answers");
    assert_eq!(told.describe(), "no answer in 30s when trying to write the status of the McpServer db");
    assert!(begun.elapsed() >= REQUEST_TIMEOUT);
}

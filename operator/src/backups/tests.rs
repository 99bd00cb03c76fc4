use serde_json::{Value, json};

use super::*;
use crate::fixtures;

fn labelled(name: &str, uid: &str) -> Value {
    let labels = json!({"app.kubernetes.io/component": "mcp-backup", "app.kubernetes.io/instance": "db"});
    json!({"name": name, "uid": uid, "namespace": "team", "labels": labels})
}

/// A job, and how it ended: Complete, or Failed for this reason.
fn job(uid: &str, ended: Option<(&str, Option<&str>)>) -> Job {
    let conditions = ended.map(|(at, failed)| {
        let type_ = if failed.is_some() { "Failed" } else { "Complete" };
        json!([{"type": type_, "status": "True", "reason": failed, "message": "says Kubernetes", "lastTransitionTime": at}])
    });
    let job = json!({"metadata": labelled(uid, uid), "status": {"conditions": conditions}});
    serde_json::from_value(job).expect("a job")
}

fn done(uid: &str, at: &str) -> Job {
    job(uid, Some((at, None)))
}

fn failed(uid: &str, at: &str) -> Job {
    job(uid, Some((at, Some("BackoffLimitExceeded"))))
}

/// A pod of a job.
fn with(of: &str, name: &str, status: &Value) -> Pod {
    let mut metadata = labelled(name, name);
    metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": of, "uid": of, "controller": true}]);
    serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("a pod")
}

fn ended(of: &str, name: &str, at: &str, code: i32, message: &str) -> Pod {
    let state = json!({"terminated": {"exitCode": code, "finishedAt": at, "message": message, "reason": if code == 0 { "Completed" } else { "Error" }}});
    let containers = json!([{"name": "backup", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    with(of, name, &json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": containers}))
}

fn pending(of: &str, name: &str) -> Pod {
    let no_node =
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "claim kept not found"}]);
    with(of, name, &json!({"phase": "Pending", "conditions": no_node}))
}

fn backups() -> Backups {
    Backups::new(&MetricSet::default())
}

fn server() -> McpServer {
    fixtures::server(|server| {
        let backup = json!({"schedule": "@daily", "to": {"claim": "kept"}});
        let storage = json!({"size": "1Gi", "mountPath": "/data", "backup": backup});
        server.spec.storage = serde_json::from_value(storage).ok();
    })
}

fn take_job(backups: &Backups, event: Event<Job>) -> Option<Who> {
    backups.take_job(event, &PodWarnings::default())
}

fn take_pod(backups: &Backups, event: Event<Pod>) -> Option<Who> {
    backups.take_pod(event, &PodWarnings::default())
}

/// What is told, to events of no pod.
fn told(backups: &Backups, before: Option<&BackupStatus>) -> Option<BackupStatus> {
    backups.tell(&server(), before, &PodWarnings::default())
}

fn metrics(backups: &Backups) -> (f64, i64, u64) {
    let labels = ["team", "db"];
    let (good, failing) = (backups.last_good.with_label_values(&labels), backups.failing.with_label_values(&labels));
    (good.get(), failing.get(), backups.failures.with_label_values(&labels).get())
}

fn at(time: Option<&Time>) -> Option<String> {
    time.map(|time| time.0.to_string())
}

const METRICS: &str = "# TYPE sandbox_backup_last_success_bytes gauge\nsandbox_backup_last_success_bytes{database=\"x\"} 4096\n";

#[test]
fn a_job_is_told_and_counted_once_when_it_is_done() {
    let backups = backups();
    assert!(take_job(&backups, Event::Apply(job("1", None))).is_none());
    take_pod(&backups, Event::Apply(ended("1", "1-a", "2026-01-01T00:01:00Z", 1, "busy")));
    assert_eq!((told(&backups, None), metrics(&backups)), (None, (0.0, 0, 0)), "it is tried again");
    take_pod(&backups, Event::Apply(ended("1", "1-b", "2026-01-01T00:02:00Z", 0, METRICS)));
    assert!(take_job(&backups, Event::Apply(done("1", "2026-01-01T00:02:00Z"))).is_some());
    assert!(take_job(&backups, Event::Apply(done("1", "2026-01-01T00:02:00Z"))).is_none(), "told already");
    let good = told(&backups, None).expect("something");
    assert_eq!((good.size, &good.failure, at(good.last.as_ref())), (Some(4096), &None, at(good.last_success.as_ref())));
    assert_eq!(metrics(&backups), (1_767_225_720.0, 0, 0));

    for number in 3..6 {
        let pod = ended("2", &format!("2-{number}"), &format!("2026-01-01T00:0{number}:00Z"), 1, "no such bucket");
        take_pod(&backups, Event::Apply(pod));
    }
    take_job(&backups, Event::Apply(failed("2", "2026-01-01T00:06:00Z")));
    let bad = told(&backups, Some(&good)).expect("something");
    assert_eq!((bad.size, at(bad.last_success.as_ref())), (Some(4096), at(good.last.as_ref())), "the last good one stands");
    let failure = bad.failure.as_deref().expect("a failure");
    assert!(failure.ends_with("exit code 1: no such bucket") && failure.contains("2-5"), "{failure}");
    assert_eq!(told(&backups, Some(&bad)).as_ref(), Some(&bad));
    assert_eq!(metrics(&backups), (1_767_225_720.0, 1, 1));
    backups.forget("team", "db");
    assert_eq!(told(&backups, None), None);
}

#[test]
fn the_next_operator_tells_what_the_status_says_and_counts_nothing_again() {
    let first = backups();
    take_job(&first, Event::Apply(failed("1", "2026-01-01T02:00:00Z")));
    take_job(&first, Event::Apply(done("2", "2026-01-01T01:00:00Z")));
    let before = told(&first, None).expect("something");
    assert_eq!(metrics(&first), (1_767_229_200.0, 1, 1));

    let next = backups();
    assert_eq!(told(&next, Some(&before)).as_ref(), Some(&before));
    assert_eq!(metrics(&next), (1_767_229_200.0, 1, 0));
    take_job(&next, Event::InitApply(failed("1", "2026-01-01T02:00:00Z")));
    assert_eq!(told(&next, Some(&before)).as_ref(), Some(&before));
    assert_eq!(metrics(&next).2, 0, "it was counted");
    // One that ended while there was no operator.
    take_job(&next, Event::InitApply(failed("3", "2026-01-01T03:00:00Z")));
    assert_ne!(told(&next, Some(&before)), Some(before));
    assert_eq!(metrics(&next).2, 1);
    let without = fixtures::server(|_| {});
    next.tell(&without, None, &PodWarnings::default());
    assert!(next.last_good.remove_label_values(&["team", "db"]).is_err(), "nothing is backed up");
}

#[test]
fn one_that_does_not_run_is_told_until_it_runs_and_a_server_that_was_never_backed_up_can_be_alerted_on() {
    let backups = backups();
    assert_eq!((told(&backups, None), metrics(&backups)), (None, (0.0, 0, 0)));
    take_job(&backups, Event::Apply(job("1", None)));
    assert!(take_pod(&backups, Event::Apply(pending("1", "1-a"))).is_some());
    let held = told(&backups, None).expect("something");
    let failure = "it does not run: pod 1-a: Unschedulable: claim kept not found";
    assert_eq!((held.failure.as_deref(), &held.last), (Some(failure), &None));
    assert_eq!(metrics(&backups), (0.0, 1, 0));
    assert!(take_pod(&backups, Event::Apply(with("1", "1-a", &json!({"phase": "Running"})))).is_some());
    assert_eq!(told(&backups, Some(&held)), None);

    let mut quick = ended("1", "1-a", "2026-01-01T00:01:00Z", 1, "no such bucket");
    quick.status.as_mut().expect("a status").phase = Some("Pending".into());
    take_pod(&backups, Event::Apply(quick));
    assert_eq!(told(&backups, Some(&held)), None, "it ran, and is tried again, perhaps");

    // Its pod is deleted when its time is up: the cause is still known.
    take_pod(&backups, Event::Apply(pending("1", "1-a")));
    take_pod(&backups, Event::Delete(pending("1", "1-a")));
    take_job(&backups, Event::Apply(job("1", Some(("2026-01-01T06:00:00Z", Some("DeadlineExceeded"))))));
    let failure = told(&backups, Some(&held)).and_then(|told| told.failure).expect("a failure");
    assert!(failure.starts_with("DeadlineExceeded: says Kubernetes; ") && failure.contains("claim kept not found"), "{failure}");
}

#[test]
fn a_job_that_gets_no_pod_says_why_and_says_it_when_its_time_is_up() {
    let backups = backups();
    let said = |pod: &str| {
        let message = format!("Error creating: pods \"db-mcp-backup-29400000-{pod}\" is forbidden: exceeded quota");
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Job", "uid": "1"},
            "reason": "FailedCreate", "message": message});
        serde_json::from_value(event).expect("an Event")
    };
    assert!(backups.take_refusal(Event::Apply(said("x2x4z"))).is_none(), "nobody's");
    take_job(&backups, Event::Apply(job("1", None)));
    assert!(backups.take_refusal(Event::Apply(said("x2x4z"))).is_some());
    assert!(backups.take_refusal(Event::Apply(said("7k2pq"))).is_none(), "told already, of another try");
    let held = told(&backups, None).expect("something");
    assert_eq!(held.failure.as_deref(), Some("it does not run: FailedCreate: exceeded quota"));
    take_job(&backups, Event::Apply(job("1", Some(("2026-01-01T06:00:00Z", Some("DeadlineExceeded"))))));
    let ended = told(&backups, Some(&held)).expect("something");
    assert_eq!(ended.failure.as_deref(), Some("DeadlineExceeded: says Kubernetes; FailedCreate: exceeded quota"));
    assert_eq!(metrics(&backups).2, 1);
}

#[test]
fn a_job_that_is_deleted_before_it_is_done_is_a_failure_and_one_that_went_unseen_is_none() {
    let backups = backups();
    take_job(&backups, Event::Apply(job("1", None)));
    take_pod(&backups, Event::Apply(pending("1", "1-a")));
    assert!(take_job(&backups, Event::Delete(job("1", None))).is_some());
    let failure = told(&backups, None).and_then(|told| told.failure).expect("a failure");
    assert!(failure.starts_with("its job was deleted before it was done; ") && failure.contains("claim kept"), "{failure}");

    let backups = self::backups();
    take_job(&backups, Event::Apply(job("1", None)));
    take_pod(&backups, Event::Apply(pending("1", "1-a")));
    take_pod(&backups, Event::Init);
    take_pod(&backups, Event::InitDone);
    take_job(&backups, Event::Init);
    take_job(&backups, Event::InitDone);
    assert_eq!(told(&backups, None), None);
}

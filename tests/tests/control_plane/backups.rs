//! Backups without a kubelet: what is made for them, what is refused, and what people are told of how they ended.

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::{Event, PersistentVolumeClaim, Pod},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{
    conditions,
    crd::{McpServer, backup::BackupStatus, reason},
};
use serde_json::{Value, json};

use crate::children::events;

fn server(storage: &Value) -> Value {
    let mut whole = json!({"size": "1Gi", "mountPath": "/data"});
    whole.as_object_mut().unwrap().extend(storage.as_object().unwrap().clone());
    json!({"metadata": {"name": "s"}, "spec": {
        "container": {"image": "a/b:1", "args": ["serve", "--db", "/data/x.db"]}, "storage": whole,
    }})
}

fn to_a_claim() -> Value {
    json!({"schedule": "30 3 * * *", "to": {"claim": "kept"}})
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

fn told(server: &McpServer) -> Option<&BackupStatus> {
    server.status.as_ref()?.backup.as_ref()
}

/// A job as the CronJob makes it. Kubernetes' own controller leaves it alone.
async fn job(space: &Space, cron: &CronJob, name: &str) -> anyhow::Result<Job> {
    let mut job = json!(cron.spec.as_ref().map(|spec| &spec.job_template).unwrap());
    job["metadata"]["name"] = json!(name);
    job["spec"]["managedBy"] = json!("mcpfleet.dev/test");
    space.create::<Job>(job).await
}

/// A pod of the job, which has ended.
async fn ended(space: &Space, job: &Job, name: &str, at: &str, code: i32, words: &str) -> anyhow::Result<()> {
    let mut pod = job.spec.as_ref().map(|spec| json!(spec.template)).unwrap();
    pod["metadata"]["name"] = json!(name);
    let owner =
        json!({"apiVersion": "batch/v1", "kind": "Job", "name": job.metadata.name, "uid": job.metadata.uid, "controller": true});
    pod["metadata"]["ownerReferences"] = json!([owner]);
    // Nobody schedules here, so nobody may wait for a node either.
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    space.create::<Pod>(pod).await?;
    let state = json!({"terminated": {"exitCode": code, "reason": "Error", "finishedAt": at, "message": words}});
    let status = json!({"status": {"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [
        {"name": "backup", "image": "a/b:1", "imageID": "x", "ready": false, "restartCount": 0, "state": state},
    ]}});
    space.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
    Ok(())
}

/// The job is done.
async fn done(space: &Space, name: &str, at: &str, failed: Option<(&str, &str)>) -> anyhow::Result<()> {
    let condition = |type_: &str| {
        let (reason, message) = failed.unwrap_or(("CompletionsReached", "Reached expected number of succeeded pods"));
        json!({"type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at, "lastProbeTime": at})
    };
    let status = if failed.is_some() {
        json!({"startTime": at, "failed": 3, "conditions": [condition("FailureTarget"), condition("Failed")]})
    } else {
        let conditions = [condition("SuccessCriteriaMet"), condition("Complete")];
        json!({"startTime": at, "completionTime": at, "succeeded": 1, "conditions": conditions})
    };
    let status = json!({"status": status});
    space.api::<Job>().patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

#[tokio::test]
async fn a_backup_is_a_cron_job_and_what_became_of_it_is_told_in_status_event_and_metric() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<PersistentVolumeClaim>(claim("kept")).await?;
        let made = space.create::<McpServer>(server(&json!({"backup": to_a_claim()}))).await?;
        let server_made = made.metadata.creation_timestamp.unwrap();
        let cron = space.until::<CronJob>("s-mcp-backup", "the CronJob", |_| true).await?;
        let spec = json!(cron.spec);
        assert_eq!(
            (&spec["schedule"], &spec["concurrencyPolicy"], &spec["suspend"]),
            (&json!("30 3 * * *"), &json!("Forbid"), &json!(false))
        );

        let words = "sandbox_backup_last_success_bytes{database=\"x\"} 8192";
        // The server is of today, and so is what is told of it.
        let second = |number: u32| {
            let made = server_made.0 + std::time::Duration::from_secs(number.into());
            made.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        // One that succeeds at its second try is a good one.
        let first = job(&space, &cron, "good").await?;
        ended(&space, &first, "good-1", &second(1), 1, "error: the bucket is busy").await?;
        ended(&space, &first, "good-2", &second(2), 0, words).await?;
        done(&space, "good", &second(2), None).await?;
        let good = space.until::<McpServer>("s", "a backup", |server| told(server).is_some()).await?;
        let good = told(&good).unwrap().clone();
        assert_eq!((good.size, good.failure.as_ref(), &good.last), (Some(8192), None, &good.last_success));

        // One that fails three times is one that failed.
        let second_one = job(&space, &cron, "bad").await?;
        for number in 3..6 {
            ended(&space, &second_one, &format!("bad-{number}"), &second(number), 1, "error: the bucket is not there").await?;
        }
        done(&space, "bad", &second(6), Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"))).await?;
        let bad =
            space.until::<McpServer>("s", "a failure", |server| told(server).is_some_and(|told| told.failure.is_some())).await?;
        let status = told(&bad).unwrap();
        assert_eq!((&status.last_success, status.size), (&good.last_success, Some(8192)), "the last good one stands");
        assert!(status.failure.as_ref().unwrap().contains("the bucket is not there"), "{status:?}");
        let stalled = conditions::find(&bad.status.as_ref().unwrap().conditions, "Stalled").unwrap();
        assert_eq!(stalled.status, "False", "the server serves: {stalled:?}");
        let mut look = tokio::time::interval(std::time::Duration::from_millis(100));
        let event = async {
            loop {
                look.tick().await;
                if let Some(note) = events(&space, reason::BACKUP_FAILED).await?.pop() {
                    return anyhow::Ok(note);
                }
            }
        };
        let event = tokio::time::timeout(std::time::Duration::from_secs(20), event).await??;
        assert!(event.contains(&second(2)) && event.contains("the bucket is not there"), "{event}");
        let metrics = operator.get("/metrics").await?;
        let of = format!("{{name=\"s\",namespace=\"{}\"}}", space.name);
        assert!(metrics.contains(&format!("mcpfleet_backup_failures_total{of} 1")), "{metrics}");
        let of_good = |metrics: &str| {
            let at = server_made.0.as_second() + 2;
            metrics.contains(&format!("mcpfleet_backup_last_success_timestamp_seconds{of} {at}"))
        };
        assert!(of_good(&metrics), "{metrics}");
        assert_eq!(events(&space, reason::BACKUP_FAILED).await?.len(), 1, "{:?}", events(&space, reason::BACKUP_FAILED).await?);

        // What was told outlives the pods, and the operator.
        operator.stop().await?;
        for pod in ["good-1", "good-2", "bad-3", "bad-4", "bad-5"] {
            space.api::<Pod>().delete(pod, &DeleteParams::default().grace_period(0)).await?;
        }
        for name in ["good", "bad"] {
            space.api::<Job>().delete(name, &DeleteParams::background().grace_period(0)).await?;
        }
        let operator = space.operator().await?;
        operator.until_passes(1).await?;
        let metrics = operator.get("/metrics").await?;
        assert!(of_good(&metrics), "the next operator tells it, too: {metrics}");
        assert!(metrics.contains(&format!("mcpfleet_backup_failures_total{of} 0")), "and counts nothing again: {metrics}");
        assert_eq!(told(&space.api::<McpServer>().get("s").await?), told(&bad));

        space.edit::<McpServer>("s", json!({"spec": {"enabled": false}})).await?;
        let suspended = |cron: &CronJob| cron.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        space.until::<CronJob>("s-mcp-backup", "suspended", suspended).await?;
        space.edit::<McpServer>("s", json!({"spec": {"storage": {"backup": null}}})).await?;
        space.until_gone::<CronJob>("s-mcp-backup").await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_missing_is_told_while_the_server_runs_and_a_job_that_gets_no_pod_as_soon_as_that_is_known() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(server(&json!({"backup": to_a_claim()}))).await?;
        let stalled = |server: &McpServer| {
            let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions::find(conditions, "Stalled").map(|found| (found.status.clone(), found.message.clone()))
        };
        let waits = |server: &McpServer| stalled(server).is_some_and(|(status, why)| status == "True" && why.contains("kept"));
        space.until::<McpServer>("s", "the claim named", waits).await?;
        space.create::<PersistentVolumeClaim>(claim("kept")).await?;
        let well = |server: &McpServer| stalled(server).is_some_and(|(status, _)| status == "False");
        space.until::<McpServer>("s", "nothing in the way", well).await?;

        let cron = space.until::<CronJob>("s-mcp-backup", "the CronJob", |_| true).await?;
        let refused = job(&space, &cron, "refused").await?;
        let of = json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": space.name, "name": "refused", "uid": refused.metadata.uid});
        let said = json!({"metadata": {"name": "refused.1"}, "involvedObject": of, "type": "Warning", "reason": "FailedCreate",
            "message": "Error creating: pods is forbidden: exceeded quota: none"});
        space.create::<Event>(said).await?;
        let held = |server: &McpServer| {
            told(server).and_then(|told| told.failure.as_ref()).is_some_and(|failure| failure.contains("exceeded quota"))
        };
        space.until::<McpServer>("s", "why there is no backup", held).await?;
        let metrics = operator.get("/metrics").await?;
        let of = format!("{{name=\"s\",namespace=\"{}\"}}", space.name);
        assert!(metrics.contains(&format!("mcpfleet_backup_failing{of} 1")), "{metrics}");
        assert!(metrics.contains(&format!("mcpfleet_backup_last_success_timestamp_seconds{of} 0")), "{metrics}");
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn keys_that_are_missing_are_told_while_the_server_runs() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        let s3 = json!({"bucket": "backups", "credentialsSecretRef": {"name": "keys"}});
        let backup = json!({"backup": {"schedule": "@daily", "to": {"s3": s3}}});
        space.create::<McpServer>(server(&backup)).await?;
        let stalled = |server: &McpServer| {
            let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions::find(conditions, "Stalled").map(|found| (found.status.clone(), found.reason.clone()))
        };
        let waits = ("True".to_owned(), reason::SECRET_NOT_FOUND.to_owned());
        space.until::<McpServer>("s", "the Secret named", |server| stalled(server).as_ref() == Some(&waits)).await?;
        space.until::<k8s_openapi::api::apps::v1::Deployment>("s-mcp", "the pods, which do without", |_| true).await?;
        space.secret("keys", &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]).await?;
        let well = |server: &McpServer| stalled(server).is_some_and(|(status, _)| status == "False");
        space.until::<McpServer>("s", "nothing in the way", well).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn what_is_no_backup_is_refused() {
    with_space(|space| async move {
        let claim = || json!({"claim": "kept"});
        for (storage, says) in [
            (json!({"backup": {"schedule": "every day", "to": claim()}}), "schedule must have the five fields of cron"),
            (json!({"backup": {"schedule": "TZ=UTC 0 0 * * *", "to": claim()}}), "schedule must have the five fields of cron"),
            (json!({"backup": {"schedule": "@daily", "to": {}}}), "set exactly one of backup.to.claim"),
            (
                json!({"backup": {"schedule": "@daily", "to": {"claim": "a", "s3": {"bucket": "bucket"}}}}),
                "set exactly one of backup.to.claim",
            ),
            (json!({"backup": {"schedule": "@daily", "to": {"claim": "s-mcp"}}}), "must not be the server's own claim"),
            (
                json!({"backup": {"schedule": "@daily", "to": claim(), "keep": 0}}),
                "keep in body should be greater than or equal to 1",
            ),
            (
                json!({"backup": {"schedule": "@daily", "to": {"s3": {"bucket": "Bucket"}}}}),
                "bucket: Invalid value: \"string\": it must be the name of a bucket",
            ),
            (
                json!({"backup": {"schedule": "@daily", "to": {"s3": {"bucket": "b-1", "endpoint": "s3:9000"}}}}),
                "endpoint must be an http:// or https:// URL",
            ),
            (json!({"restoreFrom": "latest"}), "set storage.backup, too"),
            (
                json!({"restoreFrom": "../x", "backup": to_a_claim()}),
                "restoreFrom: Invalid value: \"string\": it must be latest or the NAME of a backup",
            ),
            (
                json!({"restoreFrom": "latest", "backup": {"schedule": "@daily", "to": claim(), "command": ["dump"]}}),
                "storage.restoreFrom is for sandbox-server",
            ),
        ] {
            let refused = space.create::<McpServer>(server(&storage)).await.unwrap_err().to_string();
            anyhow::ensure!(refused.contains(says), "{storage}: {refused}");
        }
        Ok(())
    })
    .await;
}

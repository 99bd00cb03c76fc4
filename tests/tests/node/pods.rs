//! Images that are not made for us run: another user, root, the image's own user, containers before and beside the server, a claim of one's own.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd::McpServer;
use serde_json::{Value, json};

use crate::{
    drills::serves,
    setup::{files_of, install, server_pods, sqlite},
};

const IMAGE: &str = "ghcr.io/mcpfleet/sandbox-server:0.1.0";

/// A server that keeps its rows here, with these fields of the spec.
fn server(name: &str, file: &str, fields: Value) -> anyhow::Result<Value> {
    let mut server = sqlite(name, 1, 5);
    server["spec"]["container"]["args"] = json!(["serve", "--db", file, "--listen", "0.0.0.0:8080"]);
    let Value::Object(fields) = fields else { anyhow::bail!("fields of a spec") };
    server["spec"].as_object_mut().context("a spec")?.extend(fields);
    Ok(server)
}

/// The user that the server of this name runs as, as the node sees it.
async fn user(space: &Space, name: &str) -> anyhow::Result<String> {
    let pod = server_pods(space, name).await?.first().context("it has a pod")?.name_any();
    let root = files_of(space, &pod, "usr/bin/sandbox-server").await?;
    let status = std::fs::read_to_string(root.parent().context("of a process")?.join("status"))?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("a process has a user")?;
    Ok(users.split_whitespace().next().context("a number")?.to_owned())
}

#[tokio::test]
async fn images_that_want_root_another_user_or_company_run() {
    with_space(|space| async move {
        install(&space).await?;
        let root = json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": false, "readOnlyRootFilesystem": false}});
        let other = json!({
            "securityContext": {"runAsUser": 4321, "runAsGroup": 4321, "fsGroup": 4321},
            "storage": {"size": "16Mi", "mountPath": "/data"},
        });
        let company = json!({
            "volumes": [{"name": "mine", "persistentVolumeClaim": {"claimName": "mine"}}],
            "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
            "podTemplate": {
                "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["beside"]}],
                "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
                "initContainers": [{"name": "before", "image": IMAGE, "args": ["--version"]}],
                "sidecars": [{
                    "name": "beside", "image": IMAGE, "args": ["serve", "--db", "/tmp/beside.db", "--listen", "0.0.0.0:9000"],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }],
            },
        });
        space
            .create::<PersistentVolumeClaim>(json!({"metadata": {"name": "mine"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}},
            }}))
            .await?;
        let servers = [
            // A file beside the program, where only root may write.
            ("root", "/usr/bin/rows.db", root, "0"),
            ("other", "/data/rows.db", other, "4321"),
            // What OpenShift wants: the user is the platform's to choose, here the image's own.
            ("image", "/tmp/rows.db", json!({"securityContext": {}}), "1000"),
            ("company", "/mine/rows.db", company, "1000"),
        ];
        for (name, file, fields, _) in servers.clone() {
            space.create::<McpServer>(server(name, file, fields)?).await?;
        }
        for (name, _, _, runs_as) in servers {
            space.until::<McpServer>(name, "1/1", |server| serves(server, "1/1")).await?;
            let user = user(&space, name).await?;
            ensure!(user == runs_as, "{name} runs as {user}, not as {runs_as}");
        }
        Ok(())
    })
    .await;
}

//! Namespaces side by side, the lead, and who may read what.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::{admin::Authenticate, crd::McpServer};
use serde_json::json;

fn server(spec: &serde_json::Value) -> serde_json::Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

#[tokio::test]
async fn a_namespace_that_cannot_be_listed_holds_up_nobody() {
    with_space(|space| async move {
        let mut config = space.config()?;
        config.watch_namespaces.push("kube-public".into());
        let operator = space.start(space.client_of_the_namespace().await?, config);
        space.create::<McpServer>(server(&json!({"container": {"image": "a/b:1"}}))).await?;
        let looked_at = |server: &McpServer| server.status.as_ref().is_some_and(|status| status.url.is_some());
        space.until::<McpServer>("s", "a status", looked_at).await?;
        let metrics = operator.get("/metrics").await?;
        assert!(metrics.contains(&format!("mcpfleet_scope_known{{namespace=\"{}\"}} 1", space.name)), "{metrics}");
        assert!(metrics.contains("mcpfleet_scope_known{namespace=\"kube-public\"} 0"), "{metrics}");
        let (status, text) = operator.answer("/readyz", None).await?;
        assert_eq!((status, text.contains("kube-public")), (503, true), "{text}");
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_waits_says_who_leads_and_takes_over() {
    with_space(|space| async move {
        let replica = |name: &str| {
            let mut config = space.config()?;
            config.no_leader_election = false;
            config.identity = Some(name.to_owned());
            anyhow::Ok(space.start(space.client.clone(), config))
        };
        let first = replica("first")?;
        first.ready().await?;
        let second = replica("second")?;
        second.until("/readyz", |text| text == "standby: first leads").await?;
        let (status, text) = second.answer("/fleet", None).await?;
        assert_eq!((status, text.as_str()), (503, "another replica leads: first"));
        first.stop().await?;
        second.ready().await?;
        second.stop().await
    })
    .await;
}

#[tokio::test]
async fn the_fleet_is_shown_to_whom_the_api_server_says_may_read_it() {
    with_space(|space| async move {
        let mut config = space.config()?;
        config.authenticate = Authenticate::Fleet;
        let operator = space.start(space.client.clone(), config);
        operator.ready().await?;
        assert_eq!(operator.answer("/metrics", None).await?.0, 200);
        assert_eq!(operator.answer("/fleet", None).await?.0, 401);
        assert_eq!(operator.answer("/fleet", Some("nonsense")).await?.0, 401);
        let token = token(&space, "reader").await?;
        let (status, text) = operator.answer("/fleet", Some(&token)).await?;
        assert_eq!((status, text.contains("may not get the nonResourceURL /fleet")), (403, true), "{text}");

        let (roles, bindings) =
            (Api::<ClusterRole>::all(space.client.clone()), Api::<ClusterRoleBinding>::all(space.client.clone()));
        let name = format!("{}-reader", space.name);
        let role = json!({"metadata": {"name": name}, "rules": [{"nonResourceURLs": ["/fleet"], "verbs": ["get"]}]});
        roles.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": space.name}],
        });
        bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        // The API server takes a moment to see it, and a refusal is remembered for a second.
        let mut answer = operator.answer("/fleet", Some(&token)).await?;
        for _ in 0..100 {
            if answer.0 == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            answer = operator.answer("/fleet", Some(&token)).await?;
        }
        bindings.delete(&name, &DeleteParams::default()).await?;
        roles.delete(&name, &DeleteParams::default()).await?;
        assert_eq!(answer.0, 200, "{}", answer.1);
        assert!(answer.1.starts_with("{\"servers\":"), "{}", answer.1);
        operator.stop().await
    })
    .await;
}

async fn token(space: &Space, account: &str) -> anyhow::Result<String> {
    space.create::<ServiceAccount>(json!({"metadata": {"name": account}})).await?;
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let made = space.api::<ServiceAccount>().create_token_request(account, &PostParams::default(), &request).await?;
    Ok(made.status.map(|status| status.token).unwrap_or_default())
}

#[tokio::test]
async fn a_remote_server_that_leads_into_the_machine_is_refused_in_a_sentence() {
    with_space(|space| async move {
        let mut config = space.config()?;
        config.remote_allow = operator::config::Networks::default();
        config.remote_tool_calls = false;
        let operator = space.start(space.client.clone(), config);
        operator.ready().await?;
        let remote = json!({"remote": {"url": "http://127.0.0.1:9/mcp"}, "circuitBreaker": {"failureThreshold": 1}});
        space.create::<McpServer>(server(&remote)).await?;
        let refused = |server: &McpServer| {
            let conditions = server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions.iter().any(|condition| {
                condition.type_ == "Healthy"
                    && condition.reason == "AddressForbidden"
                    && condition.message.contains("own machine")
            })
        };
        space.until::<McpServer>("s", "a refusal", refused).await?;
        operator.stop().await
    })
    .await;
}

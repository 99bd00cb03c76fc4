//! The NetworkPolicies: who has one, what is refused, what becomes of them. That they are enforced is tested on a node.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use mcpfleet_tests::cluster::{Space, is_told, with_space};
use operator::{
    conditions,
    crd::{McpApp, McpServer},
    names::Component,
    network::Unsaid,
};
use serde_json::{Value, json};

use crate::reconcile::app;

fn server(network: Value) -> Value {
    let mut server = json!({"metadata": {"name": "s"}, "spec": {"container": {"image": "a/b:1"}}});
    if !network.is_null() {
        server["spec"]["network"] = network;
    }
    server
}

fn spec(policy: &NetworkPolicy) -> Value {
    json!(policy.spec)
}

fn peers(policy: &NetworkPolicy) -> Vec<Value> {
    spec(policy)["ingress"][0]["from"].as_array().cloned().unwrap_or_default()
}

/// The operator's pods of these tests, as its configuration has them.
fn operator_of(space: &Space) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}},
    })
}

#[tokio::test]
async fn a_server_lets_in_the_operator_apps_and_whom_it_names() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(server(Value::Null)).await?;
        let policy = space.until::<NetworkPolicy>("s-mcp", "the policy", |_| true).await?;
        let apps = json!({"podSelector": {"matchLabels": {
            "app.kubernetes.io/component": "mcp-app", "app.kubernetes.io/managed-by": "mcpfleet",
        }}});
        assert!(peers(&policy).contains(&operator_of(&space)) && peers(&policy).contains(&apps), "{:?}", policy.spec);
        assert_eq!(spec(&policy)["podSelector"], json!({"matchLabels": Component::Server.selector("s")}));
        assert_eq!(spec(&policy)["policyTypes"], json!(["Ingress"]));

        let agents = json!({"namespaceSelector": {"matchLabels": {"team": "agents"}}});
        space.create::<McpServer>(server(json!({"ingressFrom": [agents], "egressPorts": [{"port": 443}]}))).await?;
        let shut = |policy: &NetworkPolicy| spec(policy)["policyTypes"] == json!(["Ingress", "Egress"]);
        let policy = space.until::<NetworkPolicy>("s-mcp", "what the spec says", shut).await?;
        assert_eq!(peers(&policy).last(), Some(&agents));
        // What the API server fills in is not taken for somebody else's.
        let told = space.until::<McpServer>("s", "a status", is_told).await?;
        let conditions = told.status.unwrap().conditions;
        assert_eq!(conditions::find(&conditions, "Stalled").unwrap().status, "False", "{conditions:?}");

        space.create::<McpServer>(server(Value::Null)).await?;
        space.until::<NetworkPolicy>("s-mcp", "nothing said again", |policy| !shut(policy)).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn an_app_is_open_at_its_port_until_it_names_somebody() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        app(&space, json!([{"name": "s"}])).await?;
        let policy = space.until::<NetworkPolicy>("chat-app", "the policy", |_| true).await?;
        assert_eq!(spec(&policy)["ingress"], json!([{"ports": [{"port": "http", "protocol": "TCP"}]}]));
        let gateway = json!({"podSelector": {"matchLabels": {"app": "gateway"}}});
        space.edit::<McpApp>("chat", json!({"spec": {"network": {"ingressFrom": [gateway]}}})).await?;
        let wanted = [operator_of(&space), gateway];
        space.until::<NetworkPolicy>("chat-app", "those alone", |policy| peers(policy) == wanted).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn where_it_is_open_only_who_asks_has_a_policy_and_the_others_lose_theirs() {
    with_space(|space| async move {
        let operator = space.operator().await?;
        space.create::<McpServer>(server(Value::Null)).await?;
        space.until::<NetworkPolicy>("s-mcp", "the policy", |_| true).await?;
        operator.stop().await?;
        let mut config = space.config()?;
        config.servers_network = Unsaid::Open;
        let operator = space.start(space.client.clone(), config);
        operator.ready().await?;
        space.until_gone::<NetworkPolicy>("s-mcp").await?;
        space.create::<McpServer>(server(json!({}))).await?;
        space.until::<NetworkPolicy>("s-mcp", "a policy for who asks", |_| true).await?;
        operator.stop().await
    })
    .await;
}

#[tokio::test]
async fn what_is_no_network_is_refused() {
    with_space(|space| async move {
        for (network, says) in [
            (json!({"ingressFrom": [{}]}), "each of network.ingressFrom must be a NetworkPolicyPeer"),
            (
                json!({"egressTo": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
                "each of network.egressTo must be a NetworkPolicyPeer",
            ),
            (json!({"egressTo": [{"ipBlock": {"cidr": "example.com"}}]}), "it must be a network, for example 10.0.0.0/8"),
            (json!({"dns": {}}), "network.dns must be one NetworkPolicyPeer"),
            (json!({"egressPorts": [{"protocol": "TCP"}]}), "port"),
            (json!({"egressPorts": [{"port": 65_536}]}), "must have a port from 1 to 65535"),
            (json!({"egressPorts": [{"port": 90, "endPort": 80}]}), "is not below it"),
            (json!({"egressPorts": [{"port": "https", "endPort": 80}]}), "endPort goes with a number"),
            (json!({"egressPorts": [{"port": 1, "protocol": "ICMP"}]}), "Unsupported value"),
        ] {
            let refused = space.create::<McpServer>(server(network.clone())).await.unwrap_err().to_string();
            anyhow::ensure!(refused.contains(says), "{network}: {refused}");
        }
        Ok(())
    })
    .await;
}

//! Step 3: every child as a whole, from a validated app. Pure, and cannot fail.

mod config_map;
mod credentials;
mod deployment;
mod environment;
mod paths;
mod secret;
mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::ValidatedApp;
use crate::{
    child::Child,
    crd::reason,
    disruption,
    names::Component,
    network::{self, Surroundings},
    problem::Problem,
    requeue::Class,
};

/// All children of the app, who is mounted before who mounts.
pub fn children(app: &ValidatedApp, around: &Surroundings) -> Vec<Child> {
    let mut children = Vec::new();
    children.extend(secret::build(app).map(|secret| Child::new(&secret)));
    children.push(Child::new(&config_map::build(app)).waits_if(config_map::too_large(app).is_some()));
    let policy = network::policy(metadata(app), (Component::App, &app.name), app.network.as_ref(), around);
    children.extend(policy.map(|policy| Child::new(&policy)));
    children.push(Child::new(&service::build(app)));
    // A file of its name that is not its own would be mounted, and believed; and a pod without its policy would be open to all.
    let pods = Child::new(&deployment::build(app)).needs(&["Secret", "ConfigMap", "NetworkPolicy"]);
    children.push(pods.waits_if(!app.lacks.is_empty()));
    let budget = disruption::budget(metadata(app), app.replicas, Component::App.selector(&app.name));
    children.extend(budget.map(|budget| Child::new(&budget)));
    children
}

/// Why the app's file cannot be made, if it cannot. The one that is there stays.
pub fn too_large(app: &ValidatedApp) -> Option<Problem> {
    let message = config_map::too_large(app)?;
    Some(Problem { class: Class::Waiting, reason: reason::INVALID_SPEC, message })
}

fn metadata(app: &ValidatedApp) -> ObjectMeta {
    ObjectMeta {
        name: Some(app.child_name()),
        namespace: Some(app.namespace.clone()),
        labels: Some(app.labels()),
        owner_references: Some(vec![app.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
    use serde_json::json;

    use crate::{
        child::{Child, read},
        crd::{CircuitState, CircuitStatus, McpApp, McpServer, McpServerStatus, mcp_app},
        fixtures,
        inputs::{Found, Kind},
        mcp_app::{observe::Observed, validate::validate},
        workload,
    };

    fn children(servers: Vec<McpServer>) -> Vec<Child> {
        let app = fixtures::app(|app| {
            app.spec.servers =
                serde_json::from_value(json!([{"name": "db"}, {"name": "far"}, {"name": "gone"}])).expect("servers");
        });
        children_of(&app, servers)
    }

    /// Through the real validation, so that a fixture cannot be what a cluster could not hold.
    fn children_of(app: &McpApp, servers: Vec<McpServer>) -> Vec<Child> {
        let inputs = Found::default().with(Kind::Secret, "anthropic", &[("api-key", "")]);
        let observed = Observed { servers: servers.into_iter().map(Arc::new).collect(), inputs, token: Some("t".into()) };
        let valid = validate(app, &observed, "chat-worker:test", "new".into()).expect("valid");
        super::children(&valid, &crate::network::Surroundings::default())
    }

    fn with_url(mut server: McpServer, state: CircuitState) -> McpServer {
        let circuit = CircuitStatus { state, reason: Some("Timeout".into()), ..CircuitStatus::default() };
        let url = Some("http://server/mcp".into());
        server.status = Some(McpServerStatus { url, circuit: Some(circuit), ..McpServerStatus::default() });
        server
    }

    #[test]
    fn mcp_json_offers_what_works_and_says_why_the_rest_does_not() {
        let open = with_url(fixtures::server(|_| {}), CircuitState::Open);
        let remote = fixtures::remote(|server| {
            server.spec.remote = serde_json::from_value(json!({
                "url": "https://example.com/mcp",
                "headersFrom": [{"name": "Authorization", "secretKeyRef": {"name": "token", "key": "header"}}],
                "caSecretRef": {"name": "ca", "key": "ca.crt"},
            }))
            .expect("a remote server");
        });
        let children = children(vec![open, with_url(remote, CircuitState::Closed)]);
        insta::assert_snapshot!("mcp_json", read::<ConfigMap>(&children).and_then(|file| file.data).expect("data")["mcp.json"]);
        let deployment: Deployment = read(&children).expect("a Deployment");
        let pod = deployment.spec.clone().and_then(|spec| spec.template.spec).expect("a pod");
        assert_eq!(workload::volumes_of(&pod), (mcp_app::OWN_VOLUMES.to_vec(), mcp_app::OWN_MOUNTS.to_vec()));
        insta::assert_yaml_snapshot!("deployment", deployment);
    }

    #[test]
    fn a_file_that_no_config_map_holds_is_told_and_not_applied() {
        let app = fixtures::app(|app| {
            app.spec.servers = serde_json::from_value(json!([{"selector": {}}])).expect("servers");
        });
        let many = |count: usize| {
            let named = |number: usize| {
                fixtures::server(|server| {
                    server.metadata.name = Some(format!("s-{number}"));
                    server.spec.description = Some("d".repeat(1_000));
                })
            };
            let servers = (0..count).map(|number| Arc::new(with_url(named(number), CircuitState::Closed))).collect();
            let observed = Observed { servers, token: Some("t".into()), ..Observed::default() };
            validate(&app, &observed, "chat-worker:test", "new".into()).expect("valid")
        };
        assert_eq!(super::too_large(&many(700)), None);
        let problem = super::too_large(&many(1_000)).expect("more than a mebibyte");
        assert!(problem.message.contains("1000 servers") && problem.class.is_obstacle(), "{}", problem.message);
        let file = super::children(&many(1_000), &crate::network::Surroundings::default())
            .into_iter()
            .find(|child| child.key.kind == "ConfigMap");
        assert!(file.expect("it is wanted, and so not pruned").waits);
    }

    #[test]
    fn a_gateway_has_no_model_and_no_key() {
        let app = fixtures::app(|app| {
            app.spec.model = None;
            app.spec.access =
                serde_json::from_value(json!({"allowedHosts": ["tools.example.com"], "trustedProxies": ["10.0.0.1"]})).ok();
        });
        let deployment: Deployment = read(&children_of(&app, Vec::new())).expect("a Deployment");
        let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let value = |name: &str| pod.containers[0].env.iter().flatten().find(|variable| variable.name == name)?.value.clone();
        assert_eq!(value("CHAT_MODE").as_deref(), Some("gateway"));
        assert_eq!(value("CHAT_ALLOWED_HOSTS").as_deref(), Some("tools.example.com"));
        assert_eq!(value("CHAT_TRUSTED_PROXIES").as_deref(), Some("10.0.0.1/32"));
        assert_eq!((value("CHAT_MODEL"), value("ANTHROPIC_API_KEY_FILE")), (None, None));
        assert_eq!(workload::volumes_of(&pod).0, ["tmp", "config", "access"]);
    }

    #[test]
    fn a_server_of_ones_own_needs_no_key() {
        let app = fixtures::app(|app| {
            app.spec.model =
                serde_json::from_value(json!({"api": "OpenAI", "name": "qwen3", "baseUrl": "http://vllm:8000/v1"})).ok();
        });
        let deployment: Deployment = read(&children_of(&app, Vec::new())).expect("a Deployment");
        let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("a pod");
        assert!(pod.containers[0].env.iter().flatten().all(|variable| variable.name != "OPENAI_API_KEY_FILE"));
        assert_eq!(workload::volumes_of(&pod).0, ["tmp", "config", "access"]);
    }

    #[test]
    fn the_tools_of_a_server_are_those_of_its_entry_by_name_before_one_by_label() {
        let app = fixtures::app(|app| {
            app.spec.servers = serde_json::from_value(json!([
                {"selector": {}, "tools": {"deny": ["write_*"]}},
                {"name": "db", "tools": {"allow": ["read_*"], "approvals": "Never"}},
            ]))
            .expect("servers");
        });
        let servers = [fixtures::server(|_| {}), fixtures::remote(|_| {})].map(|server| with_url(server, CircuitState::Closed));
        let file: ConfigMap = read(&children_of(&app, servers.into())).expect("a ConfigMap");
        let file = file.data.expect("data")["mcp.json"].clone();
        let file: serde_json::Value = serde_json::from_str(&file).expect("JSON");
        assert_eq!(file["servers"][0]["tools"], json!({"allow": ["read_*"], "approvals": "never"}));
        assert_eq!(file["servers"][1]["tools"], json!({"deny": ["write_*"]}));
    }

    #[test]
    fn every_setting_of_the_model_and_the_budget_reaches_the_worker() {
        let app = fixtures::app(|app| {
            app.spec.model = serde_json::from_value(json!({
                "api": "OpenAI", "name": "qwen3", "fallback": "qwen3-small", "baseUrl": "http://vllm:8000/v1",
                "apiKeySecretRef": {"name": "anthropic", "key": "api-key"}, "maxTokens": 1000, "contextTokens": 32768,
            }))
            .expect("a model");
            app.spec.replicas = 3;
            app.spec.budget = serde_json::from_value(json!({"tokensPerDay": 1_000_000, "alertPercent": 70})).ok();
            app.spec.approvals = crate::crd::mcp_app::Approvals::Never;
            app.spec.cache_seconds = Some(300);
        });
        let deployment: Deployment = read(&children_of(&app, Vec::new())).expect("a Deployment");
        let pod = deployment.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let variables = pod.containers[0].env.iter().flatten();
        let text: Vec<String> =
            variables.map(|variable| format!("{}={}", variable.name, variable.value.as_deref().unwrap_or_default())).collect();
        insta::assert_snapshot!("environment", text.join("\n"));
    }
}

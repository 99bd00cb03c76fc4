//! The ConfigMap with `mcp.json`, in the format that people also write by hand. The worker reloads it without a restart.
//!
//! A server whose circuit is not Closed stays in the file with `enabled: false` and the reason, so that the app can say why its
//! tools are gone. One that is starting is enabled: the app finds it as soon as it answers, and not at the kubelet's next look at
//! the file. No value of a Secret is ever put here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use super::{credentials, environment::approvals, metadata, paths::FILE};
use crate::{
    crd::mcp_app::AppServerState,
    mcp_app::validate::{AppServer, ValidatedApp},
};

#[derive(Serialize)]
struct McpJson<'a> {
    servers: Vec<Server<'a>>,
    log_level: &'a str,
}

#[derive(Serialize)]
struct Server<'a> {
    name: &'a str,
    url: &'a str,
    enabled: bool,
    timeout: u32,
    max_retries: u32,
    health_check_interval: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers_from: Vec<Header<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Tools<'a>>,
    metadata: Metadata<'a>,
}

/// Which of the server's tools the app has.
#[derive(Serialize)]
struct Tools<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allow: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    deny: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    approvals: Option<&'static str>,
}

/// A header, and the file with its value.
#[derive(Serialize)]
struct Header<'a> {
    name: &'a str,
    file: String,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    /// The state of its circuit, when that is why it is not enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit: Option<&'a str>,
    /// Why it is not enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// What a ConfigMap may hold, in bytes. <https://kubernetes.io/docs/concepts/configuration/configmap/>
const LIMIT: usize = 1 << 20;

/// Why the file cannot be a ConfigMap's, if it cannot.
pub(super) fn too_large(app: &ValidatedApp) -> Option<String> {
    let (size, servers) = (text(app).len() + FILE.len(), app.servers.len());
    (size > LIMIT).then(|| {
        format!(
            "the configuration of {servers} servers is {size} bytes, and a ConfigMap holds {LIMIT}: name fewer servers, shorten their descriptions, or make several apps of this one"
        )
    })
}

fn text(app: &ValidatedApp) -> String {
    let servers = app.servers.iter().filter_map(|(name, server)| entry(name, server)).collect();
    let file = McpJson { servers, log_level: app.log_level.as_str() };
    serde_json::to_string_pretty(&file).expect("strings and numbers are JSON")
}

pub(super) fn build(app: &ValidatedApp) -> ConfigMap {
    let text = text(app);
    ConfigMap { metadata: metadata(app), data: Some(BTreeMap::from([(FILE.into(), text)])), ..ConfigMap::default() }
}

fn entry<'a>(name: &'a str, server: &'a AppServer) -> Option<Server<'a>> {
    Some(Server {
        name,
        // Without an address there is nothing to configure yet.
        url: server.url.as_deref()?,
        enabled: matches!(server.state, AppServerState::Offered | AppServerState::Starting) && server.reason.is_none(),
        timeout: server.timeout,
        max_retries: server.max_retries,
        health_check_interval: server.health_check_interval,
        headers_from: credentials::headers(name, server)
            .map(|file| Header { name: file.name, file: format!("{}/{}", credentials::DIR, file.path) })
            .collect(),
        ca_file: credentials::ca(name, server).map(|(path, _)| format!("{}/{path}", credentials::DIR)),
        tools: server.tools.as_ref().map(|rules| Tools {
            allow: &rules.allow,
            deny: &rules.deny,
            approvals: rules.approvals.map(approvals),
        }),
        metadata: Metadata {
            description: server.description.as_deref(),
            version: server.version.as_deref(),
            circuit: (server.state == AppServerState::CircuitOpen).then(|| server.circuit.as_str()),
            reason: server.reason.as_deref(),
        },
    })
}

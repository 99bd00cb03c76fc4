//! Step 2: from a spec and what is behind it to an app that can be built. Pure, but for the token that is given in.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use super::observe::{Observed, references, start_references};
use crate::{
    conditions,
    crd::{
        CircuitState, McpApp, McpServer,
        mcp_app::{AppServerState, Approvals, Budget, LogLevel, McpAppSpec, Model, RateLimit, ServerRef, ToolRules},
        mcp_server::HeaderFrom,
        pod::{PodSettings, SecretKeyRef},
        reason::{self, condition},
    },
    names::Component,
    problem::Problem,
    requeue::Class,
    ssa::owner_reference,
};

/// An app that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedApp {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The reference by which children are ours.
    pub owner: OwnerReference,
    /// The servers that it names, by name.
    pub servers: BTreeMap<String, AppServer>,
    /// The image.
    pub image: String,
    /// Pods wanted.
    pub replicas: i32,
    /// The model that answers; a gateway has none.
    pub model: Option<Model>,
    /// What the model is told first.
    pub system_prompt: Option<String>,
    /// Requests of a caller.
    pub rate_limit: RateLimit,
    /// What each pod may use in a day.
    pub budget: Option<Budget>,
    /// What happens to calls that may destroy.
    pub approvals: Approvals,
    /// Seconds for which answers are kept.
    pub cache_seconds: Option<u32>,
    /// What is logged.
    pub log_level: LogLevel,
    /// Where the access token is.
    pub token: Token,
    /// Host names by which the app is reached.
    pub allowed_hosts: Vec<String>,
    /// Networks of proxies that are believed.
    pub trusted_proxies: Vec<String>,
    /// What shapes the pods.
    pub pod: PodSettings,
    /// Digest of the Secrets and ConfigMaps that the pods read when they start.
    pub inputs: Option<String>,
}

/// Where the access token is.
#[derive(Clone)]
pub enum Token {
    /// In a Secret of ours, with this value.
    Ours(String),
    /// In a Secret that the spec names.
    Given(SecretKeyRef),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ours(_) => formatter.write_str("Ours(…)"),
            Self::Given(reference) => formatter.debug_tuple("Given").field(reference).finish(),
        }
    }
}

/// A server as an app sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppServer {
    /// How it is offered.
    pub state: AppServerState,
    /// Its circuit.
    pub circuit: CircuitState,
    /// Why it is not offered.
    pub reason: Option<String>,
    /// Where it is. None: not known yet.
    pub url: Option<String>,
    /// Seconds for a call.
    pub timeout: u32,
    /// Tries again.
    pub max_retries: u32,
    /// Seconds between health checks.
    pub health_check_interval: u32,
    /// What it is for.
    pub description: Option<String>,
    /// Its version, for people.
    pub version: Option<String>,
    /// Where the headers of its requests are.
    pub headers: Vec<HeaderFrom>,
    /// Where a remote server's private CA is.
    pub ca: Option<SecretKeyRef>,
    /// Which of its tools the app has; none: all.
    pub tools: Option<ToolRules>,
}

impl ValidatedApp {
    /// The name of every child.
    pub fn child_name(&self) -> String {
        Component::App.child_name(&self.name)
    }

    /// The labels of every child.
    pub fn labels(&self) -> BTreeMap<String, String> {
        Component::App.labels(&self.name)
    }

    /// Where people and programs find the app.
    pub fn url(&self) -> String {
        format!("http://{}.{}.svc", self.child_name(), self.namespace)
    }
}

/// The app, or everything that stands in the way.
///
/// `default_image` is the chat worker of this operator's version, `new_token` a random token for an app that has none yet.
pub fn validate(app: &McpApp, observed: &Observed, default_image: &str, new_token: String) -> Result<ValidatedApp, Vec<Problem>> {
    let spec = &app.spec;
    let mut problems: Vec<Problem> = observed
        .inputs
        .problems(&references(spec))
        .into_iter()
        .map(|(reason, message)| Problem { class: Class::Waiting, reason, message })
        .collect();
    let servers = servers(spec, &observed.servers).unwrap_or_else(|problem| {
        problems.push(problem);
        BTreeMap::new()
    });
    let access = spec.access.clone().unwrap_or_default();
    let mut trusted_proxies = Vec::new();
    for proxy in &access.trusted_proxies {
        match network(proxy) {
            Ok(network) => trusted_proxies.push(network),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(ValidatedApp {
        name: app.name_any(),
        namespace: app.namespace().unwrap_or_default(),
        uid: app.uid().unwrap_or_default(),
        owner: owner_reference(app),
        servers,
        image: spec.image.clone().unwrap_or_else(|| default_image.to_owned()),
        replicas: i32::try_from(spec.replicas).unwrap_or(i32::MAX),
        model: spec.model.clone(),
        system_prompt: spec.system_prompt.clone(),
        rate_limit: spec.rate_limit.clone(),
        budget: spec.budget.as_ref().map(|budget| share(budget, spec.replicas)),
        approvals: spec.approvals,
        cache_seconds: spec.cache_seconds,
        log_level: spec.log_level,
        token: match access.token_secret_ref {
            Some(reference) => Token::Given(reference),
            None => Token::Ours(observed.token.clone().unwrap_or(new_token)),
        },
        allowed_hosts: access.allowed_hosts,
        trusted_proxies,
        pod: spec.pod.clone(),
        inputs: observed.inputs.digest(&start_references(spec)),
    })
}

/// An address or a network as a network.
fn network(proxy: &str) -> Result<String, Problem> {
    let of_one = proxy.parse::<IpAddr>().map(IpNet::from);
    proxy.parse::<IpNet>().or(of_one).map(|network| network.to_string()).map_err(|_| Problem {
        class: Class::Rejected,
        reason: reason::INVALID_SPEC,
        message: format!("spec.access.trustedProxies: {proxy} is neither an address nor a network such as 10.0.0.0/8"),
    })
}

/// What one of so many pods may use. The schema keeps it from being nothing, which would mean no limit.
fn share(budget: &Budget, replicas: u32) -> Budget {
    Budget { tokens_per_day: (budget.tokens_per_day / i64::from(replicas.max(1))).max(1), ..budget.clone() }
}

/// Whether the app names this server. A selector that cannot be read names none here; `validate` tells it.
pub fn names_server(spec: &McpAppSpec, server: &McpServer) -> bool {
    entry_of(spec, server).is_some()
}

/// The entry that counts for this server: the one by its name, or the first one by label.
fn entry_of<'a>(spec: &'a McpAppSpec, server: &McpServer) -> Option<&'a ServerRef> {
    let by_name = spec.servers.iter().find(|entry| entry.name.as_deref() == server.metadata.name.as_deref());
    by_name.or_else(|| {
        spec.servers.iter().find(|entry| {
            let selector = entry.selector.clone().and_then(|selector| Selector::try_from(selector).ok());
            selector.is_some_and(|selector| selector.matches(server.labels()))
        })
    })
}

fn servers(spec: &McpAppSpec, all: &[std::sync::Arc<McpServer>]) -> Result<BTreeMap<String, AppServer>, Problem> {
    for entry in &spec.servers {
        if let Some(selector) = &entry.selector {
            Selector::try_from(selector.clone()).map_err(|error| Problem {
                class: Class::Rejected,
                reason: reason::INVALID_SPEC,
                message: format!("spec.servers has a selector that cannot be read: {error}"),
            })?;
        }
    }
    let named = spec.servers.iter().filter_map(|entry| entry.name.clone());
    let mut servers: BTreeMap<_, _> = named.map(|name| (name, AppServer::not_found())).collect();
    for server in all {
        if let Some(entry) = entry_of(spec, server) {
            servers.insert(server.name_any(), AppServer { tools: entry.tools.clone(), ..AppServer::of(server) });
        }
    }
    Ok(servers)
}

/// Whether the server has ever answered: a circuit that never opened says nothing of a server that is still being started.
fn has_answered(server: &McpServer) -> bool {
    server.status.as_ref().is_some_and(|status| {
        let ready = conditions::find(&status.conditions, condition::READY);
        status.protocol.is_some() || ready.is_some_and(|ready| ready.status == "True")
    })
}

impl AppServer {
    fn not_found() -> Self {
        Self {
            state: AppServerState::NotFound,
            circuit: CircuitState::Closed,
            reason: None,
            url: None,
            timeout: 0,
            max_retries: 0,
            health_check_interval: 0,
            description: None,
            version: None,
            headers: Vec::new(),
            ca: None,
            tools: None,
        }
    }

    fn of(server: &McpServer) -> Self {
        let status = server.status.as_ref();
        let circuit = status.and_then(|status| status.circuit.as_ref());
        let url = status.and_then(|status| status.url.clone());
        let open = circuit.is_some_and(|circuit| circuit.state != CircuitState::Closed);
        Self {
            state: match () {
                () if !server.spec.enabled => AppServerState::Disabled,
                () if open => AppServerState::CircuitOpen,
                () if url.is_none() || !has_answered(server) => AppServerState::Starting,
                () => AppServerState::Offered,
            },
            circuit: circuit.map(|circuit| circuit.state).unwrap_or_default(),
            reason: match circuit {
                _ if !server.spec.enabled => Some(reason::DISABLED.into()),
                Some(circuit) if open => circuit.reason.clone(),
                _ => None,
            },
            url,
            timeout: server.spec.timeout_seconds,
            max_retries: server.spec.max_retries,
            health_check_interval: server.spec.health.interval_seconds,
            description: server.spec.description.clone(),
            version: server.spec.version.clone(),
            headers: server.spec.headers_from().to_vec(),
            ca: server.spec.remote.as_ref().and_then(|remote| remote.ca_secret_ref.clone()),
            tools: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crd::{
            McpServerStatus,
            health::{Era, ProtocolStatus},
        },
        fixtures,
    };

    #[test]
    fn a_server_with_an_address_is_starting_until_it_has_answered_once() {
        let mut server = fixtures::server(|_| {});
        server.status = Some(McpServerStatus { url: Some("http://server/mcp".into()), ..McpServerStatus::default() });
        assert_eq!(AppServer::of(&server).state, AppServerState::Starting);

        let answered = server.status.as_mut().expect("set above");
        answered.protocol = Some(ProtocolStatus { version: "2026-07-28".into(), era: Era::Modern });
        assert_eq!(AppServer::of(&server).state, AppServerState::Offered);
    }

    #[test]
    fn the_shares_of_a_budget_are_never_more_than_it() {
        let budget = |tokens_per_day| Budget { tokens_per_day, alert_percent: 80 };
        assert_eq!(share(&budget(1_000_000), 3), budget(333_333));
        assert_eq!(share(&budget(2), 2), budget(1));
    }
}

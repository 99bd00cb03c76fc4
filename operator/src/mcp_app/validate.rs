//! Step 2: from a spec and what is behind it to an app that can be built. Pure, but for the token that is given in.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use super::observe::{self, Observed, never_blank, references, start_references};
use crate::{
    conditions,
    crd::{
        CircuitState, McpApp, McpServer,
        mcp_app::{AppServerState, Approvals, Budget, LogLevel, McpAppSpec, Model, RateLimit, ServerRef, ToolRules},
        mcp_server::HeaderFrom,
        network::Network,
        pod::{PodSettings, SecretKeyRef},
        quantity::Resources,
        reason::{self, condition},
    },
    names::Component,
    problem::Problem,
    requeue::Class,
    ssa::owner_reference,
};

/// The shortest token that the app's door takes.
const LEAST_TOKEN: usize = 16;

/// An app that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedApp {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
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
    /// Who reaches the pods, and where they get to.
    pub network: Option<Network>,
    /// What shapes the pods.
    pub pod: PodSettings,
    /// Digest of the Secrets and ConfigMaps that the pods read when they start.
    pub inputs: Option<String>,
    /// What the spec points at and is not there: the pods wait for it.
    pub lacks: Vec<Problem>,
    /// What is not as it should be, and holds nobody up.
    pub notes: Vec<Problem>,
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
    /// Why it is switched off in the file.
    pub reason: Option<String>,
    /// The reason of its condition Ready, while that is not True.
    pub not_ready: Option<String>,
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
    let inputs = &observed.inputs;
    let unfit = [inputs.blank(&never_blank(spec)), inputs.short(&observe::token(spec), LEAST_TOKEN)].concat();
    let missing = inputs.problems(&references(spec)).into_iter().chain(unfit);
    let lacks = missing.map(|(reason, message)| Problem { class: Class::Waiting, reason, message }).collect();
    let above = spec.pod.resources.as_ref().and_then(Resources::beyond_limits);
    let rejected = |message| Problem { class: Class::Rejected, reason: reason::INVALID_SPEC, message };
    let mut problems: Vec<_> = above.map(rejected).into_iter().collect();
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
        network: spec.network.clone(),
        pod: spec.pod.clone(),
        inputs: observed.inputs.digest(&start_references(spec)),
        lacks,
        notes: Problem::unclear_pause(app).into_iter().collect(),
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

impl AppServer {
    /// Why it is not offered, where its state alone does not say.
    pub fn why(&self) -> Option<&str> {
        self.not_ready.as_deref().filter(|_| self.state == AppServerState::Starting)
    }

    pub(super) fn not_found() -> Self {
        Self {
            state: AppServerState::NotFound,
            circuit: CircuitState::Closed,
            reason: None,
            not_ready: None,
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
        let ready = status.and_then(|status| conditions::find(&status.conditions, condition::READY));
        // What a client of the server meets, the app meets, too.
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        Self {
            state: match () {
                () if !server.spec.enabled => AppServerState::Disabled,
                () if open => AppServerState::CircuitOpen,
                () if url.is_none() || !is_ready => AppServerState::Starting,
                () => AppServerState::Offered,
            },
            circuit: circuit.map(|circuit| circuit.state).unwrap_or_default(),
            reason: match circuit {
                _ if !server.spec.enabled => Some(reason::DISABLED.into()),
                Some(circuit) if open => circuit.reason.clone(),
                // The app has no other credentials than the prober.
                _ if !is_ready && ready.is_some_and(|ready| ready.reason == reason::UNAUTHORIZED) => {
                    Some(reason::UNAUTHORIZED.into())
                }
                _ => None,
            },
            not_ready: ready.filter(|_| !is_ready).map(|ready| ready.reason.clone()),
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
    use rstest::rstest;

    use super::*;
    use crate::{
        conditions::{Finding, Status},
        crd::{
            CircuitStatus, McpServerStatus,
            health::{Era, ProtocolStatus},
        },
        fixtures,
        inputs::{Found, Kind},
    };

    fn told(ready: Status, reason: &str, circuit: CircuitState) -> McpServer {
        fixtures::server(|server| {
            let findings = vec![(condition::READY, Finding::new(ready, reason, "why"))];
            server.status = Some(McpServerStatus {
                url: Some("http://server/mcp".into()),
                // It answered once.
                protocol: Some(ProtocolStatus { version: "2026-07-28".into(), era: Era::Modern }),
                circuit: Some(CircuitStatus { state: circuit, ..CircuitStatus::default() }),
                conditions: conditions::merge(&[], findings, Some(1), fixtures::at(0)),
                ..McpServerStatus::default()
            });
        })
    }

    #[rstest]
    #[case::serves(Status::True, "Available", CircuitState::Closed, AppServerState::Offered)]
    #[case::has_no_pod(Status::False, "ImagePullBackOff", CircuitState::Closed, AppServerState::Starting)]
    #[case::offers_other_tools(Status::False, "ToolsChanged", CircuitState::Closed, AppServerState::Starting)]
    #[case::wants_credentials(Status::Unknown, "Unauthorized", CircuitState::Closed, AppServerState::Starting)]
    #[case::nobody_knows(Status::Unknown, "FleetPanic", CircuitState::Closed, AppServerState::Starting)]
    #[case::is_down(Status::False, "CircuitOpen", CircuitState::Open, AppServerState::CircuitOpen)]
    #[case::is_on_trial(Status::True, "CircuitHalfOpen", CircuitState::HalfOpen, AppServerState::CircuitOpen)]
    fn a_server_is_offered_while_it_is_ready(
        #[case] ready: Status,
        #[case] reason: &str,
        #[case] circuit: CircuitState,
        #[case] expected: AppServerState,
    ) {
        let server = AppServer::of(&told(ready, reason, circuit));
        assert_eq!(server.state, expected);
        assert_eq!(server.why(), (expected == AppServerState::Starting).then_some(reason));
    }

    #[test]
    fn a_server_that_nobody_has_looked_at_is_starting() {
        assert_eq!(AppServer::of(&fixtures::server(|_| {})).state, AppServerState::Starting);
    }

    #[test]
    fn requests_above_limits_are_told_before_kubernetes_refuses_the_pods() {
        let app = fixtures::app(|app| {
            let resources = serde_json::json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
            app.spec.pod.resources = serde_json::from_value(resources).ok();
        });
        let problems = validate(&app, &Observed::default(), "i", "t".into()).expect_err("refused");
        assert_eq!((problems[0].class, problems[0].reason), (Class::Rejected, reason::INVALID_SPEC));
    }

    #[test]
    fn an_empty_key_is_lacking() {
        for (key, lacking) in [("sk-1", None), ("", Some(reason::SECRET_EMPTY)), (" \n", Some(reason::SECRET_EMPTY))] {
            let inputs = Found::default().with(Kind::Secret, "anthropic", &[("api-key", key)]);
            let observed = Observed { inputs, ..Observed::default() };
            let lacks = validate(&fixtures::app(|_| {}), &observed, "i", "t".into()).expect("valid").lacks;
            assert_eq!(lacks.first().map(|problem| problem.reason), lacking, "{key:?}");
        }
    }

    #[test]
    fn a_token_that_the_apps_door_would_not_take_is_told_with_the_least_length() {
        let app = fixtures::app(|app| {
            app.spec.model = None;
            app.spec.access = serde_json::from_value(serde_json::json!({"tokenSecretRef": {"name": "own", "key": "token"}})).ok();
        });
        assert_eq!(LEAST_TOKEN, http_server::token::LEAST_LENGTH);
        let short = Some(reason::TOKEN_TOO_SHORT);
        for (token, lacking) in [
            ("0123456789abcdef", None),
            ("0123456789abcde", short),
            (" 0123456789abcde \n", short),
            ("0123456789abcdef\nshort", short),
            ("0123456789abcdef\n\n0123456789abcdef-2\n", None),
            ("\n", Some(reason::SECRET_EMPTY)),
        ] {
            let inputs = Found::default().with(Kind::Secret, "own", &[("token", token)]);
            let lacks = validate(&app, &Observed { inputs, ..Observed::default() }, "i", "t".into()).expect("valid").lacks;
            assert_eq!(lacks.first().map(|problem| problem.reason), lacking, "{token:?}");
            let told = "the key token of the Secret own holds a token of fewer than 16 characters";
            assert!(lacking != short || lacks[0].message.starts_with(told), "{lacks:?}");
        }
    }

    #[test]
    fn the_shares_of_a_budget_are_never_more_than_it() {
        let budget = |tokens_per_day| Budget { tokens_per_day, alert_percent: 80 };
        assert_eq!(share(&budget(1_000_000), 3), budget(333_333));
        assert_eq!(share(&budget(2), 2), budget(1));
    }
}

//! What is particular to McpServers in a pass (`pass` drives it): `observe`, `validate`, `build` and `status`
//! are its steps.
//!
//! The prober owns who is alive; the reconciler alone writes the CR's status.

pub mod asleep;
pub mod autoscaling;
pub mod build;
pub mod contract;
pub mod database;
pub mod hold;
pub mod observe;
pub mod own_claims;
pub mod status;
pub mod stdio;
pub mod url;
pub mod validate;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{Resource, ResourceExt};

use self::{observe::Observed, validate::ValidatedServer};
use mcp_wire::mask::Mask;

use crate::{
    asleep::{Asleep, leading::Leading},
    autoscale::Autoscaler,
    backups::Backups,
    child::Child,
    claims, conditions,
    crd::{McpServer, McpServerStatus, ProtocolStatus, ServerInfo, ToolsPolicy, ToolsStatus, backup::BackupStatus},
    events::{self, News},
    inputs::{self, Reference},
    names::{self, Component},
    network::Surroundings,
    pass::{Context, Outcome, Subject, Told, is_paused},
    probe::{Credentials, Endpoint, HealthEngine, ServerHealth, ServerKey, ServerSpec, ToolsContract},
    problem::Problem,
};

/// What passes over servers need beside what all passes do.
pub struct World {
    /// Who is alive.
    pub engine: HealthEngine,
    /// Where it comes from what servers on standard input and output need.
    pub sources: stdio::Sources,
    /// What came of the backups.
    pub backups: Arc<Backups>,
    /// How many pods there are to be.
    pub autoscaler: Arc<Autoscaler>,
    /// Who sleeps.
    pub asleep: Arc<Asleep>,
    /// Whose Services lead to pods of their own.
    pub leading: Arc<Leading>,
}

impl Subject for McpServer {
    const COMPONENT: Component = Component::Server;
    type Facts = Observed;
    type Valid = ValidatedServer;
    type Status = McpServerStatus;
    type World = World;

    fn told(&self) -> Option<&McpServerStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &McpServerStatus) -> &[Condition] {
        &status.conditions
    }

    fn masked(status: McpServerStatus, mask: &Mask) -> McpServerStatus {
        let told = |text| mask.apply(text);
        McpServerStatus {
            conditions: conditions::masked(status.conditions, mask),
            backup: status.backup.map(|backup| BackupStatus { failure: backup.failure.map(told), ..backup }),
            protocol: status.protocol.map(|spoken| ProtocolStatus { version: told(spoken.version), ..spoken }),
            server_info: status.server_info.map(|info| ServerInfo { name: told(info.name), version: told(info.version) }),
            tools: status.tools.map(|tools| ToolsStatus { names: tools.names.into_iter().map(told).collect(), ..tools }),
            ..status
        }
    }

    fn given(&self) -> BTreeSet<Reference> {
        observe::given(&self.spec)
    }

    /// `enabled`, `force`, `recheck` and the pace of probes hold whatever becomes of the rest.
    fn switch(&self, context: &Context<Self>) {
        autoscaling::tell(self, context);
        // Credentials are behind Secrets, which have not been read yet: those that the prober has stand until they are, but are for nobody else.
        let known = context.world.engine.credentials(&key(self)).filter(|_| !leads_elsewhere(self, context));
        tell_prober(self, known, context);
    }

    fn claims(&self) -> Vec<String> {
        let name = self.name_any();
        let own = self.spec.storage.iter().map(|_| Component::Server.child_name(&name));
        let cache = self.spec.stdio.iter().filter_map(|stdio| stdio.cache.as_ref().map(|_| Component::cache_name(&name)));
        own.chain(cache).chain(claims::of_pods(&self.spec.pod).map(str::to_owned)).collect()
    }

    async fn observe(&self, context: &Context<Self>) -> Result<Observed, inputs::Error> {
        observe::observe(self, &context.reader, &context.writer, &context.world).await
    }

    fn is_served(&self) -> bool {
        self.spec.remote.is_none()
    }

    fn is_autoscaled(&self) -> bool {
        self.spec.autoscaling.is_some()
    }

    fn most_pods(&self) -> u32 {
        if self.spec.enabled { autoscaling::most(&self.spec) } else { 0 }
    }

    fn validate(&self, facts: &Observed, _: &World) -> Result<ValidatedServer, Vec<Problem>> {
        validate::validate(self, facts)
    }

    fn lacks(valid: &ValidatedServer) -> &[Problem] {
        &valid.lacks
    }

    fn notes(valid: &ValidatedServer) -> &[Problem] {
        &valid.notes
    }

    fn news(before: Option<&McpServerStatus>, after: &McpServerStatus) -> Vec<News> {
        let told = before.and_then(|before| before.backup.as_ref());
        let backup = after.backup.as_ref().and_then(|after| events::of_backup(told, after));
        let scaled = after.autoscaling.as_ref().and_then(|after| events::of_scaling(before?.autoscaling.as_ref()?, after));
        backup.into_iter().chain(scaled).collect()
    }

    fn children(valid: &ValidatedServer, around: &Surroundings) -> Vec<Child> {
        build::children(valid, around)
    }

    fn former_mask(&self, context: &Context<Self>) -> Option<Arc<Mask>> {
        context.world.engine.credentials(&key(self)).map(|known| known.mask)
    }

    fn found(&self, valid: &ValidatedServer, mask: &Arc<Mask>, context: &Context<Self>) {
        context.world.asleep.found(&key(self), valid.sleeps.then_some(valid.phase));
        // What is about to be kept is what pods are measured by from now on.
        context.world.engine.set_contract(&key(self), &valid.tools);
        let given = valid.credentials().filter(|_| needs_credentials(self));
        let known = || context.world.engine.credentials(&key(self)).filter(|known| known.mask != *mask);
        if let Some(credentials) = given.or_else(known) {
            tell_prober(self, Some(Credentials { mask: Arc::clone(mask), ..credentials }), context);
        }
    }

    fn look(&self, context: &Context<Self>, now: Timestamp) -> Option<Duration> {
        context.world.engine.snapshot(&key(self)).and_then(|health| due(&health, now))
    }

    fn status(&self, outcome: &Outcome<ValidatedServer>, context: &Context<Self>, now: Timestamp) -> Told<McpServerStatus> {
        let mut health = context.world.engine.snapshot(&key(self));
        for pod in health.iter_mut().flat_map(|health| &mut health.pods) {
            pod.trouble = context.warnings.explain(&pod.name, &pod.uid, pod.trouble.take(), pod.making.as_ref());
            // What answered since, or had its time, is the prober's to tell of.
            pod.trouble.take_if(|trouble| trouble.again && !pod.starting);
        }
        // What is told as accepted is what the next pod is measured by, also by the next operator.
        let tools = &self.spec.tools;
        let unkept = tools.policy != ToolsPolicy::Ignore && tools.digest.is_none();
        let unkept = unkept && observe::kept_tools(self, &context.writer.children).is_none();
        if let Some(health) = &mut health {
            health.unaccepted = unkept;
        }
        // The pod's own Ready condition wakes us before that, usually.
        let first = || hold::first(self, outcome, health.as_ref(), now).filter(|_| context.metrics.are_many());
        if let Some(wait) = hold::hold(self, outcome, health.as_ref(), now).or_else(first) {
            return Told::Later(wait);
        }
        let mut status = status::compute(self, outcome, health.as_ref(), now);
        context.world.engine.set_stood_in(&key(self), asleep::is_met(&status.conditions));
        status.backup = context.world.backups.tell(self, status.backup.as_ref(), &context.warnings);
        Told::Now(status)
    }
}

/// When one of its pods will have been made for so long without a word that it is told.
fn due(health: &ServerHealth, now: Timestamp) -> Option<Duration> {
    health.pods.iter().filter_map(|pod| pod.making.as_ref()?.due(now)).min()
}

fn key(server: &McpServer) -> ServerKey {
    ServerKey::new(server.namespace().unwrap_or_default(), server.name_any())
}

/// Tells the prober all that the spec says. What it is to send may not be known yet: the switches hold without.
fn tell_prober(server: &McpServer, credentials: Option<Credentials>, context: &Context<McpServer>) {
    let Some(endpoint) = validate::endpoint(server) else { return };
    let key = key(server);
    let tools = contract(server, context);
    let persisted = server.status.as_ref().and_then(|status| status.circuit.as_ref());
    context.world.engine.set_server(&key, probe_spec(server, endpoint, credentials, tools), persisted);
    // A CR that went away since this pass began was forgotten by the prober already: it must not come back.
    let there = context.subjects.get(&key.namespace, &key.name);
    if there.is_none_or(|there| there.uid() != server.uid()) {
        context.world.engine.remove_server(&key);
    }
}

/// Which tools the server must offer.
fn contract(server: &McpServer, context: &Context<McpServer>) -> ToolsContract {
    let accepted = observe::accepted(server, &context.writer.children, &context.world.engine);
    let offered = context.world.engine.snapshot(&key(server)).and_then(|health| health.acceptable);
    contract::decide(&server.spec.tools, accepted.as_ref(), offered.as_deref())
}

/// Whether probes carry something out of Secrets.
fn needs_credentials(server: &McpServer) -> bool {
    observe::credentials(&server.spec).next().is_some()
}

/// Whether it is a remote server at another address than the prober knows.
fn leads_elsewhere(server: &McpServer, context: &Context<McpServer>) -> bool {
    let known = context.world.engine.endpoint(&key(server));
    server.spec.remote.is_some() && known.is_some() && known != validate::endpoint(server)
}

/// What the prober needs to know of the server. What the spec names no more is carried no more.
fn probe_spec(server: &McpServer, endpoint: Endpoint, credentials: Option<Credentials>, tools: ToolsContract) -> ServerSpec {
    let spec = &server.spec;
    let lacks_credentials = credentials.is_none() && needs_credentials(server);
    let credentials = credentials.unwrap_or_default();
    let names_ca = spec.remote.as_ref().is_some_and(|remote| remote.ca_secret_ref.is_some());
    ServerSpec {
        object: server.object_ref(&()),
        endpoint,
        credentials: if spec.headers_from().is_empty() { Vec::new() } else { credentials.headers },
        ca: credentials.ca.filter(|_| names_ca),
        mask: credentials.mask,
        lacks_credentials,
        enabled: spec.enabled,
        paused: is_paused(server),
        recheck: server.annotations().get(names::ANNOTATION_RECHECK).cloned(),
        may_sleep: asleep::may_sleep(spec),
        health: spec.health.clone(),
        breaker: spec.circuit_breaker.clone(),
        tools,
        reach: None,
    }
}

#[cfg(test)]
mod tests {
    use metrics_text::MetricSet;
    use serde_json::json;

    use super::*;
    use crate::{
        crd::pod::SecretKeyRef,
        fixtures,
        pod_trouble::Making,
        probe::{EngineConfig, PodHealth},
    };
    use mcp_wire::mask;

    #[test]
    fn what_the_spec_names_no_more_is_carried_no_more() {
        let header = (http::HeaderName::from_static("authorization"), http::HeaderValue::from_static("Bearer of-before"));
        let mask: Arc<Mask> = Arc::new(mask::prints(b"hunter2-and-more").into_iter().collect());
        let known = || Some(Credentials { headers: vec![header.clone()], ca: Some(b"pem".to_vec()), mask: Arc::clone(&mask) });
        let told = |server: &McpServer| {
            let endpoint = validate::endpoint(server).expect("it has one");
            let spec = probe_spec(server, endpoint, known(), contract::decide(&server.spec.tools, None, None));
            assert!(spec.mask == mask && !spec.lacks_credentials);
            (spec.credentials.len(), spec.ca.is_some())
        };
        assert_eq!(told(&fixtures::server(|_| {})), (0, false));
        assert_eq!(told(&fixtures::remote(|_| {})), (0, false));
        let with_ca = fixtures::remote(|server| {
            let ca = SecretKeyRef { name: "private".into(), key: "ca.crt".into() };
            server.spec.remote.iter_mut().for_each(|remote| remote.ca_secret_ref = Some(ca.clone()));
        });
        assert_eq!(told(&with_ca), (0, true));
        let with_header = fixtures::remote(|server| {
            let from = json!([{"name": "Authorization", "secretKeyRef": {"name": "s", "key": "k"}}]);
            let from: Vec<_> = serde_json::from_value(from).expect("a header");
            server.spec.remote.iter_mut().for_each(|remote| remote.headers_from.clone_from(&from));
        });
        assert_eq!(told(&with_header), (1, false));
    }

    #[test]
    fn every_pod_of_a_rollout_has_a_look_when_it_has_been_made_for_long() {
        let made = |second| {
            let making = Making { init: None, sidecar: false, prepared: false, made: None, since: Some(fixtures::at(second)) };
            PodHealth { making: Some(making), ..PodHealth::default() }
        };
        let health = ServerHealth { pods: vec![made(40), made(0), PodHealth::default(), made(100)], ..ServerHealth::default() };
        let looks: Vec<_> =
            [0, 30, 70, 129, 130].map(|second| due(&health, fixtures::at(second)).map(|wait| wait.as_secs())).into();
        assert_eq!(looks, [Some(30), Some(40), Some(60), Some(1), None]);
    }

    #[tokio::test]
    async fn what_one_url_was_given_is_never_sent_to_another() {
        let at = |url: &str| {
            fixtures::remote(|server| {
                let header = json!({"name": "Authorization", "secretKeyRef": {"name": "s", "key": "k"}});
                let remote = json!({"url": url, "headersFrom": [header], "caSecretRef": {"name": "private", "key": "ca.crt"}});
                server.spec.remote = serde_json::from_value(remote).expect("a remote server");
            })
        };
        let (before, measured) = (at("https://example.com/mcp"), MetricSet::default());
        let world = World {
            engine: HealthEngine::new(EngineConfig::default(), &measured),
            sources: stdio::Sources::default(),
            backups: Arc::new(Backups::new(&measured)),
            autoscaler: Arc::new(Autoscaler::new(&measured, Duration::from_mins(5))),
            asleep: Arc::new(Asleep::new(tokio::sync::mpsc::unbounded_channel().0)),
            leading: Arc::default(),
        };
        let context = fixtures::context(&before, &fixtures::api::Api::default(), &measured, world);
        let header = (http::HeaderName::from_static("authorization"), http::HeaderValue::from_static("Bearer of-before"));
        let given = Credentials { headers: vec![header], ca: Some(b"pem".to_vec()), mask: Arc::default() };
        let engine = &context.world.engine;
        let carried = || engine.credentials(&key(&before)).map(|known| (known.headers.len(), known.ca.is_some()));
        tell_prober(&before, Some(given.clone()), &context);
        before.switch(&context);
        assert_eq!(carried(), Some((1, true)), "they stand until the Secrets are read anew");
        for other in ["https://example.com/other", "https://example.com:8443/mcp", "https://elsewhere.example/mcp"] {
            tell_prober(&before, Some(given.clone()), &context);
            let after = at(other);
            after.switch(&context);
            assert_eq!(carried(), None, "{other}");
            assert!(engine.snapshot(&key(&after)).is_some_and(|health| health.lacks_credentials), "it is not asked without");
            // What the Secrets hold is not known yet.
            after.switch(&context);
            assert_eq!(carried(), None, "{other}");
        }
    }

    #[test]
    fn whatever_others_wrote_is_masked_wherever_in_the_status_it_stands() {
        let said = "it said hunter2-and-more";
        let status = json!({
            "conditions": [{"type": "Ready", "status": "False", "reason": "CrashLoopBackOff", "message": said, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "protocol": {"version": said, "era": "legacy"},
            "serverInfo": {"name": said, "version": said},
            "tools": {"count": 1, "digest": "00", "names": [said]},
            "backup": {"failure": said},
        });
        let mask: Mask = mask::prints(b"hunter2-and-more").into_iter().collect();
        let masked = <McpServer as Subject>::masked(serde_json::from_value(status).expect("a status"), &mask);
        let text = serde_json::to_string(&masked).expect("JSON");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.matches("it said ***").count(), 6, "{text}");
    }
}

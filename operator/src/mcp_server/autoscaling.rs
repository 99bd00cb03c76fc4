//! What the autoscaler is told of a server, and what people are told of its decision.

use std::time::Duration;

use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kube::ResourceExt;
use tokio::time::Instant;

use super::key;
use crate::{
    autoscale::{Asked, Decision},
    clock,
    crd::{
        Force, McpServer, McpServerSpec,
        autoscaling::AutoscalingStatus,
        stdio::{SESSION_IDLE_SECONDS, Sessions},
    },
    names::Component,
    pass::{Context, is_paused},
};

/// Who counts the calls of a server that does not tell them itself: the bridge, beside it in its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// The bridge's image.
    pub bridge_image: String,
    /// Where clients come in, before they come to the server.
    pub port: u16,
    /// How many of them at once, where those are more than the bridge takes by itself.
    pub connections: Option<u32>,
}

/// Connections above which the bridge closes those that rest, where nobody tells it otherwise.
const CONNECTIONS: u32 = 1024;
/// The argument by which sandbox-server is told how many calls it takes, and how many of one caller it takes by itself: half of them.
const MAX_REQUESTS: &str = "--max-requests";
const OF_ONE_CALLER: u32 = 256;

/// The port at which the bridge listens beside a server, and another one for a server that listens there itself.
const PORTS: [u16; 2] = [9380, 9381];

/// Who counts the server's calls. None: nobody has to.
///
/// sandbox-server tells by itself, and is known by the name of its image: by the spec, and not by what a running pod says, so that a
/// template is what it is from the first pod on. A sandbox-server of another name is counted, too, at the cost of a hop; an image that is
/// called so and does not tell is not scaled, and the status says why.
pub fn counting(spec: &McpServerSpec, bridge_image: &str) -> Option<Counting> {
    let container = spec.container.as_ref().filter(|_| spec.autoscaling.is_some())?;
    let port = PORTS.into_iter().find(|port| *port != container.port)?;
    let connections = connections(spec);
    (!tells(&container.image)).then(|| Counting { bridge_image: bridge_image.to_owned(), port, connections })
}

/// How many calls at once a pod must let in: more than it is to have, or it is never seen that there are too many.
pub fn let_in(spec: &McpServerSpec) -> Option<u32> {
    spec.autoscaling.as_ref().map(|autoscaling| autoscaling.calls_in_flight.saturating_mul(2))
}

/// How many connections the bridge is to take for that, where those are more than it takes by itself.
pub fn connections(spec: &McpServerSpec) -> Option<u32> {
    let_in(spec).filter(|connections| *connections > CONNECTIONS)
}

/// sandbox-server says no before it has too many calls: what its arguments would have to say. None: they do, or it does not.
fn too_few_let_in(spec: &McpServerSpec) -> Option<String> {
    let container = spec.container.as_ref().filter(|container| tells(&container.image))?;
    let says = container.args.iter().any(|arg| arg.starts_with(MAX_REQUESTS))
        || spec.pod.env.iter().any(|variable| variable.name == "SANDBOX_MAX_REQUESTS");
    let calls = let_in(spec).filter(|calls| !says && *calls > OF_ONE_CALLER)?;
    Some(format!(
        "; sandbox-server takes {OF_ONE_CALLER} calls of one caller at once: give it the arguments {MAX_REQUESTS} {} --max-connections {}, or lower callsInFlight",
        calls * 2,
        calls * 2
    ))
}

fn tells(image: &str) -> bool {
    let without_digest = image.split('@').next().unwrap_or(image);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    last.split(':').next() == Some("sandbox-server")
}

/// Tells the autoscaler what the spec says. A server that is switched off, or left alone, is none of its business: when it comes back,
/// the window begins anew.
pub fn tell(server: &McpServer, context: &Context<McpServer>) {
    let (key, autoscaler) = (key(server), &context.world.autoscaler);
    let wanted = server.spec.autoscaling.clone().filter(|_| server.spec.enabled && !is_paused(server));
    let Some(autoscaling) = wanted else { return autoscaler.forget(&key) };
    let asked = Asked {
        autoscaling,
        may_sleep: context.world.asleep.endpoints().is_up(),
        sessions: sessions(&server.spec),
        metrics: if counting(&server.spec, "").is_some() { "/mcpfleet/metrics" } else { "/metrics" },
        probed: server.spec.health.tool_call.as_ref().map(|call| call.name.clone()),
    };
    let begin = || {
        let told = server.status.as_ref().and_then(|status| status.autoscaling.clone());
        let name = Component::Server.child_name(&key.name);
        let deployment: Option<Deployment> = context.writer.children.read(&key.namespace, &name);
        let pods = deployment.and_then(|deployment| deployment.spec?.replicas);
        (told, pods.and_then(|pods| u32::try_from(pods).ok()))
    };
    autoscaler.set(&key, asked, begin, Instant::now());
    // A call that came as it was forced Open is heard, and wakes nobody.
    let called = context.world.asleep.takes_call(&key, clock::now());
    if called && server.spec.circuit_breaker.force != Some(Force::Open) {
        autoscaler.wanted(&key, Instant::now());
    }
    // A CR that went away since this pass began was forgotten already: it must not come back.
    if context.subjects.get(&key.namespace, &key.name).is_none_or(|there| there.uid() != server.uid()) {
        autoscaler.forget(&key);
    }
}

/// For how long a session that nobody uses stays, where sessions end with their pods: what counts them keeps them for so long, too.
fn sessions(spec: &McpServerSpec) -> Option<Duration> {
    let seconds = match &spec.stdio {
        // Any of its pods takes up any session.
        Some(stdio) if stdio.sessions == Sessions::Shared => return None,
        stdio => stdio.as_ref().and_then(|stdio| stdio.session_idle_seconds).unwrap_or(SESSION_IDLE_SECONDS),
    };
    Some(Duration::from_secs(seconds.into()))
}

/// How many pods a server has at most, as its spec has it.
pub fn most(spec: &McpServerSpec) -> u32 {
    spec.autoscaling.as_ref().map_or(spec.replicas, |autoscaling| autoscaling.max_replicas)
}

/// How many pods it is to have.
pub fn wanted(spec: &McpServerSpec, decision: Option<&Decision>) -> u32 {
    match (&spec.autoscaling, decision) {
        _ if !spec.enabled => 0,
        (None, _) => spec.replicas,
        (Some(_), Some(decision)) => decision.desired,
        (Some(autoscaling), None) => autoscaling.min_replicas.max(1),
    }
}

/// What is told of the decision. It changes with it alone.
pub fn status(
    spec: &McpServerSpec,
    decision: Option<&Decision>,
    before: Option<&AutoscalingStatus>,
    now: Timestamp,
) -> Option<AutoscalingStatus> {
    spec.autoscaling.as_ref()?;
    let Some(Decision { desired, reason }) = decision else { return before.cloned() };
    let ignored = (spec.replicas != 1).then(|| format!("; spec.replicas is {}, and is not looked at", spec.replicas));
    let scaled = before.is_some_and(|before| before.desired != *desired);
    let last = before.and_then(|before| before.last_scale.clone());
    Some(AutoscalingStatus {
        desired: *desired,
        reason: format!("{reason}{}{}", ignored.unwrap_or_default(), too_few_let_in(spec).unwrap_or_default()),
        last_scale: if scaled { Some(clock::time(now)) } else { last },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    fn spec(change: impl FnOnce(&mut McpServerSpec)) -> McpServerSpec {
        let server = fixtures::server(|server| {
            server.spec.autoscaling = serde_json::from_value(json!({"maxReplicas": 5})).ok();
            change(&mut server.spec);
        });
        server.spec
    }

    fn decision(desired: u32) -> Decision {
        Decision { desired, reason: "24 calls in flight".into() }
    }

    #[test]
    fn a_decision_is_told_with_the_time_of_the_last_change_and_nothing_else_changes_it() {
        let first = status(&spec(|_| {}), Some(&decision(1)), None, fixtures::at(0)).expect("told");
        assert_eq!((first.desired, first.last_scale.clone()), (1, None));
        let second = status(&spec(|_| {}), Some(&decision(3)), Some(&first), fixtures::at(9)).expect("told");
        assert_eq!((second.desired, second.last_scale.as_ref().map(|at| at.0)), (3, Some(fixtures::at(9))));
        assert_eq!(status(&spec(|_| {}), Some(&decision(3)), Some(&second), fixtures::at(99)), Some(second.clone()));
        assert_eq!(status(&spec(|_| {}), None, Some(&second), fixtures::at(99)), Some(second.clone()), "nothing is known yet");
        assert_eq!(status(&fixtures::server(|_| {}).spec, None, Some(&second), fixtures::at(99)), None);
    }

    #[test]
    fn that_replicas_is_not_looked_at_is_told() {
        let spec = spec(|spec| spec.replicas = 7);
        assert_eq!(wanted(&spec, Some(&decision(3))), 3);
        let told = status(&spec, Some(&decision(3)), None, fixtures::at(0)).expect("told");
        assert_eq!(told.reason, "24 calls in flight; spec.replicas is 7, and is not looked at");
    }

    #[test]
    fn a_server_that_does_not_tell_its_calls_is_counted_where_somebody_needs_the_count() {
        let of = |image: &str, port: u16| {
            let spec = spec(|spec| {
                let container = spec.container.as_mut().expect("a container");
                (container.image, container.port) = (image.to_owned(), port);
            });
            counting(&spec, "bridge:1").map(|counting| counting.port)
        };
        assert_eq!(of("registry:5000/team/search:1", 8080), Some(9380));
        assert_eq!(of("search", 9380), Some(9381));
        for told in ["sandbox-server", "ghcr.io/mcpfleet/sandbox-server:0.1.0", "r:5000/sandbox-server@sha256:00"] {
            assert_eq!(of(told, 8080), None, "{told}");
        }
        assert_eq!(counting(&fixtures::server(|_| {}).spec, "bridge:1"), None, "nobody needs it");
    }

    #[test]
    fn that_too_few_calls_are_let_in_to_scale_by_is_told() {
        let told = |image: &str, args: &[&str], calls: u32| {
            let spec = spec(|spec| {
                let container = spec.container.as_mut().expect("a container");
                container.image = image.to_owned();
                container.args = args.iter().map(ToString::to_string).collect();
                spec.autoscaling.as_mut().expect("it is set").calls_in_flight = calls;
            });
            status(&spec, Some(&decision(1)), None, fixtures::at(0)).expect("told").reason
        };
        let says = "24 calls in flight; sandbox-server takes 256 calls of one caller at once: give it the arguments --max-requests 800 --max-connections 800, or lower callsInFlight";
        assert_eq!(told("sandbox-server:1", &[], 200), says);
        for (image, args, calls) in
            [("sandbox-server:1", &[][..], 128), ("other:1", &[], 200), ("sandbox-server:1", &["--max-requests=900"], 200)]
        {
            assert_eq!(told(image, args, calls), "24 calls in flight", "{image} {args:?} {calls}");
        }
    }

    #[test]
    fn more_connections_than_the_bridge_takes_by_itself_are_asked_for() {
        let of = |calls: u32| {
            let spec = spec(|spec| spec.autoscaling.as_mut().expect("it is set").calls_in_flight = calls);
            counting(&spec, "bridge:1").expect("counted").connections
        };
        assert_eq!([of(8), of(512), of(600)], [None, None, Some(1_200)]);
    }

    #[test]
    fn sessions_end_with_their_pods_but_where_any_pod_takes_them_up() {
        let of_stdio = |more: serde_json::Value| {
            let mut stdio = json!({"command": "npx", "args": ["a@1.0.0"]});
            stdio.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let server = fixtures::stdio(|server| server.spec.stdio = serde_json::from_value(stdio).expect("stdio"));
            sessions(&server.spec)
        };
        assert_eq!(of_stdio(json!({})), None);
        assert_eq!(of_stdio(json!({"sessions": "PerSession"})), Some(Duration::from_mins(5)));
        let longer = json!({"sessions": "PerSession", "sessionIdleSeconds": 3_600});
        assert_eq!(of_stdio(longer), Some(Duration::from_hours(1)));
        assert_eq!(sessions(&spec(|_| {})), Some(Duration::from_mins(5)));
    }

    #[test]
    fn a_server_that_is_switched_off_wants_no_pods_whatever_was_decided() {
        assert_eq!(wanted(&spec(|spec| spec.enabled = false), Some(&decision(3))), 0);
    }
}

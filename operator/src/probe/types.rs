//! What goes into the health engine and what comes out of it. Not how any of it is decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use tokio::time::Instant;
use url::Url;

use mcp_wire::mask::Mask;

use super::{
    kept::Kept,
    template::Template,
    tools::{ToolsDiff, ToolsList},
    verdict::{Kind, Verdict},
};
use crate::{
    crd::{CircuitBreaker, CircuitState, CircuitStatus, Health, ProtocolStatus, ServerInfo, ToolsPolicy, reason},
    pod_trouble::{Making, Trouble},
    reach::Reach,
    rollout::Origin,
};

/// Which McpServer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey {
    /// The CR's namespace.
    pub namespace: String,
    /// The CR's name.
    pub name: String,
}

impl ServerKey {
    /// The key of the CR `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where the server's MCP endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// In every pod of the server, at the pod's address.
    Pods {
        /// The port that the pods listen on.
        port: u16,
        /// The path of the endpoint, for example `/mcp`.
        path: String,
        /// The Host header: the Service's name and port, so that a server which checks it sees what its clients send.
        host: String,
    },
    /// At one URL, which we do not run.
    Remote {
        /// `http` or `https`. Userinfo in it is never shown.
        url: Url,
    },
}

/// What probes carry out of Secrets.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Headers that every request carries. The values must be marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A PEM bundle to trust instead of the system's roots.
    pub ca: Option<Vec<u8>>,
    /// What the server was given, and must not stand in what is told of it.
    pub mask: Arc<Mask>,
}

/// What the engine must know of an McpServer. Everything comes from the CR and what it refers to.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that the CR tells of")]
pub struct ServerSpec {
    /// The CR, as Events refer to it.
    pub object: ObjectReference,
    /// Where to probe.
    pub endpoint: Endpoint,
    /// Headers that every request carries, from Secrets. The values must be marked sensitive.
    pub credentials: Vec<(HeaderName, HeaderValue)>,
    /// A PEM bundle to trust instead of the system's roots.
    pub ca: Option<Vec<u8>>,
    /// What the server was given, and must not stand in what is told of it.
    pub mask: Arc<Mask>,
    /// What requests are to carry could not be read yet: it is not probed, and all else that the spec says holds.
    pub lacks_credentials: bool,
    /// False: not probed, the circuit at rest.
    pub enabled: bool,
    /// True: nothing is taken out of service and nothing evicted; probing goes on, and new pods still come in.
    pub paused: bool,
    /// Any new value probes at once.
    pub recheck: Option<String>,
    /// It may have no pods while nobody calls: what it says is kept, to be said for it meanwhile.
    pub may_sleep: bool,
    /// Pace and limits of probes.
    pub health: Health,
    /// When the circuit opens and closes.
    pub breaker: CircuitBreaker,
    /// The tools that the server must offer.
    pub tools: ToolsContract,
    /// Where a remote server may be. None: anywhere. The engine knows, and sets it.
    pub reach: Option<Arc<Reach>>,
}

impl ServerSpec {
    /// Whether it is probed at all.
    pub const fn is_probed(&self) -> bool {
        self.enabled && !self.lacks_credentials
    }
}

impl fmt::Debug for ServerSpec {
    /// Without the credentials' values and the URL's userinfo: this reaches logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.credentials.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ServerSpec")
            .field("object", &self.object.name)
            .field("credentials", &names)
            .field("ca", &self.ca.is_some())
            .field("lacks_credentials", &self.lacks_credentials)
            .field("enabled", &self.enabled)
            .field("paused", &self.paused)
            .field("health", &self.health)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

/// The tools that a server must offer, and what to do when it offers others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolsContract {
    /// What a difference does.
    pub policy: ToolsPolicy,
    /// The accepted list; none while nothing was accepted yet.
    pub accepted: Option<AcceptedTools>,
    /// `spec.tools.digest` pins the list. A pod whose template was made under another pin is judged by its own.
    pub pinned: bool,
}

impl ToolsContract {
    /// The digest of the accepted list.
    pub fn digest(&self) -> Option<&str> {
        self.accepted.as_ref().map(|accepted| accepted.digest.as_str())
    }
}

/// A list of tools that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedTools {
    /// The digest of the list: [`ToolsList::digest`].
    pub digest: String,
    /// Tool name to hash, for naming what differs. Empty when only the digest is known.
    pub tools: BTreeMap<String, String>,
}

/// What the engine must know of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that Kubernetes tells of")]
pub struct PodState {
    /// The pod's name.
    pub name: String,
    /// The pod's uid: a pod of the same name with another uid is another pod.
    pub uid: String,
    /// Its resourceVersion, where that is a number: of two the greater is the newer.
    pub version: Option<u64>,
    /// The pod's address, once it has one.
    pub address: Option<IpAddr>,
    /// Which run of the container that speaks MCP this is; none while it does not run. Sidecars do not count.
    pub incarnation: Option<String>,
    /// Kubernetes says that all containers are ready.
    pub containers_ready: bool,
    /// Kubernetes counts the pod as Ready, so its Service sends clients to it. This follows the gate by a second or two.
    pub ready: bool,
    /// The readiness gate as the pod has it; none while it is not set.
    pub gate: Option<bool>,
    /// When this run of the container started, by the node's clock.
    pub started_at: Option<Timestamp>,
    /// The pod is going away: not probed any more, and in service no longer.
    pub deleting: bool,
    /// It has run to its end: nothing runs in it that could still write.
    pub over: bool,
    /// What its own template says that it is asked; none of a pod that an older operator made: it is asked by the spec.
    pub asked: Option<Arc<Template>>,
    /// Which template it was made from, and when.
    pub origin: Origin,
    /// The node that it runs on.
    pub node: Option<String>,
    /// A container of it that runs, and that the kubelet does not find ready.
    pub unready: Option<String>,
    /// What keeps it from running.
    pub trouble: Option<Trouble>,
    /// How far it is while it is being made; none once its containers started.
    pub making: Option<Making>,
}

/// What the engine found out about a server: all that its status shows.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that status tells of")]
pub struct ServerHealth {
    /// The circuit, as it is to be kept in status.
    pub circuit: CircuitStatus,
    /// It is one URL, and has no pods of ours.
    pub remote: bool,
    /// The activator answers for it, whatever becomes of its pods.
    pub stood_in: bool,
    /// Its clients bring credentials of their own: that it refuses the prober is as it should be.
    pub accepts_unauthorized: bool,
    /// It is not probed, because what requests are to carry could not be read yet.
    pub lacks_credentials: bool,
    /// The server as a whole: the worst that is confirmed. Of a remote one: the last verdict.
    pub verdict: Verdict,
    /// The revision that it speaks.
    pub protocol: Option<ProtocolStatus>,
    /// What it calls itself.
    pub server_info: Option<ServerInfo>,
    /// Whether it gives sessions, which one pod alone knows. None: not asked yet.
    pub sessions: Option<bool>,
    /// The tools that most of its pods offer.
    pub tools: Option<Arc<ToolsList>>,
    /// The list that may be accepted where none was yet.
    pub acceptable: Option<Arc<ToolsList>>,
    /// No list of tools is accepted yet, or the one that is was not kept yet. Who keeps it says so.
    pub unaccepted: bool,
    /// What will be said for it while it sleeps; none of a server that never does, or that was not asked yet.
    pub kept: Option<Kept>,
    /// How the tools of a pod differ from the accepted ones; none while they do not, or while nothing is accepted.
    pub tools_diff: Option<ToolsDiff>,
    /// Its pods, sorted by name, without those that are going away. Empty for a remote one.
    pub pods: Vec<PodHealth>,
    /// There is a pod, be it one that is going away: what it has mounted it may write to.
    pub has_pods: bool,
    /// A pod that is going away, where there is no other: its containers run still.
    pub ending: Option<String>,
    /// Fleet panic holds this server where it is, and none of its pods answers: nobody can say whether a client would be served.
    pub panic: bool,
}

impl ServerHealth {
    /// A client that connects now gets an answer, as far as the prober knows: a pod is in service, the remote server answers, or the
    /// activator stands in.
    pub fn serves(&self) -> bool {
        if self.stood_in {
            return true;
        }
        // Whatever holds the gates open: of pods that all fail nobody gets an answer.
        let in_service = self.pods.iter().any(|pod| pod.in_service && !pod.failing);
        let answers = matches!(self.verdict.kind, Kind::Healthy | Kind::Alive);
        let lets_in = self.verdict.reason != reason::UNAUTHORIZED || self.accepts_unauthorized;
        match self.circuit.state {
            CircuitState::Closed => lets_in && !self.panic && if self.remote { answers } else { in_service },
            CircuitState::HalfOpen => lets_in && self.remote && answers,
            CircuitState::Open => false,
        }
    }
}

/// The pods of a server that clients are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Fleet panic: what is known of pods is not to be trusted.
    pub panic: bool,
    /// Pods that there are, without those that are going away.
    pub pods: u32,
    /// Those that clients are sent to.
    pub in_service: Vec<ServingPod>,
    /// Where those answer that have shown that they speak MCP, whether Kubernetes counts them as Ready already or not.
    pub answering: BTreeSet<SocketAddr>,
}

/// A pod that clients are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The Host header that it knows: the Service's name and port.
    pub host: String,
}

/// What the engine found out about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that status tells of")]
pub struct PodHealth {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The last verdict that counts: a failure only once it is confirmed.
    pub verdict: Verdict,
    /// Failed `failureThreshold` times in a row, and past its start.
    pub failing: bool,
    /// Has not answered since it started, and is within `startupSeconds` of that.
    pub starting: bool,
    /// While starting: when its failures begin to count.
    pub counts_from: Option<Timestamp>,
    /// The last verdict of a pod that has not answered since it started, confirmed or not; of any other the one that counts.
    /// Unknown only of a pod that was never asked.
    pub latest: Verdict,
    /// A container of it that runs, and that the kubelet does not find ready.
    pub unready: Option<String>,
    /// What keeps it from running, as Kubernetes tells it.
    pub trouble: Option<Trouble>,
    /// How far it is while it is being made; none once its containers started.
    pub making: Option<Making>,
    /// Which template it was made from, and when.
    pub origin: Origin,
    /// Where its own template says that it speaks MCP.
    pub asked: Option<Arc<Template>>,
    /// The readiness gate, as decided.
    pub gate: bool,
    /// Kubernetes says that all containers are ready.
    pub containers_ready: bool,
    /// Clients are sent to it: containers ready, gate True, not going away.
    pub in_service: bool,
    /// Clients were sent to it at some time since it was made.
    pub served: bool,
    /// False while its tools are not the accepted ones; none while nothing is accepted or nothing known.
    pub tools_accepted: Option<bool>,
    /// Its tools keep it out of service (`tools.policy` Enforce): a rollout that makes such pods waits for a person.
    pub shut_out: bool,
    /// It says no to the prober, and why that does not let it in.
    pub kept_out: Option<KeptOut>,
    /// What status says of it was found out before this operator began, and stands: nothing that counts was found out since.
    pub inherited: bool,
}

/// Why a pod that answers, and says no to the prober, gets no clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOut {
    /// `tools.policy` is Enforce, and it has not shown that its tools are the accepted ones.
    ShowsNoTools,
    /// Pods of another version answer, and it would take over from them.
    AnotherVersionIsWell,
}

impl PodHealth {
    /// Its gate is open and its containers are ready: only Kubernetes has yet to count it as Ready.
    pub const fn is_returning(&self) -> bool {
        self.gate && self.containers_ready && !self.in_service
    }
}

/// One moment on both clocks: schedules follow the steady one, what people see the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The steady clock: never jumps.
    pub mono: Instant,
    /// The wall clock, in whole seconds: may jump.
    pub wall: Timestamp,
}

impl Moment {
    /// What the steady clock showed at a time on the wall; none before it began to run.
    pub fn ago(&self, wall: Timestamp) -> Option<Instant> {
        let age = Duration::try_from(self.wall.duration_since(wall)).unwrap_or_default();
        self.mono.checked_sub(age)
    }
}

//! Condition types, and every reason that a condition, an Event or a verdict can carry.
//!
//! Reasons are API: people alert on them and scripts match them. A reason is added here, with its meaning, before it is used.

/// Condition types of McpServer and McpApp.
pub mod condition {
    /// A client that connects now gets an answer: at least one pod is in service and the circuit is not Open.
    pub const READY: &str = "Ready";
    /// Every pod answered its last probes. False while any pod fails, Unknown while nothing is known or the server says no to us.
    pub const HEALTHY: &str = "Healthy";
    /// The circuit is Closed. False while it is Open or HalfOpen.
    pub const CIRCUIT_CLOSED: &str = "CircuitClosed";
    /// The tools that the server offers are the accepted ones.
    pub const TOOLS_ACCEPTED: &str = "ToolsAccepted";
    /// What `npx` or `uvx` installs is one version. Absent of a server for which nothing is installed.
    pub const PACKAGE_PINNED: &str = "PackagePinned";
    /// The model answers the app's pods. There once they have told of it; absent of an app without a model.
    pub const MODEL_REACHABLE: &str = "ModelReachable";
    /// No pod has used up its share of `spec.budget`. There once the pods have told of it; absent of an app without a budget.
    pub const WITHIN_BUDGET: &str = "WithinBudget";
    /// Work is under way to reach the spec: a rollout, also while the old pods serve, or something that is tried again.
    pub const RECONCILING: &str = "Reconciling";
    /// The spec is not reached before a person, or another object, does something. The message says what. Ready may be True: the old pods serve.
    pub const STALLED: &str = "Stalled";
}

// ---- Ready of McpServer and McpApp -----------------------------------------------------------------------------------

/// Everything that the spec asks for is there, and it answers.
pub const AVAILABLE: &str = "Available";
/// Pods are being created or rolled, and none is in service yet.
pub const STARTING: &str = "Starting";
/// `spec.enabled` is false: scaled to zero, not probed, not offered to apps.
pub const DISABLED: &str = "Disabled";
/// `spec.replicas` is 0: there is no pod, and nobody is answered.
pub const SCALED_TO_ZERO: &str = "ScaledToZero";
/// Nobody calls the server, and it has no pods (`autoscaling.minReplicas: 0`). The next call wakes it, and is answered.
pub const ASLEEP: &str = "Asleep";
/// A call woke the server, and waits for its first pod. After two minutes it is told like any server that does not come up.
pub const WAKING: &str = "Waking";
/// The server sleeps, and no pod of the activator is ready to wake it.
pub const NO_ACTIVATOR: &str = "NoActivator";
/// The circuit is Open: the server failed `circuitBreaker.failureThreshold` probes in a row.
pub const CIRCUIT_OPEN: &str = "CircuitOpen";
/// The circuit is HalfOpen: the server is asked again, and is back in use after `circuitBreaker.successThreshold` answers in a row.
pub const CIRCUIT_HALF_OPEN: &str = "CircuitHalfOpen";
/// `circuitBreaker.force` holds the circuit.
pub const FORCED: &str = "Forced";
/// Some pods fail while others serve.
pub const DEGRADED: &str = "Degraded";
/// An object with the name of a child exists and is not ours. Rename one of the two, or delete the other object.
pub const NAME_CONFLICT: &str = "NameConflict";
/// The spec points at a Secret (or a key in it) that is not there.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// The spec points at a ConfigMap that is not there.
pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
/// The spec cannot be carried out as it is. The message says what to change.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// Kubernetes refused a child. The message is the API server's own.
pub const APPLY_FAILED: &str = "ApplyFailed";
/// Nothing is known yet: not probed since it was created, or changed its address.
pub const UNKNOWN: &str = "Unknown";
/// The app serves, and every server that it names is offered to it.
pub const ALL_SERVERS_OFFERED: &str = "AllServersOffered";
/// The app serves, but not every server that it names is offered to it.
pub const SERVERS_MISSING: &str = "ServersMissing";

/// The app's pods are ready, but it has no server: none matches `spec.servers`, or none of those exists.
pub const NO_SERVERS: &str = "NoServers";
/// The annotation `mcpfleet.dev/paused` is `true`: children are left as they are. Ready's status is what a client meets.
pub const PAUSED: &str = "Paused";
/// A Secret that the spec points at holds nothing but white space where a value must be.
pub const SECRET_EMPTY: &str = "SecretEmpty";
/// The Secret of `spec.access.tokenSecretRef` holds a token of fewer than 16 characters, which the app does not take.
pub const TOKEN_TOO_SHORT: &str = "TokenTooShort";

// ---- Reconciling and Stalled ----------------------------------------------------------------------------------------------

/// Pods are being made or replaced.
pub const ROLLING_OUT: &str = "RollingOut";
/// The pods did not come up within `spec.progressDeadlineSeconds`, and none of them says why.
pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// A claim does not exist: that of backups, without which the server serves, or one of `spec.volumes`, which new pods wait for.
pub const CLAIM_NOT_FOUND: &str = "ClaimNotFound";
/// The claim of the server's data was deleted, and only the pod that mounts it keeps it: the pod is not replaced meanwhile.
pub const CLAIM_TERMINATING: &str = "ClaimTerminating";
/// A child belongs to an object of the same name that was deleted, and is going. It is waited for.
pub const PREDECESSOR_GOING: &str = "PredecessorGoing";
/// Kubernetes drops a field that the spec asks for: its API server is older than the field, has its feature gate off, or has a webhook that takes it away.
pub const FIELD_DROPPED: &str = "FieldDropped";
/// A field that we write does not stay as we write it: a webhook or another writer changes it, or a second operator. Once a minute it is tried again.
pub const CONTESTED: &str = "Contested";

// ---- Autoscaling (an Event) ---------------------------------------------------------------------------------------------------

/// `spec.autoscaling` came to another number of pods. The message says from how many to how many, and why.
pub const SCALED: &str = "Scaled";

// ---- Backups (an Event) ------------------------------------------------------------------------------------------------------

/// A backup of `storage.backup` failed, or its pod does not run. The message says why, and when the last good one was made.
pub const BACKUP_FAILED: &str = "BackupFailed";

// ---- ModelReachable --------------------------------------------------------------------------------------------------------

/// The model answers. While it does not, the reason is the one that the app's pods give.
pub const MODEL_ANSWERS: &str = "ModelAnswers";

// ---- WithinBudget ------------------------------------------------------------------------------------------------------------

/// Less than `spec.budget.alertPercent` is used.
pub const WITHIN_BUDGET: &str = "WithinBudget";
/// A pod has used `spec.budget.alertPercent` of its share, or more.
pub const BUDGET_NEARLY_USED_UP: &str = "BudgetNearlyUsedUp";
/// A pod has used up its share: its questions are refused until midnight UTC.
pub const BUDGET_USED_UP: &str = "BudgetUsedUp";

// ---- Kubernetes' own words: of a pod that does not run, in Ready, Healthy, Reconciling and Stalled --------------------------

/// The image cannot be pulled, and the kubelet waits before it tries again: name, tag, registry or credentials.
pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
/// The image cannot be pulled.
pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
/// `image` is no name of an image.
pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
/// The image is not on the node, and `imagePullPolicy` is Never.
pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
/// The container ends again and again; the message has its exit code and its last lines.
pub const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
/// The container needs something that is not there or not allowed: a Secret, a key, another user than root.
pub const CREATE_CONTAINER_CONFIG_ERROR: &str = "CreateContainerConfigError";
/// The container cannot be made.
pub const CREATE_CONTAINER_ERROR: &str = "CreateContainerError";
/// The container cannot be started: `command` names no program, for one.
pub const RUN_CONTAINER_ERROR: &str = "RunContainerError";
/// The container ended with an error.
pub const ERROR: &str = "Error";
/// The container could not be started.
pub const START_ERROR: &str = "StartError";
/// The container ended by itself, and without an error: a server should not.
pub const COMPLETED: &str = "Completed";
/// The container used more memory than `resources.limits.memory`.
pub const OOM_KILLED: &str = "OOMKilled";
/// No node can take the pod: CPU, memory, labels, taints, a volume that is not bound. The message is the scheduler's.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// The pod is held back by a scheduling gate.
pub const SCHEDULING_GATED: &str = "SchedulingGated";
/// A volume cannot be mounted.
pub const FAILED_MOUNT: &str = "FailedMount";
/// A volume cannot be attached to the node.
pub const FAILED_ATTACH_VOLUME: &str = "FailedAttachVolume";
/// The pod's surroundings cannot be made.
pub const FAILED_CREATE_POD_SANDBOX: &str = "FailedCreatePodSandBox";
/// What makes the pods is refused.
pub const REPLICA_SET_CREATE_ERROR: &str = "ReplicaSetCreateError";
/// The pod's node is not ready, or does not report: Kubernetes sends the pod no clients meanwhile. The message names the node.
pub const NODE_NOT_READY: &str = "NodeNotReady";
/// The kubelet put the pod out, for want of memory or disk on the node.
pub const EVICTED: &str = "Evicted";
/// Pods are refused: a quota, a LimitRange, pod security, a ServiceAccount that is missing.
pub const FAILED_CREATE: &str = "FailedCreate";

// ---- Verdicts: Healthy ------------------------------------------------------------------------------------------------

/// The probe got from the server everything that a client would need.
pub const PROBE_SUCCEEDED: &str = "ProbeSucceeded";

// ---- Verdicts: Alive (answers, but says no; not a failure) --------------------------------------------------------------

/// 401 or 403, and the CR gives no credentials: up, and closed to us.
pub const UNAUTHORIZED: &str = "Unauthorized";
/// 429: up, and limiting us. Retry-After is obeyed, up to 10 minutes.
pub const RATE_LIMITED: &str = "RateLimited";

// ---- Verdicts: Failed ---------------------------------------------------------------------------------------------------

/// Nothing listens on the port.
pub const CONNECTION_REFUSED: &str = "ConnectionRefused";
/// The connection broke before the answer was whole.
pub const CONNECTION_RESET: &str = "ConnectionReset";
/// No route to the address, or another error below HTTP.
pub const UNREACHABLE: &str = "Unreachable";
/// `spec.remote.url` leads to the operator's own machine, to a cloud's metadata or into the cluster.
pub const ADDRESS_FORBIDDEN: &str = "AddressForbidden";
/// No whole answer within `health.timeoutSeconds`.
pub const TIMEOUT: &str = "Timeout";
/// The name in the URL does not resolve.
pub const DNS_FAILED: &str = "DnsFailed";
/// The TLS handshake or the verification of the certificate failed.
pub const TLS_FAILED: &str = "TlsFailed";
/// An HTTP status that is no answer of an MCP server.
pub const HTTP_STATUS: &str = "HttpStatus";
/// 401 or 403 to the credentials that the CR gave.
pub const CREDENTIALS_REJECTED: &str = "CredentialsRejected";
/// 403 that names our Host header: the server's list of allowed hosts lacks the Service's name.
pub const HOST_REJECTED: &str = "HostRejected";
/// A redirect that is not followed: another status than 307 or 308, another scheme, host or port, or more than five.
pub const REDIRECTED: &str = "Redirected";
/// The answer is not MCP: HTML, another content type, an empty result, a wrong id or jsonrpc, or a body that is not JSON.
pub const NOT_MCP: &str = "NotMcp";
/// The framing of the body was broken: shorter than its Content-Length, or a chunk missing.
pub const TRUNCATED: &str = "Truncated";
/// More than 8 MiB of body, or more than 64 pages of a list.
pub const TOO_LARGE: &str = "TooLarge";
/// The server speaks no revision of MCP that we know.
pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
/// A JSON-RPC error to initialize, discover or tools/list.
pub const JSON_RPC_ERROR: &str = "JsonRpcError";
/// The server forgot the session within one probe, twice.
pub const SESSION_LOST: &str = "SessionLost";
/// `health.toolCall` answered with isError, a JSON-RPC error or input_required.
pub const TOOL_CALL_FAILED: &str = "ToolCallFailed";

// ---- Tools contract ------------------------------------------------------------------------------------------------------

/// The offered tools are the accepted ones.
pub const TOOLS_UNCHANGED: &str = "Unchanged";
/// The offered tools differ from the accepted ones; the message names those added, removed and changed.
pub const TOOLS_CHANGED: &str = "ToolsChanged";

/// `spec.tools.policy` is Ignore: nobody looks.
pub const TOOLS_IGNORED: &str = "Ignored";

// ---- PackagePinned ---------------------------------------------------------------------------------------------------------

/// The package of `npx` or `uvx` is named with one version.
pub const PINNED: &str = "Pinned";
/// The package is named without a version, or with a range, a tag or a branch: pods that are made at different times may run different
/// versions. Name one version in `spec.stdio.args`.
pub const UNPINNED: &str = "Unpinned";

// ---- Events (and one for each change of Ready, with its reason) ----------------------------------------------------------------------------------------------------------------

/// The circuit closed.
pub const CIRCUIT_CLOSED: &str = "CircuitClosed";
/// Somebody had changed a field of a child that the CR decides: it was put back. The message names the field manager.
pub const CORRECTED: &str = "Corrected";
/// A pod was taken out of the Service.
pub const POD_OUT_OF_SERVICE: &str = "PodOutOfService";
/// A pod was put back into the Service.
pub const POD_IN_SERVICE: &str = "PodInService";
/// A pod that stayed Failed for `health.restartAfterSeconds` was evicted.
pub const POD_EVICTED: &str = "PodEvicted";
/// What a probe brought that was asked for by the annotation `mcpfleet.dev/recheck`.
pub const RECHECKED: &str = "Rechecked";
/// A pod that stayed Failed was to be evicted, and the API server refused (a PodDisruptionBudget, usually).
pub const EVICTION_REFUSED: &str = "EvictionRefused";
/// More than half of the servers fail at once: circuits and gates are held for 10 minutes at most, because the fault is probably ours.
pub const FLEET_PANIC: &str = "FleetPanic";
/// The fleet panic is over.
pub const FLEET_PANIC_OVER: &str = "FleetPanicOver";

/// The reasons of Ready that only asking the server's pods brings about. What Kubernetes tells has others.
pub const BY_PROBER: [&str; 22] = [
    FLEET_PANIC,
    DEGRADED,
    UNAUTHORIZED,
    RATE_LIMITED,
    TOOLS_CHANGED,
    CONNECTION_REFUSED,
    CONNECTION_RESET,
    UNREACHABLE,
    TIMEOUT,
    DNS_FAILED,
    TLS_FAILED,
    HTTP_STATUS,
    CREDENTIALS_REJECTED,
    HOST_REJECTED,
    REDIRECTED,
    NOT_MCP,
    TRUNCATED,
    TOO_LARGE,
    UNSUPPORTED_VERSION,
    JSON_RPC_ERROR,
    SESSION_LOST,
    TOOL_CALL_FAILED,
];

#[cfg(test)]
mod tests {
    /// People look a reason up on one page.
    #[test]
    fn every_reason_and_condition_type_is_on_the_page_about_them() {
        let page = include_str!("../../../docs/conditions.md");
        let values = include_str!("reason.rs").lines().filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"));
        let known: std::collections::BTreeSet<&str> = values.collect();
        // The first cell of a row of a table: what it explains.
        let told: std::collections::BTreeSet<&str> =
            page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect();
        let unknown: Vec<_> = told.difference(&known).collect();
        assert!(unknown.is_empty(), "docs/conditions.md explains what nobody says: {unknown:?}");
        let missing: Vec<_> = known.difference(&told).collect();
        assert!(missing.is_empty(), "docs/conditions.md lacks {missing:?}");
    }
}

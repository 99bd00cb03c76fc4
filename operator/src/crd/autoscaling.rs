//! The part of the API about the number of pods that the operator decides by itself. The field docs are the user manual; how it is
//! decided is `crate::autoscale`'s.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds without a call, where `idleSeconds` says nothing.
pub const IDLE_SECONDS: u32 = 900;

/// As many pods as there are calls under way: `calls in flight / callsInFlight`, rounded up.
///
/// There are more at once, and fewer one by one, when 300 seconds have not needed them. Nothing is scaled while pods do not tell their
/// calls, or while most of the fleet fails. `status.autoscaling` says what was decided and why, and `replicas` is not looked at.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("autoscaling.minReplicas (1 when not set) must not be above autoscaling.maxReplicas: lower one or raise the other"),
    validation = Rule::new("!has(self.idleSeconds) || self.minReplicas == 0")
        .message("autoscaling.idleSeconds says when the last pod may go, and with a minReplicas of 1 or more it never does: remove it, or set minReplicas to 0")
)]
pub struct Autoscaling {
    /// Pods at least (default: 1). 0: without a call for `idleSeconds` it has none, and the next call wakes it. Ready stays True, with
    /// the reason Asleep.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 0, max = 1_000))]
    pub min_replicas: u32,
    /// Pods at most.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_replicas: u32,
    /// Calls that one pod is to have under way at once (default: 8).
    #[serde(default = "calls_in_flight")]
    #[schemars(range(min = 1, max = 10_000))]
    pub calls_in_flight: u32,
    /// Seconds without a call after which the last pod goes, with `minReplicas: 0` (default: 900).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 604_800))]
    pub idle_seconds: Option<u32>,
}

/// What was decided about the number of pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Pods that are wanted.
    #[serde(default)]
    pub desired: u32,
    /// Why so many; or why the number stays as it is.
    #[serde(default)]
    pub reason: String,
    /// When the number was last changed; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<Time>,
}

const fn min_replicas() -> u32 {
    1
}
const fn calls_in_flight() -> u32 {
    8
}

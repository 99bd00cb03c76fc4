//! What the registry wants done in the world. The doing is `publish`'s.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;

use super::{
    breaker::Transition,
    converse::Known,
    route::Route,
    schedule::{AttemptId, TargetId},
    types::ServerKey,
    verdict::Verdict,
};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The server's status shows something else from now on.
    Changed(Arc<ServerKey>),
    /// A pod's readiness gate is to be patched.
    Gate(GatePatch),
    /// A person should read this.
    Event(Notice),
    /// A pod is to be evicted.
    Evict(Eviction),
    /// Probes of this target that began before this epoch are void, and its connection is of no use.
    Forget(TargetId, u32),
    /// A circuit changed its state; with the reason and the message of what fails, where something does.
    Transition(Arc<ServerKey>, Transition, Option<(&'static str, Arc<str>)>),
    /// A target that answered fails, or one that failed answers: its server, its pod's name, the verdict.
    Turned(Arc<ServerKey>, String, Verdict),
    /// A server is known no longer.
    Gone(Arc<ServerKey>),
    /// Fleet panic began or ended.
    Panic(bool),
}

/// A pod's readiness gate, to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatePatch {
    /// Which target.
    pub id: TargetId,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid: another pod of the same name is not patched.
    pub uid: String,
    /// In service or not.
    pub value: bool,
    /// Why.
    pub reason: &'static str,
    /// Why, for people.
    pub message: Arc<str>,
}

/// How a patch of a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patched {
    /// The pod has it, since this version of it.
    Done(Option<u64>),
    /// The pod is gone, or is another one.
    Gone,
    /// Not now.
    Failed,
}

/// An Event.
#[derive(Clone, Debug)]
pub struct Notice {
    /// About which object.
    pub object: ObjectReference,
    /// A Warning, or Normal.
    pub warning: bool,
    /// A constant of `crd::reason`.
    pub reason: &'static str,
    /// What was done.
    pub action: &'static str,
    /// A sentence.
    pub note: String,
}

/// A pod, to be evicted.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// Which target.
    pub id: TargetId,
    /// The pod's namespace.
    pub namespace: String,
    /// The server's name.
    pub server: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// What it fails with.
    pub why: Verdict,
}

/// How an eviction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// The pod is going.
    Done,
    /// The pod is going, and the next one comes when it is gone: the server has one writer at a time.
    Restarted,
    /// The pod is gone, or is another one.
    Gone,
    /// A PodDisruptionBudget forbids it now, or the API server failed.
    Refused(String),
}

/// A probe to be made.
#[derive(Debug)]
pub struct Job {
    /// Whom.
    pub id: TargetId,
    /// Of which server.
    pub server: Arc<ServerKey>,
    /// Results of another epoch are void.
    pub epoch: u32,
    /// The place that it takes.
    pub attempt: AttemptId,
    /// The server.
    pub route: Arc<Route>,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// What is known of the target.
    pub known: Known,
    /// When a hang is hedged, from the start; none: not at all.
    pub hedges: Option<[Duration; 2]>,
    /// How long after it was due it started.
    pub lag: Duration,
}

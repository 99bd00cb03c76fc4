//! The health engine: probes every server over MCP and decides who is in service.
//!
//! `schedule` says who is due, `worker` makes the probes (`converse` over `client`), `verdict` says what they mean, `registry` takes
//! them up (`target`, `server`, `breaker`, `fleet_panic`), `publish` carries out what follows. `pods` feeds it, `fleet` and `metrics` tell of it, `intern` keeps
//! it small.
//! The CR's status is not written here: the reconciler does that from [`HealthEngine::snapshot`], when it is told to.

mod answer;
mod breaker;
mod client;
mod converse;
mod effect;
mod engine;
mod fleet;
mod fleet_panic;
mod intern;
mod metrics;
mod pods;
mod protocol;
mod publish;
mod registry;
mod schedule;
mod server;
mod sse;
mod target;
pub mod template;
mod tools;
mod types;
mod verdict;
mod wire;
mod worker;

pub use converse::{Known, Observation};
pub use engine::{EngineConfig, HealthEngine, RemotePolicy};
pub use fleet::{Fleet, FleetCircuit, FleetLatency, FleetPod, FleetServer, FleetTools};
pub use pods::{state_of, watch_pods};
pub use protocol::Hello;
pub use schedule::TargetId;
pub use tools::{Tool, ToolsDiff, ToolsList};
pub use types::{
    AcceptedTools, Credentials, Endpoint, Moment, PodHealth, PodState, ServerHealth, ServerKey, ServerSpec, ToolsContract,
};
pub use verdict::{Kind as VerdictKind, Problem, Status, Step, Verdict};
pub use wire::Wire;
pub use worker::{Attempt, McpProber, Prober};

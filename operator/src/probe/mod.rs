//! The health engine: probes every server over MCP and decides who is in service.
//!
//! `schedule` says who is due, `worker` makes the probes (`converse` over `client`), `verdict` says what they mean, `registry` takes
//! them up, `publish` carries out what follows. `pods` feeds it (`template` is what a pod says that it is asked), `fleet_json` and
//! `metrics` tell of it. A circuit goes from Closed to Open, and a gate turns, in `server/settle`; `target` counts failures, `breaker` is the circuit
//! itself, `fleet_panic` holds both; `gate` is what a pod shows, `pace` when it is asked. `intern` keeps it small,
//! `kept` is what is said for a server that sleeps.
//! The CR's status is not written here: the reconciler does that from [`HealthEngine::snapshot`], when it is told to.

mod answer;
mod breaker;
mod client;
mod converse;
mod effect;
mod engine;
mod fleet_json;
mod fleet_panic;
mod gate;
mod intern;
mod kept;
mod latencies;
mod metrics;
mod pace;
mod pods;
mod protocol;
mod proxy;
mod publish;
mod registry;
mod route;
mod schedule;
mod server;
mod target;
pub mod template;
mod tools;
mod types;
mod verdict;
mod worker;

pub use converse::{Known, Observation};
pub use engine::{EngineConfig, HealthEngine, RemotePolicy};
pub use fleet_json::{Fleet, FleetCircuit, FleetLatency, FleetPod, FleetServer, FleetTools};
pub use kept::Kept;
pub use pods::{state_of, watch_pods};
pub use protocol::Hello;
pub use proxy::Proxy;
pub use route::{Dial, Route, check_ca};
pub use schedule::TargetId;
pub use server::LACKS_CREDENTIALS;
pub use tools::{Tool, ToolsDiff, ToolsList};
pub use types::{
    AcceptedTools, Credentials, Endpoint, KeptOut, Moment, PodHealth, PodState, ServerHealth, ServerKey, ServerSpec, Serving,
    ServingPod, ToolsContract,
};
pub use verdict::{Kind as VerdictKind, Problem, Status, Step, Verdict};
pub use worker::{Attempt, McpProber, Prober};

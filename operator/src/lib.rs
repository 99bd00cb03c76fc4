//! The mcpfleet operator.
//!
//! Where does X happen? The API is in `crd`, what we are known by in `names`. `pass` drives one reconcile, the same for both kinds:
//! observe, validate, children, apply, status; what is particular to a kind is in `mcp_server` and `mcp_app`, a file a step. Who is
//! alive is decided in `probe`, and nowhere else. `watch` keeps what is known, `wake` says which change wakes which object, `scope`
//! starts both for a namespace, `run` says what the process consists of.

pub mod admin;
pub mod again;
pub mod app_pods;
pub mod app_reports;
pub mod apply;
pub mod asleep;
pub mod attempts;
pub mod autoscale;
pub mod backups;
pub mod cache;
pub mod child;
pub mod children;
pub mod claims;
pub mod clock;
pub mod compare;
pub mod conditions;
pub mod config;
pub mod contests;
pub mod crd;
pub mod digest;
pub mod digest_key;
pub mod disruption;
pub mod document;
pub mod events;
#[cfg(test)]
mod fixtures;
mod http_get;
pub mod import;
pub mod inherit;
pub mod inputs;
pub mod kstatus;
pub mod leader;
pub mod mcp_app;
pub mod mcp_server;
pub mod metrics;
pub mod names;
pub mod network;
pub mod pass;
pub mod pod_annotation;
pub mod pod_trouble;
pub mod pod_warnings;
pub mod probe;
pub mod problem;
pub mod reach;
pub mod release;
pub mod requeue;
pub mod rollout;
pub mod run;
pub mod scope;
pub mod scopes;
pub mod ssa;
pub mod wake;
pub mod watch;
pub mod who;
pub mod wording;
pub mod workload;

//! The operator against a real kube-apiserver: `make test` brings one up and runs these inside its network namespace.
//!
//! There is no kubelet and no controller-manager here. Tests write what those would, and see what the operator alone does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::large_futures, reason = "a test is one future, on the stack of its thread")]

mod activator;
mod admit;
mod asleep;
mod autoscaling;
mod backups;
mod children;
mod circuit;
mod compare;
mod contract;
mod falling_asleep;
mod faults;
mod idempotent;
mod inputs;
mod kstatus;
mod leader;
mod lease;
mod network;
mod reconcile;
mod recovery;
mod refusals;
mod release;
mod rules;
mod scaling;
mod scopes;
mod stdio;

//! Everything together on a real node: the chart, the images that are released, pods that a kubelet runs. Run by `make test`.
//!
//! One at a time: the node has two cores, and what is measured here is measured in seconds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::large_futures, reason = "a test is one future, on the stack of its thread")]

mod arrival;
mod asleep;
mod autoscale;
mod backup_drills;
mod backup_faults;
mod chat_drill;
mod contract;
mod disruption;
mod drills;
mod examples;
mod faults;
mod hpa;
mod network;
mod outage;
mod pods;
mod processes;
mod rollouts;
mod sandbox_drills;
mod secrets;
mod session_drill;
mod setup;
mod stdio;
mod steps;
mod strikes;
mod told;
mod traces;

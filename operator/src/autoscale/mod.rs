//! How many pods a server with `spec.autoscaling` has: decided from the calls that its pods have under way.
//!
//! `scaler` decides, for one server, pure; `load` reads what a pod tells; `autoscaler` holds the scalers of all servers; `rounds` asks the pods
//! every few seconds. The decision goes to the Deployment and to the status by a pass like any other, never to `spec.replicas`.

mod autoscaler;
mod load;
mod rounds;
mod scaler;
#[cfg(test)]
mod simulation;

pub use autoscaler::{Asked, Autoscaler};
pub use rounds::watch;
pub use scaler::{Decision, WINDOW};

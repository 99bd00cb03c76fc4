//! What the prober's tests share: a server that does as its script says, an API server that counts, and an engine between the two.
#![allow(dead_code, reason = "every test binary uses another part of it")]

pub mod api;
pub mod fake;
pub mod puppet;
pub mod rig;

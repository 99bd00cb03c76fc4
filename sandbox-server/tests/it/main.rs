//! The server as its users meet it: the real binary, over HTTP and standard input, in both protocol eras. One binary, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod statements;
mod support;

mod arguments;
mod direct;
mod door;
mod durability;
mod eras;
mod escapes;
mod events;
mod fairness;
mod fuzz;
mod hostile;
mod limits;
mod stdio;
mod tools;
mod traces;
mod ways;

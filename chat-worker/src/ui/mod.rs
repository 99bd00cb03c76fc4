//! What people and programs see: `terminal` and `web` show the one stream of events of a turn, and `summary` is all of it as one object.

pub mod summary;
pub mod terminal;
pub mod web;

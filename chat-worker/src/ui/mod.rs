//! What people and programs see: `event` is the one stream of a turn, `terminal` and `web` show it.

pub mod event;
pub mod summary;
pub mod terminal;
pub mod web;

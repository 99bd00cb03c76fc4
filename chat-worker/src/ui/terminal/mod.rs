//! The terminal: `ask` answers one question, `chat` talks with a person, `input` reads what they type, `commands` are
//! those that begin with a slash, `store` keeps the last conversation, `render` turns events into lines, `markdown` sets the text
//! in them, and `spinner` shows that something goes on.

pub mod ask;
pub mod chat;
pub mod commands;
pub mod input;
mod markdown;
pub mod render;
mod spinner;
pub mod store;

use std::io::{self, IsTerminal, Stdout};

use self::render::Renderer;

/// For standard output: with colours at a terminal whose user has not said otherwise (NO_COLOR).
fn renderer() -> Renderer<Stdout> {
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if coloured { Renderer::coloured(io::stdout(), size) } else { Renderer::plain(io::stdout()) }
}

fn size() -> markdown::Size {
    let (width, height) = termimad::crossterm::terminal::size().unwrap_or((80, 24));
    (width.into(), height.into())
}

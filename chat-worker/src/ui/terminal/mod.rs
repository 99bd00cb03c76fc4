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

use tokio::signal::unix::{SignalKind, signal};

use self::render::Renderer;

/// Completes at SIGTERM and when the terminal hangs up, with the code to exit with. The terminal is as it was before.
pub async fn ended_from_outside() -> i32 {
    let (Ok(mut terminate), Ok(mut hang_up)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return std::future::pending().await;
    };
    let code = tokio::select! {
        _ = terminate.recv() => 143,
        _ = hang_up.recv() => 129,
    };
    input::give_back_terminal();
    code
}

/// Whether standard output is a terminal that can move its cursor.
fn is_capable() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// For standard output: with colours at a terminal whose user has not said otherwise (NO_COLOR).
fn renderer() -> Renderer<Stdout> {
    let coloured = is_capable() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if coloured { Renderer::coloured(io::stdout(), size) } else { Renderer::plain(io::stdout()) }
}

fn size() -> markdown::Size {
    let (width, height) = termimad::crossterm::terminal::size().unwrap_or((80, 24));
    (width.into(), height.into())
}

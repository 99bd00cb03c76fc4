//! The terminal: `ask` answers one question, `chat` talks with a person, `input` reads what they type, `commands` are
//! those that begin with a slash, `store` keeps the last conversation, `render` turns events into lines, `markdown` sets the text
//! in them, and `spinner` shows that something goes on.

pub mod ask;
pub mod chat;
pub mod commands;
pub mod input;
mod markdown;
pub mod render;
mod resources_prompts;
mod spinner;
pub mod store;

use std::io::{self, IsTerminal, Stderr, Stdout};

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
    can_move(&io::stdout())
}

fn can_move(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// For standard output: with colours at a terminal whose user has not said otherwise (NO_COLOR).
fn renderer() -> Renderer<Stdout> {
    if is_coloured(&io::stdout()) { Renderer::coloured(io::stdout(), size) } else { Renderer::plain(io::stdout()) }
}

/// For standard error: what is no part of an answer.
fn aside() -> Renderer<Stderr> {
    if is_coloured(&io::stderr()) { Renderer::coloured(io::stderr(), size) } else { Renderer::plain(io::stderr()) }
}

fn is_coloured(to: &impl IsTerminal) -> bool {
    can_move(to) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says something of our own, in lines that fit the terminal.
fn say(text: &str) {
    if is_capable() { println!("{}", fitted(text, size().0)) } else { println!("{text}") }
}

/// The text with lines that are too long broken between their words.
fn fitted(text: &str, width: usize) -> String {
    let options = textwrap::Options::new(width.max(20)).subsequent_indent("  ");
    let lines: Vec<_> = text.lines().map(|line| textwrap::fill(line, &options)).collect();
    lines.join("\n")
}

fn size() -> markdown::Size {
    let (width, height) = termimad::crossterm::terminal::size().unwrap_or((80, 24));
    (width.into(), height.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_columns_stay() {
        assert_eq!(fitted("/help       this list\n/quit       leaves", 40), "/help       this list\n/quit       leaves");
        assert_eq!(fitted("one line that is longer than that\nand 東京", 20), "one line that is\n  longer than that\nand 東京");
        assert_eq!(fitted(&"x".repeat(30), 20).lines().count(), 2, "a word that is too long is broken all the same");
    }
}

//! Events as lines of a terminal. Colours only where somebody asked for them.

use std::io::{self, Write};

use crate::{tools::sanitize::clean, ui::event::Event};

/// Longer results are shown by their beginning.
const SHOWN: usize = 400;

/// Writes events to a terminal or a file.
#[derive(Debug)]
pub struct Renderer<W> {
    out: W,
    colour: bool,
    /// The cursor stands behind text.
    in_line: bool,
    /// The line holds the time of something that runs.
    working: bool,
}

impl<W: Write> Renderer<W> {
    pub fn new(out: W, colour: bool) -> Self {
        Self { out, colour, in_line: false, working: false }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Text { text } => {
                let text = clean(text);
                write!(self.out, "{text}")?;
                self.in_line = !text.ends_with('\n') && (self.in_line || !text.is_empty());
            }
            Event::Restart { reason, after_ms, .. } => {
                let seconds = *after_ms / 1_000;
                self.line("33", &format!("… {reason}; beginning the answer again in {seconds} s"))?;
            }
            Event::ToolCall { server, tool, name, input, .. } => {
                let shown = if tool.is_empty() { name.clone() } else { format!("{server} · {tool}") };
                self.line("36", &format!("▸ {shown} {}", short(&clean(&arguments(input)))))?;
            }
            Event::ToolResult { is_error, text, duration_ms, .. } => {
                let (colour, mark) = if *is_error { ("31", "✗") } else { ("32", "✓") };
                self.line(colour, &format!("  {mark} {duration_ms} ms  {}", short(&clean(text).replace('\n', " "))))?;
            }
            Event::Notice { text } => self.line("33", &format!("! {}", clean(text)))?,
            Event::Error { message, .. } => self.line("31", &format!("✗ {}", clean(message)))?,
            Event::Done { .. } => self.end_line()?,
            Event::Start { .. } | Event::Thinking { .. } | Event::ToolStart { .. } | Event::ApprovalRequired { .. } => {}
        }
        self.out.flush()
    }

    /// A line of its own, in this colour.
    pub fn line(&mut self, colour: &str, text: &str) -> io::Result<()> {
        self.end_line()?;
        if self.colour { writeln!(self.out, "\x1b[{colour}m{text}\x1b[0m") } else { writeln!(self.out, "{text}") }
    }

    /// Shows how long something has been running, on a line that goes again. For terminals only.
    pub fn working(&mut self, time: std::time::Duration) -> io::Result<()> {
        if self.in_line {
            return Ok(());
        }
        self.working = true;
        write!(self.out, "\r… {} s (Ctrl-C stops)", time.as_secs())?;
        self.out.flush()
    }

    /// Takes that line away.
    pub fn clear_working(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.working) {
            write!(self.out, "\r\x1b[K")?;
        }
        Ok(())
    }

    /// Begins a new line if the cursor is behind text.
    pub fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.in_line) { writeln!(self.out) } else { Ok(()) }
    }
}

/// One argument is shown as it is (SQL reads better so), several as JSON.
fn arguments(input: &serde_json::Value) -> String {
    match input.as_object() {
        Some(map) if map.is_empty() => String::new(),
        Some(map) if map.len() == 1 => match map.values().next() {
            Some(serde_json::Value::String(text)) => text.replace('\n', " "),
            _ => input.to_string(),
        },
        _ => input.to_string(),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(events: &[Event], colour: bool) -> String {
        let mut out = Vec::new();
        let mut renderer = Renderer::new(&mut out, colour);
        for event in events {
            renderer.show(event).expect("a vector takes everything");
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn without_colours_there_is_no_escape_whatever_servers_send() {
        let events = [
            Event::Text { text: "a\u{1b}[2Jb".into() },
            Event::ToolResult { id: "1".into(), is_error: true, text: "\u{1b}]0;x\u{7}no".into(), duration_ms: 3 },
        ];
        assert_eq!(shown(&events, false), "a[2Jb\n  ✗ 3 ms  ]0;xno\n");
        assert!(shown(&events, true).contains("\x1b[31m"));
    }

    #[test]
    fn a_call_shows_its_only_argument_as_it_is() {
        let event = Event::ToolCall {
            id: "1".into(),
            name: "s__q".into(),
            server: "s".into(),
            tool: "q".into(),
            input: json!({"query": "SELECT\n1"}),
            hash: String::new(),
            needs_approval: false,
        };
        assert_eq!(shown(&[event], false), "▸ s · q SELECT 1\n");
    }
}

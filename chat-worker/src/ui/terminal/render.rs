//! Events as lines of a terminal. Colours only where somebody asked for them.

use std::io::{self, Write};

use super::markdown::{Markdown, Size};
use crate::{
    numbers,
    tools::sanitize::{clean, clean_line, visible},
    turn::event::Event,
};

/// Longer results are shown by their beginning; at a terminal, by what fits a line.
const SHOWN: usize = 400;

/// Writes events to a terminal or a file.
#[derive(Debug)]
pub struct Renderer<W> {
    out: W,
    /// Where colours are wanted: text is set as markdown.
    markdown: Option<Markdown>,
    size: Option<fn() -> Size>,
    /// The cursor stands behind text.
    in_line: bool,
}

impl<W: Write> Renderer<W> {
    /// For a file, a pipe, or a terminal without colours.
    pub fn plain(out: W) -> Self {
        Self { out, markdown: None, size: None, in_line: false }
    }

    /// For a terminal of this size.
    pub fn coloured(out: W, size: fn() -> Size) -> Self {
        Self { out, markdown: Some(Markdown::new(size)), size: Some(size), in_line: false }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Text { text } => {
                let text = clean(text);
                match &mut self.markdown {
                    Some(markdown) => markdown.push(&mut self.out, &text)?,
                    None => write!(self.out, "{text}")?,
                }
                self.in_line = !text.ends_with('\n') && (self.in_line || !text.is_empty());
            }
            Event::Restart { reason, after_ms, .. } => {
                let wait = if *after_ms < 1_000 { String::new() } else { format!(" in {} s", *after_ms / 1_000) };
                self.line("33", &format!("… {}; beginning the answer again{wait}", clean(reason)))?;
            }
            Event::ToolCall { server, tool, name, input, arguments, needs_approval, .. } => {
                let shown = if tool.is_empty() { name.clone() } else { format!("{server} · {tool}") };
                // Whoever is to allow a call must see all of it, as it is sent; a name is its server's word, too.
                let line = if *needs_approval {
                    format!("▸ {} {}", visible(&shown), visible(arguments))
                } else {
                    self.short(format!("▸ {} {}", clean_line(&shown), clean(&in_short(input, arguments))).trim_end())
                };
                self.line("36", &line)?;
            }
            Event::ToolResult { is_error, text, duration_ms, .. } => {
                let (colour, mark) = if *is_error { ("31", "✗") } else { ("32", "✓") };
                let line = self.short(&format!("  {mark} {duration_ms} ms  {}", clean(text).replace('\n', " ")));
                self.line(colour, &line)?;
            }
            Event::Notice { text } => self.line("33", &format!("! {}", clean(text)))?,
            Event::Error { message, .. } => self.line("31", &format!("✗ {}", clean(message)))?,
            Event::Done { .. } => self.end_line()?,
            // What runs, and how far it is, is for a line that goes again.
            Event::Start { .. }
            | Event::Thinking { .. }
            | Event::ToolStart { .. }
            | Event::ToolProgress { .. }
            | Event::ApprovalRequired { .. } => {}
        }
        self.out.flush()
    }

    /// The beginning of a line that may be long.
    fn short(&self, text: &str) -> String {
        let shown = self.size.map_or(SHOWN, |size| size().0.saturating_sub(1).max(20));
        match text.char_indices().nth(shown) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    }

    /// A line of its own, in this colour.
    pub fn line(&mut self, colour: &str, text: &str) -> io::Result<()> {
        self.end_line()?;
        let Some(size) = self.size else { return writeln!(self.out, "{text}") };
        writeln!(self.out, "\x1b[{colour}m{}\x1b[0m", super::fitted(text, size().0))
    }

    /// Begins a new line if the cursor is behind text.
    pub fn end_line(&mut self) -> io::Result<()> {
        let in_line = std::mem::take(&mut self.in_line);
        match &mut self.markdown {
            Some(markdown) => markdown.finish(&mut self.out),
            None if in_line => writeln!(self.out),
            None => Ok(()),
        }
    }
}

/// One argument is shown as it is (SQL reads better so), several as JSON.
fn in_short(input: &serde_json::Value, arguments: &str) -> String {
    let mut values = input.as_object().into_iter().flat_map(|map| map.values());
    match (values.next(), values.next()) {
        (None, _) if input.is_object() => String::new(),
        (Some(serde_json::Value::String(text)), None) if !numbers::are_marked(text.as_bytes()) => text.replace('\n', " "),
        _ => arguments.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(events: &[Event], colour: bool) -> String {
        let mut out = Vec::new();
        let mut renderer = if colour { Renderer::coloured(&mut out, || (80, 24)) } else { Renderer::plain(&mut out) };
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
        let named = |needs_approval| Event::ToolCall {
            id: "1".into(),
            name: "s__q".into(),
            server: "s".into(),
            tool: "read\u{1b}[2J\u{202E}\r\n".into(),
            input: json!({}),
            arguments: "{}".into(),
            hash: String::new(),
            needs_approval,
        };
        assert_eq!(shown(&[named(false)], false), "▸ s · read[2J\n");
        assert_eq!(shown(&[named(true)], false), "▸ s · read\\u001b[2J\\u202e\\u000d\\u000a {}\n");
    }

    #[test]
    fn a_call_shows_its_only_argument_as_it_is() {
        let event = Event::ToolCall {
            id: "1".into(),
            name: "s__q".into(),
            server: "s".into(),
            tool: "q".into(),
            input: json!({"query": "SELECT\n1"}),
            arguments: json!({"query": "SELECT\n1"}).to_string(),
            hash: String::new(),
            needs_approval: false,
        };
        assert_eq!(shown(std::slice::from_ref(&event), false), "▸ s · q SELECT 1\n");
        let Event::ToolCall { id, name, server, tool, hash, .. } = event else { unreachable!("it is one") };
        let input = json!({"query": "DELETE FROM t -- \nWHERE id = 1\u{200B}"});
        let asked = Event::ToolCall { id, name, server, tool, arguments: input.to_string(), input, hash, needs_approval: true };
        let expected = "▸ s · q {\"query\":\"DELETE FROM t -- \\nWHERE id = 1\\u200b\"}\n";
        assert_eq!(shown(&[asked], false), expected, "what is to be allowed is shown as it is sent");
    }
}

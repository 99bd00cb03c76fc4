//! Server-sent events, read as they come. Pure.
//!
//! `data` is gathered until the empty line that ends an event. Events of a name of their own are not MCP's, and no client reads them.

/// Reads events out of a stream of bytes that may be cut anywhere.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// None before the event's first line of data.
    data: Option<Vec<u8>>,
    /// The event has a name of its own.
    foreign: bool,
    started: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
}

impl Parser {
    /// Takes the next bytes and hands every event that is now whole to `on_event`, until that returns true. True when it did.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(&[u8]) -> bool) -> bool {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&bytes[..end]);
            let cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if cr {
                match bytes.first() {
                    Some(b'\n') => bytes = &bytes[1..],
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if self.end_line(&mut on_event) {
                return true;
            }
        }
        self.line.extend_from_slice(bytes);
        false
    }

    fn end_line(&mut self, on_event: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            let data = self.data.take().unwrap_or_default();
            let foreign = std::mem::take(&mut self.foreign);
            // Servers prime a stream with an event without data: nothing to read in it.
            return !foreign && !data.trim_ascii().is_empty() && on_event(&data);
        }
        if let Some(value) = field(&line, b"data") {
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        } else if let Some(name) = field(&line, b"event") {
            self.foreign = !matches!(name, b"" | b"message");
        }
        line.clear();
        self.line = line;
        false
    }
}

/// The value of a line, if it is of this field.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', rest @ ..] | [b':', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, |data| {
                events.push(String::from_utf8_lossy(data).into_owned());
                false
            });
        }
        events
    }

    #[test]
    fn lines_may_end_in_any_of_the_three_ways() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
            assert_eq!(events(&[text.as_bytes()]), ["a", "b"], "{text:?}");
        }
    }

    #[test]
    fn lines_of_data_are_joined_and_everything_else_is_skipped() {
        assert_eq!(events(&[b": hello\nevent: message\nid: 7\nretry: 1\ndata: {\ndata:}\ndatum: x\n\n"]), ["{\n}"]);
    }

    #[test]
    fn an_event_of_another_name_is_none_of_ours() {
        assert_eq!(
            events(&[b"event: ping\ndata: x\n\nevent: message\ndata: a\n\nevent\ndata: b\n\ndata: c\n\n"]),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn an_event_without_data_or_without_an_end_is_none() {
        assert_eq!(events(&[b"id: 1\ndata:\n\nid: 2\n\ndata: unfinished\n"]), Vec::<String>::new());
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(events(&[b"\xef\xbb\xbfdata: a\n\n"]), ["a"]);
    }

    #[test]
    fn reading_stops_at_the_event_that_was_looked_for() {
        let mut seen = 0;
        let found = Parser::default().feed(b"data: a\n\ndata: b\n\ndata: c\n\n", |data| {
            seen += 1;
            data == b"b"
        });
        assert!(found);
        assert_eq!(seen, 2);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_cut(cuts in prop::collection::vec(0_usize..60, 0..8)) {
            let text: &[u8] = b"\xef\xbb\xbf: hi\r\ndata: one\r\ndata: more\r\n\r\n\rdata: two\n\ndata:three\r\r";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                chunks.push(&text[from..cut]);
                from = cut;
            }
            prop_assert_eq!(events(&chunks), ["one\nmore", "two", "three"]);
        }
    }
}

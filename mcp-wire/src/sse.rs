//! Server-sent events, read as they come (WHATWG, "event stream interpretation").
//!
//! Fields are gathered until the empty line that ends an event. What the format does not know means nothing; what is no text need not be any,
//! unless somebody wants to read it.

use std::time::Duration;

/// A stream that ended before the answer is asked for again after this, unless the server says another time.
pub const RESUME: Duration = Duration::from_secs(1);
/// And never sooner than after this.
pub const RESUME_SOONEST: Duration = Duration::from_millis(50);

/// Digits of a time.
const DIGITS: usize = 18;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Empty where it has none.
    pub name: Vec<u8>,
    /// Its lines of data, joined.
    pub data: Vec<u8>,
    /// Where the stream can go on after it.
    pub id: Option<String>,
    /// How long to wait before that, in milliseconds.
    pub retry: Option<u64>,
}

/// Where a stream can go on, by the events that came of it (revisions up to 2025-11-25).
#[derive(Debug, Clone)]
pub struct Resumption {
    /// The id of the last event that had one; none where it cannot go on.
    pub last: Option<String>,
    /// How long to wait before that.
    pub pause: Duration,
}

impl Default for Resumption {
    fn default() -> Self {
        Self { last: None, pause: RESUME }
    }
}

impl Resumption {
    /// An event came.
    pub fn passed(&mut self, event: &Event) {
        if let Some(id) = event.id.as_ref().filter(|id| !id.is_empty()) {
            self.last = Some(id.clone());
        }
        if let Some(pause) = event.retry {
            self.pause = Duration::from_millis(pause).max(RESUME_SOONEST);
        }
    }
}

impl Event {
    /// What it says, if it is a message. Servers prime a stream with an event without data: nothing to read in it.
    pub fn message(&self) -> Option<&[u8]> {
        // Others are the server's own, such as what keeps a connection alive, and no client reads them.
        let is_message = matches!(&self.name[..], b"" | b"message");
        (is_message && !self.data.trim_ascii().is_empty()).then_some(&self.data)
    }
}

/// Reads events out of a stream of bytes that may be cut anywhere.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// None before its first field.
    event: Option<Event>,
    /// The event has a line of data.
    has_data: bool,
    started: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
}

impl Parser {
    /// How many bytes are kept of the event under way.
    pub fn size(&self) -> usize {
        let of_event = |event: &Event| event.name.len() + event.data.len() + event.id.as_ref().map_or(0, String::len);
        self.line.len() + self.event.as_ref().map_or(0, of_event)
    }

    /// Takes the next bytes and hands every event that is now whole to `on_event`, until that returns true. True when it did.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(Event) -> bool) -> bool {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
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
            if let Some(event) = self.end_line()
                && on_event(event)
            {
                return true;
            }
        }
        self.line.extend_from_slice(bytes);
        false
    }

    /// The event that ends with this line.
    fn end_line(&mut self) -> Option<Event> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            self.has_data = false;
            return self.event.take();
        }
        if let Some(value) = field(&line, b"data") {
            let event = self.event.get_or_insert_default();
            if !std::mem::replace(&mut self.has_data, true) {
                // It may be large: it is moved, and not copied.
                let name = line.len() - value.len();
                line.drain(..name);
                event.data = line;
                return None;
            }
            event.data.push(b'\n');
            event.data.extend_from_slice(value);
        } else if let Some(name) = field(&line, b"event") {
            self.event.get_or_insert_default().name = name.to_vec();
        } else if let Some(id) = field(&line, b"id").and_then(|id| std::str::from_utf8(id).ok()) {
            if !id.contains('\0') {
                self.event.get_or_insert_default().id = Some(id.to_owned());
            }
        } else if let Some(time) = field(&line, b"retry").filter(|time| is_time(time)) {
            let time = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
            self.event.get_or_insert_default().retry = time;
        }
        line.clear();
        self.line = line;
        None
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

fn is_time(value: &[u8]) -> bool {
    (1..=DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, |event| {
                events.push(event);
                false
            });
        }
        events
    }

    fn messages(chunks: &[&[u8]]) -> Vec<String> {
        let events = read(chunks);
        events.iter().filter_map(Event::message).map(|data| String::from_utf8_lossy(data).into_owned()).collect()
    }

    #[test]
    fn lines_may_end_in_any_of_the_three_ways() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
            assert_eq!(messages(&[text.as_bytes()]), ["a", "b"], "{text:?}");
        }
    }

    #[test]
    fn lines_of_data_are_joined_and_what_the_format_does_not_know_is_skipped() {
        let text = b": hello\nevent: message\nid: 7\nretry: 1\ndata: {\ndata:}\ndatum: x\nfoo\nx-trace-id: 7\n\n";
        assert_eq!(
            read(&[text]),
            [Event { name: b"message".to_vec(), data: b"{\n}".to_vec(), id: Some("7".into()), retry: Some(1) }]
        );
        assert_eq!(messages(&[b"data\ndata\n\ndata: a\n\n"]), ["a"]);
    }

    #[test]
    fn of_a_field_that_comes_twice_the_last_one_counts_and_a_time_that_is_none_does_not() {
        let events = read(&[b"id: 1\nevent: a\nid: 2\nevent: message\ndata: a\n\nretry: soon\nretry:5\nretry: 1s\nretry:\n\n"]);
        assert_eq!((events[0].id.as_deref(), events[0].message()), (Some("2"), Some(&b"a"[..])));
        assert_eq!(events[1], Event { retry: Some(5), ..Event::default() });
        assert_eq!(read(&[b"retry: 99999999999999999999\nid: \0\n: x\n\n"]), []);
    }

    #[test]
    fn a_stream_goes_on_behind_the_last_event_that_had_an_id_when_the_server_says() {
        let after = |text: &[u8]| {
            let mut resumption = Resumption::default();
            for event in read(&[text]) {
                resumption.passed(&event);
            }
            (resumption.last, resumption.pause)
        };
        assert_eq!(after(b"data: a\n\n"), (None, RESUME));
        assert_eq!(after(b"id: 1\nretry: 300\ndata:\n\nid\ndata: a\n\n"), (Some("1".into()), Duration::from_millis(300)));
        assert_eq!(after(b"id: 1\n\nid: 2\nretry: 0\n\n"), (Some("2".into()), RESUME_SOONEST));
    }

    #[test]
    fn an_event_of_another_name_is_no_message_whatever_its_bytes_are() {
        assert_eq!(
            messages(&[b"event: ping\ndata: \xff\n\nevent: message\ndata: a\n\nevent\ndata: b\n\ndata: c\n\n"]),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn an_event_without_data_or_without_an_end_says_nothing() {
        assert_eq!(messages(&[b"id: 1\ndata:\n\nid: 2\n\ndata: unfinished\n"]), Vec::<String>::new());
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(messages(&[b"\xef\xbb", b"\xbfdata: a\n\n"]), ["a"]);
    }

    #[test]
    fn reading_stops_at_the_event_that_was_looked_for() {
        let mut seen = 0;
        let found = Parser::default().feed(b"data: a\n\ndata: b\n\ndata: c\n\n", |event| {
            seen += 1;
            event.data == b"b"
        });
        assert!(found);
        assert_eq!(seen, 2);
    }

    #[test]
    fn what_is_kept_of_an_event_is_known_before_it_ends() {
        let mut parser = Parser::default();
        parser.feed(b"data: one\n\nid: 1\ndata: two\ndata: th", |_| false);
        assert_eq!(parser.size(), "1".len() + "two".len() + "data: th".len());
        parser.feed(b"ree\n\n", |_| false);
        assert_eq!(parser.size(), 0);
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
            prop_assert_eq!(messages(&chunks), ["one\nmore", "two", "three"]);
        }
    }
}

//! Server-sent events, read as they come (WHATWG, "event stream interpretation"): those of MCP servers and of model APIs.
//!
//! Fields are gathered until the empty line that ends an event. What the format does not know means nothing; what is no text need not be any,
//! unless somebody wants to read it. However the bytes are cut, each is looked at once, and no more is kept of an event than was asked for.
//!
//! Why there is no crate in its place (`examples/bench_sse.rs`, two runs on two busy cores):
//!
//! | | 1,000 small events, ns each | one of 10 MiB, ms | what it lacks |
//! | --- | --- | --- | --- |
//! | this one | 89, 123 | 1.3, 1.1 | |
//! | sse-core 0.2.3 | 120, 120 | 9.4, 8.3 | it keeps the room of its largest event for as long as a stream lives, tells not how much it holds, and replaces what is no text |
//! | sseer 0.3.1 | 182, 250 | 2.2, 1.4 | a bound; what is no text is an error, also in an event that nobody reads |
//! | sse-stream 0.2.6 | 149, 155 | 7.0, 6.9 | a bound; a field that it does not know is an error, and so is what is no text |
//! | eventsource-stream 0.2.3 | 641, 1181 | 2972, 3154 | a bound; a long event takes time by its square |

use std::{borrow::Cow, time::Duration};

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

/// An event that is larger than is taken, in bytes. The stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {} MiB", .0 >> 20)]
pub struct TooLarge(pub usize);

/// Reads events out of a stream of bytes that may be cut anywhere. What stands behind the last empty line is not whole, and goes with it.
#[derive(Debug)]
pub struct Parser {
    most: usize,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    /// None before its first field.
    event: Option<Event>,
    /// The event has a line of data.
    has_data: bool,
    started: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
}

impl Parser {
    /// No event may be larger than `most`.
    pub const fn new(most: usize) -> Self {
        Self { most, begun: Vec::new(), event: None, has_data: false, started: false, after_cr: false }
    }

    /// How many bytes are kept of the event under way.
    pub fn size(&self) -> usize {
        let of_event = |event: &Event| event.name.len() + event.data.len() + event.id.as_ref().map_or(0, String::len);
        self.begun.len() + self.event.as_ref().map_or(0, of_event)
    }

    /// Takes bytes until an event is whole; none when all are taken.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, TooLarge> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            *bytes = bytes.strip_prefix(b"\n").unwrap_or(*bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (line, rest) = bytes.split_at(end);
            *bytes = match rest {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => rest,
            };
            self.after_cr = rest == b"\r";
            self.check(line.len())?;
            let event = if self.begun.is_empty() {
                self.end_line(Cow::Borrowed(line))
            } else {
                let mut begun = std::mem::take(&mut self.begun);
                begun.extend_from_slice(line);
                self.end_line(Cow::Owned(begun))
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        self.check(bytes.len())?;
        self.begun.extend_from_slice(bytes);
        *bytes = &[];
        Ok(None)
    }

    /// Whether there is room for so much more.
    fn check(&self, more: usize) -> Result<(), TooLarge> {
        if self.size() + more > self.most { Err(TooLarge(self.most)) } else { Ok(()) }
    }

    /// The event that ends with this line.
    fn end_line(&mut self, mut line: Cow<'_, [u8]>) -> Option<Event> {
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line = Cow::Owned(line[3..].to_vec());
        }
        if line.is_empty() {
            self.has_data = false;
            return self.event.take();
        }
        if let Some(value) = field(&line, b"data") {
            let event = self.event.get_or_insert_default();
            if std::mem::replace(&mut self.has_data, true) {
                event.data.push(b'\n');
                event.data.extend_from_slice(value);
            } else {
                let name = line.len() - value.len();
                event.data = match line {
                    Cow::Borrowed(line) => line[name..].to_vec(),
                    // It may be large: it is moved, and not copied.
                    Cow::Owned(mut line) => {
                        line.drain(..name);
                        line
                    }
                };
            }
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
    use eventsource_stream::Eventsource;
    use futures::{FutureExt as _, StreamExt as _, stream};
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1 << 20;

    fn all(chunks: &[&[u8]]) -> Result<Vec<Event>, TooLarge> {
        let (mut parser, mut events) = (Parser::new(MOST), Vec::new());
        for mut chunk in chunks.iter().copied() {
            while let Some(event) = parser.next(&mut chunk)? {
                events.push(event);
            }
            assert!(chunk.is_empty(), "all is taken");
        }
        Ok(events)
    }

    fn read(chunks: &[&[u8]]) -> Vec<Event> {
        all(chunks).unwrap()
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
    fn reading_stops_behind_the_event_that_is_whole() {
        let mut bytes = &b"data: a\n\ndata: b\n\ndata: c\n\n"[..];
        let event = Parser::new(MOST).next(&mut bytes).unwrap().unwrap();
        assert_eq!((&event.data[..], bytes), (&b"a"[..], &b"data: b\n\ndata: c\n\n"[..]));
    }

    #[test]
    fn what_is_kept_of_an_event_is_known_before_it_ends() {
        let mut parser = Parser::new(MOST);
        let mut bytes = &b"data: one\n\nid: 1\ndata: two\ndata: th"[..];
        assert!(parser.next(&mut bytes).unwrap().is_some());
        assert_eq!((parser.size(), parser.next(&mut bytes)), (0, Ok(None)));
        assert_eq!(parser.size(), "1".len() + "two".len() + "data: th".len());
        assert!(parser.next(&mut &b"ree\n\n"[..]).unwrap().is_some());
        assert_eq!(parser.size(), 0);
    }

    #[test]
    fn what_is_too_large_is_an_error_before_it_is_kept() {
        let long = vec![b'x'; MOST - 5];
        assert_eq!(all(&[b"data: ", &long]), Err(TooLarge(MOST)), "a line without an end");
        assert_eq!(all(&[b"data: ", &long[1..], b"\n\n"]).map(|events| events.len()), Ok(1), "as large as is taken");
        let lines = b"data: 0123456789\n".repeat(MOST / 11 + 1);
        assert_eq!(all(&[&lines]), Err(TooLarge(MOST)), "an event without an end");
        let comments = b": 0123456789\n".repeat(MOST / 11 + 1);
        assert_eq!(messages(&[&comments, b"data: 1\n\n"]), ["1"], "comments are nobody's data");
        assert_eq!(TooLarge(MOST).to_string(), "an event is larger than 1 MiB");
    }

    #[test]
    fn events_come_whole_however_they_are_cut_and_a_begun_one_is_dropped() {
        let text = b"\xef\xbb\xbfevent: a\r\ndata: one\r\n\r\n: a comment\n\ndata:two\ndata\ndata:  three\n\ndatas: x\nid: 1\n\rdata: f\xc3\xbcnf\r\rdata: six\n";
        for cut in 0..text.len() {
            for next in cut..text.len() {
                let events = read(&[&text[..cut], &text[cut..next], &text[next..]]);
                let data: Vec<_> = events.iter().map(|event| String::from_utf8_lossy(&event.data)).collect();
                assert_eq!(data, ["one", "two\n\n three", "", "fünf"], "{cut} {next}");
                assert_eq!((&events[0].name[..], events[2].id.as_deref()), (&b"a"[..], Some("1")), "{cut} {next}");
            }
        }
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

        #[test]
        fn another_reader_reads_the_same(text in "(data|data: ?|event: |:|id|\n|\r|x|ü| ){0,60}", cut in 0_usize..200) {
            // The other one tells what a last return ends only when a byte follows.
            let text = text + "x";
            let bytes = text.as_bytes();
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let pieces = stream::iter([one, two].map(|piece| Ok::<_, std::io::Error>(piece.to_vec())));
            let theirs = pieces.eventsource().map(|event| event.map(|event| event.data).unwrap_or_default());
            let mut theirs: Vec<String> = theirs.collect().now_or_never().unwrap_or_default();
            // It tells of no event without a line of data, and of one whose line is empty.
            theirs.retain(|data| !data.is_empty());
            let ours = read(&[one, two]).into_iter().map(|event| String::from_utf8(event.data).unwrap());
            prop_assert_eq!(ours.filter(|data| !data.is_empty()).collect::<Vec<_>>(), theirs);
        }
    }
}

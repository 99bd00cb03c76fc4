//! Server-sent events from the bytes of a stream, as the HTML standard reads them: the data of each event that has any. Every byte is
//! looked at once, however the bytes are cut. Names and ids of events are not kept: no API needs them. Pure.

use memchr::memchr2;

/// An event larger than this is no event.
const MAX_EVENT: usize = 4 * 1024 * 1024;

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("one of its events is larger than {} MiB", MAX_EVENT / 1024 / 1024)]
    TooLarge,
    #[error("one of its events is no UTF-8")]
    Utf8,
}

/// Collects events. What stands behind the last empty line is not complete, and is dropped with it.
#[derive(Debug, Default)]
pub struct Events {
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    /// The data of the event that is under way, each line with its end.
    data: Vec<u8>,
    /// The data was handed out: what comes next is another event.
    complete: bool,
    /// The line before ended in a return: a line feed that follows belongs to it.
    after_return: bool,
    /// The first line has come.
    started: bool,
}

impl Events {
    /// Takes bytes until they complete an event, and tells its data; `None` when all bytes are taken.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<&str>, EventError> {
        if std::mem::take(&mut self.complete) {
            self.data.clear();
        }
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.begun.extend_from_slice(bytes);
                *bytes = &[];
                self.check_size()?;
                break;
            };
            let line = &bytes[..end];
            self.after_return = bytes[end] == b'\r';
            *bytes = &bytes[end + 1..];
            if self.begun.is_empty() {
                self.take(line);
            } else {
                let mut begun = std::mem::take(&mut self.begun);
                begun.extend_from_slice(line);
                self.take(&begun);
                begun.clear();
                self.begun = begun;
            }
            self.check_size()?;
            if self.complete {
                let data = self.data.strip_suffix(b"\n").unwrap_or(&self.data);
                return std::str::from_utf8(data).map(Some).map_err(|_| EventError::Utf8);
            }
        }
        Ok(None)
    }

    /// Takes a whole line.
    fn take(&mut self, line: &[u8]) {
        let line =
            if std::mem::replace(&mut self.started, true) { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        if line.is_empty() {
            // An event without data is none.
            self.complete = !self.data.is_empty();
            return;
        }
        let Some(value) = line.strip_prefix(b"data") else { return };
        let value = match value.strip_prefix(b":") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if value.is_empty() => value,
            None => return,
        };
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
    }

    fn check_size(&self) -> Result<(), EventError> {
        if self.begun.len() + self.data.len() > MAX_EVENT { Err(EventError::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use eventsource_stream::Eventsource;
    use futures::{FutureExt, StreamExt, stream};
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, EventError> {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        for mut piece in pieces.iter().copied() {
            while let Some(data) = events.next(&mut piece)? {
                seen.push(data.to_owned());
            }
        }
        Ok(seen)
    }

    #[test]
    fn events_come_whole_however_they_are_cut_and_a_begun_one_is_dropped() {
        let text = b"\xef\xbb\xbfevent: a\r\ndata: one\r\n\r\n: a comment\n\ndata:two\ndata\ndata:  three\n\ndatas: x\nid: 1\n\rdata: f\xc3\xbcnf\r\rdata: six\n";
        for cut in 0..text.len() {
            for next in cut..text.len() {
                let seen = read(&[&text[..cut], &text[cut..next], &text[next..]]);
                assert_eq!(seen.expect("readable"), ["one", "two\n\n three", "fünf"], "{cut} {next}");
            }
        }
    }

    #[test]
    fn what_is_too_large_or_no_text_is_an_error() {
        let long = vec![b'x'; MAX_EVENT];
        assert_eq!(read(&[b"data: ", &long]), Err(EventError::TooLarge), "a line without an end");
        let lines = b"data: 0123456789\n".repeat(MAX_EVENT / 11 + 1);
        assert_eq!(read(&[&lines]), Err(EventError::TooLarge), "an event without an end");
        let comments = b": 0123456789\n".repeat(MAX_EVENT / 11 + 1);
        assert_eq!(read(&[&comments, b"data: 1\n\n"]), Ok(vec!["1".to_owned()]), "comments are nobody's data");
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(EventError::Utf8));
    }

    proptest! {
        #[test]
        fn another_reader_reads_the_same(text in "(data|data: ?|event: |:|id|\n|\r|x|ü| ){0,60}", cut in 0_usize..200) {
            // The other one tells what a last return ends only when a byte follows.
            let text = text + "x";
            let bytes = text.as_bytes();
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let pieces = stream::iter([one, two].map(|piece| Ok::<_, std::io::Error>(piece.to_vec())));
            let theirs = pieces.eventsource().map(|event| event.map(|event| event.data).unwrap_or_default());
            let theirs: Vec<String> = theirs.collect().now_or_never().unwrap_or_default();
            prop_assert_eq!(read(&[one, two]).unwrap_or_default(), theirs);
        }
    }
}

//! Messages in a stream of bytes. MCP's standard input and output separate them by newlines today; another framing is another
//! implementation of one trait.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is asked of the pipe at once: what a pipe holds by default.
const READ: usize = 64 << 10;

/// What stands between two messages.
pub trait Framing {
    /// Looks at bytes that were not looked at before, and says where the first message ends.
    fn find_end(&mut self, new: &[u8]) -> Option<Cut>;
    /// Ends the message that was appended to `out` at `begin`.
    fn end(&self, out: &mut Vec<u8>, begin: usize);
}

/// A message ends after so many of the new bytes, and so many more belong to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the message among the new ones.
    pub bytes: usize,
    /// Bytes of what separates it from the next one.
    pub separator: usize,
}

/// One message a line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Newlines;

impl Framing for Newlines {
    fn find_end(&mut self, new: &[u8]) -> Option<Cut> {
        memchr::memchr(b'\n', new).map(|bytes| Cut { bytes, separator: 1 })
    }

    /// A newline outside of JSON's strings is white space, and inside of them cannot be: blanks are the same message.
    fn end(&self, out: &mut Vec<u8>, begin: usize) {
        let mut at = begin;
        while let Some(next) = memchr::memchr2(b'\n', b'\r', &out[at..]) {
            out[at + next] = b' ';
            at += next + 1;
        }
        out.push(b'\n');
    }
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'b> {
    /// A whole message.
    Message(&'b [u8]),
    /// One of so many bytes, which is more than is taken; they are gone but for its ends, which may say what it was.
    TooLong {
        /// Of it all.
        bytes: usize,
        /// Its first ones.
        head: &'b [u8],
        /// Its last ones.
        tail: &'b [u8],
    },
}

/// Bytes that are kept of each end of a message that is too long.
const END: usize = 128;

/// Reads messages, each byte searched once.
#[derive(Debug)]
pub struct Frames<R, F = Newlines> {
    from: R,
    framing: F,
    max: usize,
    buffer: Vec<u8>,
    /// Where the first message that was not handed out begins.
    begin: usize,
    /// Up to where the buffer was searched.
    searched: usize,
    /// Bytes of a message that is too long, thrown away so far.
    skipped: usize,
    /// The ends of that message.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl<R: AsyncRead + Unpin, F: Framing> Frames<R, F> {
    /// Messages longer than `max` bytes are skipped.
    pub fn new(from: R, framing: F, max: usize) -> Self {
        let buffer = Vec::with_capacity(READ);
        Self { from, framing, max, buffer, begin: 0, searched: 0, skipped: 0, head: Vec::new(), tail: Vec::new() }
    }

    /// Reads once; 0: there is no more. May be dropped at any time without a loss.
    pub async fn read(&mut self) -> io::Result<usize> {
        self.make_room();
        self.from.read_buf(&mut self.buffer).await
    }

    fn make_room(&mut self) {
        if self.begin == self.buffer.len() {
            self.buffer.clear();
            // What one long message took is given back.
            if self.buffer.capacity() > 4 * READ {
                self.buffer.shrink_to(READ);
            }
        } else if self.begin > 0 {
            self.buffer.drain(..self.begin);
        }
        self.searched -= self.begin;
        self.begin = 0;
        if self.buffer.capacity() - self.buffer.len() < READ / 2 {
            self.buffer.reserve(READ);
        }
    }

    /// The next message of what has been read.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let Some(Cut { bytes, separator }) = self.framing.find_end(&self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            let unfinished = self.searched - self.begin;
            if self.skipped > 0 || unfinished > self.max {
                self.skip(self.searched);
            }
            return None;
        };
        let (begin, end) = (self.begin, self.searched + bytes);
        let is_long = self.skipped + end - begin > self.max;
        if is_long {
            self.skip(end);
        }
        self.begin = end + separator;
        self.searched = self.begin;
        Some(if is_long {
            Frame::TooLong { bytes: std::mem::take(&mut self.skipped), head: &self.head, tail: &self.tail }
        } else {
            Frame::Message(&self.buffer[begin..end])
        })
    }

    /// What is left when there is no more to read: a message that has no end, unless it is too long.
    pub fn rest(&mut self) -> Option<&[u8]> {
        let begin = std::mem::replace(&mut self.begin, self.buffer.len());
        self.searched = self.buffer.len();
        (std::mem::take(&mut self.skipped) == 0 && begin < self.buffer.len()).then(|| &self.buffer[begin..])
    }

    /// Where the bytes come from.
    pub fn source(&mut self) -> &mut R {
        &mut self.from
    }

    /// Up to there, it belongs to a message that is too long.
    fn skip(&mut self, end: usize) {
        let part = &self.buffer[self.begin..end];
        if self.skipped == 0 {
            self.head.clear();
            self.head.extend_from_slice(&part[..part.len().min(END)]);
            self.tail.clear();
        }
        self.tail.extend_from_slice(&part[part.len().saturating_sub(END)..]);
        self.tail.drain(..self.tail.len().saturating_sub(END));
        self.skipped += part.len();
        self.begin = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn all(text: &[u8], max: usize) -> Vec<Result<Vec<u8>, usize>> {
        let mut frames = Frames::new(text, Newlines, max);
        let mut read = Vec::new();
        while frames.read().await.unwrap() > 0 {
            while let Some(frame) = frames.next_frame() {
                read.push(match frame {
                    Frame::Message(message) => Ok(message.to_vec()),
                    Frame::TooLong { bytes, head, tail } => {
                        assert!(head.len() == tail.len() && head.len() == bytes.min(END));
                        Err(bytes)
                    }
                });
            }
        }
        read
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let long = vec![b'x'; 3 * READ];
        let text = [&long[..], b"\nshort\n\n"].concat();
        assert_eq!(all(&text, READ).await, [Err(3 * READ), Ok(b"short".to_vec()), Ok(Vec::new())]);
    }

    #[tokio::test]
    async fn the_ends_of_a_line_that_is_too_long_are_kept() {
        let text = [b"{\"id\":1,", &vec![b'x'; 3 * READ][..], b",\"a\":2}\n"].concat();
        let mut frames = Frames::new(&text[..], Newlines, READ);
        let mut seen = 0;
        while frames.read().await.unwrap() > 0 {
            while let Some(frame) = frames.next_frame() {
                let Frame::TooLong { head, tail, .. } = frame else { unreachable!() };
                assert!(head.starts_with(b"{\"id\":1,x") && tail.ends_with(b"x,\"a\":2}"));
                seen += 1;
            }
        }
        assert_eq!(seen, 1);
    }

    #[tokio::test]
    async fn what_one_long_line_took_is_given_back() {
        let text = [&vec![b'x'; 4 << 20][..], b"\n"].concat();
        let mut frames = Frames::new(&text[..], Newlines, 16 << 20);
        while frames.read().await.unwrap() > 0 {
            while frames.next_frame().is_some() {}
        }
        assert!(frames.buffer.capacity() <= 4 * READ, "{}", frames.buffer.capacity());
    }

    #[test]
    fn a_message_becomes_one_line_whatever_its_white_space() {
        let mut out = b"before\n{\r\n \"a\": 1}".to_vec();
        Newlines.end(&mut out, 7);
        assert_eq!(out, b"before\n{   \"a\": 1}\n");
    }

    proptest! {
        #[test]
        fn lines_come_as_they_were_written(lines in prop::collection::vec("[a-z]{0,40}", 0..50), max in 1_usize..40) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(all(text.as_bytes(), max));
            let expected: Vec<_> = lines
                .iter()
                .map(|line| if line.len() > max { Err(line.len()) } else { Ok(line.as_bytes().to_vec()) })
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}

//! A child's standard error: read to its end, so that the child never waits for a reader; handed on line by line, and its last lines kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// How much is kept and handed on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a line; the rest of it is left out.
    pub line: usize,
    /// Lines that are kept.
    pub kept: usize,
    /// Lines that are handed on in a second; further ones are read, kept and counted.
    pub lines_a_second: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line: 2_000, kept: 100, lines_a_second: 1_000 }
    }
}

/// The last lines, as they came. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Tail {
    /// The last `count` of them, oldest first, without the characters that would move a terminal's cursor or colour it.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines();
        lines.iter().skip(lines.len().saturating_sub(count)).map(|line| readable(line)).collect()
    }

    fn push(&self, line: &[u8], kept: usize) {
        let mut lines = self.lines();
        let mut room = if lines.len() >= kept { lines.pop_front().unwrap_or_default() } else { Vec::new() };
        room.clear();
        room.extend_from_slice(line);
        lines.push_back(room);
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line as text: escape sequences and other control characters are left out.
pub fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.trim_end().chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            // Up to the letter that ends the sequence.
            while characters.next().is_some_and(|character| !('@'..='~').contains(&character)) {}
        } else if character == '\t' || !character.is_control() {
            out.push(character);
        }
    }
    out
}

/// Lines as text, without empty ones.
pub fn readable_lines(text: &[u8]) -> Vec<String> {
    text.split(|byte| *byte == b'\n').map(readable).filter(|line| !line.trim().is_empty()).collect()
}

/// Reads to the end. `hand_on` gets several lines at once, each with its newline.
pub async fn keep(mut from: impl AsyncRead + Unpin, tail: Tail, limits: Limits, mut hand_on: impl FnMut(&[u8])) {
    let mut chunk = vec![0; 16 << 10];
    let mut lines =
        Lines { limits, line: Vec::new(), out: Vec::new(), left: limits.lines_a_second, since: Instant::now(), left_out: 0 };
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            lines.end_line(&tail);
        }
        lines.take(&chunk[..read], &tail);
        if !lines.out.is_empty() {
            hand_on(&lines.out);
            lines.out.clear();
        }
        if read == 0 {
            return;
        }
    }
}

struct Lines {
    limits: Limits,
    /// The one that has not ended, cut at the limit.
    line: Vec<u8>,
    /// To be handed on.
    out: Vec<u8>,
    /// Of this second's.
    left: usize,
    since: Instant,
    left_out: usize,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8], tail: &Tail) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.append(&bytes[..end]);
            self.end_line(tail);
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = self.limits.line.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, tail: &Tail) {
        if self.line.is_empty() {
            return;
        }
        tail.push(&self.line, self.limits.kept);
        let now = Instant::now();
        if now >= self.since + SECOND {
            (self.left, self.since) = (self.limits.lines_a_second, now);
            if self.left_out > 0 {
                let words = format!("mcpfleet: {} lines of standard error were left out\n", self.left_out);
                self.out.extend_from_slice(words.as_bytes());
                self.left_out = 0;
            }
        }
        if self.left > 0 {
            self.left -= 1;
            self.out.extend_from_slice(&self.line);
            self.out.push(b'\n');
        } else {
            self.left_out += 1;
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn kept(text: &[u8], limits: Limits) -> (Vec<String>, String) {
        let tail = Tail::default();
        let mut handed_on = Vec::new();
        keep(text, tail.clone(), limits, |lines| handed_on.extend_from_slice(lines)).await;
        (tail.last(usize::MAX), String::from_utf8(handed_on).unwrap())
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_all_are_handed_on_unchanged() {
        let limits = Limits { kept: 2, ..Limits::default() };
        let (tail, handed_on) = kept(b"one\n\x1b[31mtwo\x1b[0m\r\n\nthree", limits).await;
        assert_eq!(tail, ["two", "three"]);
        assert_eq!(handed_on, "one\n\x1b[31mtwo\x1b[0m\r\nthree\n");
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_a_flood_is_not_handed_on() {
        let limits = Limits { line: 4, kept: 1, lines_a_second: 2 };
        let (tail, handed_on) = kept(b"abcdefgh\nb\nc\nd\n", limits).await;
        assert_eq!((tail, handed_on.as_str()), (vec!["d".to_owned()], "abcd\nb\n"));
    }
}

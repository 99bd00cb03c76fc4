//! The fields of a stream of events that mean something. Others mean nothing, as the format says (WHATWG, "event stream
//! interpretation"), nor does a time that is none, and every SDK reads over them; the reader that is used here would end the stream, also at
//! a second name or id of one event, of which the first counts. Pure.

/// The longest name of a field that is known.
const LONGEST: usize = 5;
const RETRY: &[u8] = b"retry:";
/// Digits of a time.
const DIGITS: usize = 18;

/// Leaves out of a stream, piece by piece, the lines that mean nothing.
#[derive(Debug, Default)]
pub struct Known {
    /// What came of a line whose field is not known yet.
    start: Vec<u8>,
    line: Line,
    /// A line that was kept ended with a CR, to which an LF may belong.
    after_return: bool,
    /// What was kept of the event under way before this piece, and where in what is kept of the piece it goes on.
    before: usize,
    from: usize,
    /// Whether the event under way has a name, an id and a time already.
    seen: [bool; 3],
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Begins,
    Kept,
    /// Of a time, what has come of it is in `start`.
    Retry,
    LeftOut,
    /// A line that was left out ended with a CR, to which an LF may belong.
    Ended,
}

impl Known {
    /// How many bytes there are of the event under way, up to the end of the last piece.
    pub fn event(&self) -> usize {
        self.before
    }

    /// The piece without such lines.
    pub fn of(&mut self, mut piece: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(piece.len() + LONGEST);
        self.from = 0;
        if self.line == Line::Ended {
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            self.line = Line::Begins;
        }
        while let Some((first, rest)) = piece.split_first() {
            piece = match self.line {
                Line::Begins | Line::Retry => {
                    if self.line == Line::Begins {
                        self.begin(*first, &mut kept);
                    } else {
                        self.time(*first, &mut kept);
                    }
                    if self.line == Line::Ended && !rest.is_empty() {
                        self.line = Line::Begins;
                        rest.strip_prefix(b"\n").unwrap_or(rest)
                    } else {
                        rest
                    }
                }
                Line::Kept => {
                    let end = memchr::memchr2(b'\n', b'\r', piece).map_or(piece.len(), |end| end + 1);
                    kept.extend_from_slice(&piece[..end]);
                    if piece[end - 1] == b'\n' || piece[end - 1] == b'\r' {
                        self.line = Line::Begins;
                        self.after_return = piece[end - 1] == b'\r';
                    }
                    &piece[end..]
                }
                Line::LeftOut => match memchr::memchr2(b'\n', b'\r', piece) {
                    Some(end) => {
                        let rest = &piece[end + 1..];
                        self.line = if piece[end] == b'\r' && rest.is_empty() { Line::Ended } else { Line::Begins };
                        if piece[end] == b'\r' { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest }
                    }
                    None => &[],
                },
                // It was looked at before.
                Line::Ended => piece,
            };
        }
        self.before += kept.len() - self.from;
        kept
    }

    fn begin(&mut self, byte: u8, kept: &mut Vec<u8>) {
        let ends_before = std::mem::take(&mut self.after_return) && byte == b'\n';
        match byte {
            b':' => {
                let is_kept = match &self.start[..] {
                    b"data" | b"" => true,
                    b"event" => !std::mem::replace(&mut self.seen[0], true),
                    b"id" => !std::mem::replace(&mut self.seen[1], true),
                    b"retry" => {
                        self.start.push(byte);
                        self.line = Line::Retry;
                        return;
                    }
                    _ => false,
                };
                if is_kept {
                    kept.append(&mut self.start);
                    kept.push(byte);
                    self.line = Line::Kept;
                } else {
                    self.start.clear();
                    self.line = Line::LeftOut;
                }
            }
            b'\n' | b'\r' if self.start.is_empty() => {
                kept.push(byte);
                self.after_return = byte == b'\r';
                if !ends_before {
                    // An event ends with an empty line.
                    (self.before, self.from, self.seen) = (0, kept.len(), [false; 3]);
                }
            }
            // A field without a colon has an empty value.
            b'\n' | b'\r' if self.start == b"data" => {
                kept.append(&mut self.start);
                kept.extend([b':', byte]);
                self.after_return = byte == b'\r';
            }
            b'\n' | b'\r' => {
                self.start.clear();
                self.line = if byte == b'\r' { Line::Ended } else { Line::Begins };
            }
            _ if self.start.len() >= LONGEST => {
                self.start.clear();
                self.line = Line::LeftOut;
            }
            _ => self.start.push(byte),
        }
    }

    fn time(&mut self, byte: u8, kept: &mut Vec<u8>) {
        if !matches!(byte, b'\n' | b'\r') {
            // Behind a space there may be one digit less than there is room for: it is no time either way.
            if self.start.len() > RETRY.len() + DIGITS {
                self.start.clear();
                self.line = Line::LeftOut;
            } else {
                self.start.push(byte);
            }
            return;
        }
        let value = &self.start[RETRY.len()..];
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let is_time = !value.is_empty() && value.len() <= DIGITS && value.iter().all(u8::is_ascii_digit);
        if is_time && !std::mem::replace(&mut self.seen[2], true) {
            kept.append(&mut self.start);
            kept.push(byte);
            self.line = Line::Begins;
            self.after_return = byte == b'\r';
        } else {
            self.start.clear();
            self.line = if byte == b'\r' { Line::Ended } else { Line::Begins };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_is_left_out_wherever_the_pieces_end() {
        for (stream, read) in [
            ("data: a\n\ndata: b\n\n", "data: a\n\ndata: b\n\n"),
            ("x: 1\ndata: a\nfoo\n\n", "data: a\n\n"),
            ("event: message\r\nx-trace-id: 7\r\ndata: a\r\n\r\n", "event: message\r\ndata: a\r\n\r\n"),
            ("nothing\rdata: a\r\r", "data: a\r\r"),
            (": a comment\nid: 1\nretry: 5\ndata\n\n", ": a comment\nid: 1\nretry: 5\ndata:\n\n"),
            ("datas: x\nda\ndata:a:b\n\n", "data:a:b\n\n"),
            ("retry: soon\nretry:\rretry: 1s\r\nretry: 99999999999999999999\ndata: a\n\n", "data: a\n\n"),
            ("retry:5\r\nretry: 6\r\ndata: a\r\n\r\nretry: 7\n\n", "retry:5\r\ndata: a\r\n\r\nretry: 7\n\n"),
            ("id: 1\nevent: a\nid: 2\nevent: b\ndata: a\n\nid: 3\n\n", "id: 1\nevent: a\ndata: a\n\nid: 3\n\n"),
        ] {
            for size in 1..=stream.len() {
                let mut known = Known::default();
                let kept: Vec<u8> = stream.as_bytes().chunks(size).flat_map(|piece| known.of(piece)).collect();
                assert_eq!(String::from_utf8(kept).expect("text"), read, "{stream:?} by {size}");
            }
        }
    }

    #[test]
    fn an_event_is_as_large_as_what_came_since_the_last_one_ended_whatever_ends_its_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!("data: one{end}{end}id: 1{end}data: twotwo{end}");
            let event = format!("id: 1{end}data: twotwo{end}");
            for size in 1..=stream.len() {
                let mut known = Known::default();
                stream.as_bytes().chunks(size).for_each(|piece| drop(known.of(piece)));
                // The LF of the last CR may still be counted to the event that it ended.
                assert!(known.event().abs_diff(event.len()) <= 1, "{end:?} by {size}: {}", known.event());
                known.of(end.as_bytes());
                assert!(known.event() <= 1, "{end:?} by {size}: it has ended");
            }
        }
    }
}

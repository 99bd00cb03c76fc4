//! The fields of a stream of events that mean something. Others mean nothing, as the format says (WHATWG, "event stream
//! interpretation"), and every SDK reads over them; the reader that is used here would end the stream. Pure.

/// The longest name of a field that is known.
const LONGEST: usize = 5;

/// Leaves out of a stream, piece by piece, the lines that mean nothing.
#[derive(Debug, Default)]
pub struct Known {
    /// What came of a line whose field is not known yet.
    start: Vec<u8>,
    line: Line,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Begins,
    Kept,
    LeftOut,
    /// A line that was left out ended with a CR, to which an LF may belong.
    Ended,
}

impl Known {
    /// The piece without such lines.
    pub fn of(&mut self, mut piece: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(piece.len() + LONGEST);
        if self.line == Line::Ended {
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            self.line = Line::Begins;
        }
        while let Some((first, rest)) = piece.split_first() {
            piece = match self.line {
                Line::Begins => {
                    self.begin(*first, &mut kept);
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
        kept
    }

    fn begin(&mut self, byte: u8, kept: &mut Vec<u8>) {
        match byte {
            b':' if matches!(&self.start[..], b"data" | b"event" | b"id" | b"retry" | b"") => {
                kept.append(&mut self.start);
                kept.push(byte);
                self.line = Line::Kept;
            }
            b'\n' | b'\r' if self.start.is_empty() => kept.push(byte),
            // A field without a colon has an empty value.
            b'\n' | b'\r' if self.start == b"data" => {
                kept.append(&mut self.start);
                kept.extend([b':', byte]);
            }
            b'\n' | b'\r' => {
                self.start.clear();
                self.line = if byte == b'\r' { Line::Ended } else { Line::Begins };
            }
            b':' => {
                self.start.clear();
                self.line = Line::LeftOut;
            }
            _ if self.start.len() >= LONGEST => {
                self.start.clear();
                self.line = Line::LeftOut;
            }
            _ => self.start.push(byte),
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
        ] {
            for size in 1..=stream.len() {
                let mut known = Known::default();
                let kept: Vec<u8> = stream.as_bytes().chunks(size).flat_map(|piece| known.of(piece)).collect();
                assert_eq!(String::from_utf8(kept).expect("text"), read, "{stream:?} by {size}");
            }
        }
    }
}

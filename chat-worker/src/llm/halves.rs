//! Letters that a stream cuts in two. An API whose text is UTF-16 may end one event with the first half of a pair, and begin a later one with
//! the second: joined, they are the letter that was meant. A half whose other one does not come is replaced, as in what servers send
//! (`mcp_wire::json`). Pure.

use std::borrow::Cow;

use memchr::memmem;

/// How a half of a pair is written in JSON.
const HALF: usize = r"\ud83d".len();

/// The first half that the last text of a stream ended with.
#[derive(Debug, Default)]
pub struct Halves {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// Of the field whose text was cut: it goes on in a field of the same name.
    field: String,
    /// As it was written.
    half: String,
}

impl Halves {
    /// An event's data with the half that the one before ended with, and without the one that it ends with itself.
    pub fn join<'d>(&mut self, data: &'d str) -> Cow<'d, str> {
        if self.open.is_none() && !may_hold_halves(data) {
            return Cow::Borrowed(data);
        }
        let mut data = Cow::Borrowed(data);
        let goes_on_in = |open: &Open| {
            let text = texts(&data).find(|text| text.field == open.field && text.begin < text.end)?;
            Some(text.begin)
        };
        if let Some(open) = &self.open
            && let Some(begin) = goes_on_in(open)
        {
            let goes_on = half_at(&data, begin).is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
            let before = if goes_on { open.half.as_str() } else { r"\ufffd" };
            data = Cow::Owned(format!("{}{before}{}", &data[..begin], &data[begin..]));
            self.open = None;
        }
        let cut = texts(&data).find(|text| text.ends_in_first_half).map(|text| (text.field.to_owned(), text.end));
        if let Some((field, end)) = cut {
            self.open = Some(Open { field, half: data[end - HALF..end].to_owned() });
            data = Cow::Owned(format!("{}{}", &data[..end - HALF], &data[end..]));
        }
        data
    }

    /// Whether a text has ended with half a letter, of which the rest will not come now.
    pub fn lost(&mut self) -> bool {
        self.open.take().is_some()
    }
}

fn may_hold_halves(data: &str) -> bool {
    [br"\ud", br"\uD"].iter().any(|half| memmem::find(data.as_bytes(), *half).is_some())
}

/// The unit of an escape that begins here.
fn half_at(data: &str, at: usize) -> Option<u16> {
    let digits = data.get(at..at + HALF)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// A text that is the value of a field, without its quotes.
struct Text<'d> {
    field: &'d str,
    begin: usize,
    end: usize,
    ends_in_first_half: bool,
}

fn texts(data: &str) -> impl Iterator<Item = Text<'_>> {
    let (mut at, mut field) = (0, "");
    std::iter::from_fn(move || {
        loop {
            let begin = at + data.get(at..)?.find('"')? + 1;
            let (mut end, mut last) = (begin, None);
            loop {
                match data.as_bytes().get(end)? {
                    b'"' => break,
                    b'\\' => {
                        last = half_at(data, end).map(|unit| (unit, end));
                        end += if last.is_some() { HALF } else { 2 };
                    }
                    _ => end += 1,
                }
            }
            at = end + 1;
            if data[at..].trim_start().starts_with(':') {
                field = &data[begin..end];
                continue;
            }
            let ends_in_first_half = last.is_some_and(|(unit, half)| (0xD800..0xDC00).contains(&unit) && half + HALF == end);
            return Some(Text { field, begin, end, ends_in_first_half });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &[&str]) -> Vec<String> {
        let mut halves = Halves::default();
        events.iter().map(|event| halves.join(event).into_owned()).collect()
    }

    #[test]
    fn a_letter_that_was_cut_is_joined_in_the_field_that_it_was_cut_in() {
        let told = read(&[
            r#"{"type":"d","text":"hi \ud83d"}"#,
            r#"{"type": "ping"}"#,
            r#"{"type":"d","text":""}"#,
            r#"{"type":"d","text": "\ude00 \ud83d\ude00"}"#,
            r#"{"text":"\\ud83d"}"#,
        ]);
        assert_eq!(
            told,
            [
                r#"{"type":"d","text":"hi "}"#,
                r#"{"type": "ping"}"#,
                r#"{"type":"d","text":""}"#,
                r#"{"type":"d","text": "\ud83d\ude00 \ud83d\ude00"}"#,
                r#"{"text":"\\ud83d"}"#
            ]
        );
    }

    #[test]
    fn a_half_that_stays_alone_is_replaced_where_its_text_goes_on() {
        let told = read(&[r#"{"text":"a\uD83D"}"#, r#"{"text":"b\ud83d\ud83d"}"#, r#"{"text":"c"}"#, r#"{"x":"\ud"#]);
        assert_eq!(
            told,
            [r#"{"text":"a"}"#, r#"{"text":"\ufffdb\ud83d"}"#, r#"{"text":"\ufffdc"}"#, r#"{"x":"\ud"#],
            "one alone inside of a text is replaced when that is parsed"
        );
        let mut halves = Halves::default();
        halves.join(r#"{"text":"\ud83d"}"#);
        assert!(halves.lost() && !halves.lost());
    }
}

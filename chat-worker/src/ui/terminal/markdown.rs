//! Markdown as it comes, for a terminal. A line is shown as it is written, and set again when it is complete; a table is shown
//! when it has ended, since only then its columns are known. What cannot be taken back any more stays as it was written.

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::LazyLock,
};

use fancy_regex::{Captures, Regex};
use termimad::{
    Alignment, MadSkin, StyledChar,
    crossterm::style::{Attribute, Color},
};
use unicode_width::UnicodeWidthStr;

/// How wide and high the terminal is, in characters.
pub type Size = (usize, usize);

/// What has been written of a text.
pub struct Markdown {
    skin: MadSkin,
    size: fn() -> Size,
    /// The line that is being written.
    line: String,
    /// Lines of a table that has not ended.
    table: String,
    in_code: bool,
}

impl std::fmt::Debug for Markdown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Markdown").field("line", &self.line).field("in_code", &self.in_code).finish_non_exhaustive()
    }
}

impl Markdown {
    pub fn new(size: fn() -> Size) -> Self {
        Self { skin: skin(), size, line: String::new(), table: String::new(), in_code: false }
    }

    /// Writes a piece.
    pub fn push(&mut self, out: &mut impl Write, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\n') {
            self.write(out, before)?;
            self.end(out)?;
            rest = after;
        }
        self.write(out, rest)
    }

    /// Ends what is being written; the next piece begins anew.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !self.line.is_empty() {
            self.end(out)?;
        }
        self.in_code = false;
        self.end_table(out)
    }

    fn write(&mut self, out: &mut impl Write, piece: &str) -> io::Result<()> {
        self.line.push_str(piece);
        write!(out, "{piece}")
    }

    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let (width, height) = (self.size)();
        let rows = line.width().div_ceil(width.max(1)).max(1);
        if rows >= height {
            // Its beginning has scrolled away.
            return writeln!(out);
        }
        write!(out, "\r")?;
        if rows > 1 {
            write!(out, "\x1b[{}A", rows - 1)?;
        }
        write!(out, "\x1b[J")?;
        self.set(out, &line)
    }

    fn set(&mut self, out: &mut impl Write, line: &str) -> io::Result<()> {
        if line.trim_start().starts_with("```") {
            self.in_code = !self.in_code;
            return self.end_table(out);
        }
        if self.in_code {
            return writeln!(out, "  \x1b[36m{line}\x1b[0m");
        }
        if line.trim_start().starts_with('|') {
            self.table.push_str(line);
            self.table.push('\n');
            return Ok(());
        }
        self.end_table(out)?;
        if line.trim().is_empty() { writeln!(out) } else { self.format(out, line) }
    }

    fn end_table(&mut self, out: &mut impl Write) -> io::Result<()> {
        let table = std::mem::take(&mut self.table);
        if table.is_empty() { Ok(()) } else { self.format(out, &table) }
    }

    fn format(&self, out: &mut impl Write, text: &str) -> io::Result<()> {
        write!(out, "{}", self.skin.text(&with_plain_links(text), Some((self.size)().0.max(20))))
    }
}

/// Code, in which nothing is a link, or a link with its words and where it leads.
static LINK: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"`[^`]*`|!?\[([^\]\[]*)\]\((https?://[^\s)]+|mailto:[^\s)]+)\)").ok());

/// The text with links as people write them where there are none: their words, and the address behind them.
fn with_plain_links(text: &str) -> Cow<'_, str> {
    let plain = |found: &Captures<'_, str>| match (found.get(1), found.get(2)) {
        (Some(words), Some(target)) if words.as_str().trim().is_empty() || words.as_str() == target.as_str() => {
            target.as_str().to_owned()
        }
        (Some(words), Some(target)) => format!("{} ({})", words.as_str(), target.as_str()),
        _ => found.get(0).map_or_else(String::new, |code| code.as_str().to_owned()),
    };
    LINK.as_ref().map_or(Cow::Borrowed(text), |link| link.replace_all(text, plain))
}

/// Colours of the terminal's own palette, so that they fit a light and a dark one.
fn skin() -> MadSkin {
    let mut skin = MadSkin::default();
    skin.set_headers_fg(Color::Magenta);
    for header in &mut skin.headers {
        header.align = Alignment::Left;
        header.add_attr(Attribute::Bold);
    }
    skin.inline_code = termimad::CompoundStyle::with_fg(Color::Cyan);
    skin.code_block.set_fgbg(Color::Cyan, Color::Reset);
    skin.bullet = StyledChar::from_fg_char(Color::Magenta, '•');
    skin.table.align = Alignment::Left;
    skin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&str], size: fn() -> Size) -> String {
        let mut out = Vec::new();
        let mut markdown = Markdown::new(size);
        for piece in pieces {
            markdown.push(&mut out, piece).expect("a vector takes everything");
        }
        markdown.finish(&mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_link_is_its_words_and_where_it_leads() {
        for (text, plain) in [
            ("see [the page](https://a.example/b_c) now", "see the page (https://a.example/b_c) now"),
            ("![a picture](http://a/b.png)", "a picture (http://a/b.png)"),
            ("[http://a](http://a) [](http://b) [Ann](mailto:a@b)", "http://a http://b Ann (mailto:a@b)"),
            ("`[x](https://a)` and [y](javascript:z) [z]", "`[x](https://a)` and [y](javascript:z) [z]"),
        ] {
            assert_eq!(with_plain_links(text), plain);
        }
    }

    #[test]
    fn a_line_is_shown_at_once_and_set_when_it_is_complete() {
        let text = shown(&["Some **bo", "ld** text\n"], || (80, 24));
        let (raw, set) = text.split_once("\r\x1b[J").expect("set again");
        assert_eq!(raw, "Some **bold** text");
        assert!(set.contains("\x1b[1mbold\x1b[0m") && !set.contains("**"), "{set:?}");
    }

    #[test]
    fn a_line_of_several_rows_is_taken_back_whole_and_one_that_scrolled_away_stays() {
        assert!(shown(&["one two three four five six\n"], || (10, 24)).contains("\x1b[2A\x1b[J"));
        let long = shown(&["one two three four five six\n"], || (10, 3));
        assert_eq!(long, "one two three four five six\n");
    }

    #[test]
    fn a_table_comes_whole_and_code_stays_as_it_is() {
        let text = shown(&["| city | people |\n| --- | --- |\n| Zurich | 4 |\n\n```sql\nSELECT **1**;\n```\nend\n"], || (80, 24));
        assert!(text.contains('│') && text.contains("\x1b[36mSELECT **1**;"), "{text}");
        assert!(text.ends_with("end\n"), "{text:?}");
    }
}

//! What a person types: with editing, history and completion at a terminal, and plain lines from anything else.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use reedline::{
    ColumnarMenu, DefaultCompleter, DefaultPrompt, DefaultPromptSegment, EditCommand, Emacs, FileBackedHistory, Highlighter,
    KeyCode, KeyModifiers, MenuBuilder, Reedline, ReedlineEvent, ReedlineMenu, Signal, StyledText, default_emacs_keybindings,
};
use rustix::termios::{QueueSelector, tcflush};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::{commands, store};

const HISTORY: usize = 1_000;

/// Where lines come from.
pub enum Input {
    /// Taken out while it reads, on a thread of its own.
    Editor(Option<Box<Reedline>>),
    Lines(Lines<BufReader<Stdin>>),
}

/// What came.
pub enum Typed {
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupt,
    End,
}

impl Input {
    /// An editor where a person sits at both ends.
    /// `words` are completed beside the commands.
    pub fn open(words: Vec<String>) -> Self {
        if io::stdin().is_terminal() && super::is_capable() {
            Self::Editor(Some(Box::new(editor(words))))
        } else {
            Self::Lines(BufReader::new(tokio::io::stdin()).lines())
        }
    }

    /// An answer to a question of ours: no question of the person's, and kept apart from those. What was typed before the question was
    /// there to be read answers nothing.
    pub async fn ask(&mut self, prompt: &'static str) -> anyhow::Result<Typed> {
        if io::stdin().is_terminal() {
            forget_typed(matches!(self, Self::Editor(_)))?;
        }
        match self {
            Self::Editor(_) => Box::pin(Self::Editor(Some(Box::new(plain()))).read(prompt)).await,
            Self::Lines(_) => self.read(prompt).await,
        }
    }

    pub async fn read(&mut self, prompt: &'static str) -> anyhow::Result<Typed> {
        match self {
            Self::Editor(slot) => {
                let mut editor = slot.take().unwrap_or_else(|| Box::new(editor(Vec::new())));
                let prompt = DefaultPrompt::new(DefaultPromptSegment::Basic(prompt.to_owned()), DefaultPromptSegment::Empty);
                let (editor, signal) = tokio::task::spawn_blocking(move || {
                    let signal = editor.read_line(&prompt);
                    (editor, signal)
                })
                .await?;
                *slot = Some(editor);
                Ok(match signal? {
                    Signal::Success(line) => Typed::Line(line),
                    Signal::CtrlD => Typed::End,
                    _ => Typed::Interrupt,
                })
            }
            Self::Lines(lines) => {
                print!("{prompt}> ");
                io::stdout().flush()?;
                tokio::select! {
                    line = lines.next_line() => Ok(line?.map_or(Typed::End, Typed::Line)),
                    _ = tokio::signal::ctrl_c() => Ok(Typed::End),
                }
            }
        }
    }
}

/// Takes away what waits to be read: of the editor, which may have taken it in, and of the terminal.
fn forget_typed(of_editor: bool) -> io::Result<()> {
    use termimad::crossterm::event::{poll, read};
    while of_editor && poll(Duration::ZERO)? {
        read()?;
    }
    tcflush(io::stdin(), QueueSelector::IFlush)?;
    Ok(())
}

/// What is typed looks like everything else at this terminal, whatever its background is.
struct Uncoloured;

impl Highlighter for Uncoloured {
    #[allow(clippy::default_trait_access, reason = "the editor does not export the type of its styles")]
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut text = StyledText::new();
        text.push((Default::default(), line.to_owned()));
        text
    }
}

fn plain() -> Reedline {
    Reedline::create().with_highlighter(Box::new(Uncoloured)).with_ansi_colors(std::env::var_os("NO_COLOR").is_none())
}

/// After a signal, on the way out: the terminal as it was before the editor had it.
pub fn give_back_terminal() {
    use termimad::crossterm::{cursor::Show, event::DisableBracketedPaste, execute, terminal};
    // It may have gone, too.
    let _ = terminal::disable_raw_mode();
    if super::is_capable() {
        let _ = execute!(io::stdout(), DisableBracketedPaste, Show);
        let _ = writeln!(io::stdout());
    }
}

fn editor(mut words: Vec<String>) -> Reedline {
    words.extend(commands::NAMES.iter().map(|(name, _)| (*name).to_owned()));
    let mut completer = DefaultCompleter::with_inclusions(&['/', '-', '_']);
    completer.insert(words);
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu("completion".to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, ReedlineEvent::Edit(vec![EditCommand::InsertNewline]));
    let editor = plain()
        .with_completer(Box::new(completer))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name("completion"))))
        // Several lines that are pasted are one message.
        .use_bracketed_paste(true)
        .with_edit_mode(Box::new(Emacs::new(keys)));
    let history = store::directory().and_then(|path| {
        store::create_private(&path).ok()?;
        let path = path.join("history");
        // What the editor makes itself, everybody may read.
        store::private(&path).ok()?;
        FileBackedHistory::with_file(HISTORY, path).ok()
    });
    match history {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

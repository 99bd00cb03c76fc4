//! A conversation with a person at a terminal.

use std::{
    collections::{HashMap, HashSet},
    io::{self, IsTerminal, Stdout},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    commands,
    input::{Input, Typed},
    render::Renderer,
    store,
};
use crate::{
    app::{App, request_id},
    limits,
    tools::sanitize::clean,
    turn::{driver::Turn, transcript::Transcript},
    ui::event::Event,
};

/// What lasts from one turn to the next.
struct Chat<'a> {
    app: &'a Arc<App>,
    input: Input,
    transcript: Transcript,
    /// Tools that the person always allows, and never, as `name@hash`.
    always: HashSet<String>,
    never: HashSet<String>,
    last: Option<PathBuf>,
}

/// Talks until the person leaves.
pub async fn chat(app: &Arc<App>) -> anyhow::Result<()> {
    println!("mcpfleet chat: {} answers. /help for help, /quit to leave.", app.who_answers());
    app.engine.hub.settle(Duration::from_secs(15)).await;
    if let Some(servers) = commands::tell(app, "/servers", "") {
        print!("{servers}");
    }
    let last = store::directory().map(|directory| directory.join("last.json"));
    let (always, never) = (HashSet::new(), HashSet::new());
    let mut chat = Chat { app, input: Input::open(), transcript: Transcript::default(), always, never, last };
    loop {
        let line = match chat.input.read("").await? {
            Typed::Line(line) => line,
            Typed::Interrupt => continue,
            Typed::End => return Ok(()),
        };
        let line = line.trim();
        if line == "/quit" || line == "/exit" {
            return Ok(());
        }
        if line.starts_with('/') {
            chat.command(line).await?;
        } else if !line.is_empty() {
            match limits::check_message(line, app.settings.max_message_chars as usize) {
                Ok(()) => chat.turn(Some(line.to_owned())).await?,
                Err(error) => println!("{error}"),
            }
        }
    }
}

impl Chat<'_> {
    async fn command(&mut self, line: &str) -> anyhow::Result<()> {
        let (name, argument) = line.split_once(' ').map_or((line, ""), |(name, argument)| (name, argument.trim()));
        if let Some(text) = commands::tell(self.app, name, argument) {
            print!("{text}");
            return Ok(());
        }
        match name {
            "/retry" => self.turn(None).await?,
            "/clear" => {
                self.transcript = Transcript::default();
                println!("A new conversation.");
            }
            "/compact" => self.compact().await,
            "/save" if argument.is_empty() => println!("Name a file: /save conversation.json"),
            "/save" => match store::save(Path::new(argument), &self.transcript) {
                Ok(()) => println!("Saved to {argument}."),
                Err(error) => println!("It could not be saved to {argument}: {error}"),
            },
            "/resume" => match self.last.as_deref().map(store::load) {
                Some(Ok(transcript)) => {
                    self.transcript = transcript;
                    self.history();
                }
                Some(Err(error)) => println!("There is no conversation to take up: {error}"),
                None => println!("There is no home directory to keep conversations in."),
            },
            "/history" => self.history(),
            _ => println!("There is no command {name}. /help lists them."),
        }
        Ok(())
    }

    fn history(&self) {
        for question in self.transcript.questions().filter(|text| !text.is_empty()) {
            println!("- {}", question.lines().next().unwrap_or_default());
        }
    }

    /// A summary takes the place of the conversation.
    async fn compact(&mut self) {
        if self.transcript.messages().is_empty() {
            println!("There is nothing to shorten.");
            return;
        }
        println!("Summarising… (Ctrl-C stops)");
        let summary = tokio::select! {
            summary = self.app.engine.summarise(self.transcript.messages()) => summary,
            _ = tokio::signal::ctrl_c() => return println!("Stopped; the conversation is as it was."),
        };
        match summary.map(|summary| summary.text) {
            Ok(Some(text)) => {
                self.transcript.summarise_all(&text);
                println!("{}", clean(&text));
            }
            Ok(None) => println!("The model wrote no summary; the conversation is as it was."),
            Err(error) => println!("There is no summary: {error}"),
        }
    }

    async fn turn(&mut self, say: Option<String>) -> anyhow::Result<()> {
        let cancel = CancellationToken::new();
        let (sender, mut events) = mpsc::channel(64);
        let (decide, decisions) = mpsc::channel(1);
        let turn = Turn {
            request_id: request_id(),
            transcript: std::mem::take(&mut self.transcript),
            say,
            approvals: self.app.settings.approvals,
            always: self.always.clone(),
            decided: None,
            decisions: Some(decisions),
            cache: false,
            cancel: cancel.clone(),
        };
        let terminal = io::stdout().is_terminal();
        let mut renderer = Renderer::new(io::stdout(), terminal && std::env::var_os("NO_COLOR").is_none());
        let app = Arc::clone(self.app);
        let mut run = Box::pin(app.engine.run(turn, sender));
        let mut calls: HashMap<String, (String, String)> = HashMap::new();
        let mut working: Option<Instant> = Some(Instant::now());
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let finished = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    renderer.clear_working()?;
                    renderer.show(&event)?;
                    match event {
                        Event::ToolCall { id, name, tool, hash, .. } => {
                            calls.insert(id, (tool, format!("{name}@{hash}")));
                        }
                        Event::ApprovalRequired { ids } => {
                            let allowed = self.approve(&ids, &calls, &mut renderer).await?;
                            // The turn waits for it, or has ended.
                            let _ = decide.send(allowed).await;
                        }
                        Event::Text { .. } => working = None,
                        Event::ToolStart { .. } | Event::ToolResult { .. } => working = Some(Instant::now()),
                        _ => {}
                    }
                }
                _ = tokio::signal::ctrl_c() => {
                    renderer.clear_working()?;
                    cancel.cancel();
                }
                finished = &mut run => break finished,
                _ = ticks.tick(), if terminal => {
                    if let Some(since) = working {
                        renderer.working(since.elapsed())?;
                    }
                }
            }
        };
        renderer.clear_working()?;
        while let Ok(event) = events.try_recv() {
            renderer.show(&event)?;
        }
        self.transcript = finished.transcript;
        if let Some(path) = &self.last
            && let Err(error) = store::save(path, &self.transcript)
        {
            tracing::warn!("the conversation could not be kept in {}: {error}", path.display());
        }
        if let Ok(outcome) = finished.outcome
            && outcome != crate::turn::machine::Outcome::Complete
        {
            let cost = finished.cost.map_or_else(|| "unknown".to_owned(), |cost| format!("${cost:.4}"));
            println!("({outcome:?}; {} tokens known, cost {cost})", finished.usage.total());
        }
        Ok(())
    }

    /// Asks about each call.
    async fn approve(
        &mut self,
        ids: &[String],
        calls: &HashMap<String, (String, String)>,
        renderer: &mut Renderer<Stdout>,
    ) -> anyhow::Result<Vec<String>> {
        let mut allowed = Vec::new();
        for id in ids {
            let (tool, key) = calls.get(id).cloned().unwrap_or_default();
            if self.never.contains(&key) {
                continue;
            }
            if !self.always.contains(&key) {
                renderer
                    .line("33", &format!("{tool} may change or destroy data. Allow it: y(es, once), a(lways), n(o), never"))?;
                let Typed::Line(answer) = self.input.read("allow").await? else { continue };
                match answer.trim() {
                    "y" | "yes" | "once" => {}
                    "a" | "always" => {
                        self.always.insert(key);
                    }
                    "never" => {
                        self.never.insert(key);
                        continue;
                    }
                    _ => continue,
                }
            }
            allowed.push(id.clone());
        }
        Ok(allowed)
    }
}

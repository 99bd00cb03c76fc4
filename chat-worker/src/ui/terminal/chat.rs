//! A conversation with a person at a terminal.

use std::{
    collections::{HashMap, HashSet},
    io::Stdout,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_server::request_id;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    commands,
    input::{Input, Typed},
    render::Renderer,
    resources_prompts, say,
    spinner::Spinner,
    store,
};
use crate::{
    app::App,
    limits,
    message::{Role, Usage},
    tools::sanitize::{clean, visible},
    turn::{driver::Turn, event::Event, machine::Outcome, opening::Opening, transcript::Transcript},
};

const THINKING: &str = "thinking (Ctrl-C stops)";

/// What lasts from one turn to the next.
struct Chat<'a> {
    app: &'a Arc<App>,
    input: Input,
    transcript: Transcript,
    /// Another model than the one of the settings.
    model: Option<String>,
    /// What this conversation has cost so far.
    spent: Spent,
    /// Tools that the person always allows, and never, as `name@hash`.
    always: HashSet<String>,
    never: HashSet<String>,
    /// A question whose answer was stopped before any tool ran, and the conversation before it.
    stopped: Option<(Transcript, Opening)>,
    last: Option<PathBuf>,
}

/// Tokens, and dollars where they are known.
struct Spent {
    usage: Usage,
    cost: Option<f64>,
}

impl Spent {
    const NOTHING: Self = Self {
        usage: Usage { input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 },
        cost: Some(0.0),
    };

    fn add(&mut self, usage: Usage, cost: Option<f64>) {
        self.usage += usage;
        self.cost = self.cost.zip(cost).map(|(sum, cost)| sum + cost);
    }
}

/// Talks until the person leaves. `resume` takes up the last conversation.
pub async fn chat(app: &Arc<App>, resume: bool) -> anyhow::Result<()> {
    say(&format!("mcpfleet chat: {} answers. /help for help, /quit to leave.", app.who_answers()));
    let mut spinner = Spinner::default();
    if super::is_capable() {
        spinner.show("connecting to the servers");
    }
    app.engine.hub.settle(Duration::from_secs(15)).await;
    spinner.clear();
    if let Some(servers) = commands::tell(app, "/servers", "") {
        say(servers.trim_end());
    }
    let last = store::directory().map(|directory| {
        // Where it cannot be made, saving says so.
        let _ = store::create_private(&directory);
        directory.join("last.json")
    });
    let names = app.engine.hub.status().into_iter().map(|server| server.name).collect();
    let mut chat = Chat {
        app,
        input: Input::open(names),
        transcript: Transcript::default(),
        model: None,
        spent: Spent::NOTHING,
        always: HashSet::new(),
        never: HashSet::new(),
        stopped: None,
        last,
    };
    if resume {
        chat.resume();
    } else if let Some(Ok(last)) = chat.last.as_deref().map(store::load) {
        let count = last.questions().filter(|question| !question.is_empty()).count();
        let questions = if count == 1 { "1 question".to_owned() } else { format!("{count} questions") };
        say(&format!("/resume takes up the last conversation ({questions})."));
    }
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
                Ok(()) => chat.turn(Some(line.into())).await?,
                Err(error) => say(&error.to_string()),
            }
        }
    }
}

impl Chat<'_> {
    async fn command(&mut self, line: &str) -> anyhow::Result<()> {
        let (name, argument) = line.split_once(' ').map_or((line, ""), |(name, argument)| (name, argument.trim()));
        let name = &*name.to_lowercase();
        if let Some(text) = commands::tell(self.app, name, argument) {
            say(text.trim_end());
            return Ok(());
        }
        match name {
            "/resources" => self.resources(argument).await?,
            "/prompt" => self.prompt(argument).await?,
            "/retry" => self.retry().await?,
            "/usage" => say(format!("{}{}", self.spent_here(), commands::usage(self.app)).trim_end()),
            "/model" => self.choose(argument),
            "/clear" => {
                self.transcript = Transcript::default();
                self.stopped = None;
                self.spent = Spent::NOTHING;
                say("A new conversation.");
            }
            "/compact" => self.compact().await,
            "/save" if argument.is_empty() => say("Name a file: /save conversation.json"),
            "/save" => {
                let path = Path::new(argument);
                let instead = if path.exists() { ", in place of what was there" } else { "" };
                match store::save(path, &self.transcript) {
                    Ok(()) => say(&format!("Saved to {argument}, as JSON{instead}.")),
                    Err(error) => say(&format!("It could not be saved to {argument}: {error}")),
                }
            }
            "/resume" => self.resume(),
            "/history" => self.history(),
            _ => say(&format!("There is no command {name}. /help lists them.")),
        }
        Ok(())
    }

    /// Goes on where something is missing; asks a question anew whose answer was stopped before any tool ran.
    async fn retry(&mut self) -> anyhow::Result<()> {
        let unanswered = self.transcript.messages().last().is_some_and(|last| last.role == Role::User);
        if unanswered || !self.transcript.open_calls().is_empty() {
            return self.turn(None).await;
        }
        let Some((before, question)) = self.stopped.take() else {
            say("There is nothing to retry: no question is without its answer.");
            return Ok(());
        };
        self.transcript = before;
        self.turn(Some(question)).await
    }

    /// Lists the resources, or asks with one of them.
    async fn resources(&mut self, uri: &str) -> anyhow::Result<()> {
        let hub = Arc::clone(&self.app.engine.hub);
        if uri.is_empty() {
            say(resources_prompts::listed(&hub).await.trim_end());
            return Ok(());
        }
        self.ask_with(resources_prompts::resource(&hub, uri).await).await
    }

    /// Lists the prompts, or asks one of them.
    async fn prompt(&mut self, argument: &str) -> anyhow::Result<()> {
        let hub = Arc::clone(&self.app.engine.hub);
        if argument.is_empty() {
            say(resources_prompts::prompts(&hub).await.trim_end());
            return Ok(());
        }
        self.ask_with(resources_prompts::prompt(&hub, argument).await).await
    }

    async fn ask_with(&mut self, opening: Result<Opening, String>) -> anyhow::Result<()> {
        let most = self.app.settings.max_message_chars as usize;
        let checked = opening.and_then(|opening| match limits::check_text(&opening.text(), most) {
            Ok(()) => Ok(opening),
            Err(error) => Err(error.to_string()),
        });
        match checked {
            Ok(opening) => self.turn(Some(opening)).await,
            Err(error) => {
                say(&error);
                Ok(())
            }
        }
    }

    fn resume(&mut self) {
        match self.last.as_deref().map(store::load) {
            Some(Ok(transcript)) => {
                self.transcript = transcript;
                self.stopped = None;
                self.spent = Spent::NOTHING;
                say("The conversation so far:");
                self.history();
            }
            Some(Err(error)) => say(&format!("There is no conversation to take up: {error}")),
            None => say("There is no home directory to keep conversations in."),
        }
    }

    fn choose(&mut self, name: &str) {
        if !name.is_empty() {
            self.model = Some(name.to_owned());
        }
        let chosen = self.model.as_deref().unwrap_or_else(|| self.app.engine.model.name());
        say(&format!("{chosen} answers. /model NAME has another one answer."));
    }

    fn spent_here(&self) -> String {
        format!("This conversation: {} tokens, {}\n", self.spent.usage.total(), commands::dollars(self.spent.cost))
    }

    fn history(&self) {
        let questions: Vec<_> = self.transcript.questions().filter(|text| !text.is_empty()).collect();
        for question in &questions {
            say(&format!("- {}", question.lines().next().unwrap_or_default()));
        }
        if questions.is_empty() {
            say("There are no questions in it.");
        }
    }

    /// A summary takes the place of the conversation.
    async fn compact(&mut self) {
        if self.transcript.messages().is_empty() {
            say("There is nothing to shorten.");
            return;
        }
        say("Summarising… (Ctrl-C stops)");
        let summary = tokio::select! {
            summary = self.app.engine.summarise(self.transcript.messages(), self.model.as_deref()) => summary,
            _ = tokio::signal::ctrl_c() => return say("Stopped; the conversation is as it was."),
        };
        if let Ok(summary) = &summary {
            self.spent.add(summary.usage, summary.cost);
        }
        match summary.map(|summary| summary.text) {
            Ok(Some(text)) => {
                self.transcript.summarise_all(&text);
                say(&clean(&text));
            }
            Ok(None) => say("The model wrote no summary; the conversation is as it was."),
            Err(error) => say(&format!("There is no summary: {error}")),
        }
    }

    async fn turn(&mut self, say: Option<Opening>) -> anyhow::Result<()> {
        let began = Instant::now();
        let cancel = CancellationToken::new();
        let (sender, mut events) = mpsc::channel(64);
        let (decide, decisions) = mpsc::channel(1);
        let asked = say.clone().map(|question| (self.transcript.clone(), question));
        let turn = Turn {
            request_id: request_id::new(),
            transcript: std::mem::take(&mut self.transcript),
            say,
            approvals: self.app.settings.approvals,
            unattended: false,
            caller: "terminal".to_owned(),
            always: self.always.clone(),
            decided: None,
            shown: HashMap::new(),
            decisions: Some(decisions),
            model: self.model.clone(),
            cache: false,
            cancel: cancel.clone(),
        };
        let terminal = super::is_capable();
        let mut renderer = super::renderer();
        let mut spinner = Spinner::default();
        let show = |spinner: &mut Spinner, what: &str| {
            if terminal {
                spinner.show(what);
            }
        };
        let app = Arc::clone(self.app);
        let mut run = Box::pin(app.engine.run(turn, sender));
        let mut calls: HashMap<String, (String, String)> = HashMap::new();
        // Each with what its server last said.
        let mut running: Vec<(String, String)> = Vec::new();
        show(&mut spinner, THINKING);
        let finished = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    // What is not shown leaves the line that turns as it is, and its time with it.
                    let unseen =
                        matches!(event, Event::Thinking { .. } | Event::Start { .. } | Event::ToolStart { .. } | Event::ToolProgress { .. });
                    if !unseen {
                        spinner.clear();
                    }
                    renderer.show(&event)?;
                    match event {
                        Event::ToolCall { id, name, tool, hash, .. } => {
                            calls.insert(id, (visible(&tool), format!("{name}@{hash}")));
                        }
                        Event::ApprovalRequired { ids } => match self.approve(&ids, &calls, &mut renderer).await? {
                            // The turn waits for it, or has ended.
                            Some(allowed) => { let _ = decide.send(allowed).await; }
                            None => cancel.cancel(),
                        },
                        Event::ToolStart { id } => {
                            running.push((id, String::new()));
                            show(&mut spinner, &what_runs(&running, &calls));
                        }
                        Event::ToolProgress { id, text } => {
                            running.iter_mut().filter(|(other, _)| *other == id).for_each(|(_, said)| said.clone_from(&text));
                            show(&mut spinner, &what_runs(&running, &calls));
                        }
                        Event::ToolResult { id, .. } => {
                            running.retain(|(other, _)| *other != id);
                            show(&mut spinner, &what_runs(&running, &calls));
                        }
                        Event::Restart { .. } | Event::Notice { .. } => show(&mut spinner, THINKING),
                        _ => {}
                    }
                }
                _ = tokio::signal::ctrl_c() => {
                    spinner.clear();
                    cancel.cancel();
                }
                finished = &mut run => break finished,
            }
        };
        spinner.clear();
        while let Ok(event) = events.try_recv() {
            renderer.show(&event)?;
        }
        renderer.end_line()?;
        self.spent.add(finished.usage, finished.cost);
        self.transcript = finished.transcript;
        let is_stopped = matches!(finished.outcome, Ok(Outcome::Cancelled)) && finished.tools_used.is_empty();
        self.stopped = asked.filter(|_| is_stopped);
        if let Some(path) = &self.last
            && let Err(error) = store::save(path, &self.transcript)
        {
            tracing::warn!("the conversation could not be kept in {}: {error}", path.display());
        }
        if let Ok(outcome) = finished.outcome {
            let (tokens, cost) = (finished.usage.total(), commands::dollars(finished.cost));
            let seconds = began.elapsed().as_secs_f64();
            renderer.line("2", &format!("{}{tokens} tokens · {cost} · {seconds:.1} s", in_words(outcome)))?;
        }
        Ok(())
    }

    /// Asks about each call; `None` when the person stops the turn instead.
    async fn approve(
        &mut self,
        ids: &[String],
        calls: &HashMap<String, (String, String)>,
        renderer: &mut Renderer<Stdout>,
    ) -> anyhow::Result<Option<Vec<String>>> {
        let mut allowed = Vec::new();
        for id in ids {
            let (tool, key) = calls.get(id).cloned().unwrap_or_default();
            if self.never.contains(&key) {
                continue;
            }
            if !self.always.contains(&key) {
                renderer.line("33", &format!("{tool} may change or destroy data."))?;
                let answer = loop {
                    renderer.line("33", "Allow it? y = once, a = always, n = no, never")?;
                    let Typed::Line(answer) = self.input.ask("allow").await? else { return Ok(None) };
                    if let Some(answer) = Allowed::read(&answer) {
                        break answer;
                    }
                };
                match answer {
                    Allowed::Once => {}
                    Allowed::Always => {
                        self.always.insert(key);
                    }
                    Allowed::No => continue,
                    Allowed::Never => {
                        self.never.insert(key);
                        continue;
                    }
                }
            }
            allowed.push(id.clone());
        }
        Ok(Some(allowed))
    }
}

/// What a person says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Once,
    Always,
    No,
    Never,
}

impl Allowed {
    /// Nothing at all is a no; `None` for what is not understood.
    fn read(answer: &str) -> Option<Self> {
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" | "once" => Some(Self::Once),
            "a" | "always" => Some(Self::Always),
            "" | "n" | "no" => Some(Self::No),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// The tools that run now, and how far one is that says so.
fn what_runs(running: &[(String, String)], calls: &HashMap<String, (String, String)>) -> String {
    let names: Vec<&str> = running.iter().filter_map(|(id, _)| calls.get(id)).map(|(tool, _)| tool.as_str()).collect();
    let runs = match names.as_slice() {
        [] => return THINKING.to_owned(),
        [one] => format!("{one} runs"),
        [first, rest @ ..] => format!("{first} and {} more run", rest.len()),
    };
    let said = running.iter().map(|(_, said)| said).find(|said| !said.is_empty()).map(|said| format!(": {said}"));
    format!("{runs}{} (Ctrl-C stops)", said.unwrap_or_default())
}

/// An end that is not the usual one, and the command that helps.
fn in_words(outcome: Outcome) -> String {
    let help = match outcome {
        Outcome::Paused => "; /retry goes on",
        Outcome::TooLong => "; /clear begins a new one",
        Outcome::ApprovalRequired => "; /retry asks again",
        Outcome::Complete | Outcome::Truncated | Outcome::Refused | Outcome::Cancelled => "",
    };
    outcome.in_words().map_or_else(String::new, |words| format!("{words}{help} · "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_told_with_what_its_server_says() {
        let calls = ["1", "2"].map(|id| (id.to_owned(), (format!("t{id}"), String::new()))).into();
        let told = |running: &[(&str, &str)]| {
            let running: Vec<_> = running.iter().map(|(id, said)| ((*id).to_owned(), (*said).to_owned())).collect();
            what_runs(&running, &calls)
        };
        assert_eq!(told(&[]), THINKING);
        assert_eq!(told(&[("1", "")]), "t1 runs (Ctrl-C stops)");
        assert_eq!(told(&[("1", "2 of 3")]), "t1 runs: 2 of 3 (Ctrl-C stops)");
        assert_eq!(told(&[("1", ""), ("2", "half way")]), "t1 and 1 more run: half way (Ctrl-C stops)");
    }
}

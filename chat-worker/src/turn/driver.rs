//! Does what the machine asks for: calls the model, asks people, runs tools, and tells everybody by events. One turn is
//! one call of `run`, which always ends in `Done` or `Error`.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    machine::{Input, Limits, Machine, Outcome, Step},
    transcript::{ToolResult, Transcript},
};
use crate::{
    config::settings::Approvals,
    llm::{
        Model, ModelError, Progress, Prompt,
        wire::{ToolCall, Usage},
    },
    metrics::Metrics,
    tools::{
        catalogue::Catalogue,
        hub::{Hub, ToolOutput},
    },
    ui::event::Event,
    usage::Ledger,
};

/// Tools of one round that run at the same time.
const PARALLEL: usize = 8;

/// Everything that turns share.
#[derive(Debug)]
pub struct Engine {
    pub model: Arc<dyn Model>,
    pub hub: Arc<Hub>,
    pub ledger: Arc<Ledger>,
    pub metrics: Arc<Metrics>,
    pub system_prompt: String,
    pub limits: Limits,
}

/// One turn to run.
#[derive(Debug)]
pub struct Turn {
    pub request_id: String,
    pub transcript: Transcript,
    /// What the user says; without it, the conversation goes on where it stopped.
    pub say: Option<String>,
    pub approvals: Approvals,
    /// Tools that need no more asking: `name@hash`, so that a changed definition asks again.
    pub always: HashSet<String>,
    /// Calls that the user has decided on already, by id.
    pub decided: Option<Vec<String>>,
    /// Where decisions come from while the turn runs. Without it, a turn that needs one ends.
    pub decisions: Option<mpsc::Receiver<Vec<String>>>,
    pub cancel: CancellationToken,
}

/// How a turn ended.
#[derive(Debug)]
pub struct Finished {
    pub transcript: Transcript,
    pub outcome: Result<Outcome, ModelError>,
    pub usage: Usage,
    pub cost: Option<f64>,
    pub model: String,
    pub tools_used: Vec<String>,
}

/// The parts of a running turn that change.
struct Run<'a> {
    engine: &'a Engine,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
    approvals: Approvals,
    always: HashSet<String>,
    decided: Option<Vec<String>>,
    decisions: Option<mpsc::Receiver<Vec<String>>>,
    catalogue: Catalogue,
    usage: Usage,
    cost: Option<f64>,
    model: String,
    tools_used: Vec<String>,
}

impl Engine {
    /// Runs one turn to its end. Events that nobody takes are dropped.
    pub async fn run(&self, turn: Turn, events: mpsc::Sender<Event>) -> Finished {
        let span = tracing::info_span!("turn", request_id = turn.request_id);
        self.run_in_span(turn, events).instrument(span).await
    }

    async fn run_in_span(&self, turn: Turn, events: mpsc::Sender<Event>) -> Finished {
        let began = Instant::now();
        let Turn { request_id, transcript, say, approvals, always, decided, decisions, cancel } = turn;
        let mut run = Run {
            engine: self,
            events,
            cancel,
            approvals,
            always,
            decided,
            decisions,
            catalogue: Catalogue::default(),
            usage: Usage::default(),
            cost: Some(0.0),
            model: self.model.name().to_owned(),
            tools_used: Vec::new(),
        };
        run.tell(Event::Start { request_id: request_id.clone(), model: run.model.clone() }).await;
        run.tell_about_servers().await;
        let mut machine = Machine::new(transcript, self.limits);
        let mut step = machine.on(say.map_or(Input::Resume, Input::User));
        let outcome = loop {
            step = match step {
                Step::CallModel { allow_tools } => {
                    let input = run.call_model(machine.transcript(), allow_tools).await;
                    machine.on(input)
                }
                Step::AskApproval(calls) => match run.approve(&calls).await {
                    Some(input) => machine.on(input),
                    None => machine.suspend(),
                },
                Step::RunTools(calls) => {
                    let input = run.run_tools(&calls).await;
                    machine.on(input)
                }
                Step::Done(outcome) => break Ok(outcome),
                Step::Failed(error) => break Err(error),
            };
        };
        run.finish(request_id, machine.into_transcript(), outcome, began.elapsed()).await
    }
}

impl Run<'_> {
    async fn tell(&self, event: Event) {
        // A reader that went away cancels the turn by its token; the turn itself goes on to a valid end.
        let _ = self.events.send(event).await;
    }

    async fn tell_about_servers(&self) {
        for server in self.engine.hub.status().into_iter().filter(|server| server.degraded) {
            let text = format!("The server {} {}. Its tools are missing.", server.name, server.state.in_words());
            self.tell(Event::Notice { text }).await;
        }
    }

    async fn call_model(&mut self, transcript: &Transcript, allow_tools: bool) -> Input {
        if let Some(error) = self.engine.ledger.over_budget() {
            return Input::ModelFailed(error);
        }
        // Anew in each round: servers come and go under a running conversation.
        self.catalogue = self.engine.hub.catalogue();
        let prompt = Prompt {
            system: self.engine.system_prompt.clone(),
            tools: self.catalogue.definitions(),
            messages: transcript.messages().to_vec(),
            allow_tools,
        };
        let began = Instant::now();
        let (sender, mut progress) = mpsc::channel(64);
        let mut said = String::new();
        let answer = {
            let mut call = self.engine.model.answer(&prompt, sender);
            loop {
                tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => {
                        while let Ok(step) = progress.try_recv() {
                            self.tell_progress(step, &mut said).await;
                        }
                        // The API counts what it wrote, and never told us.
                        self.cost = None;
                        return Input::Cancelled { said, done: Vec::new() };
                    }
                    Some(step) = progress.recv() => self.tell_progress(step, &mut said).await,
                    answer = &mut call => break answer,
                }
            }
        };
        while let Ok(step) = progress.try_recv() {
            self.tell_progress(step, &mut said).await;
        }
        self.engine.metrics.model_call(self.engine.model.name(), &answer, began.elapsed());
        match answer {
            Ok(answer) => {
                self.model.clone_from(&answer.model);
                self.usage += answer.usage;
                let prices = self.engine.model.price_list().filter(|_| !answer.estimated);
                let cost = self.engine.ledger.record(&answer.model, answer.usage, prices);
                self.cost = self.cost.zip(cost).map(|(sum, cost)| sum + cost);
                self.engine.metrics.spent(&answer.model, answer.usage, cost);
                Input::Model(answer)
            }
            Err(error) => Input::ModelFailed(error),
        }
    }

    async fn tell_progress(&self, progress: Progress, said: &mut String) {
        let event = match progress {
            Progress::Text(text) => {
                said.push_str(&text);
                Event::Text { text }
            }
            Progress::Thinking(text) => Event::Thinking { text },
            Progress::Restart { reason, attempt, after, model } => {
                said.clear();
                self.engine.metrics.model_retries.inc();
                Event::Restart { reason, attempt, after_ms: millis(after), model }
            }
            // Told with its arguments, when they are complete.
            Progress::ToolUse { .. } => return,
        };
        self.tell(event).await;
    }

    /// Decides on the calls; `None` when somebody has to be asked who is not there.
    async fn approve(&mut self, calls: &[ToolCall]) -> Option<Input> {
        let (mut approved, mut open) = (Vec::new(), Vec::new());
        for call in calls {
            let needs_approval = self.needs_approval(call);
            self.tell(self.describe(call, needs_approval)).await;
            if needs_approval { &mut open } else { &mut approved }.push(call.id.clone());
        }
        // What was decided before the turn began is about its first calls only.
        if let Some(decided) = self.decided.take() {
            approved.extend(open.into_iter().filter(|id| decided.contains(id)));
            return Some(Input::Decided { approved });
        }
        if open.is_empty() || self.approvals == Approvals::Never {
            return Some(Input::Decided { approved });
        }
        self.tell(Event::ApprovalRequired { ids: open.clone() }).await;
        let decisions = self.decisions.as_mut()?;
        tokio::select! {
            () = self.cancel.cancelled() => Some(Input::Cancelled { said: String::new(), done: Vec::new() }),
            decided = decisions.recv() => {
                let decided = decided.unwrap_or_default();
                approved.extend(open.into_iter().filter(|id| decided.contains(id)));
                Some(Input::Decided { approved })
            }
        }
    }

    fn needs_approval(&self, call: &ToolCall) -> bool {
        let Some(spec) = self.catalogue_entry(call) else { return false };
        let always = self.always.contains(&format!("{}@{}", spec.name, spec.hash));
        let may_harm = spec.destructive || self.engine.hub.definition_changed(&spec);
        may_harm && !always && self.approvals != Approvals::Always
    }

    /// A turn that is resumed has not called the model yet: the catalogue of now is as good.
    fn catalogue_entry(&self, call: &ToolCall) -> Option<Arc<crate::tools::catalogue::ToolSpec>> {
        self.catalogue.get(&call.name).cloned().or_else(|| self.engine.hub.catalogue().get(&call.name).cloned())
    }

    fn describe(&self, call: &ToolCall, needs_approval: bool) -> Event {
        let spec = self.catalogue_entry(call);
        let of =
            |field: fn(&crate::tools::catalogue::ToolSpec) -> &str| spec.as_deref().map(field).unwrap_or_default().to_owned();
        Event::ToolCall {
            id: call.id.clone(),
            name: call.name.clone(),
            server: of(|spec| &spec.server),
            tool: of(|spec| &spec.tool),
            hash: of(|spec| &spec.hash),
            input: call.input.clone(),
            needs_approval,
        }
    }

    async fn run_tools(&mut self, calls: &[ToolCall]) -> Input {
        let places = Arc::new(Semaphore::new(PARALLEL));
        let mut running: FuturesUnordered<_> = calls
            .iter()
            .map(|call| {
                let (places, run) = (Arc::clone(&places), &*self);
                async move {
                    // The semaphore is never closed.
                    let _place = places.acquire().await;
                    run.tell(Event::ToolStart { id: call.id.clone() }).await;
                    (call, run.engine.hub.call(&call.name, &call.input).await)
                }
            })
            .collect();
        let (mut results, mut used) = (Vec::new(), Vec::new());
        let cancelled = loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break true,
                next = running.next() => match next {
                    Some((call, output)) => {
                        used.push(call.name.clone());
                        results.push(self.take_result(call, output).await);
                    }
                    None => break false,
                },
            }
        };
        drop(running);
        self.tools_used.extend(used);
        if cancelled {
            return Input::Cancelled { said: String::new(), done: results };
        }
        Input::ToolResults(results)
    }

    async fn take_result(&self, call: &ToolCall, output: ToolOutput) -> ToolResult {
        let spec = self.catalogue_entry(call);
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        self.engine.metrics.tool_call(server, tool, output.outcome, output.duration);
        self.engine.ledger.tool(&call.name, output.text.len());
        let event = Event::ToolResult {
            id: call.id.clone(),
            is_error: output.is_error,
            text: output.text.clone(),
            duration_ms: millis(output.duration),
        };
        self.tell(event).await;
        ToolResult { id: call.id.clone(), text: output.text, is_error: output.is_error }
    }

    async fn finish(
        self,
        request_id: String,
        transcript: Transcript,
        outcome: Result<Outcome, ModelError>,
        duration: Duration,
    ) -> Finished {
        let messages = transcript.messages().to_vec();
        let (duration_seconds, tools_used) = (duration.as_secs_f64(), self.tools_used.join(","));
        self.engine.metrics.request(&outcome, duration);
        let event = match &outcome {
            Ok(outcome) => {
                tracing::info!(duration_seconds, tools_used, "Request completed");
                Event::Done {
                    request_id,
                    outcome: *outcome,
                    model: self.model.clone(),
                    usage: self.usage,
                    cost: self.cost,
                    duration_ms: millis(duration),
                    tools_used: self.tools_used.clone(),
                    messages,
                }
            }
            Err(error) => {
                tracing::error!(duration_seconds, tools_used, kind = error.kind(), "Request failed: {error}");
                let retry_after = match error {
                    ModelError::Status { retry_after, .. } => retry_after.map(|wait| wait.as_secs().max(1)),
                    _ => None,
                };
                Event::Error {
                    request_id,
                    kind: error.kind().to_owned(),
                    message: error.to_string(),
                    retry_after,
                    usage: self.usage,
                    messages,
                }
            }
        };
        self.tell(event).await;
        let Self { usage, cost, model, tools_used, .. } = self;
        Finished { transcript, outcome, usage, cost, model, tools_used }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

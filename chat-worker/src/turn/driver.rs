//! Does what the machine asks for, and tells everybody by events: the loop, and how a turn ends. The model is asked in
//! `asking`, tools run in `running`. One turn is one call of `run`, which always ends in `Done` or `Error`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    cache::{self, Kept, Key, Recording},
    event::Event,
    machine::{Input, Machine, Outcome, Step},
    opening::Opening,
    run::{Engine, Run, millis},
    transcript::Transcript,
};
use crate::{config::rules::Approvals, current_request, llm::ModelError, message::Usage, telemetry, tools::catalogue::Catalogue};

/// One turn to run.
#[derive(Debug)]
pub struct Turn {
    pub request_id: String,
    pub transcript: Transcript,
    /// What the user says; without it, the conversation goes on where it stopped.
    pub say: Option<Opening>,
    pub approvals: Approvals,
    /// Nobody is there to be asked: what would have to be is refused.
    pub unattended: bool,
    /// Who asks, for the audit: an address, or "terminal".
    pub caller: String,
    /// Tools that need no more asking: `name@hash`, so that a changed definition asks again.
    pub always: HashSet<String>,
    /// Calls that the user has decided on already: the ids of those that may run.
    pub decided: Option<Vec<String>>,
    /// Which definition of its tool a call was shown with, as its hash, by the call's id. What was shown is what may run.
    pub shown: HashMap<String, String>,
    /// Where decisions come from while the turn runs. Without it, a turn that needs one ends.
    pub decisions: Option<mpsc::Receiver<Vec<String>>>,
    /// Another model than the one of the settings.
    pub model: Option<String>,
    /// An answer to the same request may be used again, and this one be kept.
    pub cache: bool,
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
    /// Calls that were not allowed to run.
    pub refused: usize,
}

impl Engine {
    /// Runs one turn to its end. Events that nobody takes are dropped.
    pub async fn run(&self, turn: Turn, events: mpsc::Sender<Event>) -> Finished {
        let asked = turn.model.as_deref().unwrap_or_else(|| self.model.name());
        let traced = telemetry::invoke_agent(self.model.price_list(), asked, &turn.request_id);
        current_request::scope(turn.request_id.clone(), self.run_traced(turn, events).instrument(traced)).await
    }

    async fn run_traced(&self, turn: Turn, events: mpsc::Sender<Event>) -> Finished {
        let began = Instant::now();
        let key = (turn.cache && self.cache.is_on()).then(|| self.key(&turn));
        let kept = match &key {
            Some(key) => self.cache.get(key).await,
            None => None,
        };
        self.metrics.cache(key.is_some(), kept.is_some());
        if let Some(kept) = kept {
            return self.replay(&turn.request_id, &kept, &events, began).await;
        }
        let Turn {
            request_id,
            transcript,
            say,
            approvals,
            unattended,
            caller,
            always,
            decided,
            shown,
            decisions,
            cancel,
            model,
            cache: _,
        } = turn;
        let mut run = Run {
            engine: self,
            events,
            cancel,
            approvals,
            unattended,
            caller,
            judged: HashMap::new(),
            refused: 0,
            always,
            decided,
            shown,
            decisions,
            catalogue: Catalogue::default(),
            usage: Usage::default(),
            cost: Some(0.0),
            model: model.clone().unwrap_or_else(|| self.model.name().to_owned()),
            asked: model,
            tools_used: Vec::new(),
            recording: key.is_some().then(|| Mutex::new(Recording::default())),
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
                Step::Compact(earlier) => {
                    let input = run.compact(&earlier).await;
                    machine.on(input)
                }
                Step::Done(outcome) => break Ok(outcome),
                Step::Failed(error) => break Err(error),
            };
        };
        if let (Some(key), Ok(Outcome::Complete)) = (key, &outcome) {
            run.keep(key, machine.transcript()).await;
        }
        run.finish(request_id, machine.into_transcript(), outcome, began.elapsed()).await
    }

    /// All that the answer to a turn depends on.
    fn key(&self, turn: &Turn) -> Key {
        cache::key(&cache::Request {
            model: turn.model.as_deref().unwrap_or_else(|| self.model.name()),
            system: &self.system_prompt,
            catalogue: &self.hub.catalogue(),
            messages: turn.transcript.messages(),
            say: turn.say.as_ref(),
            always: &turn.always,
        })
    }

    /// Tells an answer that was kept.
    async fn replay(&self, request_id: &str, kept: &Kept, events: &mpsc::Sender<Event>, began: Instant) -> Finished {
        let Kept { events: told, messages, model, tools_used } = kept;
        let outcome = Ok(Outcome::Complete);
        let (usage, cost) = (Usage::default(), Some(0.0));
        let start = Event::Start { request_id: request_id.to_owned(), model: model.clone() };
        let done = Event::Done {
            request_id: request_id.to_owned(),
            outcome: Outcome::Complete,
            model: model.clone(),
            usage,
            cost,
            cached: true,
            duration_ms: millis(began.elapsed()),
            tools_used: tools_used.clone(),
            messages: messages.clone(),
        };
        for event in [start].into_iter().chain(told.iter().cloned()).chain([done]) {
            // Nobody listening is no reason to stop.
            let _ = events.send(event).await;
        }
        self.metrics.request(Ok(Outcome::Complete.name()), began.elapsed());
        tracing::info!(duration_seconds = began.elapsed().as_secs_f64(), "Request completed from the cache");
        // It was a valid conversation when it was kept.
        let transcript = Transcript::read(messages.clone()).unwrap_or_default();
        Finished { transcript, outcome, usage, cost, model: model.clone(), tools_used: tools_used.clone(), refused: 0 }
    }
}

impl Run<'_> {
    /// Keeps the answer for the next identical request, if it can be.
    async fn keep(&mut self, key: Key, transcript: &Transcript) {
        let Some(recording) = self.recording.take() else { return };
        let recording = recording.into_inner().unwrap_or_else(PoisonError::into_inner);
        let read_only = self.catalogue.iter().filter(|spec| spec.read_only).map(|spec| spec.name.clone()).collect();
        if let Some(kept) = recording.kept(transcript, &self.model, &self.tools_used, &read_only) {
            self.engine.cache.put(key, kept).await;
        }
    }

    async fn tell_about_servers(&self) {
        for server in self.engine.hub.status().into_iter().filter(|server| server.degraded) {
            let text = format!("The server {} {}. Its tools are missing.", server.name, server.state.in_words());
            self.tell(Event::Notice { text }).await;
        }
    }

    async fn finish(
        mut self,
        request_id: String,
        transcript: Transcript,
        outcome: Result<Outcome, ModelError>,
        duration: Duration,
    ) -> Finished {
        let mut messages = transcript.messages().to_vec();
        if matches!(outcome, Ok(Outcome::ApprovalRequired)) {
            self.note_what_is_shown();
        }
        self.write_what_was_shown(&mut messages);
        let (duration_seconds, tools_used) = (duration.as_secs_f64(), self.tools_used.join(","));
        let ended = outcome.as_ref().map(|outcome| outcome.name()).map_err(ModelError::kind);
        self.engine.metrics.request(ended, duration);
        telemetry::turned(&self.model, self.usage, ended.err());
        let event = match &outcome {
            Ok(outcome) => {
                tracing::info!(duration_seconds, tools_used, "Request completed");
                Event::Done {
                    request_id,
                    outcome: *outcome,
                    model: self.model.clone(),
                    usage: self.usage,
                    cost: self.cost,
                    cached: false,
                    duration_ms: millis(duration),
                    tools_used: self.tools_used.clone(),
                    messages,
                }
            }
            Err(error) => {
                tracing::error!(duration_seconds, tools_used, kind = error.kind(), "Request failed: {error}");
                Event::Error {
                    request_id,
                    kind: error.kind().to_owned(),
                    message: error.to_string(),
                    retry_after: error.retry_after(),
                    usage: self.usage,
                    messages,
                }
            }
        };
        self.tell(event).await;
        let Self { usage, cost, model, tools_used, refused, .. } = self;
        Finished { transcript, outcome, usage, cost, model, tools_used, refused }
    }
}

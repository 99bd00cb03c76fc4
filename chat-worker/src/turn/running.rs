//! The part of a turn that runs tools: who is asked first, calls side by side, and what they came to. Whether a call may run is
//! `policy`'s to say; what was judged is what runs.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};
use tracing::Instrument;

use super::{
    event::Event,
    machine::Input,
    run::{Judged, Run, millis},
    transcript::ToolResult,
};
use crate::{
    audit,
    llm::offer::search,
    message::{Message, ToolCall},
    numbers,
    policy::{self, By, Decision, Verdict, Why},
    telemetry::Traced,
    tools::{
        answer::{self, MAX_PICTURES, Told, ToolOutput},
        pace::Pace,
        relay::{Following, Next, Relay},
        spec::ToolSpec,
    },
};

/// Tools of one round that run at the same time.
const PARALLEL: usize = 8;
/// Words of one call on its progress, in a second. A person reads fewer.
const MENTIONS: usize = 20;

/// What the calls of a round have come to so far.
#[derive(Debug, Default)]
struct Results {
    all: Vec<ToolResult>,
    used: Vec<String>,
    /// What their pictures take, in bytes.
    pictures: usize,
}

impl Run<'_> {
    /// Decides on the calls; `None` when somebody has to be asked who is not there.
    pub(super) async fn approve(&mut self, calls: &[ToolCall]) -> Option<Input> {
        // What was decided before the turn began is about its first calls only.
        let decided = self.decided.take();
        let judge_all = |decided: Option<&[String]>| -> HashMap<String, Judged> {
            calls.iter().map(|call| (call.id.clone(), self.judge(call, decided))).collect()
        };
        let mut judged = judge_all(decided.as_deref());
        if let Some(name) = decided.and_then(|allowed| changed(&judged, &allowed, &self.shown)) {
            let text = format!("{name} has changed since its call was shown: it has to be decided on again.");
            judged = judge_all(None);
            self.tell(Event::Notice { text }).await;
        }
        for call in calls {
            self.tell(describe(&judged[&call.id])).await;
        }
        let open: Vec<String> =
            calls.iter().map(|call| &call.id).filter(|id| judged[*id].verdict == Verdict::Ask).cloned().collect();
        if !open.is_empty() {
            self.tell(Event::ApprovalRequired { ids: open.clone() }).await;
            let Some(decisions) = self.decisions.as_mut() else {
                self.judged = judged;
                return None;
            };
            let allowed = tokio::select! {
                () = self.cancel.cancelled() => {
                    for one in calls.iter().filter_map(|call| judged.get(&call.id)) {
                        self.audit(one, false, decision(one), "cancelled", Duration::ZERO);
                    }
                    return Some(Input::Cancelled { said: String::new(), done: Vec::new() });
                }
                allowed = decisions.recv() => allowed.unwrap_or_default(),
            };
            for id in &open {
                let Some(one) = judged.get_mut(id) else { continue };
                let decision = if allowed.contains(id) { Decision::Allowed } else { Decision::Denied };
                one.verdict = policy::judge(one.spec.as_deref(), self.approvals, decision);
            }
        }
        let mut approved = Vec::new();
        for call in calls {
            let one = &judged[&call.id];
            match one.verdict {
                // The machine answers these, with the user's word.
                Verdict::Refuse(why @ (Why::Denied | Why::Unattended)) => {
                    self.refused += 1;
                    self.audit(one, false, why.name(), "refused", Duration::ZERO);
                }
                _ => approved.push(call.id.clone()),
            }
        }
        self.judged = judged;
        Some(Input::Decided { approved })
    }

    /// The calls that wait are shown with the definitions that their tools have now.
    pub(super) fn note_what_is_shown(&mut self) {
        let hashes = self.judged.iter().filter_map(|(id, judged)| Some((id.clone(), judged.spec.as_ref()?.hash.clone())));
        self.shown.extend(hashes);
    }

    /// Writes it into the calls: the conversation comes back with the decision, to whichever replica. What came with it goes back with it, so
    /// that a conversation only grows.
    pub(super) fn write_what_was_shown(&self, messages: &mut [Message]) {
        for block in messages.iter_mut().flat_map(|message| &mut message.content).filter(|block| block["type"] == "tool_use") {
            if let Some(hash) = block["id"].as_str().and_then(|id| self.shown.get(id)) {
                block["hash"] = json!(hash);
            }
        }
    }

    fn judge(&self, call: &ToolCall, decided: Option<&[String]>) -> Judged {
        let meant = search::meant(call.clone());
        if meant.name == search::FIND {
            return Judged { call: meant, spec: None, verdict: Verdict::Run(By::Harmless) };
        }
        let spec = self.catalogue_entry(&meant.name);
        let always = spec.as_ref().is_some_and(|spec| self.always.contains(&format!("{}@{}", spec.name, spec.hash)));
        let decision = match decided {
            Some(allowed) if allowed.contains(&call.id) => Decision::Allowed,
            _ if always => Decision::Always,
            Some(_) => Decision::Denied,
            None if self.unattended => Decision::Unattended,
            None => Decision::Open,
        };
        let verdict = policy::judge(spec.as_deref(), self.approvals, decision);
        Judged { call: meant, spec, verdict }
    }

    /// A turn that is resumed has not called the model yet: the catalogue of now is as good.
    fn catalogue_entry(&self, name: &str) -> Option<Arc<ToolSpec>> {
        self.catalogue.get(name).cloned().or_else(|| self.engine.hub.tool(name))
    }

    pub(super) async fn run_tools(&mut self, calls: &[ToolCall]) -> Input {
        let places = Arc::new(Semaphore::new(PARALLEL));
        let judged = std::mem::take(&mut self.judged);
        let results = Mutex::new(Results::default());
        let mut running: FuturesUnordered<_> = calls
            .iter()
            .filter_map(|call| judged.get(&call.id))
            .map(|one| {
                let (places, results, run) = (Arc::clone(&places), &results, &*self);
                async move {
                    // The semaphore is never closed.
                    let _place = places.acquire().await;
                    run.tell(Event::ToolStart { id: one.call.id.clone() }).await;
                    let output = run.call_tool(one).await;
                    // Taken before it is told: a slow reader holds up neither the others nor what they take of the memory.
                    let told = run.take_result(one, output, results);
                    run.tell(told).await;
                }
            })
            .collect();
        let cancelled = loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break true,
                next = running.next() => if next.is_none() { break false },
            }
        };
        drop(running);
        let Results { all: results, used, .. } = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        if cancelled {
            for one in calls.iter().filter(|call| !results.iter().any(|result| result.id == call.id)) {
                if let Some(one) = judged.get(&one.id) {
                    self.audit(one, runs(one), decision(one), "cancelled", Duration::ZERO);
                }
            }
        }
        self.refused += calls
            .iter()
            .filter(|call| judged.get(&call.id).is_some_and(|one| one.verdict == Verdict::Refuse(Why::Never)))
            .count();
        self.tools_used.extend(used);
        if cancelled {
            return Input::Cancelled { said: String::new(), done: results };
        }
        Input::ToolResults(results)
    }

    async fn call_tool(&self, one: &Judged) -> ToolOutput {
        let Judged { call, spec, verdict } = one;
        match (verdict, spec) {
            (Verdict::Run(_), Some(spec)) => {
                let traced = Traced::execute_tool(&spec.server, &spec.tool, Some(&call.id));
                let output = self.call_and_tell(&call.id, spec, &call.input).instrument(traced.span()).await;
                traced.ended(output.is_error.then_some(output.outcome));
                output
            }
            (Verdict::Run(_), None) => ToolOutput::told(search::find(self.catalogue.iter(), &call.input).to_string()),
            (Verdict::Refuse(Why::Unknown), _) => self.engine.hub.unknown(&call.name),
            (Verdict::Refuse(why), _) => ToolOutput::refused(why.sentence()),
            (Verdict::Ask, _) => ToolOutput::refused(Why::Denied.sentence()),
        }
    }

    /// Calls the tool, and tells meanwhile how far it is.
    async fn call_and_tell(&self, id: &str, spec: &ToolSpec, input: &Value) -> ToolOutput {
        let (relay, hears) = Relay::of_progress();
        let input = numbers::written(input);
        let call = pin!(self.engine.hub.call_as(spec, &input, Some(relay)));
        let mut call = Following::new(call, hears);
        let mut pace = Pace::new(MENTIONS, Instant::now());
        loop {
            let said = match call.next().await {
                Next::Said(said) => said,
                Next::Over(output) => return output,
            };
            let now = Instant::now();
            if let Some(text) = said.progress().filter(|_| pace.pause(now).is_none()) {
                pace.spend(1, now);
                self.mention(Event::ToolProgress { id: id.to_owned(), text });
            }
        }
    }

    /// Keeps what of an output the conversation goes on with, and says what is to be told of it. The rest is gone.
    fn take_result(&self, one: &Judged, output: ToolOutput, results: &Mutex<Results>) -> Event {
        let (server, tool) = (one.server(), one.tool());
        self.engine.metrics.tool_call(server, tool, output.outcome, output.duration);
        self.audit(one, runs(one), decision(one), output.outcome, output.duration);
        let ToolOutput { told, is_error, duration, outcome: _ } = output;
        let (text, whole) = match told {
            Told::Whole(whole) => (answer::in_words(&whole.result), Some(whole)),
            Told::Words(text) | Told::Error(text, _) => (text, None),
        };
        self.engine.ledger.tool(&one.call.name, text.len(), &self.model, self.engine.model.price_list());
        let id = one.call.id.clone();
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        let left = MAX_PICTURES - results.pictures;
        let images = whole.map(|whole| answer::images(&whole.result, left)).unwrap_or_default();
        results.pictures += images.iter().filter_map(|image| image["source"]["data"].as_str()).map(str::len).sum::<usize>();
        results.used.push(one.call.name.clone());
        results.all.push(ToolResult { id: id.clone(), text: text.clone(), is_error, images });
        Event::ToolResult { id, is_error, text, duration_ms: millis(duration) }
    }

    fn audit(&self, one: &Judged, allowed: bool, decision: &str, outcome: &str, duration: Duration) {
        let arguments = &numbers::written(&one.call.input);
        let (server, caller) = (one.server(), self.caller.as_str());
        // A name that nobody knows is the model's own.
        let tool = if one.spec.is_some() { one.tool() } else { &one.call.name };
        audit::Call { caller, server, tool, arguments, decision, allowed, outcome, duration }.log(self.engine.audit_arguments);
    }
}

/// The tool of a call that was allowed, where it is defined otherwise than it was shown.
fn changed(judged: &HashMap<String, Judged>, allowed: &[String], shown: &HashMap<String, String>) -> Option<String> {
    allowed.iter().find_map(|id| {
        let (spec, shown) = (judged.get(id)?.spec.as_ref()?, shown.get(id)?);
        (spec.hash != *shown).then(|| spec.name.clone())
    })
}

fn runs(one: &Judged) -> bool {
    matches!(one.verdict, Verdict::Run(_))
}

fn decision(one: &Judged) -> &'static str {
    match one.verdict {
        Verdict::Run(by) => by.name(),
        Verdict::Refuse(why) => why.name(),
        Verdict::Ask => "open",
    }
}

fn describe(one: &Judged) -> Event {
    let of = |field: fn(&ToolSpec) -> &str| one.spec.as_deref().map(field).unwrap_or_default().to_owned();
    Event::ToolCall {
        id: one.call.id.clone(),
        name: one.call.name.clone(),
        server: of(|spec| &spec.server),
        tool: of(|spec| &spec.tool),
        hash: of(|spec| &spec.hash),
        input: one.call.input.clone(),
        arguments: numbers::written(&one.call.input),
        needs_approval: one.verdict == Verdict::Ask,
    }
}

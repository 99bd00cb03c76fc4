//! The part of a turn that runs tools: who is asked first, calls side by side, and what they came to. Whether a call may run is
//! `policy`'s to say; what was judged is what runs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{
    event::Event,
    machine::Input,
    run::{Judged, Run, millis},
    transcript::ToolResult,
};
use crate::{
    audit,
    llm::{offer::search, wire::ToolCall},
    policy::{self, By, Decision, Verdict, Why},
    telemetry::Traced,
    tools::{
        answer::{self, ToolOutput},
        spec::ToolSpec,
    },
};

/// Tools of one round that run at the same time.
const PARALLEL: usize = 8;

impl Run<'_> {
    /// Decides on the calls; `None` when somebody has to be asked who is not there.
    pub(super) async fn approve(&mut self, calls: &[ToolCall]) -> Option<Input> {
        // What was decided before the turn began is about its first calls only.
        let decided = self.decided.take();
        let mut judged = HashMap::new();
        for call in calls {
            let one = self.judge(call, decided.as_deref());
            self.tell(describe(&one)).await;
            judged.insert(call.id.clone(), one);
        }
        let open: Vec<String> =
            calls.iter().map(|call| &call.id).filter(|id| judged[*id].verdict == Verdict::Ask).cloned().collect();
        if !open.is_empty() {
            self.tell(Event::ApprovalRequired { ids: open.clone() }).await;
            let decisions = self.decisions.as_mut()?;
            let allowed = tokio::select! {
                () = self.cancel.cancelled() => return Some(Input::Cancelled { said: String::new(), done: Vec::new() }),
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

    fn judge(&self, call: &ToolCall, decided: Option<&[String]>) -> Judged {
        let meant = search::meant(call);
        if meant.name == search::FIND {
            return Judged { call: meant, spec: None, verdict: Verdict::Run(By::Harmless) };
        }
        let spec = self.catalogue_entry(&meant.name);
        let always = spec.as_ref().is_some_and(|spec| self.always.contains(&format!("{}@{}", spec.name, spec.hash)));
        let decision = match decided {
            Some(decided) if decided.contains(&call.id) => Decision::Allowed,
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
        let mut running: FuturesUnordered<_> = calls
            .iter()
            .filter_map(|call| judged.get(&call.id))
            .map(|one| {
                let (places, run) = (Arc::clone(&places), &*self);
                async move {
                    // The semaphore is never closed.
                    let _place = places.acquire().await;
                    run.tell(Event::ToolStart { id: one.call.id.clone() }).await;
                    (one, run.call_tool(one).await)
                }
            })
            .collect();
        let (mut results, mut used) = (Vec::new(), Vec::new());
        let cancelled = loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break true,
                next = running.next() => match next {
                    Some((one, output)) => {
                        used.push(one.call.name.clone());
                        results.push(self.take_result(one, output).await);
                    }
                    None => break false,
                },
            }
        };
        drop(running);
        if cancelled {
            for one in calls.iter().filter(|call| !results.iter().any(|result| result.id == call.id)) {
                if let Some(one) = judged.get(&one.id) {
                    self.audit(one, true, decision(one), "cancelled", Duration::ZERO);
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
                let output = self.engine.hub.call_as(spec, &call.input, None).instrument(traced.span()).await;
                traced.executed(&output);
                output
            }
            (Verdict::Run(_), None) => ToolOutput::told(search::find(self.catalogue.iter(), &call.input).to_string()),
            (Verdict::Refuse(Why::Unknown), _) => self.engine.hub.unknown(&call.name),
            (Verdict::Refuse(why), _) => ToolOutput::refused(why.sentence()),
            (Verdict::Ask, _) => ToolOutput::refused(Why::Denied.sentence()),
        }
    }

    async fn take_result(&self, one: &Judged, output: ToolOutput) -> ToolResult {
        let (server, tool) = (one.server(), one.tool());
        self.engine.metrics.tool_call(server, tool, output.outcome, output.duration);
        self.engine.ledger.tool(&one.call.name, output.text.len(), &self.model, self.engine.model.price_list());
        self.audit(one, matches!(one.verdict, Verdict::Run(_)), decision(one), output.outcome, output.duration);
        let event = Event::ToolResult {
            id: one.call.id.clone(),
            is_error: output.is_error,
            text: output.text.clone(),
            duration_ms: millis(output.duration),
        };
        self.tell(event).await;
        let images = output.whole.as_deref().map(answer::images).unwrap_or_default();
        ToolResult { id: one.call.id.clone(), text: output.text, is_error: output.is_error, images }
    }

    fn audit(&self, one: &Judged, allowed: bool, decision: &str, outcome: &str, duration: Duration) {
        let arguments: &Value = &one.call.input;
        let (server, caller) = (one.server(), self.caller.as_str());
        // A name that nobody knows is the model's own.
        let tool = if one.spec.is_some() { one.tool() } else { &one.call.name };
        audit::Call { caller, server, tool, arguments, decision, allowed, outcome, duration }.log(self.engine.audit_arguments);
    }
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
        needs_approval: one.verdict == Verdict::Ask,
    }
}

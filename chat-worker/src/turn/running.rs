//! The part of a turn that runs tools: who is asked first, calls side by side, and what they came to.

use std::sync::Arc;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{
    driver::{Run, millis},
    machine::Input,
    transcript::ToolResult,
};
use crate::{
    config::settings::Approvals,
    llm::wire::ToolCall,
    telemetry::Traced,
    tools::{catalogue::ToolSpec, hub::ToolOutput},
    ui::event::Event,
};

/// Tools of one round that run at the same time.
const PARALLEL: usize = 8;

impl Run<'_> {
    /// Decides on the calls; `None` when somebody has to be asked who is not there.
    pub(super) async fn approve(&mut self, calls: &[ToolCall]) -> Option<Input> {
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
        let may_harm = spec.destructive || spec.changed;
        may_harm && !always && self.approvals != Approvals::Always
    }

    /// A turn that is resumed has not called the model yet: the catalogue of now is as good.
    fn catalogue_entry(&self, call: &ToolCall) -> Option<Arc<ToolSpec>> {
        self.catalogue.get(&call.name).cloned().or_else(|| self.engine.hub.catalogue().get(&call.name).cloned())
    }

    fn describe(&self, call: &ToolCall, needs_approval: bool) -> Event {
        let spec = self.catalogue_entry(call);
        let of = |field: fn(&ToolSpec) -> &str| spec.as_deref().map(field).unwrap_or_default().to_owned();
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

    pub(super) async fn run_tools(&mut self, calls: &[ToolCall]) -> Input {
        let places = Arc::new(Semaphore::new(PARALLEL));
        let mut running: FuturesUnordered<_> = calls
            .iter()
            .map(|call| {
                let (places, run) = (Arc::clone(&places), &*self);
                async move {
                    // The semaphore is never closed.
                    let _place = places.acquire().await;
                    run.tell(Event::ToolStart { id: call.id.clone() }).await;
                    (call, run.call_tool(call).await)
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

    async fn call_tool(&self, call: &ToolCall) -> ToolOutput {
        let spec = self.catalogue_entry(call);
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        let traced = Traced::execute_tool(server, tool, Some(&call.id));
        let output = self.engine.hub.call(&call.name, &call.input).instrument(traced.span()).await;
        traced.executed(&output);
        output
    }

    async fn take_result(&self, call: &ToolCall, output: ToolOutput) -> ToolResult {
        let spec = self.catalogue_entry(call);
        let (server, tool) = spec.as_ref().map_or(("", "unknown"), |spec| (spec.server.as_str(), spec.tool.as_str()));
        self.engine.metrics.tool_call(server, tool, output.outcome, output.duration);
        self.engine.ledger.tool(&call.name, output.text.len(), &self.model, self.engine.model.price_list());
        let event = Event::ToolResult {
            id: call.id.clone(),
            is_error: output.is_error,
            text: output.text.clone(),
            duration_ms: millis(output.duration),
        };
        self.tell(event).await;
        ToolResult { id: call.id.clone(), text: output.text, is_error: output.is_error }
    }
}

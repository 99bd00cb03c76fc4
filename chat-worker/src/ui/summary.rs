//! A whole turn as one JSON object: what `ask --json` prints and what the API answers when nobody wants a stream. Pure.

use serde_json::{Value, json};

use crate::{
    message::block_text,
    turn::{event::Event, machine::Outcome},
};

/// The events of a turn that is told at its end, as far as that is about them: words together, and none that are void. One by one, the
/// words of a long answer would take many times their room.
#[derive(Debug, Default)]
pub struct Gathered(Vec<Event>);

impl Gathered {
    pub fn take(&mut self, event: Event) {
        match (self.0.last_mut(), event) {
            (_, Event::Start { .. } | Event::Thinking { .. } | Event::ToolProgress { .. }) => {}
            (Some(Event::Text { text: before }), Event::Text { text }) => before.push_str(&text),
            (Some(last @ Event::Text { .. }), event @ Event::Restart { .. }) => *last = event,
            (_, event) => self.0.push(event),
        }
    }

    pub fn events(&self) -> &[Event] {
        &self.0
    }
}

/// The answer, the calls with their results, and how the turn ended.
pub fn summary(events: &[Event]) -> Value {
    let (mut answer, mut calls, mut notices) = (String::new(), Vec::new(), Vec::new());
    let (mut end, mut void) = (json!({}), false);
    for event in events {
        match event {
            Event::Text { text } => {
                if std::mem::take(&mut void) {
                    answer.clear();
                }
                answer.push_str(text);
            }
            // What came before a call was on the way to what comes after it.
            Event::ToolStart { .. } => void = true,
            // What broke off is no answer at all.
            Event::Restart { .. } => answer.clear(),
            Event::ToolCall { id, name, server, input, hash, needs_approval, .. } => {
                void = true;
                calls.push(json!({"id": id, "name": name, "server": server, "input": input, "hash": hash,
                                  "needs_approval": needs_approval}));
            }
            Event::ToolResult { id, is_error, text, duration_ms } => {
                if let Some(call) = calls.iter_mut().find(|call| call["id"] == id.as_str()) {
                    call["result"] = json!({"is_error": is_error, "text": text, "duration_ms": duration_ms});
                }
            }
            Event::Notice { text } => notices.push(text.clone()),
            Event::Done { request_id, outcome, model, usage, cost, cached, duration_ms, messages, .. } => {
                end = json!({"request_id": request_id, "outcome": outcome, "model": model, "usage": usage,
                             "cost": cost, "cached": cached, "duration_ms": duration_ms, "messages": messages});
                // Whoever stopped it knows, and calls that wait are there to be decided.
                let is_news = !matches!(outcome, Outcome::Cancelled | Outcome::ApprovalRequired);
                notices.extend(outcome.in_words().filter(|_| is_news).map(|words| format!("No whole answer: {words}.")));
            }
            Event::Error { request_id, kind, message, retry_after, usage, messages } => {
                end = json!({"request_id": request_id, "outcome": "error", "usage": usage, "messages": messages,
                             "error": {"kind": kind, "message": message, "retry_after": retry_after}});
            }
            Event::Start { .. } | Event::Thinking { .. } | Event::ApprovalRequired { .. } | Event::ToolProgress { .. } => {}
        }
    }
    // A call that was not let run has a result that only the model was told.
    for call in calls.iter_mut().filter(|call| call["result"].is_null()) {
        if let Some(told) = result_in(&end["messages"], &call["id"]) {
            call["result"] = json!({"is_error": true, "text": told, "duration_ms": 0});
        }
    }
    end["answer"] = json!(answer.trim());
    end["tool_calls"] = Value::Array(calls);
    end["notices"] = json!(notices);
    end
}

/// What a conversation says a call came to.
fn result_in(messages: &Value, call: &Value) -> Option<String> {
    let blocks = messages.as_array()?.iter().filter_map(|message| message["content"].as_array()).flatten();
    let result = blocks.into_iter().find(|block| block["type"] == "tool_result" && &block["tool_use_id"] == call)?;
    Some(result["content"].as_array()?.iter().filter_map(block_text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::{Message, Role},
        turn::machine::Outcome,
    };

    #[test]
    fn the_answer_is_what_was_said_last_and_whole() {
        let text = |text: &str| Event::Text { text: text.into() };
        let events = [
            text("Let me look."),
            Event::ToolStart { id: "1".into() },
            text("Half an"),
            Event::Restart { reason: "x".into(), attempt: 2, after_ms: 1, model: "m".into() },
            text("The whole answer."),
        ];
        assert_eq!(summary(&events)["answer"], "The whole answer.");
        let mut gathered = Gathered::default();
        let pieces = events.into_iter().flat_map(|event| match event {
            Event::Text { text } => text.split_inclusive(' ').map(|text| Event::Text { text: text.to_owned() }).collect(),
            other => vec![Event::Thinking { text: "hm".into() }, other],
        });
        pieces.for_each(|event| gathered.take(event));
        assert_eq!((summary(gathered.events())["answer"].as_str(), gathered.events().len()), (Some("The whole answer."), 4));
        let call = || Event::ToolCall {
            id: "1".into(),
            name: "a__wipe".into(),
            server: "a".into(),
            tool: "wipe".into(),
            input: json!({}),
            arguments: "{}".into(),
            hash: "h".into(),
            needs_approval: true,
        };
        assert_eq!(summary(&[text("I will wipe it."), call()])["answer"], "I will wipe it.", "it waits");
        assert_eq!(summary(&[text("I will wipe it."), call(), text("You said no.")])["answer"], "You said no.");
    }
    #[test]
    fn a_call_that_was_not_allowed_has_what_the_model_was_told() {
        let [id, name, server, tool, hash, arguments] = ["1", "a__wipe", "a", "wipe", "h", "{}"].map(str::to_owned);
        let call = Event::ToolCall { id, name, server, tool, hash, input: json!({}), arguments, needs_approval: true };
        let block = json!({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "not allowed"}]});
        let done = Event::Done {
            request_id: "r".into(),
            outcome: Outcome::Complete,
            model: "m".into(),
            usage: crate::message::Usage::default(),
            cost: None,
            cached: false,
            duration_ms: 1,
            tools_used: Vec::new(),
            messages: vec![Message { role: Role::User, content: vec![block] }],
        };
        let result = json!({"is_error": true, "text": "not allowed", "duration_ms": 0});
        assert_eq!(summary(&[call, done])["tool_calls"][0]["result"], result);
    }
}

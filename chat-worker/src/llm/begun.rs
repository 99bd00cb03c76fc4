//! An attempt that has begun: its answer as far as it has come, and what it costs if none comes of it. What the API has told counts; what it
//! has not is estimated, so that nobody passes a budget by leaving before the end, where most APIs tell what they used.

use super::{
    Answer, Listener, Lost, ModelError, Prompt,
    api::Api,
    assemble::{self, Assemble, Seen, Told},
    estimate, sentence,
};
use crate::message::Usage;

/// Names longer than this are cut: they become labels.
const MAX_MODEL_NAME: usize = 100;

/// An attempt. Dropped before its end, because nobody waits for it any more, it tells what it cost.
pub struct Begun<'a> {
    pub prompt: &'a Prompt<'a>,
    /// The model that is asked.
    pub model: &'a str,
    listener: &'a dyn Listener,
    /// Until the attempt is accounted for.
    assembler: Option<Box<dyn Assemble>>,
    /// Some of the answer has come.
    is_heard: bool,
}

impl<'a> Begun<'a> {
    pub fn new(api: &Api, prompt: &'a Prompt<'a>, model: &'a str, listener: &'a dyn Listener) -> Self {
        Self { prompt, model, listener, assembler: Some(api.assembler()), is_heard: false }
    }

    /// Takes an event of a stream.
    pub fn push(&mut self, data: &str) -> Result<Seen, ModelError> {
        // With events of nothing some servers keep a connection open.
        let Some(assembler) = self.assembler.as_mut().filter(|_| !data.trim().is_empty()) else { return Ok(Seen::Quiet) };
        let seen = assembler.push(data)?;
        self.is_heard = true;
        Ok(seen)
    }

    /// Whether a stream that ends here is complete, although it does not say so.
    pub fn may_end(&self) -> bool {
        self.assembler.as_ref().is_some_and(|assembler| assembler.may_end())
    }

    /// The answer that the stream was.
    pub fn finish(&mut self) -> Result<Answer, ModelError> {
        let Some(assembler) = self.assembler.take() else { return Err(ModelError::Stream("it ended twice".into())) };
        let Told { model, usage, written } = assembler.told();
        let model = model.to_owned();
        assembler.finish().inspect_err(|_| self.listener.lost(self.lost(Told { model: &model, usage, written })))
    }

    /// The answer that a body is, from servers that do not stream.
    pub fn whole(&mut self, api: &Api, body: &[u8]) -> Result<Answer, ModelError> {
        let text = String::from_utf8_lossy(body);
        let message = assemble::parse(&text);
        let answer = message.as_ref().map_err(Clone::clone).and_then(|message| api.whole(message));
        match &answer {
            Ok(_) | Err(ModelError::Event { .. }) => self.assembler = None,
            Err(_) => self.broke_off(body.len(), message.map(|message| api.usage(&message)).unwrap_or_default()),
        }
        answer
    }

    /// So many bytes came of a body that is no answer, and it told so much of what it cost.
    pub fn broke_off(&mut self, written: usize, usage: Usage) {
        self.assembler = None;
        if written > 0 {
            self.listener.lost(self.lost(Told { model: "", usage, written }));
        }
    }

    /// The attempt has failed. Where nothing has come of an answer, it costs nothing.
    pub fn failed(&mut self) {
        if !self.is_heard {
            self.assembler = None;
        }
    }

    fn lost(&self, told: Told<'_>) -> Lost {
        let Told { model, usage, written } = told;
        let mut guessed = untold(self.prompt, usage, || 0);
        // What it tells of its output before the end is no more than a beginning.
        guessed.output_tokens = (written as u64 / 4).saturating_sub(usage.output_tokens);
        Lost { model: bounded(model, self.model), told: usage, guessed }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(assembler) = &self.assembler {
            self.listener.lost(self.lost(assembler.told()));
        }
    }
}

/// The answer with a bounded name of its model, and with an estimate where its tokens were not told: a budget must hold for servers that do
/// not count, too.
pub fn accounted(mut answer: Answer, prompt: &Prompt<'_>, model: &str) -> Answer {
    answer.model = bounded(&answer.model, model);
    let content = &answer.content;
    let written = || if content.is_empty() { 0 } else { serde_json::json!(content).to_string().len() };
    let guessed = untold(prompt, answer.usage, written);
    answer.estimated = guessed.total() > 0;
    answer.usage += guessed;
    answer
}

/// What is missing in what an API tells of its tokens: four bytes to a token.
fn untold(prompt: &Prompt<'_>, told: Usage, written: impl FnOnce() -> usize) -> Usage {
    let is_input_told = told.total() > told.output_tokens;
    Usage {
        input_tokens: if is_input_told { 0 } else { estimate(prompt) },
        output_tokens: if told.output_tokens > 0 { 0 } else { written() as u64 / 4 },
        ..Usage::default()
    }
}

/// The name of a model as it tells it, or else as it was asked by.
fn bounded(told: &str, asked: &str) -> String {
    let name: String = sentence(told).chars().take(MAX_MODEL_NAME).collect();
    if name.is_empty() { asked.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::BoxFuture;
    use serde_json::json;

    use super::*;
    use crate::{llm::Progress, message::Message};

    /// Keeps what was lost.
    #[derive(Default)]
    struct Books(Mutex<Vec<Lost>>);

    impl Listener for Books {
        fn tell(&self, _: Progress) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }

        fn lost(&self, lost: Lost) {
            self.0.lock().expect("whole").push(lost);
        }
    }

    const OPENAI: Api = Api::OpenAi { completion_limit: false };

    /// What is booked of an attempt with which this is done. The question has 400 bytes.
    fn booked(api: &Api, act: impl FnOnce(&mut Begun<'_>)) -> Vec<Lost> {
        let books = Books::default();
        let question = Message::user(&"x".repeat(400));
        let messages = vec![question].into();
        let prompt = Prompt { system: "", offer: Arc::default(), messages, allow_tools: true, model: None };
        let mut begun = Begun::new(api, &prompt, "asked", &books);
        act(&mut begun);
        drop(begun);
        books.0.into_inner().expect("whole")
    }

    fn push(begun: &mut Begun<'_>, events: &[serde_json::Value]) {
        for event in events {
            begun.push(&event.to_string()).expect("an event");
        }
    }

    fn delta(text: &str) -> serde_json::Value {
        json!({"model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
    }

    #[test]
    fn what_breaks_off_or_is_left_is_estimated_where_the_api_has_told_nothing() {
        let words = "four".repeat(50);
        let ends: [fn(&mut Begun<'_>); 3] =
            [|begun| begun.failed(), |_| {}, |begun| drop(begun.finish().expect_err("no answer"))];
        for ends in ends {
            let lost = booked(&OPENAI, |begun| {
                push(begun, &[delta(&words)]);
                ends(begun);
            });
            assert_eq!((lost.len(), lost[0].model.as_str(), lost[0].told), (1, "m", Usage::default()), "{lost:?}");
            assert!((100..200).contains(&lost[0].guessed.input_tokens) && lost[0].guessed.output_tokens == 50, "{lost:?}");
        }
        let left_at_once = booked(&OPENAI, |_| {});
        assert!(left_at_once[0].guessed.input_tokens >= 100 && left_at_once[0].model == "asked", "{left_at_once:?}");
        let call = json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a",
            "function": {"name": "q", "arguments": "x".repeat(80)}}]}}]});
        assert!(booked(&OPENAI, |begun| push(begun, &[call]))[0].guessed.output_tokens >= 20);
        let thinking = json!({"choices": [{"delta": {"reasoning_content": "x".repeat(80)}}]});
        assert_eq!(booked(&OPENAI, |begun| push(begun, &[thinking]))[0].guessed.output_tokens, 20);
    }

    #[test]
    fn what_the_api_has_told_counts() {
        let anthropic = Api::Anthropic { version: String::new() };
        let start = |usage: serde_json::Value| json!({"type": "message_start", "message": {"model": "m", "usage": usage}});
        let text = [
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x".repeat(80)}}),
        ];
        let told = json!({"input_tokens": 7, "cache_read_input_tokens": 5, "output_tokens": 1});
        let lost = booked(&anthropic, |begun| push(begun, &[&[start(told)][..], &text].concat()));
        assert_eq!((lost[0].told.total(), lost[0].guessed.input_tokens, lost[0].guessed.output_tokens), (13, 0, 19));
        let lost = booked(&anthropic, |begun| push(begun, &[&[start(json!(null))][..], &text].concat()));
        assert!(lost[0].guessed.input_tokens >= 100 && lost[0].guessed.output_tokens == 20, "{lost:?}");
        let at_the_end = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 30}});
        let lost = booked(&OPENAI, |begun| push(begun, &[delta("half"), at_the_end]));
        assert_eq!((lost[0].told.total(), lost[0].guessed.total()), (39, 0));
    }

    #[test]
    fn what_was_refused_or_answered_is_not_lost() {
        let refused = booked(&OPENAI, |begun| {
            begun.push(&json!({"error": {"message": "busy"}}).to_string()).expect_err("an error");
            begun.failed();
        });
        assert!(refused.is_empty());
        let empty = booked(&OPENAI, |begun| {
            begun.push(" ").expect("nothing");
            begun.failed();
        });
        assert!(empty.is_empty(), "an event of nothing is no beginning");
        let answered = booked(&OPENAI, |begun| {
            push(begun, &[delta("all"), json!({"choices": [{"delta": {}, "finish_reason": "stop"}]})]);
            begun.finish().expect("an answer");
        });
        assert!(answered.is_empty());
    }

    #[test]
    fn a_body_that_is_no_answer_is_paid_for_and_one_that_is_an_error_is_not() {
        let whole = |body: &str| booked(&OPENAI, |begun| drop(begun.whole(&OPENAI, body.as_bytes())));
        assert!(whole(r#"{"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}"#).is_empty());
        assert!(whole(r#"{"error": {"message": "busy"}}"#).is_empty());
        let half = r#"{"choices": [{"message": {"content": "half"#;
        assert_eq!(whole(half)[0].guessed.output_tokens, half.len() as u64 / 4);
        let told = whole(r#"{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 30}}"#);
        assert_eq!((told[0].told.total(), told[0].guessed.total()), (39, 0));
    }

    #[test]
    fn of_an_answer_only_what_was_not_told_is_estimated() {
        let messages = vec![Message::user(&"x".repeat(400))].into();
        let prompt = Prompt { system: "", offer: Arc::default(), messages, allow_tools: true, model: None };
        let of = |input_tokens, output_tokens| {
            let usage = Usage { input_tokens, output_tokens, ..Usage::default() };
            let content = vec![json!({"type": "text", "text": "x".repeat(80)})];
            let stop = crate::message::StopReason::EndTurn;
            let answer = Answer { content, stop, usage, model: String::new(), first_token: None, estimated: false };
            accounted(answer, &prompt, "asked")
        };
        assert_eq!((of(3, 4).usage.total(), of(3, 4).estimated, of(3, 4).model.as_str()), (7, false, "asked"));
        assert!(of(0, 4).usage.input_tokens >= 100 && of(0, 4).usage.output_tokens == 4 && of(0, 4).estimated);
        assert!(of(3, 0).usage.output_tokens >= 20 && of(3, 0).usage.input_tokens == 3 && of(3, 0).estimated);
    }
}

//! From the chunks of a stream, or from a whole completion, to one answer. It is complete with `[DONE]`, or where a stream ends after a
//! `finish_reason`: several servers say no more. Before that, a stream that ends is broken.

use serde_json::{Value, json};

use super::calls::Calls;
use crate::{
    llm::{
        Answer, ModelError, Progress,
        assemble::{Assemble, Seen, Size, Told, check_call, check_stop, is_error, parse, reported, tell_apart},
        halves::Halves,
    },
    message::{StopReason, Usage, block_text, text_block},
};

/// Collects the chunks of one attempt.
#[derive(Debug, Default)]
pub struct Assembler {
    text: String,
    refused: bool,
    calls: Calls,
    finish: Option<String>,
    usage: Usage,
    model: String,
    halves: Halves,
    size: Size,
}

impl Assemble for Assembler {
    fn push(&mut self, data: &str) -> Result<Seen, ModelError> {
        if data.trim() == "[DONE]" {
            return Ok(Seen::Stop);
        }
        let chunk = parse(&self.halves.join(data))?;
        self.take(&chunk, "delta")
    }

    fn told(&self) -> Told<'_> {
        Told { model: &self.model, usage: self.usage, written: self.size.written }
    }

    fn may_end(&self) -> bool {
        self.finish.is_some()
    }

    fn finish(mut self: Box<Self>) -> Result<Answer, ModelError> {
        let Some(finish) = self.finish.take() else {
            return Err(ModelError::Stream("it stopped without a reason".into()));
        };
        let stop = if self.refused { StopReason::Refusal } else { stop_reason(&finish) };
        let cut_off = matches!(stop, StopReason::MaxTokens | StopReason::Refusal);
        let mut content = Vec::new();
        if self.halves.lost() {
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        if !self.text.trim().is_empty() {
            content.push(text_block(&self.text));
        }
        content.extend(self.calls.blocks(cut_off)?);
        content.iter().try_for_each(check_call)?;
        tell_apart(&mut content);
        check_stop(&stop, &content)?;
        Ok(Answer { content, stop, usage: self.usage, model: self.model, first_token: None, estimated: false })
    }
}

impl Assembler {
    /// Takes a chunk, or a whole completion: they differ in the name under which the choice holds what was said.
    fn take(&mut self, chunk: &Value, said: &str) -> Result<Seen, ModelError> {
        if is_error(chunk) {
            return Err(reported(chunk));
        }
        if let Some(model) = chunk["model"].as_str().filter(|model| !model.is_empty()) {
            model.clone_into(&mut self.model);
        }
        self.usage = usage(&chunk["usage"]).unwrap_or(self.usage);
        // The chunk with the usage has no choices; further choices were not asked for.
        let choices = chunk["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(choice) = choices.iter().find(|choice| choice["index"].as_u64().unwrap_or(0) == 0) else {
            return Ok(Seen::Quiet);
        };
        if self.finish.is_some() && has_words(&choice[said]) {
            return Err(ModelError::Stream("it went on after its end".into()));
        }
        // Some servers write none as an empty text, or as its name.
        if let Some(finish) = choice["finish_reason"].as_str().filter(|reason| !matches!(*reason, "" | "null")) {
            self.finish = Some(finish.to_owned());
        }
        self.said(&choice[said])
    }

    fn said(&mut self, delta: &Value) -> Result<Seen, ModelError> {
        let mut seen = Seen::Quiet;
        // The older name, of which there is one in an answer.
        let one = delta["function_call"].is_object().then(|| json!({"index": 0, "function": delta["function_call"]}));
        for piece in delta["tool_calls"].as_array().into_iter().flatten().chain(&one) {
            if let Some((id, name)) = self.calls.take(piece, &mut self.size)? {
                seen = Seen::Progress(Progress::ToolUse { id, name });
            }
        }
        let words = |name: &str| text_of(&delta[name]).filter(|text| !text.is_empty());
        if let Some(text) = words("refusal") {
            self.size.writes(text.len())?;
            self.refused = true;
            self.text.push_str(&text);
            return Ok(Seen::Progress(Progress::Text(text)));
        }
        if let Some(text) = words("content") {
            self.size.writes(text.len())?;
            self.text.push_str(&text);
            return Ok(Seen::Progress(Progress::Text(text)));
        }
        // Two names of the same thing, by the servers that show it.
        if let Some(text) = words("reasoning_content").or_else(|| words("reasoning")) {
            self.size.writes(text.len())?;
            return Ok(Seen::Progress(Progress::Thinking(text)));
        }
        Ok(seen)
    }
}

/// A text, or a list of parts of which some are text.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(block_text).collect()),
        _ => None,
    }
}

/// Servers repeat an empty delta after the end; words are another matter.
fn has_words(delta: &Value) -> bool {
    text_of(&delta["content"]).is_some_and(|text| !text.is_empty())
        || delta["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty())
        || delta["function_call"].is_object()
}

fn stop_reason(finish: &str) -> StopReason {
    match finish {
        "stop" | "eos" => StopReason::EndTurn,
        "length" => StopReason::MaxTokens,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "content_filter" => StopReason::Refusal,
        other => StopReason::Other(other.to_owned()),
    }
}

/// The figures in our sense, in which input excludes what came from the cache.
pub fn usage(figures: &Value) -> Option<Usage> {
    let prompt = figures["prompt_tokens"].as_u64()?;
    let cached = figures["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0).min(prompt);
    Some(Usage {
        input_tokens: prompt - cached,
        output_tokens: figures["completion_tokens"].as_u64().unwrap_or(0),
        cache_read_input_tokens: cached,
        cache_creation_input_tokens: 0,
    })
}

/// Reads an answer that came whole, from servers that do not stream.
pub fn whole(completion: &Value) -> Result<Answer, ModelError> {
    let mut assembler = Assembler::default();
    assembler.take(completion, "message")?;
    Box::new(assembler).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::retry;

    fn run(chunks: &[Value]) -> Result<Answer, ModelError> {
        let mut assembler = Assembler::default();
        for chunk in chunks {
            assembler.push(&chunk.to_string())?;
        }
        assert!(matches!(assembler.push("[DONE]")?, Seen::Stop));
        Box::new(assembler).finish()
    }

    fn delta(delta: &Value) -> Value {
        json!({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn end(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    fn piece(index: u64, rest: &Value) -> Value {
        let mut piece = rest.clone();
        piece["index"] = json!(index);
        delta(&json!({"tool_calls": [piece]}))
    }

    #[test]
    fn text_and_parallel_calls_are_assembled_and_the_usage_excludes_the_cache() {
        let answer = run(&[
            delta(&json!({"role": "assistant", "content": "Let me "})),
            delta(&json!({"content": "look."})),
            piece(0, &json!({"id": "a", "type": "function", "function": {"name": "q", "arguments": ""}})),
            piece(0, &json!({"function": {"arguments": "{\"x\":"}})),
            piece(1, &json!({"id": "b", "type": "function", "function": {"name": "r", "arguments": "{}"}})),
            piece(0, &json!({"function": {"arguments": " 1}"}})),
            end("tool_calls"),
            json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}}}),
        ])
        .expect("complete");
        assert_eq!(answer.stop, StopReason::ToolUse);
        assert_eq!(answer.content[0]["text"], "Let me look.");
        assert_eq!((&answer.content[1]["input"], &answer.content[2]["name"]), (&json!({"x": 1}), &json!("r")));
        assert_eq!((answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens), (4, 6, 4));
    }

    #[test]
    fn calls_of_one_index_with_ids_of_their_own_are_several_and_a_missing_id_is_made() {
        let call = |id: &str| json!({"id": id, "function": {"name": "q", "arguments": "{}"}});
        let answer = run(&[piece(0, &call("a")), piece(0, &call("b")), end("stop")]).expect("complete");
        assert_eq!(answer.content.len(), 2);
        let nameless = delta(&json!({"tool_calls": [{"function": {"name": "q", "arguments": {"x": 1}}}]}));
        let answer = run(&[nameless, end("tool_calls")]).expect("complete");
        assert_eq!((&answer.content[0]["id"], &answer.content[0]["input"]), (&json!("call_0"), &json!({"x": 1})));
        for none in [json!(null), json!(""), json!("null"), json!(" {} ")] {
            let answer = run(&[piece(0, &json!({"id": "a", "function": {"name": "q", "arguments": none}})), end("tool_calls")]);
            assert_eq!(answer.expect("complete").content[0]["input"], json!({}), "{none}");
        }
    }

    #[test]
    fn calls_of_one_id_are_several_and_a_name_may_come_in_pieces() {
        let call = |index: Value, id: &str, name: &str, arguments: &str| {
            let mut piece = json!({"id": id, "function": {"name": name, "arguments": arguments}});
            piece["index"] = index;
            delta(&json!({"tool_calls": [piece]}))
        };
        let calls = |pieces: &[Value]| {
            let mut all = pieces.to_vec();
            all.push(end("tool_calls"));
            let content = run(&all).expect("complete").content;
            content.iter().map(|call| json!([call["id"], call["name"], call["input"]])).collect::<Vec<_>>()
        };
        let two = [json!(["a", "p", {"x": 1}]), json!(["a_2", "q", {"x": 2}])];
        for index in [json!([0, 1]), json!([0, 0]), json!([null, null])] {
            let pieces = [call(index[0].clone(), "a", "p", r#"{"x":1}"#), call(index[1].clone(), "a", "q", r#"{"x":2}"#)];
            assert_eq!(calls(&pieces), two, "{index}");
        }
        let one = [json!(["a", "p__q", {"x": 1}])];
        for (index, names) in
            [(json!(0), ["p__", "q", ""]), (json!(0), ["p__q", "p__q", "p__q"]), (Value::Null, ["p__q", "", ""])]
        {
            let pieces: Vec<_> = names
                .into_iter()
                .zip(["", r#"{"x""#, ":1}"])
                .map(|(name, arguments)| call(index.clone(), "a", name, arguments))
                .collect();
            assert_eq!(calls(&pieces), one, "{index} {names:?}");
        }
    }

    #[test]
    fn a_reason_of_nothing_is_none() {
        for nothing in ["", "null"] {
            let reasoned = |mut chunk: Value| {
                chunk["choices"][0]["finish_reason"] = json!(nothing);
                chunk
            };
            let texts =
                [reasoned(delta(&json!({"content": "all "}))), reasoned(delta(&json!({"content": "of it"}))), end("stop")];
            assert_eq!(run(&texts).expect("complete").content, [text_block("all of it")], "{nothing:?}");
            let call = reasoned(piece(0, &json!({"id": "a", "function": {"name": "q", "arguments": "{\"x\":"}})));
            let more = reasoned(piece(0, &json!({"function": {"arguments": "1}"}})));
            assert_eq!(run(&[call, more, end("tool_calls")]).expect("complete").content[0]["input"], json!({"x": 1}));
            assert!(run(&[texts[0].clone()]).is_err(), "it has not ended");
        }
    }

    #[test]
    fn a_call_by_the_older_name_is_one() {
        let pieces = [json!({"name": "q", "arguments": ""}), json!({"arguments": "{\"x\":"}), json!({"arguments": "1}"})];
        let chunks = pieces.map(|piece| delta(&json!({"function_call": piece})));
        let answer = run(&[&chunks[..], &[end("function_call")]].concat()).expect("complete");
        assert_eq!((&answer.content[0]["name"], &answer.content[0]["input"]), (&json!("q"), &json!({"x": 1})));
        assert_eq!(answer.stop, StopReason::ToolUse);
        let message = json!({"content": null, "function_call": {"name": "q", "arguments": "{}"}});
        let whole = whole(&json!({"choices": [{"finish_reason": "function_call", "message": message}]})).expect("complete");
        assert_eq!(whole.content[0]["name"], "q");
        assert!(run(&[end("stop"), chunks[0].clone()]).is_err(), "words after the end");
        assert!(run(&[delta(&json!({"content": "a", "function_call": null})), end("stop")]).is_ok());
    }

    #[test]
    fn an_error_in_the_place_of_a_chunk_is_told_in_its_words_and_as_what_it_is() {
        let told = |error: Value| {
            let error = run(&[delta(&json!({"content": "half"})), error]).expect_err("an error");
            (error.kind().to_owned(), error.to_string().contains("in words"), retry::is_passing(&error), error.is_too_long())
        };
        let kind = |kind: &str, passing: bool| (kind.to_owned(), true, passing, false);
        let old =
            |code: u64| json!({"object": "error", "message": "in words", "type": "BadRequestError", "param": null, "code": code});
        assert_eq!(told(old(400)), kind("invalid_request_error", false));
        assert_eq!(told(old(503)), kind("api_error", true));
        assert_eq!(told(json!({"object": "error", "message": "in words"})), kind("api_error", true));
        assert_eq!(told(json!({"error": {"message": "in words", "code": 502}})), kind("api_error", true));
        assert_eq!(told(json!({"error": {"message": "in words", "code": 429}})), kind("rate_limit_error", true));
        assert_eq!(
            told(json!({"error": {"message": "in words", "type": "server_error", "code": 500}})),
            kind("server_error", true)
        );
        let too_long = json!({"object": "error", "message": "in words: the maximum context length is 9", "code": 400});
        assert!(told(too_long).3);
    }

    #[test]
    fn all_that_is_written_is_counted_and_an_answer_without_end_is_given_up() {
        let long = "x".repeat(4_000);
        for chunk in [
            delta(&json!({"content": long})),
            delta(&json!({"reasoning": long})),
            delta(&json!({"refusal": long})),
            delta(&json!({"function_call": {"name": "q", "arguments": long}})),
            piece(0, &json!({"id": "a", "function": {"name": "q", "arguments": long}})),
            piece(0, &json!({"id": "a", "function": {"name": "q", "arguments": {"x": long}}})),
        ] {
            let mut assembler = Assembler::default();
            assembler.push(&chunk.to_string()).expect("a chunk");
            assert!((4_000..4_010).contains(&assembler.told().written), "{}", assembler.told().written);
            assembler.size.written = usize::MAX / 2;
            assert!(matches!(assembler.push(&chunk.to_string()), Err(ModelError::TooLarge(_))));
        }
        let call = delta(&json!({"tool_calls": [{"id": "a", "function": {"name": "q", "arguments": "{}"}}]})).to_string();
        let mut assembler = Assembler::default();
        let error = (0..10_000).find_map(|_| assembler.push(&call).err());
        assert!(matches!(error, Some(ModelError::TooLarge(_))));
    }

    #[test]
    fn a_stream_may_end_after_its_reason_and_not_before() {
        let mut assembler = Assembler::default();
        assembler.push(&delta(&json!({"content": "all"})).to_string()).expect("a chunk");
        assert!(!assembler.may_end());
        assembler.push(&end("stop").to_string()).expect("a chunk");
        assert!(assembler.may_end());
    }

    #[test]
    fn what_is_no_answer_fails() {
        let begun = || piece(0, &json!({"id": "a", "function": {"name": "q", "arguments": "{\"x"}}));
        assert!(run(&[delta(&json!({"content": "half"}))]).is_err(), "no finish_reason");
        assert!(run(&[begun(), end("tool_calls")]).is_err(), "broken arguments");
        assert!(run(&[end("tool_calls")]).is_err(), "no call");
        assert!(run(&[end("stop"), delta(&json!({"content": "more"}))]).is_err(), "words after the end");
        assert!(run(&[piece(3, &json!({"function": {"arguments": "{}"}}))]).is_err(), "a piece of nothing");
        let error = run(&[json!({"error": {"message": "busy", "type": "server_error", "code": null}})]).expect_err("an error");
        assert_eq!(error.kind(), "server_error");
        assert!(run(&[begun(), end("length")]).expect("cut off").content.is_empty());
    }

    #[test]
    fn a_letter_that_two_chunks_share_is_one_and_a_half_alone_is_replaced() {
        let chunk = |text: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"content":{text}}},"finish_reason":null}}]}}"#);
        let run = |texts: &[&str], rest: &[Value]| {
            let mut assembler = Assembler::default();
            let chunks = texts.iter().map(|text| chunk(text)).chain(rest.iter().map(Value::to_string));
            chunks.for_each(|chunk| drop(assembler.push(&chunk).expect("a chunk")));
            Box::new(assembler).finish().expect("complete").content
        };
        assert_eq!(run(&[r#""hi ""#, r#""\ud83d""#, r#""\ude00""#], &[end("stop")])[0]["text"], "hi 😀");
        assert_eq!(run(&[r#""a\ude00b\ud83d""#, r#""c\ud83d""#], &[end("stop")])[0]["text"], "a\u{fffd}b\u{fffd}c\u{fffd}");
        let call = |arguments: &str| piece(0, &json!({"id": "a", "function": {"name": "q", "arguments": arguments}}));
        let content = run(&[], &[call(r#"{"q":"cut \ud83d","n":1e400}"#), end("tool_calls")]);
        assert_eq!(content[0]["input"], json!({"q": "cut \u{fffd}", "n": f64::MAX}));
    }

    #[test]
    fn a_refusal_and_a_whole_completion_are_read() {
        let refused = run(&[delta(&json!({"refusal": "I cannot."})), end("stop")]).expect("complete");
        assert_eq!(refused.stop, StopReason::Refusal);
        let whole = whole(&json!({"model": "m", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello."}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}));
        let answer = whole.expect("complete");
        assert_eq!((answer.content[0]["text"].as_str(), answer.usage.total()), (Some("Hello."), 5));
    }

    #[test]
    fn what_is_said_may_be_a_list_of_parts() {
        let parts = |text: &str| json!({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": text}]});
        let answer = run(&[delta(&parts("Hel")), delta(&parts("lo.")), delta(&json!({"content": []})), end("stop")]);
        assert_eq!(answer.expect("complete").content, [text_block("Hello.")]);
        assert!(run(&[end("stop"), delta(&parts("more"))]).is_err(), "words after the end");
        assert!(run(&[delta(&parts("all")), end("stop"), delta(&json!({"content": []}))]).is_ok());
    }
}

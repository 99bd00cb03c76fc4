//! From the events of a stream, or from a whole message, to one answer. Nothing is complete before `message_stop`, and an event
//! that cannot be read fails the attempt.

use serde::Deserialize;
use serde_json::{Value, json};

use super::block::Block;
use crate::{
    llm::{
        Answer, ModelError, Progress,
        assemble::{Assemble, Seen, Size, Told, check_call, check_stop, is_error, parse, reported, tell_apart},
        halves::Halves,
    },
    message::{StopReason, Usage, is_unsigned_thinking},
};

/// Collects the events of one attempt.
#[derive(Debug, Default)]
pub struct Assembler {
    blocks: Vec<Block>,
    model: String,
    usage: Usage,
    stop: Option<String>,
    started: bool,
    halves: Halves,
    size: Size,
}

/// A piece of text, which almost every event of a long answer is: read without making a tree of it.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    index: u64,
    #[serde(borrow)]
    delta: Words<'a>,
}

#[derive(Deserialize)]
struct Words<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    text: String,
}

impl Assemble for Assembler {
    fn push(&mut self, data: &str) -> Result<Seen, ModelError> {
        let data = self.halves.join(data);
        if let Ok(Piece { kind: "content_block_delta", index, delta: Words { kind: "text_delta", text } }) =
            serde_json::from_str(&data)
        {
            self.size.writes(text.len())?;
            self.at(Some(index))?.text.push_str(&text);
            return Ok(said(text));
        }
        self.take(&parse(&data)?)
    }

    fn told(&self) -> Told<'_> {
        Told { model: &self.model, usage: self.usage, written: self.size.written }
    }

    fn finish(self: Box<Self>) -> Result<Answer, ModelError> {
        let Some(stop) = self.stop.filter(|_| self.started) else {
            return Err(ModelError::Stream("it stopped without a reason".into()));
        };
        let stop = StopReason::parse(&stop);
        // Where the model was cut off, the call that it was writing is not one.
        let cut_off = matches!(stop, StopReason::MaxTokens | StopReason::ContextWindowExceeded | StopReason::Refusal);
        let mut content = Vec::new();
        for block in self.blocks {
            if !block.closed && !cut_off {
                return Err(ModelError::Stream("a block was left open".into()));
            }
            match block.complete() {
                Ok(Some(value)) if !is_unsigned_thinking(&value) => content.push(value),
                Ok(_) => {}
                Err(_) if cut_off => {}
                Err(error) => return Err(error),
            }
        }
        tell_apart(&mut content);
        check_stop(&stop, &content)?;
        Ok(Answer { content, stop, usage: self.usage, model: self.model, first_token: None, estimated: false })
    }
}

/// How much is written in what a block begins with, or in a piece of one.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(bytes_of).sum(),
        Value::Object(fields) => fields.iter().filter(|(name, _)| *name != "type").map(|(_, value)| bytes_of(value)).sum(),
        _ => 0,
    }
}

/// All of a piece may be half a letter that waits for the other one.
fn said(text: String) -> Seen {
    if text.is_empty() { Seen::Quiet } else { Seen::Progress(Progress::Text(text)) }
}

impl Assembler {
    /// Any event.
    fn take(&mut self, event: &Value) -> Result<Seen, ModelError> {
        match event["type"].as_str() {
            Some("message_start") if self.started => {
                return Err(ModelError::Stream("a second message began inside the first".into()));
            }
            Some("message_start") => {
                self.started = true;
                event["message"]["model"].as_str().unwrap_or_default().clone_into(&mut self.model);
                self.usage.update(&event["message"]["usage"]);
            }
            Some("content_block_start") => return self.open(event),
            Some("content_block_delta") => return self.extend(event),
            Some("content_block_stop") => {
                let lost = self.halves.lost();
                let block = self.block(event)?;
                block.closed = true;
                if lost {
                    block.text.push(char::REPLACEMENT_CHARACTER);
                    let is_said = block.value["type"] == "text";
                    return Ok(if is_said { Seen::Progress(Progress::Text("\u{fffd}".to_owned())) } else { Seen::Quiet });
                }
            }
            Some("message_delta") => {
                if let Some(reason) = event["delta"]["stop_reason"].as_str() {
                    self.stop = Some(reason.to_owned());
                }
                self.usage.update(&event["usage"]);
            }
            Some("message_stop") => return Ok(Seen::Stop),
            Some("error") => return Err(reported(event)),
            // So proxies pass on what another API told them.
            None if is_error(event) => return Err(reported(event)),
            // ping, and events that did not exist when this was written
            _ => {}
        }
        Ok(Seen::Quiet)
    }

    fn open(&mut self, event: &Value) -> Result<Seen, ModelError> {
        if !self.started || event["index"].as_u64() != Some(self.blocks.len() as u64) {
            return Err(ModelError::Stream("its blocks came out of order".into()));
        }
        let value = event["content_block"].clone();
        let seen = match value["type"].as_str() {
            Some("tool_use") => Seen::Progress(Progress::ToolUse {
                id: value["id"].as_str().unwrap_or_default().to_owned(),
                name: value["name"].as_str().unwrap_or_default().to_owned(),
            }),
            // A block may open with its first words.
            Some("text") => match value["text"].as_str() {
                Some(text) if !text.is_empty() => Seen::Progress(Progress::Text(text.to_owned())),
                _ => Seen::Quiet,
            },
            Some(_) => Seen::Quiet,
            None => return Err(ModelError::Stream("a block has no type".into())),
        };
        self.size.begins()?;
        self.size.writes(bytes_of(&value))?;
        self.blocks.push(Block::open(value));
        Ok(seen)
    }

    fn extend(&mut self, event: &Value) -> Result<Seen, ModelError> {
        let delta = &event["delta"];
        self.size.writes(bytes_of(delta))?;
        let block = self.block(event)?;
        let piece = |name: &str| {
            let missing = || ModelError::Stream(format!("a delta has no {name}"));
            delta[name].as_str().map(str::to_owned).ok_or_else(missing)
        };
        match delta["type"].as_str() {
            // `Piece`, where nothing stands twice in it.
            Some("text_delta") => {
                let text = piece("text")?;
                block.text.push_str(&text);
                return Ok(said(text));
            }
            Some("thinking_delta") => {
                let text = piece("thinking")?;
                block.text.push_str(&text);
                return Ok(Seen::Progress(Progress::Thinking(text)));
            }
            Some("signature_delta") => block.value["signature"] = json!(piece("signature")?),
            Some("input_json_delta") => block.json.push_str(&piece("partial_json")?),
            Some("citations_delta") => {
                if !block.value["citations"].is_array() {
                    block.value["citations"] = json!([]);
                }
                if let Some(citations) = block.value["citations"].as_array_mut() {
                    citations.push(delta["citation"].clone());
                }
            }
            _ => {}
        }
        Ok(Seen::Quiet)
    }

    fn block(&mut self, event: &Value) -> Result<&mut Block, ModelError> {
        self.at(event["index"].as_u64())
    }

    fn at(&mut self, index: Option<u64>) -> Result<&mut Block, ModelError> {
        index
            .and_then(|index| self.blocks.get_mut(usize::try_from(index).ok()?))
            .filter(|block| !block.closed)
            .ok_or_else(|| ModelError::Stream("an event belongs to no open block".into()))
    }
}

/// Reads an answer that came whole, from servers that do not stream.
pub fn whole(message: &Value) -> Result<Answer, ModelError> {
    if message["type"] == "error" || is_error(message) {
        return Err(reported(message));
    }
    let (Some(content), Some(stop)) = (message["content"].as_array(), message["stop_reason"].as_str()) else {
        return Err(ModelError::Stream("a message without content or stop_reason".into()));
    };
    let mut usage = Usage::default();
    usage.update(&message["usage"]);
    // Sent back, an empty text would be refused.
    let said = |block: &&Value| block["type"] != "text" || block["text"].as_str().is_some_and(|text| !text.trim().is_empty());
    let mut content: Vec<Value> = content.iter().filter(said).filter(|block| !is_unsigned_thinking(block)).cloned().collect();
    content.iter().try_for_each(check_call)?;
    tell_apart(&mut content);
    let stop = StopReason::parse(stop);
    check_stop(&stop, &content)?;
    Ok(Answer {
        content,
        stop,
        usage,
        model: message["model"].as_str().unwrap_or_default().to_owned(),
        first_token: None,
        estimated: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(events: &[Value]) -> Result<Answer, ModelError> {
        let mut assembler = Assembler::default();
        for event in events {
            if let Seen::Stop = assembler.push(&event.to_string())? {
                return Box::new(assembler).finish();
            }
        }
        Err(ModelError::Stream("no stop".into()))
    }

    fn start() -> Value {
        json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}})
    }

    fn stop(reason: &str) -> [Value; 2] {
        [
            json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}}),
            json!({"type": "message_stop"}),
        ]
    }

    fn tool(json: &str) -> [Value; 3] {
        [
            json!({"type": "content_block_start", "index": 0,
                   "content_block": {"type": "tool_use", "id": "t1", "name": "a", "input": {}}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": json}}),
            json!({"type": "content_block_stop", "index": 0}),
        ]
    }

    fn all(parts: &[&[Value]]) -> Vec<Value> {
        parts.concat()
    }

    #[test]
    fn a_letter_that_two_events_share_is_one_and_a_half_alone_is_replaced() {
        let run = |deltas: &[&str]| {
            let mut assembler = Assembler::default();
            let kind = if deltas[0].contains("partial_json") {
                r#"{"type":"tool_use","id":"a","name":"q","input":{}}"#
            } else {
                r#"{"type":"text","text":""}"#
            };
            let mut events = vec![
                r#"{"type":"message_start","message":{"model":"m"}}"#.to_owned(),
                format!(r#"{{"type":"content_block_start","index":0,"content_block":{kind}}}"#),
            ];
            events.extend(deltas.iter().map(|delta| format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#)));
            let stop = if deltas[0].contains("partial_json") { "tool_use" } else { "end_turn" };
            events.extend([
                r#"{"type":"content_block_stop","index":0}"#.to_owned(),
                format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}"}}}}"#),
            ]);
            let mut told = String::new();
            for event in events {
                if let Seen::Progress(Progress::Text(text)) = assembler.push(&event).expect("an event") {
                    told.push_str(&text);
                }
            }
            (Box::new(assembler).finish().expect("complete").content[0].clone(), told)
        };
        let text = |text: &str| format!(r#"{{"type":"text_delta","text":{text}}}"#);
        let (block, told) = run(&[&text(r#""hi ""#), &text(r#""\ud83d""#), &text(r#""\ude00""#)]);
        assert_eq!((block["text"].as_str(), told.as_str()), (Some("hi 😀"), "hi 😀"));
        let (block, told) = run(&[&text(r#""a\ud83d""#), &text(r#""b\ud83d""#)]);
        assert_eq!((block["text"].as_str(), told.as_str()), (Some("a\u{fffd}b\u{fffd}"), "a\u{fffd}b\u{fffd}"));
        let json = |json: &str| format!(r#"{{"type":"input_json_delta","partial_json":{json}}}"#);
        let (block, _) =
            run(&[&json(r#""{\"q\":\"\\ud83d""#), &json(r#""\\ude00 \ud83d""#), &json(r#""\ude00 \\ud83d\",\"n\":1e400}""#)]);
        assert_eq!(block["input"], json!({"q": "😀 😀 \u{fffd}", "n": f64::MAX}));
    }

    #[test]
    fn a_tool_call_is_assembled_from_its_pieces() {
        let events = all(&[&[start()], &tool(r#"{"q": "x"}"#), &stop("tool_use")]);
        let answer = run(&events).expect("complete");
        assert_eq!(answer.content[0]["input"], json!({"q": "x"}));
        assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (3, 9));
    }

    #[test]
    fn thinking_keeps_its_signature() {
        let events = all(&[
            &[
                start(),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}}),
                json!({"type": "content_block_stop", "index": 0}),
            ],
            &stop("end_turn"),
        ]);
        let answer = run(&events).expect("complete");
        assert_eq!(answer.content[0], json!({"type": "thinking", "thinking": "hm", "signature": "s"}));
    }

    #[test]
    fn thinking_that_nobody_signed_is_not_kept() {
        for open in [json!({"type": "thinking", "thinking": ""}), json!({"type": "thinking", "thinking": "", "signature": ""})] {
            let mut call = tool("{}");
            for event in &mut call {
                event["index"] = json!(1);
            }
            let thinking = [
                start(),
                json!({"type": "content_block_start", "index": 0, "content_block": open}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
                json!({"type": "content_block_stop", "index": 0}),
            ];
            let answer = run(&all(&[&thinking, &call, &stop("tool_use")])).expect("complete");
            assert_eq!((answer.content.len(), &answer.content[0]["type"]), (1, &json!("tool_use")));
        }
        let content = json!([{"type": "thinking", "thinking": "hm"}, {"type": "thinking", "thinking": "", "signature": "s"}]);
        let whole = whole(&json!({"content": content, "stop_reason": "end_turn"})).expect("complete");
        assert_eq!(whole.content, [content[1].clone()]);
    }

    #[test]
    fn all_that_is_written_is_counted_and_an_answer_without_end_is_given_up() {
        let open = |index: usize, block: &Value| {
            json!({"type": "content_block_start", "index": index, "content_block": block}).to_string()
        };
        let begun = || {
            let mut assembler = Assembler::default();
            assembler.push(&start().to_string()).expect("begun");
            assembler
        };
        let empty = json!({"type": "text", "text": ""});
        let long = "x".repeat(4_000);
        for delta in [
            json!({"type": "text_delta", "text": long}),
            json!({"type": "thinking_delta", "thinking": long}),
            json!({"type": "input_json_delta", "partial_json": long}),
            json!({"type": "citations_delta", "citation": {"cited_text": long}}),
        ] {
            let mut assembler = begun();
            assembler.push(&open(0, &empty)).expect("opened");
            let delta = json!({"type": "content_block_delta", "index": 0, "delta": delta}).to_string();
            assembler.push(&delta).expect("a piece");
            assert_eq!(assembler.told().written, 4_000, "{}", &delta[..90]);
            assembler.size.written = usize::MAX / 2;
            assert!(matches!(assembler.push(&delta), Err(ModelError::TooLarge(_))));
        }
        let mut assembler = begun();
        assembler.push(&open(0, &json!({"type": "web_search_tool_result", "content": [{"title": long}]}))).expect("opened");
        assert_eq!(assembler.told().written, 4_000);
        let mut assembler = begun();
        let error = (0..10_000).find_map(|index| assembler.push(&open(index, &empty)).err());
        assert!(matches!(error, Some(ModelError::TooLarge(_))));
    }

    #[test]
    fn a_call_cut_off_by_max_tokens_is_dropped_and_otherwise_broken_json_fails() {
        let broken = tool(r#"{"q": "#);
        let answer = run(&all(&[&[start()], &broken[..2], &stop("max_tokens")])).expect("cut off");
        assert!(answer.content.is_empty());
        assert!(run(&all(&[&[start()], &broken, &stop("tool_use")])).is_err());
    }

    #[test]
    fn words_with_which_a_block_opens_are_shown_and_kept() {
        let mut assembler = Assembler::default();
        assembler.push(&start().to_string()).expect("begun");
        let open = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hel"}});
        let seen = assembler.push(&open.to_string()).expect("opened");
        assert!(matches!(seen, Seen::Progress(Progress::Text(text)) if text == "Hel"));
    }

    #[test]
    fn what_could_not_be_sent_back_is_mended_or_fails() {
        let mut twice = all(&[&[start()], &tool("{}"), &tool("{}"), &stop("tool_use")]);
        for event in &mut twice[4..7] {
            event["index"] = json!(1);
        }
        let ids = |answer: Answer| answer.content.iter().map(|call| call["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(run(&twice).expect("mended")), ["t1", "t1_2"], "two calls of one id");
        let two = json!([{"type": "tool_use", "id": "a", "name": "a", "input": {}}, {"type": "tool_use", "id": "a", "name": "a", "input": {}}]);
        assert_eq!(ids(whole(&json!({"content": two, "stop_reason": "tool_use"})).expect("mended")), ["a", "a_2"]);
        assert!(run(&[start(), start()]).is_err(), "a message in a message");
        let message = |content: Value| whole(&json!({"content": content, "stop_reason": "end_turn"}));
        assert!(message(json!([{"type": "tool_use", "name": "a", "input": {}}])).is_err(), "a call without an id");
        assert!(message(json!([{"type": "text", "text": " "}])).expect("whole").content.is_empty());
        let untyped = json!({"error": {"message": "busy", "type": "server_error", "code": 503}});
        for error in [run(&[start(), untyped.clone()]), whole(&untyped)] {
            assert_eq!(error.expect_err("no message").kind(), "server_error");
        }
        let error = whole(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "\u{1b}[2Jbusy"}}));
        assert_eq!(error.expect_err("no message").to_string(), "the model API reported overloaded_error in mid-answer: [2Jbusy");
    }

    #[test]
    fn junk_and_disorder_fail_and_unknown_events_do_not() {
        assert!(Assembler::default().push("{\"type\": \"cont").is_err());
        assert!(run(&all(&[&tool("{}"), &stop("tool_use")])).is_err(), "blocks before message_start");
        assert!(run(&all(&[&[start()], &tool("{}")[..2], &stop("tool_use")])).is_err(), "a block left open");
        assert!(run(&[start(), json!({"type": "message_stop"})]).is_err(), "no stop reason");
        let odd = all(&[&[start(), json!({"type": "brand_new"})], &tool("{}"), &stop("tool_use")]);
        assert!(run(&odd).is_ok());
    }

    proptest! {
        #[test]
        fn a_piece_of_text_is_read_alike_on_both_ways(
            text in any::<String>(),
            index in 0_u64..3,
            odd in prop::option::of(prop::sample::select(vec![
                r#""index":0"#, r#""index":"0""#, r#""index":-1"#, r#""type":"content_block_delta""#, r#""type":"ping""#, r#""more":{}"#,
                r#""delta":{"type":"text_delta","text":"x"}"#, r#""delta":{"type":"text_delta"}"#, r#""delta":{"type":"text_delta","text":5}"#,
                r#""delta":{"type":"thinking_delta","thinking":"x"}"#, r#""delta":null"#, r#""delta":{"type":"text_delta","text":"x","text":"y"}"#,
            ])),
            first in any::<bool>(),
        ) {
            let piece = json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}).to_string();
            let inner = &piece[1..piece.len() - 1];
            let data = match odd {
                None => piece.clone(),
                // One of two fields of the same name counts.
                Some(odd) if first => format!("{{{odd},{inner}}}"),
                Some(odd) => format!("{{{inner},{odd}}}"),
            };
            let open = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
            let begun = || {
                let mut assembler = Assembler::default();
                for event in [start(), open.clone()] {
                    assembler.take(&event).expect("in order");
                }
                assembler
            };
            let (mut quick, mut general) = (begun(), begun());
            let event = parse(&data).expect("JSON");
            prop_assert_eq!(format!("{:?}", quick.push(&data)), format!("{:?}", general.take(&event)));
            prop_assert_eq!(format!("{quick:?}"), format!("{general:?}"));
        }
    }
}

//! The conversation as the model sees it, kept valid whatever happens: it begins with the user, the roles alternate, and
//! every tool call is answered exactly once, in the message after it. Pure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    opening::Opening,
    outside::{self, TranscriptError},
};
use crate::{
    message::{Message, Role, ToolCall, block_call, block_result_id, block_text, text_block},
    tools::answer::MAX_PICTURES,
};

/// What replaces a tool result that was shortened away.
const SHORTENED: &str = "[an earlier result, left out to save room]";

/// What replaces a picture that was left out.
const PICTURE: &str = "[an earlier picture, left out to save room]";

/// How a summary of earlier turns begins: it stands before the question that follows it, in the same message.
pub const SUMMARY: &str = "[What was said before, summarised to save room]\n";

/// The answer to one tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    pub id: String,
    pub text: String,
    pub is_error: bool,
    /// Pictures, as blocks of the Messages API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Value>,
}

impl ToolResult {
    pub fn error(id: &str, text: impl Into<String>) -> Self {
        Self { id: id.to_owned(), text: text.into(), is_error: true, images: Vec::new() }
    }

    fn block(&self) -> Value {
        // The API refuses empty text blocks.
        let text = if self.text.trim().is_empty() { "(no output)" } else { &self.text };
        let content: Vec<Value> = std::iter::once(text_block(text)).chain(self.images.iter().cloned()).collect();
        json!({"type": "tool_result", "tool_use_id": self.id, "is_error": self.is_error, "content": content})
    }
}

/// A conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    messages: Vec<Message>,
    /// The message in which the turn that is under way begins, where its question was said here.
    begins: Option<usize>,
}

impl Transcript {
    /// Takes a conversation from outside, and mends what has only one right form. The last message may be the assistant's with open tool
    /// calls.
    pub fn read(mut messages: Vec<Message>) -> Result<Self, TranscriptError> {
        for (index, message) in messages.iter_mut().enumerate() {
            outside::mend(index, message)?;
        }
        let mut open = HashSet::new();
        for (index, message) in messages.iter().enumerate() {
            let expected = if index % 2 == 0 { Role::User } else { Role::Assistant };
            if message.role != expected {
                return Err(TranscriptError::Roles(index));
            }
            if message.content.is_empty() {
                return Err(TranscriptError::Empty(index));
            }
            if message.role == Role::User {
                for id in message.content.iter().filter_map(block_result_id) {
                    if !open.remove(id) {
                        return Err(TranscriptError::Results(index));
                    }
                }
                if !open.is_empty() {
                    return Err(TranscriptError::Results(index));
                }
            } else {
                let calls: Vec<&str> = call_ids(message).collect();
                open = calls.iter().copied().collect();
                if open.len() != calls.len() {
                    return Err(TranscriptError::Results(index));
                }
            }
        }
        Ok(Self { messages, begins: None })
    }

    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    /// Adds what the user says; calls still open are answered as not made.
    pub fn say(&mut self, opening: impl Into<Opening>) {
        self.answer(Vec::new(), "the user went on without it");
        // It may join what is there already of the user's.
        let joins = self.messages.last().is_some_and(|last| last.role == Role::User);
        self.begins = Some(self.messages.len() - usize::from(joins));
        for Message { role, content } in opening.into().into_messages() {
            self.push(role, content);
        }
        self.forget_pictures(MAX_PICTURES);
    }

    /// Adds what the model says. Nothing said adds nothing.
    pub fn reply(&mut self, mut content: Vec<Value>) {
        self.tell_apart(&mut content);
        if !content.is_empty() {
            self.push(Role::Assistant, content);
        }
    }

    /// Some servers begin to count their calls anew in each answer: whoever shows them must be able to tell them apart.
    fn tell_apart(&self, content: &mut [Value]) {
        let known: HashSet<&str> = self.messages.iter().flat_map(call_ids).collect();
        for block in content.iter_mut().filter(|block| block["type"] == "tool_use") {
            let Some(id) = block["id"].as_str().filter(|id| known.contains(id)) else { continue };
            let free = (2..=known.len() + 2).map(|number| format!("{id}_{number}")).find(|new| !known.contains(new.as_str()));
            block["id"] = json!(free);
        }
    }

    /// The calls that wait for an answer.
    pub fn open_calls(&self) -> Vec<ToolCall> {
        match self.messages.last() {
            Some(message) if message.role == Role::Assistant => message.content.iter().filter_map(block_call).collect(),
            _ => Vec::new(),
        }
    }

    /// Answers every open call exactly once: with its result, or else with `missing` as an error. Results of other
    /// calls, and second results, are dropped.
    pub fn answer(&mut self, mut results: Vec<ToolResult>, missing: &str) {
        let calls = self.open_calls();
        if calls.is_empty() {
            return;
        }
        let blocks = calls.iter().map(|call| match results.iter().position(|result| result.id == call.id) {
            Some(position) => results.swap_remove(position).block(),
            None => ToolResult::error(&call.id, missing).block(),
        });
        let blocks = blocks.collect();
        self.push(Role::User, blocks);
        self.forget_pictures(MAX_PICTURES);
    }

    /// Leaves out the earliest pictures, so that the others take at most so many bytes together.
    fn forget_pictures(&mut self, most: usize) {
        let mut taken = 0;
        for block in self.messages.iter_mut().rev().flat_map(|message| message.content.iter_mut().rev()) {
            let inside = block["type"] == "tool_result";
            let parts =
                if inside { block["content"].as_array_mut().map(Vec::as_mut_slice) } else { Some(std::slice::from_mut(block)) };
            for part in parts.into_iter().flatten().rev().filter(|part| part["type"] == "image") {
                taken += part["source"]["data"].as_str().map_or(0, str::len);
                if taken > most {
                    *part = text_block(PICTURE);
                }
            }
        }
    }

    /// Takes the last question and everything after it away.
    pub fn forget_last_question(&mut self) {
        if let Some(position) = self.last_question() {
            self.messages.truncate(position);
            self.begins = None;
            // A failed turn before it may have left the user speaking last, which stays.
        }
    }

    /// The turns before the one that is under way.
    pub fn earlier_turns(&self) -> &[Message] {
        &self.messages[..self.question()]
    }

    /// Puts a summary in the place of the earlier turns.
    pub fn summarise_earlier(&mut self, summary: &str) {
        self.drop_earlier();
        if let Some(first) = self.messages.first_mut() {
            first.content.insert(0, summary_block(summary));
        }
    }

    /// Puts a summary in the place of everything. The next question joins it.
    pub fn summarise_all(&mut self, summary: &str) {
        self.messages = vec![Message { role: Role::User, content: vec![summary_block(summary)] }];
        self.begins = None;
    }

    /// What the user said, question by question, without summaries.
    pub fn questions(&self) -> impl Iterator<Item = String> {
        let spoken = |message: &&Message| message.role == Role::User;
        self.messages.iter().filter(spoken).map(|message| {
            let texts = message.content.iter().filter_map(block_text).filter(|text| !text.starts_with(SUMMARY));
            texts.collect::<Vec<_>>().join("\n")
        })
    }

    /// Leaves something out: first the results of tools in earlier turns, then whole earlier turns, then the long results of
    /// this turn, then the summary of what was before it. False when there is nothing left to leave out.
    pub fn shorten(&mut self) -> bool {
        let question = self.question();
        let (earlier, current) = self.messages.split_at_mut(question);
        if empty_results(earlier) {
            return true;
        }
        if question > 0 {
            self.drop_earlier();
            return true;
        }
        empty_results(current) || self.drop_summary()
    }

    /// Where the turn that is under way begins.
    fn question(&self) -> usize {
        self.last_question().unwrap_or(0)
    }

    fn last_question(&self) -> Option<usize> {
        self.begins.or_else(|| self.messages.iter().rposition(is_question))
    }

    fn drop_earlier(&mut self) {
        self.messages.drain(..self.question());
        self.begins = self.begins.map(|_| 0);
        // The question may share its message with results whose calls are gone now.
        if let Some(first) = self.messages.first_mut() {
            first.content.retain(|block| block["type"] != "tool_result");
        }
    }

    fn drop_summary(&mut self) -> bool {
        let Some(first) = self.messages.first_mut() else { return false };
        let is_summary = |block: &Value| block_text(block).is_some_and(|text| text.starts_with(SUMMARY));
        // Alone, it is all that there is.
        if first.content.len() < 2 || !first.content.iter().any(is_summary) {
            return false;
        }
        first.content.retain(|block| !is_summary(block));
        !first.content.is_empty()
    }

    fn push(&mut self, role: Role, content: Vec<Value>) {
        match self.messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(content),
            _ => self.messages.push(Message { role, content }),
        }
    }
}

fn summary_block(summary: &str) -> Value {
    text_block(&format!("{SUMMARY}{}", summary.trim()))
}

fn call_ids(message: &Message) -> impl Iterator<Item = &str> {
    message.content.iter().filter(|block| block["type"] == "tool_use").filter_map(|block| block["id"].as_str())
}

/// A message in which the user speaks (and does not only carry results).
fn is_question(message: &Message) -> bool {
    message.role == Role::User && message.content.iter().any(|block| block["type"] != "tool_result")
}

fn empty_results(messages: &mut [Message]) -> bool {
    let mut changed = false;
    let blocks = messages.iter_mut().flat_map(|message| message.content.iter_mut());
    for block in blocks.filter(|block| block["type"] == "tool_result") {
        let short = json!([text_block(SHORTENED)]);
        if block["content"].to_string().len() > short.to_string().len() {
            block["content"] = short;
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "a", "input": {}})
    }

    fn result(id: &str) -> ToolResult {
        ToolResult { id: id.into(), text: "x".repeat(500), is_error: false, images: Vec::new() }
    }

    #[test]
    fn every_call_is_answered_once_also_when_results_are_missing_doubled_or_strange() {
        let mut transcript = Transcript::default();
        transcript.say("go");
        transcript.reply(vec![call("1"), call("2")]);
        transcript.answer(vec![result("2"), result("2"), result("9")], "not run");
        let ids: Vec<_> = transcript.messages[2].content.iter().filter_map(block_result_id).collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!(transcript.messages[2].content[0]["is_error"], true);
        assert!(Transcript::read(transcript.into_messages()).is_ok());
    }

    #[test]
    fn of_more_pictures_than_fit_into_a_question_the_last_ones_stay() {
        let image = |data: &str| json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
        let own = Message { role: Role::User, content: vec![image("aaaa"), text_block("and this?")] };
        let mut transcript = Transcript { messages: vec![own], begins: None };
        for (id, data) in [("1", "bbbb"), ("2", "cccc")] {
            transcript.reply(vec![call(id)]);
            transcript.answer(vec![ToolResult { images: vec![image(data)], ..result(id) }], "");
        }
        let shown = |transcript: &Transcript| {
            let all = json!(transcript.messages).to_string();
            ["aaaa", "bbbb", "cccc"].map(|data| all.contains(data))
        };
        assert_eq!(shown(&transcript), [true; 3]);
        transcript.forget_pictures(9);
        assert_eq!(shown(&transcript), [false, true, true]);
        transcript.forget_pictures(4);
        assert_eq!(shown(&transcript), [false, false, true]);
        Transcript::read(transcript.messages.clone()).expect_err("these are no pictures, but all else is valid");
        transcript.forget_pictures(0);
        assert!(Transcript::read(transcript.into_messages()).is_ok());
    }

    #[test]
    fn speaking_while_calls_are_open_answers_them() {
        let mut transcript = Transcript::default();
        transcript.say("go");
        transcript.reply(vec![call("1")]);
        transcript.say("never mind");
        assert_eq!(transcript.messages.len(), 3);
        assert!(Transcript::read(transcript.into_messages()).is_ok());
    }

    #[test]
    fn messages_from_outside_are_checked() {
        let read = |messages: Value| Transcript::read(serde_json::from_value(messages).expect("messages"));
        assert!(read(json!([{"role": "user", "content": "hi"}])).is_ok());
        assert_eq!(read(json!([{"role": "assistant", "content": "hi"}])), Err(TranscriptError::Roles(0)));
        assert_eq!(read(json!([{"role": "user", "content": []}])), Err(TranscriptError::Empty(0)));
        let unanswered = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": [call("1")]},
                                {"role": "user", "content": "and?"}]);
        assert_eq!(read(unanswered), Err(TranscriptError::Results(2)));
        let forged = json!([{"role": "user", "content": [{"type": "image"}]}]);
        assert!(matches!(read(forged), Err(TranscriptError::Block { .. })));
    }

    #[test]
    fn calls_that_count_anew_in_each_answer_are_told_apart() {
        let mut transcript = Transcript::default();
        transcript.say("go");
        for _ in 0..3 {
            transcript.reply(vec![call("call_0")]);
            let ids: Vec<String> = transcript.open_calls().into_iter().map(|call| call.id).collect();
            transcript.answer(vec![result(&ids[0])], "not run");
        }
        let ids: Vec<&str> = transcript.messages.iter().flat_map(call_ids).collect();
        assert_eq!(ids, ["call_0", "call_0_2", "call_0_3"]);
    }

    #[test]
    fn shortening_ends_and_keeps_the_conversation_valid() {
        let mut transcript = Transcript::default();
        for turn in 0..3 {
            transcript.say(format!("question {turn}").as_str());
            transcript.reply(vec![call(&turn.to_string())]);
            transcript.answer(vec![result(&turn.to_string())], "");
            transcript.reply(vec![text_block("so it is")]);
        }
        transcript.say("last");
        let mut steps = 0;
        while transcript.shorten() {
            steps += 1;
            Transcript::read(transcript.messages.clone()).expect("still valid");
            assert!(steps < 10);
        }
        assert_eq!(transcript.messages, [Message::user("last")]);
    }

    #[test]
    fn a_question_of_several_messages_is_one_turn() {
        let of = |texts: [(Role, &str); 3]| {
            let messages = texts.map(|(role, text)| Message { role, content: vec![text_block(text)] });
            Opening::of(messages.into()).expect("a question")
        };
        let prompt = of([(Role::User, "p1"), (Role::Assistant, "p2"), (Role::User, "p3")]);
        let mut transcript = Transcript::default();
        transcript.say("first");
        transcript.reply(vec![text_block("so it is")]);
        transcript.say(prompt);
        assert_eq!((transcript.messages.len(), transcript.earlier_turns().len()), (5, 2));
        let mut shorter = transcript.clone();
        shorter.summarise_earlier("Before.");
        assert_eq!(shorter.messages[0].text(), format!("{SUMMARY}Before.p1"));
        assert_eq!((shorter.messages.len(), shorter.earlier_turns().len()), (3, 0));
        Transcript::read(shorter.messages).expect("valid");
        transcript.forget_last_question();
        assert_eq!(transcript.messages.len(), 2, "all of it is taken out");
    }

    #[test]
    fn a_summary_takes_the_place_of_earlier_turns_and_every_call_stays_answered() {
        let mut transcript = Transcript::default();
        transcript.say("first");
        transcript.reply(vec![call("1")]);
        // The second question shares its message with the result of the call before it.
        transcript.say("second");
        transcript.reply(vec![call("2")]);
        transcript.answer(vec![result("2")], "");
        assert_eq!(transcript.earlier_turns().len(), 2);
        transcript.summarise_earlier("They spoke of it.");
        Transcript::read(transcript.messages.clone()).expect("valid");
        assert_eq!(transcript.messages.len(), 3);
        assert_eq!(transcript.messages[0].text(), format!("{SUMMARY}They spoke of it.second"));
        assert_eq!(transcript.questions().collect::<Vec<_>>(), ["second", ""]);
        assert!(transcript.shorten() && transcript.shorten() && !transcript.shorten());
        assert_eq!(transcript.messages[0], Message::user("second"));

        transcript.summarise_all("All of it.");
        transcript.say("and now?");
        assert_eq!((transcript.messages.len(), transcript.messages[0].content.len()), (1, 2));
    }
}

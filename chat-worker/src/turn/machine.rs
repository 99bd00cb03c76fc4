//! The turn as a machine: `on(Input) → Step`. Pure: no await, no clock, no I/O. It owns what happens next and that the
//! conversation stays valid; it does not know how a model is called or a tool is run.

use serde::Serialize;
use serde_json::Value;

use super::{
    opening::Opening,
    transcript::{ToolResult, Transcript},
};
use crate::{
    llm::{Answer, ModelError},
    message::{Message, Role, StopReason, ToolCall, text_block},
};

/// Where a turn ends even if the model would go on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rounds of tool calls; the answer after the last one must do without tools.
    pub rounds: u32,
    /// Times in a row that the model may pause and be sent on.
    pub pauses: u32,
    /// Times that the conversation is shortened because it is too long for the model.
    pub shortenings: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rounds: 20, pauses: 5, shortenings: 3 }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The user says something.
    User(Opening),
    /// The user goes on where the conversation stopped: with open calls, or after a failure.
    Resume,
    Model(Answer),
    ModelFailed(ModelError),
    /// The prompt would not fit: it was counted, and not sent.
    TooLong,
    /// What is to take the place of the earlier turns; `None` when there is no summary of them.
    Summary(Option<String>),
    /// What the user decided on the calls that wait; a call that is not named was denied.
    Decided {
        approved: Vec<String>,
    },
    ToolResults(Vec<ToolResult>),
    /// The user stopped the turn. `said` is what had been streamed of the answer, `done` the results that had come.
    Cancelled {
        said: String,
        done: Vec<ToolResult>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    CallModel {
        allow_tools: bool,
    },
    /// Ask the user about those calls that need it; answer with `Decided`.
    AskApproval(Vec<ToolCall>),
    /// Run the approved calls; the denied ones have been answered.
    RunTools(Vec<ToolCall>),
    /// Summarise these earlier turns; answer with `Summary`.
    Compact(Vec<Message>),
    Done(Outcome),
    Failed(ModelError),
}

impl PartialEq for ModelError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Complete,
    /// The answer is cut off at max_tokens.
    Truncated,
    /// The model declined; the question was taken out of the conversation.
    Refused,
    Cancelled,
    /// The model paused again and again.
    Paused,
    /// Even the shortest form of the conversation is too long.
    TooLong,
    /// Calls wait for a decision that nobody is there to make.
    ApprovalRequired,
}

impl Outcome {
    /// What a person should know of an end that is not the usual one.
    pub fn in_words(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Truncated => Some("the answer is cut off"),
            Self::Refused => Some("the model declined; the question is taken back"),
            Self::Cancelled => Some("stopped"),
            Self::Paused => Some("the model paused"),
            Self::TooLong => Some("the conversation is too long for the model"),
            Self::ApprovalRequired => Some("calls wait for a decision"),
        }
    }

    /// In a word, for the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::TooLong => "too_long",
            Self::ApprovalRequired => "approval_required",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Model,
    Compacting,
    Approval,
    Tools,
}

/// One turn in progress.
#[derive(Debug)]
pub struct Machine {
    transcript: Transcript,
    limits: Limits,
    phase: Phase,
    rounds: u32,
    pauses: u32,
    shortenings: u32,
    /// A summary was asked for in this turn; there is no second.
    summarised: bool,
    denied: Vec<ToolResult>,
}

impl Machine {
    pub fn new(transcript: Transcript, limits: Limits) -> Self {
        let (phase, denied) = (Phase::Idle, Vec::new());
        Self { transcript, limits, phase, rounds: 0, pauses: 0, shortenings: 0, summarised: false, denied }
    }

    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    pub fn into_transcript(self) -> Transcript {
        self.transcript
    }

    /// Takes what happened, and says what to do. An input that does not fit the phase ends the turn as cancelled rather
    /// than leave a call unanswered: it cannot come from a driver that does what it is told.
    pub fn on(&mut self, input: Input) -> Step {
        match (self.phase, input) {
            (Phase::Idle, Input::User(opening)) => {
                self.transcript.say(opening);
                self.call_model()
            }
            (Phase::Idle, Input::Resume) => self.resume(),
            (Phase::Model, Input::Model(answer)) => self.answered(answer),
            (Phase::Model, Input::ModelFailed(error)) => self.failed(error),
            (Phase::Model, Input::TooLong) => self.shorten(Vec::new()),
            (Phase::Compacting, Input::Summary(summary)) => self.summarised(summary.as_deref()),
            (Phase::Approval, Input::Decided { approved }) => self.decided(&approved),
            (Phase::Tools, Input::ToolResults(mut results)) => {
                results.append(&mut self.denied);
                self.transcript.answer(results, "the tool gave no result");
                self.call_model()
            }
            (_, Input::Cancelled { said, done }) => self.cancelled(&said, done),
            (_, _) => self.cancelled("", Vec::new()),
        }
    }

    fn resume(&mut self) -> Step {
        let calls = self.transcript.open_calls();
        if !calls.is_empty() {
            return self.ask(calls);
        }
        match self.transcript.messages().last() {
            Some(last) if last.role == Role::User => self.call_model(),
            // Nothing waits for an answer.
            _ => self.done(Outcome::Complete),
        }
    }

    /// The turn ends here with its calls still open, for the user to decide on them in a later request.
    pub fn suspend(&mut self) -> Step {
        self.done(Outcome::ApprovalRequired)
    }

    fn call_model(&mut self) -> Step {
        self.phase = Phase::Model;
        Step::CallModel { allow_tools: self.rounds < self.limits.rounds }
    }

    fn done(&mut self, outcome: Outcome) -> Step {
        self.phase = Phase::Idle;
        Step::Done(outcome)
    }

    fn ask(&mut self, calls: Vec<ToolCall>) -> Step {
        self.phase = Phase::Approval;
        Step::AskApproval(calls)
    }

    fn answered(&mut self, answer: Answer) -> Step {
        let pausing = answer.stop == StopReason::PauseTurn;
        if !pausing {
            self.pauses = 0;
        }
        match answer.stop {
            StopReason::Refusal => {
                self.transcript.forget_last_question();
                self.done(Outcome::Refused)
            }
            StopReason::ContextWindowExceeded => self.shorten(answer.content),
            StopReason::PauseTurn => {
                self.pauses += 1;
                self.transcript.reply(without_calls(answer.content));
                if self.pauses > self.limits.pauses {
                    return self.done(Outcome::Paused);
                }
                self.call_model()
            }
            StopReason::MaxTokens => {
                self.transcript.reply(without_calls(answer.content));
                self.done(Outcome::Truncated)
            }
            StopReason::EndTurn | StopReason::StopSequence | StopReason::ToolUse | StopReason::Other(_) => {
                self.transcript.reply(answer.content);
                let calls = self.transcript.open_calls();
                if calls.is_empty() {
                    return self.done(Outcome::Complete);
                }
                self.rounds += 1;
                if self.rounds > self.limits.rounds {
                    // Asked to do without tools, the model called one all the same.
                    self.transcript.answer(Vec::new(), "not run: the turn has used up its rounds of tool calls");
                    return self.done(Outcome::Truncated);
                }
                self.ask(calls)
            }
        }
    }

    fn failed(&mut self, error: ModelError) -> Step {
        if error.is_too_long() {
            return self.shorten(Vec::new());
        }
        self.phase = Phase::Idle;
        Step::Failed(error)
    }

    /// Earlier turns become a summary, once; what is still too long is left out step by step.
    fn shorten(&mut self, said: Vec<Value>) -> Step {
        self.shortenings += 1;
        if self.shortenings > self.limits.shortenings {
            return self.too_long(said);
        }
        let earlier = self.transcript.earlier_turns();
        if !self.summarised && !earlier.is_empty() {
            self.summarised = true;
            self.phase = Phase::Compacting;
            return Step::Compact(earlier.to_vec());
        }
        if self.transcript.shorten() { self.call_model() } else { self.too_long(said) }
    }

    fn summarised(&mut self, summary: Option<&str>) -> Step {
        match summary {
            Some(summary) => self.transcript.summarise_earlier(summary),
            None if self.transcript.shorten() => {}
            None => return self.too_long(Vec::new()),
        }
        self.call_model()
    }

    fn too_long(&mut self, said: Vec<Value>) -> Step {
        self.transcript.reply(without_calls(said));
        self.done(Outcome::TooLong)
    }

    fn decided(&mut self, approved: &[String]) -> Step {
        let (run, denied): (Vec<_>, Vec<_>) =
            self.transcript.open_calls().into_iter().partition(|call| approved.contains(&call.id));
        let refusal = "the user did not allow this call; do not try it again, ask what to do instead";
        self.denied = denied.iter().map(|call| ToolResult::error(&call.id, refusal)).collect();
        self.phase = Phase::Tools;
        if run.is_empty() {
            return self.on(Input::ToolResults(Vec::new()));
        }
        Step::RunTools(run)
    }

    fn cancelled(&mut self, said: &str, mut done: Vec<ToolResult>) -> Step {
        match self.phase {
            Phase::Model if !said.trim().is_empty() => self.transcript.reply(vec![text_block(said)]),
            Phase::Approval | Phase::Tools => {
                done.append(&mut self.denied);
                self.transcript.answer(done, "cancelled by the user before it had a result");
            }
            Phase::Model | Phase::Compacting | Phase::Idle => {}
        }
        self.done(Outcome::Cancelled)
    }
}

/// A call that will not be answered must not be in the conversation.
fn without_calls(content: Vec<Value>) -> Vec<Value> {
    content.into_iter().filter(|block| block["type"] != "tool_use").collect()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

//! The machine against every order of events.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::message::Usage;

fn machine() -> Machine {
    Machine::new(Transcript::default(), Limits { rounds: 2, pauses: 2, shortenings: 2 })
}

fn answer(stop: StopReason, content: Vec<Value>) -> Input {
    Input::Model(Answer { content, stop, usage: Usage::default(), model: "m".into(), first_token: None, estimated: false })
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "a", "input": {}})
}

fn ids(calls: &[ToolCall]) -> Vec<&str> {
    calls.iter().map(|call| call.id.as_str()).collect()
}

fn ask(machine: &mut Machine) -> Step {
    machine.on(Input::User("hi".into()))
}

fn valid(machine: &Machine) {
    Transcript::read(machine.transcript().messages().to_vec()).expect("the conversation stays valid");
}

#[test]
fn an_answer_without_calls_completes_the_turn() {
    let mut machine = machine();
    assert_eq!(ask(&mut machine), Step::CallModel { allow_tools: true });
    let step = machine.on(answer(StopReason::EndTurn, vec![text_block("hello")]));
    assert_eq!(step, Step::Done(Outcome::Complete));
}

#[test]
fn denied_calls_are_answered_beside_the_results_of_the_others() {
    let mut machine = machine();
    ask(&mut machine);
    let Step::AskApproval(calls) = machine.on(answer(StopReason::ToolUse, vec![call("1"), call("2")])) else {
        unreachable!("two calls wait")
    };
    assert_eq!(ids(&calls), ["1", "2"]);
    let Step::RunTools(run) = machine.on(Input::Decided { approved: vec!["2".into()] }) else { unreachable!("one runs") };
    assert_eq!(ids(&run), ["2"]);
    let results = vec![ToolResult { id: "2".into(), text: "ok".into(), is_error: false, images: Vec::new() }];
    assert_eq!(machine.on(Input::ToolResults(results)), Step::CallModel { allow_tools: true });
    let content = &machine.transcript().messages()[2].content;
    assert_eq!((content[0]["is_error"].clone(), content[1]["is_error"].clone()), (json!(true), json!(false)));
    valid(&machine);
}

#[test]
fn after_the_last_round_the_model_must_answer_without_tools() {
    let mut machine = machine();
    let mut step = ask(&mut machine);
    for round in 0..3 {
        assert_eq!(step, Step::CallModel { allow_tools: round < 2 });
        step = machine.on(answer(StopReason::ToolUse, vec![call(&round.to_string())]));
        if round < 2 {
            machine.on(Input::Decided { approved: vec![round.to_string()] });
            step = machine.on(Input::ToolResults(Vec::new()));
        }
    }
    assert_eq!(step, Step::Done(Outcome::Truncated));
    valid(&machine);
}

#[test]
fn cancelling_keeps_what_was_said_and_answers_what_was_asked() {
    let mut speaking = machine();
    ask(&mut speaking);
    let step = speaking.on(Input::Cancelled { said: "hal".into(), done: Vec::new() });
    assert_eq!(step, Step::Done(Outcome::Cancelled));
    assert_eq!(speaking.transcript().messages()[1].text(), "hal");

    let mut working = machine();
    ask(&mut working);
    working.on(answer(StopReason::ToolUse, vec![call("1"), call("2")]));
    working.on(Input::Decided { approved: vec!["1".into(), "2".into()] });
    let done = vec![ToolResult { id: "1".into(), text: "ok".into(), is_error: false, images: Vec::new() }];
    working.on(Input::Cancelled { said: String::new(), done });
    assert_eq!(working.transcript().messages()[2].content.len(), 2);
    valid(&working);
}

#[test]
fn a_refusal_takes_the_question_back() {
    let mut machine = machine();
    ask(&mut machine);
    assert_eq!(machine.on(answer(StopReason::Refusal, vec![])), Step::Done(Outcome::Refused));
    assert!(machine.transcript().messages().is_empty());
}

#[test]
fn a_pause_is_sent_on_but_not_for_ever() {
    let mut machine = machine();
    ask(&mut machine);
    for _ in 0..2 {
        let step = machine.on(answer(StopReason::PauseTurn, vec![text_block("wait")]));
        assert_eq!(step, Step::CallModel { allow_tools: true });
    }
    assert_eq!(machine.on(answer(StopReason::PauseTurn, vec![])), Step::Done(Outcome::Paused));
}

#[test]
fn max_tokens_ends_the_turn_and_drops_calls() {
    let mut machine = machine();
    ask(&mut machine);
    let step = machine.on(answer(StopReason::MaxTokens, vec![text_block("so"), call("1")]));
    assert_eq!(step, Step::Done(Outcome::Truncated));
    assert!(machine.transcript().open_calls().is_empty());
}

/// A second question, behind a turn.
fn second_turn() -> Machine {
    let mut machine = machine();
    ask(&mut machine);
    machine.on(answer(StopReason::EndTurn, vec![text_block("hello")]));
    machine.on(Input::User("again".into()));
    machine
}

fn refused_as_too_long() -> Input {
    let message = "prompt is too long: 250000 tokens".to_owned();
    Input::ModelFailed(ModelError::Status { status: 400, kind: None, message, retry_after: None })
}

#[test]
fn a_conversation_that_is_too_long_is_summarised_once_and_tried_again() {
    for too_long in [Input::TooLong, refused_as_too_long()] {
        let mut machine = second_turn();
        let Step::Compact(earlier) = machine.on(too_long) else { unreachable!("there is an earlier turn") };
        assert_eq!(earlier.len(), 2);
        let step = machine.on(Input::Summary(Some("They greeted.".into())));
        assert_eq!(step, Step::CallModel { allow_tools: true });
        assert_eq!(machine.transcript().messages().len(), 1);
        assert!(machine.transcript().messages()[0].text().ends_with("They greeted.again"));
        // Still too long: the summary goes, too, and then there is nothing left.
        assert_eq!(machine.on(Input::TooLong), Step::CallModel { allow_tools: true });
        assert_eq!(machine.transcript().messages()[0].text(), "again");
        assert_eq!(machine.on(Input::TooLong), Step::Done(Outcome::TooLong));
    }
}

#[test]
fn without_a_summary_earlier_turns_are_left_out() {
    let mut machine = second_turn();
    machine.on(Input::TooLong);
    assert_eq!(machine.on(Input::Summary(None)), Step::CallModel { allow_tools: true });
    assert_eq!(machine.transcript().messages()[0].text(), "again");
}

#[test]
fn after_a_failure_the_turn_can_be_resumed() {
    let mut machine = machine();
    ask(&mut machine);
    let step = machine.on(Input::ModelFailed(ModelError::Connect("refused".into())));
    assert!(matches!(step, Step::Failed(_)));
    assert_eq!(machine.on(Input::Resume), Step::CallModel { allow_tools: true });
}

fn any_input() -> impl Strategy<Value = u8> {
    0_u8..15
}

proptest! {
    /// Whatever happens in whatever order: the conversation can always be sent, once it is the user's turn.
    #[test]
    fn the_conversation_is_valid_after_any_sequence(inputs in proptest::collection::vec(any_input(), 1..40)) {
        let mut machine = machine();
        for (index, input) in inputs.into_iter().enumerate() {
            let id = |n: usize| format!("{index}-{n}");
            let result = |id: String| ToolResult { id, text: "ok".into(), is_error: false, images: Vec::new() };
            let open: Vec<String> = machine.transcript().open_calls().into_iter().map(|call| call.id).collect();
            let step = machine.on(match input {
                0 | 1 => Input::User("hi".into()),
                2 => Input::Resume,
                3 => answer(StopReason::EndTurn, vec![text_block("x")]),
                4 | 5 => answer(StopReason::ToolUse, vec![text_block("x"), call(&id(1)), call(&id(2))]),
                6 => answer(StopReason::MaxTokens, vec![call(&id(1))]),
                7 => answer(StopReason::PauseTurn, vec![call(&id(1))]),
                8 => Input::Decided { approved: open.into_iter().take(1).collect() },
                9 => Input::ToolResults(open.into_iter().take(1).map(result).collect()),
                10 => answer(StopReason::Refusal, vec![]),
                11 => answer(StopReason::ContextWindowExceeded, vec![text_block("x")]),
                12 => Input::TooLong,
                13 => Input::Summary((index % 2 == 0).then(|| "in short".to_owned())),
                _ => Input::Cancelled { said: "hal".into(), done: Vec::new() },
            });
            let read = Transcript::read(machine.transcript().messages().to_vec());
            prop_assert!(read.is_ok(), "{read:?} after {step:?}");
            if let Step::CallModel { .. } = step {
                prop_assert!(machine.transcript().open_calls().is_empty());
            }
        }
    }
}

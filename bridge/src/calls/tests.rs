//! Tables of calls without a process: what is said to a child, what it answers, and who hears it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_stdio::exit::Exit;
use mcp_wire::question::THINKING;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::outbox::Event;
use crate::post::Post;

const LIMITS: Limits = Limits {
    in_flight: 4,
    queue: 1 << 20,
    timeout: Duration::from_secs(30),
    longest: Duration::from_secs(100),
    silence: Duration::from_mins(2),
};

fn ask(id: u64) -> (Ask, Outbox) {
    let body =
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t", "_meta": {"progressToken": "p"}}});
    let Ok(Post::Request(envelope)) = Post::read(&Bytes::from(body.to_string())) else { unreachable!() };
    let out = Outbox::default();
    let trail = Trail::default();
    (Ask { envelope, session: None, out: out.clone(), trace: Vec::new(), trail, stands: false, hears: true }, out)
}

/// Calls of a child has said that it is a legacy one.
fn ready(now: Instant) -> Calls {
    let mut calls = Calls::new(LIMITS, Metrics::default(), By::Us);
    begin(&mut calls, now);
    calls
}

/// A child that does not know `server/discover`.
fn begin(calls: &mut Calls, now: Instant) {
    calls.began(now);
    while calls.hello().is_none() {
        for message in written(calls) {
            let id = &message["id"];
            let answer = match message["method"].as_str() {
                Some("server/discover") => json!({"id": id, "error": {"code": -32601, "message": ""}}),
                Some("initialize") => json!({"id": id, "result": {"protocolVersion": "2025-11-25", "capabilities": {}}}),
                _ => continue,
            };
            calls.heard(answer.to_string().as_bytes(), now);
        }
    }
}

/// All that was to be written, which reaches the child.
fn written(calls: &mut Calls) -> Vec<Value> {
    let mut out = Vec::new();
    calls.take_out(&mut out);
    calls.wrote(out.len());
    out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn death() -> Arc<Death> {
    Arc::new(Death::new(Some(Exit { code: Some(1), signal: None }), None, Vec::new()))
}

fn events(out: &Outbox) -> Vec<Value> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut events = Vec::new();
    while let std::task::Poll::Ready(Some(Event::Message(text) | Event::Answer(text, _))) = out.poll_next(&mut context) {
        events.push(serde_json::from_slice(&text).unwrap());
    }
    events
}

#[test]
fn calls_wait_for_a_child_in_their_order() {
    let now = Instant::now();
    let mut calls = Calls::new(LIMITS, Metrics::default(), By::Us);
    let outs: Vec<Outbox> = (0..3)
        .map(|id| {
            let (ask, out) = ask(id);
            calls.admit(ask, now).unwrap();
            out
        })
        .collect();
    begin(&mut calls, now);
    let open: Vec<Value> = written(&mut calls).into_iter().filter(|message| message["method"] == "tools/call").collect();
    assert_eq!(open.len(), 3);
    for (call, out) in open.iter().zip(&outs) {
        calls.heard(json!({"id": call["id"], "result": {}}).to_string().as_bytes(), now);
        assert_eq!(events(out).len(), 1);
    }
}

/// A table with so many calls that the child has heard of, and their outboxes.
fn asked(open: u64, now: Instant) -> (Calls, Vec<(u64, Outbox)>) {
    let mut calls = ready(now);
    let outs = (0..open).map(ask).map(|(ask, out)| (calls.admit(ask, now).unwrap(), out)).collect();
    written(&mut calls);
    (calls, outs)
}

#[test]
fn an_answer_that_is_none_ends_its_call_at_once() {
    let now = Instant::now();
    for (rest, words) in [
        (r#""result":null"#, "its \"result\" is no object"),
        (r#""result":[]"#, "its \"result\" is no object"),
        (r#""result":{},"error":{"code":1,"message":"m"}"#, "it has both \"result\" and \"error\""),
        (r#""x":1"#, "it has neither \"result\" nor \"error\""),
    ] {
        let (mut calls, outs) = asked(2, now);
        let line = format!(r#"{{"jsonrpc":"2.0","id":{},{rest}}}"#, outs[0].0);
        assert!(matches!(calls.heard(line.as_bytes(), now), Heard::Stray), "{line}");
        let told = events(&outs[0].1);
        assert_eq!(told[0]["error"]["message"], format!("the server's answer is none: {words}"), "{line}");
        assert!(events(&outs[1].1).is_empty());
    }
}

#[test]
fn colours_around_a_message_are_no_part_of_it() {
    let now = Instant::now();
    let (mut calls, outs) = asked(1, now);
    let line =
        format!("\u{1b}]0;my server\u{7}\u{1b}[32m{{\"jsonrpc\":\"2.0\",\"id\":{}.0,\"result\":{{}}}}\u{1b}[0m", outs[0].0);
    assert!(matches!(calls.heard(line.as_bytes(), now), Heard::Nothing));
    assert_eq!(events(&outs[0].1), [json!({"jsonrpc": "2.0", "id": 0, "result": {}})]);
}

#[test]
fn a_call_without_an_answer_is_told_that_there_were_lines_instead() {
    let now = Instant::now();
    for (line, told) in [(None, false), (Some("{"), true)] {
        let (mut calls, outs) = asked(1, now);
        if let Some(line) = line {
            calls.heard(line.as_bytes(), now);
        }
        calls.tick(now + LIMITS.timeout);
        let words = events(&outs[0].1)[0]["error"]["message"].to_string();
        assert_eq!(words.contains("printed lines that are no messages"), told, "{words}");
    }
}

#[test]
fn a_call_that_a_dead_child_has_not_read_is_the_next_ones() {
    let now = Instant::now();
    let mut calls = ready(now);
    let (first, heard) = ask(0);
    calls.admit(first, now).unwrap();
    written(&mut calls);
    let (second, unheard) = ask(1);
    calls.admit(second, now).unwrap();
    let mut line = Vec::new();
    calls.take_out(&mut line);
    calls.wrote(line.len());
    calls.unread(line.len() as u64);
    calls.died(&death(), Some(now));
    assert_eq!(events(&heard)[0]["error"]["code"], -32000);
    assert!(events(&unheard).is_empty());
    begin(&mut calls, now);
    assert!(written(&mut calls).iter().any(|message| message["method"] == "tools/call"));
}

#[test]
fn an_error_without_an_id_is_the_answer_to_the_only_call() {
    let now = Instant::now();
    for error in
        [r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#, r#"{"error":{"code":-32600,"message":"no"}}"#]
    {
        let (mut calls, outs) = asked(1, now);
        assert!(matches!(calls.heard(error.as_bytes(), now), Heard::Nothing));
        let told = events(&outs[0].1);
        assert_eq!((&told[0]["id"], &told[0]["error"]["message"]), (&json!(0), &json!("no")), "{error}");
        // Of two it could be either's.
        let (mut calls, outs) = asked(2, now);
        assert!(matches!(calls.heard(error.as_bytes(), now), Heard::Stray));
        assert!(outs.iter().all(|(_, out)| events(out).is_empty()));
    }
}

#[test]
fn an_answer_that_is_no_json_is_told_at_once() {
    let now = Instant::now();
    for (result, words) in [("{\"n\":NaN}", "no JSON"), ("{", "no JSON"), ("{},\"id\":1", "twice")] {
        let (mut calls, outs) = asked(2, now);
        let line = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, outs[1].0);
        assert!(matches!(calls.heard(line.as_bytes(), now), Heard::Stray));
        let told = events(&outs[1].1);
        assert!(told[0]["error"]["message"].as_str().unwrap().contains(words), "{told:?}");
        assert!(events(&outs[0].1).is_empty());
    }
    // Some put the id last.
    let (mut calls, outs) = asked(2, now);
    let line = format!(r#"{{"result":{{"id":{},"n":NaN}},"jsonrpc":"2.0","id":{}}}"#, outs[0].0, outs[1].0);
    calls.heard(line.as_bytes(), now);
    assert_eq!((events(&outs[0].1).len(), events(&outs[1].1).len()), (0, 1));
    // What is not said to be an answer is nobody's.
    let (mut calls, outs) = asked(1, now);
    calls.heard(format!(r#"{{"id": {}, half"#, outs[0].0).as_bytes(), now);
    assert!(events(&outs[0].1).is_empty());
}

#[test]
fn a_byte_order_mark_and_a_foreign_code_page_cost_no_answer() {
    let now = Instant::now();
    let (mut calls, outs) = asked(1, now);
    let mut line = format!("\u{feff}{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"text\":\"caf\"", outs[0].0).into_bytes();
    line.insert(line.len() - 1, 0xe9);
    line.extend_from_slice(b"}}\r");
    assert!(matches!(calls.heard(&line, now), Heard::Nothing));
    assert_eq!(events(&outs[0].1)[0]["result"]["text"], "caf\u{fffd}");
}

#[test]
fn a_death_answers_what_was_written_and_keeps_the_rest_for_the_next_child() {
    let now = Instant::now();
    let mut calls = ready(now);
    written(&mut calls);
    let ((first, heard), (second, unheard)) = (ask(1), ask(2));
    calls.admit(first, now).unwrap();
    written(&mut calls);
    calls.admit(second, now).unwrap();
    calls.died(&death(), Some(now));
    assert_eq!(events(&heard)[0]["error"]["data"]["reason"], "ServerExited");
    assert_eq!((events(&unheard).len(), calls.in_flight()), (0, 1));
    begin(&mut calls, now);
    let call = written(&mut calls).pop().unwrap();
    calls.heard(json!({"id": call["id"], "result": {}}).to_string().as_bytes(), now);
    assert_eq!(events(&unheard), [json!({"jsonrpc": "2.0", "id": 2, "result": {}})]);
}

#[test]
fn who_comes_while_it_is_down_waits_for_the_next_child_as_long_as_a_call_may_take() {
    let now = Instant::now();
    let mut calls = ready(now);
    let next = LIMITS.timeout + Duration::from_secs(1);
    calls.died(&death(), Some(now + next));
    assert!(matches!(calls.admit(ask(1).0, now), Err(Refusal::Down(_, Some(wait))) if wait == next));
    let now = now + Duration::from_secs(1);
    let ((first, waits), (second, goes)) = (ask(1), ask(2));
    calls.admit(first, now).unwrap();
    calls.admit(second, now + Duration::from_secs(1)).unwrap();
    calls.tick(now + LIMITS.timeout);
    assert_eq!(events(&waits)[0]["error"]["data"], json!({"reason": "NotSent", "exitCode": 1, "signal": null, "stderr": []}));
    begin(&mut calls, now + LIMITS.timeout);
    let call = written(&mut calls).pop().unwrap();
    calls.heard(json!({"id": call["id"], "result": {}}).to_string().as_bytes(), now + LIMITS.timeout);
    assert_eq!(events(&goes), [json!({"jsonrpc": "2.0", "id": 2, "result": {}})]);
}

#[test]
fn who_waited_for_a_child_that_will_not_come_is_told_that_nothing_was_sent() {
    let now = Instant::now();
    let mut calls = ready(now);
    let (heard, waits) = (ask(1), ask(2));
    calls.admit(heard.0, now).unwrap();
    written(&mut calls);
    calls.admit(waits.0, now).unwrap();
    calls.died(&death(), None);
    let reason = |out: &Outbox| events(out)[0]["error"]["data"]["reason"].clone();
    assert_eq!((reason(&heard.1), reason(&waits.1)), (json!("ServerExited"), json!("NotSent")));
    assert!(matches!(calls.admit(ask(3).0, now), Err(Refusal::Down(_, None))));
    // One that does not say what it is was sent nothing, either.
    let mut calls = Calls::new(LIMITS, Metrics::default(), By::Us);
    let (waits, out) = ask(1);
    calls.admit(waits, now).unwrap();
    calls.began(now);
    calls.tick(now + LIMITS.timeout);
    assert_eq!(reason(&out), "NotSent");
}

#[test]
fn why_a_client_takes_a_call_back_is_told_to_the_child() {
    let now = Instant::now();
    let mut calls = ready(now);
    let session = crate::session::tests::session("{}");
    let (mut asked, out) = ask(1);
    asked.session = Some(Arc::clone(&session));
    let id = calls.admit(asked, now).unwrap();
    written(&mut calls);
    calls.cancelled(&session, "1", Some("\"too late\""));
    assert_eq!(written(&mut calls)[0]["params"], json!({"requestId": id, "reason": "too late"}));
    assert!(out.has_ended());
    // One that is longer than may wait to be written is left out.
    let (mut asked, _) = ask(2);
    asked.session = Some(Arc::clone(&session));
    let id = calls.admit(asked, now).unwrap();
    calls.cancelled(&session, "2", Some(&wire::quoted(&"x".repeat(LIMITS.queue))));
    assert_eq!(written(&mut calls).pop().unwrap()["params"], json!({"requestId": id}));
}

#[test]
fn a_childs_own_questions_are_refused_and_its_ping_is_answered() {
    let now = Instant::now();
    let mut calls = ready(now);
    written(&mut calls);
    calls.heard(br#"{"jsonrpc":"2.0","id":"x","method":"ping"}"#, now);
    calls.heard(br#"{"jsonrpc":"2.0","id":"y","method":"sampling/createMessage","params":{}}"#, now);
    let said = written(&mut calls);
    assert_eq!(said[0], json!({"jsonrpc": "2.0", "id": "x", "result": {}}));
    assert_eq!((&said[1]["id"], &said[1]["error"]["code"]), (&json!("y"), &json!(-32601)));
}

/// A child of a session's own, that has heard of so many calls, and their outboxes.
fn of_a_session(open: u64, now: Instant) -> (Calls, Vec<Outbox>) {
    let mut calls = Calls::new(LIMITS, Metrics::default(), By::Client);
    calls.began(now);
    let id = written(&mut calls)[0]["id"].clone();
    calls.heard(json!({"id": id, "error": {"code": -32601, "message": ""}}).to_string().as_bytes(), now);
    let outs = (0..open).map(ask).map(|(ask, out)| calls.admit(ask, now).map(|_| out).unwrap()).collect();
    written(&mut calls);
    (calls, outs)
}

/// The child asks its client something, by this id.
fn asks(calls: &mut Calls, id: &str, method: &str, now: Instant) -> Heard {
    calls.heard(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}}).to_string().as_bytes(), now)
}

/// Its client answers.
fn replies(calls: &mut Calls, id: &str, now: Instant) {
    let (session, id) = (crate::session::tests::session("{}"), json!(id).to_string());
    assert!(calls.hears_answer(&session, &id, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).as_bytes(), now));
}

const MOMENT: Duration = Duration::from_millis(1);

#[rstest]
fn while_a_person_is_asked_the_time_of_calls_stands_still(
    #[values("elicitation/create", "sampling/createMessage")] method: &str,
) {
    let start = Instant::now();
    let (mut calls, outs) = of_a_session(2, start);
    let asked = start + LIMITS.timeout - MOMENT;
    assert!(matches!(asks(&mut calls, "q", method, asked), Heard::Asks(_)));
    // Progress takes nothing of it, and what comes meanwhile waits as well.
    let first = calls.open.keys().min().copied();
    let progress = json!({"method": "notifications/progress", "params": {"progressToken": first, "progress": 1}});
    calls.heard(progress.to_string().as_bytes(), asked);
    let (later, out) = ask(9);
    calls.admit(later, asked + THINKING / 2).unwrap();
    let outs = [outs, vec![out]].concat();
    let answered = asked + THINKING - MOMENT;
    calls.tick(answered);
    assert!(outs.iter().all(|out| !out.has_ended()));
    replies(&mut calls, "q", answered);
    assert_eq!(written(&mut calls).pop().unwrap()["id"], "q", "the child hears of it");
    calls.tick(answered + LIMITS.timeout - MOMENT);
    assert!(outs.iter().all(|out| !out.has_ended()), "the time begins anew, also where the longest was over");
    calls.tick(answered + LIMITS.timeout);
    assert!(outs.iter().all(|out| events(out).last().unwrap()["error"]["data"]["reason"] == "Timeout"));
}

#[rstest]
fn what_a_program_answers_by_itself_costs_the_call_its_own_time(#[values("roots/list", "ping")] method: &str) {
    let now = Instant::now();
    let (mut calls, outs) = of_a_session(1, now);
    asks(&mut calls, "q", method, now);
    calls.tick(now + LIMITS.timeout);
    assert_eq!(events(&outs[0])[0]["error"]["data"]["reason"], "Timeout");
}

#[test]
fn nobody_thinks_for_ever() {
    let start = Instant::now();
    let (mut calls, outs) = of_a_session(1, start);
    asks(&mut calls, "q", "elicitation/create", start);
    calls.tick(start + THINKING);
    let told = &events(&outs[0])[0]["error"]["message"];
    assert_eq!(told, "the server did not answer within 300 s: it waits for an answer of its client's");
    // Nor by one question after the other.
    let (mut calls, outs) = of_a_session(1, start);
    let mut now = start;
    while !outs[0].has_ended() {
        asks(&mut calls, &format!("{now:?}"), "elicitation/create", now);
        now += THINKING / 2;
        calls.tick(now);
    }
    assert!(now - start >= LIMITS.longest + THINKING && now - start < LIMITS.longest + 2 * THINKING, "{:?}", now - start);
}

#[rstest]
fn a_question_that_nobody_waits_for_any_more_holds_no_time(#[values("withdrawn", "answered without it")] how: &str) {
    let now = Instant::now();
    let (mut calls, _outs) = of_a_session(1, now);
    asks(&mut calls, "q", "elicitation/create", now);
    if how == "withdrawn" {
        calls.heard(br#"{"method":"notifications/cancelled","params":{"requestId":"q"}}"#, now);
    } else {
        calls.heard(json!({"id": calls.open.keys().next(), "result": {}}).to_string().as_bytes(), now);
    }
    let (later, out) = ask(9);
    calls.admit(later, now).unwrap();
    calls.tick(now + LIMITS.timeout);
    assert_eq!(events(&out)[0]["error"]["data"]["reason"], "Timeout");
}

#[test]
fn a_child_whose_client_thinks_is_not_taken_for_a_wedged_one() {
    let now = Instant::now();
    let (mut calls, _outs) = of_a_session(1, now);
    asks(&mut calls, "q", "elicitation/create", now);
    calls.hang_up(*calls.open.keys().next().unwrap());
    assert!(matches!(calls.tick(now + LIMITS.silence), Heard::Nothing));
    assert!(written(&mut calls).is_empty(), "it is not even asked whether it hears");
    replies(&mut calls, "q", now + LIMITS.silence);
    written(&mut calls);
    calls.tick(now + LIMITS.silence);
    assert_eq!(written(&mut calls)[0]["method"], "ping");
}

/// A modern child with one call of a legacy client's, which it has answered by these questions.
fn input_required(hears: bool, methods: &[&str], now: Instant) -> (Calls, Arc<Session>, Outbox) {
    let mut calls = Calls::new(LIMITS, Metrics::default(), By::Us);
    calls.began(now);
    let id = written(&mut calls)[0]["id"].clone();
    let hello = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}});
    calls.heard(json!({"id": id, "result": hello}).to_string().as_bytes(), now);
    let session = crate::session::tests::session(r#"{"elicitation": {}, "roots": {}}"#);
    let (asked, out) = ask(1);
    let id = calls.admit(Ask { session: Some(Arc::clone(&session)), hears, ..asked }, now).unwrap();
    written(&mut calls);
    let wanted: serde_json::Map<_, _> =
        methods.iter().map(|method| ((*method).to_owned(), json!({"method": method, "params": {}}))).collect();
    let result = json!({"resultType": "input_required", "inputRequests": wanted});
    calls.heard(json!({"id": id, "result": result}).to_string().as_bytes(), now);
    (calls, session, out)
}

#[test]
fn a_modern_childs_question_holds_the_time_of_its_call_where_a_person_is_asked() {
    let start = Instant::now();
    let now = start + THINKING - MOMENT;
    let (mut calls, session, out) = input_required(true, &["elicitation/create"], start);
    calls.tick(now);
    let question = events(&out).pop().unwrap();
    assert_eq!(question["method"], "elicitation/create");
    let id = question["id"].to_string();
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}).to_string();
    assert!(calls.hears_answer(&session, &id, reply.as_bytes(), now));
    assert!(written(&mut calls)[0]["params"]["inputResponses"].is_object(), "it is called again");
    calls.tick(now + LIMITS.timeout - MOMENT);
    assert!(!out.has_ended());
    // Who only lists its roots does not think.
    let (mut calls, _, out) = input_required(true, &["roots/list"], start);
    calls.tick(start + LIMITS.timeout);
    assert_eq!(events(&out).pop().unwrap()["error"]["data"]["reason"], "Timeout");
}

#[test]
fn a_client_that_hears_nothing_before_the_answer_is_asked_elsewhere_or_told_so() {
    let now = Instant::now();
    let (_, _, out) = input_required(false, &["elicitation/create"], now);
    assert_eq!(events(&out)[0]["error"]["data"]["reason"], "InputRequired");
    let (mut calls, _outs) = of_a_session(0, now);
    let (asked, _) = ask(1);
    calls.admit(Ask { hears: false, ..asked }, now).unwrap();
    assert!(calls.latest_call().is_none());
}

#[derive(Debug, Clone)]
enum Act {
    Admit,
    Write,
    Answer(usize),
    Progress(usize),
    HangUp(usize),
    Advance(u64),
    Die(bool),
    Begin,
    Stray(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Admit),
        3 => Just(Act::Write),
        4 => (0_usize..8).prop_map(Act::Answer),
        1 => (0_usize..8).prop_map(Act::Progress),
        1 => (0_usize..8).prop_map(Act::HangUp),
        1 => (0_u64..40).prop_map(Act::Advance),
        1 => any::<bool>().prop_map(Act::Die),
        2 => Just(Act::Begin),
        1 => any::<u64>().prop_map(Act::Stray),
    ]
}

proptest! {
    /// Whatever a child and its clients do: no call is answered twice or by another's answer, none is lost, and none is left.
    #[test]
    fn every_call_ends_once(acts in prop::collection::vec(act(), 0..80)) {
        let mut now = Instant::now();
        let mut calls = ready(now);
        let mut living = true;
        let mut open: Vec<(u64, u64, Outbox)> = Vec::new();
        let mut heard_of: Vec<u64> = Vec::new();
        let mut client_id = 0;
        for act in acts {
            match act {
                Act::Admit => {
                    client_id += 1;
                    let (ask, out) = ask(client_id);
                    if let Ok(number) = calls.admit(ask, now) {
                        open.push((client_id, number, out));
                    }
                }
                Act::Write => {
                    let open = written(&mut calls).into_iter().filter(|message| message["method"] == "tools/call");
                    heard_of.extend(open.filter_map(|call| call["id"].as_u64()));
                }
                Act::Answer(index) => {
                    if living && let Some(id) = heard_of.get(index) {
                        calls.heard(json!({"id": id, "result": {"of": id}}).to_string().as_bytes(), now);
                    }
                }
                Act::Progress(index) => {
                    if living && let Some(id) = heard_of.get(index) {
                        let params = json!({"progressToken": id, "progress": 1});
                        calls.heard(json!({"method": "notifications/progress", "params": params}).to_string().as_bytes(), now);
                    }
                }
                Act::HangUp(index) => {
                    if let Some((_, number, _)) = open.get(index) {
                        calls.hang_up(*number);
                    }
                }
                Act::Advance(seconds) => {
                    now += Duration::from_secs(seconds);
                    calls.tick(now);
                }
                Act::Die(for_ever) => {
                    living = false;
                    heard_of.clear();
                    calls.died(&death(), (!for_ever).then_some(now));
                }
                Act::Begin => {
                    if !living {
                        begin(&mut calls, now);
                        living = true;
                    }
                }
                Act::Stray(id) => {
                    calls.heard(json!({"id": id.saturating_add(1 << 40), "result": {}}).to_string().as_bytes(), now);
                }
            }
            prop_assert!(calls.in_flight() <= LIMITS.in_flight);
        }
        calls.died(&death(), None);
        prop_assert_eq!(calls.in_flight(), 0);
        for (client_id, number, out) in open {
            let answers: Vec<Value> = events(&out).into_iter().filter(|event| event.get("method").is_none()).collect();
            prop_assert!(answers.len() <= 1);
            for answer in &answers {
                prop_assert_eq!(&answer["id"], client_id);
                if let Some(of) = answer.get("result") {
                    prop_assert_eq!(&of["of"], number);
                }
            }
            prop_assert!(out.has_ended());
        }
    }
}

//! What a question can be asked with: prompts and resources of servers reach the model as messages, with their roles and pictures, by one way
//! for the API, the page and the terminal; and whatever a prompt is, the model's API takes it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{process::Stdio, time::Duration};

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use support::{Worker, client::Events, stub::Stub, talker::Talker};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

const SCRIPT: &str = "otherwise: {text: 'An answer.'}";
const OPENAI: [&str; 4] = ["--model-api", "openai", "--model", "some-model"];
const PNG: &str = "iVBORw0KGgo=";

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn said(role: &str, content: &Value) -> Value {
    json!({"role": role, "content": content})
}

fn picture() -> Value {
    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}})
}

/// A prompt that shows a picture, and has the assistant speak.
fn talk() -> Value {
    let image = json!({"type": "image", "mimeType": "image/png", "data": PNG});
    let resource = json!({"type": "resource", "resource": {"uri": "a:t", "text": "its text"}});
    json!([
        said("user", &text("Look:")),
        said("user", &image),
        said("user", &resource),
        said("assistant", &text("I see a picture.")),
        said("user", &text("Go on")),
        said("user", &json!({"type": "audio", "mimeType": "audio/wav", "data": "aGk="})),
    ])
}

/// The same as the Messages API takes it.
fn talk_told() -> Value {
    json!([
        {"role": "user", "content": [text("Look:"), picture(), text("its text")]},
        {"role": "assistant", "content": [text("I see a picture.")]},
        {"role": "user", "content": [text("Go on\n\n[a sound, audio/wav, which you cannot hear]")]},
    ])
}

async fn start(prompt: &Value, args: &[&str]) -> (std::sync::Arc<Stub>, Worker) {
    let stub = Stub::start(json!([])).await;
    stub.answers("prompts/list", json!({"prompts": [{"name": "p", "arguments": [{"name": "who"}]}]}));
    stub.answers("prompts/get", json!({"messages": prompt}));
    let worker = Worker::start(SCRIPT, &[stub.entry("s")], args).await;
    (stub, worker)
}

async fn post(worker: &Worker, path: &str, body: Value) -> (u16, Value) {
    let response = worker.http.post(format!("{}{path}", worker.url)).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The messages of the last request that the model got, without marks for its cache.
fn asked(worker: &Worker) -> Value {
    unmarked(&worker.model.standin.seen().last().unwrap().body["messages"])
}

fn unmarked(messages: &Value) -> Value {
    let mut messages = messages.clone();
    for block in messages.as_array_mut().unwrap().iter_mut().filter_map(|message| message["content"].as_array_mut()).flatten() {
        block.as_object_mut().unwrap().remove("cache_control");
    }
    messages
}

#[tokio::test]
async fn a_prompt_reaches_the_model_with_its_roles_and_pictures() {
    let (stub, worker) = start(&talk(), &[]).await;
    let (status, prompt) = post(&worker, "/v1/prompt", json!({"name": "s__p", "arguments": {"who": "Ann"}})).await;
    assert_eq!((status, &prompt["messages"]), (200, &talk_told()));
    let fetched = stub.seen.lock().unwrap().iter().find(|seen| seen["method"] == "prompts/get").unwrap()["params"].clone();
    assert_eq!((&fetched["name"], &fetched["arguments"]), (&json!("p"), &json!({"who": "Ann"})));

    let (status, answer) = worker.ask(json!({"with": prompt["messages"]})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("An answer.")), "{answer}");
    assert_eq!(asked(&worker), talk_told());
    // What is returned goes on as every conversation does, and another prompt comes after it.
    let next = json!({"with": prompt["messages"], "message": "And now?", "messages": answer["messages"]});
    let (status, again) = worker.ask(next).await;
    assert_eq!((status, again["messages"].as_array().map(Vec::len)), (200, Some(8)), "{again}");
    let last = asked(&worker)[6].clone();
    assert_eq!(last["content"][1], text("And now?"), "the user's own words come last: {last}");
}

#[tokio::test]
async fn chat_completions_get_the_same() {
    let (_stub, worker) = start(&talk(), &OPENAI).await;
    let prompt = post(&worker, "/v1/prompt", json!({"name": "s__p"})).await.1;
    let (status, answer) = worker.ask(json!({"with": prompt["messages"]})).await;
    assert_eq!(status, 200, "{answer}");
    let shown = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PNG}")}});
    let messages: Vec<Value> =
        asked(&worker).as_array().unwrap().iter().filter(|said| said["role"] != "system").cloned().collect();
    assert_eq!(
        messages,
        [
            json!({"role": "user", "content": [text("Look:"), shown, text("its text")]}),
            json!({"role": "assistant", "content": "I see a picture."}),
            json!({"role": "user", "content": "Go on\n\n[a sound, audio/wav, which you cannot hear]"}),
        ]
    );
}

#[rstest]
#[case::the_assistant_begins(json!([said("assistant", &text("Hello.")), said("user", &text("Hi."))]), &["user", "assistant", "user"])]
#[case::the_assistant_ends(json!([said("user", &text("Hi.")), said("assistant", &text("Once upon"))]), &["user", "assistant", "user"])]
#[case::twice_the_same(json!([said("user", &text("a")), said("assistant", &text("b")), said("assistant", &text("c")), said("user", &text("d"))]), &["user", "assistant", "user"])]
#[case::empty_messages(json!([said("assistant", &text("")), said("user", &text("a")), said("assistant", &text(" ")), said("user", &text("b"))]), &["user"])]
#[tokio::test]
async fn whatever_a_prompt_is_the_api_takes_it(
    #[case] prompt: Value,
    #[case] roles: &[&str],
    #[values(&[], &OPENAI[..])] args: &[&str],
) {
    let (_stub, worker) = start(&prompt, args).await;
    let prompt = post(&worker, "/v1/prompt", json!({"name": "s__p"})).await.1;
    let (status, answer) = worker.ask(json!({"with": prompt["messages"]})).await;
    assert_eq!((status, answer["answer"].as_str()), (200, Some("An answer.")), "{answer}");
    let asked = asked(&worker);
    let spoke =
        asked.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).filter(|role| *role != "system");
    assert_eq!(spoke.collect::<Vec<_>>(), roles);
}

#[tokio::test]
async fn in_the_terminal_too() {
    let (stub, worker) = start(&talk(), &[]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-worker"));
    command.args(["--log-file", "-", "--base-url", &worker.model.url(), "--config"]).arg(worker.config());
    command.arg("--data-dir").arg(worker.directory.path()).arg("chat");
    command.env("XDG_STATE_HOME", worker.directory.path()).env_remove("ANTHROPIC_API_KEY");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"/prompt s__p who=Ann\n/quit\n").await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("An answer."), "{output}");
    assert_eq!(asked(&worker), talk_told());
    assert!(stub.seen.lock().unwrap().iter().any(|seen| seen["params"]["arguments"] == json!({"who": "Ann"})));
}

#[tokio::test]
async fn a_resource_is_shown_with_its_pictures() {
    let (stub, worker) = start(&json!([]), &[]).await;
    let contents = json!([{"uri": "a:b", "text": "its text"}, {"uri": "a:b", "mimeType": "image/png", "blob": PNG}]);
    stub.answers("resources/read", json!({"contents": contents}));
    let (status, resource) = post(&worker, "/v1/resource", json!({"uri": "a:b"})).await;
    let told = "This is the resource a:b:\n\nits text\n\n[image/png of a:b, 12 bytes in base64]";
    let shown = json!([{"role": "user", "content": [text(told), picture()]}]);
    assert_eq!((status, &resource["messages"]), (200, &shown));
    let (status, answer) = worker.ask(json!({"with": resource["messages"], "message": "What is it?"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(asked(&worker)[0]["content"], json!([text(told), picture(), text("What is it?")]));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_the_reason() {
    let (stub, worker) = start(&json!([said("user", &text(" "))]), &["--max-message-chars", "20"]).await;
    let call = json!({"type": "tool_use", "id": "1", "name": "s__t", "input": {}});
    let result = json!({"type": "tool_result", "tool_use_id": "1", "content": "done"});
    let gone = json!({"type": "image", "source": {"type": "url", "url": "http://a/b.png"}});
    for (path, body, told) in [
        ("/v1/prompt", json!({"name": "s__p"}), "there is nothing in it"),
        ("/v1/prompt", json!({"name": "gone__p"}), "there is no prompt gone__p"),
        ("/v1/prompt", json!({"name": "s__p", "arguments": []}), "the request: "),
        ("/v1/prompt", json!(["s__p"]), "must be a JSON object"),
        ("/v1/resource", json!({"uri": "a:b"}), "nothing for resources/read"),
        ("/v1/chat", json!({"with": [said("user", &json!([result]))]}), "with: message 0: "),
        ("/v1/chat", json!({"with": [said("user", &json!("a")), said("assistant", &json!([call]))]}), "with: message 1: "),
        ("/v1/chat", json!({"with": [said("user", &json!([gone]))]}), "base64"),
        ("/v1/chat", json!({"with": [said("user", &json!([text(" ")]))]}), "with: nothing is said"),
        ("/v1/chat", json!({"with": [said("user", &json!("eleven char"))], "message": "eleven char"}), "at most 20"),
        ("/v1/chat", json!({"with": [said("user", &json!("a\u{1b}[2J"))]}), "control character"),
    ] {
        let (status, problem) = post(&worker, path, body.clone()).await;
        assert_eq!(status, 422, "{path} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{path} {body}: {problem}");
    }
    stub.answers("prompts/get", json!({"no": "messages"}));
    assert_eq!(post(&worker, "/v1/prompt", json!({"name": "s__p"})).await.0, 502, "the server's fault");
    assert!(worker.model.standin.seen().is_empty(), "nothing of it was asked");
}

/// A request for a prompt of the `Talker`, as a stream.
async fn streamed(worker: &Worker, name: &str, arguments: Value) -> reqwest::Response {
    let request = worker.http.post(format!("{}/v1/prompt", worker.url)).header("accept", "text/event-stream");
    request.json(&json!({"name": name, "arguments": arguments})).send().await.unwrap()
}

#[tokio::test]
async fn meanwhile_its_progress_is_told_and_whoever_leaves_stops_it() {
    let talker = Talker::start().await;
    let mut entry = talker.entry("t");
    // The time of a request would end it, too.
    entry["timeout"] = json!(60);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let mut events = Events::of(streamed(&worker, "t__work", json!({})).await);
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push(event);
    }
    assert_eq!(told[..3], [json!({"text": "step 1"}), json!({"text": "step 2"}), json!({"text": "step 3"})]);
    assert_eq!(told.last().unwrap()["messages"], json!([said("user", &json!([text("worked")]))]));

    // A page that has to be opened first is told to whoever asked.
    let page = json!({"mode": "url", "elicitationId": "e", "url": "https://pay.example/x", "message": "Pay"});
    let error = json!({"error": {"code": -32042, "message": "pay first", "data": {"elicitations": [page]}}});
    let failed = Events::of(streamed(&worker, "t__follow", json!({"steps": [error]})).await).next().await.unwrap();
    assert_eq!(
        (&failed["status"], &failed["detail"]),
        (&json!(502), &json!("pay first; first open https://pay.example/x (Pay)"))
    );

    let left = streamed(&worker, "t__hang", json!({})).await;
    drop(left);
    let cancelled = async {
        while talker.heard("notifications/cancelled").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cancelled).await.expect("it is cancelled");
}

#[tokio::test]
async fn a_large_request_has_its_room_until_its_server_has_answered() {
    let talker = Talker::start().await;
    let mut entry = talker.entry("t");
    // The time of a request would end it, too.
    entry["timeout"] = json!(60);
    let worker = Worker::start(SCRIPT, &[entry], &[]).await;
    let body = format!(r#"{{"name": "t__hang", "arguments": {{"a": [{}]}}}}"#, vec!["{}"; 36_000].join(","));
    let ask = || {
        let request = worker.http.post(format!("{}/v1/prompt", worker.url)).header("content-type", "application/json");
        request.header("accept", "text/event-stream").body(body.clone()).send()
    };
    let (first, second) = (ask().await.unwrap(), ask().await.unwrap());
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let mut third = Box::pin(ask());
    assert!(timeout(Duration::from_millis(500), &mut third).await.is_err(), "there is room for two");
    drop(first);
    assert_eq!(timeout(Duration::from_secs(20), third).await.unwrap().unwrap().status(), StatusCode::OK);
}

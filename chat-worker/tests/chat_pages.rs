//! Pages that a client of /mcp was asked to open (elicitation by URL): that one is done is told to the session that was asked, also when its
//! call has long ended, and to nobody else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use rstest::rstest;
use serde_json::{Value, json};
use support::{
    Worker,
    client::{Events, Legacy},
    talker::{self, Talker},
};

const DONE: &str = "notifications/elicitation/complete";
/// The end of what is listened to: all who listen hear of it.
const LAST: &str = "notifications/prompts/list_changed";

async fn start() -> (Arc<Talker>, Worker) {
    let (talker, worker) = talker::start().await;
    talker.has_listener().await;
    (talker, worker)
}

fn page(id: &str) -> Value {
    json!({"mode": "url", "elicitationId": id, "url": format!("https://pay.example/{id}"), "message": "Pay"})
}

/// A call that is refused until these pages have been opened.
fn refused(ids: &[&str]) -> Value {
    let pages: Vec<Value> = ids.iter().copied().map(page).collect();
    json!([{"error": {"code": -32042, "message": "pay first", "data": {"elicitations": pages}}}])
}

fn accepted(_: &Value) -> Value {
    json!({"result": {"action": "accept"}})
}

/// The pages that a stream tells of until the end.
async fn done(events: &mut Events) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let message = events.next().await.unwrap();
        if message["method"] == LAST {
            return told;
        }
        assert_eq!(message["method"], DONE);
        told.push(message["params"].clone());
    }
}

#[rstest]
#[case::a_call("tools/call")]
#[case::a_prompt("prompts/get")]
#[tokio::test]
async fn after_a_refusal_the_session_that_got_it_is_told(#[case] method: &str) {
    let (talker, worker) = start().await;
    let one = Legacy::connect(&worker, json!({"elicitation": {"url": {}}})).await;
    let other = Legacy::connect(&worker, json!({"elicitation": {"url": {}}})).await;
    let params = json!({"name": "t__follow", "arguments": {"steps": refused(&["a", "b"])}});
    let answer = one.request(1, method, params, json!({})).await.next().await.unwrap();
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    let (mut hears, mut stranger) = (one.listen().await, other.listen().await);
    let mut nobody =
        Events::of(worker.http.get(format!("{}/mcp", worker.url)).header("accept", "text/event-stream").send().await.unwrap());
    for id in ["b", "of somebody else", "b"] {
        talker.tell_done(&json!({"elicitationId": id, "_meta": {"own": 12_345_678_901_234_567_i64}}));
    }
    assert_eq!(
        hears.next().await.unwrap(),
        json!({"jsonrpc": "2.0", "method": DONE, "params": {"elicitationId": "b", "_meta": {"own": 12_345_678_901_234_567_i64}}})
    );
    talker.tell(LAST);
    assert_eq!(done(&mut hears).await, [] as [Value; 0], "once");
    assert_eq!((done(&mut stranger).await.len(), done(&mut nobody).await.len()), (0, 0));
}

#[tokio::test]
async fn after_a_question_too_unless_its_call_has_told_it() {
    let (talker, worker) = start().await;
    let client = Legacy::connect(&worker, json!({"elicitation": {"url": {}}})).await;
    let mut hears = client.listen().await;
    let ask = |id: &str| json!({"ask": {"method": "elicitation/create", "params": page(id)}});
    let told = json!({"tell": {"method": DONE, "params": {"elicitationId": "a"}}});
    let of_call = client.follow(json!([ask("a"), ask("b"), told]), json!({}), accepted).await;
    assert_eq!(of_call.iter().filter(|message| message["method"] == DONE).count(), 1, "{of_call:?}");
    for id in ["a", "b"] {
        talker.tell_done(&json!({"elicitationId": id}));
    }
    assert_eq!(hears.next().await.unwrap()["params"], json!({"elicitationId": "b"}));
    talker.tell(LAST);
    assert_eq!(done(&mut hears).await, [] as [Value; 0]);
}

#[tokio::test]
async fn news_wait_for_their_session_until_it_ends() {
    let (talker, worker) = start().await;
    let (one, other) = (Legacy::connect(&worker, json!({})).await, Legacy::connect(&worker, json!({})).await);
    for client in [&one, &other] {
        client.follow(refused(&["a"]), json!({}), accepted).await;
    }
    let mut heard = one.listen().await;
    talker.tell_done(&json!({"elicitationId": "a"}));
    heard.next().await.unwrap();
    // The other one listens only now.
    let mut late = other.listen().await;
    assert_eq!(late.next().await.unwrap()["params"], json!({"elicitationId": "a"}));

    one.follow(refused(&["b"]), json!({}), accepted).await;
    let end = worker.http.delete(format!("{}/mcp", worker.url)).header("mcp-session-id", &one.session);
    assert_eq!(end.send().await.unwrap().status(), 204);
    talker.tell_done(&json!({"elicitationId": "b"}));
    talker.tell(LAST);
    assert_eq!(done(&mut heard).await, [] as [Value; 0], "its session has ended");
}

/// Refuses the first call until a page has been opened, and tells before it answers the second that it was.
const CHILD: &str = r#"
calls=0
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case "$line" in
    *'"notifications/'*) continue ;;
    *'"initialize"'*) answer='"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer='"result":{"tools":[{"name":"pay","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}' ;;
    *'"tools/call"'*)
        calls=$((calls + 1))
        answer='"error":{"code":-32042,"message":"pay first","data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://pay.example","message":"Pay"}]}}'
        if [ $calls -gt 1 ]; then
            echo '{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{"elicitationId":"e"}}'
            answer='"result":{"content":[]}'
        fi ;;
    *) answer='"error":{"code":-32601,"message":"no such method"}' ;;
    esac
    echo "{\"jsonrpc\":\"2.0\",\"id\":$id,$answer}"
done
"#;

#[tokio::test]
async fn a_server_on_standard_input_and_output_tells_it_while_another_client_calls() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("child.sh");
    std::fs::write(&script, CHILD).unwrap();
    let entry = json!({"name": "t", "command": "sh", "args": [script], "timeout": 5});
    let worker = Worker::start("otherwise: {text: 'Hello.'}", &[entry], &[]).await;
    worker.until("the child", |health| support::state(health, "t") == "up").await;
    let (one, other) = (Legacy::connect(&worker, json!({})).await, Legacy::connect(&worker, json!({})).await);
    assert_eq!(one.call(1, "pay", json!({})).await.next().await.unwrap()["error"]["code"], -32042);
    let mut hears = one.listen().await;
    let mut call = other.call(1, "pay", json!({})).await;
    assert_eq!(call.next().await.unwrap()["result"]["content"], json!([]), "it is not told of the page");
    assert_eq!(hears.next().await.unwrap()["params"], json!({"elicitationId": "e"}));
    worker.app.stop().await;
}

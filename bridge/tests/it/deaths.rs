//! Children that die, at each point of a call, and that do what no child should.

use std::time::Duration;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Bridge, alive, answer, child, text, tools_call, until};

const PATIENT: &str = "--max-deaths 0 --max-backoff-seconds 0";

#[rstest]
#[case("die", json!({"code": 3}), json!(3), Value::Null)]
#[case("kill", json!({}), Value::Null, json!("SIGKILL"))]
#[case("half", json!({}), json!(3), Value::Null)]
#[case("no-line-end", json!({"bytes": 10_000_000, "die": true}), json!(0), Value::Null)]
#[tokio::test]
async fn a_call_whose_child_dies_is_answered_at_once(
    #[case] tool: &str,
    #[case] arguments: Value,
    #[case] code: Value,
    #[case] signal: Value,
    #[values("legacy", "modern")] era: &str,
) {
    let bridge = Bridge::start(PATIENT, &child(era)).await;
    bridge.text(None, "echo", json!({})).await;
    let began = Instant::now();
    let died = bridge.call(None, tool, arguments).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(died["id"], "c");
    let data = &died["error"]["data"];
    assert_eq!((&data["reason"], &data["exitCode"], &data["signal"]), (&json!("ServerExited"), &code, &signal), "{died}");
    if tool == "die" {
        assert_eq!(data["stderr"], json!(["Cannot find module './x'"]));
        assert!(died["error"]["message"].as_str().unwrap().contains("Cannot find module './x'"));
    }
    // And the next one is answered by the next child.
    assert_eq!(bridge.text(None, "echo", json!({"a": 1})).await, json!({"a": 1}));
    assert_eq!(bridge.metric("bridge_child_restarts_total").await, 1);
}

#[tokio::test]
async fn an_answer_that_was_given_before_the_end_counts() {
    let bridge = Bridge::start(PATIENT, &child("legacy")).await;
    assert_eq!(bridge.text(None, "answer-and-die", json!({})).await, "last words");
    // What is written to it before its death is noticed goes to the next one: it has not read it.
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
    assert_eq!(bridge.text(None, "answer-without-end-and-die", json!({})).await, "last words");
}

#[tokio::test]
async fn all_calls_in_flight_are_answered_when_the_child_dies() {
    let bridge = Bridge::start(PATIENT, &child("legacy")).await;
    let calls = (0..30).map(|_| bridge.call(None, "never", json!({})));
    let calls = futures::future::join_all(calls);
    let death = async {
        until("thirty calls", async || (bridge.metric("bridge_calls_in_flight").await >= 30).then_some(())).await;
        bridge.call(None, "kill", json!({})).await
    };
    let (answers, _) = tokio::join!(calls, death);
    assert!(answers.iter().all(|answer| answer["error"]["data"]["reason"] == "ServerExited"), "{answers:?}");
    assert_eq!(bridge.metric("bridge_calls_in_flight").await, 0);
}

#[tokio::test]
async fn a_child_that_closes_its_output_and_lives_is_replaced() {
    let bridge = Bridge::start(PATIENT, &child("legacy")).await;
    let pid = bridge.text(None, "seen", json!({})).await["pid"].as_i64().unwrap();
    let died = bridge.call(None, "close-stdout", json!({})).await;
    assert!(died["error"]["message"].as_str().unwrap().contains("closed its standard output"), "{died}");
    assert_ne!(bridge.text(None, "seen", json!({})).await["pid"], pid);
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_child_that_never_reads_is_answered_for_and_nobody_is_blocked() {
    let bridge = Bridge::start_ready("--timeout-seconds 2", &child("legacy")).await;
    assert_eq!(bridge.text(None, "stop-reading", json!({})).await, "deaf");
    let large = tools_call("echo", json!({"a": "x".repeat(1 << 20)}));
    let calls = futures::future::join_all((0..12).map(|_| bridge.post(None, &large))).await;
    let mut refused = 0;
    for response in calls {
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(response.headers().contains_key("retry-after"));
            refused += 1;
        } else {
            assert_eq!(answer(response).await["error"]["data"]["reason"], "Timeout");
        }
    }
    assert!((1..=6).contains(&refused), "8 MiB of 12 wait: {refused} were refused");
    assert_eq!(bridge.request(reqwest::Method::GET, "/healthz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_child_that_says_nothing_any_more_is_replaced() {
    let bridge = Bridge::start_ready("--timeout-seconds 1 --restart-after-seconds 2", &child("legacy")).await;
    assert_eq!(bridge.text(None, "stop-reading", json!({})).await, "deaf");
    until("a child that hears", async || {
        let answer = bridge.call(None, "echo", json!({})).await;
        answer.get("result").map(|_| ())
    })
    .await;
    bridge.logged("it was asked, and said nothing at all").await;
}

/// Clients of 2026-07-28 cancel by hanging up, and probes do: no call of theirs ever waits all of its time.
#[rstest]
#[tokio::test]
async fn a_child_whose_callers_all_give_up_is_asked_by_us_and_replaced(#[values("legacy", "modern")] era: &str) {
    let bridge = Bridge::start_ready("--restart-after-seconds 2", &child(era)).await;
    assert_eq!(bridge.text(None, "stop-reading", json!({})).await, "deaf");
    let echo = json!({"name": "echo", "arguments": {}});
    until("a child that hears", async || {
        let call = bridge.modern(&json!(1), "tools/call", &echo).timeout(Duration::from_millis(300));
        call.send().await.ok().filter(|response| response.status() == StatusCode::OK).map(|_| ())
    })
    .await;
    bridge.logged("it was asked, and said nothing at all").await;
    assert_eq!(bridge.metric("bridge_child_restarts_total").await, 1);
}

#[tokio::test]
async fn a_child_that_owes_nobody_an_answer_may_be_silent() {
    let bridge = Bridge::start_ready("--restart-after-seconds 1", &child("modern")).await;
    let never = bridge.modern(&json!(1), "tools/call", &json!({"name": "never", "arguments": {}}));
    assert!(never.timeout(Duration::from_millis(300)).send().await.is_err(), "it hung up");
    // Time for it to be taken for wedged, and for the question that clears it.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bridge.metric("bridge_child_restarts_total").await, 0);
}

#[rstest]
#[tokio::test]
async fn who_comes_before_the_server_is_up_is_told_what_it_says_instead(#[values("", " --sessions per-session")] sessions: &str) {
    let html = ["sh", "-c", "echo; echo '<html>Bad Gateway</html>'; exec sleep 100"].map(str::to_owned);
    let bridge = Bridge::start(&format!("--hold-seconds 0{sessions}"), &html).await;
    bridge.logged("Bad Gateway").await;
    let begins = async || answer(bridge.post(None, &crate::support::initialize(json!({}))).await).await;
    let asks = async || answer(bridge.modern(&json!("init"), "server/discover", &json!({})).send().await.unwrap()).await;
    let quotes =
        |told: &Value| told["error"]["message"].as_str().unwrap().ends_with("no message of MCP, first: <html>Bad Gateway</html>");
    // One that is started for whoever asks may take a moment longer to say it.
    let early = [begins().await, until("its words", async || Some(asks().await).filter(quotes)).await];
    for told in early {
        assert_eq!((&told["id"], &told["error"]["data"]["reason"]), (&json!("init"), &json!("Starting")), "{told}");
        assert!(quotes(&told), "{told}");
    }
}

#[tokio::test]
async fn while_the_next_child_starts_it_is_told_how_the_last_one_ended_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let been = folder.path().join("been");
    let script =
        format!("[ -e {0} ] && exec sleep 100; touch {0}; echo \"Error: bad key: $API_KEY\" >&2; exit 3", been.display());
    let child = ["sh".to_owned(), "-c".to_owned(), script];
    let bridge = Bridge::start_with(&[("API_KEY", "s3cr3t-value")], "--hold-seconds 0 --max-backoff-seconds 0", &child).await;
    let words = until("the second child", async || {
        let told = answer(bridge.post(None, &crate::support::initialize(json!({}))).await).await;
        (told["error"]["data"]["reason"] == "Starting")
            .then(|| told["error"]["message"].as_str().unwrap().to_owned())
            .filter(|words| words.contains("started,"))
    })
    .await;
    let end = "the last time that it was started, the server ended: exit code 3; its last words: Error: bad key: $(API_KEY)";
    assert!(words.ends_with(end), "{words}");
}

#[tokio::test]
async fn a_server_that_complains_on_its_standard_output_alone_is_quoted() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let flags = format!("--termination-log {} --max-backoff-seconds 0", log.path().display());
    let usage = ["sh", "-c", "echo 'usage: server KEY'; exit 2"].map(str::to_owned);
    let mut bridge = Bridge::start(&flags, &usage).await;
    assert_eq!(bridge.ended().await.code(), Some(2));
    let words = std::fs::read_to_string(log.path()).unwrap();
    assert!(words.ends_with("the server ended: exit code 2; its last words: usage: server KEY"), "{words}");
}

#[tokio::test]
async fn a_child_that_answers_twice_or_for_others_misleads_nobody() {
    let bridge = Bridge::start("", &child("legacy")).await;
    assert_eq!(bridge.text(None, "twice", json!({})).await, "first");
    assert_eq!(bridge.text(None, "another-id", json!({})).await, "mine");
    assert_eq!(bridge.text(None, "as-string", json!({})).await, "string");
    assert_eq!(bridge.text(None, "batch", json!({})).await, "of several");
    assert_eq!(bridge.text(None, "stray", json!({})).await, "after");
    assert_eq!(bridge.metric("bridge_stray_lines_total").await, 3 + 4);
    bridge.logged("Server running on stdio").await;
}

#[tokio::test]
async fn long_lines_pass_and_too_long_ones_are_left_out() {
    let bridge = Bridge::start("", &child("legacy")).await;
    let long = bridge.text(None, "long", json!({"bytes": 10 << 20})).await;
    assert_eq!(long.as_str().map(str::len), Some(10 << 20));
    assert_eq!(bridge.text(None, "no-line-end", json!({"bytes": 20 << 20})).await, "after");
    let began = Instant::now();
    let too_long = bridge.call(None, "long", json!({"bytes": 17 << 20})).await;
    assert_eq!(too_long["error"]["data"]["reason"], "Unreadable", "{too_long}");
    assert!(began.elapsed() < Duration::from_secs(20), "its deadline is 30 s");
    let bytes = 12 << 20;
    let echoed = bridge.text(None, "echo", json!({"a": "y".repeat(bytes)})).await;
    assert_eq!(echoed["a"].as_str().map(str::len), Some(bytes));
}

#[tokio::test]
async fn who_cannot_wait_for_the_next_child_is_told_when_it_comes_and_that_nothing_was_sent() {
    let bridge = Bridge::start("--max-deaths 0 --timeout-seconds 1", &child("legacy")).await;
    // At once, after one second, after two.
    for _ in 0..3 {
        until("a child", async || {
            let ready = bridge.request(reqwest::Method::GET, "/readyz").send().await.unwrap();
            (ready.status() == StatusCode::OK).then_some(())
        })
        .await;
        assert_eq!(bridge.call(None, "die", json!({"code": 3})).await["error"]["data"]["reason"], "ServerExited");
    }
    let refused = bridge.post(None, &tools_call("echo", json!({}))).await;
    assert_eq!((refused.status(), &refused.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"2".parse().unwrap()));
    let told = answer(refused).await;
    assert_eq!((&told["id"], &told["error"]["data"]["reason"]), (&json!("c"), &json!("NotSent")), "{told}");
    let words = told["error"]["message"].as_str().unwrap();
    assert!(words.starts_with("the call was not sent: the server ended: exit code 3"), "{words}");
}

#[tokio::test]
async fn what_a_child_started_ends_with_it() {
    let bridge = Bridge::start(PATIENT, &child("legacy")).await;
    let started: Vec<i64> = serde_json::from_value(bridge.text(None, "fork", json!({})).await).unwrap();
    assert!(started.iter().all(|pid| alive(*pid)) && started.len() == 8);
    bridge.call(None, "kill", json!({})).await;
    bridge.text(None, "echo", json!({})).await;
    until("the end of all of them", async || (!started.iter().any(|pid| alive(*pid))).then_some(())).await;
}

#[tokio::test]
async fn what_the_child_of_one_session_started_ends_with_it_and_not_what_anothers_did() {
    let bridge = Bridge::start("--sessions per-session", &child("legacy")).await;
    let sessions = [bridge.initialize(json!({})).await, bridge.initialize(json!({})).await];
    let mut started: Vec<Vec<i64>> = Vec::new();
    for session in &sessions {
        started.push(serde_json::from_value(bridge.text(Some(session), "fork", json!({})).await).unwrap());
    }
    bridge.call(Some(&sessions[0]), "kill", json!({})).await;
    // Whose those are that forgot their environment nobody knows, as long as a child lives that may have started them.
    until("the end of what is known to be of it", async || (!started[0][..5].iter().any(|pid| alive(*pid))).then_some(())).await;
    assert!(started[1].iter().all(|pid| alive(*pid)));
    assert_eq!(bridge.stop().await.code(), Some(0));
    until("the end of all", async || (!started.concat().iter().any(|pid| alive(*pid))).then_some(())).await;
}

#[tokio::test]
async fn no_zombie_stays() {
    let bridge = Bridge::start("", &child("legacy")).await;
    bridge.text(None, "zombies", json!({})).await;
    let zombies = || {
        let processes =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
        let ours = format!(") Z {} ", bridge.process.id());
        processes.filter(|stat| stat.contains(&ours)).count()
    };
    until("no zombie", async || (zombies() == 0).then_some(())).await;
}

#[rstest]
#[tokio::test]
async fn a_child_that_ends_at_a_method_that_it_does_not_know_is_asked_otherwise(#[values("", "slower-start")] slow: &str) {
    let bridge = Bridge::start("", &child(&format!("legacy die-at-discover {slow}"))).await;
    assert_eq!(bridge.text(None, "echo", json!({"a": 1})).await, json!({"a": 1}));
    assert_eq!(bridge.metric("bridge_child_restarts_total").await, 1);
    bridge.call(None, "kill", json!({})).await;
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
    assert_eq!(bridge.metric("bridge_child_restarts_total").await, 2, "it is known now");
}

#[tokio::test]
async fn so_is_a_child_of_one_session() {
    let bridge = Bridge::start("--sessions per-session", &child("legacy die-at-discover")).await;
    bridge.logged("another one is started").await;
    until("a child", async || {
        (bridge.request(reqwest::Method::GET, "/readyz").send().await.unwrap().status() == StatusCode::OK).then_some(())
    })
    .await;
    let session = bridge.initialize(json!({})).await;
    assert_eq!(bridge.text(Some(&session), "echo", json!({"a": 1})).await, json!({"a": 1}));
    assert_eq!(bridge.metric("bridge_child_restarts_total").await, 1);
    bridge.call(Some(&session), "kill", json!({})).await;
    until("a death that is counted", async || (bridge.metric("bridge_child_restarts_total").await == 2).then_some(())).await;
}

#[tokio::test]
async fn five_deaths_end_the_bridge_with_the_childs_code_and_its_last_words() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let flags = format!("--termination-log {} --max-backoff-seconds 0", log.path().display());
    let mut bridge = Bridge::start(&flags, &child("legacy die-at-start")).await;
    assert_eq!(bridge.ended().await.code(), Some(1));
    let words = std::fs::read_to_string(log.path()).unwrap();
    let said = "Error: the database is not there";
    assert_eq!(words, format!("{said}\nthe server ended: exit code 1; its last words: {said}"));
}

#[tokio::test]
async fn a_program_that_is_not_there_ends_the_bridge_at_once() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let flags = format!("--termination-log {}", log.path().display());
    let mut bridge = Bridge::start(&flags, &["no-such-server".to_owned()]).await;
    assert_eq!(bridge.ended().await.code(), Some(127));
    let words = std::fs::read_to_string(log.path()).unwrap();
    assert!(words.contains("no-such-server could not be started"), "{words}");
}

#[tokio::test]
async fn a_call_that_was_not_read_goes_to_the_next_child() {
    let bridge = Bridge::start(PATIENT, &child("legacy")).await;
    assert_eq!(bridge.text(None, "stop-reading", json!({})).await, "deaf");
    let pid = until("its process", async || {
        let line = bridge.log.lock().unwrap().iter().find(|line| line.contains("child started")).cloned()?;
        serde_json::from_str::<Value>(&line).unwrap()["pid"].as_i64()
    })
    .await;
    // The first fills the pipe, so that the second is not written at all; but nobody has read of it.
    let first = bridge.call(None, "echo", json!({"a": "x".repeat(1 << 20)}));
    let second = async {
        until("the first", async || (bridge.metric("bridge_calls_in_flight").await >= 1).then_some(())).await;
        bridge.call(None, "echo", json!({"b": 2})).await
    };
    let kill = async {
        until("both", async || (bridge.metric("bridge_calls_in_flight").await >= 2).then_some(())).await;
        std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    };
    let (first, second, ()) = tokio::join!(first, second, kill);
    assert_eq!(text(&first)["a"].as_str().map(str::len), Some(1 << 20));
    assert_eq!(text(&second), json!({"b": 2}));
}

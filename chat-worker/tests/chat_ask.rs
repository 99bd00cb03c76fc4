//! One question from a script: the program as it is started by people, what it writes where, and how it ends.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Stdio;

use model_standin::Running as Model;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

const SCRIPT: &str = "otherwise: {text: 'A **plain** answer.'}";

/// The program in a directory of its own, with a configuration without servers.
fn program(model: &Model, directory: &TempDir) -> Command {
    std::fs::write(directory.path().join("mcp.json"), r#"{"servers": []}"#).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-worker"));
    command
        .env_clear()
        .env("ANTHROPIC_BASE_URL", model.url())
        .env("OPENAI_BASE_URL", format!("{}/v1", model.url()))
        .env("MCP_CONFIG_PATH", directory.path().join("mcp.json"))
        .env("LOG_FILE", "-")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// How it ended, and what it wrote to standard output and to standard error.
async fn run(model: &Model, args: &[&str], environment: &[(&str, &str)], input: &str) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut child = program(model, &directory).args(args).envs(environment.iter().copied()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_question_on_standard_input_is_answered_as_plain_text() {
    let model = Model::start(SCRIPT).await.unwrap();
    let (code, stdout, stderr) = run(&model, &["ask", "-"], &[], "What is it?\nIn two lines.\n").await;
    assert_eq!((code, stdout.trim(), stderr.as_str()), (0, "A **plain** answer.", ""));
    let seen = model.standin.seen();
    assert!(seen[0].body.to_string().contains(r"What is it?\nIn two lines."), "{:?}", seen[0].body);
}

#[tokio::test]
async fn the_short_form_with_json_prints_one_object_over_both_apis() {
    let apis: [&[(&str, &str)]; 2] = [&[], &[("CHAT_MODEL_API", "openai"), ("CHAT_MODEL", "any")]];
    for environment in apis {
        let model = Model::start(SCRIPT).await.unwrap();
        let (code, stdout, stderr) = run(&model, &["-p", "What is it?", "--json"], environment, "").await;
        assert_eq!((code, stderr.as_str()), (0, ""));
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&answer["answer"], &answer["outcome"]), (&json!("A **plain** answer."), &json!("complete")));
        assert_eq!((answer["messages"].as_array().map(Vec::len), &answer["tool_calls"]), (Some(2), &json!([])));
    }
}

#[tokio::test]
async fn what_cannot_be_answered_or_begun_is_told_by_the_code_and_in_words() {
    let model = Model::start(SCRIPT).await.unwrap();
    let wrong = [("CHAT_MODEL_API", "openai"), ("CHAT_MODEL", "any"), ("OPENAI_BASE_URL", &model.url() as &str)];
    let (code, stdout, _) = run(&model, &["ask", "hello", "--json"], &wrong, "").await;
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["outcome"]), (1, &json!("error")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("404"), "{answer}");
    let (code, stdout, stderr) = run(&model, &["ask", "-"], &[], " \n").await;
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.starts_with("chat-worker: ") && stderr.contains("empty"), "{stderr}");
    let (code, _, stderr) = run(&model, &["ask", "hello"], &[("CHAT_MODEL_API", "openai")], "").await;
    assert!(code == 2 && stderr.contains("CHAT_MODEL must name the model"), "{code}: {stderr}");
}

#[tokio::test]
async fn what_is_no_part_of_the_answer_is_told_on_standard_error() {
    let script = |fault: &str| {
        format!("rules: [{{name: r, steps: [{{fault: {fault}, text: 'The whole answer.'}}]}}]\notherwise: {{text: x}}\n")
    };
    let model = Model::start(&script("{status: 400, type: invalid_request_error}")).await.unwrap();
    let (code, stdout, stderr) = run(&model, &["ask", "hello"], &[], "").await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("✗ the model API answered 400"), "{stderr}");
    let model = Model::start(&script("{stream: truncated, times: 1}")).await.unwrap();
    let (code, stdout, stderr) = run(&model, &["ask", "hello"], &[], "").await;
    assert!(code == 0 && stdout.ends_with("The whole answer.\n") && !stdout.contains('…'), "{stdout}");
    assert!(stderr.starts_with('…') && stderr.contains("beginning the answer again"), "{stderr}");
}

#[tokio::test]
async fn an_end_that_is_not_the_usual_one_is_told_in_words() {
    for (stop, told) in [("max_tokens", "The answer is cut off."), ("refusal", "The model declined; the question is taken back.")]
    {
        let model = Model::start(&format!("otherwise: {{text: 'The first half.', stop: {stop}}}")).await.unwrap();
        let (code, _, stderr) = run(&model, &["ask", "hello"], &[], "").await;
        assert_eq!((code, stderr.trim()), (1, told));
        let (_, stdout, _) = run(&model, &["ask", "hello", "--json"], &[], "").await;
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        let notice = answer["notices"][0].as_str().unwrap();
        assert!(notice.to_lowercase().contains(&told.to_lowercase()), "{answer}");
    }
}

#[tokio::test]
async fn a_question_beside_a_command_is_refused() {
    let model = Model::start(SCRIPT).await.unwrap();
    for args in [&["-p", "why?", "serve"][..], &["-p", "why?", "ask", "what?"], &["-p", "why?", "config", "check"]] {
        let (code, stdout, stderr) = run(&model, args, &[], "").await;
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        assert!(stderr.contains("-p") && stderr.contains("leave out"), "{args:?}: {stderr}");
    }
    assert!(model.standin.seen().is_empty(), "nothing was asked");
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_fault_and_an_answer_that_cannot_be_written_is_one() {
    let model = Model::start(SCRIPT).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    for args in [&["ask", "hello", "--json"][..], &["ask", "hello"]] {
        let mut command = program(&model, &directory);
        let mut child = command.args(args).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{args:?}");

        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = program(&model, &directory).args(args).stdout(full).spawn().unwrap();
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("could not be written"), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn ctrl_c_stops_the_answer_and_the_code_says_so() {
    let model = Model::start("otherwise: {text: 'one two three', chunk_delay_ms: 2000}").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut child = program(&model, &directory).args(["ask", "hello"]).spawn().unwrap();
    // Its first word is here: the answer is under way.
    child.stdout.as_mut().unwrap().read_u8().await.unwrap();
    let process = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(process, Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).trim()), (Some(130), "Stopped."));
}

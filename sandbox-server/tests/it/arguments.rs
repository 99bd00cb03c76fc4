//! The forms in which clients and models send arguments: each is taken, or refused with a sentence by which a model mends its call, and
//! the short way, the SDK's, and standard input say the same.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::support::{BINARY, Server};

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, v); INSERT INTO item VALUES (1, 'one', NULL), (2, 'two', NULL), (3, 'three', NULL)";

/// The order in Accept decides which way a request goes, and means nothing to either.
const WAYS: [&str; 2] = ["application/json, text/event-stream", "text/event-stream, application/json"];

enum Answer {
    /// The rows, as JSON.
    Rows(&'static str),
    /// It works; what it gives is another test's.
    Done,
    /// An error of the tool, with these words in its text.
    Sentence(&'static str),
}

use Answer::{Done, Rows, Sentence};

const READ: &str = "read_query";

/// Words of the JSON reader and of Rust, which no model can do anything with.
const JARGON: [&str; 12] = [
    "serde",
    "untagged",
    "variant",
    "unknown field",
    "missing field",
    "invalid type",
    "expected",
    "deserialize",
    "at line 1",
    "EOF",
    "u32",
    "i64",
];

/// The tool, the arguments as they stand in the request, and the answer.
#[allow(clippy::too_many_lines, reason = "a table is as long as it is")]
fn forms() -> Vec<(&'static str, String, Answer)> {
    let object = "the arguments of read_query must be an object such as {\"query\": \"…\"}, not";
    let mut forms: Vec<(&'static str, &'static str, Answer)> = vec![
        // The arguments as a whole.
        (READ, r#"{"query": "SELECT 1"}"#, Rows("[[1]]")),
        (READ, r#""{\"query\":\"SELECT 1\"}""#, Rows("[[1]]")),
        (READ, r#"" {\"query\": \"SELECT ?\", \"params\": [2]} ""#, Rows("[[2]]")),
        (READ, r#""SELECT 1""#, Sentence("not a string")),
        (READ, r#""{\"query\":""#, Sentence("not a string")),
        (READ, "[1]", Sentence("not an array")),
        (READ, r#"["SELECT 1", null, null, null]"#, Sentence("not an array")),
        (READ, "5", Sentence("not a number")),
        (READ, "true", Sentence("not a boolean")),
        (READ, "null", Sentence("read_query needs \"query\", a string with one SQL statement")),
        (READ, "{}", Sentence("read_query needs \"query\"")),
        (READ, "[]", Sentence("read_query needs \"query\"")),
        (READ, r#""""#, Sentence("read_query needs \"query\"")),
        ("list_tables", "{}", Done),
        ("list_tables", "[]", Done),
        ("list_tables", "null", Done),
        ("list_tables", r#""""#, Done),
        ("list_tables", r#""{}""#, Done),
        ("list_tables", r#"{"random_string": ""}"#, Done),
        // The statement.
        (READ, r#"{"query": 1}"#, Sentence("\"query\" must be a string with one SQL statement, not a number")),
        (READ, r#"{"query": null}"#, Sentence("read_query needs \"query\"")),
        (READ, r#"{"query": ["SELECT 1"]}"#, Sentence("not an array")),
        (READ, r#"{"query": {"sql": "SELECT 1"}}"#, Sentence("not an object")),
        (READ, r#"{"query": ""}"#, Sentence("the SQL is empty")),
        (READ, r#"{"sql": "SELECT 1"}"#, Sentence("it has no argument \"sql\"")),
        (READ, r#"{"query": "SELECT 2", "query": "SELECT 1"}"#, Rows("[[1]]")),
        (READ, r#"{"qu\u0065ry": "SELECT '\u00e4\ud83d\ude00'"}"#, Rows(r#"[["ä😀"]]"#)),
        (READ, r#"{"query": "SELECT 'cut \ud83d'"}"#, Rows("[[\"cut \u{fffd}\"]]")),
        // What clients add.
        (READ, r#"{"query": "SELECT 1", "toolCallId": "call_1", "task_progress": "half"}"#, Rows("[[1]]")),
        ("describe_table", r#"{"table_name": "item", "toolCallId": {"a": []}}"#, Done),
        ("search_schema", r#"{"text": "na", "task_progress": null}"#, Done),
        ("explain_query", r#"{"query": "SELECT 1", "_meta": {}}"#, Done),
        ("create_table", r#"{"query": "CREATE TABLE IF NOT EXISTS item (id)", "toolCallId": "1"}"#, Done),
        ("append_insight", r#"{"insight": "x", "toolCallId": "1"}"#, Done),
        ("write_query", r#"{"query": "UPDATE item SET v = 1 WHERE id = 9", "requires_approval": false}"#, Done),
        ("execute_sql_query", r#"{"query": "SELECT 1", "toolCallId": "1"}"#, Rows("[[1]]")),
        // Other spellings of the names.
        (READ, r#"{"Query": "SELECT id FROM item", "maxRows": 1}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT id FROM item", "max-rows": "1", "toolCallId": 5}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT id FROM item", "maxRows": 2, "max_rows": 1, "MaxRows": 3}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT ?", "parameters": [1]}"#, Rows("[[1]]")),
        ("describe_table", r#"{"tableName": "item"}"#, Done),
        ("describe_table", r#"{"table_name": " main.\"item\" "}"#, Done),
        ("write_batch", r#"{"statements": "[\"SELECT 1\"]"}"#, Done),
        ("write_batch", r#"{"statements": [{"query": "SELECT ?", "parameters": [1]}]}"#, Done),
        ("write_batch", r#"{"queries": ["SELECT 1"]}"#, Sentence("it has no argument \"queries\"")),
        ("write_batch", r#"["SELECT 1"]"#, Sentence("such as {\"statements\": [{\"query\": \"…\"}]}, not an array")),
        (READ, r#"{"query": "SELECT hex(?)", "params": [{"$blob": "-_8="}]}"#, Rows(r#"[["FBFF"]]"#)),
        // What may be left out.
        (READ, r#"{"query": "SELECT 1", "params": null, "max_rows": null, "cursor": null}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "params": "", "max_rows": "", "cursor": ""}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "params": [], "cursor": " "}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "params": {}}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "params": "[]"}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "params": "null"}"#, Rows("[[1]]")),
        ("write_query", r#"{"query": "UPDATE item SET v = 1 WHERE id = 9", "params": ""}"#, Done),
        (
            READ,
            r#"{"query": "SELECT 1", "cursor": 5}"#,
            Sentence("\"cursor\" must be a string with the next_cursor of the page before, not a number"),
        ),
        // Numbers.
        (READ, r#"{"query": "SELECT id FROM item", "max_rows": 1}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT id FROM item", "max_rows": 1.0}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT id FROM item", "max_rows": 1e0}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT id FROM item", "max_rows": "1"}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT id FROM item", "max_rows": "1.0"}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "max_rows": 99999999999}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT 1", "max_rows": 0}"#, Sentence("\"max_rows\" must be a whole number of at least 1")),
        (READ, r#"{"query": "SELECT 1", "max_rows": -1}"#, Sentence("not -1")),
        (READ, r#"{"query": "SELECT 1", "max_rows": 1.5}"#, Sentence("not 1.5")),
        (READ, r#"{"query": "SELECT 1", "max_rows": "many"}"#, Sentence("not \"many\"")),
        (READ, r#"{"query": "SELECT 1", "max_rows": [5]}"#, Sentence("not [5]")),
        // Values.
        (READ, r#"{"query": "SELECT ?, ?", "params": "[1, \"a\"]"}"#, Rows(r#"[[1, "a"]]"#)),
        (READ, r#"{"query": "SELECT :a", "params": "{\"a\":1}"}"#, Rows("[[1]]")),
        (READ, r#"{"query": "SELECT :a", "params": {"a": 2, "a": 1}}"#, Rows("[[1]]")),
        (
            READ,
            r#"{"query": "SELECT ?", "params": "abc"}"#,
            Sentence("\"params\" must be an array of values for ?, or an object of values for :name, not a string"),
        ),
        (READ, r#"{"query": "SELECT ?", "params": 5}"#, Sentence("not a number")),
        (READ, r#"{"query": "SELECT ?", "params": [[1]]}"#, Sentence("parameter 1: an array is no SQL value")),
        (READ, r#"{"query": "SELECT ?", "params": [{"a": 1}]}"#, Sentence("parameter 1: an object is no SQL value")),
        (READ, r#"{"query": "SELECT ?", "params": ["[1]"]}"#, Rows(r#"[["[1]"]]"#)),
        (READ, r#"{"query": "SELECT ?, typeof(?1)", "params": [5.0]}"#, Rows(r#"[[5.0, "real"]]"#)),
        (READ, r#"{"query": "SELECT ?, ?", "params": [true, null]}"#, Rows("[[1, null]]")),
        (READ, r#"{"query": "SELECT ?", "params": ["cut \ud83d"]}"#, Rows("[[\"cut \u{fffd}\"]]")),
        (READ, r#"{"query": "SELECT ?", "params": []}"#, Sentence("1 placeholder(s), but no params were given")),
        // Integers, in and out.
        (
            READ,
            r#"{"query": "SELECT ?, typeof(?1)", "params": [{"$int": "9007199254740993"}]}"#,
            Rows(r#"[["9007199254740993", "integer"]]"#),
        ),
        (READ, r#"{"query": "SELECT ?", "params": [{"$int": "-9223372036854775808"}]}"#, Rows(r#"[["-9223372036854775808"]]"#)),
        (READ, r#"{"query": "SELECT ?", "params": [9223372036854775807]}"#, Rows(r#"[["9223372036854775807"]]"#)),
        (READ, r#"{"query": "SELECT ?", "params": [{"$int": "9223372036854775808"}]}"#, Sentence("$int takes a whole number")),
        (READ, r#"{"query": "SELECT ?", "params": [18446744073709551615]}"#, Sentence("does not fit into 64 bits")),
        (READ, r#"{"query": "SELECT ?", "params": [18446744073709551616]}"#, Sentence("does not fit into 64 bits")),
        (READ, r#"{"query": "SELECT ?", "params": [-9223372036854775809]}"#, Sentence("does not fit into 64 bits")),
        (READ, r#"{"query": "SELECT ?, typeof(?1)", "params": [1e400]}"#, Rows(r#"[["Infinity", "real"]]"#)),
        (READ, r#"{"query": "SELECT ?, typeof(?1)", "params": [-1e400]}"#, Rows(r#"[["-Infinity", "real"]]"#)),
        // Other tools' texts.
        (
            "describe_table",
            r#"{"table": "item"}"#,
            Sentence(
                "describe_table needs \"table_name\", a string with the name of a table or view; it has no argument \"table\"",
            ),
        ),
        ("describe_table", r#"{"table_name": 5}"#, Sentence("\"table_name\" must be a string")),
        ("search_schema", r#"{"text": ["na"]}"#, Sentence("\"text\" must be a string")),
        ("append_insight", "{}", Sentence("append_insight needs \"insight\"")),
        ("append_insight", r#"{"insight": " "}"#, Sentence("the insight is empty")),
        (
            "create_table",
            "[5]",
            Sentence("the arguments of create_table must be an object such as {\"query\": \"…\"}, not an array"),
        ),
        ("write_query", r#"{"query": "UPDATE item SET v = ?", "params": [{"b": []}]}"#, Sentence("an object is no SQL value")),
        ("execute_sql_query", r#"{"statement": "SELECT 1"}"#, Sentence("execute_sql_query needs \"query\"")),
    ];
    forms.push((READ, "\"5\"", Sentence("not a string")));
    let mut forms: Vec<_> = forms.into_iter().map(|(tool, sent, answer)| (tool, sent.to_owned(), answer)).collect();
    forms.push((READ, "[[".repeat(300) + &"]]".repeat(300), Sentence(object)));
    forms
}

fn body(tool: &str, arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#)
}

fn judge(tool: &str, sent: &str, answer: &Answer, got: &Value) {
    let shown = || format!("{tool} {}\n{got}", &sent[..sent.len().min(200)]);
    let result = &got["result"];
    assert!(result.is_object(), "{}", shown());
    let text = result["content"][0]["text"].as_str().unwrap();
    match answer {
        Done => assert_eq!(result["isError"], json!(false), "{}", shown()),
        Rows(rows) => {
            let rows: Value = serde_json::from_str(rows).unwrap();
            assert_eq!(result["structuredContent"]["rows"], rows, "{}", shown());
        }
        Sentence(part) => {
            assert_eq!(result["isError"], json!(true), "{}", shown());
            assert!(text.contains(part), "{}", shown());
            assert!(JARGON.iter().all(|word| !text.contains(word)), "{}", shown());
        }
    }
}

#[tokio::test]
async fn every_form_is_taken_or_refused_with_a_sentence_on_both_ways() {
    let server = Server::start(SCHEMA, &[]);
    let forms = forms();
    assert!(forms.len() >= 54, "{}", forms.len());
    for (tool, sent, expected) in &forms {
        let mut answers = Vec::new();
        for accept in WAYS {
            let request =
                server.request(reqwest::Method::POST, "/mcp").header(ACCEPT, accept).header(CONTENT_TYPE, "application/json");
            let response = request.body(body(tool, sent)).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{tool} {sent}");
            answers.push(response.text().await.unwrap());
        }
        assert_eq!(answers[0], answers[1], "{tool} {sent}");
        judge(tool, sent, expected, &serde_json::from_str(&answers[0]).unwrap());
    }
}

#[test]
fn every_form_is_taken_or_refused_on_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::database(folder.path()).execute_batch(SCHEMA).unwrap();
    let mut child = Command::new(BINARY)
        .args(["stdio", "--db"])
        .arg(folder.path().join("test.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut exchange = |message: &str| {
        writeln!(input, "{message}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    exchange(
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    );
    for (tool, sent, expected) in forms() {
        judge(tool, &sent, &expected, &exchange(&body(tool, &sent)));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_call_of_a_wrong_shape_is_no_unknown_method() {
    let server = Server::start(SCHEMA, &[]);
    for params in [
        "",
        r#","params":null"#,
        r#","params":[]"#,
        r#","params":{}"#,
        r#","params":{"name":5}"#,
        r#","params":{"arguments":{}}"#,
    ] {
        for accept in WAYS {
            let request =
                server.request(reqwest::Method::POST, "/mcp").header(ACCEPT, accept).header(CONTENT_TYPE, "application/json");
            let sent = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#);
            let answer: Value = request.body(sent.clone()).send().await.unwrap().json().await.unwrap();
            assert_ne!(answer["error"]["code"], json!(-32601), "{sent} {answer}");
            assert!(answer["error"]["message"].is_string(), "{sent} {answer}");
        }
    }
}

/// The body is refused, or read, without becoming many times its size.
#[tokio::test]
async fn bombs_in_the_arguments_cost_little_memory() {
    let server = Server::start(SCHEMA, &[]);
    let before = server.peak_memory_mib();
    let list = |item: &str| format!("[{}]", vec![item; (2 << 20) / (item.len() + 1) - 200].join(","));
    let bombs = [
        (READ, format!(r#"{{"query":"SELECT 1","params":{}}}"#, list(r#"{"a":1}"#))),
        (READ, format!(r#"{{"query":"SELECT 1","params":{}}}"#, list("1"))),
        (READ, format!(r#"{{"query":"SELECT 1","params":{}}}"#, list("[]"))),
        (READ, format!(r#"{{"query":"SELECT 1","params":{}}}"#, "[".repeat((1 << 20) - 200) + &"]".repeat((1 << 20) - 200))),
        ("describe_table", format!(r#"{{"table_name":"item","unknown":{}}}"#, list(r#"{"a":[]}"#))),
        ("describe_table", format!(r#"{{"unknown":{}}}"#, list(r#"{"a":[]}"#))),
        ("list_tables", list(r#"{"a":1}"#)),
    ];
    for (tool, sent) in &bombs {
        let calls = (0..2).map(|index| {
            let request = server
                .request(reqwest::Method::POST, "/mcp")
                .header(ACCEPT, WAYS[index])
                .header(CONTENT_TYPE, "application/json")
                .body(body(tool, sent));
            tokio::spawn(async move { request.send().await.unwrap().json::<Value>().await.unwrap() })
        });
        for call in calls.collect::<Vec<_>>() {
            let answer = call.await.unwrap();
            assert!(answer["result"]["content"].is_array(), "{answer}");
        }
    }
    // Two bodies of 2 MiB at once, one of them wrapped for the SDK.
    let grown = server.peak_memory_mib() - before;
    assert!(grown < 64, "{grown} MiB");
}

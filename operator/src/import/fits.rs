//! Tests: what the API server and kubectl must take as it is meant: texts in YAML, headers, addresses, times.

use serde_json::{Value, json};

use super::never::{all, import, npx, spec};

#[test]
fn every_text_is_a_text_in_yaml_1_1() {
    let words = [
        "y",
        "Y",
        "n",
        "N",
        "yes",
        "No",
        "on",
        "OFF",
        "true",
        "False",
        "null",
        "~",
        "",
        "1",
        "1_000",
        "1:30",
        "12:30:45",
        "0x1f",
        "0b1",
        "0o7",
        "017",
        "1e3",
        "-1",
        "+1",
        ".5",
        "-.5",
        ".inf",
        "-.INF",
        ".NaN",
        "2026-11-29",
        "2026-11-29T18:00:00Z",
        "=",
        "<<",
        "-",
        "---",
        "...",
        "a: b",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "[a]",
        "{a}",
        "a,b",
        "'",
        "\"",
        " a",
        "a ",
        "a\nb",
        "a\tb",
        "a\u{7f}b",
        "a\u{85}b",
        "a\u{2028}b",
        "\u{feff}a",
        "日本",
        "?",
        "? a",
        ":a",
        "a:",
    ];
    let env: serde_json::Map<_, _> = words.iter().enumerate().map(|(at, word)| (format!("V{at}"), json!(word))).collect();
    let server = json!({"command": "npx", "args": ([&["-y", "a@1.0.0"], &words[..]].concat()), "env": env});
    let (documents, _) = all(&server);
    let spec = spec(&server);
    assert_eq!(spec["stdio"]["args"], json!(([&["-y", "a@1.0.0"], &words[..]].concat())));
    for (at, word) in words.iter().enumerate() {
        assert!(spec["env"].as_array().expect("a list").contains(&json!({"name": format!("V{at}"), "value": word})), "{word:?}");
    }
    for word in &words[..40] {
        assert!(
            !documents.lines().any(|line| line.ends_with(&format!(": {word}")) || line.ends_with(&format!("- {word}"))),
            "{word:?}"
        );
    }
    assert!(!documents.contains(['\u{7f}', '\u{85}', '\u{2028}', '\u{feff}']));
    for (name, quoted) in [("y", "  name: 'y'\n"), ("NO", "  name: 'no'\n"), ("on", "  name: 'on'\n")] {
        let documents = import(&json!({"mcpServers": {name: npx(&[])}}).to_string()).documents;
        assert!(documents.contains(quoted), "{documents}");
    }
    let (documents, _) = all(&json!({"command": "uvx", "args": ["--from", "a==1", "y"], "env": {"N": "on"}}));
    for quoted in ["- 'y'\n", "name: 'N'\n", "value: 'on'\n"] {
        assert!(documents.contains(quoted), "{documents}");
    }
}

#[test]
fn a_comment_stays_one_whatever_breaks_lines() {
    for line_break in ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"] {
        let text = json!({"mcpServers": {"s": npx(&[&format!("/home/me{line_break}kind: Pod")])}});
        let imported = import(&text.to_string());
        assert!(imported.documents.lines().filter(|line| line.starts_with('#')).all(|line| !line.contains(line_break)));
        assert!(imported.notes.iter().all(|note| !note.contains(line_break)), "{:?}", imported.notes);
    }
}

#[test]
fn headers_that_the_api_refuses_are_left_out_and_told() {
    let server = json!({"url": "https://h/mcp", "headers": {
        "Accept": "*/*", "Host": "h", "Content-Type": "application/json", "Mcp-Session-Id": "a", "mcp-name": "a", "Bad Name": "a",
        "X-Key": "a", "x-key": "b", "Authorization": "Bearer a",
    }});
    let names: Vec<_> =
        spec(&server)["remote"]["headersFrom"].as_array().expect("a list").iter().map(|header| header["name"].clone()).collect();
    assert_eq!(names, ["Authorization", "X-Key"]);
    let (documents, notes) = all(&server);
    for name in ["Accept", "Host", "Content-Type", "Mcp-Session-Id", "mcp-name", "Bad Name", "x-key"] {
        assert!(notes.contains(&format!("header {name}: ")), "{notes}");
        assert!(!documents.contains(&format!("--from-literal={name}=")), "{documents}");
    }
}

#[test]
fn an_address_of_this_machine_is_nothing_elsewhere() {
    for url in [
        "http://localhost:3000/mcp",
        "http://LOCALHOST/mcp",
        "http://127.0.0.1:3000/mcp",
        "http://127.1.2.3/mcp",
        "http://[::1]:8080/mcp",
        "http://0.0.0.0:8080/mcp",
        "http://host.docker.internal:3000/mcp",
        "http://a.localhost/mcp",
    ] {
        for server in [json!({"url": url}), json!({"command": "npx", "args": ["-y", "mcp-remote", url]})] {
            let (documents, notes) = all(&server);
            assert!(!documents.contains("kind: McpServer"), "{documents}");
            assert!(notes.starts_with("s: no manifest: its url leads to this machine"), "{notes}");
        }
    }
    let (documents, notes) = all(&npx(&["--db-url", "bolt://localhost:7687"]));
    assert!(documents.contains("- bolt://localhost:7687\n") && notes.contains("leads to the pod itself"), "{documents}{notes}");
    for url in ["ws://h/mcp", "unix:///run/mcp", "https://", "https://h/mcp#a", "https://h?a=b"] {
        let (documents, notes) = all(&json!({"url": url}));
        assert!(!documents.contains("kind: McpServer") && notes.starts_with("s: no manifest: "), "{documents}{notes}");
    }
    for url in ["https://localhost.example.com/mcp", "http://10.0.0.7/mcp", "https://h/localhost"] {
        assert_eq!(spec(&json!({"url": url}))["remote"]["url"], url);
    }
}

#[test]
fn a_timeout_is_carried_over() {
    for (field, value, seconds) in [
        ("timeout", json!(60), Some(60)),
        ("timeout", json!("90"), Some(90)),
        // Milliseconds, as Gemini's, opencode's and Claude Code's are.
        ("timeout", json!(60_000), Some(60)),
        ("tool_timeout_sec", json!(120), Some(120)),
        ("tool_timeout_sec", json!(2.5), Some(3)),
        ("timeout", json!(30), None),
        ("timeout", json!(0), None),
        ("timeout", json!("soon"), None),
        ("startup_timeout_sec", json!(20), None),
    ] {
        let server = json!({"command": "npx", "args": ["-y", "a@1.0.0"], field: value});
        assert_eq!(spec(&server).get("timeoutSeconds").and_then(Value::as_u64), seconds, "{server}");
    }
    let (_, notes) = all(&json!({"command": "npx", "args": ["-y", "a@1.0.0"], "timeout": 60_000}));
    assert!(notes.contains("60 s"), "{notes}");
}

#[test]
fn what_is_not_understood_is_told_and_what_is_null_is_nothing() {
    let server =
        json!({"command": "npx", "args": ["-y", "a@1.0.0"], "env": [{"name": "A", "value": "b"}], "headers": null, "url": null});
    let (documents, notes) = all(&server);
    assert!(documents.contains("kind: McpServer"), "{documents}");
    assert_eq!(notes, "s: env: not understood");
}

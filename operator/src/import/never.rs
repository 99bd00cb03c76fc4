//! What must never be written, whoever reads it: credentials, what YAML 1.1 takes for something else, what the API server refuses.

use serde_json::{Value, json};

use super::Imported;

fn import(text: &str) -> Imported {
    let mut imported = Imported::default();
    imported.add("mcp.json", text).expect("it is read");
    imported
}

/// One server, and everything that is said of it.
fn all(server: &Value) -> (String, String) {
    let imported = import(&json!({"mcpServers": {"s": server}}).to_string());
    (imported.documents, imported.notes.join("\n"))
}

fn spec(server: &Value) -> Value {
    serde_yaml::from_str::<Value>(&all(server).0).expect("YAML")["spec"].take()
}

fn assert_no_leak(server: &Value) {
    let (documents, notes) = all(server);
    let said = format!("{documents}{notes}").to_lowercase();
    assert!(!said.contains("leak"), "{server}\n{documents}{notes}");
}

/// `npx -y a@1.0.0` and these arguments.
fn npx(args: &[&str]) -> Value {
    json!({"command": "npx", "args": ([&["-y", "a@1.0.0"], args].concat())})
}

#[test]
fn no_credential_of_an_argument_is_written() {
    for args in [
        &["--header", "Authorization: Bearer LEAK01"][..],
        &["-H", "X-API-Key: LEAK02"],
        &["-H", "X-Custom: LEAK"],
        &["-HAuthorization: Bearer LEAK"],
        &["--header=Authorization: Bearer LEAK43"],
        &["--header=X-API-Key:LEAK"],
        &["--headers", "{\"X-Tenant\": \"a\", \"Authorization\": \"LEAK\"}"],
        &["--env", "API_KEY=LEAK05"],
        &["-e", "API_KEY=LEAK"],
        &["-eAPI_KEY=LEAK"],
        &["--env=API_KEY=LEAK"],
        &["API_KEY=LEAK09"],
        &["--config", "{\"apiKey\":\"LEAK06\"}"],
        &["--config={\"a\": [{\"clientSecret\": \"LEAK\"}]}"],
        &["--config", "{apiKey: 'LEAK'}"],
        &["--set", "db.password = LEAK"],
        &["-u", "me:LEAK"],
        &["--user=me:LEAK"],
        &["--url:https://me:LEAK@h/?a=b"],
        &["--url", "https://h/mcp/LEAK58sk-abcdef123456"],
        &["--url", "https://h/?profile=a&code=LEAK0123"],
        &["--url", "https://h/#access_token=LEAK"],
        &["me:LEAK@tcp(h:3306)/d"],
        &["--dsn-of", "Server=h;User Id=me;Password=LEAK;"],
        &["-----BEGIN PRIVATE KEY-----\nLEAK\n-----END PRIVATE KEY-----"],
        &["${API_KEY:-LEAK}"],
        &["--", "--password=LEAK"],
        &["--api-key", "-LEAK0_abc"],
        &["/token:LEAK"],
        &["-token", "LEAK"],
        &["--token LEAK"],
        &["--header", "X-API-Key", "LEAK"],
        &["--env", "API_KEY", "LEAK"],
        &["--vars", "[{\"name\": \"API_KEY\", \"value\": \"LEAK\"}]"],
        &["--url", "https://h/mcp?LEAK0123456789abcdef"],
        &["--url", "https://h/key/LEAK/mcp"],
        &["--url", "jdbc:mysql://h/d?user=a&password=LEAK"],
        &["--url", "h.example/mcp?api_key=LEAK"],
        &["日本 password=LEAK"],
    ] {
        assert_no_leak(&npx(args));
        assert_no_leak(&json!({"command": "uvx", "args": ([&["a==1.0"], args].concat())}));
        assert_no_leak(&json!({"command": "docker", "args": ([&["run", "-i", "--rm", "x/y:1"], args].concat())}));
    }
}

#[test]
fn no_credential_of_a_variable_is_written() {
    for (name, value) in [
        ("CONFIG", "{\"password\":\"LEAK31\"}"),
        ("CONFIG", "[\"https://me:LEAK@h/\"]"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=LEAK32"),
        ("STORAGE", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=LEAK32;EndpointSuffix=core.windows.net"),
        ("CONNECTION_STRING", "LEAK"),
        ("PGDSN", "host=h password=LEAK24"),
        ("DB", "host=h password = 'LEAK'"),
        ("PGPASSWORD", "LEAK"),
        ("PASSPHRASE", "LEAK"),
        ("PIN", "LEAK"),
        ("CREDS", "LEAK"),
        ("LICENSE", "LEAK"),
        ("SESSION", "LEAK"),
        ("API_KEYS", "LEAK1,LEAK2"),
        ("clientsecret", "LEAK"),
        ("API_KEY2", "LEAK"),
        ("JAVA_OPTS", "-Xmx1g --access-token LEAK"),
        ("AWS", "LEAKrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY12"),
        ("OPTS", "a=LEAKrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY12"),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T0/B0/LEAK26"),
        ("NOTIFY", "https://hooks.slack.com/services/T0/B0/LEAK26"),
        ("NOTIFY", "https://discord.com/api/webhooks/1/LEAK"),
        ("NOTIFY", "https://api.telegram.org/bot12345:LEAK/sendMessage"),
        ("SIGNING", "-----BEGIN PRIVATE KEY-----\nLEAK\n-----END PRIVATE KEY-----"),
        ("CERT", "-----BEGIN RSA PRIVATE KEY----- LEAK"),
        ("INDEX", "--index-url https://me:LEAK@h/simple"),
        ("UV_INDEX_URL", "https://LEAK@h/simple"),
        ("HEADERS", "X-Api-Key: LEAK\nAccept: */*"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team-token=LEAK,a=b"),
        ("FROM", "redis://:LEAK@h:6379/0"),
        ("HOSTED", "https://h/s/LEAKab12-e29b-41d4-a716-446655440000/mcp"),
        ("LIST", "a,ghp_LEAK0123456789,b"),
        ("MODE", "${MODE_TOKEN:-LEAK}"),
    ] {
        assert_no_leak(&json!({"command": "uvx", "args": ["a==1"], "env": {name: value}}));
        let given = format!("{name}={value}");
        assert_no_leak(&json!({"command": "docker", "args": ["run", "-i", "-e", given, "--entrypoint", "/a", "x/y:1"]}));
        assert_no_leak(&json!({"command": "docker", "args": ["run", format!("--env={given}"), "x/y:1"]}));
        assert_no_leak(&json!({"command": "docker", "args": ["run", "-ie", given, "x/y:1"]}));
        assert_no_leak(&json!({"command": "env", "args": [given, "npx", "-y", "a@1.0.0"]}));
    }
}

#[test]
fn no_credential_is_in_a_note() {
    for server in [
        json!({"command": "uvx", "args": ["--from", "git+https://LEAK51@github.com/x/y@v1", "y"]}),
        json!({"command": "uvx", "args": ["--with", "a,git+https://me:LEAK@h/x", "y"]}),
        json!({"command": "npx", "args": ["git+https://oauth2:LEAK53@gitlab.com/x/y.git"]}),
        json!({"command": "npx", "args": ["./LEAK?token=LEAK"]}),
        json!({"command": "npx", "args": ["-xAPI_KEY=LEAK", "a@1.0.0"]}),
        json!({"command": "npx -y a --token LEAK"}),
        json!({"command": "npx -y a --url https://h/LEAK"}),
        json!({"command": "API_KEY=LEAK node", "args": ["a.js"]}),
        json!({"command": "docker", "args": ["run", "--build-arg", "TOKEN=LEAK", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "--secret", "LEAK", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "--annotation=password=LEAK", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "--some-switch", "-e", "API_KEY=LEAK", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "-P", "API_KEY=LEAK", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "--volume-driver", "a", "-v", "/home/me/?token=LEAK:/data", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "--env-file", "https://me:LEAK@h/.env", "x/y:1"]}),
        json!({"command": "npx", "args": ["-y", "a@1.0.0"], "cwd": "/home/me/?token=LEAK"}),
        json!({"command": "npx", "args": ["-y", "a@1.0.0"], "envFile": "/home/me/?token=LEAK"}),
        json!({"command": "npx", "args": ["-y", "a@1.0.0", "/home/me/x?token=LEAK"]}),
        json!({"command": "npx", "args": ["-y", "a@1.0.0"], "description": "log in with password=LEAK"}),
        json!({"command": "npx", "args": ["-y", "a@1.0.0"], "apiKey": "LEAK"}),
        json!({"url": "https://h/mcp/LEAK58sk-abcdef123456"}),
        json!({"url": "https://h/mcp?x=1&apiKey=LEAK"}),
        json!({"url": "https://LEAK@h/mcp"}),
        json!({"url": "https://h/mcp", "headers": {"Authorization: Bearer LEAK": ""}}),
        json!({"command": "npx", "args": ["-y", "a@1.0.0"], "env": {"API_KEY=LEAK": ""}}),
        json!({"command": "npx", "args": ["-y a@1.0.0 --token LEAK"]}),
        json!({"command": "docker", "args": ["run", "-e=API_KEY=LEAK", "x/y:1"]}),
        json!({"command": "docker", "args": ["run", "--entrypoint", "env API_KEY=LEAK sh", "x/y:1"]}),
        json!({"url": "https://h/api/mcp/s/TEFLEAKx1bmJlbGlldmFibGU5OTk5/mcp"}),
        json!({"command": "npx", "args": ["mcp-remote", "https://h/mcp?token=LEAK"]}),
        json!({"command": "npx", "args": ["mcp-remote", "https://h/mcp", "--header", "X-Custom:LEAK"]}),
    ] {
        assert_no_leak(&server);
    }
    let named = import(&json!({"mcpServers": {"https://h/mcp?api_key=LEAK": npx(&[])}}).to_string());
    assert!(!named.documents.to_lowercase().contains("leak"), "{}", named.documents);
    let mut imported = Imported::default();
    let error = imported.add("a", "{\"mcpServers\": {\"s\": {\"env\": {\"TOKEN\": LEAK}}}}").expect_err("no JSON");
    assert!(!error.contains("LEAK"), "{error}");
}

#[test]
fn what_vscode_would_ask_for_is_as_secret_as_its_name_and_its_default() {
    for (id, default) in [("api-key", "LEAK"), ("where", "https://me:LEAK@h/"), ("list", "{\"token\": \"LEAK\"}")] {
        let text = json!({
            "inputs": [{"type": "promptString", "id": id, "default": default}],
            "servers": {"s": {"command": "npx", "args": ["-y", "a@1.0.0", format!("${{input:{id}}}")], "env": {"X": format!("${{input:{id}}}")}}},
        });
        let imported = import(&text.to_string());
        assert!(!imported.documents.contains("LEAK"), "{}", imported.documents);
        assert!(!imported.notes.join("\n").contains("LEAK"), "{:?}", imported.notes);
    }
}

#[test]
fn what_is_taken_out_can_be_put_in_where_it_was() {
    for (args, done) in [
        (&["--header", "Authorization: Bearer abc"][..], &["--header", "Authorization: $(AUTHORIZATION)"][..]),
        (&["-H", "X-Custom:abc"], &["-H", "X-Custom:$(X_CUSTOM)"]),
        (&["--header=X-API-Key: abc"], &["--header=X-API-Key: $(X_API_KEY)"]),
        (&["--env", "API_KEY=abc"], &["--env", "API_KEY=$(API_KEY)"]),
        (&["API_KEY=abc"], &["API_KEY=$(API_KEY)"]),
        (&["--config", "{\"apiKey\":\"abc\"}"], &["--config", "$(CONFIG)"]),
        (&["--dsn=host=h password=abc"], &["--dsn=$(DSN)"]),
    ] {
        let spec = spec(&npx(args));
        assert_eq!(spec["stdio"]["args"], json!(([&["-y", "a@1.0.0"], done].concat())), "{args:?}");
    }
    let (documents, _) = all(&npx(&["-H", "Authorization: Bearer abc"]));
    assert!(documents.contains("--from-literal=AUTHORIZATION='Bearer REPLACE'"), "{documents}");
}

#[test]
fn what_is_plainly_no_secret_is_left_in() {
    for args in [
        &["--header", "Accept: text/plain"][..],
        &["-H", "0.0.0.0"],
        &["-H", "localhost:8080"],
        &["--user", "1000:1000"],
        &["--level", "debug", "--limit=10"],
        &["/data/Projects2024/MyVeryLongFolderName1"],
        &["https://api.example.com/v1/models/claude-3-5-sonnet-20241022"],
        &["https://example.com/a/b?page=2&sort=asc"],
        &["--max-tokens", "4096"],
        &["--session-timeout=30"],
        &["--modules", "auth,keys,tokens"],
        &["git@github.com:a/b.git"],
        &["x/y:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        &["--filter", "state=open,author=me"],
        &["{\"level\": \"debug\", \"port\": 8080}"],
        &["a@b.example"],
    ] {
        let spec = spec(&npx(args));
        assert_eq!(spec["stdio"]["args"], json!(([&["-y", "a@1.0.0"], args].concat())), "{args:?}");
    }
    let commit = "0123456789012345678901234567890123456789";
    for args in [
        json!(["--from", format!("git+https://github.com/a/b@{commit}"), "b"]),
        json!(["--from", format!("git+ssh://git@github.com/a/b@{commit}"), "b"]),
        json!(["mcp-auth==1.2.3"]),
        json!(["--with", "token-tools>=2", "api-key-server==1.0"]),
        json!(["--from", "https://github.com/a/b/archive/0123456789012345678901234567890123456789.zip", "b"]),
    ] {
        assert_eq!(spec(&json!({"command": "uvx", "args": args}))["stdio"]["args"], args);
    }
    for args in [json!([format!("github:a/b#{commit}")]), json!(["x@npm:@a/key@1.0.0"]), json!(["x@npm:key@1.0.0"])] {
        assert_eq!(spec(&json!({"command": "npx", "args": args}))["stdio"]["args"], args);
    }
    let said = all(&json!({"command": "uvx", "args": ["--from", "git+https://me:pw@github.com/x/y@v1", "y"]})).1;
    assert!(said.contains("names no one version"), "{said}");
}

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
        "Accept": "*/*", "Host": "h", "Content-Type": "application/json", "Mcp-Session-Id": "a", "Bad Name": "a",
        "X-Key": "a", "x-key": "b", "Authorization": "Bearer a",
    }});
    let names: Vec<_> =
        spec(&server)["remote"]["headersFrom"].as_array().expect("a list").iter().map(|header| header["name"].clone()).collect();
    assert_eq!(names, ["Authorization", "X-Key"]);
    let (documents, notes) = all(&server);
    for name in ["Accept", "Host", "Content-Type", "Mcp-Session-Id", "Bad Name", "x-key"] {
        assert!(notes.contains(&format!("header {name}: ")), "{notes}");
        assert!(!documents.contains(&format!("--from-literal={name}=")), "{documents}");
    }
}

/// The API's own list, word for word.
#[test]
fn the_headers_that_are_left_out_are_those_of_the_api() {
    use kube::CustomResourceExt as _;
    let crd = serde_json::to_string(&crate::crd::McpServer::crd()).expect("JSON");
    let list = super::header::OF_EVERY_REQUEST.map(|name| format!("'{name}'")).join(", ");
    assert!(crd.contains(&format!("self.lowerAscii() in [{list}]")), "{list}");
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

//! Tests: what must never be written, whoever reads it: credentials, in whatever form people give them.

use serde_json::{Value, json};

use super::Imported;

pub fn import(text: &str) -> Imported {
    let mut imported = Imported::default();
    imported.add("mcp.json", text).expect("it is read");
    imported
}

/// One server, and everything that is said of it.
pub fn all(server: &Value) -> (String, String) {
    let imported = import(&json!({"mcpServers": {"s": server}}).to_string());
    (imported.documents, imported.notes.join("\n"))
}

pub fn spec(server: &Value) -> Value {
    serde_yaml::from_str::<Value>(&all(server).0).expect("YAML")["spec"].take()
}

fn assert_no_leak(server: &Value) {
    let (documents, notes) = all(server);
    let said = format!("{documents}{notes}").to_lowercase();
    assert!(!said.contains("leak"), "{server}\n{documents}{notes}");
}

/// `npx -y a@1.0.0` and these arguments.
pub fn npx(args: &[&str]) -> Value {
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
        &["/token:1LEAK"],
        &["--set", "x: {password: \"no LEAK\"}"],
        &["--oauth2Bearer", "LEAK"],
        &["postgres://me:a#LEAK@h/d"],
        &["postgres://me:a/LEAK@h/d"],
        &["me/LEAK@//h:1521/d"],
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
        ("ACCESS_CODE", "LEAK"),
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
        json!({"url": "https://h/mcp/LEAK58sk-1234"}),
        json!({"command": "docker", "args": ["run", "--mount", "type=volume,src=a,dst=/x?token=LEAK", "x/y:1"]}),
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
        &["--connectionString", "mongodb://db.example:27017/d"],
        &["--sort", "key:asc"],
        &["https://h/task-1234/risk-abcd"],
        &["https://h:8080/@a/b"],
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

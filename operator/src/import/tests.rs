//! Forms as people have them, from the READMEs of servers and the settings of clients.

use super::Imported;

fn import(text: &str) -> Imported {
    let mut imported = Imported::default();
    imported.add("mcp.json", text).expect("it is read");
    imported
}

/// The documents, without the comments.
fn documents(text: &str) -> Vec<serde_json::Value> {
    use serde::Deserialize as _;
    let documents = import(text).documents;
    let read =
        serde_yaml::Deserializer::from_str(&documents).map(|document| serde_json::Value::deserialize(document).expect("YAML"));
    read.filter(|document| !document.is_null()).collect()
}

/// The only one's spec.
fn spec(text: &str) -> serde_json::Value {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{}", import(text).documents);
    documents.remove(0)["spec"].take()
}

/// A manifest that the API would take: what is generated is read back as its type.
fn is_a_server(spec: &serde_json::Value) {
    let read: crate::crd::McpServerSpec = serde_json::from_value(spec.clone()).expect("a spec");
    assert_eq!([read.container.is_some(), read.stdio.is_some(), read.remote.is_some()].iter().filter(|it| **it).count(), 1);
}

macro_rules! forms {
    ($($name:ident: $text:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let imported = import($text);
                for document in documents($text) {
                    is_a_server(&document["spec"]);
                }
                insta::assert_snapshot!(stringify!($name), format!("{}===\n{}\n", imported.documents, imported.notes.join("\n")));
            }
        )*
    };
}

forms! {
    claude_desktop: r#"{"mcpServers": {
        "filesystem": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/Users/me/Desktop"]},
        "memory": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory@2026.8.31"]},
        "github": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-github"], "env": {"GITHUB_PERSONAL_ACCESS_TOKEN": "ghp_abcdefghijklmnopqrstuvwxyz0123456789"}},
        "time": {"command": "uvx", "args": ["mcp-server-time==2026.10.10", "--local-timezone=Europe/Zurich"]},
        "local": {"command": "node", "args": ["/Users/me/server/build/index.js"]}
    }}"#;
    vscode_with_inputs: r#"{
        // Asked for once.
        "inputs": [
            {"type": "promptString", "id": "perplexity-key", "description": "Perplexity API Key", "password": true},
            {"type": "promptString", "id": "region", "description": "Region", "default": "eu"},
        ],
        "servers": {
            "Perplexity": {"type": "stdio", "command": "npx", "args": ["-y", "server-perplexity-ask@0.1.3"],
                "env": {"PERPLEXITY_API_KEY": "${input:perplexity-key}", "REGION": "${input:region}"}},
            "fetch": {"type": "stdio", "command": "uvx", "args": ["mcp-server-fetch"], "envFile": "${workspaceFolder}/.env"},
            "docs": {"type": "http", "url": "https://api.example.com/mcp", "headers": {"Authorization": "Bearer ${input:perplexity-key}"}},
        },
    }"#;
    docker_run: r#"{"mcpServers": {
        "github": {"command": "docker", "args": ["run", "-i", "--rm", "-e", "GITHUB_PERSONAL_ACCESS_TOKEN", "ghcr.io/github/github-mcp-server"],
            "env": {"GITHUB_PERSONAL_ACCESS_TOKEN": "${input:github_token}"}},
        "sqlite": {"command": "docker", "args": ["run", "--rm", "-i", "-v", "mcp-test:/mcp", "mcp/sqlite", "--db-path", "/mcp/test.db"]},
        "fs": {"command": "docker", "args": ["run", "-i", "--rm", "--mount", "type=bind,src=/Users/me/Desktop,dst=/projects/Desktop", "mcp/filesystem", "/projects"]},
        "own": {"command": "docker", "args": ["run", "-i", "--rm", "--network=host", "--env=LEVEL=debug", "--entrypoint", "/app/own", "registry.example.com/own:1.4.2", "--stdio"]}
    }}"#;
    remote_by_a_program: r#"{"mcpServers": {
        "linear": {"command": "npx", "args": ["-y", "mcp-remote@latest", "https://mcp.linear.app/mcp"]},
        "own": {"command": "npx", "args": ["mcp-remote", "https://mcp.example.com/sse", "--header", "Authorization: Bearer ${AUTH_TOKEN}"], "env": {"AUTH_TOKEN": "abc"}}
    }}"#;
    windows: r#"{"mcpServers": {
        "everything": {"command": "cmd", "args": ["/c", "npx", "-y", "@modelcontextprotocol/server-everything@2026.8.31"]},
        "files": {"command": "npx.cmd", "args": ["-y", "@modelcontextprotocol/server-filesystem@2026.8.31", "C:\\Users\\me\\Desktop"]}
    }}"#;
}

#[test]
fn secrets_in_arguments_are_put_in_by_kubernetes() {
    let spec = spec(
        r#"{"mcpServers": {"pg": {"command": "npx", "args": ["-y", "@x/pg@1.0.0", "postgresql://user:hunter2@db/app", "--api-key=sk-123", "--token", "abc", "--verbose"]}}}"#,
    );
    let args: Vec<_> = spec["stdio"]["args"].as_array().expect("a list").iter().filter_map(|arg| arg.as_str()).collect();
    assert_eq!(args, ["-y", "@x/pg@1.0.0", "$(ARGUMENT)", "--api-key=$(API_KEY)", "--token", "$(TOKEN)", "--verbose"]);
    assert_eq!(spec["env"].as_array().expect("a list").len(), 3);
    is_a_server(&spec);
}

#[test]
fn no_secret_is_ever_written() {
    for (name, value) in [
        ("GITHUB_TOKEN", "ghp_abc"),
        ("OPENAI_API_KEY", "whatever"),
        ("apiKey", "whatever"),
        ("SLACK_BOT", "xoxb-123-456"),
        ("DATABASE_URL", "postgres://u:p@h/d"),
        ("ENDPOINT", "https://h/?api_key=abc"),
        ("VALUE", "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg=="),
        ("HASH", "0123456789abcdef0123456789abcdef"),
        ("AWS", "AKIAIOSFODNN7EXAMPLE"),
        ("X", "${env:SOME_VALUE}"),
    ] {
        let text =
            serde_json::json!({"mcpServers": {"s": {"command": "uvx", "args": ["a==1"], "env": {name: value}}}}).to_string();
        let imported = import(&text);
        assert!(!imported.documents.contains(value), "{name}: {}", imported.documents);
        assert!(imported.documents.contains(&format!("--from-literal={name}='REPLACE'")), "{}", imported.documents);
        assert!(imported.notes.iter().all(|note| !note.contains(value)));
    }
}

#[test]
fn what_is_no_secret_stays_readable() {
    let spec = spec(
        r#"{"mcpServers": {"s": {"command": "uvx", "args": ["a==1"], "env": {"LOG_LEVEL": "debug", "PORT": 8080, "MONKEY": "banana", "BASE_URL": "https://h/v1", "MODE": "${MODE:-fast}", "USE_TOKEN": "true"}}}}"#,
    );
    let plain = |name: &str| spec["env"].as_array()?.iter().find(|variable| variable["name"] == name)?["value"].as_str();
    assert_eq!(plain("LOG_LEVEL"), Some("debug"));
    assert_eq!(plain("PORT"), Some("8080"));
    assert_eq!(plain("MONKEY"), Some("banana"));
    assert_eq!(plain("BASE_URL"), Some("https://h/v1"));
    assert_eq!(plain("MODE"), Some("fast"));
    assert_eq!(plain("USE_TOKEN"), Some("true"));
}

#[test]
fn the_lists_of_other_programs_are_found() {
    for text in [
        r#"{"mcp": {"servers": {"s": {"command": "npx", "args": ["-y", "a@1.0.0"]}}}}"#,
        r#"{"context_servers": {"s": {"command": {"path": "npx", "args": ["-y", "a@1.0.0"]}, "settings": {}}}}"#,
        r#"{"context_servers": {"s": {"source": "custom", "command": "npx", "args": ["-y", "a@1.0.0"]}}}"#,
        r#"{"mcp": {"s": {"type": "local", "command": ["npx", "-y", "a@1.0.0"], "enabled": true}}}"#,
        r#"{"amp.mcpServers": {"s": {"command": "npx", "args": ["-y", "a@1.0.0"]}}}"#,
        r#"{"servers": [{"name": "s", "command": "npx", "args": ["-y", "a@1.0.0"]}]}"#,
    ] {
        let spec = spec(text);
        assert_eq!(spec["stdio"], serde_json::json!({"command": "npx", "args": ["-y", "a@1.0.0"]}), "{text}");
    }
}

#[test]
fn servers_of_projects_are_found_beside_those_of_the_user() {
    let project =
        r#""projects": {"/p": {"mcpServers": {"s": {"command": "npx", "args": ["-y", "b@1.0.0"]}}}, "/q": {"history": []}}"#;
    let both = format!(r#"{{"mcpServers": {{"s": {{"command": "npx", "args": ["-y", "a@1.0.0"]}}}}, {project}}}"#);
    assert_eq!(documents(&both).len(), 2, "two of one name are two");
    let imported = import(&format!("{{{project}}}"));
    assert!(imported.notes.iter().any(|note| note.contains("listed for the project /p")), "{:?}", imported.notes);
    assert_eq!(documents(&format!("{{{project}}}")).len(), 1);
}

#[test]
fn a_folder_of_an_editor_is_no_secret_and_is_told() {
    for folder in ["${workspaceFolder}", "${workspaceFolder:web}/src", "${HOME}/notes", "${env:HOME}"] {
        let text = format!(r#"{{"servers": {{"s": {{"command": "npx", "args": ["-y", "a@1.0.0", "{folder}"]}}}}}}"#);
        assert_eq!(spec(&text)["stdio"]["args"][2], folder);
        assert!(import(&text).notes.iter().any(|note| note.contains(folder)), "{:?}", import(&text).notes);
    }
}

#[test]
fn other_runners_are_npx_and_uvx() {
    for (command, means) in [
        (r#""command": "bunx", "args": ["a@1.0.0"]"#, "npx a@1.0.0"),
        (r#""command": "pnpm", "args": ["dlx", "a@1.0.0"]"#, "npx a@1.0.0"),
        (r#""command": "npm", "args": ["exec", "--", "a@1.0.0"]"#, "npx a@1.0.0"),
        (r#""command": "npm", "args": ["exec", "-y", "a@1.0.0", "--", "--x", "--", "y"]"#, "npx -y a@1.0.0 --x -- y"),
        (r#""command": "/opt/homebrew/bin/npx", "args": ["a@1.0.0"]"#, "npx a@1.0.0"),
        (r#""command": "C:\\nodejs\\npx.cmd", "args": ["a@1.0.0"]"#, "npx a@1.0.0"),
        (r#""command": "uv", "args": ["tool", "run", "--from", "a==1", "b"]"#, "uvx --from a==1 b"),
        (r#""command": "pipx", "args": ["run", "a==1"]"#, "uvx a==1"),
    ] {
        let spec = spec(&format!(r#"{{"mcpServers": {{"s": {{{command}}}}}}}"#));
        let stdio = &spec["stdio"];
        let words = [stdio["command"].as_str()]
            .into_iter()
            .chain(stdio["args"].as_array().expect("a list").iter().map(|arg| arg.as_str()));
        assert_eq!(words.flatten().collect::<Vec<_>>().join(" "), means);
    }
}

#[test]
fn what_is_of_this_machine_has_no_manifest_and_is_told() {
    for command in [
        r#""command": "python", "args": ["-m", "server"]"#,
        r#""command": "uv", "args": ["--directory", "/Users/me/x", "run", "server.py"]"#,
        r#""command": "npx", "args": ["-y", "./local"]"#,
        r#""command": "npx", "args": ["-c", "a"]"#,
        r#""command": "docker", "args": ["run", "--rm"]"#,
        r#""type": "http""#,
    ] {
        let text = format!(r#"{{"mcpServers": {{"s": {{{command}}}}}}}"#);
        let imported = import(&text);
        assert!(documents(&text).is_empty(), "{}", imported.documents);
        assert!(imported.notes[0].starts_with("s: no manifest: "), "{:?}", imported.notes);
    }
}

#[test]
fn two_of_one_name_are_two_and_a_file_that_is_none_is_told() {
    let mut imported = Imported::default();
    let text = r#"{"mcpServers": {"A b": {"command": "npx", "args": ["a@1.0.0"]}, "a-b": {"command": "npx", "args": ["b@1.0.0"], "disabled": true}}}"#;
    imported.add("one", text).expect("it is read");
    imported.add("two", text).expect("it is read");
    for name in ["name: a-b\n", "name: a-b-2\n", "name: a-b-3\n", "name: a-b-4\n"] {
        assert!(imported.documents.contains(name), "{}", imported.documents);
    }
    assert!(imported.documents.contains("enabled: false"));
    assert!(imported.add("three", "{").expect_err("no JSON").starts_with("three: it is not JSON"));
    assert!(imported.add("four", "{}").expect_err("no list").contains("mcpServers"));
}

#[test]
fn a_file_that_the_server_keeps_wants_a_volume() {
    let told = |value: &str| {
        let env = serde_json::json!({"MEMORY_FILE_PATH": value});
        let servers = serde_json::json!({"mcpServers": {"s": {"command": "npx", "args": ["a@1.0.0"], "env": env}}});
        import(&servers.to_string()).notes.join("\n")
    };
    assert!(told("/data/memory.json").contains("storage: {size: 1Gi, mountPath: /data}"), "{}", told("/data/memory.json"));
    assert!(told("/data").contains("mountPath: /data}"));
    for fits in ["/tmp/memory.json", "memory.json", "https://h/v1", "//h/v1", "/"] {
        assert!(!told(fits).contains("mountPath"), "{fits}: {}", told(fits));
    }
}

#[test]
fn what_is_of_one_machine_is_left_out_or_told() {
    let text = r#"{"mcpServers": {"s": {"command": "npx", "args": ["-y", "a@1.0.0"], "env": {
        "PATH": "/opt/homebrew/bin:/usr/bin", "Path": "C:\\nodejs", "LEVEL": "debug",
        "GOOGLE_APPLICATION_CREDENTIALS": "/Users/me/gcp.json", "PRIVATE_KEY_PATH": "~/.ssh/id", "API_TOKEN": "/abc"
    }}}}"#;
    let env = spec(text)["env"].take();
    let of = |name: &str| env.as_array().expect("a list").iter().find(|variable| variable["name"] == name).cloned();
    assert!(of("PATH").is_none() && of("Path").is_none() && of("LEVEL").is_some(), "{env}");
    assert_eq!(of("GOOGLE_APPLICATION_CREDENTIALS").expect("there")["value"], "/Users/me/gcp.json");
    assert!(of("API_TOKEN").expect("there")["valueFrom"].is_object(), "{env}");
    let notes = import(text).notes.join("\n");
    assert!(notes.contains("PATH: it says where things are on this machine"), "{notes}");
    for file in ["GOOGLE_APPLICATION_CREDENTIALS /Users/me/gcp.json", "PRIVATE_KEY_PATH ~/.ssh/id"] {
        assert!(notes.contains(&format!("{file}: this file is not in a cluster; make a Secret of it")), "{notes}");
    }
}

#[test]
fn a_file_of_credentials_is_told_as_a_file_also_where_only_its_own_name_says_so() {
    let told = |path: &str| {
        let server = serde_json::json!({"command": "npx", "args": ["a@1.0.0", path], "env": {"CONFIG": path}});
        import(&serde_json::json!({"mcpServers": {"s": server}}).to_string()).notes.join("\n")
    };
    for file in [
        "/Users/me/credentials.json",
        "C:\\Users\\me\\Client_Secret_1.JSON",
        "~/certs/tls.key",
        "./client.pem",
        "/home/me/gcp-service-account.json",
    ] {
        for name in ["argument", "CONFIG"] {
            let says = format!("{name} {file}: this file is not in a cluster; make a Secret of it");
            assert!(told(file).contains(&says), "{file}: {}", told(file));
        }
        assert!(!told(file).contains("this folder"), "{}", told(file));
    }
    for folder in ["/Users/me/Desktop", "/Users/me/tokens", "/home/me/notes.txt"] {
        assert!(told(folder).contains(&format!("argument {folder}: this folder is not in a cluster")), "{}", told(folder));
    }
    let option =
        r#"{"mcpServers": {"s": {"command": "npx", "args": ["a@1.0.0", "--credentials", "/Users/me/gcp", "--token=~/t"]}}}"#;
    for file in ["/Users/me/gcp", "~/t"] {
        assert!(
            import(option).notes.join("\n").contains(&format!("argument {file}: this file is not")),
            "{:?}",
            import(option).notes
        );
    }
    assert!(!told("/etc/credentials.json").contains("make a Secret of it"), "a path of the image, perhaps");
}

#[test]
fn what_follows_the_end_of_dockers_options_is_the_image() {
    let docker = r#"{"mcpServers": {"s": {"command": "docker", "args": ["run", "-i", "--", "x/y:1", "--", "serve"]}}}"#;
    let stdio = spec(docker)["stdio"].take();
    assert_eq!((&stdio["image"], &stdio["args"]), (&"x/y:1".into(), &serde_json::json!(["--", "serve"])), "{stdio}");
}

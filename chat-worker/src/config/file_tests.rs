use super::*;
use crate::config::{
    rules::{Approvals, ToolRules, Trust},
    server::{Hidden, Launch, Target},
};

fn variable(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "t0p-s3cret".to_owned())
}

fn read(text: &str) -> McpConfig {
    parse(text, &variable).expect("a file of the right shape")
}

fn only(text: &str) -> ServerEntry {
    let config = read(text);
    assert_eq!((config.servers.len(), &config.refused), (1, &vec![]), "{text}");
    config.servers.into_iter().next().expect("one")
}

/// Why the only entry is refused.
fn refused(entry: &str) -> String {
    let config = read(&format!(r#"{{"servers": {{"a": {entry}, "other": {{"url": "http://b/mcp"}}}}}}"#));
    assert_eq!(config.servers.len(), 1, "the other goes on beside {entry}");
    assert_eq!((config.refused.len(), config.refused[0].name.as_str()), (1, "a"), "{entry}");
    config.refused[0].reason.clone()
}

fn launch(server: &ServerEntry) -> &Launch {
    match &server.target {
        Target::Command(launch) => launch,
        Target::Url(url) => unreachable!("a command, not {url}"),
    }
}

#[test]
fn the_guides_file_is_read_and_has_the_guides_defaults() {
    let server = only(r#"{"servers": [{"name": "a", "script_path": "a.py"}], "log_level": "INFO"}"#);
    assert!(server.enabled);
    assert_eq!((server.timeout.as_secs(), server.max_retries), (30, 3));
    assert_eq!(server.health_check_interval.as_secs(), 60);
    assert_eq!((server.trust, server.tools), (Trust::Hints, ToolRules::default()));
}

#[test]
fn the_maps_of_other_programs_are_read() {
    for text in [
        r#"{"mcpServers": {"db": {"command": "sandbox-server", "args": ["stdio", "--db", "a.db"]}}}"#,
        r#"{"servers": {"db": {"type": "stdio", "command": "sandbox-server", "args": ["stdio", "--db", "a.db"]}}, "inputs": []}"#,
        r#"{"servers": [{"name": "db", "command": ["sandbox-server", "stdio"], "args": ["--db", "a.db"]}]}"#,
        "\u{feff}{\n// ours\n\"mcpServers\": {\"db\": {\"command\": \"sandbox-server\", /* all */ \"args\": [\"stdio\", \"--db\", \"a.db\",],},},}",
    ] {
        let server = only(text);
        assert_eq!(server.name, "db", "{text}");
        assert_eq!(
            (launch(&server).program.as_str(), launch(&server).args.join(" ")),
            ("sandbox-server", "stdio --db a.db".into())
        );
    }
    for kind in ["http", "streamable-http", "streamableHttp"] {
        let server = only(&format!(r#"{{"mcpServers": {{"a": {{"type": "{kind}", "url": "http://a/mcp"}}}}}}"#));
        assert_eq!(server.target, Target::Url("http://a/mcp".into()));
    }
}

#[test]
fn what_a_server_gets_is_given_to_it_and_is_in_no_debug_output() {
    let server = only(
        r#"{"servers": {"a": {"command": "x", "env": {"API_KEY": "Bearer ${TOKEN}", "PORT": 8080, "HOME": null}, "cwd": "${DIR:-./sub}"}}}"#,
    );
    let launch = launch(&server);
    let value =
        |name: &str| launch.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref().map(Hidden::expose));
    assert_eq!(value("API_KEY"), Some(Some("Bearer t0p-s3cret")));
    assert_eq!((value("PORT"), value("HOME")), (Some(Some("8080")), Some(None)));
    assert_eq!(launch.cwd, Some("./sub".into()));
    assert!(!format!("{server:?}").contains("s3cret"));

    let server = only(r#"{"servers": {"a": {"url": "http://${HOST:-a}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}}}}"#);
    assert_eq!(server.target, Target::Url("http://a/mcp".into()));
    assert_eq!((server.headers[0].0.as_str(), server.headers[0].1.expose()), ("Authorization", "Bearer t0p-s3cret"));
    assert!(!format!("{server:?}").contains("s3cret"));

    // As people copy them from elsewhere.
    let server = only(
        r#"{"servers": {"a": {"url": "http://a/mcp", "headers": {"content-type": "application/json", "Accept": "*/*", "X-Team": "t"}}}}"#,
    );
    assert_eq!(server.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["X-Team"]);
}

#[test]
fn what_takes_the_right_to_run_is_obeyed() {
    for (fields, enabled) in [
        (r#""disabled": true"#, false),
        (r#""disabled": false"#, true),
        (r#""enabled": false"#, false),
        (r#""enabled": true, "disabled": true"#, false),
        (r#""enabled": false, "disabled": false"#, false),
        (r#""paused": true"#, false),
        (r#""off": true"#, false),
        (r#""stopped": true"#, false),
        (r#""Disabled": true"#, false),
        (r#""autoStart": false"#, false),
        (r#""auto_start": true"#, true),
        (r#""isActive": false"#, false),
        (r#""paused": false"#, true),
        (r#""enabled": true, "paused": true"#, false),
        (r#""status": "disabled""#, false),
        (r#""state": "running""#, true),
        (r#""disabled": null"#, true),
    ] {
        let server = only(&format!(r#"{{"servers": {{"a": {{"url": "http://a/mcp", {fields}}}}}}}"#));
        assert_eq!(server.enabled, enabled, "{fields}");
    }
    let server = only(r#"{"mcpServers": {"a": {"url": "http://a/mcp"}}, "disabledMcpServers": ["a", "b"]}"#);
    assert!(!server.enabled);
    for (list, enabled) in [
        (r#""disabled_servers": ["a"]"#, false),
        (r#""excludeMCPServers": ["a"]"#, false),
        (r#""mcp": {"excluded": ["a"]}"#, false),
        (r#""mcp": {"allowed": ["b"], "serverCommand": "x"}"#, false),
        (r#""mcp": {"allowed": ["a"]}"#, true),
        (r#""deniedMcpServers": [{"serverName": "a"}]"#, false),
        (r#""allowedMcpServers": []"#, false),
        (r#""enabledMcpjsonServers": ["b", "a"]"#, true),
        (r#""enabledMcpjsonServers": []"#, true),
        (r#""mcp": {"denied": ["a"]}"#, false),
        (r#""allowed": []"#, true),
        (r#""denied": ["a"]"#, true),
        (r#""excluded": ["a"]"#, true),
        (r#""disabledServers": ["*"]"#, false),
        (r#""disabledServers": ["gh*"]"#, true),
        (r#""allowedServers": ["*"]"#, true),
        (r#""allowedServers": ["gh*"]"#, false),
        (r#""excluded": null"#, true),
    ] {
        let server = only(&format!(r#"{{"mcpServers": {{"a": {{"url": "http://a/mcp"}}}}, {list}}}"#));
        assert_eq!(server.enabled, enabled, "{list}");
    }
    let odd = r#"{"mcpServers": {}, "deniedMcpServers": [{"serverUrl": "http://a"}]}"#;
    let told = parse(odd, &|_| None).expect_err("who is meant is not known").to_string();
    assert!(told.contains("deniedMcpServers[0]: must be the name of a server"), "{told}");
    let permits = |fields: &str| {
        let server = only(&format!(r#"{{"servers": {{"a": {{"url": "http://a/mcp", {fields}}}}}}}"#));
        ["read", "write"].map(|tool| server.tools.permits(tool))
    };
    assert_eq!(permits(r#""tools": {"deny": ["wri*"]}"#), [true, false]);
    assert_eq!(permits(r#""tools": {"allow": ["read"]}"#), [true, false]);
    assert_eq!(permits(r#""tools": {"allow": []}"#), [false, false]);
    assert_eq!(permits(r#""disabledTools": ["read"]"#), [false, true]);
    assert_eq!(permits(r#""includeTools": ["write"]"#), [false, true]);
    assert_eq!(permits(r#""alwaysAllow": ["write"]"#), [true, true]);
    let server =
        r#"{"servers": {"a": {"url": "http://a/mcp", "trust": "none", "era": "legacy", "tools": {"approvals": "Never"}}}}"#;
    let server = only(server);
    assert_eq!((server.trust, server.legacy, server.tools.approvals), (Trust::None, true, Some(Approvals::Never)));
}

#[test]
fn an_entry_that_is_not_understood_is_refused_by_name_and_path_and_the_others_go_on() {
    for (entry, told) in [
        (r#"{"url": "http://a/mcp", "timeout": "30"}"#, "servers.a.timeout: must be a number of seconds, not a string"),
        (r#"{"url": "http://a/mcp", "timeout": 0}"#, "servers.a.timeout: must be seconds"),
        (r#"{"url": "http://a/mcp", "enabled": "false"}"#, "servers.a.enabled: must be true or false, not a string"),
        (r#"{"url": "http://a/mcp", "paused": "yes"}"#, "servers.a.paused: must be true or false, not a string"),
        (r#"{"url": "http://a/mcp", "disabled": 1}"#, "servers.a.disabled: must be true or false, not a number"),
        (r#"{"url": "http://a/mcp", "disabled": true, "disabled": false}"#, "servers.a.disabled: it occurs twice"),
        (r#"{"url": "http://a/mcp", "max_retries": -1}"#, "servers.a.max_retries: must be a whole number"),
        (r#"{"url": "http://a/mcp", "max_retries": 1.5}"#, "servers.a.max_retries: must be a whole number"),
        (r#"{"url": "a/mcp"}"#, "servers.a.url: must be a whole http:// or https:// URL"),
        (r#"{"url": "http://${UNSET}/mcp"}"#, "servers.a.url: the environment variable UNSET is not set"),
        (r#"{"url": "http://a/mcp", "command": "x"}"#, "servers.a.url, script_path, command: set exactly one of them"),
        ("{}", "set exactly one of them"),
        (r#""http://a/mcp""#, "servers.a: must be an object, not a string"),
        (r#"{"command": "x", "args": "stdio"}"#, "servers.a.args: must be an array of strings, not a string"),
        (r#"{"command": "x", "args": ["a", null]}"#, "servers.a.args[1]: must be a string, not null"),
        (r#"{"command": "x", "env": {"A": ["b"]}}"#, "servers.a.env.A: must be a string, not an array"),
        (r#"{"command": "x", "env": {"A": "${UNSET}"}}"#, "servers.a.env.A: the environment variable UNSET is not set"),
        (r#"{"command": "${input:program}"}"#, "servers.a.command: ${input:program} is not understood"),
        (r#"{"command": "x", "headers": {"A": "b"}}"#, "only for url"),
        (r#"{"url": "http://a/mcp", "env": {"A": "b"}}"#, "only for command"),
        (r#"{"url": "http://a/mcp", "type": "sse"}"#, "servers.a.type: the transport \"sse\" is not spoken here"),
        (r#"{"url": "http://a/mcp", "type": "stdio"}"#, "servers.a.type"),
        (r#"{"command": "x", "type": "http"}"#, "servers.a.type"),
        (r#"{"url": "http://a/mcp", "headers": {"A b": "c"}}"#, "servers.a.headers.A b: this cannot be the name of a header"),
        (r#"{"url": "http://a/mcp", "headers": {"A": "b\nc"}}"#, "servers.a.headers.A: its value cannot be that of a header"),
        (r#"{"url": "http://a/mcp", "headers": ["A: b"]}"#, "servers.a.headers: must be an object of strings, not an array"),
        (r#"{"command": "x", "envFile": ".env"}"#, "servers.a.envFile: this field is not understood"),
        (r#"{"url": "http://a/mcp", "oauth": {}}"#, "servers.a.oauth: this field is not understood"),
        (r#"{"url": "http://a/mcp", "tools": {"denied": ["x"]}}"#, "servers.a.tools.denied: this field is not understood"),
        (r#"{"url": "http://a/mcp", "tools": {"deny": "x"}}"#, "servers.a.tools.deny: must be an array of strings, not a string"),
        (r#"{"url": "http://a/mcp", "tools": {"approvals": "sometimes"}}"#, "servers.a.tools.approvals"),
        (r#"{"url": "http://a/mcp", "era": "modern"}"#, r#"servers.a.era: must be "auto" or "legacy""#),
        (r#"{"url": "http://a/mcp", "trust": true}"#, "servers.a.trust: must be a string, not a truth value"),
        (r#"{"url": "http://a/mcp", "headers_from": [{"name": "A"}]}"#, "servers.a.headers_from[0].name, file: set both of them"),
    ] {
        let reason = refused(entry);
        assert!(reason.contains(told), "{entry}: {reason}");
        assert!(!reason.contains("t0p"), "{reason}");
    }
}

#[test]
fn every_problem_of_an_entry_is_told_at_once_and_a_name_twice_is_used_not_once() {
    let reason = refused(r#"{"url": "ftp://x", "timeout": 0, "envFile": "x"}"#);
    assert_eq!(reason.matches("servers.a.").count(), 3, "{reason}");
    let config =
        read(r#"{"servers": [{"name": "a", "url": "http://a"}, {"url": "http://b"}], "mcpServers": {"a": {"url": "http://c"}}}"#);
    assert!(config.servers.is_empty());
    let told: Vec<_> = config.refused.iter().map(|refused| refused.name.as_str()).collect();
    assert_eq!(told, ["servers[1]", "a"]);
}

#[test]
fn what_only_describes_is_ignored_with_a_word() {
    let config =
        read(r#"{"servers": [{"name": "a", "url": "http://a/mcp", "timeuot": 3, "icon": "x.png"}], "x": 1, "inputs": []}"#);
    assert_eq!(config.servers.len(), 1);
    let told = [
        r#"server "a": the unknown field "icon" is ignored"#,
        r#"server "a": the unknown field "timeuot" is ignored"#,
        r#"the unknown field "inputs" is ignored"#,
        r#"the unknown field "x" is ignored"#,
    ];
    assert_eq!(config.warnings, told);
}

#[test]
fn a_list_that_switches_servers_off_is_told_of_and_so_is_what_is_ignored_beside_it() {
    let config = read(
        r#"{"mcpServers": {"gh-a": {"url": "http://a"}, "b": {"url": "http://b"}, "c": {"url": "x"}}, "disabledServers": ["gh*", "c", "d"],
            "mcp": {"allowed": ["e", "gh-a"], "serverCommand": "x", "servers": {}}, "allowed": []}"#,
    );
    let told = [
        r#"disabledServers: no server of this file has the name "d""#,
        r#"server "gh-a": it is switched off by disabledServers"#,
        r#"mcp.allowed: no server of this file has the name "e""#,
        r#"server "b": it is switched off by mcp.allowed"#,
        r#"the unknown field "mcp.serverCommand" is ignored"#,
        r#"the unknown field "mcp.servers" is ignored"#,
        r#"the unknown field "allowed" is ignored"#,
    ];
    assert_eq!(config.warnings, told);
    assert!(config.servers.iter().all(|server| !server.enabled));
}

#[test]
fn a_fault_of_shape_is_told_as_one_and_a_fault_of_syntax_by_its_place() {
    for (text, told) in [
        ("{}", "servers: missing"),
        ("[]", "it must be an object, not an array"),
        (r#""x""#, "it must be an object, not a string"),
        (r#"{"servers": "x"}"#, "servers: must be an array or an object, not a string"),
        (r#"{"servers": [], "log_level": 5}"#, "log_level: must be a string, not a number"),
        (r#"{"servers": [], "servers": []}"#, "servers: it occurs twice"),
    ] {
        let error = parse(text, &variable).expect_err(text);
        assert!(matches!(error, FileError::Shape(_)) && error.to_string().contains(told), "{text}: {error}");
    }
    for (text, place) in [
        ("", "empty"),
        ("{", "line 1"),
        ("{\n\"servers\": [}", "line 2"),
        ("{'servers': []}", "line 1"),
        ("{\"servers\": [] \"a\": 1}", "line 1"),
    ] {
        let error = parse(text, &variable).expect_err(text);
        assert!(matches!(error, FileError::Syntax(_)) && error.to_string().contains(place), "{text}: {error}");
    }
}

#[test]
fn a_server_that_its_operator_took_out_says_why() {
    let server = only(
        r#"{"servers": [{"name": "a", "url": "http://a/mcp", "enabled": false,
            "metadata": {"circuit": "Open", "reason": "3 failures: timeout"}}]}"#,
    );
    assert!(server.circuit_open);
    assert_eq!(server.disabled_because.as_deref(), Some("3 failures: timeout"));
}

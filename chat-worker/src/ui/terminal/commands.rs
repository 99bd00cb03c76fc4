//! The commands that begin with a slash: their names, and what they say. What changes the conversation is `chat`'s.

use std::fmt::Write as _;

use crate::{app::App, tools::sanitize::clean};

/// Every command with its help.
pub const NAMES: [(&str, &str); 15] = [
    ("/help", "this list"),
    ("/servers", "the servers and how they are"),
    ("/tools", "the tools that the model is offered"),
    ("/metrics", "requests, latency, errors and tool calls so far"),
    ("/usage", "tokens and cost of today"),
    ("/model", "the model that answers"),
    ("/reconnect", "[server] connects again, at once"),
    ("/log", "server: the last lines of its standard error"),
    ("/history", "the questions of this conversation"),
    ("/retry", "goes on after a failure"),
    ("/compact", "puts a summary in the place of the conversation"),
    ("/save", "file: writes the conversation"),
    ("/resume", "takes up the last conversation"),
    ("/clear", "begins a new conversation"),
    ("/quit", "leaves"),
];

/// What a command that only tells something says; `None` for one that is not known here.
pub fn tell(app: &App, name: &str, argument: &str) -> Option<String> {
    Some(match name {
        "/help" => NAMES.iter().fold(String::new(), |mut text, (name, help)| {
            let _ = writeln!(text, "{name:<12}{help}");
            text
        }),
        "/servers" => servers(app),
        "/tools" => tools(app),
        "/metrics" => metrics(app),
        "/usage" => usage(app),
        "/model" => format!("{}\nStart with --model (CHAT_MODEL) for another.\n", app.who_answers()),
        "/reconnect" => {
            let server = Some(argument).filter(|argument| !argument.is_empty());
            let known = app.engine.hub.reconnect(server);
            if known { "Connecting again; see /servers.\n".to_owned() } else { format!("There is no server {argument}.\n") }
        }
        "/log" => match app.engine.hub.stderr(argument) {
            Some(lines) if lines.is_empty() => "It has written nothing to its standard error.\n".to_owned(),
            Some(lines) => lines.join("\n") + "\n",
            None => format!("There is no server {argument:?}. Name one of /servers.\n"),
        },
        _ => return None,
    })
}

fn servers(app: &App) -> String {
    let mut text = String::new();
    for server in app.engine.hub.status() {
        let _ = writeln!(text, "{:<24}{}", server.name, server.state.in_words());
    }
    if let Some(problem) = &app.config.borrow().problem {
        let _ = writeln!(text, "The configuration as it is now is not used: {problem}");
    }
    if text.is_empty() { "There are no servers in the configuration.\n".to_owned() } else { text }
}

fn tools(app: &App) -> String {
    let mut text = String::new();
    for tool in app.engine.hub.catalogue().iter() {
        let mark = if tool.destructive { "asks first" } else { "" };
        let description = clean(tool.description.lines().next().unwrap_or_default());
        let _ = writeln!(text, "{:<40}{mark:<12}{description}", tool.name);
    }
    if text.is_empty() { "There are no tools: no server is up.\n".to_owned() } else { text }
}

fn metrics(app: &App) -> String {
    let summary = app.engine.metrics.summary();
    let percent = summary.success_rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
    let latency = summary.average_latency_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"));
    let mut text = String::new();
    for (name, value) in [
        ("requests", summary.requests.to_string()),
        ("successful", summary.successful.to_string()),
        ("failed", summary.failed.to_string()),
        ("success rate", percent),
        ("average latency", latency),
    ] {
        let _ = writeln!(text, "{name:<28}{value:>10}");
    }
    for (kind, count) in &summary.errors {
        let _ = writeln!(text, "{:<28}{count:>10}", format!("error: {kind}"));
    }
    for (tool, count) in &summary.tools {
        let _ = writeln!(text, "{:<28}{count:>10}", format!("tool: {tool}"));
    }
    text
}

fn usage(app: &App) -> String {
    let day = app.engine.ledger.today();
    let cost = match (day.unpriced, day.cost) {
        (0, cost) => format!("${cost:.4}"),
        (_, 0.0) => "cost unknown".to_owned(),
        (unpriced, cost) => format!("${cost:.4}, and {unpriced} answers of unknown price"),
    };
    let mut text = format!("{} (UTC): {} tokens, {cost}\n", day.date, day.usage.total());
    for (model, usage) in &day.models {
        let _ = writeln!(text, "  {model:<26}{:>10} in {:>10} out", usage.total() - usage.output_tokens, usage.output_tokens);
    }
    for (tool, used) in &day.tools {
        let _ = writeln!(text, "  {tool:<26}{:>10} calls, about {} tokens of results", used.calls, used.result_tokens);
    }
    if let Some(percent) = day.budget_percent {
        let _ = writeln!(text, "{percent} % of the day's budget is used.");
    }
    text
}

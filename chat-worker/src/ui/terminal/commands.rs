//! The commands that begin with a slash: their names, and what they say. What changes the conversation is `chat`'s.

use std::{collections::BTreeMap, fmt::Write as _};

use unicode_width::UnicodeWidthStr;

use crate::{app::App, policy, tools::sanitize::clean};

/// Every command with its help.
pub const NAMES: [(&str, &str); 17] = [
    ("/help", "this list"),
    ("/servers", "the servers and how they are"),
    ("/tools", "the tools that the model is offered"),
    ("/resources", "[uri] what servers hold besides, or one of it as a question's beginning"),
    ("/prompt", "[name key=value …] the prompts of the servers, or one of them asked"),
    ("/metrics", "requests, latency, errors and tool calls so far"),
    ("/usage", "tokens and cost of this conversation and of today"),
    ("/model", "[name] the model that answers, or another one"),
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
        let mark = if policy::may_harm(tool) { "asks first" } else { "" };
        let description = clean(tool.description.lines().next().unwrap_or_default());
        let _ = writeln!(text, "{:<40}{mark:<12}{description}", tool.name);
    }
    if text.is_empty() { "There are no tools: no server is up.\n".to_owned() } else { text }
}

fn metrics(app: &App) -> String {
    let summary = app.engine.metrics.summary();
    let percent = summary.success_rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
    let latency = summary.average_latency_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"));
    let count = |counts: &BTreeMap<String, u64>| -> Vec<(String, String)> {
        counts.iter().map(|(name, count)| (clean(name), count.to_string())).collect()
    };
    let requests = [
        ("all", summary.requests.to_string()),
        ("successful", summary.successful.to_string()),
        ("failed", summary.failed.to_string()),
        ("stopped", summary.stopped.to_string()),
        ("success rate", percent),
        ("average latency", latency),
    ];
    let servers = app.engine.hub.status().into_iter().map(|server| {
        let words = server.state.in_words();
        (server.name, words.strip_prefix("is ").map(str::to_owned).unwrap_or(words))
    });
    table(&[
        ("Requests", requests.map(|(name, value)| (name.to_owned(), value)).to_vec()),
        ("Errors", count(&summary.errors)),
        ("Tool calls", count(&summary.tools)),
        ("Servers", servers.collect()),
    ])
}

/// Sections of two columns; figures stand to the right. Sections without rows are left out.
fn table(sections: &[(&str, Vec<(String, String)>)]) -> String {
    let rows = || sections.iter().flat_map(|(_, rows)| rows);
    let width = |of: fn(&(String, String)) -> &String| rows().map(|row| of(row).width()).max().unwrap_or(0);
    let names = width(|row| &row.0).max(16);
    let figures = rows().map(|row| &row.1).filter(|value| is_figure(value)).map(|value| value.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (title, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
        let _ = writeln!(text, "{title}");
        for (name, value) in rows {
            let gap = names.saturating_sub(name.width());
            let indent = if is_figure(value) { figures.saturating_sub(value.width()) } else { 0 };
            let _ = writeln!(text, "  {name}{}  {}{value}", " ".repeat(gap), " ".repeat(indent));
        }
    }
    text
}

fn is_figure(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit() || b".-% s".contains(&byte))
}

/// A cost in words; one that is not known is not nothing.
pub fn dollars(cost: Option<f64>) -> String {
    cost.map_or_else(|| "cost unknown".to_owned(), |cost| format!("${cost:.4}"))
}

/// Today's account.
pub fn usage(app: &App) -> String {
    let day = app.engine.ledger.today();
    let cost = match (day.unpriced, day.cost) {
        (0, cost) => format!("${cost:.4}"),
        (_, 0.0) => "cost unknown".to_owned(),
        (unpriced, cost) => format!("${cost:.4}, and {unpriced} answers of unknown price"),
    };
    let mut text = format!("{} (UTC): {} tokens, {cost}\n", day.date, day.usage.total());
    let models = day.models.iter().map(|(model, usage)| {
        (clean(model), format!("{} in, {} out", usage.total().saturating_sub(usage.output_tokens), usage.output_tokens))
    });
    let tools = day.tools.iter().map(|(tool, used)| {
        let cost = dollars(used.cost);
        (clean(tool), format!("{} calls, about {} tokens of results, {cost}", used.calls, used.result_tokens))
    });
    text += &table(&[("Models", models.collect()), ("Tools", tools.collect())]);
    if let Some(percent) = day.budget_percent {
        let _ = writeln!(text, "{percent} % of the day's budget is used.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_figures_to_the_right_and_empty_sections_are_left_out() {
        let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = table(&[
            ("Requests", vec![row("all", "120"), row("average latency", "0.05 s")]),
            ("Errors", Vec::new()),
            ("Servers", vec![row("a-server-with-a-long-name", "up")]),
        ]);
        let expected = "Requests\n  all                           120\n  average latency            0.05 s\nServers\n  \
                        a-server-with-a-long-name  up\n";
        assert_eq!(text, expected);
    }
}

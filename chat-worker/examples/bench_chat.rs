//! The load of `make bench-chat`: the same conversations straight to the stand-in model and to sandbox-server by a client
//! that does nothing else (`bare`), and through a chat worker (`worker`). Prints its figures as JSON.
//! What is measured beside it, and what is made of the figures, is tests/bench-chat's.

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use futures::{StreamExt, future::join_all};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::sleep_until;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    to: To,
    /// Turns of the rule `rounds`, one after another.
    #[arg(long, global = true, default_value_t = 50)]
    turns: usize,
    /// Turns of the rule `hello`, one after another.
    #[arg(long, global = true, default_value_t = 200)]
    hellos: usize,
    /// Turns of the rule `stream`, at the same time.
    #[arg(long, global = true, default_value_t = 500)]
    streams: usize,
}

#[derive(Debug, Subcommand)]
enum To {
    /// Straight to the model and to the MCP server.
    Bare {
        #[arg(long)]
        model: String,
        #[arg(long)]
        mcp: String,
    },
    /// To a chat worker.
    Worker {
        #[arg(long)]
        url: String,
    },
}

/// One request of a conversation, ready to be sent.
#[derive(Debug)]
struct Ask {
    request: RequestBuilder,
    /// The name of the events in which text comes.
    text: &'static str,
    /// The name of the events that end a round.
    round: &'static str,
}

/// When things came, from the start of the request on.
#[derive(Debug, Default)]
struct Times {
    texts: Vec<Duration>,
    rounds: Vec<Duration>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let http = Client::builder().tcp_nodelay(true).build()?;
    let (mut hellos, mut rounds) = (Vec::new(), Vec::new());
    // The first of each warms connections up.
    for turn in 0..=args.hellos {
        let times = play(&args.to, &http, "hello", turn).await?;
        hellos.extend(times.texts.first().filter(|_| turn > 0).copied());
    }
    let replay = match &args.to {
        To::Bare { model, mcp } => record(&http, model, mcp, "rounds").await?,
        To::Worker { .. } => Vec::new(),
    };
    for turn in 0..=args.turns {
        let times = match &args.to {
            To::Bare { .. } => replayed(&replay).await?,
            To::Worker { .. } => play(&args.to, &http, "rounds", turn).await?,
        };
        let between = times.rounds.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        rounds.extend(between.filter(|_| turn > 0));
    }
    let (gaps, first, seconds) = streams(&args, &http).await?;
    println!(
        "{}",
        json!({"first_token": summary(hellos), "round": summary(rounds), "gap": summary(gaps), "stream_first_token": summary(first),
               "streams": args.streams, "stream_seconds": seconds})
    );
    Ok(())
}

/// All streams: the gaps between the pieces of each, the times to their first pieces, and how long all of it took.
async fn streams(args: &Args, http: &Client) -> anyhow::Result<(Vec<Duration>, Vec<Duration>, f64)> {
    let began = Instant::now();
    let running = (0..args.streams).map(|number| async move {
        // People do not all press the key in the same moment: two milliseconds from one to the next.
        sleep_until((began + Duration::from_millis(2) * u32::try_from(number)?).into()).await;
        play(&args.to, http, "stream", number).await
    });
    let (mut gaps, mut first) = (Vec::new(), Vec::new());
    for times in join_all(running).await {
        let times = times?;
        gaps.extend(times.texts.windows(2).map(|pair| pair[1].saturating_sub(pair[0])));
        first.extend(times.texts.first().copied());
    }
    Ok((gaps, first, began.elapsed().as_secs_f64()))
}

async fn play(to: &To, http: &Client, word: &str, number: usize) -> anyhow::Result<Times> {
    let question = format!("{word} {number}");
    let times = match to {
        To::Worker { url } => {
            let request = http.post(format!("{url}/v1/chat")).json(&json!({"message": question}));
            read(Ask { request, text: "event: text", round: "event: tool_result" }, "event: done").await?.0
        }
        // Without its tool call: what a stream costs is the last answer's text.
        To::Bare { model, .. } => {
            let body = body(&json!([{"role": "user", "content": format!("bare {question}")}]));
            read(to_model(http, model, &body), "event: message_stop").await?.0
        }
    };
    ensure!(!times.texts.is_empty(), "an answer to {question} without text");
    Ok(times)
}

/// Reads a stream to its end, which must be `last`.
async fn read(ask: Ask, last: &str) -> anyhow::Result<(Times, String)> {
    let began = Instant::now();
    let response = ask.request.send().await?.error_for_status()?;
    let (mut times, mut whole) = (Times::default(), String::new());
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let now = began.elapsed();
        let start = whole.rfind('\n').map_or(0, |end| end + 1);
        whole.push_str(std::str::from_utf8(&chunk?).context("pieces of whole characters")?);
        // A line that came in two pieces counts with the second.
        let complete = whole.rfind('\n').map_or(0, |end| end + 1);
        for line in whole.get(start..complete).unwrap_or_default().lines() {
            if line == ask.text {
                times.texts.push(now);
            } else if line == ask.round {
                times.rounds.push(now);
            }
        }
    }
    ensure!(whole.contains(last), "a stream that does not end in {last}: {}", whole.get(..400).unwrap_or(&whole));
    Ok((times, whole))
}

fn to_model(http: &Client, model: &str, body: &Value) -> Ask {
    let request = http.post(format!("{model}/v1/messages")).header("anthropic-version", "2026-10-21").json(body);
    Ask { request, text: "event: content_block_delta", round: "-" }
}

fn body(messages: &Value) -> Value {
    let tools: Vec<_> = ["read_query", "write_query"]
        .iter()
        .map(|tool| json!({"name": format!("db__{tool}"), "input_schema": {"type": "object"}}))
        .collect();
    json!({"model": "m", "max_tokens": 4096, "stream": true, "tools": tools, "messages": messages})
}

fn to_server(http: &Client, mcp: &str, tool: &str, input: &Value) -> RequestBuilder {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
                      "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"}});
    let params = json!({"name": tool, "arguments": input, "_meta": meta});
    http.post(mcp)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
}

/// Holds a conversation once and keeps its requests: replaying them is work that no client can do without.
async fn record(
    http: &Client,
    model: &str,
    mcp: &str,
    word: &str,
) -> anyhow::Result<Vec<(RequestBuilder, Option<RequestBuilder>)>> {
    let mut messages = json!([{"role": "user", "content": word}]);
    let mut requests = Vec::new();
    loop {
        let body = body(&messages);
        let (_, text) = read(to_model(http, model, &body), "event: message_stop").await?;
        let call = tool_use(&text)?;
        let server = call.as_ref().map(|(_, tool, input)| to_server(http, mcp, tool, input));
        let again = server.as_ref().and_then(RequestBuilder::try_clone);
        requests.push((to_model(http, model, &body).request, again));
        let (Some(server), Some((id, tool, input))) = (server, call) else { return Ok(requests) };
        let result: Value = server.send().await?.error_for_status()?.json().await?;
        let text = &result["result"]["content"][0]["text"];
        ensure!(text.is_string(), "{tool}: {result}");
        let Some(list) = messages.as_array_mut() else { unreachable!("made above") };
        let call = json!({"type": "tool_use", "id": id, "name": format!("db__{tool}"), "input": input});
        list.push(json!({"role": "assistant", "content": [call]}));
        let result = json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": text}]});
        list.push(json!({"role": "user", "content": [result]}));
    }
}

/// The call that a stream holds: its id, the tool's name on its server, and the arguments.
fn tool_use(text: &str) -> anyhow::Result<Option<(String, String, Value)>> {
    let (mut found, mut input) = (None, String::new());
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(data)?;
        let block = &event["content_block"];
        if let (Some(id), Some(name)) = (block["id"].as_str(), block["name"].as_str()) {
            found = Some((id.to_owned(), name.trim_start_matches("db__").to_owned()));
        }
        input.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
    }
    Ok(match found {
        Some((id, tool)) => Some((id, tool, serde_json::from_str(&input)?)),
        None => None,
    })
}

async fn replayed(requests: &[(RequestBuilder, Option<RequestBuilder>)]) -> anyhow::Result<Times> {
    let (began, mut times) = (Instant::now(), Times::default());
    for (model, server) in requests {
        let request = model.try_clone().context("a body in memory")?;
        request.send().await?.error_for_status()?.bytes().await?;
        if let Some(server) = server {
            let request = server.try_clone().context("a body in memory")?;
            request.send().await?.error_for_status()?.bytes().await?;
            times.rounds.push(began.elapsed());
        }
    }
    Ok(times)
}

/// In milliseconds.
fn summary(mut values: Vec<Duration>) -> Value {
    values.sort_unstable();
    let at = |percent: usize| {
        let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
        values.get(index).map_or(0.0, |value| value.as_secs_f64() * 1_000.0)
    };
    json!({"count": values.len(), "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100)})
}

//! The load: so many connections, each with one call at a time, for so long. Every answer is read to its end and looked at.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use memchr::memmem;
use serde_json::{Value, json};

use crate::http::Connection;

/// Rows of the table that {n} stands for.
const NUMBERS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Era {
    /// 2026-07-28
    Modern,
    /// Before it; with a session when the server gives one.
    Legacy,
    /// No MCP: the arguments are the body.
    Bare,
}

#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Host and port.
    #[arg(long)]
    address: String,
    /// The path of the endpoint.
    #[arg(long, default_value = "/mcp")]
    path: String,
    #[arg(long, default_value = "modern")]
    era: Era,
    /// The tool.
    #[arg(long)]
    tool: String,
    /// The arguments as JSON. {n} in them becomes a number from 1 to 10,000, and "{n}" that number without quotes.
    #[arg(long, default_value = "{}")]
    arguments: String,
    /// What every answer has to contain; {n} is the number of its call.
    #[arg(long, default_value = "")]
    expect: String,
    /// The address of this machine to call from: another one is another caller.
    #[arg(long)]
    from: Option<IpAddr>,
    /// Any answer will do, also a refusal: the calls are only to be there.
    #[arg(long)]
    any_answer: bool,
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds that are not counted at the start.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
}

/// What all connections send, with the places for the number.
struct Plan {
    head: String,
    body: Vec<String>,
    expect: Vec<String>,
}

impl LoadArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        let arguments: Value = serde_json::from_str(&self.arguments).context("--arguments is not JSON")?;
        let mut call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": self.tool, "arguments": arguments}});
        if self.era == Era::Modern {
            call["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"}});
        }
        let body = if self.era == Era::Bare { arguments.to_string() } else { call.to_string() };
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n",
            self.path, self.address
        );
        match self.era {
            Era::Modern => {
                write!(head, "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {}\r\n", self.tool)?;
            }
            Era::Legacy => head.push_str("mcp-protocol-version: 2025-06-18\r\n"),
            Era::Bare => {}
        }
        let parts = |text: &str| text.split("{n}").map(str::to_owned).collect();
        Ok(Plan { head, body: parts(&body.replace("\"{n}\"", "{n}")), expect: parts(&self.expect) })
    }
}

struct Client {
    connection: Connection,
    head: Vec<u8>,
    seed: u64,
    any_answer: bool,
}

impl Client {
    async fn open(args: &LoadArgs, plan: &Plan, seed: u64) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&args.address, args.from).await?;
        let mut head = plan.head.clone();
        if args.era == Era::Legacy {
            let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}});
            let answer = connection.exchange(head.as_bytes(), hello.to_string().as_bytes()).await?;
            if answer.status != 200 {
                bail!("initialize: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
            }
            if let Some(session) = answer.session {
                write!(head, "mcp-session-id: {session}\r\n")?;
            }
            connection.exchange(head.as_bytes(), br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
        }
        Ok(Self { connection, head: head.into_bytes(), seed, any_answer: args.any_answer })
    }

    async fn call(&mut self, plan: &Plan) -> anyhow::Result<()> {
        // xorshift: the numbers have to be spread, not random.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let number = (self.seed % NUMBERS + 1).to_string();
        let answer = self.connection.exchange(&self.head, plan.body.join(&number).as_bytes()).await?;
        if self.any_answer {
            return Ok(());
        }
        let expected = plan.expect.join(&number);
        let has = |text: &str| memmem::find(&answer.body, text.as_bytes()).is_some();
        if answer.status != 200 || !has(&expected) || has("\"isError\":true") || has("\"error\":{") {
            bail!("{} instead of {expected:?}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }
}

pub async fn load(args: LoadArgs) -> anyhow::Result<()> {
    let plan: &Plan = Box::leak(Box::new(args.plan()?));
    let mut clients = Vec::new();
    for index in 0..args.concurrency {
        clients.push(Client::open(&args, plan, index as u64 * 7919 + 12_345).await?);
    }
    let start = Instant::now() + Duration::from_secs_f64(args.warmup);
    let end = start + Duration::from_secs_f64(args.seconds);
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let (mut times, mut sent) = (Vec::new(), 0_u64);
                loop {
                    let called = Instant::now();
                    if called >= end {
                        return anyhow::Ok((times, sent));
                    }
                    client.call(plan).await?;
                    sent += 1;
                    if called >= start {
                        times.push(called.elapsed());
                    }
                }
            })
        })
        .collect();
    let (mut times, mut sent) = (Vec::new(), 0);
    for task in tasks {
        let (some, of) = task.await??;
        times.extend(some);
        sent += of;
    }
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "far fewer calls than 2^52")]
    let rate = times.len() as f64 / args.seconds;
    println!(
        "{}",
        json!({"calls": times.len(), "sent": sent, "calls_per_second": rate, "p50_ms": at(&times, 50), "p99_ms": at(&times, 99)})
    );
    Ok(())
}

/// A percentile of sorted times, in milliseconds.
fn at(times: &[Duration], percent: usize) -> f64 {
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, Duration::as_secs_f64) * 1000.0
}

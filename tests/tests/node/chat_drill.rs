//! A hundred conversations with an app on a real node while everything around them changes: its key is rotated, a server disabled and
//! enabled, a server stopped, a replica killed. Every turn ends, with an answer or with a word about why not. Run by `make drills`.
//!
//! The model is a stand-in in this process. What becomes of each turn in finer cases is chat-worker's own drill (chat_drill.rs there).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::{Api, ResourceExt, api::ListParams};
use mcpfleet_tests::cluster::{Space, with_space};
use model_standin::{Standin, script::Script};
use operator::{
    crd::{McpApp, McpServer},
    names::Component,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

use crate::setup::{files_of, install, pods_of, ready, server_pods, signal, sqlite};

const CONVERSATIONS: u32 = 100;
const TURNS: usize = 4;
/// The longest that a turn may take: a call that times out at both servers, each tried twice, and what the model takes.
const LONGEST: Duration = Duration::from_secs(30);
/// A kubelet renews the files of Secrets and ConfigMaps every minute or two.
const FILES: Duration = Duration::from_mins(3);

/// `execute_sql_query` may destroy: without `approvals: Always`, a person would be asked.
const SCRIPT: &str = r#"
rules:
  - name: go
    when: [go]
    steps:
      - {tools: [{tool: one__execute_sql_query, input: {query: "SELECT 1"}}, {tool: two__read_query, input: {query: "SELECT 2"}}], delay_ms: 100}
      - {text: "and so the answer comes word by word until it is here", delay_ms: 100, chunk_delay_ms: 40}
otherwise: {text: "what was asked before"}
"#;
const ANSWER: &str = "and so the answer comes word by word until it is here";

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answer,
    /// An answer that says that a tool is missing.
    Without,
    /// An error with a sentence.
    Error(String),
    /// The connection ended: the replica is gone, and the caller knows it.
    Gone,
}

/// The app's API, through its Service.
#[derive(Clone)]
pub struct Chat {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Chat {
    /// Returns once the Service leads to a pod: kube-proxy follows one that is ready by up to a second or two.
    pub async fn of(space: &Space) -> anyhow::Result<Self> {
        let secret = space.api::<Secret>().get("chat-app").await?.data.context("a token")?;
        let token = String::from_utf8(secret["token"].0.clone())?;
        // No connection outlives a turn: each of them is a new choice of the Service's.
        let http =
            reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).connect_timeout(Duration::from_secs(3)).build()?;
        let chat = Self { http, url: format!("http://chat-app.{}.svc.cluster.local", space.name), token };
        let reached = async {
            while chat.http.get(format!("{}/healthz", chat.url)).send().await.is_err_and(|error| error.is_connect()) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.context("the Service leads to no pod")?;
        Ok(chat)
    }

    /// Waits until its first server is up.
    pub async fn until_up(&self) -> anyhow::Result<()> {
        let up = async {
            let mut look = tokio::time::interval(Duration::from_millis(100));
            while self.get("/v1/servers").await?["servers"][0]["state"] != "up" {
                look.tick().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_mins(1), up).await.context("the app never reaches the server")?
    }

    /// The app as an MCP server, and the token for it.
    pub fn mcp(&self) -> (String, &str) {
        (format!("{}/mcp", self.url), &self.token)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    pub fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v1/chat", self.url)).bearer_auth(&self.token).json(body)
    }

    /// One turn; the conversation goes on from what it returned.
    async fn turn(&self, messages: &mut Value) -> anyhow::Result<End> {
        let Ok(response) = self.post(&json!({"message": "go", "messages": messages})).send().await else { return Ok(End::Gone) };
        let status = response.status();
        if !status.is_success() {
            let problem: Value = response.json().await.unwrap_or_default();
            anyhow::ensure!(problem["detail"].is_string(), "{status} without a word: {problem}");
            return Ok(End::Error(format!("{status}: {}", problem["detail"])));
        }
        let Ok(events) = response.text().await else { return Ok(End::Gone) };
        let last = events.lines().rev().find_map(|line| line.strip_prefix("data: "));
        let Some(event) = last.and_then(|data| serde_json::from_str::<Value>(data).ok()) else { return Ok(End::Gone) };
        match event["type"].as_str() {
            Some("done") => {
                messages.clone_from(&event["messages"]);
                let said = event["messages"].as_array().and_then(|messages| messages.last()).context("an answer")?.to_string();
                anyhow::ensure!(said.contains(ANSWER) || said.contains("I have no tool"), "a short answer: {said}");
                Ok(if said.contains(ANSWER) { End::Answer } else { End::Without })
            }
            Some("error") => {
                messages.clone_from(&event["messages"]);
                Ok(End::Error(event["message"].as_str().context("an error says why")?.to_owned()))
            }
            _ => Ok(End::Gone),
        }
    }

    /// Turn after turn: how they ended, how long the longest took, and the conversation.
    async fn talk(self, number: u32, over: Arc<AtomicBool>) -> anyhow::Result<(Vec<End>, Duration, Value)> {
        let (mut ends, mut longest, mut messages) = (Vec::new(), Duration::ZERO, json!([]));
        sleep(Duration::from_millis(20) * number).await;
        while ends.len() < TURNS || !over.load(Ordering::SeqCst) {
            let began = Instant::now();
            let end = tokio::time::timeout(LONGEST, self.turn(&mut messages)).await;
            ends.push(end.with_context(|| format!("conversation {number} hangs, after {ends:?}"))??);
            longest = longest.max(began.elapsed());
            // A conversation does not grow for ever.
            if messages.as_array().is_some_and(|messages| messages.len() > 16) {
                messages = json!([]);
            }
            sleep(Duration::from_millis(1_500)).await;
        }
        Ok((ends, longest, messages))
    }
}

/// Where pods reach what listens on the node.
pub async fn node_address(space: &Space) -> anyhow::Result<String> {
    let nodes: Api<Node> = Api::all(space.client.clone());
    let node = nodes.list(&ListParams::default()).await?.items.into_iter().next().context("a node")?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    Ok(addresses.into_iter().find(|address| address.type_ == "InternalIP").context("a node has an address")?.address)
}

/// A stand-in that pods reach, with its URL. At first it takes any key, as an API takes the old and the new one while both are valid.
pub async fn standin(space: &Space, script: Script) -> anyhow::Result<(Arc<Standin>, String)> {
    let listener = TcpListener::bind((node_address(space).await?.as_str(), 0)).await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let standin = Standin::new(script);
    tokio::spawn(model_standin::serve(Arc::clone(&standin), listener, std::future::pending()));
    Ok((standin, url))
}

fn app(url: &str) -> Value {
    json!({"metadata": {"name": "chat"}, "spec": {
        "servers": [{"name": "one"}, {"name": "two"}],
        "model": {
            "api": "OpenAI", "name": "m", "fallback": "other", "contextTokens": 100_000, "baseUrl": url,
            "apiKeySecretRef": {"name": "model", "key": "key"},
        },
        "replicas": 2,
        "rateLimit": {"requests": 1_000_000},
        "budget": {"tokensPerDay": 1_000_000_000, "alertPercent": 90},
        "approvals": "Always",
        "cacheSeconds": 60,
    }})
}

/// Waits until the key's file of every replica holds this.
async fn key_has_arrived(space: &Space, key: &str) -> anyhow::Result<()> {
    for pod in pods_of(space, Component::App, "chat").await? {
        let folder = files_of(space, &pod.name_any(), "chat-worker").await?.join("app/secrets/model");
        let arrived = async {
            loop {
                for file in std::fs::read_dir(&folder)?.flatten() {
                    if std::fs::read_to_string(file.path()).is_ok_and(|text| text.trim() == key) {
                        return anyhow::Ok(());
                    }
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(FILES, arrived).await.context("the new key does not reach the pod")??;
    }
    Ok(())
}

async fn change_everything(space: &Space, standin: &Standin) -> anyhow::Result<()> {
    let began = Instant::now();
    let say = |what: &str| println!("{:5.1} s: {what}", began.elapsed().as_secs_f64());
    let pause = || sleep(Duration::from_secs(5));
    pause().await;
    say("the key's Secret is changed, and server two disabled");
    space.edit::<Secret>("model", json!({"stringData": {"key": "second"}})).await?;
    space.edit::<McpServer>("two", json!({"spec": {"enabled": false}})).await?;
    key_has_arrived(space, "second").await?;
    standin.require_key("second");
    say("both replicas have the new key, and the old one is refused");
    space.edit::<McpServer>("two", json!({"spec": {"enabled": true}})).await?;
    space.until::<McpServer>("two", "Ready", ready).await?;
    say("server two is enabled again");
    let one = server_pods(space, "one").await?.remove(0).name_any();
    signal(space, &one, "STOP")?;
    say("server one is stopped");
    space.until::<McpServer>("one", "not Ready", |server| !ready(server)).await?;
    pause().await;
    signal(space, &one, "CONT")?;
    space.until::<McpServer>("one", "Ready", ready).await?;
    say("server one goes on");
    let replica = pods_of(space, Component::App, "chat").await?.remove(0).name_any();
    signal(space, &replica, "KILL")?;
    say("a replica is killed");
    let started_again = |pod: &Pod| {
        let status = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        status.into_iter().any(|container| container.restart_count > 0 && container.ready)
    };
    space.until::<Pod>(&replica, "started again", started_again).await?;
    say("the replica is ready again");
    pause().await;
    Ok(())
}

#[tokio::test]
#[ignore = "takes minutes: make drills"]
async fn chat_keeps_a_hundred_conversations_while_everything_around_them_changes() {
    with_space(|space| async move {
        install(&space).await?;
        let (standin, url) = standin(&space, Script::parse(SCRIPT)?).await?;
        space.secret("model", &[("key", "first")]).await?;
        for name in ["one", "two"] {
            let mut server = sqlite(name, 1, 2);
            server["spec"]["timeoutSeconds"] = json!(3);
            server["spec"]["maxRetries"] = json!(1);
            space.create::<McpServer>(server).await?;
            space.until::<McpServer>(name, "Ready", ready).await?;
        }
        space.create::<McpApp>(app(&url)).await?;
        space
            .until::<McpApp>("chat", "two replicas", |app| app.status.as_ref().is_some_and(|status| status.ready_replicas == 2))
            .await?;
        let chat = Chat::of(&space).await?;
        let tools = async {
            while chat.turn(&mut json!([])).await? != End::Answer {
                sleep(Duration::from_millis(200)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_mins(1), tools).await.context("no first answer")??;

        let over = Arc::new(AtomicBool::new(false));
        let people: Vec<_> =
            (0..CONVERSATIONS).map(|number| tokio::spawn(chat.clone().talk(number, Arc::clone(&over)))).collect();
        let changed = change_everything(&space, &standin).await;
        over.store(true, Ordering::SeqCst);
        let talks = tokio::time::timeout(Duration::from_mins(2), join_all(people)).await.context("a conversation hangs")?;
        changed?;
        let talks: Vec<_> = talks.into_iter().map(|talk| talk?).collect::<anyhow::Result<_>>()?;
        let (mut counts, mut longest) = (BTreeMap::<&End, usize>::new(), Duration::ZERO);
        for (ends, took, _) in &talks {
            longest = longest.max(*took);
            for end in ends {
                *counts.entry(end).or_default() += 1;
            }
        }
        for (end, count) in &counts {
            println!("{count:6} {end:?}");
        }
        println!("the longest turn took {:.1} s", longest.as_secs_f64());
        let errors: usize = counts.iter().filter(|(end, _)| matches!(end, End::Error(_))).map(|(_, count)| count).sum();
        anyhow::ensure!(errors == 0, "no change but a replica's death may cost an answer");
        let gone = counts.get(&End::Gone).copied().unwrap_or(0);
        anyhow::ensure!(gone <= usize::try_from(CONVERSATIONS)? * 2, "{gone} turns ended without a word");

        // All is well again, and every conversation goes on.
        for (number, (.., mut messages)) in talks.into_iter().enumerate() {
            let end = tokio::time::timeout(LONGEST, chat.turn(&mut messages)).await.context("a hang")??;
            anyhow::ensure!(end == End::Answer, "conversation {number} does not go on: {end:?}");
        }
        settings_take_effect(&chat, &standin).await
    })
    .await;
}

/// `budget`, `model.api` and `cacheSeconds`; that `approvals` do, every answer has shown.
async fn settings_take_effect(chat: &Chat, standin: &Standin) -> anyhow::Result<()> {
    let usage = chat.get("/v1/usage").await?;
    let percent = usage["today"]["budget_percent"].as_u64();
    anyhow::ensure!(percent.is_some_and(|percent| percent < 90), "a budget that is used in part: {usage}");
    let key = standin.seen().first().and_then(|seen| seen.headers.get("authorization").cloned());
    anyhow::ensure!(key.is_some_and(|key| key == "Bearer first"), "the first key was not sent");
    let paths: Vec<_> = standin.seen().into_iter().map(|seen| seen.path).collect();
    anyhow::ensure!(paths.iter().all(|path| path.contains("chat/completions")), "{paths:?}");
    // Each replica keeps its own answers: of three to the same question, one of the two gives at least two.
    let mut cached = false;
    for _ in 0..3 {
        let events = chat.post(&json!({"message": "again?", "cache": true})).send().await?.error_for_status()?.text().await?;
        cached |= events.contains("\"cached\":true");
    }
    anyhow::ensure!(cached, "the same question is answered anew each time");
    Ok(())
}

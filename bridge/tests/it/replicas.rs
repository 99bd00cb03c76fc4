//! Replicas behind one address, as a Service leads to them, which go and come while clients with sessions call.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify};
use tokio::time::{Instant, sleep};

use crate::sessions::{free_port, keys, replica};
use crate::support::{Bridge, answer, initialize, text, tools_call, until};

const CALLERS: usize = 12;
const ROUNDS: u8 = 4;
/// After a pod was told to end, the Service leads to it for so long.
const LAG: Duration = Duration::from_millis(300);

/// Leads each connection to the next of the pods.
struct Service {
    address: SocketAddr,
    pods: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, pods) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let known = Arc::clone(&pods);
        tokio::spawn(async move {
            for turn in 0.. {
                let (mut client, _) = listener.accept().await.unwrap();
                let pod = {
                    let known = known.lock().unwrap();
                    known[turn % known.len()].clone()
                };
                tokio::spawn(async move {
                    // How a connection ends is seen by the client.
                    if let Ok(mut pod) = TcpStream::connect(pod).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
                    }
                });
            }
        });
        Self { address, pods }
    }

    fn leads_to(&self, pod: &str) {
        self.pods.lock().unwrap().push(pod.to_owned());
    }

    fn leads_to_no_more(&self, pod: &str) {
        self.pods.lock().unwrap().retain(|known| known != pod);
    }
}

/// A message of a client whose connections are its own.
async fn post(http: &Client, address: SocketAddr, session: Option<&str>, body: &Value) -> reqwest::Result<Response> {
    let request = http.post(format!("http://{address}/mcp")).header("accept", "application/json, text/event-stream");
    let request = session.iter().fold(request, |request, session| request.header("mcp-session-id", *session));
    request.json(body).send().await?.error_for_status()
}

/// Calls without end, from when all have a session; what went wrong, and how many calls there were.
async fn calls(address: SocketAddr, number: usize, all_open: &Barrier, over: &AtomicBool) -> (Vec<String>, usize) {
    let http = Client::builder().no_proxy().build().unwrap();
    let opened = post(&http, address, None, &initialize(json!({}))).await.unwrap();
    let session = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    all_open.wait().await;
    let (mut errors, mut count) = (Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let (arguments, began) = (json!({"caller": number, "count": count}), Instant::now());
        // Nothing says that it may be made twice.
        let call =
            json!({"jsonrpc": "2.0", "id": count, "method": "tools/call", "params": {"name": "echo", "arguments": arguments}});
        match post(&http, address, Some(&session), &call).await {
            Ok(response) => assert_eq!(text(&answer(response).await), arguments),
            Err(error) => errors.push(format!("caller {number}, call {count}, after {:?}: {error:?}", began.elapsed())),
        }
        count += 1;
        sleep(Duration::from_millis(20)).await;
    }
    (errors, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_a_session_is_lost_while_replicas_go_and_come() {
    let (keys, port, service) = (keys(), free_port(), Service::start().await);
    let start = async |number: u8| {
        let address = format!("127.0.1.{number}");
        let bridge = replica(&address, port, &keys, "--lame-duck-seconds 2").await;
        bridge.logged("child speaks MCP").await;
        service.leads_to(&format!("{address}:{port}"));
        (format!("{address}:{port}"), bridge)
    };
    let mut replicas = VecDeque::from([start(1).await, start(2).await, start(3).await]);
    let (over, all_open) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(CALLERS + 1)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (address, over, all_open) = (service.address, Arc::clone(&over), Arc::clone(&all_open));
            tokio::spawn(async move { calls(address, number, &all_open, &over).await })
        })
        .collect();
    // Who ends opens no session any more, and says so.
    all_open.wait().await;
    for round in 0..ROUNDS {
        replicas.push_back(start(4 + round).await);
        let (address, mut oldest) = replicas.pop_front().unwrap();
        oldest.signal("-TERM");
        sleep(LAG).await;
        service.leads_to_no_more(&address);
        assert_eq!(oldest.ended().await.code(), Some(0));
    }
    over.store(true, Ordering::Relaxed);
    let (mut errors, mut count) = (Vec::new(), 0);
    for told in futures::future::join_all(callers).await {
        let (wrong, calls) = told.unwrap();
        errors.extend(wrong);
        count += calls;
    }
    assert!(errors.is_empty(), "{} of {count}: {errors:#?}", errors.len());
}

/// A file with these keys: the first seals, all open.
fn keys_of(keys: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    rotate(&file, keys);
    file
}

fn rotate(file: &NamedTempFile, keys: &[u8]) {
    let lines: Vec<String> = keys.iter().map(|key| STANDARD.encode([*key; 32])).collect();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
}

async fn status(replica: &Bridge, session: &str) -> StatusCode {
    replica.post(Some(session), &tools_call("echo", json!({}))).await.status()
}

/// Waits until both replicas answer so.
async fn both_answer(replicas: [&Bridge; 2], session: &str, expected: StatusCode) {
    for replica in replicas {
        until("a replica that has read the keys", async || (status(replica, session).await == expected).then_some(())).await;
    }
}

/// Calls both replicas by turns, until it is over; how often, and every other status than 200.
async fn calls_by_turns(replicas: [&Bridge; 2], session: &str, over: &AtomicBool) -> (usize, Vec<StatusCode>) {
    let (mut count, mut other) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        let told = status(replicas[count % 2], session).await;
        other.extend((told != StatusCode::OK).then_some(told));
        count += 1;
        sleep(Duration::from_millis(20)).await;
    }
    (count, other)
}

/// As the operator rotates them, so that no replica meets a key that it has not read yet.
#[tokio::test]
async fn no_session_is_lost_until_its_key_is() {
    let (keys, port) = (keys_of(&[1]), free_port());
    let (one, two) = (replica("127.0.2.1", port, &keys, "").await, replica("127.0.2.2", port, &keys, "").await);
    let both = [&one, &two];
    // Each knows one key alone: by their sessions, and by what they open, is seen what the others have read.
    let (first_key, second_key) = (keys_of(&[1]), keys_of(&[2]));
    let first = replica("127.0.2.3", port, &first_key, "").await;
    let second = replica("127.0.2.4", port, &second_key, "").await;
    let (of_first, of_second) = (first.initialize(json!({})).await, second.initialize(json!({})).await);
    let old = [one.initialize(json!({})).await, two.initialize(json!({})).await];
    both_answer(both, &of_second, StatusCode::NOT_FOUND).await;

    let (old_over, old_ended, over) = (AtomicBool::new(false), Notify::new(), AtomicBool::new(false));
    let rotation = async {
        rotate(&keys, &[1, 2]);
        both_answer(both, &of_second, StatusCode::OK).await;
        let between = one.initialize(json!({})).await;
        assert_eq!(status(&second, &between).await, StatusCode::NOT_FOUND, "the first of the keys seals");
        assert_eq!(status(&first, &between).await, StatusCode::OK);

        rotate(&keys, &[2, 1]);
        let mut new = Vec::new();
        for replica in both {
            let sealed = async || {
                let session = replica.initialize(json!({})).await;
                (status(&second, &session).await == StatusCode::OK).then_some(session)
            };
            new.push(until("a session under the second key", sealed).await);
        }
        both_answer(both, &of_first, StatusCode::OK).await;
        let calling = futures::future::join_all(new.iter().map(|session| calls_by_turns(both, session, &over)));
        let end = async {
            // From here on, it is their key that goes.
            old_over.store(true, Ordering::Relaxed);
            old_ended.notified().await;
            rotate(&keys, &[2]);
            both_answer(both, &of_first, StatusCode::NOT_FOUND).await;
            // A session's own replica knows it without opening it.
            for (replica, session) in [(&two, &between), (&two, &old[0]), (&one, &old[1])] {
                assert_eq!(status(replica, session).await, StatusCode::NOT_FOUND);
            }
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(calling, end).0
    };
    let old_calling = async {
        let told = futures::future::join_all(old.iter().map(|session| calls_by_turns(both, session, &old_over))).await;
        old_ended.notify_one();
        told
    };
    let (old_told, new_told) = tokio::join!(old_calling, rotation);
    for (count, other) in old_told.into_iter().chain(new_told) {
        assert!(count > 0 && other.is_empty(), "of {count} calls: {other:?}");
    }
}

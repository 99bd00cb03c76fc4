//! Replicas behind one address, as a Service leads to them, which go and come while clients with sessions call.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};

use crate::sessions::{free_port, keys, replica};
use crate::support::{answer, initialize, text};

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

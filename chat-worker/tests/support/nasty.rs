//! A model API that does everything wrong that bytes can do.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How the API answers one request.
#[derive(Debug, Clone)]
pub enum Act {
    /// These bytes, and the end of the connection.
    Bytes(String),
    /// These bytes, and a reset.
    Reset(String),
    /// These bytes one by one, with a pause after each.
    Slow(String),
    /// These bytes, and a connection that stays open and then dies of the next request.
    Tired(String),
    /// These bytes, and silence.
    Silent(String),
    /// What the request asks for: its question says `cut N`, and the first answer to it ends after N bytes of this body.
    Cut(String),
    /// These bytes one by one, for ever again from the second part on.
    Drip(String, String),
}

/// An API that plays one act after another, and the last one again and again.
pub struct Nasty {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
}

impl Nasty {
    pub async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nasty = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&nasty.requests);
        let cut = Arc::new(Mutex::default());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = requests.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream, acts[number.min(acts.len() - 1)].clone(), Arc::clone(&cut)));
            }
        });
        nasty
    }
}

async fn play(mut stream: TcpStream, act: Act, cut: Arc<Mutex<HashSet<usize>>>) {
    let request = read_request(&mut stream).await;
    // The client may leave at any time.
    let _ = match act {
        Act::Bytes(bytes) => stream.write_all(bytes.as_bytes()).await,
        Act::Reset(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            stream.set_zero_linger()
        }
        Act::Slow(bytes) => {
            let mut sent = Ok(());
            for byte in bytes.as_bytes() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                sent = sent.and(stream.write_all(&[*byte]).await);
            }
            sent
        }
        Act::Tired(bytes) => {
            let sent = stream.write_all(bytes.as_bytes()).await;
            read_request(&mut stream).await;
            sent
        }
        Act::Silent(bytes) => {
            let sent = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.read(&mut [0]).await;
            sent
        }
        Act::Cut(bytes) => {
            let number = request.split("cut ").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()).unwrap_or(0);
            let first = cut.lock().unwrap().insert(number);
            let end = if first { number.min(bytes.len()) } else { bytes.len() };
            let head = http("200 OK", "content-type: text/event-stream\r\n", "");
            stream.write_all(&[head.as_bytes(), &bytes.as_bytes()[..end]].concat()).await
        }
        Act::Drip(head, again) => {
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sent = stream.write_all(again.as_bytes()).await;
            }
            sent
        }
    };
}

/// A reset before the request was read would be another fault.
async fn read_request(stream: &mut TcpStream) -> String {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
        }
    }
}

pub fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n{body}")
}

pub fn stream(body: &str) -> String {
    http("200 OK", "content-type: text/event-stream\r\n", body)
}

pub fn event(body: &Value) -> String {
    format!("event: {}\ndata: {body}\n\n", body["type"].as_str().unwrap())
}

/// The events of a good answer.
pub fn events() -> Vec<String> {
    let message =
        json!({"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1}});
    [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "The whole "}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "answer."}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}),
        json!({"type": "message_stop"}),
    ]
    .iter()
    .map(event)
    .collect()
}

pub fn good() -> Act {
    Act::Bytes(stream(&events().concat()))
}

/// A good answer with this in front of its event number `at`, and without its last `less`.
pub fn spoiled(at: usize, with: &str, less: usize) -> Act {
    let mut events = events();
    events.insert(at, with.to_owned());
    events.truncate(events.len() - less);
    Act::Bytes(stream(&events.concat()))
}

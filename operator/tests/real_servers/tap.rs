//! A listener that passes bytes on as they are, and notes every session that the server behind it opens.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

const HEADER: &[u8] = b"mcp-session-id: ";

/// The listener; it ends with this.
pub struct Tap {
    pub addr: SocketAddr,
    sessions: Arc<Mutex<BTreeSet<String>>>,
    accepting: AbortHandle,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Tap {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let sessions = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&sessions);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    if let Ok(upstream) = TcpStream::connect(server).await {
                        let _broken = pass_on(client, upstream, &seen).await;
                    }
                });
            }
        });
        Self { addr, sessions, accepting: accepting.abort_handle() }
    }

    /// Every session that was ever opened through it.
    pub fn sessions(&self) -> BTreeSet<String> {
        self.sessions.lock().expect("no panic").clone()
    }
}

async fn pass_on(mut client: TcpStream, mut upstream: TcpStream, seen: &Mutex<BTreeSet<String>>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = upstream.split();
    let there = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let back = async {
        let (mut buffer, mut tail) = (vec![0; 64 * 1024], Vec::new());
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            tail.extend_from_slice(&buffer[..count]);
            note(&mut tail, seen);
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    tokio::try_join!(there, back).map(|_| ())
}

/// Takes whole session headers out of what has passed, and keeps what may be the beginning of one.
fn note(tail: &mut Vec<u8>, seen: &Mutex<BTreeSet<String>>) {
    let lower = tail.to_ascii_lowercase();
    let mut from = 0;
    while let Some(at) = find(&lower[from..], HEADER).map(|at| from + at + HEADER.len()) {
        let Some(end) = find(&lower[at..], b"\r\n") else {
            tail.drain(..at - HEADER.len());
            return;
        };
        seen.lock().expect("no panic").insert(String::from_utf8_lossy(&tail[at..at + end]).into_owned());
        from = at + end;
    }
    let keep = tail.len().saturating_sub(HEADER.len()).max(from);
    tail.drain(..keep);
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

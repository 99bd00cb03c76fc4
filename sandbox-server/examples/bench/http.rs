//! One connection that sends one request after the other and reads the answers: plain or chunked, nothing else. A general client takes
//! longer for a call than the server that is measured.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const MAX_HEADERS: usize = 48;

/// An open connection and its buffers.
pub struct Connection {
    stream: TcpStream,
    /// What has arrived; the answer in hand begins at its start.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// An answer. The body is valid until the next request.
pub struct Answer<'c> {
    pub status: u16,
    pub session: Option<String>,
    pub body: std::borrow::Cow<'c, [u8]>,
}

/// What the head says about the rest.
struct Head {
    bytes: usize,
    status: u16,
    session: Option<String>,
    length: Length,
}

enum Length {
    Known(usize),
    Chunked,
}

impl Connection {
    /// To a host and port, from an address of this machine if it matters from which.
    pub async fn open(address: &str, from: Option<IpAddr>) -> anyhow::Result<Self> {
        let stream = match from {
            None => TcpStream::connect(address).await,
            Some(from) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(from, 0))?;
                socket.connect(address.parse()?).await
            }
        };
        let stream = stream.with_context(|| format!("no server at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(64 << 10), output: Vec::with_capacity(4 << 10) })
    }

    /// Sends a request whose head is `head`, without its length and the empty line, and reads the whole answer.
    pub async fn exchange(&mut self, head: &[u8], body: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.output.clear();
        self.output.extend_from_slice(head);
        self.output.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        self.output.extend_from_slice(body);
        self.stream.write_all(&self.output).await?;
        self.input.clear();
        let head = loop {
            self.more().await?;
            if let Some(head) = read_head(&self.input)? {
                break head;
            }
        };
        let Head { bytes: start, status, session, length } = head;
        let body = match length {
            Length::Known(length) => {
                while self.input.len() < start + length {
                    self.more().await?;
                }
                std::borrow::Cow::Borrowed(&self.input[start..start + length])
            }
            Length::Chunked => loop {
                if let Some(body) = read_chunks(&self.input[start..])? {
                    break std::borrow::Cow::Owned(body);
                }
                self.more().await?;
            },
        };
        Ok(Answer { status, session, body })
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the server hung up in the middle of an answer");
        }
        Ok(())
    }
}

fn read_head(input: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(input)? else { return Ok(None) };
    let (mut session, mut length) = (None, Length::Known(0));
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value)?;
        if header.name.eq_ignore_ascii_case("content-length") {
            length = Length::Known(value.trim().parse()?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            length = Length::Chunked;
        } else if header.name.eq_ignore_ascii_case("mcp-session-id") {
            session = Some(value.to_owned());
        }
    }
    Ok(Some(Head { bytes, status: response.code.unwrap_or_default(), session, length }))
}

/// The body, when its last chunk is there.
fn read_chunks(mut input: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(input).map_err(|_| anyhow::anyhow!("a chunk without a size"))?;
        let httparse::Status::Complete((start, size)) = parsed else { return Ok(None) };
        let end = start + usize::try_from(size)?;
        if input.len() < end + 2 {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&input[start..end]);
        input = &input[end + 2..];
    }
}

//! Bytes of the model API, with limits: how much is read, how long a line may be, and what went wrong in words.

use std::time::Duration;

use futures::{Stream, StreamExt};
use reqwest::Response;
use tokio::time::timeout;

use super::ModelError;
use crate::redact::redact;

/// An answer larger than this is not read on.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// An event larger than this is no event: the reader would look for its end again with every piece that comes.
const MAX_LINE: usize = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client that all requests to the model share.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("mcpfleet-chat-worker/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // A redirect would carry the key to another host.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// The body up to a limit, and what was wrong where it was not whole.
pub async fn collect(response: Response, limit: usize, idle: Duration) -> (Vec<u8>, Option<ModelError>) {
    let mut body = Vec::new();
    let mut chunks = Box::pin(capped(response));
    let problem = loop {
        if body.len() >= limit {
            break None;
        }
        match timeout(idle, chunks.next()).await {
            Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
            Ok(Some(Err(error))) => break Some(ModelError::Stream(error)),
            Ok(None) => break None,
            Err(_) => break Some(ModelError::Stream("the body stopped in the middle".into())),
        }
    };
    body.truncate(limit);
    (body, problem)
}

/// The body as it comes, in lines, ending in an error where it is larger than an answer can be.
pub fn lines(response: Response) -> impl Stream<Item = Result<bytes::Bytes, String>> {
    in_lines(capped(response))
}

fn capped(response: Response) -> impl Stream<Item = Result<bytes::Bytes, String>> {
    let mut seen = 0;
    response.bytes_stream().map(move |chunk| {
        let chunk = chunk.map_err(|error| reason(&error))?;
        seen += chunk.len();
        if seen > MAX_ANSWER {
            return Err(format!("it is larger than {} MiB", MAX_ANSWER / 1024 / 1024));
        }
        Ok(chunk)
    })
}

fn in_lines(chunks: impl Stream<Item = Result<bytes::Bytes, String>>) -> impl Stream<Item = Result<bytes::Bytes, String>> {
    let mut line = 0;
    chunks.map(move |chunk| {
        let chunk = chunk?;
        line =
            chunk.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(line + chunk.len(), |end| chunk.len() - end - 1);
        if line > MAX_LINE {
            return Err(format!("one of its events is larger than {} MiB", MAX_LINE / 1024 / 1024));
        }
        Ok(chunk)
    })
}

/// The innermost cause in words: reqwest's own sentence names the URL, and not what went wrong.
pub fn reason(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    redact(&source.to_string()).into_owned()
}

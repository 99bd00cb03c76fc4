//! Bytes of the model API, with limits: how much is read, and what went wrong in words.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;
use url::Url;

use super::ModelError;
use crate::connection_error;

/// A stream larger than this is not read on. Each word of an answer comes in an event of its own, which is many times as long.
const MAX_STREAM: usize = 64 * 1024 * 1024;
/// The same of an answer that comes in one piece.
pub const MAX_WHOLE: usize = 16 * 1024 * 1024;
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
    let (mut body, mut response) = (Vec::new(), Capped::new(response));
    let problem = loop {
        if body.len() >= limit {
            break None;
        }
        match timeout(idle, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Err(error)) => break Some(error),
            Ok(Ok(None)) => break None,
            Err(_) => break Some(ModelError::Stream("the body stopped in the middle".into())),
        }
    };
    body.truncate(limit);
    (body, problem)
}

/// A body as it comes, ending in an error where it is larger than an answer can be.
#[derive(Debug)]
pub struct Capped {
    response: Response,
    seen: usize,
}

impl Capped {
    pub fn new(response: Response) -> Self {
        Self { response, seen: 0 }
    }

    /// The next bytes. Nothing is lost when nobody waits for them to the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ModelError> {
        let chunk = self.response.chunk().await.map_err(|error| ModelError::Stream(reason(&error, self.response.url())))?;
        self.seen += chunk.as_ref().map_or(0, Bytes::len);
        if self.seen > MAX_STREAM {
            return Err(ModelError::TooLarge(larger_than(MAX_STREAM)));
        }
        Ok(chunk)
    }
}

/// What is wrong with an answer of more than so many bytes.
pub fn larger_than(bytes: usize) -> String {
    format!("it is larger than {} MiB", bytes / 1024 / 1024)
}

/// What went wrong on the way. Where the API is, is for the log.
pub fn reason(error: &reqwest::Error, url: &Url) -> String {
    tracing::warn!("no answer of the model API at {}: {}", url.host_str().unwrap_or_default(), connection_error::cause(error));
    connection_error::in_words(error, url)
}

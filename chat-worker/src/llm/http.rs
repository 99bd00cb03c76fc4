//! The Messages API over HTTP: one attempt, and the loop around attempts. What an answer is, is `assemble`'s business;
//! whether to try again, `retry`'s.

use std::time::{Duration, SystemTime};

use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt, future::BoxFuture};
use reqwest::{Response, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use url::Url;

use super::{
    Answer, Model, ModelError, Progress, Prompt,
    assemble::{self, Assembler, Seen},
    key::KeySource,
    retry::{self, Hints},
    sentence, wire,
};
use crate::redact::redact;

/// An answer larger than this is not read on.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// An event larger than this is no event: the reader would look for its end again with every piece that comes.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// What is read of an error's body.
const MAX_ERROR_BODY: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the API, and what to ask of it.
#[derive(Debug)]
pub struct Settings {
    pub base_url: Url,
    /// The `anthropic-version` header.
    pub version: String,
    pub key: KeySource,
    pub model: String,
    /// Asked when the model stays overloaded.
    pub fallback: Option<String>,
    pub max_tokens: u32,
    /// For one answer, all attempts together.
    pub deadline: Duration,
    /// Between two events of a stream (pings count).
    pub idle: Duration,
}

/// A client of the Messages API.
#[derive(Debug)]
pub struct Anthropic {
    settings: Settings,
    http: reqwest::Client,
}

/// A failed attempt, with what its headers say.
struct Failed {
    error: ModelError,
    hints: Hints,
}

impl From<ModelError> for Failed {
    fn from(error: ModelError) -> Self {
        Self { error, hints: Hints::default() }
    }
}

impl Anthropic {
    pub fn new(settings: Settings) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("mcpfleet-chat-worker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // A redirect would carry the key to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { settings, http })
    }

    async fn with_retries(
        &self,
        prompt: &Prompt,
        model: &str,
        deadline: Instant,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Answer, ModelError> {
        let (mut retries, mut rotated) = (0, false);
        loop {
            let key = self.settings.key.current().map_err(|error| ModelError::Key(error.to_string()))?;
            let attempt = self.attempt(prompt, model, key.as_ref(), progress);
            let late = || ModelError::Deadline(self.settings.deadline.as_secs()).into();
            let Failed { error, hints } = match timeout_at(deadline, attempt).await.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let unauthorised = matches!(error, ModelError::Status { status: 401, .. });
            let left = deadline.saturating_duration_since(Instant::now());
            let delay = if unauthorised && !rotated && self.settings.key.changed_since(key.as_ref()) {
                rotated = true;
                Some(Duration::ZERO)
            } else {
                retry::next(&error, hints, retries, left, rand::random())
            };
            let Some(after) = delay else { return Err(error) };
            retries += u32::from(!after.is_zero() || !unauthorised);
            tracing::warn!(kind = error.kind(), attempt = retries + 1, "model call failed, trying again: {error}");
            let restart = Progress::Restart { reason: error.to_string(), attempt: retries + 1, after, model: model.to_owned() };
            // Nobody listening is no reason to stop: dropping the call is how a turn is cancelled.
            let _ = progress.send(restart).await;
            tokio::time::sleep(after).await;
        }
    }

    async fn attempt(
        &self,
        prompt: &Prompt,
        model: &str,
        key: Option<&SecretString>,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Answer, Failed> {
        let request = self.post("v1/messages", key).header(header::ACCEPT, "text/event-stream");
        let body = wire::body(prompt, model, self.settings.max_tokens, true);
        let response = timeout(self.settings.idle, request.json(&body).send())
            .await
            .map_err(|_| ModelError::Connect(format!("no answer for {} s", self.settings.idle.as_secs())))?
            .map_err(|error| ModelError::Connect(reason(&error)))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/event-stream" => Ok(self.stream(response, progress).await?),
            "application/json" => {
                let body = self.collect(response, MAX_ANSWER).await?;
                let message: Value = serde_json::from_slice(&body)
                    .map_err(|error| ModelError::Stream(format!("the message is no JSON ({error})")))?;
                Ok(assemble::whole(&message)?)
            }
            other => {
                let what = if other.is_empty() { "no content type" } else { other };
                let base_url = redact(self.settings.base_url.as_str()).into_owned();
                Err(ModelError::NotTheApi(base_url, sentence(what)).into())
            }
        }
    }

    fn post(&self, path: &str, key: Option<&SecretString>) -> reqwest::RequestBuilder {
        let mut url = self.settings.base_url.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        let request = self.http.post(url).header("anthropic-version", &self.settings.version);
        match key {
            Some(key) => {
                let mut value = header::HeaderValue::from_str(key.expose_secret())
                    .unwrap_or(header::HeaderValue::from_static("the-key-holds-characters-that-no-header-can"));
                value.set_sensitive(true);
                request.header("x-api-key", value)
            }
            None => request,
        }
    }

    async fn stream(&self, response: Response, progress: &mpsc::Sender<Progress>) -> Result<Answer, ModelError> {
        let began = Instant::now();
        let mut first_token = None;
        let mut events = Box::pin(in_lines(capped(response)).eventsource());
        let mut assembler = Assembler::default();
        loop {
            let event = timeout(self.settings.idle, events.next())
                .await
                .map_err(|_| ModelError::Stream(format!("nothing came for {} s", self.settings.idle.as_secs())))?
                .ok_or_else(|| ModelError::Stream("the stream ended in the middle".into()))?
                .map_err(|error| ModelError::Stream(error.to_string()))?;
            match assembler.push(&event.data)? {
                Seen::Quiet => {}
                Seen::Progress(step) => {
                    first_token.get_or_insert_with(|| began.elapsed());
                    let _ = progress.send(step).await;
                }
                Seen::Stop => {
                    let mut answer = assembler.finish()?;
                    answer.first_token = first_token;
                    return Ok(answer);
                }
            }
        }
    }

    async fn refused(&self, response: Response) -> Failed {
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let hints = Hints::read(header, SystemTime::now());
        let body = self.collect(response, MAX_ERROR_BODY).await.unwrap_or_default();
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(sentence);
        let message = text(&parsed["error"]["message"]).unwrap_or_else(|| "without saying why".to_owned());
        let kind = text(&parsed["error"]["type"]);
        Failed { error: ModelError::Status { status, kind, message, retry_after: hints.after }, hints }
    }

    /// The body, up to a limit: what is beyond it is cut off for an error, and fails an answer.
    async fn collect(&self, response: Response, limit: usize) -> Result<Vec<u8>, ModelError> {
        let mut body = Vec::new();
        let mut chunks = Box::pin(capped(response));
        while body.len() < limit {
            let next = timeout(self.settings.idle, chunks.next()).await;
            match next.map_err(|_| ModelError::Stream("the body stopped in the middle".into()))? {
                Some(Ok(chunk)) => body.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(ModelError::Stream(error)),
                None => break,
            }
        }
        body.truncate(limit);
        Ok(body)
    }
}

impl Model for Anthropic {
    fn answer<'a>(&'a self, prompt: &'a Prompt, progress: mpsc::Sender<Progress>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            let deadline = Instant::now() + self.settings.deadline;
            let first = self.with_retries(prompt, &self.settings.model, deadline, &progress).await;
            match (first, &self.settings.fallback) {
                (Err(error), Some(fallback)) if error.is_overload() => {
                    tracing::warn!(model = fallback.as_str(), "the model stays overloaded, asking the fallback");
                    let restart = Progress::Restart {
                        reason: error.to_string(),
                        attempt: 1,
                        after: Duration::ZERO,
                        model: fallback.clone(),
                    };
                    let _ = progress.send(restart).await;
                    self.with_retries(prompt, fallback, deadline, &progress).await
                }
                (result, _) => result,
            }
        })
    }

    fn name(&self) -> &str {
        &self.settings.model
    }
}

/// The body as it comes, ending in an error beyond the limit.
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

/// The same, ending in an error when a line does not.
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
fn reason(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    redact(&source.to_string()).into_owned()
}

//! A model behind HTTP: attempts, the loop around them, and the model that is asked when the first stays overloaded. What is
//! said, and how an answer is read, is `api`'s business; whether to try again, `retry`'s; bytes are `transport`'s.

use std::{
    borrow::Cow,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use mcp_wire::sse::Parser;
use reqwest::{Response, header};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use url::Url;

use super::{
    Answer, Listener, Model, ModelError, Progress, Prompt, anthropic,
    api::Api,
    assemble::{Seen, error_of},
    begun::{Begun, accounted},
    history,
    key::KeySource,
    offer::{Offer, Room, Told, names},
    openai::body::Unknown,
    refusal::{self, Parameter, Refused, Sight},
    retry::{self, Hints},
    sentence,
    transport::{self, Capped, MAX_WHOLE, reason},
};
use crate::{
    message::{Usage, block_text},
    redact::redact,
    tools::spec::ToolSpec,
};

/// What is read of an error's body.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// What is shown of an error's body that is only text.
const MAX_PLAIN_ERROR: usize = 300;
/// The most that one event of a stream may come to.
const MAX_EVENT: usize = 4 * 1024 * 1024;
/// Counting must not hold up an answer for long.
const COUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the API, and what to ask of it.
#[derive(Debug)]
pub struct Settings {
    pub api: Api,
    pub base_url: Url,
    pub key: KeySource,
    pub model: String,
    /// Asked when the model stays overloaded.
    pub fallback: Option<String>,
    pub max_tokens: u32,
    /// What the API takes of tools.
    pub room: Room,
    /// For one answer, all attempts together.
    pub deadline: Duration,
    /// Between two events of a stream (pings count).
    pub idle: Duration,
}

/// A client of one API.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    http: reqwest::Client,
    /// It said that it does not count: it is not asked again.
    no_counting: AtomicBool,
    refused: Mutex<Refused>,
    /// What was told of the tools that it is not offered.
    left_out: Told,
    unknown: Mutex<Unknown>,
    /// It said that it sees no pictures: it is not shown any more.
    sees_nothing: AtomicBool,
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

impl Client {
    pub fn new(settings: Settings) -> reqwest::Result<Self> {
        let (refused, unknown) = (Mutex::default(), Mutex::default());
        let (no_counting, sees_nothing) = (AtomicBool::new(false), AtomicBool::new(false));
        let left_out = Told::default();
        Ok(Self { settings, http: transport::client()?, no_counting, refused, left_out, unknown, sees_nothing })
    }

    async fn with_retries(
        &self,
        prompt: &Prompt<'_>,
        model: &str,
        deadline: Instant,
        listener: &dyn Listener,
    ) -> Result<Answer, ModelError> {
        let (mut retries, mut rotated, mut renamed) = (0, false, false);
        let mut prompt = Prompt { messages: Cow::Borrowed(&prompt.messages), offer: Arc::clone(&prompt.offer), ..*prompt };
        if self.sees_nothing.load(Ordering::Relaxed) && history::has_images(&prompt.messages) {
            prompt.messages = Cow::Owned(history::without_images(&prompt.messages));
        }
        loop {
            let key = self.settings.key.current().map_err(|error| ModelError::Key(error.to_string()))?;
            let unknown = *self.unknown();
            let attempt = self.attempt(&prompt, model, unknown, key.as_ref(), listener);
            let late = || ModelError::Deadline(self.settings.deadline.as_secs()).into();
            let Failed { error, hints } = match timeout_at(deadline, attempt).await.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => return Ok(accounted(restored(answer, &prompt.offer), &prompt, model)),
                Err(failed) => failed,
            };
            if let Some(offer) = self.without_refused(&error, &prompt.offer) {
                prompt.offer = offer;
                continue;
            }
            if let Some(sight) = refusal::of_images(&error).filter(|_| history::has_images(&prompt.messages)) {
                tracing::warn!("the model does not take these pictures, it is asked again without: {error}");
                if sight == Sight::None {
                    self.sees_nothing.store(true, Ordering::Relaxed);
                }
                prompt.messages = Cow::Owned(history::without_images(&prompt.messages));
                continue;
            }
            if self.learns_what_is_unknown(&error, unknown, &mut renamed) {
                tracing::warn!("the model API does not know a parameter, it is asked again without: {error}");
                continue;
            }
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
            listener.tell(restart).await;
            tokio::time::sleep(after).await;
        }
    }

    async fn attempt(
        &self,
        prompt: &Prompt<'_>,
        model: &str,
        unknown: Unknown,
        key: Option<&SecretString>,
        listener: &dyn Listener,
    ) -> Result<Answer, Failed> {
        let mut begun = Begun::new(&self.settings.api, prompt, model, listener);
        self.send(&mut begun, unknown, key, listener).await.inspect_err(|_| begun.failed())
    }

    /// Sends the request, and reads what comes.
    async fn send(
        &self,
        begun: &mut Begun<'_>,
        unknown: Unknown,
        key: Option<&SecretString>,
        listener: &dyn Listener,
    ) -> Result<Answer, Failed> {
        let api = &self.settings.api;
        let body = api.body(begun.prompt, begun.model, self.settings.max_tokens, unknown);
        let request = self.post(api.path(), key, body).header(header::ACCEPT, "text/event-stream");
        let response = timeout(self.settings.idle, request.send())
            .await
            .map_err(|_| ModelError::Connect(format!("no answer for {} s", self.settings.idle.as_secs())))?
            .map_err(|error| ModelError::Connect(reason(&error, &self.settings.base_url)))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/event-stream" => Ok(self.stream(response, begun, listener).await?),
            "application/json" => {
                let (body, problem) = transport::collect(response, MAX_WHOLE, self.settings.idle).await;
                let too_large = || (body.len() == MAX_WHOLE).then(|| ModelError::TooLarge(transport::larger_than(MAX_WHOLE)));
                if let Some(problem) = problem.or_else(too_large) {
                    begun.broke_off(body.len(), Usage::default());
                    return Err(problem.into());
                }
                let answer = begun.whole(api, &body)?;
                for text in answer.content.iter().filter_map(block_text) {
                    listener.tell(Progress::Text(text.to_owned())).await;
                }
                Ok(answer)
            }
            other => {
                let what = if other.is_empty() { "no content type" } else { other };
                Err(self.not_the_api(&format!("answered with {}", sentence(what))).into())
            }
        }
    }

    fn post(&self, path: &str, key: Option<&SecretString>, body: Vec<u8>) -> reqwest::RequestBuilder {
        let mut url = self.settings.base_url.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        let headers = self.settings.api.headers(key);
        self.http.post(url).headers(headers).header(header::CONTENT_TYPE, "application/json").body(body)
    }

    async fn stream(&self, response: Response, attempt: &mut Begun<'_>, listener: &dyn Listener) -> Result<Answer, ModelError> {
        let began = Instant::now();
        let mut first_token = None;
        let (mut body, mut events) = (Capped::new(response), Parser::new(MAX_EVENT));
        // One timer, moved on by every event.
        let mut idle = pin!(sleep(self.settings.idle));
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = body.chunk() => chunk?,
                () = &mut idle => {
                    let seconds = self.settings.idle.as_secs();
                    return Err(ModelError::Stream(format!("nothing came for {seconds} s")));
                }
            };
            let Some(chunk) = chunk else {
                if !attempt.may_end() {
                    return Err(ModelError::Stream("the stream ended in the middle".into()));
                }
                return Ok(Answer { first_token, ..attempt.finish()? });
            };
            let mut bytes = &chunk[..];
            while let Some(event) = events.next(&mut bytes).map_err(|error| ModelError::Stream(error.to_string()))? {
                let data = str::from_utf8(&event.data);
                match attempt.push(data.map_err(|_| ModelError::Stream("one of its events is no UTF-8".into()))?)? {
                    Seen::Quiet => {}
                    Seen::Progress(step) => {
                        first_token.get_or_insert_with(|| began.elapsed());
                        listener.tell(step).await;
                    }
                    Seen::Stop => {
                        return Ok(Answer { first_token, ..attempt.finish()? });
                    }
                }
                idle.as_mut().reset(Instant::now() + self.settings.idle);
            }
        }
    }

    async fn refused(&self, response: Response) -> Failed {
        let status = response.status();
        if status.is_redirection() {
            let setting = self.settings.api.base_url_setting();
            let message = format!("it redirects, which is not followed, since the key would go along; check {setting}");
            let status = status.as_u16();
            return ModelError::Status { status, kind: Some("redirect".into()), message, retry_after: None }.into();
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let hints = Hints::read(header, SystemTime::now());
        // What is there of a body that breaks off still says more than nothing.
        let (body, _) = transport::collect(response, MAX_ERROR_BODY, self.settings.idle).await;
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        let place = parsed["error"]["param"].as_str().map(sentence);
        let (kind, message) = if parsed.is_null() { (None, plain(&body)) } else { error_of(&parsed) };
        let mut message = message.unwrap_or_else(|| "without saying why".to_owned());
        if let Some(place) = place.filter(|place| !message.contains(place)) {
            message = format!("{message} ({place})");
        }
        Failed { error: ModelError::Status { status: status.as_u16(), kind, message, retry_after: hints.after }, hints }
    }

    fn not_the_api(&self, what: &str) -> ModelError {
        tracing::warn!("{} is not the model API: it {what}", redact(self.settings.base_url.as_str()));
        ModelError::NotTheApi { what: what.to_owned(), setting: self.settings.api.base_url_setting() }
    }

    /// What to offer after an error that speaks of tools: without those that it names, or fewer. `None` where it is about something
    /// else.
    fn without_refused(&self, error: &ModelError, offer: &Offer) -> Option<Arc<Offer>> {
        let ModelError::Status { status: 400 | 422, message, .. } = error else { return None };
        let refusal = refusal::of(message, offer)?;
        {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.note(&refusal, message, offer);
        }
        tracing::warn!("the model API does not take {refusal}, it is asked again without: {message}");
        Some(self.offer(offer.catalogue.clone()))
    }

    fn unknown(&self) -> MutexGuard<'_, Unknown> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an error says something of the parameters that was not known when the request was sent. `renamed` is whether the limit has gone
    /// by its other name already: of the models behind one URL each may know only one.
    fn learns_what_is_unknown(&self, error: &ModelError, sent: Unknown, renamed: &mut bool) -> bool {
        let Some(parameter) = refusal::of_parameter(error).filter(|_| matches!(self.settings.api, Api::OpenAi { .. })) else {
            return false;
        };
        let mut unknown = self.unknown();
        match parameter {
            Parameter::Limit => {
                unknown.limit = !sent.limit;
                !std::mem::replace(renamed, true)
            }
            Parameter::StreamOptions => {
                unknown.stream_options = true;
                !sent.stream_options
            }
        }
    }

    async fn try_counting(&self, path: &str, prompt: &Prompt<'_>) -> Option<u64> {
        let key = self.settings.key.current().ok().flatten();
        let body = anthropic::body::count(prompt, prompt.model.unwrap_or(&self.settings.model));
        let response = self.post(path, key.as_ref(), body).send().await.ok()?;
        let status = response.status();
        if matches!(status.as_u16(), 404 | 405 | 501) {
            tracing::info!("the model API does not count tokens: prompts are estimated");
            self.no_counting.store(true, Ordering::Relaxed);
        }
        if !status.is_success() {
            return None;
        }
        let (body, _) = transport::collect(response, MAX_ERROR_BODY, COUNT_TIMEOUT).await;
        serde_json::from_slice::<Value>(&body).ok()?["input_tokens"].as_u64()
    }
}

impl Model for Client {
    fn offer(&self, tools: Vec<Arc<ToolSpec>>) -> Arc<Offer> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let offer = Offer::choose(tools, refused.room(self.settings.room), &refused.tools);
        for news in self.left_out.news(&offer.left_out) {
            tracing::warn!("{}", redact(&news));
        }
        Arc::new(offer)
    }

    fn answer<'a>(&'a self, prompt: &'a Prompt<'a>, listener: &'a dyn Listener) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            let deadline = Instant::now() + self.settings.deadline;
            let asked = prompt.model.unwrap_or(&self.settings.model);
            let first = self.with_retries(prompt, asked, deadline, listener).await;
            match (first, &self.settings.fallback) {
                (Err(error), Some(fallback)) if error.is_overload() && fallback != asked => {
                    tracing::warn!(model = fallback.as_str(), "the model stays overloaded, asking the fallback");
                    let restart = Progress::Restart {
                        reason: error.to_string(),
                        attempt: 1,
                        after: Duration::ZERO,
                        model: fallback.clone(),
                    };
                    listener.tell(restart).await;
                    self.with_retries(prompt, fallback, deadline, listener).await
                }
                (result, _) => result,
            }
        })
    }

    fn count<'a>(&'a self, prompt: &'a Prompt<'a>) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async move {
            let path = self.settings.api.count_path().filter(|_| !self.no_counting.load(Ordering::Relaxed))?;
            timeout(COUNT_TIMEOUT, self.try_counting(path, prompt)).await.ok()?
        })
    }

    fn name(&self) -> &str {
        &self.settings.model
    }

    fn price_list(&self) -> Option<&str> {
        self.settings.api.price_list(&self.settings.base_url)
    }
}

/// The arguments of calls as the servers know them.
fn restored(mut answer: Answer, offer: &Offer) -> Answer {
    for block in answer.content.iter_mut().filter(|block| block["type"] == "tool_use") {
        let tool = block["name"].as_str().and_then(|name| offer.get(name)).filter(|tool| !tool.renamed.is_empty());
        if let Some(tool) = tool {
            block["input"] = names::restore(block["input"].take(), &tool.renamed);
        }
    }
    answer
}

/// What an error's body says that is only text. A page of HTML says nothing that fits a sentence.
fn plain(body: &[u8]) -> Option<String> {
    let text = sentence(&String::from_utf8_lossy(body));
    (!text.is_empty() && !text.starts_with('<')).then(|| text.chars().take(MAX_PLAIN_ERROR).collect())
}

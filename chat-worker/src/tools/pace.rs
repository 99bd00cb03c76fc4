//! How fast a server may talk. One that floods is read more slowly, so that it waits and costs the others nothing: the
//! network and the pipe hold it back. Pure, but for the wrapper that puts it around event streams over HTTP.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderName, HeaderValue};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
    },
};
use sse_stream::Sse;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// Events of one stream in a second. Progress that a person can follow is far below.
const EVENTS_A_SECOND: usize = 1_000;

/// An allowance that is new every second.
#[derive(Debug)]
pub struct Pace {
    a_second: usize,
    left: usize,
    since: Instant,
}

impl Pace {
    pub fn new(a_second: usize, now: Instant) -> Self {
        Self { a_second, left: a_second, since: now }
    }

    /// Takes what was used.
    pub fn spend(&mut self, amount: usize, now: Instant) {
        if now >= self.since + SECOND {
            (self.left, self.since) = (self.a_second, now);
        }
        self.left = self.left.saturating_sub(amount);
    }

    /// When it goes on, where the second's allowance is used up.
    pub fn pause(&self, now: Instant) -> Option<Instant> {
        let end = self.since + SECOND;
        (self.left == 0 && now < end).then_some(end)
    }
}

/// An HTTP client whose streams of events are paced.
#[derive(Debug, Clone)]
pub struct Paced(pub reqwest::Client);

type Events = BoxStream<'static, Result<Sse, SseError>>;
type Failure = StreamableHttpError<reqwest::Error>;

fn paced(events: Events) -> Events {
    let pace = Pace::new(EVENTS_A_SECOND, Instant::now());
    stream::unfold((events, pace), |(mut events, mut pace)| async move {
        if let Some(until) = pace.pause(Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        let event = events.next().await?;
        pace.spend(1, Instant::now());
        Some((event, (events, pace)))
    })
    .boxed()
}

impl StreamableHttpClient for Paced {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let answer = self.0.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits);
        Ok(match answer.await? {
            StreamableHttpPostResponse::Sse(events, session) => StreamableHttpPostResponse::Sse(paced(events), session),
            other => other,
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        self.0.delete_session(uri, session_id, auth_header, custom_headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Failure> {
        let size = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, custom_headers, size).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<Events, Failure> {
        let events = self
            .0
            .get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, custom_headers, max_sse_event_size)
            .await?;
        Ok(paced(events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_that_is_used_up_lasts_until_the_next_second() {
        let now = Instant::now();
        let mut pace = Pace::new(10, now);
        pace.spend(9, now);
        assert_eq!(pace.pause(now), None);
        pace.spend(5, now);
        assert_eq!(pace.pause(now), Some(now + SECOND));
        assert_eq!(pace.pause(now + SECOND), None);
        pace.spend(1, now + SECOND);
        assert_eq!(pace.pause(now + SECOND), None);
    }

    #[tokio::test]
    async fn a_flood_of_events_is_taken_slowly() {
        let began = Instant::now();
        let flood = stream::repeat_with(|| Ok(Sse::default())).take(2 * EVENTS_A_SECOND).boxed();
        assert_eq!(paced(flood).count().await, 2 * EVENTS_A_SECOND);
        assert!(began.elapsed() >= SECOND, "{:?}", began.elapsed());
    }
}

//! The id of a request: the caller's own where it sent a plain one, else a new one. Whatever is done for the request carries it, and so does
//! the answer: it is what a person finds the lines of several logs by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Where it stands, in requests and in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// More characters than anybody's ids have.
const MAX_LENGTH: usize = 64;

/// A new one: `req_`, the time in milliseconds, and a count that tells apart what falls into the same one.
pub fn new() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) % 1_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("req_{now}{count:03}")
}

/// Answers a request that has an id in any case, and says it in the answer, unless the answer has one already.
pub async fn with<F: Future<Output = Response>>(mut request: Request, answer: impl FnOnce(Request) -> F) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| {
        // One of ours is plain ASCII.
        HeaderValue::try_from(new()).unwrap_or(HeaderValue::from_static("req_0"))
    });
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = answer(request).await;
    response.headers_mut().entry(REQUEST_ID).or_insert(id);
    response
}

/// The id that `with` gave.
pub fn of(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).unwrap_or("req_0")
}

fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let fits = (1..=MAX_LENGTH).contains(&value.len()) && value.as_bytes().iter().all(plain);
    fits.then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn answered(sent: Option<&str>) -> (String, String) {
        let mut request = Request::new(Body::empty());
        if let Some(sent) = sent {
            request.headers_mut().insert(REQUEST_ID, sent.parse().unwrap());
        }
        let mut seen = String::new();
        let response = with(request, |request| {
            of(request.headers()).clone_into(&mut seen);
            std::future::ready(Response::new(Body::empty()))
        })
        .await;
        (seen, of(response.headers()).to_owned())
    }

    #[tokio::test]
    async fn a_plain_id_is_taken_over_and_any_other_replaced() {
        assert_eq!(answered(Some("abc-1.2_3")).await, ("abc-1.2_3".into(), "abc-1.2_3".into()));
        for odd in [None, Some("a b"), Some(""), Some(&*"x".repeat(65))] {
            let (seen, said) = answered(odd).await;
            assert!(seen == said && said.starts_with("req_") && said.len() == "req_1764400000000000".len(), "{said}");
        }
    }
}

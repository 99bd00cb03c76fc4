//! The whole body of a request, of at most so many bytes, and in at most so much time: whoever trickles keeps no connection busy for ever.

use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use bytes::Bytes;
use http_body_util::LengthLimitError;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body is broken or ended early")]
    Broken,
}

/// Reads it.
pub async fn whole(body: Body, most: usize, patience: Duration) -> Result<Bytes, BodyError> {
    // What says that it will be too large is not waited for.
    if body.size_hint().lower() > most as u64 {
        return Err(BodyError::TooLarge);
    }
    match tokio::time::timeout(patience, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::Slow),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_bytes_and_in_time() {
        assert_eq!(whole(Body::from("12345"), 5, PATIENCE).await, Ok(Bytes::from("12345")));
        assert_eq!(whole(Body::from("123456"), 5, PATIENCE).await, Err(BodyError::TooLarge));
        let pieces = ["123", "456"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        assert_eq!(whole(Body::from_stream(futures::stream::iter(pieces)), 5, PATIENCE).await, Err(BodyError::TooLarge));
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(whole(Body::from_stream(never), 5, PATIENCE).await, Err(BodyError::Slow));
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert_eq!(whole(Body::from_stream(broken), 5, PATIENCE).await, Err(BodyError::Broken));
    }
}

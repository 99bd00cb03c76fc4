//! The whole body of a request, of at most so many bytes, and in at most so much time: whoever trickles keeps no connection busy for ever.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

/// So much of a body that is too large is read and thrown away: most clients read no answer before all is sent, and what is closed while they
/// send reaches them as a broken connection, not as the refusal that it is.
const THROWN_AWAY: u64 = 64 << 20;

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
    let says = body.size_hint().lower();
    if says > most as u64 + THROWN_AWAY {
        return Err(BodyError::TooLarge);
    }
    let reading = tokio::time::timeout(patience, read(body, says, most)).await;
    match reading {
        Err(_) if says > most as u64 => Err(BodyError::TooLarge),
        Err(_) => Err(BodyError::Slow),
        Ok(read) => read,
    }
}

async fn read(body: Body, says: u64, most: usize) -> Result<Bytes, BodyError> {
    let mut pieces = body.into_data_stream();
    let (mut first, mut whole, mut seen) = (None, BytesMut::new(), 0);
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { return Err(if seen > most { BodyError::TooLarge } else { BodyError::Broken }) };
        seen += piece.len();
        if seen > most {
            (first, whole) = (None, BytesMut::new());
            if seen as u64 > most as u64 + THROWN_AWAY {
                break;
            }
        } else if says > most as u64 {
            // It will be.
        } else if seen == piece.len() {
            // Most bodies are one piece, which need not be copied.
            first = Some(piece);
        } else {
            whole.extend_from_slice(&first.take().unwrap_or_default());
            whole.extend_from_slice(&piece);
        }
    }
    match first {
        _ if seen > most => Err(BodyError::TooLarge),
        Some(only) => Ok(only),
        None => Ok(whole.freeze()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_bytes_and_in_time() {
        assert_eq!(whole(Body::from("12345"), 5, PATIENCE).await, Ok(Bytes::from("12345")));
        assert_eq!(whole(Body::from("123456"), 5, PATIENCE).await, Err(BodyError::TooLarge));
        assert_eq!(whole(Body::empty(), 5, PATIENCE).await, Ok(Bytes::new()));
        let pieces = ["12", "", "3", "45"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        assert_eq!(whole(Body::from_stream(futures::stream::iter(pieces)), 5, PATIENCE).await, Ok(Bytes::from("12345")));
        let pieces = ["123", "456"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        assert_eq!(whole(Body::from_stream(futures::stream::iter(pieces)), 5, PATIENCE).await, Err(BodyError::TooLarge));
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(whole(Body::from_stream(never), 5, PATIENCE).await, Err(BodyError::Slow));
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert_eq!(whole(Body::from_stream(broken), 5, PATIENCE).await, Err(BodyError::Broken));
    }
}

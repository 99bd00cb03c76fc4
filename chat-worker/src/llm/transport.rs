//! Bytes of the model API, with limits: how much is read, how long a line may be, and what went wrong in words.

use std::{future::ready, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use reqwest::Response;
use tokio::time::timeout;

use super::ModelError;
use crate::redact::redact;

/// An answer larger than this is not read on.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// An event larger than this is no event.
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
pub fn lines(response: Response) -> impl Stream<Item = Result<Bytes, String>> {
    in_lines(capped(response))
}

fn capped(response: Response) -> impl Stream<Item = Result<Bytes, String>> {
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

/// The same in whole lines, so that the reader of events sees every byte once: it would look for the end of a long line again
/// with each piece that comes. What stands behind the last end of a line is not complete, and is dropped with the stream.
fn in_lines(chunks: impl Stream<Item = Result<Bytes, String>>) -> impl Stream<Item = Result<Bytes, String>> {
    let mut begun = BytesMut::new();
    chunks.filter_map(move |chunk| ready(chunk.and_then(|chunk| take_lines(&mut begun, &chunk)).transpose()))
}

/// The lines that a chunk completes, if it does.
fn take_lines(begun: &mut BytesMut, chunk: &[u8]) -> Result<Option<Bytes>, String> {
    let ends_at = |end: u8, within: &[u8]| within.iter().rposition(|byte| *byte == end);
    // A return at the very end may be the first half of a line's end.
    let end = ends_at(b'\n', chunk).or_else(|| ends_at(b'\r', &chunk[..chunk.len().saturating_sub(1)]));
    let Some(end) = end else {
        begun.extend_from_slice(chunk);
        if begun.len() > MAX_LINE {
            return Err(format!("one of its events is larger than {} MiB", MAX_LINE / 1024 / 1024));
        }
        return Ok(None);
    };
    let (complete, rest) = chunk.split_at(end + 1);
    begun.extend_from_slice(complete);
    let lines = begun.split().freeze();
    begun.extend_from_slice(rest);
    Ok(Some(lines))
}

/// The innermost cause in words: reqwest's own sentence names the URL, and not what went wrong.
pub fn reason(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    redact(&source.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut_and_a_begun_one_is_dropped() {
        let text = b"data: one\r\n\r\ndata: two\n\ndata: thr";
        for cut in 1..text.len() {
            let chunks = [&text[..cut], &text[cut..]].map(|piece| Ok(Bytes::copy_from_slice(piece)));
            let lines: Vec<_> = in_lines(futures::stream::iter(chunks)).collect().await;
            let lines: Vec<Bytes> = lines.into_iter().collect::<Result<_, _>>().expect("no line is too long");
            assert!(lines.iter().all(|lines| lines.ends_with(b"\n")), "{cut}: {lines:?}");
            assert_eq!(lines.concat(), text[..text.len() - 9], "{cut}");
        }
    }
}

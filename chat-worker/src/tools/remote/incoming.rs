//! What comes of a server by HTTP: whole bodies and streams of events, decoded, each within bounds, and no faster than is bearable.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use flate2::{read::MultiGzDecoder, write};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::{HeaderValue, header};
use mcp_wire::{
    body::Coding,
    sse::{Event, Parser},
};
use reqwest::Response;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{RemoteError, met};
use crate::{heavy, tools::pace::Pace};

/// Events of one stream in a second. Progress that a person can follow is far below.
const EVENTS_A_SECOND: usize = 1_000;
/// A longer event counts as one more for each further piece of this size: 16 MiB a second, as of a child.
const EVENT_PIECE: usize = 16 * 1024;
/// So much of what is encoded is decoded at once: little may become a thousand times as much.
const ENCODED_PIECE: usize = 256;
/// Bodies and events beyond this size, in bytes, wait for a place.
const LARGE: usize = 1 << 20;

pub(super) type Events = BoxStream<'static, io::Result<Event>>;

/// Waits for one of the places for what is large; whoever has one keeps it.
async fn place_for(size: usize, place: &mut Option<OwnedSemaphorePermit>, large: &Arc<Semaphore>) {
    if size > LARGE && place.is_none() {
        // It is never closed.
        *place = Arc::clone(large).acquire_owned().await.ok();
    }
}

/// A whole body, decoded, of at most so many bytes, with the place that it takes.
pub(super) async fn whole(
    mut reply: Response,
    most: usize,
    large: &Arc<Semaphore>,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), RemoteError> {
    let gzip = coding(&reply)? == Coding::Gzip;
    let (mut body, mut place) = (Vec::new(), None);
    while let Some(piece) = reply.chunk().await.map_err(|error| RemoteError::Transport(met(&error, reply.url())))? {
        if body.len() + piece.len() > most {
            return Err(RemoteError::TooLarge(most));
        }
        place_for(body.len() + piece.len(), &mut place, large).await;
        body.extend_from_slice(&piece);
    }
    if gzip {
        // Little may become much.
        place_for(most, &mut place, large).await;
        body = heavy::work(most, move || decoded(&body, most)).await?;
    }
    Ok((body, place))
}

fn decoded(body: &[u8], most: usize) -> Result<Vec<u8>, RemoteError> {
    let mut decoded = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = MultiGzDecoder::new(body).take(limit).read_to_end(&mut decoded);
    match read {
        Ok(_) if decoded.len() > most => Err(RemoteError::TooLarge(most)),
        Ok(_) => Ok(decoded),
        Err(_) => Err(RemoteError::Coding(BROKEN.to_owned())),
    }
}

const BROKEN: &str = "its gzip encoding is broken";

fn coding(reply: &Response) -> Result<Coding, RemoteError> {
    let value = reply.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    Coding::of(value).map_err(RemoteError::Coding)
}

/// A stream of events that is being read.
struct Reading {
    reply: Response,
    /// What undoes its encoding, where it has one, and what of it has come and is not decoded yet.
    decoder: Option<Box<write::MultiGzDecoder<Vec<u8>>>>,
    encoded: Bytes,
    parser: Parser,
    /// What has come, decoded, and is not read yet.
    plain: Bytes,
    place: Option<OwnedSemaphorePermit>,
}

impl Reading {
    /// The next event; `None` at the end.
    async fn next(&mut self, large: &Arc<Semaphore>) -> Option<io::Result<Event>> {
        loop {
            let mut left = &self.plain[..];
            let event = self.parser.next(&mut left);
            let taken = self.plain.len() - left.len();
            self.plain.advance(taken);
            if self.parser.size() <= LARGE {
                self.place = None;
            }
            match event {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => return Some(Err(io::Error::other(error))),
            }
            place_for(self.parser.size(), &mut self.place, large).await;
            self.plain = match self.piece().await? {
                Ok(piece) => piece,
                Err(error) => return Some(Err(error)),
            };
        }
    }

    /// What comes next, decoded.
    async fn piece(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.encoded.is_empty() {
                self.encoded = match self.reply.chunk().await {
                    Ok(piece) => piece?,
                    Err(error) => return Some(Err(io::Error::other(error.without_url()))),
                };
            }
            let Some(decoder) = &mut self.decoder else { return Some(Ok(std::mem::take(&mut self.encoded))) };
            let piece = self.encoded.split_to(self.encoded.len().min(ENCODED_PIECE));
            // What has come is read before the next piece comes: it may be the answer.
            if decoder.write_all(&piece).and_then(|()| decoder.flush()).is_err() {
                return Some(Err(io::Error::other(BROKEN)));
            }
            let plain = std::mem::take(decoder.get_mut());
            if !plain.is_empty() {
                return Some(Ok(plain.into()));
            }
        }
    }
}

/// The events of a body, none larger than `most`, and no more in a second than is bearable. One that breaks off ends.
pub(super) fn events(reply: Response, most: usize, large: Arc<Semaphore>) -> Events {
    let decoder = match coding(&reply) {
        Ok(Coding::Plain) => None,
        Ok(Coding::Gzip) => Some(Box::new(write::MultiGzDecoder::new(Vec::new()))),
        Err(error) => return stream::once(async { Err(io::Error::other(error)) }).boxed(),
    };
    let reading = Reading { reply, decoder, encoded: Bytes::new(), parser: Parser::new(most), plain: Bytes::new(), place: None };
    let events = stream::unfold(Some(reading), move |reading| {
        let large = Arc::clone(&large);
        async move {
            let mut reading = reading?;
            match reading.next(&large).await? {
                Ok(event) => Some((Ok(event), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    paced(events.boxed())
}

fn paced(events: Events) -> Events {
    let pace = Pace::new(EVENTS_A_SECOND, Instant::now());
    stream::unfold((events, pace), |(mut events, mut pace)| async move {
        if let Some(until) = pace.pause(Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        let event = events.next().await?;
        let size = event.as_ref().map_or(0, |event| event.data.len());
        pace.spend(1 + size / EVENT_PIECE, Instant::now());
        Some((event, (events, pace)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_flood_of_events_is_taken_slowly() {
        let began = Instant::now();
        let flood = stream::repeat_with(|| Ok(Event::default())).take(2 * EVENTS_A_SECOND).boxed();
        assert_eq!(paced(flood).count().await, 2 * EVENTS_A_SECOND);
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

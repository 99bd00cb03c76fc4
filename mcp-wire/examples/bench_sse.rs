//! What reading server-sent events costs, by our reader and by the crates that there are for it.
//! `cargo run --release -p mcp-wire --example bench_sse` prints a table.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{
    convert::Infallible,
    hint::black_box,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _, TryStreamExt as _, executor::block_on, future, stream};
use mcp_wire::sse::Parser;
use sse_core::{SseDecoder, SseEvent};
use sse_stream::SseStream;
use sseer::event_stream::EventStream;

/// Larger than any event here.
const MOST: usize = 16 << 20;
/// How long a reader is measured in a round.
const MEASURED: Duration = Duration::from_millis(300);
const ROUNDS: usize = 5;

/// Gives how many bytes of data there are.
type Reader = fn(&[Bytes]) -> usize;

const READERS: [(&str, Reader); 5] = [
    ("mcp-wire", by_ours),
    ("sse-core", by_sse_core),
    ("sseer", by_sseer),
    ("eventsource-stream", by_eventsource_stream),
    ("sse-stream", by_sse_stream),
];

fn main() {
    let result = r#""result":{"content":[{"type":"text","text":"twelve rows"}],"isError":false}"#;
    let event = |id| format!("event: message\nid: {id}\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},{result}}}\n\n");
    let small: String = (0..1_000).map(event).collect();
    let large = format!("event: message\ndata: {}\n\n", "x".repeat(10 << 20));
    for (what, text, events, piece) in [
        ("1,000 small events in pieces of 8 KiB", small, 1_000, 8 << 10),
        ("one of 10 MiB in pieces of 16 KiB", large, 1, 16 << 10),
    ] {
        let (size, text) = (f64::from(u32::try_from(text.len()).unwrap()), Bytes::from(text));
        let pieces = (0..text.len()).step_by(piece).map(|at| text.slice(at..text.len().min(at + piece)));
        let pieces: Vec<Bytes> = pieces.collect();
        let expected = by_ours(&pieces);
        println!("{what}, {size} bytes:");
        for (name, read) in READERS {
            assert_eq!(read(&pieces), expected, "{name}");
            let nanos = best(|| read(black_box(&pieces))).as_secs_f64() * 1e9;
            println!("  {name:18} {:8.0} MB/s {:12.0} ns an event", size * 1e3 / nanos, nanos / f64::from(events));
        }
    }
}

/// The best of some rounds, each a mean.
fn best(run: impl Fn() -> usize) -> Duration {
    let round = || {
        let (began, mut times) = (Instant::now(), 0);
        while began.elapsed() < MEASURED {
            black_box(run());
            times += 1;
        }
        began.elapsed() / times
    };
    (0..ROUNDS).map(|_| round()).min().unwrap()
}

/// Looks at the data as text, since all others give it so.
fn by_ours(pieces: &[Bytes]) -> usize {
    let (mut parser, mut found) = (Parser::new(MOST), 0);
    for piece in pieces {
        let mut bytes = &piece[..];
        while let Some(event) = parser.next(&mut bytes).unwrap() {
            found += str::from_utf8(&event.data).unwrap().len();
        }
    }
    found
}

fn by_sse_core(pieces: &[Bytes]) -> usize {
    let (mut decoder, mut found) = (SseDecoder::with_limit(NonZeroUsize::new(MOST).unwrap()), 0);
    for piece in pieces {
        let mut bytes = &piece[..];
        while let Some(event) = decoder.next(&mut bytes) {
            if let SseEvent::Message(message) = event.unwrap() {
                found += message.data.len();
            }
        }
    }
    found
}

fn by_sseer(pieces: &[Bytes]) -> usize {
    sum(EventStream::new(came(pieces)).map_ok(|event| event.data.len()))
}

fn by_eventsource_stream(pieces: &[Bytes]) -> usize {
    sum(came(pieces).eventsource().map_ok(|event| event.data.len()))
}

fn by_sse_stream(pieces: &[Bytes]) -> usize {
    sum(SseStream::from_bytes_stream(came(pieces)).map_ok(|event| event.data.map_or(0, |data| data.len())))
}

fn came(pieces: &[Bytes]) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    stream::iter(pieces.to_vec()).map(Ok)
}

fn sum<E: std::fmt::Debug>(sizes: impl Stream<Item = Result<usize, E>>) -> usize {
    block_on(sizes.try_fold(0, |all, size| future::ok(all + size))).unwrap()
}

//! The body of a response, decoded and bounded, down to the one JSON-RPC message that answers the request. I/O by way of `client`.
//! Streams of events are read in `events`.

mod events;

use std::{
    hash::{BuildHasher as _, RandomState},
    io::{self, Write as _},
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
pub use events::InSession;
use events::events;
use flate2::write::MultiGzDecoder;
use http::{HeaderValue, header};
use mcp_wire::body::{Coding, Content};

use super::{
    client::{Http, Reply},
    protocol::{self, Message, RpcError},
    verdict::{Problem, Step},
};

/// The most that one body may come to, after decoding.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// The most that is read of a body that only explains an error, and how long it is waited for.
const MAX_ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(1);

/// What answered a request.
#[derive(Debug)]
pub enum Answer {
    /// The same bytes as the last time: what they mean is known.
    Same,
    /// Something else than the last time.
    New {
        /// Of its bytes.
        hash: u64,
        /// What it says.
        message: Result<serde_json::Value, RpcError>,
    },
}

/// What an answer must answer.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What was asked.
    pub step: Step,
    /// The request's id.
    pub id: u64,
    /// The answer may be one of several messages in an array.
    pub batches: bool,
}

/// Reads the answer to a request out of a 2xx response. `known` is the hash of the last answer to the same request.
pub async fn read(
    http: &mut Http,
    reply: Reply,
    question: Question,
    known: Option<u64>,
    in_session: Option<InSession<'_>>,
) -> Result<Answer, Problem> {
    let step = question.step;
    match Content::of(reply.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)) {
        Content::Json => {
            let body = whole(http, reply, step, MAX_BODY).await?;
            match json(&body, question, known) {
                Said::Answer(answer) => Ok(answer),
                Said::Broken(problem) | Said::Skipped(problem) => Err(problem),
                Said::Other => Err(Problem::NotMcp(step, "it is a request or a notification".into())),
            }
        }
        Content::Events => events(http, reply, question, known, in_session).await,
        Content::Other(name) => Err(Problem::NotMcp(step, format!("its content type is {}", protocol::one_line(&name)))),
        Content::None if reply.status().as_u16() == 200 => Err(Problem::NotMcp(step, "it has no content type".into())),
        Content::None => Err(Problem::NotMcp(step, format!("HTTP {} without a body", reply.status().as_u16()))),
    }
}

/// What an error response says.
#[derive(Debug, Default)]
pub struct ErrorBody {
    /// Its JSON-RPC error, if it holds one that may be ours.
    pub rpc: Option<RpcError>,
    /// It complains of our Host header.
    pub names_host: bool,
    /// It complains that it was asked without TLS.
    pub wants_tls: bool,
}

/// Reads what there is of an error response's body. A body that breaks or never ends takes nothing away from the status.
pub async fn read_error(http: &mut Http, reply: Reply, step: Step, id: Option<u64>) -> ErrorBody {
    let host = http.route.host.clone();
    let body = tokio::time::timeout(ERROR_BODY_PATIENCE, whole(http, reply, step, MAX_ERROR_BODY)).await;
    let Ok(Ok(body)) = body else {
        http.hang_up();
        return ErrorBody::default();
    };
    let rpc = match protocol::message(&body, id.unwrap_or_default(), false) {
        Ok(Message::Error(error)) => Some(error),
        _ => None,
    };
    let text = String::from_utf8_lossy(&body).to_ascii_lowercase();
    let wants_tls = WANTS_TLS.iter().any(|phrase| text.contains(phrase));
    ErrorBody { rpc, names_host: names_host(&text, host.to_str().unwrap_or_default()), wants_tls }
}

/// The phrases with which servers answer in plain HTTP that they want TLS: nginx, Go, Apache, Tomcat.
const WANTS_TLS: [&str; 4] = [
    "plain http request was sent to https port",
    "http request to an https server",
    "speaking plain http to an ssl-enabled server port",
    "combination of host and port requires tls",
];

/// The phrases with which servers refuse a Host header, and the header's own value.
fn names_host(text: &str, host: &str) -> bool {
    let bare = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    [
        "host header",
        "invalid host",
        "allowed host",
        "host not allowed",
        "host is not allowed",
        "disallowed host",
        "disallowedhost",
        "blocked host",
    ]
    .iter()
    .any(|phrase| text.contains(phrase))
        || (!bare.is_empty() && text.contains(&bare))
}

/// What a text is to a question.
enum Said {
    Answer(Answer),
    /// An answer that is none.
    Broken(Problem),
    /// What clients skip, for they cannot read it or did not ask for it.
    Skipped(Problem),
    /// A notification, or a request of the server's own.
    Other,
}

fn json(body: &[u8], question: Question, known: Option<u64>) -> Said {
    let Question { step, id, batches } = question;
    let hash = hash(body);
    if known == Some(hash) {
        return Said::Answer(Answer::Same);
    }
    match protocol::message(body, id, batches) {
        Ok(Message::Result(result)) => Said::Answer(Answer::New { hash, message: Ok(result) }),
        Ok(Message::Error(error)) => Said::Answer(Answer::New { hash, message: Err(error) }),
        Ok(Message::Other) => Said::Other,
        Err(fault) if fault.answers => Said::Broken(Problem::NotMcp(step, fault.told)),
        Err(fault) => Said::Skipped(Problem::NotMcp(step, fault.told)),
    }
}

/// A whole body.
async fn whole(http: &mut Http, mut reply: Reply, step: Step, most: usize) -> Result<Bytes, Problem> {
    let mut decoder = Decoder::new(&reply, step, most)?;
    let Some(first) = http.chunk(&mut reply, step).await? else { return decoder.finish() };
    // Nearly every answer is one plain piece: it needs no copy.
    if decoder.gzip.is_none() && hyper::body::Body::is_end_stream(reply.body()) && first.len() <= most {
        return Ok(first);
    }
    decoder.push(&first)?;
    while let Some(piece) = http.chunk(&mut reply, step).await? {
        decoder.push(&piece)?;
    }
    decoder.finish()
}

/// Undoes Content-Encoding piece by piece and counts what comes out of it: a bomb is stopped before it goes off.
struct Decoder {
    /// Where it is not plain.
    gzip: Option<Box<MultiGzDecoder<Capped>>>,
    step: Step,
    plain: Capped,
}

impl Decoder {
    fn new(reply: &Reply, step: Step, most: usize) -> Result<Self, Problem> {
        let coding = Coding::of(reply.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes));
        let gzip = match coding.map_err(|what| Problem::NotMcp(step, what))? {
            Coding::Plain => None,
            Coding::Gzip => Some(Box::new(MultiGzDecoder::new(Capped::new(most)))),
        };
        Ok(Self { gzip, step, plain: Capped::new(most) })
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), Problem> {
        let result = match &mut self.gzip {
            None => self.plain.write_all(piece),
            Some(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        };
        result.map_err(|error| self.problem(&error))
    }

    /// What came out since the last time.
    fn take(&mut self) -> Vec<u8> {
        let Self { gzip, plain, .. } = self;
        std::mem::take(&mut gzip.as_mut().map_or(plain, |decoder| decoder.get_mut()).bytes)
    }

    fn finish(mut self) -> Result<Bytes, Problem> {
        if let Some(decoder) = &mut self.gzip {
            let result = decoder.try_finish();
            result.map_err(|error| self.problem(&error))?;
        }
        Ok(self.take().into())
    }

    fn problem(&self, error: &io::Error) -> Problem {
        match error.kind() {
            io::ErrorKind::FileTooLarge => {
                Problem::TooLarge(format!("the answer to {} is more than {MAX_BODY} bytes", self.step))
            }
            io::ErrorKind::UnexpectedEof => Problem::Truncated(self.step),
            _ => Problem::NotMcp(self.step, "its gzip encoding is broken".into()),
        }
    }
}

struct Capped {
    bytes: Vec<u8>,
    left: usize,
}

impl Capped {
    const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), left: most }
    }
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells answers apart. The keys are random, so that no server can make two answers look the same.
pub fn hash(bytes: &[u8]) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(bytes)
}

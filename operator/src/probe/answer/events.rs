//! An answer that comes as server-sent events. In a session the stream is followed as clients do: what the server asks in it is answered,
//! and one that ends before the answer goes on where it ended.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use mcp_wire::{
    body::{Content, SECOND_CHANCE},
    sse::{Parser, Resumption},
};

use super::{Answer, Decoder, MAX_BODY, Question, Said, json};
use crate::probe::{
    client::{Http, Reply},
    converse::Replies,
    route,
    verdict::Problem,
};

/// What a stream in a session is followed by. The revisions without sessions have neither.
pub struct InSession<'a> {
    /// Of the request that it answers, with the session.
    pub headers: &'a HeaderMap,
    /// To whatever the server asks.
    pub replies: &'a mut Replies,
}

/// The event that answers the request. The stream need not end.
pub(super) async fn events(
    http: &mut Http,
    mut reply: Reply,
    question: Question,
    known: Option<u64>,
    mut in_session: Option<InSession<'_>>,
) -> Result<Answer, Problem> {
    let (mut resumption, mut skipped) = (Resumption::default(), None);
    loop {
        let mut stream =
            Stream { question, known, in_session: &mut in_session, resumption: &mut resumption, skipped: &mut skipped };
        let problem = match stream.read(http, reply).await {
            Ended::Answered(answer) => return answer,
            Ended::Silent(problem) => return Err(problem),
            Ended::Early(problem) => problem,
        };
        reply = match (&in_session, &resumption.last) {
            (Some(InSession { headers, .. }), Some(last)) => {
                // As long as the probe has time.
                tokio::time::sleep(resumption.pause).await;
                rest(http, question, headers, last).await?.ok_or(problem)?
            }
            _ => return Err(problem),
        };
    }
}

/// The stream from behind this event on; none where the server has no such thing.
async fn rest(http: &mut Http, question: Question, headers: &HeaderMap, last: &str) -> Result<Option<Reply>, Problem> {
    let Ok(last) = HeaderValue::try_from(last) else { return Ok(None) };
    let mut headers = headers.clone();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(route::LAST_EVENT, last);
    let reply = http.send(question.step, &Method::GET, &headers, &Bytes::new()).await?;
    let content = Content::of(reply.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes));
    if reply.status().is_success() && content == Content::Events {
        return Ok(Some(reply));
    }
    http.finish_body(reply).await;
    Ok(None)
}

/// How a stream ended.
enum Ended {
    Answered(Result<Answer, Problem>),
    /// With nothing more after an event that was skipped.
    Silent(Problem),
    /// Before the answer.
    Early(Problem),
}

/// One stream, and what is known beyond its end.
struct Stream<'a, 's> {
    question: Question,
    known: Option<u64>,
    in_session: &'a mut Option<InSession<'s>>,
    resumption: &'a mut Resumption,
    /// What was wrong with an event that was skipped: it is what is told when nothing better comes.
    skipped: &'a mut Option<Problem>,
}

impl Stream<'_, '_> {
    async fn read(&mut self, http: &mut Http, mut reply: Reply) -> Ended {
        let step = self.question.step;
        let mut decoder = match Decoder::new(&reply, step, MAX_BODY) {
            Ok(decoder) => decoder,
            Err(problem) => return Ended::Answered(Err(problem)),
        };
        let mut parser = Parser::new(MAX_BODY);
        loop {
            let piece = match &self.skipped {
                None => http.chunk(&mut reply, step).await,
                Some(problem) => match tokio::time::timeout(SECOND_CHANCE, http.chunk(&mut reply, step)).await {
                    Ok(piece) => piece,
                    Err(_) => return Ended::Silent(problem.clone()),
                },
            };
            let piece = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(problem) => return Ended::Early(problem),
            };
            if let Err(problem) = decoder.push(&piece) {
                return Ended::Answered(Err(problem));
            }
            if let Some(answer) = self.look(http, &mut parser, &decoder.take()) {
                http.finish_body(reply).await;
                return Ended::Answered(answer);
            }
        }
        let ended = || Problem::NotMcp(step, "the event stream ended without the answer".into());
        Ended::Early(self.skipped.clone().unwrap_or_else(ended))
    }

    /// The answer, if it is in what came.
    fn look(&mut self, http: &Http, parser: &mut Parser, mut came: &[u8]) -> Option<Result<Answer, Problem>> {
        loop {
            let event = match parser.next(&mut came) {
                Ok(event) => event?,
                Err(error) => return Some(Err(Problem::TooLarge(error.to_string()))),
            };
            self.resumption.passed(&event);
            let Some(data) = event.message() else { continue };
            match json(data, self.question, self.known) {
                Said::Answer(answer) => return Some(Ok(answer)),
                Said::Broken(problem) => return Some(Err(problem)),
                Said::Skipped(problem) => *self.skipped = Some(problem),
                Said::Other => {
                    if let Some(InSession { headers, replies }) = self.in_session {
                        replies.answer(http, headers, data, self.question.batches);
                    }
                }
            }
        }
    }
}

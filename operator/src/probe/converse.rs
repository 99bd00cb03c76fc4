//! One probe: which requests are sent in which order, and what is kept for the next one. I/O by way of `client`.
//!
//! It begins with `hail`, and ends at the first problem. Its time limit, hedges and what the outcome means are others' (`worker`, `verdict`).

mod hail;
mod replies;

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use mcp_wire::retry_after;
use serde_json::Value;
use tokio::sync::Semaphore;

pub(super) use replies::Replies;

use super::{
    answer::{self, Answer, InSession},
    client::{Conn, Http, Reply},
    intern::Interner,
    kept::Kept,
    protocol::{self, Hello, Request},
    proxy::Proxy,
    route::{self, Route},
    tools::ToolsList,
    verdict::{Problem, Status, Step},
};
use crate::{clock, crd::Era};

/// How long cleaning up may take where no place of `LATE_PLACES` is left.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// How long a server that hangs is waited for after the probe's time was up, for the answer that opens a session and for the one that
/// says that it is deleted. A server that was stopped reads our question when it goes on, and would keep a session that nobody knows of;
/// or closes a connection that was idle by its clock, and our deletion with it: that is then sent again.
const LATE: Duration = Duration::from_mins(5);
/// How many are waited for so long, over all servers; of one server it is `Route::late`.
static LATE_PLACES: Semaphore = Semaphore::const_new(256);

/// What servers say is kept once, however many of them say it: most of a fleet is replicas.
static HELLOS: LazyLock<Interner<Hello>> = LazyLock::new(Interner::new);
static PAGES: LazyLock<Interner<protocol::Page>> = LazyLock::new(Interner::new);
static LISTS: LazyLock<Interner<ToolsList>> = LazyLock::new(Interner::new);

/// What a target's last probes taught: it saves the next one requests and parsing. Nothing is decided by it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The era, once found.
    pub era: Option<Era>,
    /// Which era to try first while it is not.
    pub legacy_first: bool,
    /// The last initialize was not answered: to ask something else first may save a session.
    pub wary: bool,
    at_discover: AtDiscover,
    hello: Option<(u64, Arc<Hello>)>,
    pages: Vec<KnownPage>,
    tools: Option<Arc<ToolsList>>,
    /// What it said to discover, and all that is kept of it, where something is.
    discovered: Option<Arc<Value>>,
    kept: Option<Kept>,
}

impl Known {
    /// Looks for the era anew. What somebody answered to discover before says nothing of now: who spoke the modern era and was silent to
    /// it for a while is asked once more.
    pub fn forget_era(&mut self) {
        (self.era, self.at_discover) = (None, AtDiscover::Silent);
    }
}

/// What a server did the last time that it was asked to discover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AtDiscover {
    /// Nothing, or it was not asked.
    #[default]
    Silent,
    /// It answered, whatever that was.
    Answers,
    /// Its connection broke: it may have died of it, and would again.
    Breaks,
}

#[derive(Clone, Debug)]
struct KnownPage {
    hash: u64,
    page: Arc<protocol::Page>,
    /// As the server said it, where that is kept.
    said: Option<Arc<Value>>,
}

/// What a probe that went well found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What the server says about itself.
    pub hello: Arc<Hello>,
    /// Its tools, where it offers any.
    pub tools: Option<Arc<ToolsList>>,
    /// It gave a session: a client that comes to another pod with it is not known there.
    pub session: bool,
    /// What will be said for it while it sleeps, where that is kept.
    pub kept: Option<Kept>,
}

/// One probe under way. It can be dropped at any await and then still be finished.
#[derive(Debug)]
pub struct Conversation {
    http: Http,
    known: Known,
    /// The session, where the server opened one.
    session: Option<HeaderValue>,
    /// The revision that the session speaks; requests outside of it may speak another.
    session_version: &'static str,
    version: &'static str,
    /// The answer to this request may open a session.
    opening: bool,
    replies: Replies,
}

impl Conversation {
    /// A probe of the server of `route`, at `ip` where it is a pod.
    pub fn new(route: Arc<Route>, ip: Option<std::net::IpAddr>, proxy: Option<Proxy>, known: Known, conn: Option<Conn>) -> Self {
        Self {
            http: Http::new(route, ip, proxy, conn),
            known,
            session: None,
            session_version: protocol::LEGACY[0],
            version: protocol::MODERN,
            opening: false,
            replies: Replies::default(),
        }
    }

    /// What it is doing now.
    pub const fn step(&self) -> Step {
        self.http.step()
    }

    /// What it learnt so far.
    pub const fn known(&self) -> &Known {
        &self.known
    }

    /// Asks what a client would need.
    pub async fn ask(&mut self) -> Result<Observation, Problem> {
        let hello = self.hail().await?;
        match hello.era {
            Era::Modern => self.look(&hello).await,
            Era::Legacy => self.look_in_session(hello).await,
        }
        .map_err(|problem| self.redacted(problem))
    }

    /// Leaves nothing behind on the server, also after `ask` was dropped half-way. Hands back a connection that can be used again.
    pub async fn finish(mut self) -> Option<Conn> {
        // It may be the rest of its answer that is waited for.
        let opens = self.opening && self.session.is_none() && self.http.waits();
        self.replies.settle().await;
        let late = Arc::clone(&self.http.route.late);
        let places =
            (opens || self.session.is_some()).then(|| late.try_acquire().ok().zip(LATE_PLACES.try_acquire().ok())).flatten();
        let patience = if places.is_some() { LATE } else { CLEAN_UP };
        if opens {
            // The server may be about to open a session for an answer that came too late for the verdict.
            if let Ok(Some(reply)) = tokio::time::timeout(patience, self.http.late_head()).await {
                self.adopt_session(&reply);
                self.http.finish_body(reply).await;
            }
        }
        if self.session.is_some() && tokio::time::timeout(patience, self.delete_session()).await.is_err() {
            self.http.hang_up();
        }
        tokio::time::timeout(CLEAN_UP, self.http.into_idle()).await.ok().flatten()
    }

    /// Looks in a legacy session, and in a second one when the server forgot the first meanwhile.
    async fn look_in_session(&mut self, hello: Arc<Hello>) -> Result<Observation, Problem> {
        match self.look_after_initialized(&hello).await {
            Err(Problem::SessionLost) => {}
            result => return result,
        }
        self.session = None;
        let hello = self.initialize().await?;
        self.look_after_initialized(&hello).await
    }

    async fn look_after_initialized(&mut self, hello: &Arc<Hello>) -> Result<Observation, Problem> {
        self.notify().await?;
        self.look(hello).await
    }

    async fn look(&mut self, hello: &Arc<Hello>) -> Result<Observation, Problem> {
        let tools = if hello.tools {
            Some(self.list(hello.era).await?)
        } else {
            if hello.era == Era::Legacy {
                self.ping().await?;
            }
            None
        };
        if let Some(call) = self.wanted_call(hello) {
            self.call(&call, tools.as_deref()).await?;
        }
        let kept = self.http.route.keeps.then(|| self.kept(hello));
        Ok(Observation { hello: Arc::clone(hello), tools, session: self.session.is_some(), kept })
    }

    /// The call that must succeed, as the tool wants it that was just listed.
    fn wanted_call(&self, hello: &Hello) -> Option<Request> {
        let call = self.http.route.call(hello.era)?;
        let pages = self.known.pages.iter().filter(|_| hello.tools && hello.era == Era::Modern);
        let mut in_headers = pages.flat_map(|page| &page.page.in_headers);
        let named = in_headers.find(|(name, _)| call.name.as_deref() == Some(&**name));
        Some(named.map_or_else(|| call.clone(), |(_, named)| call.with_arguments(named)))
    }

    /// What was said, as one text; the same one as long as the same is said.
    fn kept(&mut self, hello: &Hello) -> Kept {
        let Known { discovered, pages, kept, .. } = &mut self.known;
        let discovered = discovered.as_deref().filter(|_| hello.era == Era::Modern);
        let pages = pages.iter().filter(|_| hello.tools).filter_map(|page| page.said.as_deref());
        kept.get_or_insert_with(|| Kept::new(discovered, pages)).clone()
    }

    async fn ping(&mut self) -> Result<(), Problem> {
        match self.result(&protocol::ping()).await {
            Ok(_) | Err(Problem::Rpc { code: protocol::METHOD_NOT_FOUND, .. }) => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    async fn call(&mut self, call: &Request, listed: Option<&ToolsList>) -> Result<(), Problem> {
        let called = match self.result(call).await {
            Ok(result) => protocol::called(&result),
            Err(Problem::Rpc { code, message, .. }) => Err(Problem::ToolCall(format!("JSON-RPC error {code}: {message}"))),
            Err(problem) => Err(problem),
        };
        // A server may offer more than it lists: that a name is not in the list explains a failure, and is none by itself.
        let name = call.name.as_deref().unwrap_or_default();
        let is_listed = listed.is_some_and(|tools| tools.names().any(|listed| listed == name));
        match called {
            Err(Problem::ToolCall(what)) if is_listed => Err(Problem::ToolCall(format!("{name}: {what}"))),
            Err(Problem::ToolCall(what)) => Err(Problem::ToolCall(format!("{what}; the server lists no tool {name}"))),
            called => called,
        }
    }

    async fn result(&mut self, request: &Request) -> Result<Value, Problem> {
        match self.exchange(request, None).await? {
            Answer::New { message: Ok(result), .. } => Ok(result),
            Answer::New { message: Err(error), .. } => Err(error.problem(request.step)),
            Answer::Same => Err(Problem::NotMcp(request.step, "it is unknown".into())),
        }
    }

    /// Reads all pages of the list. Pages with the same bytes as the last time are not parsed again.
    async fn list(&mut self, era: Era) -> Result<Arc<ToolsList>, Problem> {
        let mut pages: Vec<KnownPage> = Vec::new();
        let mut same = true;
        let mut seen = HashSet::new();
        let mut cursor: Option<Box<str>> = None;
        loop {
            let request = protocol::list(era, cursor.as_deref(), pages.len());
            let keeps = self.http.route.keeps;
            let before = self.known.pages.get(pages.len()).filter(|page| !keeps || page.said.is_some()).cloned();
            let page = match (self.exchange(&request, before.as_ref().map(|page| page.hash)).await?, before) {
                (Answer::Same, Some(before)) => before,
                (Answer::Same, None) => return Err(Problem::NotMcp(Step::List, "it is unknown".into())),
                (Answer::New { message: Err(error), .. }, _) => return Err(error.problem(Step::List)),
                (Answer::New { hash, message: Ok(result) }, _) => {
                    same = false;
                    let page = PAGES.share(protocol::page(&result)?);
                    KnownPage { hash, page, said: keeps.then(|| Arc::new(result)) }
                }
            };
            cursor.clone_from(&page.page.next);
            pages.push(page);
            match &cursor {
                // A cursor that comes twice ends the list: there is nothing new behind it.
                Some(next) if seen.insert(next.clone()) => {}
                _ => break,
            }
            if pages.len() == protocol::MAX_PAGES {
                return Err(Problem::TooLarge(format!("tools/list has more than {} pages", protocol::MAX_PAGES)));
            }
        }
        if let Some(tools) = self.known.tools.as_ref().filter(|_| same && pages.len() == self.known.pages.len()) {
            return Ok(Arc::clone(tools));
        }
        let tools = ToolsList::new(pages.iter().flat_map(|page| page.page.tools.iter().cloned()).collect());
        let tools = LISTS.share(tools.without(pages.iter().flat_map(|page| page.page.left_out.iter().cloned()).collect()));
        self.known.pages = pages;
        self.known.kept = None;
        self.known.tools = Some(Arc::clone(&tools));
        Ok(tools)
    }

    /// Sends a request and reads its answer; statuses other than 2xx are problems.
    async fn exchange(&mut self, request: &Request, known: Option<u64>) -> Result<Answer, Problem> {
        let mut headers = self.headers(request);
        let reply = self.http.send(request.step, &Method::POST, &headers, &request.body).await?;
        if self.opening {
            self.adopt_session(&reply);
            headers.extend(self.session.clone().map(|session| (route::SESSION, session)));
        }
        if reply.status().is_success() {
            // The only revision that allows it, and not before it is agreed upon.
            let batches = self.version == protocol::WITH_ARRAYS;
            let question = answer::Question { step: request.step, id: request.id.unwrap_or_default(), batches };
            let in_session = InSession { headers: &headers, replies: &mut self.replies };
            let in_session = (self.version != protocol::MODERN).then_some(in_session);
            return answer::read(&mut self.http, reply, question, known, in_session).await;
        }
        Err(self.refused(reply, request).await)
    }

    /// Tells the server that we are ready. Any 2xx will do.
    async fn notify(&mut self) -> Result<(), Problem> {
        let request = protocol::initialized();
        let headers = self.headers(&request);
        let reply = self.http.send(request.step, &Method::POST, &headers, &request.body).await?;
        if reply.status().is_success() {
            self.http.finish_body(reply).await;
            return Ok(());
        }
        Err(self.refused(reply, &request).await)
    }

    async fn refused(&mut self, reply: Reply, request: &Request) -> Problem {
        let code = reply.status().as_u16();
        let wait = reply.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wait.and_then(|value| retry_after::read(value, clock::now_exact().into()));
        let body = answer::read_error(&mut self.http, reply, request.step, request.id).await;
        let unknown_method = body.rpc.as_ref().is_some_and(|error| error.code == protocol::METHOD_NOT_FOUND);
        if code == 404 && !unknown_method && self.session.is_some() && self.version != protocol::MODERN && !self.opening {
            return Problem::SessionLost;
        }
        match body.rpc {
            // A 4xx that holds a JSON-RPC error is how MCP says no. 401, 403, 421 and 429 say more by their status.
            Some(error) if (400..500).contains(&code) && !matches!(code, 401 | 403 | 421 | 429) => error.problem(request.step),
            _ if body.wants_tls => Problem::SpeaksTls(request.step),
            _ => {
                let path = self.http.route.redact(self.http.path().to_owned());
                Problem::Status(Status { step: request.step, code, path, retry_after, names_host: body.names_host })
            }
        }
    }

    fn adopt_session(&mut self, reply: &Reply) {
        self.session = reply.headers().get(route::SESSION).filter(|session| !session.is_empty()).cloned();
    }

    async fn delete_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut headers = self.http.route.headers.clone();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(route::SESSION, session);
        headers.insert(route::PROTOCOL_VERSION, HeaderValue::from_static(self.session_version));
        // How it ends is the server's business: some refuse to delete sessions.
        if let Ok(reply) = self.http.send(Step::Initialized, &Method::DELETE, &headers, &Bytes::new()).await {
            self.http.finish_body(reply).await;
        }
    }

    fn headers(&self, request: &Request) -> HeaderMap {
        let mut headers = self.http.route.headers.clone();
        if request.step == Step::Initialize {
            return headers;
        }
        headers.insert(route::PROTOCOL_VERSION, HeaderValue::from_static(self.version));
        for (name, value) in &request.headers {
            headers.insert(name, value.clone());
        }
        if self.version != protocol::MODERN
            && let Some(session) = &self.session
        {
            headers.insert(route::SESSION, session.clone());
        }
        headers
    }

    fn redacted(&self, problem: Problem) -> Problem {
        match problem {
            Problem::Rpc { step, code, message, supported } => {
                Problem::Rpc { step, code, message: self.http.route.redact(message), supported }
            }
            Problem::NotMcp(step, what) => Problem::NotMcp(step, self.http.route.redact(what)),
            Problem::Version(offered) => Problem::Version(self.http.route.redact(offered)),
            Problem::ToolCall(what) => Problem::ToolCall(self.http.route.redact(what)),
            other => other,
        }
    }
}

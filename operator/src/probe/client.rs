//! HTTP/1.1 to one target: dialling, TLS, one request after the other on a kept connection, bodies within bounds. I/O.
//!
//! A connection has no task of its own: whoever waits for its answer drives it. An idle connection costs a socket and no wake-ups,
//! and a dropped probe closes it. What the bodies mean is `protocol`'s, which requests are sent `converse`'s.

mod dial;
mod stream;
mod trouble;

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use mcp_wire::headers;

use dial::{certificate_wanted, dial};
use stream::{First, Heard, Watched};
use trouble::broken;

use super::{
    proxy::Proxy,
    route::{Dial, Route},
    verdict::{Problem, Step},
};

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;

/// A response whose body is still to be read.
pub type Reply = Response<Incoming>;

type Driver = Pin<Box<Connection<TokioIo<Watched>, Full<Bytes>>>>;
type Pending = Pin<Box<dyn Future<Output = hyper::Result<Reply>> + Send>>;

/// A connection between two probes: the socket alone. hyper's buffers are 16 kB a connection, and cost less to make than to keep.
pub struct Conn(Watched);

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conn")
    }
}

/// One connection and what is under way on it.
struct Live {
    sender: SendRequest<Full<Bytes>>,
    /// None once the connection ended.
    driver: Option<Driver>,
    /// Of what came in since it was last cleared.
    first: Arc<First>,
    /// The request that waits for its answer. It is kept here so that a cancelled probe can still learn which session it opened.
    pending: Option<Pending>,
    /// An earlier probe used it.
    reused: bool,
    /// The server asked for a client certificate.
    certificate_wanted: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl Live {
    async fn new(io: Watched, reused: bool) -> hyper::Result<Self> {
        let (first, certificate_wanted) = (Arc::clone(&io.first), io.certificate_wanted);
        let (sender, driver) = http1::Builder::new()
            .max_headers(headers::MOST)
            // A user agent reads a header on two lines as one (RFC 9112, 5.2).
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(io))
            .await?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), first, pending: None, reused, certificate_wanted })
    }

    /// The socket alone, when nothing is under way on it and nothing unread is left of it.
    fn into_idle(self) -> Option<Conn> {
        if self.pending.is_some() || self.sender.is_closed() || !self.sender.is_ready() {
            return None;
        }
        let parts = Pin::into_inner(self.driver?).into_parts();
        let io = parts.io.into_inner();
        (parts.read_buf.is_empty() && io.is_fresh()).then_some(Conn(io))
    }

    /// Waits for `future` while the connection does its part.
    async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        drive(&mut self.driver, future).await
    }

    async fn ready(&mut self) -> hyper::Result<()> {
        let Self { sender, driver, .. } = self;
        drive(driver, poll_fn(|cx| sender.poll_ready(cx))).await
    }

    async fn head(&mut self) -> Option<hyper::Result<Reply>> {
        let Self { pending, driver, .. } = self;
        let result = drive(driver, pending.as_mut()?).await;
        self.pending = None;
        Some(result)
    }
}

async fn drive<T, D: Future>(driver: &mut Option<Pin<Box<D>>>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            *driver = None;
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// Where a target is, and the connection to it.
#[derive(Debug)]
pub struct Http {
    /// What every request to the server carries.
    pub route: Arc<Route>,
    ip: Option<IpAddr>,
    proxy: Option<Proxy>,
    conn: Option<Live>,
    /// What an earlier probe left.
    idle: Option<Conn>,
    /// Where redirects led to.
    path: Option<Uri>,
    /// What a probe is doing now, for its message when the time is up.
    step: Step,
}

impl Http {
    /// A client of the server of `route`, at `ip` where that is a pod, by `proxy` where that wants it, on `conn` if an earlier probe left one.
    pub fn new(route: Arc<Route>, ip: Option<IpAddr>, proxy: Option<Proxy>, idle: Option<Conn>) -> Self {
        Self { route, ip, proxy, conn: None, idle, path: None, step: Step::Connect }
    }

    /// A client of the same server that has a connection of its own.
    pub fn beside(&self) -> Self {
        let Self { route, ip, proxy, path, step, .. } = self;
        let (route, proxy, path) = (Arc::clone(route), proxy.clone(), path.clone());
        Self { route, ip: *ip, proxy, conn: None, idle: None, path, step: *step }
    }

    /// The path that is asked, without its query, which may hold a secret.
    pub fn path(&self) -> &str {
        self.path.as_ref().unwrap_or(&self.route.path).path()
    }

    /// What it is doing now.
    pub const fn step(&self) -> Step {
        self.step
    }

    /// A request was sent, and its answer has not begun.
    pub fn waits(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.pending.is_some())
    }

    /// The answer's head of the request that waits, if there is one and it comes.
    pub async fn late_head(&mut self) -> Option<Reply> {
        self.conn.as_mut()?.head().await?.ok()
    }

    /// The connection, to be used again.
    pub async fn into_idle(mut self) -> Option<Conn> {
        // hyper learns that an answer ended when it is driven once more.
        self.conn.as_mut()?.ready().await.ok()?;
        self.conn?.into_idle()
    }

    /// Closes the connection: what is left on it is not worth reading.
    pub fn hang_up(&mut self) {
        self.conn = None;
    }

    /// Sends one request and follows redirects within the server. Any status but those is an answer.
    pub async fn send(&mut self, step: Step, method: &Method, headers: &HeaderMap, body: &Bytes) -> Result<Reply, Problem> {
        for _ in 0..=MAX_REDIRECTS {
            let reply = self.send_once(step, method, headers, body).await?;
            if !reply.status().is_redirection() || reply.status() == StatusCode::NOT_MODIFIED {
                return Ok(reply);
            }
            self.path = Some(self.redirected(&reply)?);
            self.finish_body(reply).await;
        }
        Err(Problem::Redirected(format!("more than {MAX_REDIRECTS} times in a row")))
    }

    async fn send_once(&mut self, step: Step, method: &Method, headers: &HeaderMap, body: &Bytes) -> Result<Reply, Problem> {
        loop {
            let reused = self.connected().await?;
            self.step = step;
            let request = self.request(method, headers, body);
            // `connected` leaves a connection.
            let Some(conn) = self.conn.as_mut() else { return Err(Problem::Reset(step)) };
            conn.first.clear();
            let pending: Pending = Box::pin(conn.sender.send_request(request));
            conn.pending = Some(pending);
            let error = match conn.head().await {
                Some(Ok(reply)) => {
                    // The next request finds it used: it may be closed by then, and that would say nothing.
                    conn.reused = true;
                    return Ok(reply);
                }
                Some(Err(error)) => error,
                None => return Err(Problem::Reset(step)),
            };
            let heard = conn.first.heard();
            let silent = heard == Heard::Nothing;
            // With TLS 1.3 the handshake is over for us before the server says that it wanted more.
            let unwelcome = silent && conn.certificate_wanted;
            self.conn = None;
            // The server closed an idle connection while we sent: that says nothing about it. A new connection is not `reused`.
            if !(reused && silent) {
                return Err(if unwelcome { certificate_wanted() } else { broken(&error, step, heard) });
            }
        }
    }

    fn request(&self, method: &Method, headers: &HeaderMap, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.path.as_ref().unwrap_or(&self.route.path).clone();
        *request.headers_mut() = headers.clone();
        request
    }

    /// Makes sure that there is a connection. True when it was used before.
    async fn connected(&mut self) -> Result<bool, Problem> {
        if let Some(conn) = self.conn.as_mut()
            && conn.pending.is_none()
            && conn.driver.is_some()
            && conn.ready().await.is_ok()
        {
            return Ok(conn.reused);
        }
        self.conn = None;
        let (io, reused) = match self.idle.take() {
            Some(Conn(io)) if io.is_fresh() && io.is_quiet() => (io, true),
            _ => (dial(&self.route, self.ip, self.proxy.as_ref(), &mut self.step).await?, false),
        };
        let live = Live::new(io, reused).await;
        self.conn = Some(live.map_err(|error| broken(&error, Step::Connect, Heard::Nothing))?);
        Ok(reused)
    }

    /// The path that a redirect leads to, if it stays with the server.
    fn redirected(&self, reply: &Reply) -> Result<Uri, Problem> {
        let code = reply.status().as_u16();
        let location = reply.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| Problem::Redirected(format!("HTTP {code} without a Location")))?;
        let scheme = if self.route.tls.is_some() { "https" } else { "http" };
        let host = self.route.host.to_str().unwrap_or_default();
        let path = self.path.as_ref().unwrap_or(&self.route.path);
        let unusable = |_| Problem::Redirected(format!("HTTP {code} to a Location that is no URL"));
        let base = url::Url::parse(&format!("{scheme}://{host}{path}")).map_err(unusable)?;
        let target = base.join(location).map_err(unusable)?;
        // Where to, and no more of it: what follows may be a login's own business.
        let origin = target.origin().ascii_serialization();
        if !matches!(code, 307 | 308) {
            let why = "is not followed, because it may turn a POST into a GET";
            return Err(Problem::Redirected(format!("HTTP {code} to {origin} {why}")));
        }
        if target.origin() != base.origin() && !self.is_own_address(&target, scheme) {
            return Err(Problem::Redirected(format!("HTTP {code} to {origin}, another scheme, host or port, is not followed")));
        }
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", target.path())
            .parse()
            .map_err(|_| Problem::Redirected(format!("HTTP {code} to a path that is none")))
    }

    /// A pod may name itself by its address instead of by the Host that it was asked with.
    fn is_own_address(&self, target: &url::Url, scheme: &str) -> bool {
        let Dial::Pod(port) = self.route.dial else { return false };
        let ip = match target.host() {
            Some(url::Host::Ipv4(ip)) => Some(IpAddr::from(ip)),
            Some(url::Host::Ipv6(ip)) => Some(IpAddr::from(ip)),
            _ => None,
        };
        ip.is_some() && ip == self.ip && target.port_or_known_default() == Some(port) && target.scheme() == scheme
    }

    /// The next piece of a body; none at its end.
    pub async fn chunk(&mut self, reply: &mut Reply, step: Step) -> Result<Option<Bytes>, Problem> {
        loop {
            let body = reply.body_mut();
            let next = poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut *body), cx));
            let frame = match self.conn.as_mut() {
                Some(conn) => conn.drive(next).await,
                None => next.await,
            };
            match frame {
                None => return Ok(None),
                // Trailers are nothing to us.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    self.conn = None;
                    return Err(broken(&error, step, Heard::Something));
                }
            }
        }
    }

    /// Reads the rest of a body that does not matter, so that the connection can be used again; gives the connection up when that
    /// would take long.
    pub async fn finish_body(&mut self, mut reply: Reply) {
        const PATIENCE: Duration = Duration::from_millis(20);
        const MOST: usize = 64 * 1024;
        if hyper::body::Body::is_end_stream(reply.body()) {
            return;
        }
        let rest = async {
            let mut read = 0;
            while let Ok(Some(data)) = self.chunk(&mut reply, Step::Connect).await {
                read += data.len();
                if read > MOST {
                    return false;
                }
            }
            true
        };
        if !tokio::time::timeout(PATIENCE, rest).await.unwrap_or(false) {
            self.conn = None;
        }
    }
}

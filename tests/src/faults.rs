//! Faults between a program and the API server: a program that dies in the middle of a write, and an API server that is away.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering},
    },
    task::{Context, Poll},
};

use anyhow::Context as _;
use http::{Method, Request};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;
use tower::{Layer, Service};

/// Counts the writes of a client. The one that it is to die at takes effect, and whoever made it never learns of that, nor of anything
/// after it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mortal {
    /// Writes that are left.
    left: Arc<AtomicIsize>,
    dead: Arc<watch::Sender<bool>>,
}

impl Default for Mortal {
    fn default() -> Self {
        Self { left: Arc::new(AtomicIsize::new(isize::MAX)), dead: Arc::new(watch::Sender::new(false)) }
    }
}

impl Mortal {
    /// The client of a test, through this.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(ClientBuilder::try_from(Config::infer().await?)?.with_layer(self).build())
    }

    /// It dies at this write from now on: 1 is the next.
    pub fn dies_at(&self, write: isize) {
        self.left.store(write, Ordering::Relaxed);
    }

    /// It did.
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Waits until it is dead.
    pub async fn died(&self) {
        // The sender is here.
        let _ended = self.dead.subscribe().wait_for(|dead| *dead).await.is_err();
    }

    fn is_last(&self, method: &Method) -> bool {
        *method != Method::GET && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

impl<S> Layer<S> for Mortal {
    type Service = Dying<S>;

    fn layer(&self, inner: S) -> Dying<S> {
        Dying { inner, mortal: self.clone() }
    }
}

/// See [`Mortal`].
#[derive(Debug)]
pub struct Dying<S> {
    inner: S,
    mortal: Mortal,
}

impl<S> Service<Request<Body>> for Dying<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mortal, last) = (self.mortal.clone(), self.mortal.is_last(request.method()));
        if *mortal.dead.borrow() {
            return Box::pin(std::future::pending());
        }
        let reply = self.inner.call(request);
        Box::pin(async move {
            let reply = tokio::select! {
                biased;
                () = mortal.died() => None,
                reply = reply => Some(reply),
            };
            if last {
                mortal.dead.send_replace(true);
            }
            match reply.filter(|_| !last) {
                Some(reply) => reply,
                None => std::future::pending().await,
            }
        })
    }
}

/// A way to the API server that can be cut: connections break, and new ones are closed, as when the API server is killed.
#[derive(Debug)]
pub struct Way {
    open: watch::Sender<bool>,
    here: SocketAddr,
    config: Config,
    _relaying: AbortOnDropHandle<()>,
}

impl Way {
    /// It is open.
    pub async fn open() -> anyhow::Result<Self> {
        let mut config = Config::infer().await?;
        let host = config.cluster_url.host().context("the API server has a name")?.to_owned();
        let there = format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(443));
        config.tls_server_name.get_or_insert(host);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let here = listener.local_addr()?;
        let (open, is_open) = watch::channel(true);
        let relaying = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(relay(near, there.clone(), is_open.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { open, here, config, _relaying: AbortOnDropHandle::new(relaying) })
    }

    /// A client that goes this way.
    pub fn client(&self) -> anyhow::Result<Client> {
        let mut config = self.config.clone();
        config.cluster_url = format!("https://{}", self.here).parse()?;
        Ok(Client::try_from(config)?)
    }

    /// Nobody gets through from now on.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Everybody gets through again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn relay(mut near: TcpStream, there: String, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(there).await else { return };
    tokio::select! {
        // Both ends see how it ends.
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = open.wait_for(|open| !*open) => {}
    }
}

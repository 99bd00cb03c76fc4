//! Children of single sessions: as many as are allowed, and one that is started beforehand, so that a session begins in the time of a call.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls::Limits;
use crate::death::Death;
use crate::handshake::{By, Known};
use crate::lane::{End, Lane, Program};
use crate::metrics::Metrics;
use crate::respawn::{Next, Policy, Respawn};
use crate::session::Session;
use crate::sessions::Registry;

/// What a child is made with.
#[derive(Debug)]
pub struct Recipe {
    /// What is started.
    pub program: Program,
    /// For its calls.
    pub limits: Limits,
    /// Shared by all.
    pub metrics: Metrics,
    /// The sessions that children belong to.
    pub sessions: Arc<Registry>,
    /// Ends all of them.
    pub stop: CancellationToken,
}

/// See the file.
#[derive(Debug)]
pub struct Pool {
    recipe: Recipe,
    max: usize,
    taken: AtomicUsize,
    spare: Mutex<Option<Arc<Lane>>>,
    /// A child of it could be called, once at least.
    proven: AtomicBool,
    /// Deaths of children before they could say what they are.
    stillborn: Mutex<Respawn>,
    /// What they may have spoken who ended before they could say it.
    guess: Mutex<Option<Known>>,
    given_up: Mutex<Option<Arc<Death>>>,
    gives_up: Notify,
}

/// A child that is taken. Unless it gets a session it is given back, whatever becomes of the request for which it was taken: it has heard
/// nothing of that client, and is the next one's.
#[derive(Debug)]
pub struct Taken {
    pool: Arc<Pool>,
    /// The child.
    pub lane: Arc<Lane>,
    has_session: bool,
}

impl Taken {
    /// It is this session's from now on.
    pub fn give_to(mut self, session: &Arc<Session>) {
        self.has_session = true;
        self.lane.give_to(Arc::clone(session));
        self.pool.proven.store(true, Ordering::Relaxed);
        self.pool.prepare();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.has_session {
            self.pool.put_back(&self.lane);
        }
    }
}

impl Pool {
    /// For at most so many sessions.
    pub fn new(recipe: Recipe, max: usize, policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            recipe,
            max,
            taken: AtomicUsize::new(0),
            spare: Mutex::new(None),
            proven: AtomicBool::new(false),
            stillborn: Mutex::new(Respawn::new(policy)),
            guess: Mutex::default(),
            given_up: Mutex::new(None),
            gives_up: Notify::new(),
        })
    }

    /// Whether a child of it could ever be called.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed) || self.next().is_some_and(|next| next.was_ready())
    }

    /// A child for one session; None: there are as many as are allowed. The one for the session after it is started when this one has a
    /// session: those who lose patience while it starts would have others started and stopped all the time.
    pub fn take(self: &Arc<Self>) -> Option<Taken> {
        let take = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        let spare = self.spare().take();
        if spare.as_ref().is_some_and(|spare| spare.was_ready()) {
            self.proven.store(true, Ordering::Relaxed);
        }
        let lane = spare.unwrap_or_else(|| self.start());
        let known = lane.calls().known();
        if known.is_some() {
            *self.guess() = known;
        }
        Some(Taken { pool: Arc::clone(self), lane, has_session: false })
    }

    /// Its session has ended.
    pub fn give_back(&self, lane: &Lane) {
        lane.stop();
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Nobody has spoken to it.
    fn put_back(self: &Arc<Self>, lane: &Arc<Lane>) {
        let mut spare = self.spare();
        // Whoever sees it through tells that it died before it looks for it here.
        let lives = lane.calls().down(Instant::now()).is_none();
        if lives && spare.is_none() {
            *spare = Some(Arc::clone(lane));
        } else {
            lane.stop();
        }
        // Not before it is there: whoever takes its place would start another one.
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Starts the child for the next session.
    pub fn prepare(self: &Arc<Self>) {
        let mut spare = self.spare();
        if spare.is_none() && self.taken.load(Ordering::Relaxed) < self.max && !self.recipe.stop.is_cancelled() {
            *spare = Some(self.start());
        }
    }

    /// What the next session's child says of itself.
    pub fn next(&self) -> Option<Arc<Lane>> {
        self.spare().clone()
    }

    /// Until children have died so often, before any could be called, that another one makes no sense.
    pub async fn gives_up(&self) -> Arc<Death> {
        loop {
            if let Some(death) = self.given_up.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return death;
            }
            self.gives_up.notified().await;
        }
    }

    fn start(self: &Arc<Self>) -> Arc<Lane> {
        let Recipe { limits, metrics, sessions, stop, .. } = &self.recipe;
        let lane = Lane::new(*limits, metrics.clone(), By::Client, Arc::<Registry>::clone(sessions), stop.child_token());
        lane.calls().expect(*self.guess());
        let (pool, living) = (Arc::clone(self), Arc::clone(&lane));
        tokio::spawn(async move { pool.see_through(&living).await });
        lane
    }

    /// Its one life.
    async fn see_through(self: &Arc<Self>, lane: &Arc<Lane>) {
        let started = Instant::now();
        let end = lane.live(&self.recipe.program).await;
        let was_ready = lane.was_ready();
        let (death, next) = match end {
            End::Stopped => (Arc::new(Death::new(None, Some("its session has ended".to_owned()), Vec::new())), None),
            End::Died(death) => {
                let mut stillborn = self.stillborn.lock().unwrap_or_else(PoisonError::into_inner);
                (Arc::new(death), (!was_ready).then(|| stillborn.died(started, Instant::now())))
            }
            End::Impossible(death) => (Arc::new(death), Some(Next::GiveUp)),
        };
        lane.died(&death, None);
        if !was_ready {
            *self.guess() = lane.calls().known();
        }
        if let Some(owner) = lane.owner() {
            // Calls of this session are answered 404 from now on, and its client begins another one.
            if self.recipe.sessions.forget(owner).is_some() {
                tracing::warn!("{}; its session is over", death.summary());
                self.recipe.metrics.restarts.inc();
                self.taken.fetch_sub(1, Ordering::Relaxed);
            }
            owner.end();
        }
        self.spare().take_if(|spare| Arc::ptr_eq(spare, lane));
        match next {
            Some(Next::GiveUp) => {
                tracing::error!("{}; no other one is started", death.summary());
                *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(death);
                self.gives_up.notify_one();
            }
            Some(Next::StartIn(delay)) => {
                tracing::warn!(seconds = delay.as_secs(), "{}; another one is started", death.summary());
                self.recipe.metrics.restarts.inc();
                tokio::time::sleep(delay).await;
                self.prepare();
            }
            None => self.prepare(),
        }
    }

    fn guess(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.guess.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Arc<Lane>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

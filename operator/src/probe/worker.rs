//! Makes the probes that are due: one task a probe, hedged where it hangs, cancelled without leaving anything on the server. I/O.
//!
//! Who is due and what a result means is the registry's.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::Conn,
    converse::{Conversation, Known, Observation},
    effect::Job,
    engine::{Shared, locked},
    proxy::Proxy,
    registry::Outcome,
    route::Route,
    schedule::{AttemptId, TargetId},
    verdict::{Problem, Step},
};

/// How long the last sessions may take to be deleted after the end.
const FAREWELL: Duration = Duration::from_secs(6);

/// One attempt at a target. The real one speaks MCP; tests bring their own.
pub trait Attempt: Send + 'static {
    /// Asks. Can be dropped at any time.
    fn ask(&mut self) -> impl Future<Output = Result<Observation, Problem>> + Send;
    /// What it is doing.
    fn step(&self) -> Step;
    /// What it learnt.
    fn known(&self) -> Known;
    /// Cleans up, also after `ask` was dropped.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// Makes attempts.
pub trait Prober: Send + Sync + 'static {
    /// What it makes.
    type Attempt: Attempt;
    /// An attempt at a target. `fresh`: on a new connection.
    fn attempt(&self, id: TargetId, route: &Arc<Route>, ip: Option<IpAddr>, known: Known, fresh: bool) -> Self::Attempt;
    /// What is kept for the target is of no use any more.
    fn forget(&self, id: TargetId);
}

/// The prober that speaks MCP, and keeps a connection a target between probes where they are close together.
#[derive(Clone, Debug)]
pub struct McpProber {
    idle: Arc<std::sync::Mutex<Idle>>,
    /// So many connections are kept at most: who keeps more leaves too few descriptors for everything else.
    most_idle: usize,
    proxy: Option<Proxy>,
}

/// The share of the descriptors that connections between probes may hold: one of so many.
const IDLE_SHARE: u64 = 2;

/// How many connections may be kept, by how many files this process may have open.
fn most_idle(open_files: Option<u64>) -> usize {
    open_files.map_or(usize::MAX, |most| usize::try_from(most / IDLE_SHARE).unwrap_or(usize::MAX))
}

/// How many files this process may have open; none: as many as it likes.
fn open_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

impl Default for McpProber {
    fn default() -> Self {
        Self::by(None)
    }
}

impl McpProber {
    /// Keeps at most so many connections between probes.
    #[must_use]
    pub fn keeping(self, most_idle: usize) -> Self {
        Self { most_idle, ..self }
    }

    /// Reaches remote servers with TLS by `proxy` where that wants it.
    pub fn by(proxy: Option<Proxy>) -> Self {
        Self { idle: Arc::default(), most_idle: most_idle(open_files()), proxy }
    }

    /// Gives all connections back that nobody uses: something that they hold is needed. The next probes make new ones.
    fn give_back(&self) {
        let idle = std::mem::take(&mut locked(&self.idle).connections);
        drop(idle);
    }
}

#[derive(Debug, Default)]
struct Idle {
    connections: HashMap<TargetId, (Place, Conn)>,
    /// The targets that there are: nothing is kept for one that was forgotten while it was being asked.
    targets: HashSet<TargetId>,
}

/// Where a connection leads. One to an address that the pod had before must not speak for the pod.
#[derive(Clone, Debug)]
struct Place {
    route: Arc<Route>,
    ip: Option<IpAddr>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route) && self.ip == other.ip
    }
}

/// An attempt that speaks MCP.
#[derive(Debug)]
pub struct McpAttempt {
    id: TargetId,
    place: Place,
    conversation: Conversation,
    prober: McpProber,
}

impl Prober for McpProber {
    type Attempt = McpAttempt;

    fn attempt(&self, id: TargetId, route: &Arc<Route>, ip: Option<IpAddr>, mut known: Known, fresh: bool) -> McpAttempt {
        let place = Place { route: Arc::clone(route), ip };
        let conn = {
            let mut idle = locked(&self.idle);
            idle.targets.insert(id);
            let kept = if fresh { None } else { idle.connections.remove(&id) };
            kept.filter(|(leads_to, _)| *leads_to == place).map(|(_, conn)| conn)
        };
        if fresh {
            // The first attempt hangs, perhaps because nobody answers the question that it began with.
            known.wary = true;
            known.legacy_first ^= known.era.is_none();
        }
        McpAttempt {
            id,
            conversation: Conversation::new(Arc::clone(route), ip, self.proxy.clone(), known, conn),
            place,
            prober: self.clone(),
        }
    }

    fn forget(&self, id: TargetId) {
        let mut idle = locked(&self.idle);
        idle.connections.remove(&id);
        idle.targets.remove(&id);
    }
}

impl Attempt for McpAttempt {
    async fn ask(&mut self) -> Result<Observation, Problem> {
        let found = self.conversation.ask().await;
        if matches!(found, Err(Problem::Ours(_))) {
            self.prober.give_back();
        }
        found
    }

    fn step(&self) -> Step {
        self.conversation.step()
    }

    fn known(&self) -> Known {
        self.conversation.known().clone()
    }

    async fn finish(self) {
        let Self { id, place, conversation, prober } = self;
        let Some(conn) = conversation.finish().await else { return };
        let mut idle = locked(&prober.idle);
        if idle.targets.contains(&id) && idle.connections.len() < prober.most_idle {
            idle.connections.insert(id, (place, conn));
        }
    }
}

/// Probes what is due until `shutdown`, then cancels what is under way and waits until its sessions are deleted.
pub(super) async fn run<P: Prober>(shared: Arc<Shared>, prober: Arc<P>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let (jobs, wake) = shared.poll();
        for job in jobs {
            let cancel = shared.fly(&job, &shutdown);
            tasks.spawn(probe(Arc::clone(&shared), Arc::clone(&prober), job, cancel, tasks.clone()));
        }
        let timer = async {
            match wake {
                // Timers a millisecond apart are served together.
                Some(at) => sleep_until(at.max(Instant::now() + Duration::from_millis(1))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = shared.woken() => {}
            () = timer => {}
        }
    }
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("some sessions could not be deleted before the end");
    }
}

/// What became of one attempt.
struct Ended<A> {
    attempt: A,
    place: AttemptId,
    /// None when it was cancelled.
    result: Option<Result<Observation, Problem>>,
    took: Duration,
}

async fn try_once<A: Attempt>(mut attempt: A, place: AttemptId, limit: Duration, cancel: CancellationToken) -> Ended<A> {
    let started = Instant::now();
    let result = tokio::select! {
        biased;
        result = attempt.ask() => Some(result),
        () = cancel.cancelled() => None,
        () = sleep(limit) => None,
    };
    let took = started.elapsed();
    let result = match result {
        None if !cancel.is_cancelled() => Some(Err(Problem::Timeout { step: attempt.step(), after: limit })),
        other => other,
    };
    Ended { attempt, place, result, took }
}

/// One probe: an attempt, and up to two more beside it when it hangs.
async fn probe<P: Prober>(shared: Arc<Shared>, prober: Arc<P>, job: Job, cancel: CancellationToken, tasks: TaskTracker) {
    shared.metrics.started(job.lag);
    let limit = job.route.timeout;
    let began = Instant::now();
    let first = prober.attempt(job.id, &job.route, job.ip, job.known.clone(), false);
    let mut first = pin!(try_once(first, job.attempt, limit, cancel.clone()));
    let mut hedges = job.hedges.into_iter().flatten();

    if let Some(wait) = hedges.next() {
        tokio::select! {
            biased;
            ended = &mut first => return conclude(&shared, &job, ended, true).await,
            () = sleep_until(began + wait) => {}
        }
        let race = Race { shared: &shared, prober: &*prober, job: &job, limit, cancel: &cancel, tasks: &tasks };
        race.run(first, hedges.next().map(|wait| began + wait)).await;
    } else {
        let ended = first.await;
        conclude(&shared, &job, ended, true).await;
    }
}

/// Records what an attempt brought, then cleans up after it.
async fn conclude<A: Attempt>(shared: &Shared, job: &Job, ended: Ended<A>, last: bool) {
    let attempt = record(shared, job, ended, last);
    attempt.finish().await;
}

fn record<A: Attempt>(shared: &Shared, job: &Job, ended: Ended<A>, last: bool) -> A {
    let Ended { attempt, place, result, took } = ended;
    if let Some(Err(Problem::Ours(what))) = &result {
        shared.gave_up(job, place, what, last);
        return attempt;
    }
    let outcome =
        result.map(|result| Outcome { id: job.id, epoch: job.epoch, result, known: attempt.known(), latency: took, last });
    shared.record(job, place, outcome, last);
    attempt
}

struct Race<'a, P: Prober> {
    shared: &'a Arc<Shared>,
    prober: &'a P,
    job: &'a Job,
    limit: Duration,
    cancel: &'a CancellationToken,
    tasks: &'a TaskTracker,
}

impl<P: Prober> Race<'_, P> {
    /// The first attempt hangs. The first answer of any wins; failures count once the first attempt has failed, too.
    async fn run(&self, mut first: std::pin::Pin<&mut impl Future<Output = Ended<P::Attempt>>>, mut third_at: Option<Instant>) {
        let losers = self.cancel.child_token();
        let mut others = FuturesUnordered::new();
        others.extend(self.start(&losers));
        let mut first_runs = true;
        let mut held = Vec::new();
        loop {
            let third = async {
                match third_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (ended, of_first) = tokio::select! {
                biased;
                ended = &mut first, if first_runs => (ended, true),
                Some(ended) = others.next() => (ended, false),
                () = third, if first_runs => {
                    third_at = None;
                    others.extend(self.start(&losers));
                    continue;
                }
            };
            first_runs &= !of_first;
            let answered = !matches!(ended.result, Some(Err(ref problem)) if self.fails(problem));
            if answered {
                held.push(ended);
                break;
            }
            held.push(ended);
            if !first_runs {
                // The first attempt's failure counts first, whichever came first.
                held.sort_by_key(|ended| ended.place);
                let rest = others.len();
                let count = held.len();
                for (i, ended) in held.drain(..).enumerate() {
                    self.put(ended, rest == 0 && i + 1 == count);
                }
                if rest == 0 {
                    return;
                }
            }
        }
        // One answered, or all were cancelled: the others are given up, and their failures do not count.
        losers.cancel();
        if let Some(winner) = held.pop() {
            self.put(winner, true);
        }
        for mut ended in held {
            ended.result = None;
            self.give_up(ended);
        }
        if first_runs {
            // It belongs to the job's own token: give it no longer than that.
            self.cancel.cancel();
            self.give_up(first.await);
        }
        while let Some(ended) = others.next().await {
            self.give_up(ended);
        }
    }

    fn fails(&self, problem: &Problem) -> bool {
        matches!(problem, Problem::Ours(_)) || super::verdict::judge(problem, self.job.route.given).0.is_failed()
    }

    fn start(&self, losers: &CancellationToken) -> Option<impl Future<Output = Ended<P::Attempt>> + use<P>> {
        let place = self.shared.hedge()?;
        self.shared.metrics.hedged();
        let attempt = self.prober.attempt(self.job.id, &self.job.route, self.job.ip, self.job.known.clone(), true);
        Some(try_once(attempt, place, self.limit, losers.clone()))
    }

    fn put(&self, ended: Ended<P::Attempt>, last: bool) {
        let attempt = record(self.shared, self.job, ended, last);
        self.tasks.spawn(attempt.finish());
    }

    fn give_up(&self, ended: Ended<P::Attempt>) {
        self.shared.free(ended.place);
        self.tasks.spawn(ended.attempt.finish());
    }
}

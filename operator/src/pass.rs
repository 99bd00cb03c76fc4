//! One pass over a CR, the same for both kinds: observe → validate → children → apply → status.
//!
//! In one direction: no step looks back, and none asks what an earlier pass did; every pass computes the whole desired state. What is
//! particular to a kind is in its folder, behind [`Subject`]. A pass never fails: what goes wrong is in the [`Outcome`], from which the
//! status is computed like from anything else.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use k8s_openapi::{
    Resource as _,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::Timestamp,
};
use kube::{
    ResourceExt,
    runtime::{controller::Action, events::Recorder},
};
use serde::Serialize;
use tokio::time::Instant;

use mcp_wire::mask::Mask;

use crate::{
    apply::{self, Applied},
    attempts::Attempts,
    cache::Cache,
    child::{Child, Key},
    children::Live,
    claims, clock, conditions, contests,
    crd::reason::{self, condition},
    events::{self, News},
    inherit::Inherit,
    inputs::{self, Reader, Reference},
    metrics::ReconcileMetrics,
    names::{self, Component},
    network::Surroundings,
    pod_warnings::PodWarnings,
    problem::Problem,
    requeue::{self, Class},
    ssa::{self, Object, Writer},
    wording,
};

/// A kind of CR, and what is particular to it.
pub trait Subject: Object {
    /// What its children are children of.
    const COMPONENT: Component;
    /// What a pass reads.
    type Facts: Send;
    /// An object whose children can be built.
    type Valid: Send + Sync;
    /// What people are told.
    type Status: PartialEq + Serialize + Send + Sync;
    /// What passes over this kind need beside what all need.
    type World: Send + Sync + 'static;

    /// What has been told.
    fn told(&self) -> Option<&Self::Status>;

    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// The same status, with every sentence that others had a hand in as `mask` leaves it.
    fn masked(status: Self::Status, mask: &Mask) -> Self::Status;

    /// Every pointer to something that a program of ours or of others is given: what it says may hold it.
    fn given(&self) -> BTreeSet<Reference>;

    /// What the spec alone says, before anything can fail: what a person switches by hand always works. Sync, so that it is over
    /// before the CR can be found to be gone.
    fn switch(&self, context: &Context<Self>);

    /// The names of the claims that its pods mount.
    fn claims(&self) -> Vec<String>;

    /// Step 1: read what the spec points at. I/O in, nothing decided.
    fn observe(&self, context: &Context<Self>) -> impl Future<Output = Result<Self::Facts, inputs::Error>> + Send;

    /// Whether clients come in by a Service of ours.
    fn is_served(&self) -> bool {
        true
    }

    /// Whether the number of pods is decided here, and not by `spec.replicas`.
    fn is_autoscaled(&self) -> bool {
        false
    }

    /// The most pods that the spec by itself allows: none where it is switched off.
    fn most_pods(&self) -> u32;

    /// Step 2: from a spec and what is behind it to an object whose children can be built, or every problem at once. Pure.
    fn validate(&self, facts: &Self::Facts, world: &Self::World) -> Result<Self::Valid, Vec<Problem>>;

    /// What it lacks: a problem for each thing that the spec points at and that is not there. Whoever needs it waits.
    fn lacks(valid: &Self::Valid) -> &[Problem];

    /// What is not as the spec wants it, and keeps nobody waiting: it is told.
    fn notes(_: &Self::Valid) -> &[Problem] {
        &[]
    }

    /// What a status tells beside its conditions, and people are to hear of.
    fn news(_: Option<&Self::Status>, _: &Self::Status) -> Vec<News> {
        Vec::new()
    }

    /// Step 3: every child as a whole, who is mounted before who mounts. Pure, and cannot fail.
    fn children(valid: &Self::Valid, around: &Surroundings) -> Vec<Child>;

    /// Has the prober know what validation found out.
    fn found(&self, valid: &Self::Valid, mask: &Arc<Mask>, context: &Context<Self>);

    /// What its pods mount was written.
    fn reconfigured(&self, _: &Live, _: &Context<Self>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// What was not to be told at the last pass, where that is kept.
    fn former_mask(&self, _: &Context<Self>) -> Option<Arc<Mask>> {
        None
    }

    /// When a pod that is being made without a word will have been so for long enough to be told of: nothing shows that. None: none is, or
    /// it is told.
    fn look(&self, _: &Context<Self>, _: Timestamp) -> Option<Duration> {
        None
    }

    /// Step 5: what people are told of all this.
    fn status(&self, outcome: &Outcome<Self::Valid>, context: &Context<Self>, now: Timestamp) -> Told<Self::Status>;
}

/// What a pass needs.
pub struct Context<S: Subject> {
    /// All CRs of the kind, with what we wrote last in front.
    pub subjects: Arc<Cache<S>>,
    /// The children, and who writes them.
    pub writer: Writer,
    /// What specs point at.
    pub reader: Arc<Reader>,
    /// Events.
    pub recorder: Recorder,
    /// Failed passes in a row, by object.
    pub attempts: Arc<Attempts>,
    /// A number from 0 to 1, another one each time.
    pub jitter: fn() -> f64,
    /// Counts and times passes.
    pub metrics: ReconcileMetrics,
    /// What of a CR its children get, too.
    pub inherit: Arc<Inherit>,
    /// What Events say of the pods.
    pub warnings: Arc<PodWarnings>,
    /// Who is around the CRs.
    pub around: Arc<Surroundings>,
    /// What only this kind needs.
    pub world: S::World,
}

/// How a pass ended: the object as far as it is known, and what stood in the way.
#[derive(Debug)]
pub struct Outcome<V> {
    /// The object, when it was valid.
    pub valid: Option<V>,
    /// It is to be left alone, and was.
    pub paused: bool,
    /// The pods' Deployment, as it is now.
    pub deployment: Option<Deployment>,
    /// The claims that the pods mount, as they are now; those that are not there are not here.
    pub claims: Vec<PersistentVolumeClaim>,
    /// What stood in the way.
    pub problems: Vec<Problem>,
    /// What of the Secrets that it points at is not to be told.
    pub mask: Arc<Mask>,
    /// Why no pod can be made of this spec, if that is known.
    pub no_pods: Option<Problem>,
    /// Its Service is not there, or is somebody else's: no client gets in, however well its pods are. Why not.
    pub no_service: Option<Problem>,
}

impl<V> Default for Outcome<V> {
    fn default() -> Self {
        Self {
            valid: None,
            paused: false,
            deployment: None,
            claims: Vec::new(),
            problems: Vec::new(),
            mask: Arc::default(),
            no_pods: None,
            no_service: None,
        }
    }
}

impl<V> Outcome<V> {
    /// Whether what its containers wrote may be repeated: all Secrets that it points at are known, so that their values can be masked.
    pub fn may_quote(&self) -> bool {
        self.valid.is_some() && self.problems.iter().all(|problem| problem.reason != reason::SECRET_NOT_FOUND)
    }
}

/// What is to be done with a status.
#[derive(Debug)]
pub enum Told<S> {
    /// It is written, if it differs.
    Now(S),
    /// It is not worth writing yet: the next one will carry it, too.
    Later(Duration),
}

/// One pass. It never fails: what goes wrong is in the status, and decides when the next one is.
pub async fn reconcile<S: Subject>(object: Arc<S>, context: Arc<Context<S>>) -> Result<Action, Infallible> {
    let timer = context.metrics.start(S::COMPONENT.kind());
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    // What we wrote last may be newer than what the watch has shown.
    let object = context.subjects.get(&namespace, &name).unwrap_or(object);
    object.switch(&context);
    let outcome = Box::pin(pass(&*object, &context)).await;
    let mut class = Problem::class(&outcome.problems);
    let now = clock::now();
    let told = match object.status(&outcome, &context, now) {
        Told::Now(status) => Told::Now(S::masked(status, &outcome.mask)),
        later @ Told::Later(_) => later,
    };
    let (stalled, held_up) = match &told {
        Told::Now(status) => (told_for(S::conditions(status), condition::STALLED, now), held_up(S::conditions(status), now)),
        Told::Later(_) => (None, None),
    };
    let mut unwritten = None;
    match told {
        Told::Later(wait) => {
            timer.done("ok");
            return Ok(Action::requeue(wait));
        }
        Told::Now(status) if object.told().is_some_and(|told| *told == status || wording::says_the_same(told, &status)) => {}
        Told::Now(status) => {
            let before = object.told().map(S::conditions).unwrap_or_default();
            let mut news = events::of_conditions(before, S::conditions(&status));
            news.extend(
                S::news(object.told(), &status)
                    .into_iter()
                    .map(|told| News { message: outcome.mask.apply(told.message), ..told }),
            );
            match write_status(&*object, &status, &context).await {
                // After the status, so that it is told once.
                Ok(()) => events::send(news, &*object, &context.recorder).await,
                // It went meanwhile.
                Err(error) if is_going(&*object) && error.code() == Some(404) => {}
                Err(error) => {
                    class = Class::soonest(class.into_iter().chain([Problem::not_applied(&error).class]));
                    unwritten = Some(error.describe());
                }
            }
        }
    }
    timer.done(if outcome.paused { "paused" } else { class.map_or("ok", Class::as_str) });
    // Of one that went meanwhile nobody would ever forget it.
    let failed = class.filter(|class| class.is_transient() && context.subjects.get(&namespace, &name).is_some());
    let tries = context.attempts.count(&key_of(&*object), failed);
    if let Some(error) = unwritten.filter(|_| tries.failed == 0 || tries.failed.is_power_of_two()) {
        let kind = S::COMPONENT.kind();
        tracing::warn!(object.kind = kind, object.namespace = namespace, object.name = name, error, "status not written");
    }
    // That a pod, or a claim, has had its time nobody shows: it is looked for, as what is waited for is.
    let class = class.or_else(|| (held_up.is_some() || claims::are_to_grow(&outcome.claims)).then_some(Class::Waiting));
    let next = requeue::decide(class, tries, stalled.or(held_up), (context.jitter)());
    let soonest = next.into_iter().chain(object.look(&context, now)).min();
    Ok(soonest.map_or_else(Action::await_change, Action::requeue))
}

/// For how long a condition has been True. None: it is not.
fn told_for(told: &[Condition], type_: &str, now: Timestamp) -> Option<Duration> {
    let told = conditions::find(told, type_).filter(|told| told.status == "True")?;
    Some(Duration::try_from(now.duration_since(told.last_transition_time.0)).unwrap_or_default())
}

/// For how long it has been told that pods are on their way, where one of them is held up. None: they are there, or come in the usual manner.
fn held_up(told: &[Condition], now: Timestamp) -> Option<Duration> {
    let usual = conditions::find(told, condition::RECONCILING)?.reason == reason::ROLLING_OUT;
    told_for(told, condition::RECONCILING, now).filter(|_| !usual)
}

/// Writes the status, unless somebody else writes another one again and again: another operator over the same namespace.
async fn write_status<S: Subject>(object: &S, status: &S::Status, context: &Context<S>) -> Result<(), ssa::Error> {
    let key = key_of(object);
    let (said, now) = (contests::said(status), Instant::now());
    context.writer.contests.may_write(&key, &said, now).map_err(|told| ssa::Error::contested(&key, told))?;
    ssa::apply_status(&context.writer.client, &context.subjects, object, status).await?;
    let wrote = context.writer.contests.wrote(&key, &said, None, "status", now);
    let wrote = wrote.map_err(|told| ssa::Error::contested(&key, told));
    if let Err(contested) = &wrote {
        let news = News::new(true, reason::CONTESTED, contested.to_string());
        events::send(vec![news], object, &context.recorder).await;
    }
    wrote
}

/// Observe, validate, build, apply.
async fn pass<S: Subject>(object: &S, context: &Context<S>) -> Outcome<S::Valid> {
    let namespace = object.namespace().unwrap_or_default();
    let mut outcome = Outcome { paused: is_paused(object), ..Outcome::default() };
    let mut applied = Applied::default();
    let facts = object.observe(context).await;
    // After that: what was looked at is known.
    outcome.mask = context.reader.mask(&namespace, &object.given()).with_former(object.former_mask(context));
    match facts.map(|facts| object.validate(&facts, &context.world)) {
        Err(error) => outcome.problems.push(Problem::unreadable(&error)),
        Ok(Err(problems)) => outcome.problems = problems,
        Ok(Ok(valid)) => {
            object.found(&valid, &outcome.mask, context);
            outcome.problems = [S::lacks(&valid), S::notes(&valid)].concat();
            if !outcome.paused && !is_going(object) {
                applied = apply_all(object, context, &valid).await;
                outcome.problems.extend(applied.problems.iter().map(|(_, problem)| problem.clone()));
            }
            outcome.valid = Some(valid);
        }
    }
    let name = S::COMPONENT.child_name(&object.name_any());
    let whole = Key::new("Deployment", &namespace, &name);
    outcome.deployment = context.writer.children.read(&namespace, &name);
    let problem = applied.problems.iter().find(|(key, _)| *key == whole).map(|(_, problem)| problem);
    // One whose fields somebody else undoes is left alone: two ways of writing it would keep each other's count at nothing.
    let is_contested = problem.is_some_and(|problem| problem.reason == reason::CONTESTED);
    let is_left = outcome.paused || is_contested || applied.done.contains(&whole);
    if !is_left && has_too_many(object, outcome.deployment.as_ref()) {
        outcome.problems.extend(lower(object, context, &whole).await.err().map(|error| Problem::not_applied(&error)));
        outcome.deployment = context.writer.children.read(&namespace, &name);
    }
    let refusal = problem.filter(|problem| problem.class.is_obstacle());
    let lacks = outcome.valid.as_ref().map_or(&*outcome.problems, S::lacks);
    outcome.no_pods = Problem::obstacle(lacks).or_else(|| refusal.cloned());
    let service = Key::new("Service", &namespace, &name);
    let there = context.writer.children.get(&service).is_some_and(|found| found.owner == object.uid());
    if object.is_served() && !there {
        let why = applied.problems.into_iter().find(|(key, _)| *key == service).map(|(_, problem)| problem);
        outcome.no_service = Some(why.unwrap_or_else(Problem::no_service));
    }
    for claim in object.claims() {
        let own = context.writer.children.read(&namespace, &claim);
        // One that cannot be read is not named, and that is all.
        let found = if own.is_some() { own } else { context.reader.claim(&namespace, &claim).await.unwrap_or_default() };
        outcome.claims.extend(found);
    }
    let spec = outcome.deployment.as_ref().and_then(|deployment| deployment.spec.as_ref());
    let has_pods = spec.is_some_and(|spec| spec.replicas != Some(0));
    outcome.problems.extend(claims::stuck(&outcome.claims, has_pods, clock::now()));
    outcome
}

/// Takes pods away that the spec allows no more, where the Deployment as a whole was refused, or could not be built: what a person
/// switches off is off, whatever else is wrong.
async fn lower<S: Subject>(object: &S, context: &Context<S>, deployment: &Key) -> Result<(), ssa::Error> {
    match context.writer.children.get(deployment).filter(|found| found.owner == object.uid()) {
        Some(found) => context.writer.scale(&found, most(object)).await,
        None => Ok(()),
    }
}

fn has_too_many<S: Subject>(object: &S, deployment: Option<&Deployment>) -> bool {
    let replicas = deployment.and_then(|deployment| deployment.spec.as_ref()?.replicas);
    replicas.is_some_and(|replicas| replicas > most(object))
}

fn most<S: Subject>(object: &S) -> i32 {
    i32::try_from(object.most_pods()).unwrap_or(i32::MAX)
}

async fn apply_all<S: Subject>(object: &S, context: &Context<S>, valid: &S::Valid) -> Applied {
    let mut children = S::children(valid, &context.around);
    for child in &mut children {
        context.inherit.hand_on(object.meta(), &mut child.body);
    }
    let applied = Box::pin(apply::all(&context.writer, &object.uid().unwrap_or_default(), &children)).await;
    for (_, problem) in applied.problems.iter().filter(|(_, problem)| !problem.class.is_transient()) {
        tracing::debug!(object.kind = S::COMPONENT.kind(), object.name = object.name_any(), problem.message, "not applied");
    }
    let mounted = |live: &&Arc<Live>| [ConfigMap::KIND, Secret::KIND].contains(&live.key.kind);
    if let Some(live) = applied.written.iter().rfind(mounted) {
        object.reconfigured(live, context).await;
    }
    let (kind, name) = (S::COMPONENT.kind(), object.name_any());
    let autoscaled = object.is_autoscaled();
    let told = |(key, correction)| events::of_correction(key, correction, kind, &name, autoscaled);
    let corrected = applied.corrected.iter().map(|(key, correction)| told((key, correction)));
    events::send(corrected.collect(), object, &context.recorder).await;
    applied
}

/// Which CR it is.
pub fn key_of<S: Subject>(object: &S) -> Key {
    Key::new(S::COMPONENT.kind(), object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether it is being deleted, and somebody's finalizer keeps it. Its children are Kubernetes' to take away; what a client meets meanwhile is
/// told, and what a person switches by hand works.
fn is_going(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Whether the object is to be left alone.
pub fn is_paused(object: &impl ResourceExt) -> bool {
    object.annotations().get(names::ANNOTATION_PAUSED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod drives;

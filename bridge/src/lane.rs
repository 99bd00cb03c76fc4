//! A place for one child, the one that lives now, and the two ways to it: what is said to it is written in batches, what it says is read as it comes, and neither waits for a
//! client or for the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mcp_stdio::exit::Exit;
use mcp_stdio::framing::{Frame, Frames, Newlines};
use mcp_stdio::group::{self, Group, Spawned};
use mcp_stdio::orphans;
use mcp_stdio::secrets::Secrets;
use mcp_stdio::stderr::{self, Tail};
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::calls::{Ask, Calls, Heard, Limits, Refusal};
use crate::death::Death;
use crate::era::{Era, Hello};
use crate::handshake::By;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::session::Session;
use crate::told::{Audience, Notification};
use crate::wire;

/// The longest message of a child's.
const MAX_LINE: usize = 16 << 20;

/// Whoever asks what a child is that will not be there for longer than this is told at once how the last one ended: a probe has no time to wait.
const SOON: Duration = Duration::from_secs(2);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What a child gets to end after its standard input closed, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between the end of its output and the end of a child that ends.
const MOMENT: Duration = Duration::from_millis(250);

/// What a dead child left in its pipes is there at once; a grandchild that holds them open is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Stray lines that are logged of one child; all are counted.
const STRAY_LOGGED: usize = 20;

/// Characters of a line that are told to whoever waits for a child that starts.
const STRAY_TOLD: usize = 200;

/// What is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// A path, or a name that is looked up in PATH.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// So long it may take to say what it is.
    pub startup: Duration,
}

/// Why one life of a child ended.
#[derive(Debug)]
pub enum End {
    /// By itself, or because it was of no use.
    Died(Death),
    /// It was asked to.
    Stopped,
    /// The program cannot be started, now or later.
    Impossible(Death),
}

/// Why there is nobody who can be called.
#[derive(Debug, Clone)]
pub enum Absent {
    /// It died, and the next one is not there soon.
    Dead(Arc<Death>),
    /// It is there, or will be in a moment, and has not said what it is.
    Starting {
        /// The first line that it said instead, if there is one.
        instead: Option<String>,
        /// How the one before it ended, where that had its turn.
        before: Option<Arc<Death>>,
    },
}

/// See the file.
#[derive(Debug)]
pub struct Lane {
    calls: Mutex<Calls>,
    wake: Notify,
    hello: watch::Sender<Option<Arc<Hello>>>,
    /// What a shared child tells goes to these.
    audience: Arc<dyn Audience>,
    /// Modern clients of a legacy child.
    pub listeners: Listeners,
    /// Whose child it is; of a shared one: nobody's.
    owner: OnceLock<Arc<Session>>,
    metrics: Metrics,
    stop: CancellationToken,
    was_ready: AtomicBool,
    /// What the child said first before it said what it is, and what is no message.
    instead: Mutex<Option<String>>,
    /// How the last child ended, until another one has said what it is.
    before: Mutex<Option<Arc<Death>>>,
}

impl Lane {
    /// Without a child yet.
    pub fn new(limits: Limits, metrics: Metrics, by: By, audience: Arc<dyn Audience>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::new(Calls::new(limits, metrics.clone(), by)),
            wake: Notify::new(),
            hello: watch::Sender::new(None),
            audience,
            listeners: Listeners::default(),
            owner: OnceLock::new(),
            metrics,
            stop,
            was_ready: AtomicBool::new(false),
            instead: Mutex::default(),
            before: Mutex::default(),
        })
    }

    /// The calls.
    pub fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is this session's child from now on.
    pub fn give_to(&self, session: Arc<Session>) {
        // It is given once.
        let _ = self.owner.set(session);
    }

    /// The child is to end, in good order.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it was asked to.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Until it is asked to.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether a child of it could ever be called.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Whose child it is.
    pub fn owner(&self) -> Option<&Arc<Session>> {
        self.owner.get()
    }

    /// The child is gone; another one comes at `until`, or none.
    pub fn died(&self, death: &Arc<Death>, until: Option<Instant>) {
        self.calls().died(death, until);
        *self.before() = Some(Arc::clone(death));
        if until.is_none() {
            self.listeners.end();
        }
        // Those who wait for what it says of itself hear that there is nobody.
        self.hello.send_replace(None);
    }

    /// Takes a call.
    pub fn admit(&self, ask: Ask) -> Result<u64, Refusal> {
        let number = self.calls().admit(ask, Instant::now())?;
        self.wake.notify_one();
        Ok(number)
    }

    /// Changes its calls, and writes what comes of it.
    pub fn with<T>(&self, change: impl FnOnce(&mut Calls) -> T) -> T {
        let done = change(&mut self.calls());
        self.wake.notify_one();
        done
    }

    /// What the child says of itself, as soon as there is one.
    pub async fn hello(&self, limit: Duration) -> Result<Arc<Hello>, Absent> {
        let mut said = self.hello.subscribe();
        let until = Instant::now() + limit;
        loop {
            if let Some(hello) = said.borrow_and_update().clone() {
                return Ok(hello);
            }
            if let Some((death, _)) = self.calls().down(Instant::now() + SOON) {
                return Err(Absent::Dead(Arc::clone(death)));
            }
            if tokio::time::timeout_at(until, said.changed()).await.is_err() {
                let (instead, before) = (self.instead().clone(), self.before().clone());
                return Err(Absent::Starting { instead, before });
            }
        }
    }

    fn before(&self) -> MutexGuard<'_, Option<Arc<Death>>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instead(&self) -> MutexGuard<'_, Option<String>> {
        self.instead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the child says of itself, if there is one now.
    pub fn hello_now(&self) -> Option<Arc<Hello>> {
        self.hello.borrow().clone()
    }

    /// A modern client listens to a legacy child, or a session to a resource: the child is asked to tell of it. False: it does not read.
    pub fn follow_resources(&self) -> bool {
        let mut wanted =
            self.owner.get().map_or_else(|| self.audience.resources(), |owner| owner.resources().into_iter().collect());
        wanted.extend(self.listeners.resources());
        let mut wanted: Vec<String> = wanted.into_iter().collect();
        wanted.sort_unstable();
        self.with(|calls| match calls.hello().map(|hello| (hello.era, hello.offers().subscribe)) {
            Some((Era::Modern, _)) => calls.listen(&wanted),
            Some((Era::Legacy, true)) => wanted.iter().all(|uri| {
                let fits = calls.has_room(uri.len());
                if fits {
                    calls.request("resources/subscribe", &format!(r#"{{"uri":{}}}"#, wire::quoted(uri)));
                }
                fits
            }),
            _ => true,
        })
    }

    /// One life of a child, from its start to its end. What was in flight is answered by the caller, who knows what comes next.
    pub async fn live(&self, program: &Program) -> End {
        loop {
            if let Some(end) = self.live_once(program).await {
                return end;
            }
        }
    }

    /// None: it has heard what it had better not, and another one is to take its place before anybody calls it.
    async fn live_once(&self, program: &Program) -> Option<End> {
        let mut command = Command::new(&program.command);
        command.args(&program.args);
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            // Python holds back what it prints to a pipe, also the words that say why it ends.
            command.env("PYTHONUNBUFFERED", "1");
        }
        let Spawned { stdin, stdout, stderr, group } = match group::spawn(command) {
            Ok(spawned) => spawned,
            Err(error) => {
                let never = matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied);
                let death = Death::new(None, Some(format!("{} could not be started: {error}", program.command)), Vec::new());
                return Some(if never { End::Impossible(death) } else { End::Died(death) });
            }
        };
        tracing::info!(pid = group.id(), command = program.command, "child started");
        self.metrics.children.inc();
        let tail = Tail::default();
        *self.instead() = None;
        let complaints = tokio::spawn(stderr::keep(stderr, tail.clone(), stderr::Limits::default(), |lines| {
            // Who cannot be told is not told.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), lines);
        }));
        let end = self.attend(program, stdin, stdout, group).await;
        self.metrics.children.dec();
        self.hello.send_replace(None);
        orphans::kill_left();
        // What it said last may still be in the pipe.
        let _ = timeout(LAST_WORDS, complaints).await;
        Some(match end {
            (_, Some(Why::Again)) => {
                tracing::info!("the server is started again: what a client with a session says is to be the first that it hears");
                return None;
            }
            (exit, Some(Why::Stopped)) => {
                tracing::info!(%exit, "child stopped");
                End::Stopped
            }
            (exit, why) => {
                let mut said = tail.last(usize::MAX);
                if said.is_empty() {
                    // There are programs that complain on standard output.
                    said.extend(self.instead().take());
                }
                // More people read a status than a log.
                let secrets = Secrets::of_environment();
                let said = said.iter().map(|line| secrets.masked(line)).collect();
                End::Died(Death::new(Some(exit), why.map(|why| why.to_string()), said))
            }
        })
    }

    /// Until there is a reason to end; then the child is ended, if it has not by itself.
    async fn attend(
        &self,
        program: &Program,
        mut stdin: ChildStdin,
        stdout: ChildStdout,
        mut group: Group,
    ) -> (Exit, Option<Why>) {
        let started = Instant::now();
        let mut frames = Frames::new(stdout, Newlines, MAX_LINE);
        let mut stray = 0;
        let first = self.calls().began(started);
        let why = match self.react(first, &mut stray, &[]) {
            Some(why) => Some(why),
            None => {
                tokio::select! {
                    biased;
                    why = self.read(&mut frames, &mut stray) => Some(why),
                    () = self.write(&mut stdin) => None,
                    _ = group.wait() => None,
                    why = self.watch(started, program.startup) => Some(why),
                }
            }
        };
        let mut by_itself = false;
        if !matches!(why, None | Some(Why::Stopped | Why::Again)) {
            // Ended by itself a moment ago, as a rule: then that is the reason that is told. Its input stays open until that is known.
            by_itself = timeout(MOMENT, group.wait()).await.is_ok();
            if !by_itself {
                group.kill();
            }
        }
        if !matches!(why, Some(Why::Stopped | Why::Again)) && timeout(MOMENT, group.wait()).await.is_ok() {
            // What of it lives on reads for nobody.
            group.kill();
            self.calls().unread(group::unread(&stdin).unwrap_or_default());
        }
        drop(stdin);
        let exit = group.end(PATIENCE).await;
        // Answers that were given before the end count.
        while let Ok(Ok(read)) = timeout(LAST_WORDS, frames.read()).await {
            if read == 0 {
                break;
            }
            self.take_in(&mut frames, &mut stray);
        }
        // The last line may have no end. One that is not whole is nothing.
        if let Some(line) = frames.rest().filter(|line| wire::Message::read(line).is_some()) {
            self.hear(line, &mut stray);
        }
        let why = why.filter(|why| !(by_itself && *why == Why::ClosedOutput));
        (exit, why)
    }

    /// Until standard output ends, or says that this is no MCP server.
    async fn read(&self, frames: &mut Frames<ChildStdout>, stray: &mut usize) -> Why {
        loop {
            match frames.read().await {
                Ok(0) | Err(_) => return Why::ClosedOutput,
                Ok(bytes) => self.metrics.read.inc_by(bytes as u64),
            }
            if let Some(why) = self.take_in(frames, stray) {
                return why;
            }
        }
    }

    fn take_in(&self, frames: &mut Frames<ChildStdout>, stray: &mut usize) -> Option<Why> {
        let mut why = None;
        while let Some(frame) = frames.next_frame() {
            match frame {
                Frame::Message(line) => {
                    let reason = self.hear(line, stray);
                    why = why.or(reason);
                }
                Frame::TooLong { bytes, head, tail } => {
                    self.metrics.stray.inc();
                    tracing::warn!(bytes, "a line on standard output is too long and was left out");
                    self.calls().left_out(bytes, head, tail);
                }
            }
        }
        // What was heard may have been a question, or the word that lets the waiting calls go.
        self.wake.notify_one();
        why
    }

    /// A line; several messages may stand in it, as 2025-03-26 has it.
    fn hear(&self, line: &[u8], stray: &mut usize) -> Option<Why> {
        let now = Instant::now();
        let mut one = |message: &[u8]| {
            let heard = self.calls().heard(message, now);
            self.react(heard, stray, message)
        };
        match line.starts_with(b"[").then(|| serde_json::from_slice::<Vec<&RawValue>>(line)) {
            Some(Ok(messages)) => messages.iter().fold(None, |why, message| {
                let reason = one(message.get().as_bytes());
                why.or(reason)
            }),
            _ if line.trim_ascii().is_empty() => None,
            _ => one(line),
        }
    }

    fn react(&self, heard: Heard, stray: &mut usize, line: &[u8]) -> Option<Why> {
        match heard {
            Heard::Nothing => {}
            Heard::Stray => {
                self.metrics.stray.inc();
                *stray += 1;
                let words: String = stderr::readable(&line[..line.len().min(300)]);
                if self.hello.borrow().is_none() && !words.trim().is_empty() {
                    self.instead()
                        .get_or_insert_with(|| Secrets::of_environment().masked(&words).chars().take(STRAY_TOLD).collect());
                }
                if *stray <= STRAY_LOGGED {
                    tracing::warn!(line = words, "a line on standard output is no message, or answers nothing that was asked");
                }
            }
            Heard::Ready(hello) => {
                tracing::info!(version = hello.version, server = hello.server_name(), "child speaks MCP");
                self.was_ready.store(true, Ordering::Relaxed);
                *self.before() = None;
                self.hello.send_replace(Some(hello));
                // What sessions wanted to hear of the child before.
                self.follow_resources();
            }
            Heard::Again => return Some(Why::Again),
            Heard::NotMcp(words) => return Some(Why::NotMcp(words)),
            Heard::Wedged => return Some(Why::Wedged),
            Heard::Told(told) => self.deliver(&told),
            Heard::Asks(question) => self.ask_owner(&question),
        }
        None
    }

    fn deliver(&self, told: &Notification) {
        match self.owner.get() {
            Some(owner) => owner.tell(told.line.clone()),
            None => self.audience.deliver(told),
        }
        self.listeners.deliver(told);
    }

    fn ask_owner(&self, question: &Bytes) {
        let Some(owner) = self.owner.get() else { return };
        let call = self.calls().latest_call();
        owner.ask(question.clone(), call.as_ref());
    }

    /// Until the child reads no more.
    async fn write(&self, stdin: &mut ChildStdin) {
        let mut batch = Vec::new();
        loop {
            self.calls().take_out(&mut batch);
            if batch.is_empty() {
                // What one long request took is given back.
                batch.shrink_to(64 << 10);
                self.wake.notified().await;
                continue;
            }
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let Ok(written) = stdin.write(rest).await else {
                    // Whoever does not listen may still speak: its end is told by its output.
                    return std::future::pending().await;
                };
                rest = &rest[written..];
                self.calls().wrote(written);
                self.metrics.written.inc_by(written as u64);
            }
        }
    }

    /// Until there is a reason to end the child.
    async fn watch(&self, started: Instant, startup: Duration) -> Why {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stray = 0;
        loop {
            tokio::select! {
                now = tick.tick() => {
                    let heard = self.calls().tick(now);
                    self.wake.notify_one();
                    if let Some(why) = self.react(heard, &mut stray, &[]) {
                        return why;
                    }
                    if self.hello.borrow().is_none() && now - started >= startup {
                        return Why::Slow(startup);
                    }
                }
                () = self.stop.cancelled() => return Why::Stopped,
            }
        }
    }
}

/// Why a child is ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("it closed its standard output")]
    ClosedOutput,
    #[error("{0}")]
    NotMcp(String),
    #[error("it did not say what it is within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("it was asked, and said nothing at all")]
    Wedged,
    #[error("it was to stop")]
    Stopped,
    #[error("it has heard of another era than its client's")]
    Again,
}

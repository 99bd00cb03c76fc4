//! A prober that does not touch the network: tests say what every address does, and time is theirs.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use operator::{
    crd::{Era, ServerInfo},
    probe::{Attempt, Hello, Known, Observation, Prober, Problem, Route, Status, Step, TargetId, Tool, ToolsList},
};
use tokio::time::Instant;

/// What fails for one that rambles: words that differ in more than a number, which would be one and the same sentence.
const RAMBLINGS: [&str; 7] = ["the pool", "a cache", "the disk", "some query", "the token", "a plugin", "the queue"];

/// What an address does when it is asked.
#[derive(Clone, Debug)]
pub enum Does {
    Answer,
    AnswerAfter(Duration),
    Offer(Vec<&'static str>),
    /// Another list every time.
    OfferAnew,
    /// Nothing that a client can list.
    OfferNothing,
    /// Answers who asks so, and refuses everybody else.
    AnswerTo(fn(&Route) -> bool),
    /// The same, by 401.
    AdmitTo(fn(&Route) -> bool),
    /// An error in other words every time.
    Ramble,
    /// An error in these words, and when it was: another time at every fourth.
    Date(&'static str),
    Hang,
    Refuse,
    SayNo(u16, Option<Duration>),
}

#[derive(Debug, Default)]
struct Inner {
    does: Mutex<HashMap<IpAddr, Does>>,
    asked: Mutex<Vec<(IpAddr, Instant)>>,
    in_flight: AtomicUsize,
    most: AtomicUsize,
    lists: AtomicUsize,
    hello: Mutex<Option<Arc<Hello>>>,
    offered: Mutex<HashMap<Vec<String>, Arc<ToolsList>>>,
}

/// The prober.
#[derive(Clone, Debug, Default)]
pub struct Puppet(Arc<Inner>);

impl Puppet {
    pub fn set(&self, ip: IpAddr, does: Does) {
        self.0.does.lock().expect("no panic").insert(ip, does);
    }

    /// When an address was asked.
    pub fn asked(&self, ip: IpAddr) -> Vec<Instant> {
        self.0.asked.lock().expect("no panic").iter().filter(|(asked, _)| *asked == ip).map(|(_, at)| *at).collect()
    }

    pub fn total(&self) -> usize {
        self.0.asked.lock().expect("no panic").len()
    }

    pub fn forget(&self) {
        self.0.asked.lock().expect("no panic").clear();
    }

    /// The most attempts that were in flight at a time.
    pub fn most(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    fn observation(&self, names: &[String]) -> Observation {
        let mut hello = self.0.hello.lock().expect("no panic");
        let hello = hello.get_or_insert_with(|| {
            Arc::new(Hello { era: Era::Modern, version: "2026-07-28", server_info: ServerInfo::default(), tools: true })
        });
        let mut offered = self.0.offered.lock().expect("no panic");
        let tools = offered.entry(names.to_vec()).or_insert_with(|| {
            let tools = names.iter().map(|name| Tool { name: name.as_str().into(), hash: format!("hash of {name}").into() });
            Arc::new(ToolsList::new(tools.collect()))
        });
        Observation { hello: Arc::clone(hello), tools: Some(Arc::clone(tools)), session: false, kept: None }
    }
}

/// One attempt.
#[derive(Debug)]
pub struct Strings {
    puppet: Puppet,
    ip: IpAddr,
    route: Arc<Route>,
    known: Known,
}

impl Prober for Puppet {
    type Attempt = Strings;

    fn attempt(&self, _: TargetId, route: &Arc<Route>, ip: Option<IpAddr>, known: Known, _: bool) -> Strings {
        let ip = ip.unwrap_or_else(|| IpAddr::from([0, 0, 0, 0]));
        self.0.asked.lock().expect("no panic").push((ip, Instant::now()));
        let now = self.0.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.most.fetch_max(now, Ordering::Relaxed);
        Strings { puppet: self.clone(), ip, route: Arc::clone(route), known }
    }

    fn forget(&self, _: TargetId) {}
}

impl Attempt for Strings {
    async fn ask(&mut self) -> Result<Observation, Problem> {
        let does = self.puppet.0.does.lock().expect("no panic").get(&self.ip).cloned().unwrap_or(Does::Refuse);
        match does {
            Does::Answer => {}
            Does::AnswerAfter(wait) => tokio::time::sleep(wait).await,
            Does::Offer(names) => return Ok(self.puppet.observation(&names.into_iter().map(String::from).collect::<Vec<_>>())),
            Does::OfferAnew => {
                let number = self.puppet.0.lists.fetch_add(1, Ordering::Relaxed);
                return Ok(self.puppet.observation(&[format!("tool-{number}")]));
            }
            Does::OfferNothing => return Ok(Observation { tools: None, ..self.puppet.observation(&[]) }),
            Does::AnswerTo(question) | Does::AdmitTo(question) if question(&self.route) => {}
            Does::Ramble => {
                let number = self.puppet.0.lists.fetch_add(1, Ordering::Relaxed);
                let message = format!("{} failed", RAMBLINGS[number % RAMBLINGS.len()]);
                return Err(Problem::Rpc { step: Step::List, code: -32603, message, supported: Vec::new() });
            }
            Does::Date(words) => {
                let minute = self.puppet.0.lists.fetch_add(1, Ordering::Relaxed) / 4 % 60;
                let message = format!("{words} at 10:{minute:02}:00");
                return Err(Problem::Rpc { step: Step::List, code: -32603, message, supported: Vec::new() });
            }
            Does::Hang => std::future::pending().await,
            Does::AnswerTo(_) | Does::Refuse => return Err(Problem::Refused),
            Does::SayNo(..) | Does::AdmitTo(_) => {
                let (code, retry_after) =
                    if let Does::SayNo(code, retry_after) = does { (code, retry_after) } else { (401, None) };
                return Err(Problem::Status(Status {
                    step: Step::Discover,
                    code,
                    path: "/mcp".into(),
                    retry_after,
                    names_host: false,
                }));
            }
        }
        Ok(self.puppet.observation(&["a".into(), "b".into()]))
    }

    fn step(&self) -> Step {
        Step::Discover
    }

    fn known(&self) -> Known {
        self.known.clone()
    }

    async fn finish(self) {
        self.puppet.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

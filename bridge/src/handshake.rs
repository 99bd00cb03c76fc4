//! Finding out which era a child speaks: `server/discover` first; `initialize` after any other answer, or after silence, because a child
//! may ignore what it does not know. Pure: `now` is passed in, what is to be sent comes out.

use std::time::Duration;

use mcp_wire::{
    hello::{SILENCE, revision_after, supported},
    message::{Answer, Fault, RpcError},
};
use tokio::time::Instant;

use crate::era::{CLIENT_INFO, Hello, LEGACY, MODERN};
use crate::wire;

/// After so much silence, also about a ping, a client's own child is taken for one that hears nothing but its client: another one, which has
/// not heard of `server/discover`, is started for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who says `initialize` to a legacy child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// We, without any capability: the child is for everybody.
    Us,
    /// The client whose child it is.
    Client,
}

/// What an earlier child of the same program spoke, or may have spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// With sessions, and nothing else.
    Legacy,
    /// Without.
    Modern,
    /// Both, or it heard nothing but its client. Some hold to the era of what they hear first: a client's own child must hear that client first.
    Both,
    /// It lists no revision with sessions. Some of these take `initialize` all the same, where it is what they hear first: a child is asked.
    Unlisted,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// This was no part of it, or more is to come.
    Wait,
    /// To be sent.
    Send(Vec<u8>),
    /// It is known; the message is still to be sent.
    Ready(Hello, Option<Vec<u8>>),
    /// It is no MCP server.
    Failed(String),
    /// Another child is to be started, of which this is known.
    Again(Known),
}

/// The conversation so far.
#[derive(Debug)]
pub struct Handshake {
    by: By,
    discover: u64,
    /// Asked for at the same time as the other.
    initialize: u64,
    asked_at: Instant,
    initializing: bool,
    /// By which revision.
    revision: &'static str,
    /// The late word of a child that was already asked to initialize.
    modern: Option<Hello>,
    /// `server/discover` was not asked first.
    discovers_last: bool,
    /// What it said to `server/discover` is known.
    discovered: bool,
    /// Of an earlier child.
    known: Option<Known>,
    /// Its words, when it refused to initialize before it was asked to discover.
    refused: Option<String>,
}

impl Handshake {
    /// The first message. The two ids must not be used for anything else.
    pub fn begin(by: By, [discover, initialize]: [u64; 2], known: Option<Known>, now: Instant) -> (Self, Step) {
        let mut begun = Self {
            by,
            discover,
            initialize,
            asked_at: now,
            initializing: false,
            revision: LEGACY[0],
            modern: None,
            discovers_last: known == Some(Known::Legacy),
            discovered: false,
            known,
            refused: None,
        };
        let first = match known {
            Some(Known::Both) if by == By::Client => Step::Ready(Hello::of_a_client(), None),
            Some(Known::Legacy) => begun.legacy(),
            Some(Known::Unlisted) => {
                (begun.discovers_last, begun.initializing) = (true, true);
                Step::Send(begun.initialize_request())
            }
            _ => Step::Send(begun.discover_request()),
        };
        (begun, first)
    }

    fn discover_request(&self) -> Vec<u8> {
        let meta = format!(
            r#"{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{CLIENT_INFO}}}"#
        );
        wire::request(&self.discover.to_string(), "server/discover", &format!(r#"{{"_meta":{meta}}}"#))
    }

    fn initialize_request(&self) -> Vec<u8> {
        let params = format!(r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{CLIENT_INFO}}}"#, self.revision);
        wire::request(&self.initialize.to_string(), "initialize", &params)
    }

    fn legacy(&mut self) -> Step {
        match self.by {
            // It has not said a word yet, and may not live long: the one thing that anybody may say before `initialize`.
            By::Client if self.discovers_last => self.ping(),
            By::Client => Step::Ready(Hello::of_a_client(), None),
            By::Us => {
                self.initializing = true;
                Step::Send(self.initialize_request())
            }
        }
    }

    /// Asks what was not asked first.
    fn discovers(&mut self) -> Step {
        (self.initializing, self.discovers_last) = (false, false);
        Step::Send(self.discover_request())
    }

    fn ping(&mut self) -> Step {
        self.initializing = true;
        Step::Send(wire::request(&self.initialize.to_string(), "ping", "{}"))
    }

    /// The id of the question that is not answered yet.
    pub fn awaited(&self) -> u64 {
        if self.initializing { self.initialize } else { self.discover }
    }

    /// What to take the next child for, when this one has ended: one that ends at a word that it does not know is asked otherwise next time.
    pub fn guess(&self) -> Option<Known> {
        match self.known {
            Some(Known::Unlisted) => Some(Known::Modern),
            // It may have been slow to read the question at which it ended.
            _ => (!self.discovers_last && !self.discovered).then_some(Known::Legacy),
        }
    }

    /// An answer of the child's.
    pub fn answered(&mut self, id: u64, answer: Result<Answer<'_>, Fault>) -> Step {
        let result = match &answer {
            Ok(Answer::Result(result)) => Some(*result),
            _ => None,
        };
        if id == self.discover {
            self.discovered = true;
            let hello = result.and_then(|result| Hello::of_discover(result.get()));
            return match hello {
                // A client with sessions gets more of a child that speaks its own revision: it may be asked something.
                Some(hello) if self.by == By::Client && hello.speaks_legacy() => Step::Again(Known::Both),
                Some(_) if self.by == By::Client && self.known.is_none() => Step::Again(Known::Unlisted),
                Some(hello) if !self.initializing || self.by == By::Client => Step::Ready(hello, None),
                // It may have taken `initialize` by now: that answer decides.
                Some(hello) => {
                    self.modern = Some(hello);
                    Step::Wait
                }
                None if self.initializing && self.by == By::Us => Step::Wait,
                None if self.initializing => Step::Ready(Hello::of_a_client(), None),
                None => match self.refused.take() {
                    Some(words) => Step::Failed(words),
                    None => self.legacy(),
                },
            };
        }
        if id == self.initialize && self.by == By::Client && self.known == Some(Known::Unlisted) {
            if result.is_some_and(|result| Hello::of_initialize(result.get()).is_some()) {
                return Step::Again(Known::Both);
            }
        } else if id != self.initialize || !self.initializing {
            return Step::Wait;
        }
        if self.by == By::Client {
            if result.is_some() && self.known != Some(Known::Unlisted) {
                return Step::Ready(Hello::of_a_client(), None);
            }
            // There is no ping since 2026-07-28: it lives, and may be of that revision.
            return if self.discovers_last { self.discovers() } else { Step::Wait };
        }
        if let Some(hello) = result.and_then(|result| Hello::of_initialize(result.get())) {
            return Step::Ready(hello, Some(wire::notification("notifications/initialized", "{}")));
        }
        if let (None, Ok(Answer::Error(error))) = (&self.modern, &answer) {
            let RpcError { message, data, .. } = RpcError::read(error, true);
            if let Some(earlier) = revision_after(self.revision, &message, &supported(data.as_ref())) {
                self.revision = earlier;
                return Step::Send(self.initialize_request());
            }
        }
        match (self.modern.take(), answer) {
            (Some(hello), _) => Step::Ready(hello, None),
            (None, answer) => {
                let words = match answer {
                    Ok(Answer::Result(text) | Answer::Error(text)) => {
                        format!("it answered initialize with {}", text.get().chars().take(300).collect::<String>())
                    }
                    Err(fault) => format!("its answer to initialize is none: {fault}"),
                };
                if !self.discovers_last {
                    return Step::Failed(words);
                }
                (self.refused, self.initializing) = (Some(words), false);
                Step::Send(self.discover_request())
            }
        }
    }

    /// Nothing has come so far.
    pub fn silent(&mut self, now: Instant) -> Step {
        if now < self.asked_at + SILENCE || self.refused.is_some() {
            return Step::Wait;
        }
        match (self.by, self.initializing, self.known) {
            (By::Us, false, _) => self.legacy(),
            // It has answered another question before: one that says nothing to this one may wait for that.
            (By::Client, true, Some(Known::Unlisted)) if now >= self.asked_at + PATIENCE => self.discovers(),
            (By::Us, true, _) | (By::Client, _, Some(Known::Modern | Known::Unlisted)) => Step::Wait,
            // Whoever does not answer a ping may still wait for its client.
            (By::Client, _, Some(Known::Legacy)) => Step::Ready(Hello::of_a_client(), None),
            (By::Client, false, _) => self.ping(),
            (By::Client, true, _) if now < self.asked_at + PATIENCE => Step::Wait,
            (By::Client, true, _) => Step::Again(Known::Both),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const INITIALIZED: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#;
    const BOTH: &str = r#"{"supportedVersions":["2025-06-18","2026-07-28"],"capabilities":{}}"#;
    const DISCOVERED: &str = r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#;

    fn begin(by: By, known: Option<Known>) -> (Handshake, String, Instant) {
        let now = Instant::now();
        let (handshake, step) = Handshake::begin(by, [1, 2], known, now);
        (handshake, told(step), now)
    }

    fn told(step: Step) -> String {
        match step {
            Step::Wait => "wait".to_owned(),
            Step::Send(message) => {
                String::from_utf8(message).unwrap().split("\"method\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
            }
            Step::Ready(hello, _) => hello.version,
            Step::Failed(words) => words,
            Step::Again(known) => format!("again, {known:?}"),
        }
    }

    fn raw(text: &str) -> Option<Box<RawValue>> {
        (!text.is_empty()).then(|| RawValue::from_string(text.to_owned()).unwrap())
    }

    fn answer(handshake: &mut Handshake, id: u64, result: &str, error: &str) -> String {
        told(handshake.answered(id, mcp_wire::message::answer(raw(result).as_deref(), raw(error).as_deref())))
    }

    #[test]
    fn a_modern_child_is_ready_after_one_answer() {
        let (mut handshake, first, _) = begin(By::Us, None);
        assert_eq!((first.as_str(), answer(&mut handshake, 1, DISCOVERED, "").as_str()), ("server/discover", MODERN));
    }

    #[test]
    fn any_other_answer_leads_to_initialize() {
        for (result, error) in [("{}", ""), ("", r#"{"code":-32601}"#), ("", r#"{"code":1}"#), ("null", "")] {
            let (mut handshake, _, _) = begin(By::Us, None);
            assert_eq!(answer(&mut handshake, 1, result, error), "initialize");
            assert_eq!(answer(&mut handshake, 2, INITIALIZED, ""), "2025-06-18");
        }
    }

    #[test]
    fn a_child_that_refuses_a_revision_is_asked_by_one_that_it_knows() {
        let (mut handshake, _, _) = begin(By::Us, Some(Known::Legacy));
        let error = raw(r#"{"code":-32602,"message":"Unsupported protocol version","data":{"supported":["2025-03-26"]}}"#);
        let step = handshake.answered(2, mcp_wire::message::answer(None, error.as_deref()));
        assert!(matches!(step, Step::Send(message)
            if String::from_utf8_lossy(&message).contains(r#""protocolVersion":"2025-03-26""#)));
        // It names that one, and refuses it: what it says is told.
        assert_eq!(told(handshake.answered(2, mcp_wire::message::answer(None, error.as_deref()))), "server/discover");
    }

    #[test]
    fn silence_leads_to_initialize_once() {
        let (mut handshake, _, now) = begin(By::Us, None);
        assert_eq!(told(handshake.silent(now + SILENCE / 2)), "wait");
        assert_eq!(told(handshake.silent(now + SILENCE)), "initialize");
        assert_eq!(told(handshake.silent(now + 2 * SILENCE)), "wait");
        // A late refusal of the first question says nothing new.
        assert_eq!(answer(&mut handshake, 1, "", r#"{"code":-32601}"#), "wait");
        assert_eq!(answer(&mut handshake, 2, INITIALIZED, ""), "2025-06-18");
    }

    #[test]
    fn a_slow_modern_child_is_modern_once_it_refuses_to_initialize() {
        let (mut handshake, _, now) = begin(By::Us, None);
        handshake.silent(now + SILENCE);
        assert_eq!(answer(&mut handshake, 1, DISCOVERED, ""), "wait");
        assert_eq!(answer(&mut handshake, 2, "", r#"{"code":-32601}"#), MODERN);
    }

    #[test]
    fn who_answers_neither_fails_in_its_own_words() {
        let (mut handshake, _, _) = begin(By::Us, None);
        answer(&mut handshake, 1, "{}", "");
        let words = answer(&mut handshake, 2, "", r#"{"code":-32603,"message":"no database"}"#);
        assert!(words.contains("no database"), "{words}");
    }

    #[test]
    fn a_child_that_ends_at_the_first_question_is_asked_the_other_one_first_next_time() {
        let guess = |known| begin(By::Us, known).0.guess();
        assert_eq!((guess(None), guess(Some(Known::Legacy))), (Some(Known::Legacy), None));
        // Also where it was slow to read it, and had been asked to initialize by then; but not where it had answered.
        for by in [By::Us, By::Client] {
            let (mut slow, _, now) = begin(by, None);
            slow.silent(now + SILENCE);
            assert_eq!(slow.guess(), Some(Known::Legacy), "{by:?}");
            answer(&mut slow, 1, "", r#"{"code":-32601}"#);
            assert_eq!(slow.guess(), None, "{by:?}");
        }
        // One that was modern all along, and had ended for another reason, is asked to discover then.
        let (mut handshake, _, _) = begin(By::Us, Some(Known::Legacy));
        assert_eq!(answer(&mut handshake, 2, "", r#"{"code":-32601}"#), "server/discover");
        assert_eq!(answer(&mut handshake, 1, DISCOVERED, ""), MODERN);
        let (mut handshake, _, _) = begin(By::Us, Some(Known::Legacy));
        answer(&mut handshake, 2, "", r#"{"code":-32603,"message":"no database"}"#);
        let words = answer(&mut handshake, 1, "", r#"{"code":-32601}"#);
        assert!(words.contains("no database"), "{words}");
        // Of a client's own child, whom that is to initialize, it must be known that it lives.
        let (mut handshake, first, _) = begin(By::Client, Some(Known::Legacy));
        assert_eq!((first.as_str(), answer(&mut handshake, 2, "{}", "").as_str()), ("ping", LEGACY[0]));
        let (mut handshake, _, _) = begin(By::Client, Some(Known::Legacy));
        assert_eq!(answer(&mut handshake, 2, "", r#"{"code":-32601}"#), "server/discover");
        assert_eq!(answer(&mut handshake, 1, DISCOVERED, ""), MODERN);
        let (mut silent, _, now) = begin(By::Client, Some(Known::Legacy));
        assert_eq!(told(silent.silent(now + SILENCE)), LEGACY[0]);
    }

    #[test]
    fn a_clients_own_child_that_is_slow_hears_of_no_other_era_than_it_speaks() {
        let slow = || {
            let (mut handshake, _, now) = begin(By::Client, None);
            assert_eq!(told(handshake.silent(now + SILENCE)), "ping");
            assert_eq!(told(handshake.silent(now + 2 * SILENCE)), "wait");
            (handshake, now)
        };
        assert_eq!(answer(&mut slow().0, 1, DISCOVERED, ""), "again, Unlisted");
        assert_eq!(answer(&mut slow().0, 1, BOTH, ""), "again, Both");
        assert_eq!(answer(&mut slow().0, 1, "", r#"{"code":-32601}"#), LEGACY[0]);
        assert_eq!(answer(&mut slow().0, 2, "{}", ""), LEGACY[0]);
        let (mut deaf, now) = slow();
        assert_eq!(answer(&mut deaf, 2, "", r#"{"code":-32002}"#), "wait", "a late word about the first question says more");
        assert_eq!(told(deaf.silent(now + PATIENCE)), "again, Both");
        // The other one hears its client and nobody else; everybody's child does not.
        assert_eq!(
            (begin(By::Client, Some(Known::Both)).1.as_str(), begin(By::Us, Some(Known::Both)).1.as_str()),
            (LEGACY[0], "server/discover")
        );
        let (mut other, _, now) = begin(By::Client, Some(Known::Legacy));
        assert_eq!(answer(&mut other, 2, "", r#"{"code":-32002}"#), "server/discover");
        assert_eq!(told(other.silent(now + SILENCE)), LEGACY[0]);
    }

    #[test]
    fn what_is_known_is_not_asked_again_and_a_client_initializes_its_own_child() {
        assert_eq!(begin(By::Us, Some(Known::Legacy)).1, "initialize");
        let (mut handshake, first, _) = begin(By::Client, None);
        assert_eq!(first, "server/discover");
        assert_eq!(answer(&mut handshake, 1, "", "{}"), LEGACY[0]);
        let of_a_client = |said| answer(&mut begin(By::Client, None).0, 1, said, "");
        assert_eq!((of_a_client(BOTH).as_str(), of_a_client(DISCOVERED).as_str()), ("again, Both", "again, Unlisted"));
        assert_eq!(answer(&mut begin(By::Us, None).0, 1, BOTH, ""), MODERN, "everybody's child");
    }

    /// As servers of the official Python SDK are, which list the revision alone in which they are asked.
    #[test]
    fn whether_one_that_lists_no_revision_with_sessions_takes_initialize_first_is_tried() {
        let tried = || begin(By::Client, Some(Known::Unlisted));
        let (mut takes, first, _) = tried();
        assert_eq!((first.as_str(), answer(&mut takes, 2, INITIALIZED, "").as_str()), ("initialize", "again, Both"));
        let refused = r#"{"code":-32022,"message":"unsupported","data":{"supported":["2026-07-28"]}}"#;
        let (mut modern, _, _) = tried();
        assert_eq!(answer(&mut modern, 2, "", refused), "server/discover");
        assert_eq!(answer(&mut modern, 1, DISCOVERED, ""), MODERN);
        // One that is slow is waited for; one that says nothing to it is asked what it answered before.
        let (mut silent, _, now) = tried();
        assert_eq!(told(silent.silent(now + 2 * SILENCE)), "wait");
        assert_eq!(told(silent.silent(now + PATIENCE)), "server/discover");
        assert_eq!(told(silent.silent(now + 2 * PATIENCE)), "wait");
        assert_eq!(answer(&mut silent, 2, INITIALIZED, ""), "again, Both", "it was slow");
        // One that ends at it is not asked again.
        assert_eq!(
            (tried().0.guess(), begin(By::Client, Some(Known::Modern)).1.as_str()),
            (Some(Known::Modern), "server/discover")
        );
        assert_eq!(answer(&mut begin(By::Client, Some(Known::Modern)).0, 1, DISCOVERED, ""), MODERN);
    }
}

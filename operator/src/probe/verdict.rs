//! From what a probe met to what it means. Pure.
//!
//! `Problem` is everything that can go wrong between us and a server; `judge` is the only place that says which of it is a failure.

use std::{fmt, sync::Arc, time::Duration};

use mcp_wire::retry_after;

use crate::{crd::reason, wording};

/// The kinds of verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Kind {
    /// Not probed yet.
    #[default]
    Unknown,
    /// A client gets what it needs.
    Healthy,
    /// It answers, but says no to us. Not a failure.
    Alive,
    /// A client gets nothing that it can use.
    Failed,
}

impl Kind {
    /// The kind's name, as `/fleet` and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Healthy => "Healthy",
            Self::Alive => "Alive",
            Self::Failed => "Failed",
        }
    }
}

/// What one probe, or all that is known, says about a server or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The kind.
    pub kind: Kind,
    /// Why, for machines: a constant of [`reason`].
    pub reason: &'static str,
    /// Why, for people: one sentence, without secrets.
    pub message: Arc<str>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::unknown()
    }
}

impl Verdict {
    /// Not probed yet.
    pub fn unknown() -> Self {
        Self::new(Kind::Unknown, reason::UNKNOWN, "not probed yet")
    }

    /// All that a client needs was there.
    pub fn healthy() -> Self {
        Self::new(Kind::Healthy, reason::PROBE_SUCCEEDED, "the server answered over MCP")
    }

    pub(super) fn new(kind: Kind, reason: &'static str, message: impl Into<Arc<str>>) -> Self {
        Self { kind, reason, message: message.into() }
    }

    /// Whether it says what another one said, in other words perhaps: servers number their requests, and say when.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.kind, self.reason) == (other.kind, other.reason) && wording::is_same(&self.message, &other.message)
    }

    /// True for Failed.
    pub fn is_failed(&self) -> bool {
        self.kind == Kind::Failed
    }
}

/// What a probe was doing, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Resolving the name.
    Resolve,
    /// Opening the connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// `server/discover`.
    Discover,
    /// `initialize`.
    Initialize,
    /// `notifications/initialized`.
    Initialized,
    /// `tools/list`.
    List,
    /// `ping`.
    Ping,
    /// `tools/call` of `health.toolCall`.
    Call,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the DNS lookup",
            Self::Connect => "the connection",
            Self::Tls => "the TLS handshake",
            Self::Discover => "server/discover",
            Self::Initialize => "initialize",
            Self::Initialized => "notifications/initialized",
            Self::List => "tools/list",
            Self::Ping => "ping",
            Self::Call => "the call of health.toolCall",
        })
    }
}

/// What ended a probe before it had all that it asked for. The texts hold neither credentials nor userinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nothing listens.
    Refused,
    /// The connection broke.
    Reset(Step),
    /// The network said no.
    Unreachable(String),
    /// We do not go there, and why.
    Forbidden(String),
    /// The time was up.
    Timeout {
        /// What had not ended.
        step: Step,
        /// How long the probe had.
        after: Duration,
    },
    /// The name does not resolve.
    Dns(String),
    /// TLS failed.
    Tls(String),
    /// An HTTP status that ends the probe.
    Status(Status),
    /// A redirect that is not followed, and why.
    Redirected(String),
    /// Not MCP, and in what way.
    NotMcp(Step, String),
    /// It wants TLS, and was asked without.
    SpeaksTls(Step),
    /// The body ended early.
    Truncated(Step),
    /// Too much, and of what.
    TooLarge(String),
    /// No revision in common; what the server offers.
    Version(String),
    /// A JSON-RPC error.
    Rpc {
        /// To what.
        step: Step,
        /// Its code.
        code: i64,
        /// Its message, cut.
        message: String,
        /// The `data.supported` of -32022.
        supported: Vec<String>,
    },
    /// The session was forgotten twice in one probe.
    SessionLost,
    /// `health.toolCall` did not succeed, and how.
    ToolCall(String),
    /// We ran out of something: no verdict follows from it.
    Ours(String),
}

/// An HTTP status that ended a probe, and what of its response matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// To what.
    pub step: Step,
    /// The code.
    pub code: u16,
    /// Of which path, without its query.
    pub path: String,
    /// How long we were asked to wait, where the header could be read.
    pub retry_after: Option<Duration>,
    /// The body complains of our Host header.
    pub names_host: bool,
}

/// What the probed server was given: it decides how a refusal counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// The CR gives credentials.
    pub credentials: bool,
    /// Its CR gives a URL, and not a port and path of pods.
    pub remote: bool,
    /// The port that it is asked at.
    pub port: u16,
}

/// What a probe that met `problem` says about the server, and how long the server asked not to be bothered.
pub fn judge(problem: &Problem, given: Given) -> (Verdict, Option<Duration>) {
    match problem {
        Problem::Status(status) => judge_status(status, given),
        Problem::SpeaksTls(step) => {
            let instead = if given.remote { "spec.remote.url begins with http://" } else { "pods are asked without TLS" };
            let text = format!("the answer to {step} is not MCP: the server speaks TLS where http is expected: {instead}");
            (Verdict::new(Kind::Failed, failure_reason(problem), text), None)
        }
        Problem::Refused => {
            let Given { remote, port, .. } = given;
            let text = if remote {
                format!("connection refused: nothing listens on port {port} of the host that spec.remote.url names")
            } else {
                format!(
                    "connection refused: nothing listens on port {port} of the pod; what listens on 127.0.0.1 alone is not reached"
                )
            };
            (Verdict::new(Kind::Failed, failure_reason(problem), text), None)
        }
        Problem::Ours(_) => (Verdict::new(Kind::Unknown, failure_reason(problem), sentence(problem)), None),
        other => (Verdict::new(Kind::Failed, failure_reason(other), sentence(other)), None),
    }
}

/// Whether it may be for the credentials that this is the answer: servers that do not take them say so in many ways.
pub fn may_mean_credentials(problem: &Problem) -> bool {
    match problem {
        Problem::Status(status) => (400..500).contains(&status.code) && status.code != 429 && !status.names_host,
        Problem::Rpc { .. } | Problem::Redirected(_) => true,
        _ => false,
    }
}

fn judge_status(status: &Status, given: Given) -> (Verdict, Option<Duration>) {
    let Status { step, code, path, retry_after, names_host } = status;
    let failed = |reason, text: String| (Verdict::new(Kind::Failed, reason, text), None);
    match code {
        // 421 is what the Python SDK says where the others say 403.
        403 | 421 if *names_host => failed(
            reason::HOST_REJECTED,
            format!("HTTP {code} to {step}: the server rejects our Host header; add the Service's name to its allowed hosts"),
        ),
        401 | 403 if given.credentials => failed(
            reason::CREDENTIALS_REJECTED,
            format!("HTTP {code} to {step}: the server rejects the credentials that the CR gives"),
        ),
        401 | 403 => {
            let text = format!("HTTP {code} to {step}: the server is up and wants credentials that the CR does not give");
            (Verdict::new(Kind::Alive, reason::UNAUTHORIZED, text), None)
        }
        429 => {
            let text = format!("HTTP 429 to {step}: the server is up and limits how often it is asked");
            (Verdict::new(Kind::Alive, reason::RATE_LIMITED, text), retry_after.map(|wait| wait.min(retry_after::MOST)))
        }
        404 | 405 if matches!(step, Step::Discover | Step::Initialize) => {
            let field = if given.remote { "the path of spec.remote.url" } else { "spec.container.path" };
            failed(
                reason::HTTP_STATUS,
                format!("HTTP {code} to {step} at {path}: perhaps {field} is not where the server speaks MCP"),
            )
        }
        _ => failed(reason::HTTP_STATUS, format!("HTTP {code} to {step} at {path}")),
    }
}

const fn failure_reason(problem: &Problem) -> &'static str {
    match problem {
        Problem::Refused => reason::CONNECTION_REFUSED,
        Problem::Reset(_) => reason::CONNECTION_RESET,
        Problem::Unreachable(_) => reason::UNREACHABLE,
        Problem::Forbidden(_) => reason::ADDRESS_FORBIDDEN,
        Problem::Timeout { .. } => reason::TIMEOUT,
        Problem::Dns(_) => reason::DNS_FAILED,
        Problem::Tls(_) => reason::TLS_FAILED,
        Problem::Status(_) => reason::HTTP_STATUS,
        Problem::Redirected(_) => reason::REDIRECTED,
        Problem::NotMcp(..) | Problem::SpeaksTls(_) => reason::NOT_MCP,
        Problem::Truncated(_) => reason::TRUNCATED,
        Problem::TooLarge(_) => reason::TOO_LARGE,
        Problem::Version(_) => reason::UNSUPPORTED_VERSION,
        Problem::Rpc { .. } => reason::JSON_RPC_ERROR,
        Problem::SessionLost => reason::SESSION_LOST,
        Problem::ToolCall(_) => reason::TOOL_CALL_FAILED,
        Problem::Ours(_) => reason::UNKNOWN,
    }
}

fn sentence(problem: &Problem) -> String {
    match problem {
        Problem::Refused => "connection refused".into(),
        Problem::Reset(step) => format!("the connection broke during {step}"),
        Problem::Unreachable(what) => format!("the address cannot be reached: {what}"),
        Problem::Forbidden(why) => why.clone(),
        Problem::Timeout { step, after } => format!("{step} did not end within {} s", after.as_secs_f64()),
        Problem::Dns(what) => format!("the name does not resolve: {what}"),
        Problem::Tls(what) => format!("TLS failed: {what}"),
        Problem::Status(status) => format!("HTTP {} to {} at {}", status.code, status.step, status.path),
        Problem::Redirected(what) => format!("redirected: {what}"),
        Problem::SpeaksTls(step) => format!("the answer to {step} is TLS"),
        Problem::NotMcp(step, what) => format!("the answer to {step} is not MCP: {what}"),
        Problem::Truncated(step) => format!("the answer to {step} ended before it was whole"),
        Problem::TooLarge(what) => format!("too large: {what}"),
        Problem::Version(offered) => format!("the server speaks no revision of MCP that we know, but {offered}"),
        Problem::Rpc { step, code, message, .. } => format!("JSON-RPC error {code} to {step}: {message}"),
        Problem::SessionLost => "the server forgot the session twice within one probe (HTTP 404)".into(),
        Problem::ToolCall(what) => format!("health.toolCall: {what}"),
        Problem::Ours(what) => format!("the operator could not ask: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Status {
        Status { step: Step::Discover, code, path: "/mcp".into(), retry_after: None, names_host: false }
    }

    #[test]
    fn a_refusal_is_alive_only_when_we_gave_no_credentials() {
        for code in [401, 403] {
            let (verdict, _) = judge(&Problem::Status(status(code)), Given::default());
            assert_eq!((verdict.kind, verdict.reason), (Kind::Alive, reason::UNAUTHORIZED));
            let (verdict, _) = judge(&Problem::Status(status(code)), Given { credentials: true, ..Given::default() });
            assert_eq!((verdict.kind, verdict.reason), (Kind::Failed, reason::CREDENTIALS_REJECTED));
        }
    }

    #[test]
    fn a_refused_connection_names_the_port_and_whose_it_is() {
        for (remote, words) in [(false, "port 9090 of the pod"), (true, "port 9090 of the host that spec.remote.url names")] {
            let (verdict, _) = judge(&Problem::Refused, Given { remote, port: 9090, ..Given::default() });
            assert!(verdict.message.contains(words), "{}", verdict.message);
        }
    }

    #[test]
    fn a_refusal_of_our_host_is_a_failure_with_and_without_credentials() {
        for credentials in [false, true] {
            let problem = Problem::Status(Status { names_host: true, ..status(403) });
            let (verdict, _) = judge(&problem, Given { credentials, ..Given::default() });
            assert_eq!((verdict.kind, verdict.reason), (Kind::Failed, reason::HOST_REJECTED));
        }
    }

    #[test]
    fn a_rate_limit_is_obeyed_for_at_most_ten_minutes() {
        let limited = |wait| Problem::Status(Status { retry_after: wait, ..status(429) });
        let wait = |problem: &Problem| judge(problem, Given::default()).1;
        assert_eq!(wait(&limited(None)), None);
        assert_eq!(wait(&limited(Some(Duration::from_secs(7)))), Some(Duration::from_secs(7)));
        assert_eq!(wait(&limited(Some(Duration::from_hours(24)))), Some(retry_after::MOST));
    }

    #[test]
    fn a_path_that_may_be_wrong_is_told_with_the_field_that_says_it() {
        let told = |code, remote| {
            let given = Given { remote, ..Given::default() };
            judge(&Problem::Status(status(code)), given).0.message.to_string()
        };
        let perhaps = |field: &str| format!("to server/discover at /mcp: perhaps {field} is not where the server speaks MCP");
        assert_eq!(told(404, false), format!("HTTP 404 {}", perhaps("spec.container.path")));
        assert_eq!(told(405, true), format!("HTTP 405 {}", perhaps("the path of spec.remote.url")));
        assert_eq!(told(400, true), "HTTP 400 to server/discover at /mcp");
        let listed = Problem::Status(Status { step: Step::List, ..status(404) });
        assert_eq!(&*judge(&listed, Given::default()).0.message, "HTTP 404 to tools/list at /mcp", "it spoke MCP there");
    }

    #[test]
    fn a_503_that_asks_to_wait_is_a_failure_at_the_usual_pace() {
        let problem = Problem::Status(Status { retry_after: Some(Duration::from_mins(1)), ..status(503) });
        let (verdict, wait) = judge(&problem, Given::default());
        assert_eq!((verdict.reason, wait), (reason::HTTP_STATUS, None));
    }
}

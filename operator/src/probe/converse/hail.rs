//! Who is there: in which era a server speaks, and what it says about itself.

use std::sync::Arc;

use mcp_wire::hello::revision_after;

use super::{AtDiscover, Conversation, HELLOS};
use crate::{
    crd::Era,
    probe::{
        answer::Answer,
        protocol::{self, Discovered, Hello},
        verdict::{Problem, Status, Step},
    },
};

enum Hailed {
    Hello(Arc<Hello>),
    /// The server answers, but not so. What it said instead.
    No(Problem),
}

impl Conversation {
    /// Finds out in which era the server speaks, and who it is.
    pub(super) async fn hail(&mut self) -> Result<Arc<Hello>, Problem> {
        let legacy_first = match self.known.era {
            Some(Era::Modern) => false,
            // Whoever answers neither is not left with a session at every probe.
            Some(Era::Legacy) => !(self.known.wary && self.known.at_discover == AtDiscover::Answers),
            None => self.known.legacy_first || self.known.at_discover == AtDiscover::Breaks,
        };
        let hello = if legacy_first { self.hail_legacy_first().await } else { self.hail_modern_first().await };
        let hello = hello.map_err(|problem| self.redacted(problem))?;
        self.known.era = Some(hello.era);
        Ok(hello)
    }

    async fn hail_modern_first(&mut self) -> Result<Arc<Hello>, Problem> {
        let instead = match self.discover().await? {
            Hailed::Hello(hello) => return Ok(hello),
            Hailed::No(problem) => problem,
        };
        let known = self.known.era;
        self.initialize().await.map_err(|problem| the_one_that_matters(instead, problem, known))
    }

    async fn hail_legacy_first(&mut self) -> Result<Arc<Hello>, Problem> {
        let problem = match self.initialize().await {
            Ok(hello) => return Ok(self.modern_after_all(hello).await),
            Err(problem) => problem,
        };
        let other_era = match &problem {
            Problem::Rpc { .. } | Problem::Version(_) | Problem::NotMcp(..) => true,
            Problem::Status(status) => matches!(status.code, 400 | 404 | 405 | 406 | 410 | 415 | 422 | 501),
            other => self.known.era.is_none() && breaks(other),
        };
        if !other_era {
            return Err(problem);
        }
        match self.discover().await {
            Ok(Hailed::Hello(hello)) => Ok(hello),
            Ok(Hailed::No(instead)) | Err(instead) => Err(the_one_that_matters(instead, problem, None)),
        }
    }

    /// Who was silent to discover may have been silent to everything at that time, and speak both eras. It is asked once more, and for a
    /// part of the probe's time only: some legacy servers never answer what they do not know.
    async fn modern_after_all(&mut self, legacy: Arc<Hello>) -> Arc<Hello> {
        if self.known.era.is_some() || self.known.at_discover != AtDiscover::Silent {
            return legacy;
        }
        let patience = self.http.route.timeout / 3;
        if let Ok(Ok(Hailed::Hello(modern))) = tokio::time::timeout(patience, self.discover()).await {
            return modern;
        }
        self.version = legacy.version;
        legacy
    }

    async fn discover(&mut self) -> Result<Hailed, Problem> {
        self.version = protocol::MODERN;
        let keeps = self.http.route.keeps;
        let known = self.known.hello.as_ref().filter(|(_, hello)| hello.era == Era::Modern).map(|(hash, _)| *hash);
        let known = known.filter(|_| !keeps || self.known.discovered.is_some());
        let answer = self.exchange(&protocol::discover(), known).await;
        self.known.at_discover = match &answer {
            Err(problem) if breaks(problem) => AtDiscover::Breaks,
            // Nobody was asked.
            Err(Problem::Reset(_) | Problem::Refused | Problem::Unreachable(_) | Problem::Dns(_) | Problem::Tls(_)) => {
                self.known.at_discover
            }
            _ => AtDiscover::Answers,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => return after_discover(problem, self.known.era).map(Hailed::No),
        };
        let no = |what: &str| Ok(Hailed::No(Problem::NotMcp(Step::Discover, what.into())));
        match answer {
            Answer::Same => match &self.known.hello {
                Some((_, hello)) => Ok(Hailed::Hello(Arc::clone(hello))),
                None => no("it is no discover result"),
            },
            Answer::New { message: Err(error), .. } => {
                after_discover(error.problem(Step::Discover), self.known.era).map(Hailed::No)
            }
            Answer::New { hash, message: Ok(result) } => match protocol::discovered(&result) {
                Discovered::Modern(hello) => {
                    self.known.discovered = keeps.then(|| Arc::new(result));
                    Ok(Hailed::Hello(self.met(hash, hello)))
                }
                Discovered::Legacy => no("it lists only legacy revisions"),
                // Legacy revisions need not be listed.
                Discovered::Unknown(versions) => Ok(Hailed::No(Problem::Version(versions.join(", ")))),
                Discovered::No => no("it is no discover result"),
            },
        }
    }

    /// Opens a session, by an earlier revision where the server refuses ours.
    pub(super) async fn initialize(&mut self) -> Result<Arc<Hello>, Problem> {
        let mut revision = protocol::LEGACY[0];
        loop {
            let problem = match self.initialize_by(revision).await {
                Ok(hello) => return Ok(hello),
                Err(problem) => problem,
            };
            let earlier = match &problem {
                Problem::Rpc { message, supported, .. } => {
                    let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
                    revision_after(revision, message, &supported)
                }
                _ => None,
            };
            revision = earlier.ok_or_else(|| version_problem(problem))?;
        }
    }

    async fn initialize_by(&mut self, revision: &'static str) -> Result<Arc<Hello>, Problem> {
        self.session = None;
        self.version = revision;
        self.session_version = self.version;
        let known = self.known.hello.as_ref().filter(|(_, hello)| hello.era == Era::Legacy).map(|(hash, _)| *hash);
        self.opening = true;
        let answer = self.exchange(&protocol::initialize(revision), known).await;
        self.opening = false;
        let hello = match (answer?, &self.known.hello) {
            (Answer::Same, Some((_, hello))) => Arc::clone(hello),
            (Answer::Same, None) => return Err(Problem::NotMcp(Step::Initialize, "it is unknown".into())),
            (Answer::New { message: Err(error), .. }, _) => return Err(error.problem(Step::Initialize)),
            (Answer::New { hash, message: Ok(result) }, _) => {
                let hello = protocol::initialized_as(&result)?;
                self.met(hash, hello)
            }
        };
        self.version = hello.version;
        self.session_version = hello.version;
        Ok(hello)
    }

    fn met(&mut self, hash: u64, hello: Hello) -> Arc<Hello> {
        let hello = HELLOS.share(hello);
        self.known.hello = Some((hash, Arc::clone(&hello)));
        self.known.kept = None;
        hello
    }
}

/// Whether what ended discover, of a server whose era may be known, leads to initialize (then it is returned) or ends the probe.
fn after_discover(problem: Problem, known: Option<Era>) -> Result<Problem, Problem> {
    match problem {
        // Whoever limits us is not asked again at once.
        Problem::Status(Status { code: 429, .. }) => Err(problem),
        Problem::Status(_)
        | Problem::Rpc { .. }
        | Problem::NotMcp(..)
        | Problem::SpeaksTls(_)
        | Problem::TooLarge(_)
        | Problem::Redirected(_) => Ok(version_problem(problem)),
        // Some servers die of what they do not know. Who spoke the modern era does know it, and broke down.
        problem if breaks(&problem) && known != Some(Era::Modern) => Ok(problem),
        other => Err(other),
    }
}

/// The connection was there, and broke within the answer or before it.
fn breaks(problem: &Problem) -> bool {
    matches!(problem, Problem::Reset(Step::Discover | Step::Initialize) | Problem::Truncated(Step::Discover | Step::Initialize))
}

/// Which of the two tells what is wrong with a server that answers neither discover nor initialize, and whose era may be known.
fn the_one_that_matters(discover: Problem, initialize: Problem, known: Option<Era>) -> Problem {
    let is_modern = match &initialize {
        // The modern server that it was answers initialize in its own words.
        _ if known == Some(Era::Modern) => true,
        Problem::Rpc { code: protocol::METHOD_NOT_FOUND, .. } => true,
        // It named the revisions that it speaks, and could not say so when it was asked for them.
        Problem::Version(offered) => breaks(&discover) && offered.split(", ").any(|revision| revision == protocol::MODERN),
        // It speaks MCP, and named the revisions that it speaks.
        Problem::Rpc { .. } | Problem::NotMcp(..) | Problem::Status(Status { code: 400..=499, .. }) => {
            matches!(discover, Problem::Version(_))
        }
        _ => false,
    };
    if is_modern { discover } else { initialize }
}

fn version_problem(problem: Problem) -> Problem {
    match problem {
        Problem::Rpc { code: protocol::UNSUPPORTED_VERSION, supported, .. } if !supported.is_empty() => {
            Problem::Version(supported.join(", "))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(step: Step, code: i64) -> Problem {
        Problem::Rpc { step, code, message: "no".into(), supported: Vec::new() }
    }

    #[test]
    fn a_break_leads_to_initialize_unless_the_server_was_modern_a_moment_ago() {
        for broken in [Problem::Reset(Step::Discover), Problem::Truncated(Step::Discover)] {
            for known in [None, Some(Era::Legacy)] {
                assert_eq!(after_discover(broken.clone(), known), Ok(broken.clone()));
            }
            assert_eq!(after_discover(broken.clone(), Some(Era::Modern)), Err(broken));
        }
        for nobody in [Problem::Refused, Problem::Reset(Step::Connect), Problem::Reset(Step::Tls)] {
            assert_eq!(after_discover(nobody.clone(), None), Err(nobody), "nobody was asked");
        }
    }

    #[test]
    fn what_is_told_is_what_is_wrong_in_the_era_that_the_server_speaks() {
        let broken = || Problem::Reset(Step::Discover);
        let unknown = || rpc(Step::Initialize, protocol::METHOD_NOT_FOUND);
        let offers = |versions: &str| Problem::Version(versions.into());
        assert_eq!(the_one_that_matters(broken(), unknown(), None), broken());
        assert_eq!(the_one_that_matters(broken(), offers("2026-07-28, 2031-01-01"), None), broken());
        assert_eq!(the_one_that_matters(broken(), offers("1999-01-01"), None), offers("1999-01-01"));
        assert_eq!(the_one_that_matters(broken(), Problem::Refused, Some(Era::Modern)), broken());
        assert_eq!(the_one_that_matters(broken(), Problem::Refused, None), Problem::Refused);
        let refused = || rpc(Step::Initialize, -32000);
        assert_eq!(the_one_that_matters(offers("2031-01-01"), refused(), None), offers("2031-01-01"));
        assert_eq!(the_one_that_matters(rpc(Step::Discover, protocol::METHOD_NOT_FOUND), refused(), None), refused());
    }
}

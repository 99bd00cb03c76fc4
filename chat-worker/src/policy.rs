//! The gate: whether a call of a tool may run. Pure, and the only place that decides it, for a turn, for the API and for /mcp. What a
//! tool says of itself is believed as far as its server is (`catalogue`); which tools there are at all was decided before (`rules`).

use crate::{config::rules::Approvals, tools::spec::ToolSpec};

/// What is known of a decision on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nobody has decided yet, and somebody can be asked.
    Open,
    /// Nobody has decided, and nobody can be asked.
    Unattended,
    /// A person, or the caller for one, allowed this call.
    Allowed,
    /// A person, or the caller for one, did not.
    Denied,
    /// A person always allows this tool, as it is defined now.
    Always,
    /// A client of /mcp asks its own user, by what the tool says of itself.
    Client,
}

/// Why a call runs: for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Its tool destroys nothing.
    Harmless,
    /// The setting allows every call.
    Setting,
    Person,
    Rule,
    Client,
}

impl By {
    /// In a word, for a log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Setting => "setting",
            Self::Person => "person",
            Self::Rule => "always",
            Self::Client => "client",
        }
    }
}

/// Why a call does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no such tool now. Whatever comes to have its name later was not judged.
    Unknown,
    /// Calls that may destroy are never made here.
    Never,
    Denied,
    Unattended,
}

impl Why {
    /// For the model, or a client.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => "there is no such tool now",
            Self::Never => "calls of tools that may change or destroy data are not allowed here; do not try it again",
            Self::Denied => "the user did not allow this call; do not try it again, ask what to do instead",
            Self::Unattended => "the user did not allow this call: nobody is there to be asked",
        }
    }

    /// In a word, for a log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Never => "never",
            Self::Denied => "denied",
            Self::Unattended => "unattended",
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Run(By),
    Ask,
    Refuse(Why),
}

/// Judges a call of this tool, as it is now; `None` is a tool that nobody knows. `mode` is the program's setting.
pub fn judge(spec: Option<&ToolSpec>, mode: Approvals, decision: Decision) -> Verdict {
    let Some(spec) = spec else { return Verdict::Refuse(Why::Unknown) };
    if !may_harm(spec) {
        return Verdict::Run(By::Harmless);
    }
    match (effective(spec, mode), decision) {
        (Approvals::Never, _) => Verdict::Refuse(Why::Never),
        (_, Decision::Denied) => Verdict::Refuse(Why::Denied),
        (_, Decision::Allowed) => Verdict::Run(By::Person),
        (Approvals::Always, _) => Verdict::Run(By::Setting),
        (Approvals::Ask, Decision::Always) => Verdict::Run(By::Rule),
        (Approvals::Ask, Decision::Client) => Verdict::Run(By::Client),
        (Approvals::Ask, Decision::Open) => Verdict::Ask,
        (Approvals::Ask, Decision::Unattended) => Verdict::Refuse(Why::Unattended),
    }
}

/// Whether a client is told of a tool at all: what would be refused is not offered.
pub fn offers(spec: &ToolSpec, mode: Approvals) -> bool {
    judge(Some(spec), mode, Decision::Client) != Verdict::Refuse(Why::Never)
}

/// It may destroy, or it is not what it was when it was first listed.
pub fn may_harm(spec: &ToolSpec) -> bool {
    spec.destructive || spec.changed
}

/// `never` is final, whoever says it; else a server's own setting comes before the program's.
fn effective(spec: &ToolSpec, mode: Approvals) -> Approvals {
    match (mode, spec.approvals) {
        (Approvals::Never, _) | (_, Some(Approvals::Never)) => Approvals::Never,
        (_, Some(own)) => own,
        (mode, None) => mode,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn spec(read_only: bool, changed: bool, own: Option<Approvals>) -> ToolSpec {
        let tool = json!({"name": "t", "inputSchema": {}, "annotations": {"readOnlyHint": read_only}});
        let mut spec = ToolSpec::new("s", &serde_json::from_value(tool).expect("a tool")).expect("fits");
        (spec.changed, spec.approvals) = (changed, own);
        spec
    }

    use Approvals::{Always, Ask, Never};
    const DECISIONS: [Decision; 6] =
        [Decision::Open, Decision::Unattended, Decision::Allowed, Decision::Denied, Decision::Always, Decision::Client];

    #[test]
    fn never_is_final_and_an_unknown_tool_never_runs() {
        for decision in DECISIONS {
            for own in [None, Some(Always), Some(Ask), Some(Never)] {
                assert_eq!(judge(Some(&spec(false, false, own)), Never, decision), Verdict::Refuse(Why::Never));
            }
            assert_eq!(judge(Some(&spec(false, false, Some(Never))), Always, decision), Verdict::Refuse(Why::Never));
            assert_eq!(judge(Some(&spec(true, true, None)), Never, decision), Verdict::Refuse(Why::Never), "changed");
            for mode in [Ask, Always, Never] {
                assert_eq!(judge(None, mode, decision), Verdict::Refuse(Why::Unknown));
                assert_eq!(judge(Some(&spec(true, false, None)), mode, decision), Verdict::Run(By::Harmless));
            }
        }
    }

    #[rstest]
    #[case(Ask, None, Decision::Open, Verdict::Ask)]
    #[case(Ask, None, Decision::Allowed, Verdict::Run(By::Person))]
    #[case(Ask, None, Decision::Denied, Verdict::Refuse(Why::Denied))]
    #[case(Ask, None, Decision::Always, Verdict::Run(By::Rule))]
    #[case(Ask, None, Decision::Client, Verdict::Run(By::Client))]
    #[case(Ask, None, Decision::Unattended, Verdict::Refuse(Why::Unattended))]
    #[case(Always, None, Decision::Open, Verdict::Run(By::Setting))]
    #[case(Always, None, Decision::Denied, Verdict::Refuse(Why::Denied))]
    #[case(Always, Some(Ask), Decision::Open, Verdict::Ask)]
    #[case(Ask, Some(Always), Decision::Open, Verdict::Run(By::Setting))]
    fn a_tool_that_may_harm_runs_by_the_mode_and_the_decision(
        #[case] mode: Approvals,
        #[case] own: Option<Approvals>,
        #[case] decision: Decision,
        #[case] verdict: Verdict,
    ) {
        assert_eq!(judge(Some(&spec(false, false, own)), mode, decision), verdict);
        assert_eq!(judge(Some(&spec(true, true, own)), mode, decision), verdict, "a changed definition is asked about again");
    }
}

//! Why a child is not there, in words that a person can act on. Who is answered with them: `Calls::died`.

use mcp_stdio::exit::Exit;
use serde_json::json;

use crate::last_words::{names_an_error, tells};

/// How many of its last lines are told.
const LAST_LINES: usize = 20;

/// The end of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// How it ended; None: it never began.
    pub exit: Option<Exit>,
    /// What the bridge had to do with it: it was ended because it closed its standard output, say.
    pub because: Option<String>,
    /// Its last lines on standard error.
    pub stderr: Vec<String>,
}

impl Death {
    /// With the last of these lines.
    pub fn new(exit: Option<Exit>, because: Option<String>, mut stderr: Vec<String>) -> Self {
        stderr.drain(..stderr.len().saturating_sub(LAST_LINES));
        Self { exit, because, stderr }
    }

    /// The member `data` of the error that its calls are answered with: those that were sent to it, and those that were not.
    pub fn data(&self, sent: bool) -> String {
        json!({
            "reason": if sent { "ServerExited" } else { "NotSent" },
            "exitCode": self.exit.and_then(|exit| exit.code),
            "signal": self.exit.and_then(Exit::signal_name),
            "stderr": self.stderr,
        })
        .to_string()
    }

    /// One sentence.
    pub fn summary(&self) -> String {
        let how = match (&self.exit, &self.because) {
            (Some(exit), Some(because)) => format!("{because} ({exit})"),
            (Some(exit), None) => exit.to_string(),
            (None, because) => because.clone().unwrap_or_default(),
        };
        let last = telling(&self.stderr).map_or_else(String::new, |line| {
            // Room for the lines around it.
            let line: String = line.chars().take(500).collect();
            format!("; its last words: {line}")
        });
        format!("the server ended: {how}{last}")
    }

    /// To whom it died before his call was sent.
    pub fn unsent(&self) -> String {
        format!("the call was not sent: {}", self.summary())
    }

    /// What the kubelet shows of a container that has ended: at most 4 KiB of it. The sentence is last, for whoever has room for the end
    /// alone.
    pub fn termination_message(&self) -> String {
        const ROOM: usize = 4096;
        let summary = self.summary();
        let mut lines = Vec::new();
        let mut room = ROOM - summary.len().min(ROOM / 2) - 1;
        for line in self.stderr.iter().rev().take_while(|line| {
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 1);
            fits
        }) {
            lines.push(line.as_str());
        }
        lines.reverse();
        lines.push(&summary);
        lines.join("\n")
    }

    /// What the container ends with.
    pub fn exit_code(&self) -> u8 {
        // As a shell says of a program that could not be started.
        self.exit.map_or(127, Exit::shell_code)
    }
}

/// The line that says why: the last one that names an error, for runtimes put their stack and their version after it; else how the program
/// is used, which is said where it is not used so; else the last that tells anything.
fn telling(stderr: &[String]) -> Option<&String> {
    let tells_usage = |line: &str| line.trim().to_ascii_lowercase().starts_with("usage:");
    let by = |is_it: &dyn Fn(&str) -> bool| stderr.iter().rev().find(|line| is_it(line));
    by(&names_an_error).or_else(|| by(&tells_usage)).or_else(|| by(&tells)).or_else(|| stderr.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit { code: None, signal: Some(9) };

    #[test]
    fn calls_are_told_how_and_with_which_words() {
        let death = Death::new(Some(Exit { code: Some(1), signal: None }), None, vec!["Cannot find module './x'".into()]);
        assert_eq!(
            death.data(true),
            r#"{"exitCode":1,"reason":"ServerExited","signal":null,"stderr":["Cannot find module './x'"]}"#
        );
        assert_eq!(death.summary(), "the server ended: exit code 1; its last words: Cannot find module './x'");
        let killed = Death::new(Some(KILLED), Some("it closed its standard output".into()), Vec::new());
        assert_eq!(killed.summary(), "the server ended: it closed its standard output (killed by SIGKILL)");
        assert!(killed.data(true).contains(r#""signal":"SIGKILL""#));
    }

    #[test]
    fn the_line_that_says_why_is_told_and_not_the_stack_behind_it() {
        let node = "node:internal/modules/cjs/loader:1228\n  throw err;\n  ^\nError: Cannot find module './x'\nRequire stack:\n    at Module._load (node:internal:1)\n  code: 'MODULE_NOT_FOUND',\n}\nNode.js v22.12.0";
        let python =
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nModuleNotFoundError: No module named 'x'";
        let other = "starting\nno key given";
        let argparse = "usage: srv [-h]\nsrv: error: unrecognized arguments: --x";
        let clap = "error: unexpected argument '--x' found\n\nUsage: srv [OPTIONS]\n\nFor more information, try '--help'.";
        let usage = "usage: srv FILE\nFILE is a database";
        let log = "2026-01-01 10:00:00 ERROR db: no such file\nbye";
        let npm = "npm error code E404\nnpm error 404 Not Found - GET https://r/a\nnpm error 404  'a@1' is not in this registry.\nnpm error 404\nnpm error A complete log of this run can be found in: /x";
        let rich = "ValueError: no key\n+------------------------------------";
        for (text, line) in [
            (node, "Error: Cannot find module './x'"),
            (python, "ModuleNotFoundError: No module named 'x'"),
            (other, "no key given"),
            (argparse, "srv: error: unrecognized arguments: --x"),
            (clap, "error: unexpected argument '--x' found"),
            (usage, "usage: srv FILE"),
            (log, "2026-01-01 10:00:00 ERROR db: no such file"),
            (npm, "npm error 404  'a@1' is not in this registry."),
            (rich, "ValueError: no key"),
            ("it is over\n+-----", "it is over"),
        ] {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(telling(&lines).map(String::as_str), Some(line));
            let message = Death::new(Some(KILLED), None, lines).termination_message();
            assert!(message.ends_with(&format!("its last words: {line}")), "{message}");
        }
        assert_eq!(telling(&[]), None);
    }

    #[test]
    fn the_termination_message_holds_the_last_lines_that_fit() {
        let lines: Vec<String> = (0..20).map(|number| format!("{number} {}", "x".repeat(400))).collect();
        let message = Death::new(Some(KILLED), None, lines).termination_message();
        assert!(message.len() <= 4096, "{}", message.len());
        assert!(message.contains("\n19 x") && message.contains("\nthe server ended: killed by SIGKILL"), "{message}");
    }
}

//! How a child ended, in the words that a person looks for.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;

/// Exactly one of the two is there, unless the child could not be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// What it returned.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// The exit code that a shell would show: 128 and the signal's number for who was killed.
    pub fn shell_code(self) -> u8 {
        let code = self.code.or_else(|| self.signal.map(|signal| 128 + signal)).unwrap_or(1);
        u8::try_from(code).unwrap_or(1)
    }

    /// `SIGKILL`; for a signal without a name `signal 42`.
    pub fn signal_name(self) -> Option<String> {
        self.signal.map(|number| name_of(number).map_or_else(|| format!("signal {number}"), str::to_owned))
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal_name()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "killed by {signal}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

fn name_of(number: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 13] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_a_shell_tells_it() {
        let told = |raw| {
            let exit = Exit::from(ExitStatus::from_raw(raw));
            (exit.to_string(), exit.shell_code())
        };
        assert_eq!(told(0), ("exit code 0".to_owned(), 0));
        assert_eq!(told(3 << 8), ("exit code 3".to_owned(), 3));
        assert_eq!(told(9), ("killed by SIGKILL".to_owned(), 137));
        assert_eq!(told(40), ("killed by signal 40".to_owned(), 168));
    }
}

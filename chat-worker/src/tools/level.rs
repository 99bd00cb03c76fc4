//! From which level on messages for a log are wanted of the servers, and what one of them was told of that.

#![allow(deprecated, reason = "messages for a log, which earlier eras have")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::LoggingLevel;

/// What all servers are asked for: the lowest level that anybody wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<Mutex<Option<LoggingLevel>>>);

impl Wanted {
    pub fn set(&self, level: Option<LoggingLevel>) {
        *held(&self.0) = level;
    }
}

/// What a server was told, in which of its sessions.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Option<(u64, LoggingLevel)>>>);

impl Told {
    /// What it has to be told now, in this session: nothing where it knows. It counts as told from here on, however that goes: one that does
    /// not take it is not told again and again.
    pub fn due(&self, wanted: &Wanted, session: u64) -> Option<LoggingLevel> {
        let level = (*held(&wanted.0))?;
        let before = held(&self.0).replace((session, level));
        (before != Some((session, level))).then_some(level)
    }
}

/// Whether a message of this level is for somebody who wants them from that level on. One whose level nobody knows is.
pub fn is_for(level: Option<LoggingLevel>, wanted: Option<LoggingLevel>) -> bool {
    level.zip(wanted).is_none_or(|(level, wanted)| severity(level) >= severity(wanted))
}

/// The more, the worse.
pub fn severity(level: LoggingLevel) -> u8 {
    level as u8
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_once_in_each_session_and_again_when_it_changes() {
        let (wanted, told) = (Wanted::default(), Told::default());
        assert_eq!(told.due(&wanted, 1), None, "nobody wants anything");
        wanted.set(Some(LoggingLevel::Error));
        assert_eq!((told.due(&wanted, 1), told.due(&wanted, 1)), (Some(LoggingLevel::Error), None));
        assert_eq!((told.due(&wanted, 2), told.due(&wanted, 2)), (Some(LoggingLevel::Error), None), "a new session");
        wanted.set(Some(LoggingLevel::Info));
        assert_eq!(told.due(&wanted, 2), Some(LoggingLevel::Info));
    }

    #[test]
    fn messages_below_the_wanted_level_are_for_nobody() {
        let for_warnings = |level| is_for(level, Some(LoggingLevel::Warning));
        assert!(for_warnings(Some(LoggingLevel::Warning)) && for_warnings(Some(LoggingLevel::Emergency)) && for_warnings(None));
        assert!(!for_warnings(Some(LoggingLevel::Notice)) && is_for(Some(LoggingLevel::Debug), None));
    }
}

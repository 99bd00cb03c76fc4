//! From which level on each session of an earlier era wants messages for a log. It is kept where the session said it: a session that never
//! said so, or said it to another replica, hears all that the servers send.

#![allow(deprecated, reason = "messages for a log, which earlier eras have")]

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rmcp::model::LoggingLevel;

use crate::tools::level::severity;

/// Sessions need not say that they end: beyond so many, the level of the one that was not heard of for longest is forgotten.
const MOST: usize = 1_024;

/// The levels of the sessions that said one, and when each was last asked for.
#[derive(Debug, Default)]
pub struct Levels(Mutex<HashMap<String, (LoggingLevel, Instant)>>);

impl Levels {
    /// That of this session.
    pub fn of(&self, session: &str) -> Option<LoggingLevel> {
        let mut all = self.all();
        let (level, used) = all.get_mut(session)?;
        *used = Instant::now();
        Some(*level)
    }

    /// Notes that of a session, or that it wants nothing any more: the lowest that any wants now.
    pub fn set(&self, session: &str, level: Option<LoggingLevel>) -> Option<LoggingLevel> {
        let mut all = self.all();
        match level {
            Some(level) => all.insert(session.to_owned(), (level, Instant::now())),
            None => all.remove(session),
        };
        if all.len() > MOST {
            let oldest = all.iter().min_by_key(|(_, (_, used))| *used).map(|(session, _)| session.clone());
            oldest.map(|session| all.remove(&session));
        }
        all.values().map(|(level, _)| *level).min_by_key(|level| severity(*level))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, (LoggingLevel, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_level_of_all_sessions_is_what_servers_are_asked_for() {
        let levels = Levels::default();
        assert_eq!(levels.set("a", Some(LoggingLevel::Error)), Some(LoggingLevel::Error));
        assert_eq!(levels.set("b", Some(LoggingLevel::Info)), Some(LoggingLevel::Info));
        assert_eq!(levels.set("a", Some(LoggingLevel::Alert)), Some(LoggingLevel::Info));
        assert_eq!((levels.of("a"), levels.of("c")), (Some(LoggingLevel::Alert), None));
        assert_eq!(levels.set("b", None), Some(LoggingLevel::Alert));
        for session in 0..MOST {
            levels.set(&session.to_string(), Some(LoggingLevel::Alert));
        }
        assert_eq!(levels.of("a"), None, "it was not heard of for longest");
        assert_eq!(levels.all().len(), MOST);
        assert_eq!(Levels::default().set("a", None), None);
    }
}

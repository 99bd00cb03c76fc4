//! Which list of tools is shown: one that changes at every probe must not write a status every time. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::probe::{
    schedule::TargetId,
    target::Target,
    tools::{self, ToolsList},
};

/// A list of tools that changes at every probe is shown at most once in so long.
const QUIET: Duration = Duration::from_mins(10);

/// A list that is shown, and the one that may take its place.
#[derive(Debug, Default)]
pub(super) struct ShownTools {
    pub(super) list: Option<Arc<ToolsList>>,
    at: Option<Instant>,
    /// What was offered at the last probe, and whether at the one before, too.
    candidate: Option<Arc<ToolsList>>,
    pub(super) steady: bool,
    /// When the list may be shown that waits.
    pub(super) due: Option<Instant>,
}

impl ShownTools {
    /// A new list is shown at once when the old one stood for long, or when it was seen twice in a row. The first is no change: the one
    /// after it may follow at once.
    pub(super) fn settle(&mut self, offered: Option<&Arc<ToolsList>>, now: Instant) {
        self.due = None;
        let Some(offered) = offered else { return };
        // Tools that are left out are no part of the digest, and are shown: whoever wrote them is to learn why nobody sees them.
        if self.list.as_ref().is_some_and(|list| list == offered) {
            return;
        }
        let quiet_until = self.at.map(|at| at + QUIET);
        if quiet_until.is_none_or(|until| until <= now) || self.steady {
            self.at = self.list.is_some().then_some(now);
            self.list = Some(Arc::clone(offered));
        } else {
            self.due = quiet_until;
        }
    }

    /// As `settle`, of a list that is there only while a pod differs: that it is there at all is news.
    pub(super) fn settle_odd(&mut self, offered: Option<&Arc<ToolsList>>, now: Instant) {
        if offered.is_none() {
            self.list = None;
        }
        let before = self.list.clone();
        self.settle(offered, now);
        if self.list != before {
            self.at = Some(now);
        }
    }

    /// Notes which list a probe saw: one that is seen twice in a row stays.
    pub(super) fn saw(&mut self, offered: Option<&Arc<ToolsList>>) {
        self.steady = offered.is_some() && offered == self.candidate.as_ref();
        self.candidate = offered.cloned();
    }
}

/// What the pods of a server offer.
#[derive(Debug)]
pub(super) struct Offered {
    /// What most of them do.
    pub(super) most: Option<Arc<ToolsList>>,
    /// What one of the others does that is not the accepted list. With Enforce it is what stalls a rollout.
    pub(super) odd: Option<Arc<ToolsList>>,
}

impl Offered {
    pub(super) fn by(targets: &BTreeMap<TargetId, Target>, accepted: Option<&str>) -> Self {
        let lists = || targets.values().filter(|target| target.reachable()).filter_map(Target::tools);
        let most = tools::majority(lists());
        let usual = |list: &Arc<ToolsList>| most.as_ref().is_some_and(|most| most.digest == list.digest);
        let odd = accepted.and_then(|accepted| lists().find(|list| *list.digest != *accepted && !usual(list)).cloned());
        Self { most, odd }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tools::Tool;

    fn list(left_out: &[&str]) -> Arc<ToolsList> {
        let tools = vec![Tool { name: "a".into(), hash: "hash of a".into() }];
        Arc::new(ToolsList::new(tools).without(left_out.iter().map(|name| (*name).into()).collect()))
    }

    #[test]
    fn a_broken_tool_that_comes_later_or_is_mended_is_shown() {
        let (mut shown, now) = (ShownTools::default(), Instant::now());
        for left_out in [vec![], vec!["broken"], vec![]] {
            let offered = list(&left_out);
            for _ in 0..2 {
                shown.saw(Some(&offered));
                shown.settle(Some(&offered), now);
            }
            assert_eq!(shown.list.as_ref(), Some(&offered));
        }
    }

    #[test]
    fn a_broken_tool_that_is_another_one_every_time_is_shown_seldom() {
        let (mut shown, now) = (ShownTools::default(), Instant::now());
        for name in ["", "one", "two", "three"] {
            let offered = list(&[name]);
            shown.saw(Some(&offered));
            shown.settle(Some(&offered), now);
        }
        assert_eq!(shown.list, Some(list(&["one"])), "the first is no change");
        assert_eq!(shown.due, Some(now + QUIET));
    }
}

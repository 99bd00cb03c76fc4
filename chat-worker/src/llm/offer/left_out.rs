//! Which tools a model is not offered, and that it is told once. Pure.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::tools::spec::exposed_name;

/// So many names a line has.
const NAMED: usize = 20;

/// A tool that the model is not offered, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub server: String,
    pub tool: String,
    pub reason: String,
}

/// Those that were told of last.
#[derive(Debug, Default)]
pub struct Told(Mutex<Vec<LeftOut>>);

impl Told {
    /// What is to be told of those that are left out now: a line for each reason, where they are not the same as before.
    pub fn news(&self, now: &[LeftOut]) -> Vec<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == now {
            return Vec::new();
        }
        now.clone_into(&mut told);
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for LeftOut { server, tool, reason } in now {
            reasons.entry(reason).or_default().push(exposed_name(server, tool));
        }
        reasons.into_iter().map(|(reason, names)| line(&names, reason)).collect()
    }
}

fn line(names: &[String], reason: &str) -> String {
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more (/v1/tools names all)"),
    };
    let names = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("the model is not told of {names}{more}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_once_after_each_change() {
        let told = Told::default();
        let out = |count: usize, reason: &str| -> Vec<LeftOut> {
            let one = |tool| LeftOut { server: "s".into(), tool: format!("t{tool}"), reason: reason.into() };
            (0..count).map(one).collect()
        };
        assert!(told.news(&[]).is_empty(), "there is nothing");
        assert_eq!(told.news(&out(2, "too large")), ["the model is not told of s__t0, s__t1: too large"]);
        assert!(told.news(&out(2, "too large")).is_empty(), "it is known");
        let both = [out(1, "too large"), out(NAMED + 3, "too many")].concat();
        let news = told.news(&both);
        assert_eq!((news.len(), news[0].as_str()), (2, "the model is not told of s__t0: too large"));
        assert!(news[1].ends_with("s__t19 and 3 more (/v1/tools names all): too many"), "{}", news[1]);
        assert!(told.news(&[]).is_empty());
        assert_eq!(told.news(&both).len(), 2, "again");
    }
}

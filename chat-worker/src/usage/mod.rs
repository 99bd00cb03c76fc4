//! What it costs: tokens and dollars of the day (UTC), by model and tool, and the daily budget. `price` knows what tokens
//! cost, `file` keeps the day's account over a restart.

pub mod file;
pub mod price;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::price::price;
use crate::{llm::ModelError, message::Usage};

/// Models that are accounted for one by one.
const MAX_MODELS: usize = 50;
/// And tools; a longer name is none of ours, in bytes.
const MAX_TOOLS: usize = 1_000;
const LONGEST_TOOL: usize = 128;

/// How many tokens a day may cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// 0: no limit.
    pub tokens_per_day: u64,
    pub alert_percent: u8,
}

impl Budget {
    fn percent(self, used: Usage) -> Option<u64> {
        used.total().saturating_mul(100).checked_div(self.tokens_per_day)
    }
}

/// How an answer was booked.
#[derive(Debug, Clone, PartialEq)]
pub struct Booked {
    /// The name under which the model is accounted for.
    pub model: String,
    /// Dollars, where the price is known.
    pub cost: Option<f64>,
}

/// The day's account.
#[derive(Debug)]
pub struct Ledger {
    budget: Budget,
    day: Mutex<Day>,
    /// Counts the entries, for whoever keeps the account.
    entries: watch::Sender<u64>,
}

/// One day. It begins empty at midnight UTC, and with the process unless `file` brings it back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Day {
    pub date: Date,
    pub usage: Usage,
    /// Of the answers whose price is known.
    pub cost: f64,
    /// Answers whose price is unknown; their cost is missing above.
    pub unpriced: u64,
    pub models: BTreeMap<String, Usage>,
    pub tools: BTreeMap<String, ToolUsage>,
    /// Percent of the budget; null without one.
    pub budget_percent: Option<u64>,
    #[serde(skip)]
    alerted: bool,
}

/// What a tool's results cost the conversation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ToolUsage {
    pub calls: u64,
    /// Estimated: four bytes to a token.
    pub result_tokens: u64,
    /// Dollars for reading these tokens once; null where a price is unknown. An estimate, too, and part of the day's cost.
    pub cost: Option<f64>,
}

impl Default for ToolUsage {
    fn default() -> Self {
        Self { calls: 0, result_tokens: 0, cost: Some(0.0) }
    }
}

impl Day {
    fn new(date: Date) -> Self {
        Self {
            date,
            usage: Usage::default(),
            cost: 0.0,
            unpriced: 0,
            models: BTreeMap::new(),
            tools: BTreeMap::new(),
            budget_percent: None,
            alerted: false,
        }
    }
}

impl Ledger {
    pub fn new(budget: Budget) -> Self {
        Self { budget, day: Mutex::new(Day::new(today())), entries: watch::Sender::new(0) }
    }

    /// Goes on from a day that was kept; another day than today is over.
    pub fn restore(&self, kept: Day) {
        self.with_day(today(), |day| {
            if kept.date == day.date {
                *day = kept;
                day.budget_percent = self.budget.percent(day.usage);
                day.alerted = day.budget_percent.is_some_and(|percent| percent >= self.budget.alert_percent.into());
            }
        });
    }

    /// Changes with every entry.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.entries.subscribe()
    }

    /// Books an answer. `prices` names whose prices hold.
    pub fn record(&self, model: &str, usage: Usage, prices: Option<&str>) -> Booked {
        let cost = prices.and_then(|list| price(list, model, usage));
        self.enter(|day| {
            day.usage += usage;
            // The name is the server's word: it must not make the account endless.
            let known = day.models.contains_key(model) || day.models.len() < MAX_MODELS;
            let model = if known { model } else { "other" };
            *day.models.entry(model.to_owned()).or_default() += usage;
            match cost {
                Some(cost) => day.cost += cost,
                None => day.unpriced += 1,
            }
            day.budget_percent = self.budget.percent(day.usage);
            Booked { model: model.to_owned(), cost }
        })
    }

    /// Books a tool's result, which this model will read.
    pub fn tool(&self, name: &str, bytes: usize, model: &str, prices: Option<&str>) {
        let tokens = bytes as u64 / 4;
        let read = Usage { input_tokens: tokens, ..Usage::default() };
        let cost = prices.and_then(|list| price(list, model, read));
        self.enter(|day| {
            // A model may call what it likes.
            let known = day.tools.contains_key(name) || (day.tools.len() < MAX_TOOLS && name.len() <= LONGEST_TOOL);
            let tool = day.tools.entry(if known { name } else { "other" }.to_owned()).or_default();
            tool.calls += 1;
            tool.result_tokens += tokens;
            tool.cost = tool.cost.zip(cost).map(|(sum, cost)| sum + cost);
        });
    }

    /// The error of a call that the budget does not allow any more.
    pub fn over_budget(&self) -> Option<ModelError> {
        let limit = self.budget.tokens_per_day;
        let used = self.with_day(today(), |day| day.usage.total());
        (limit > 0 && used >= limit).then(|| ModelError::Budget { limit, left: left_of_day(Timestamp::now()) })
    }

    /// The day so far.
    pub fn today(&self) -> Day {
        self.with_day(today(), |day| day.clone())
    }

    /// The warning that the budget comes to its end, once a day.
    pub fn alert(&self) -> Option<String> {
        let Budget { tokens_per_day, alert_percent } = self.budget;
        let text = self.with_day(today(), |day| {
            let percent = day.budget_percent.filter(|percent| *percent >= u64::from(alert_percent) && !day.alerted)?;
            day.alerted = true;
            Some(format!("{percent} % of the budget of {tokens_per_day} tokens a day are used."))
        })?;
        tracing::warn!("{text}");
        Some(text)
    }

    fn enter<T>(&self, act: impl FnOnce(&mut Day) -> T) -> T {
        let entered = self.with_day(today(), act);
        self.entries.send_modify(|entries| *entries += 1);
        entered
    }

    fn with_day<T>(&self, date: Date, act: impl FnOnce(&mut Day) -> T) -> T {
        let mut day = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        if day.date != date {
            *day = Day::new(date);
        }
        act(&mut day)
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned_datetime(TimeZone::UTC).date()
}

/// Until midnight UTC, in whole seconds: at least one.
fn left_of_day(now: Timestamp) -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    Duration::from_secs(DAY - now.as_second().rem_euclid(DAY.cast_signed()).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(count: u64) -> Usage {
        Usage { input_tokens: count, ..Usage::default() }
    }

    #[test]
    fn the_budget_stops_at_a_hundred_percent_and_a_new_day_begins_anew() {
        let ledger = Ledger::new(Budget { tokens_per_day: 100, alert_percent: 80 });
        ledger.record("m", tokens(90), None);
        assert!(ledger.over_budget().is_none());
        assert!(ledger.alert().is_some_and(|text| text.contains("90 %")) && ledger.alert().is_none(), "once a day");
        assert_eq!(ledger.today().budget_percent, Some(90));
        ledger.record("m", tokens(10), None);
        let error = ledger.over_budget().expect("an error");
        assert!(error.to_string().starts_with("this app's own budget of 100 tokens a day is used up"), "{error}");
        assert!(error.retry_after().is_some_and(|seconds| (1..=86_400).contains(&seconds)), "{error:?}");
        ledger.with_day(Date::constant(1999, 1, 1), |day| assert_eq!(day.usage.total(), 0));
    }

    #[test]
    fn the_day_ends_at_midnight_utc() {
        let left = |time: &str| left_of_day(time.parse().expect("a time")).as_secs();
        assert_eq!(left("2026-11-30T00:00:00Z"), 86_400);
        assert_eq!(left("2026-11-30T23:59:59.9Z"), 1);
        assert_eq!(left("2026-11-30T23:00:00+05:00"), 6 * 3_600);
    }

    #[test]
    fn a_day_that_was_kept_goes_on_and_yesterday_does_not() {
        let budget = Budget { tokens_per_day: 100, alert_percent: 80 };
        let first = Ledger::new(budget);
        first.record("m", tokens(90), None);
        let kept: Day = serde_json::from_value(serde_json::json!(first.today())).expect("readable");
        let second = Ledger::new(budget);
        second.restore(kept.clone());
        assert_eq!(second.today().usage.total(), 90);
        assert!(second.alert().is_none(), "it was told before the restart");
        second.record("m", tokens(10), None);
        assert!(second.over_budget().is_some());
        let third = Ledger::new(budget);
        third.restore(Day { date: kept.date.yesterday().expect("a day"), ..kept });
        assert_eq!(third.today().usage.total(), 0);
    }

    #[test]
    fn a_tool_whose_reader_has_no_price_has_no_cost() {
        let ledger = Ledger::new(Budget::default());
        ledger.tool("a", 4_000, "claude-haiku-5-5", Some("anthropic"));
        assert!(ledger.today().tools["a"].cost.is_some_and(|cost| cost > 0.0));
        ledger.tool("a", 4_000, "unheard-of", Some("anthropic"));
        let tool = ledger.today().tools["a"];
        assert_eq!((tool.calls, tool.result_tokens, tool.cost), (2, 2_000, None));
    }

    #[test]
    fn names_that_a_model_makes_up_do_not_make_the_account_endless() {
        let ledger = Ledger::new(Budget::default());
        ledger.tool(&"x".repeat(LONGEST_TOOL + 1), 4, "m", None);
        for name in 0..2 * MAX_TOOLS {
            ledger.tool(&name.to_string(), 4, "m", None);
        }
        let tools = ledger.today().tools;
        assert_eq!((tools.len(), tools["other"].calls), (MAX_TOOLS, 2 + MAX_TOOLS as u64));
    }
}

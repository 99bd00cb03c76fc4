//! What it costs: tokens and dollars of the day (UTC), by model and tool, and the daily budget. Prices come with a
//! library's data; a model that it does not know has no price, which is not the same as costing nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use genai_prices::{PriceRequest, UsageKey};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;

use crate::llm::{ModelError, wire::Usage};

/// Models that are accounted for one by one.
const MAX_MODELS: usize = 50;

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
}

/// One day. It begins empty at midnight UTC, and with the process.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ToolUsage {
    pub calls: u64,
    /// Estimated: four bytes to a token.
    pub result_tokens: u64,
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
        Self { budget, day: Mutex::new(Day::new(today())) }
    }

    /// Books an answer. `prices` names whose prices hold.
    pub fn record(&self, model: &str, usage: Usage, prices: Option<&str>) -> Booked {
        let cost = prices.and_then(|list| price(list, model, usage));
        self.with_day(today(), |day| {
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

    /// Books a tool's result.
    pub fn tool(&self, name: &str, bytes: usize) {
        self.with_day(today(), |day| {
            let tool = day.tools.entry(name.to_owned()).or_default();
            tool.calls += 1;
            tool.result_tokens += bytes as u64 / 4;
        });
    }

    /// The error of a call that the budget does not allow any more.
    pub fn over_budget(&self) -> Option<ModelError> {
        let limit = self.budget.tokens_per_day;
        let used = self.with_day(today(), |day| day.usage.total());
        (limit > 0 && used >= limit).then(|| ModelError::Status {
            status: 429,
            kind: Some("daily_budget_reached".to_owned()),
            message: format!("the budget of {limit} tokens a day is used up; it begins anew at midnight UTC"),
            retry_after: None,
        })
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

/// Decodes the price list, which the first use would otherwise wait for.
pub fn load_prices() {
    let _ = genai_prices::Calculator::bundled();
}

/// Dollars, where the price of exactly this model is known.
fn price(list: &str, model: &str, usage: Usage) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
    let count = |tokens: u64| tokens as f64;
    // The library's input includes what was read from and written to the cache; the API's does not.
    let input = usage.total().saturating_sub(usage.output_tokens);
    let usage = genai_prices::Usage::from([
        (UsageKey::INPUT_TOKENS, count(input)),
        (UsageKey::OUTPUT_TOKENS, count(usage.output_tokens)),
        (UsageKey::CACHE_READ_TOKENS, count(usage.cache_read_input_tokens)),
        (UsageKey::CACHE_WRITE_TOKENS, count(usage.cache_creation_input_tokens)),
    ]);
    let request = PriceRequest::new(model, &usage).with_provider_id(list);
    genai_prices::calculate(&request).ok().map(|price| price.total_price)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(count: u64) -> Usage {
        Usage { input_tokens: count, ..Usage::default() }
    }

    #[test]
    fn an_unknown_price_is_not_zero() {
        assert_eq!(price("anthropic", "stand-in", tokens(1_000)), None);
        assert_eq!(price("anthropic", "claude-fable-5-2", tokens(1_000)), None);
        assert!(price("anthropic", "claude-haiku-5-5", tokens(1_000)).is_some_and(|dollars| dollars > 0.0));
    }

    #[test]
    fn reading_the_cache_is_cheaper_than_reading_anew() {
        let cached = Usage { cache_read_input_tokens: 1_000_000, ..Usage::default() };
        let dollars = |usage| price("anthropic", "claude-haiku-5-5", usage).expect("known");
        assert!(dollars(cached) < dollars(tokens(1_000_000)));
    }

    #[test]
    fn the_budget_stops_at_a_hundred_percent_and_a_new_day_begins_anew() {
        let ledger = Ledger::new(Budget { tokens_per_day: 100, alert_percent: 80 });
        ledger.record("m", tokens(90), None);
        assert!(ledger.over_budget().is_none());
        assert!(ledger.alert().is_some_and(|text| text.contains("90 %")) && ledger.alert().is_none(), "once a day");
        assert_eq!(ledger.today().budget_percent, Some(90));
        ledger.record("m", tokens(10), None);
        assert!(ledger.over_budget().is_some());
        ledger.with_day(Date::constant(1999, 1, 1), |day| assert_eq!(day.usage.total(), 0));
    }
}
